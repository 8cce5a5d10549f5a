//! KTO on labelled runs of a file.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use eva::data::{Label, Sample};
use eva::train::{Ended, Kto, Labelled};
use eva_burn::train::kto::KtoConfig;
use serde::{Deserialize, Serialize};

use super::Run;
use super::data::{Course, Footage, samples};
use super::sft::examples;
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
    let reference = run.reference()?;
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
    let mut course = Course::over(&samples, settings);
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

/// What was computed once, and of what: other data or another model have other values.
#[derive(Debug, Serialize, Deserialize)]
struct References {
    of: u64,
    values: Vec<f64>,
}

/// Of the data what they are; of the model, whose files are large, their names, sizes and times.
fn fingerprint(model: &Path, data: &Path) -> Result<u64, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(model)? {
        let entry = entry?;
        let about = fs::metadata(entry.path())?;
        files.push((entry.path(), about.len(), about.modified()?));
    }
    files.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (files, fs::read(data)?).hash(&mut hasher);
    Ok(hasher.finish())
}

/// The log-probability of each run under the reference model: computed once, and kept in the folder of
/// the run.
fn references(
    run: &Run,
    reference: &eva_burn::Qwen25Vl,
    samples: &[Sample],
) -> Result<Vec<f64>, Failure> {
    let path = run.settings.out.join("reference.json");
    let of = fingerprint(&run.settings.model, &run.settings.data)?;
    let kept: Option<References> = fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let same = |kept: &References| kept.of == of && kept.values.len() == samples.len();
    if let Some(kept) = kept.filter(same) {
        return Ok(kept.values);
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
    let references = References { of, values: known };
    fs::write(&new, serde_json::to_string(&references)?)?;
    fs::rename(&new, &path)?;
    Ok(references.values)
}
