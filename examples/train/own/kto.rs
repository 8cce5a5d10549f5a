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
use super::settings::Settings;
use super::sft::examples;
use crate::{Failure, Stage, tell};

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
    let Some(known) = references(run, &reference, &samples)? else {
        return Ok(Ended::Stopped);
    };
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

/// Runs after which the log-probabilities so far are kept.
const KEEP_EVERY: usize = 64;

/// What was computed once, and of what: other data or another model have other values.
#[derive(Debug, Serialize, Deserialize)]
struct References {
    of: u64,
    /// Those of the first runs; of all, unless it was stopped.
    values: Vec<f64>,
}

impl References {
    /// Those of the file, if there are any of the same model and data.
    fn load(path: &Path, of: u64) -> Self {
        let kept: Option<Self> = fs::read(path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let same = kept.filter(|kept| kept.of == of);
        let values = Vec::new();
        same.unwrap_or(Self { of, values })
    }

    /// Written beside and renamed, so that a kill leaves the values before.
    fn save(&self, path: &Path) -> Result<(), Failure> {
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_string(self)?)?;
        Ok(fs::rename(&new, path)?)
    }
}

/// Of the data what they are; of the model, whose files are large, their names, sizes and times, and in
/// which precision it computes.
fn fingerprint(model: &Path, precision: &str, data: &Path) -> Result<u64, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(model)? {
        let entry = entry?;
        let about = fs::metadata(entry.path())?;
        files.push((entry.path(), about.len(), about.modified()?));
    }
    files.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (files, precision, fs::read(data)?).hash(&mut hasher);
    Ok(hasher.finish())
}

/// The log-probability of each run under the reference model: computed once, and kept in the folder of
/// the run. `None` when it was stopped before all were known.
fn references(
    run: &Run,
    reference: &eva_burn::Qwen25Vl,
    samples: &[Sample],
) -> Result<Option<Vec<f64>>, Failure> {
    let path = run.settings.out.join("reference.json");
    let Settings {
        model,
        precision,
        data,
        ..
    } = &run.settings;
    let of = fingerprint(model, precision, data)?;
    let mut known = References::load(&path, of);
    let left = samples.get(known.values.len()..).unwrap_or_default();
    if left.is_empty() {
        return Ok(Some(known.values));
    }
    let mut footage = Footage::new(&run.settings)?;
    let mut kept = known.values.len();
    for chosen in left.chunks(run.settings.shard) {
        if run.is_stopped() {
            known.save(&path)?;
            tell("\n");
            return Ok(None);
        }
        let chosen: Vec<&Sample> = chosen.iter().collect();
        let made = examples(run, &mut footage, &chosen)?;
        let values = Kto::references(&made, reference, &run.encoder);
        known.values.extend(values);
        let done = known.values.len();
        tell(format_args!("\rreference {done}/{}", samples.len()));
        if done - kept >= KEEP_EVERY {
            known.save(&path)?;
            kept = done;
        }
    }
    tell("\n");
    known.save(&path)?;
    Ok(Some(known.values))
}
