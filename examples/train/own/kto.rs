//! KTO on labelled runs of a file.

use std::fs;

use eva::data::{Label, Sample};
use eva::train::{Ended, Kto, Labelled};
use eva_burn::train::kto::KtoConfig;

use super::Run;
use super::data::{Course, Footage, samples};
use super::sft::{examples, tell};
use crate::{Failure, Stage};

pub(super) fn learn(run: &Run) -> Result<Ended, Failure> {
    let settings = &run.settings;
    let samples = samples(&settings.data)?;
    if let Some(unlabelled) = samples.iter().position(|sample| sample.label.is_none()) {
        let (file, line) = (settings.data.display(), unlabelled + 1);
        return Err(
            format!("{file}, run {line} has no `label`: make it by `build_data kto`").into(),
        );
    }
    let desirable = |sample: &Sample| sample.label == Some(Label::Desirable);
    let good = samples.iter().filter(|sample| desirable(sample)).count();
    let reference = run.model(&run.device)?;
    let known = references(run, &reference, &samples)?;
    let loss = KtoConfig {
        beta: settings.kto.beta,
        ..KtoConfig::default()
    };
    let kto = Kto {
        loss: loss.balanced(good, samples.len() - good),
        shard: settings.shard,
    };
    let mut footage = Footage::new(settings)?;
    let mut course = Course::new(
        samples.iter().map(|sample| sample.item).collect(),
        settings.seed,
    );
    tell(
        samples.len(),
        settings.batch,
        settings.optimisation.schedule.steps,
    );
    run.learn(Stage::Kto, |trainer, step, measures| {
        let places = course.of(step, settings.batch);
        let chosen: Vec<&Sample> = places.iter().map(|place| &samples[*place]).collect();
        let made = examples(run, &mut footage, &chosen)?
            .into_iter()
            .zip(&places);
        let runs = made.map(|(example, place)| Labelled {
            example,
            desirable: desirable(&samples[*place]),
            reference: known.get(*place).copied(),
        });
        kto.learn(trainer, &reference, &run.encoder, runs.collect(), measures)
    })
}

/// The log-probability of each run under the reference model: computed once, and kept in the folder of
/// the run.
fn references(
    run: &Run,
    reference: &eva_burn::Qwen25Vl,
    samples: &[Sample],
) -> Result<Vec<f64>, Failure> {
    let path = run.settings.out.join("reference.json");
    let kept: Option<Vec<f64>> = fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(kept) = kept.filter(|kept| kept.len() == samples.len()) {
        return Ok(kept);
    }
    let mut footage = Footage::new(&run.settings)?;
    let mut known = Vec::with_capacity(samples.len());
    for chosen in samples.chunks(run.settings.shard) {
        let chosen: Vec<&Sample> = chosen.iter().collect();
        let made = examples(run, &mut footage, &chosen)?;
        known.extend(Kto::references(&made, reference, &run.encoder));
        eprint!("\rreference {}/{}", known.len(), samples.len());
    }
    eprintln!();
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_string(&known)?)?;
    fs::rename(&new, &path)?;
    Ok(known)
}
