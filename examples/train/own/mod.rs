//! One stage on data of one's own: [`run`].

mod data;
mod grpo;
mod kto;
mod settings;
mod sft;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use eva::train::{Beginning, Course, Encoder, Ended, Measures, TrainError};
use eva_burn::train::Trainer;
use eva_burn::weights::save;
use eva_burn::{Device, DeviceChoice, Qwen25Vl};

use crate::worlds::{copy_files, print};
use crate::{Failure, Stage, curves, exit};
use settings::Settings;

/// What a stage works with.
struct Run {
    settings: Settings,
    encoder: Encoder,
    device: Device,
}

/// Runs a stage as a file says.
pub(crate) fn run(stage: Stage, config: &Path) -> Result<ExitCode, Failure> {
    let settings = Settings::load(config)?;
    let device: DeviceChoice = settings.device.parse()?;
    let run = Run {
        encoder: Encoder::load(&settings.model)?,
        device: device.open()?,
        settings,
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
    match ended {
        Ended::Done => {
            println!(
                "the model is in {}",
                run.settings.out.join("model").display()
            );
            Ok(ExitCode::SUCCESS)
        }
        Ended::Stopped => {
            println!("stopped; the same command goes on from here");
            Ok(ExitCode::from(exit::INTERRUPTED))
        }
    }
}

impl Run {
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
        let stop = exit::on_signal()?;
        let course = Course {
            stage: stage.name(),
            folder: &settings.out,
            report_every: settings.report_every,
            save_every: settings.save_every,
            stop: Some(&*stop),
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
            let folder = settings.out.join("model");
            copy_files(&settings.model, &folder)?;
            let precision = settings.precision.parse()?;
            save(&trainer.model(), &self.encoder.config, &folder, precision)?;
        }
        Ok(ended)
    }
}
