//! The loop that all stages share: [`Course`].

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use eva_burn::train::{CheckpointError, Optimisation, Trainer};
use eva_burn::{Device, ModelConfig, Qwen25Vl};
use serde::{Deserialize, Serialize};

use super::{Measures, TrainError};

/// A stage of a run: how often it reports and keeps its state, and where.
///
/// A folder of a run holds `metrics.jsonl`, with the lines of all stages, and a folder for each stage
/// with its checkpoint. A stage whose process was killed, at any moment, goes on from there to the
/// same weights as one that was not.
#[derive(Debug, Clone)]
pub struct Course<'a> {
    /// The stage's name.
    pub stage: &'a str,
    /// The folder of the run.
    pub folder: &'a Path,
    /// Steps between two lines of the metrics.
    pub report_every: usize,
    /// Steps between two checkpoints.
    pub save_every: usize,
    /// Once true, the stage keeps its state and ends.
    pub stop: Option<&'a AtomicBool>,
}

/// What a stage begins with.
#[derive(Debug)]
pub struct Beginning {
    /// The model, on an autodiff device.
    pub model: Qwen25Vl,
    /// Its configuration.
    pub config: ModelConfig,
    /// How it is fitted; its schedule says how many steps there are.
    pub optimisation: Optimisation,
    /// Shards that are worked on at a time on each device; 0 for what the model's device suits.
    pub threads: usize,
    /// Further devices that shards are spread over ([`Trainer::with_devices`]).
    pub devices: Vec<Device>,
}

/// A line of `metrics.jsonl`: means over the steps since the line before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The stage.
    pub stage: String,
    /// Steps taken.
    pub step: usize,
    /// Steps of the stage.
    pub steps: usize,
    /// Seconds of training, those before an interruption included.
    pub seconds: f64,
    /// Means by name, such as `loss`.
    #[serde(flatten)]
    pub means: std::collections::BTreeMap<String, f64>,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All its steps are taken.
    Done,
    /// It was stopped; it can go on later.
    Stopped,
}

/// What a checkpoint holds beside the trainer.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Position {
    seconds: f64,
}

impl Course<'_> {
    /// Takes the steps of the schedule that are not taken yet: all of them, or those after the last
    /// checkpoint.
    ///
    /// - step: takes the step of the given number, from 0, and tells what it measured. What it learns
    ///   from has to follow from that number alone, or a run that was interrupted takes another way.
    /// - on_line: is given each line of the metrics
    ///
    /// # Errors
    /// [`TrainError`]: a step's own, [`TrainError::Diverged`], or a file. The steps before one that fails
    /// before it changes a weight are kept; after any other error the last checkpoint stays as it is.
    pub fn run(
        &self,
        beginning: Beginning,
        mut step: impl FnMut(&mut Trainer, usize, &mut Measures) -> Result<(), TrainError>,
        on_line: &mut dyn FnMut(&Line),
    ) -> Result<(Trainer, Ended), TrainError> {
        let (mut trainer, position) = self.begin(beginning)?;
        let steps = trainer.optimisation().schedule.steps;
        self.drop_lines_after(trainer.steps())?;
        fs::create_dir_all(self.folder).map_err(|source| file("make", self.folder, source))?;
        let metrics_path = self.metrics();
        let mut metrics = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&metrics_path)
            .map_err(|source| file("write", &metrics_path, source))?;
        let started = Instant::now();
        let seconds = || position.seconds + started.elapsed().as_secs_f64();
        let mut measures = Measures::default();
        let mut saved = trainer.steps();
        while trainer.steps() < steps {
            if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                self.save(&trainer, seconds())?;
                return Ok((trainer, Ended::Stopped));
            }
            let before = trainer.steps();
            if let Err(error) = step(&mut trainer, before, &mut measures) {
                // What it learns from can't be had, and no weight has changed: the steps before it are
                // kept. Without any there is nothing to go on from, and the settings can still change.
                if trainer.steps() == before && before > saved {
                    self.save(&trainer, seconds())?;
                }
                return Err(error);
            }
            let taken = trainer.steps();
            if let Some(loss) = measures.mean("loss").filter(|loss| !loss.is_finite()) {
                return Err(TrainError::Diverged {
                    stage: self.stage.to_owned(),
                    step: taken,
                    loss,
                });
            }
            let is_due =
                |every: usize| before / every.max(1) < taken / every.max(1) || taken >= steps;
            // Lines end where checkpoints are, so that means are of the same steps after a resume.
            if is_due(self.report_every) || is_due(self.save_every) {
                let line = Line {
                    stage: self.stage.to_owned(),
                    step: taken,
                    steps,
                    seconds: seconds(),
                    means: std::mem::take(&mut measures).means(),
                };
                let mut text = serde_json::to_string(&line).unwrap_or_default();
                text.push('\n');
                metrics
                    .write_all(text.as_bytes())
                    .map_err(|source| file("write", &metrics_path, source))?;
                on_line(&line);
            }
            if is_due(self.save_every) {
                self.save(&trainer, seconds())?;
                saved = taken;
            }
        }
        Ok((trainer, Ended::Done))
    }

    fn metrics(&self) -> PathBuf {
        self.folder.join("metrics.jsonl")
    }

    fn checkpoint(&self) -> PathBuf {
        self.folder.join(self.stage).join("checkpoint")
    }

    fn begin(&self, beginning: Beginning) -> Result<(Trainer, Position), TrainError> {
        let Beginning {
            model,
            config,
            optimisation,
            threads,
            devices,
        } = beginning;
        let folder = self.checkpoint();
        let resumed = Trainer::resume(&folder, model.clone(), config.clone(), optimisation.clone());
        let (trainer, position) = match resumed {
            Ok((trainer, extra)) => (trainer, serde_json::from_value(extra).unwrap_or_default()),
            Err(CheckpointError::None { .. }) => {
                let trainer = Trainer::new(model, config, optimisation)?;
                (trainer, Position::default())
            }
            Err(error) => return Err(error.into()),
        };
        let trainer = match threads {
            0 => trainer,
            threads => trainer.with_threads(threads)?,
        };
        Ok((trainer.with_devices(&devices)?, position))
    }

    fn save(&self, trainer: &Trainer, seconds: f64) -> Result<(), TrainError> {
        let extra = serde_json::json!({ "seconds": seconds });
        trainer.save(&self.checkpoint(), &extra)?;
        Ok(())
    }

    /// Takes out the lines of steps that will be taken again, and one that was cut short.
    fn drop_lines_after(&self, taken: usize) -> Result<(), TrainError> {
        let path = self.metrics();
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(());
        };
        let stays = |text: &&str| {
            let line = serde_json::from_str::<Line>(text);
            line.is_ok_and(|line| line.stage != self.stage || line.step <= taken)
        };
        let kept: Vec<&str> = text.lines().filter(stays).collect();
        if kept.len() == text.lines().count() && (text.is_empty() || text.ends_with('\n')) {
            return Ok(());
        }
        let mut kept = kept.join("\n");
        if !kept.is_empty() {
            kept.push('\n');
        }
        let new = path.with_extension("jsonl.new");
        fs::write(&new, kept).map_err(|source| file("write", &new, source))?;
        fs::rename(&new, &path).map_err(|source| file("replace", &path, source))
    }
}

