//! Supervised fine-tuning on runs of a file.

use eva::data::Sample;
use eva::train::{Ended, TrainError};
use eva_burn::train::{Batch, Example};

use super::Run;
use super::data::{Course, Footage, samples};
use crate::{Failure, Stage};

pub(super) fn learn(run: &Run) -> Result<Ended, Failure> {
    let settings = &run.settings;
    let samples = samples(&settings.data)?;
    let mut footage = Footage::new(settings)?;
    let mut course = Course::over(&samples, settings);
    run.learn(Stage::Sft, |trainer, step, measures| {
        let places = course.of(step, settings.batch);
        let chosen: Vec<&Sample> = places.iter().map(|place| &samples[*place]).collect();
        let mut examples = examples(run, &mut footage, &chosen)?;
        // Alike in length, so that little is padded.
        examples.sort_by_key(|example| example.tokens.len());
        let shards: Vec<Batch> = examples
            .chunks(settings.shard)
            .map(|examples| Batch::new(examples, &run.encoder.config))
            .collect();
        let report = trainer.sft(&shards);
        measures.add("loss", report.loss);
        measures.effort(&report.effort);
        let right = report.right.iter().flatten();
        let count = right.clone().filter(|right| **right).count();
        measures.add_share("right", count, right.count());
        Ok(())
    })
}

/// The runs with their frames, as they are learnt from.
pub(super) fn examples(
    run: &Run,
    footage: &mut Footage,
    samples: &[&Sample],
) -> Result<Vec<Example>, TrainError> {
    let mut examples = Vec::with_capacity(samples.len());
    for sample in samples {
        let name = &sample.pair.video;
        let failed = |error: &dyn std::fmt::Display| TrainError::Data(format!("{name}: {error}"));
        let mut video = footage.get(name).map_err(|error| failed(&error))?;
        let conversation = sample
            .conversation(&mut video)
            .map_err(|error| failed(&error))?;
        examples.push(run.encoder.example(&conversation)?);
    }
    Ok(examples)
}
