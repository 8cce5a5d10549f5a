//! One stage on data of one's own: [`run`].

mod data;
mod grpo;
mod kto;
mod settings;
mod sft;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eva::train::{Beginning, Course, Encoder, Ended, Measures, TrainError};
use eva_burn::train::Trainer;
use eva_burn::weights::save;
use eva_burn::{Device, DeviceChoice, Qwen25Vl};

use crate::worlds::{copy_files, print};
use crate::{Failure, Stage, code, curves, exit, say};
use settings::Settings;

/// What a stage works with.
struct Run {
    settings: Settings,
    encoder: Encoder,
    device: Device,
    stop: Arc<AtomicBool>,
}

/// Runs a stage as a file says.
pub(crate) fn run(stage: Stage, config: &Path) -> Result<ExitCode, Failure> {
    let settings = Settings::load(config)?;
    refuse_to_overwrite(&settings)?;
    // Before anything that takes long.
    let stop = exit::on_signal()?;
    let device: DeviceChoice = settings.device.parse()?;
    let run = Run {
        encoder: Encoder::load(&settings.model)?,
        device: device.open()?,
        settings,
        stop,
    };
    fs::create_dir_all(&run.settings.out)?;
    let ended = match stage {
        Stage::Sft => sft::learn(&run),
        Stage::Kto => kto::learn(&run),
        Stage::Grpo => grpo::learn(&run),
        other => {
            let name = other.name();
            Err(format!("`{name}` takes no --config: it is about synthetic worlds").into())
        }
    }?;
    curves::draw(&run.settings.out)?;
    if ended == Ended::Done {
        let new = run.settings.new_model();
        say(format_args!("the model is in {}", new.display()));
    }
    Ok(code(ended))
}

/// A model that the stage reads must not lie where it writes the new one: it would be lost, and with it
/// what the stage could be run from again.
fn refuse_to_overwrite(settings: &Settings) -> Result<(), Failure> {
    // What is not there yet is nobody's model.
    let Ok(new) = settings.new_model().canonicalize() else {
        return Ok(());
    };
    for read in settings.grpo.judge.iter().chain([&settings.model]) {
        if read.canonicalize().is_ok_and(|read| read == new) {
            let (read, out) = (read.display(), settings.out.display());
            return Err(format!(
                "{read} is where the new model would be written, over this one: choose another `out` than {out}"
            )
            .into());
        }
    }
    Ok(())
}

impl Run {
    /// Whether the stage is to keep what it has and end.
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The model as it was before the stage.
    fn model(&self, device: &Device) -> Result<Qwen25Vl, Failure> {
        let Settings {
            model, precision, ..
        } = &self.settings;
        let config = &self.encoder.config;
        Ok(Qwen25Vl::load_as(
            config,
            model,
            device,
            precision.parse()?,
        )?)
    }

    /// The same to compare with: computed as the model in training is, in the same precision, so that what
    /// they differ by is what was learnt.
    fn reference(&self) -> Result<Qwen25Vl, Failure> {
        Ok(self
            .model(&self.device.clone().autodiff())?
            .without_gradients())
    }

    /// Takes the steps of a stage and writes the model's directory.
    fn learn(
        &self,
        stage: Stage,
        step: impl FnMut(&mut Trainer, usize, &mut Measures) -> Result<(), TrainError>,
    ) -> Result<Ended, Failure> {
        let settings = &self.settings;
        let course = Course {
            stage: stage.name(),
            folder: &settings.out,
            report_every: settings.report_every,
            save_every: settings.save_every,
            stop: Some(&*self.stop),
        };
        let beginning = Beginning {
            model: self.model(&self.device.clone().autodiff())?,
            config: self.encoder.config.clone(),
            optimisation: settings.optimisation.clone(),
            threads: settings.threads,
            devices: (settings.more_devices.iter())
                .map(|device| Ok(device.parse::<DeviceChoice>()?.open()?))
                .collect::<Result<_, Failure>>()?,
        };
        let (trainer, ended) = course.run(beginning, step, &mut print)?;
        if ended == Ended::Done {
            let folder = settings.new_model();
            copy_files(&settings.model, &folder)?;
            let precision = settings.precision.parse()?;
            save(&trainer.model(), &self.encoder.config, &folder, precision)?;
        }
        Ok(ended)
    }
}