fn file(action: &'static str, path: &Path, source: std::io::Error) -> TrainError {
    TrainError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use eva_burn::train::{Batch, Schedule};
    use eva_core::{Conversation, OwnedMessage, RgbImage, Role, VideoInfo};

    use super::super::Encoder;
    use super::*;

    /// What the steps of a stage do.
    type Step = fn(usize) -> Result<f64, TrainError>;

    /// Takes up to six steps, with a checkpoint after every four; gives what stopped them, and how many steps
    /// are kept.
    fn run(folder: &Path, loss: Step) -> (Result<usize, TrainError>, Option<usize>) {
        let encoder = Encoder::load(folder).unwrap();
        let device = Device::flex().autodiff();
        let video = VideoInfo {
            duration: 10.0,
            width: 64,
            height: 48,
            fps: 10.0,
        };
        let mut conversation =
            Conversation::<RgbImage>::open(&video, &[(Role::User, "Who wins?")]).unwrap();
        conversation.push(OwnedMessage::text(Role::Assistant, "<answer>2</answer>"));
        let example = encoder.example(&conversation).unwrap();
        let batch = Batch::new(&[example], &encoder.config);
        let beginning = || Beginning {
            model: Qwen25Vl::load(&encoder.config, folder, &device).unwrap(),
            config: encoder.config.clone(),
            optimisation: Schedule::new(1e-4, 0, 6).into(),
            threads: 1,
            devices: Vec::new(),
        };
        let course = Course {
            stage: "sft",
            folder,
            report_every: 4,
            save_every: 4,
            stop: None,
        };
        let step = |trainer: &mut Trainer, step: usize, measures: &mut Measures| {
            measures.add("loss", loss(step)?);
            trainer.sft(std::slice::from_ref(&batch));
            Ok(())
        };
        let ended = course.run(beginning(), step, &mut |_| {});
        let Beginning {
            model,
            config,
            optimisation,
            ..
        } = beginning();
        let kept = match Trainer::resume(&course.checkpoint(), model, config, optimisation) {
            Ok((trainer, _)) => Some(trainer.steps()),
            Err(CheckpointError::None { .. }) => None,
            Err(error) => panic!("{error}"),
        };
        (ended.map(|(trainer, _)| trainer.steps()), kept)
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        eva_burn::bundled::unpack(dir.path()).unwrap();
        dir
    }

    fn lost(at: usize, step: usize) -> Result<f64, TrainError> {
        if step == at {
            return Err(TrainError::Data("no such video".to_owned()));
        }
        Ok(1.0)
    }

    #[test]
    fn a_step_whose_data_cannot_be_had_keeps_the_steps_before_it() {
        let dir = folder();
        let (ended, kept) = run(dir.path(), |step| lost(5, step));
        assert_eq!(ended.unwrap_err().to_string(), "no such video");
        assert_eq!(kept, Some(5));
        // Once they are there, it goes on with that step.
        let (ended, kept) = run(dir.path(), |step| lost(4, step));
        assert_eq!((ended.unwrap(), kept), (6, Some(6)));
    }

    #[test]
    fn a_first_step_that_fails_leaves_nothing_to_go_on_from() {
        let dir = folder();
        let (ended, kept) = run(dir.path(), |step| lost(0, step));
        ended.unwrap_err();
        assert_eq!(kept, None);
    }

    #[test]
    fn a_loss_that_is_no_number_leaves_the_last_checkpoint_as_it_is() {
        let dir = folder();
        let diverges = |step| Ok(if step == 5 { f64::NAN } else { 1.0 });
        let (ended, kept) = run(dir.path(), diverges);
        let step = match ended {
            Err(TrainError::Diverged { step, .. }) => step,
            other => panic!("{other:?}"),
        };
        assert_eq!((step, kept), (6, Some(4)));
    }
}
