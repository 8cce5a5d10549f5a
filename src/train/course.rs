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
    /// [`TrainError`]: a step's own, [`TrainError::Diverged`], or a file.
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
        while trainer.steps() < steps {
            if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                self.save(&trainer, seconds())?;
                return Ok((trainer, Ended::Stopped));
            }
            let before = trainer.steps();
            step(&mut trainer, before, &mut measures)?;
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
