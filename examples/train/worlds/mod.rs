//! The stages on synthetic worlds.

mod answers;
mod base;
mod enhance;
mod exam;
mod grpo;
mod kto;
mod lessons;
mod questions;
mod sft;
mod sight;
mod uniform;
mod video;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use eva::train::{Beginning, Course, Encoder, Ended, Line, Measures, TrainError};
use eva::world::Split;
use eva_burn::train::{Optimisation, Trainer};
use eva_burn::weights::{Precision, save};
use eva_burn::{Device, Qwen25Vl};

use crate::{Arguments, Failure, MOST, Stage, code, curves, exit, say};
use exam::{Exam, Scores};
#[cfg(all(feature = "data", feature = "gst"))]
pub(crate) use video::{Video, VideoError};

/// The stages that make a model out of the one before.
const LEARNT: [Stage; 4] = [Stage::Sight, Stage::Sft, Stage::Kto, Stage::Grpo];

/// What a stage works with.
struct Run<'a> {
    arguments: &'a Arguments,
    encoder: Encoder,
    device: Device,
    stop: Arc<AtomicBool>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    for (option, value) in [
        ("batch", arguments.batch),
        ("prompts", arguments.prompts),
        ("rollouts", arguments.rollouts),
        ("threads", arguments.threads),
    ] {
        if !(1..=MOST).contains(&value) {
            return Err(format!("--{option} is {value}: give a number from 1 to {MOST}").into());
        }
    }
    if !(0.0..1.0).contains(&arguments.token_cost) {
        return Err(format!(
            "--token-cost is {}: give a number from 0 to 1",
            arguments.token_cost
        )
        .into());
    }
    // What the evaluation can't do is to be known before an hour of training.
    let exam = Exam::new(arguments)?;
    let stop = exit::on_signal()?;
    let out = &arguments.out;
    let wants = |stage| arguments.stage == Stage::All || arguments.stage == stage;
    let base = out.join(Stage::Base.name());
    if wants(Stage::Base) && !base.join("config.json").exists() {
        fs::create_dir_all(&base)?;
        base::write(&base)?;
    }
    if arguments.stage == Stage::Base {
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.stage == Stage::Eval {
        return Ok(code(evaluate(arguments, &exam, &stop)?));
    }
    let run = Run {
        arguments,
        encoder: Encoder::load(&base)?,
        device: arguments.device.open()?,
        stop,
    };
    let learnt = LEARNT.into_iter().chain([Stage::Uniform]);
    for stage in learnt.filter(|stage| {
        wants(*stage) && (*stage != Stage::Uniform || arguments.stage == Stage::Uniform)
    }) {
        let ended = match stage {
            Stage::Sight => sight::learn(&run),
            Stage::Sft => sft::learn(&run),
            Stage::Kto => kto::learn(&run),
            Stage::Grpo => grpo::learn(&run),
            _ => uniform::learn(&run),
        }?;
        curves::draw(out)?;
        if ended == Ended::Stopped {
            return Ok(code(ended));
        }
    }
    if arguments.stage == Stage::All {
        return Ok(code(evaluate(arguments, &exam, &run.stop)?));
    }
    Ok(ExitCode::SUCCESS)
}

impl Run<'_> {
    /// The model directory of a stage.
    fn folder(&self, stage: Stage) -> PathBuf {
        self.arguments.out.join(stage.name())
    }

    /// The model of a stage that is done.
    fn load(&self, stage: Stage, device: &Device) -> Result<Qwen25Vl, Failure> {
        let folder = self.folder(stage);
        if !folder.join("model.safetensors").exists() {
            let (name, out) = (stage.name(), self.arguments.out.display());
            return Err(
                format!("{out} has no finished stage `{name}`: run `train {name}` first").into(),
            );
        }
        Ok(Qwen25Vl::load(&self.encoder.config, &folder, device)?)
    }

    /// Takes the steps of a stage and writes its model directory.
    fn learn(
        &self,
        stage: Stage,
        model: Qwen25Vl,
        optimisation: Optimisation,
        every: usize,
        step: impl FnMut(&mut Trainer, usize, &mut Measures) -> Result<(), TrainError>,
    ) -> Result<Ended, Failure> {
        let course = Course {
            stage: stage.name(),
            folder: &self.arguments.out,
            report_every: every,
            save_every: self.arguments.save_every.unwrap_or(4 * every),
            stop: Some(&*self.stop),
        };
        let beginning = Beginning {
            model,
            config: self.encoder.config.clone(),
            optimisation,
            threads: self.arguments.threads,
            devices: Vec::new(),
        };
        let (trainer, ended) = course.run(beginning, step, &mut print)?;
        if ended == Ended::Done {
            let folder = self.folder(stage);
            copy_files(&self.folder(Stage::Base), &folder)?;
            save(
                &trainer.model(),
                &self.encoder.config,
                &folder,
                Precision::F32,
            )?;
        }
        Ok(ended)
    }
}

/// Tells how a stage goes on.
pub(crate) fn print(line: &Line) {
    let Line {
        stage,
        step,
        steps,
        seconds,
        means,
    } = line;
    let means = means
        .iter()
        .map(|(name, mean)| format!(" {name} {mean:.3}"));
    let means = means.collect::<Vec<_>>().concat();
    say(format_args!("{stage} {step}/{steps} {seconds:.0} s{means}"));
}

/// Everything of a model directory but the weights.
pub(crate) fn copy_files(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name().filter(|_| path.is_file()) else {
            continue;
        };
        let shown = name.to_string_lossy();
        if !shown.ends_with(".safetensors") && !shown.ends_with(".safetensors.index.json") {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// The model of the last finished stage.
fn last(out: &Path) -> Result<PathBuf, Failure> {
    let folders = LEARNT.iter().rev().map(|stage| out.join(stage.name()));
    let mut whole = folders.filter(|folder| folder.join("model.safetensors").exists());
    whole
        .next()
        .ok_or_else(|| format!("{} has no trained model", out.display()).into())
}

/// Asks one model, or with `all` that of each stage since fine-tuning, and keeps the scores.
fn evaluate(arguments: &Arguments, exam: &Exam, stop: &AtomicBool) -> Result<Ended, Failure> {
    if arguments.stage != Stage::All {
        let (_, ended) = match &arguments.model {
            Some(model) => exam.run(model, &arguments.out, stop)?,
            None => {
                let model = last(&arguments.out)?;
                exam.run(&model, &model, stop)?
            }
        };
        return Ok(ended);
    }
    let mut stages: BTreeMap<&str, Scores> = BTreeMap::new();
    for stage in [Stage::Sft, Stage::Kto, Stage::Grpo] {
        say(format_args!("{}:", stage.name()));
        let model = arguments.out.join(stage.name());
        let (scores, ended) = exam.run(&model, &model, stop)?;
        if ended == Ended::Stopped {
            return Ok(ended);
        }
        stages.insert(stage.name(), scores);
    }
    let report = serde_json::json!({
        "seed": arguments.seed,
        "split": format!("{:?}", exam.split).to_lowercase(),
        "questions": exam.numbers.len(),
        "stages": stages,
    });
    fs::write(arguments.out.join("report.json"), format!("{report:#}\n"))?;
    Ok(Ended::Done)
}
