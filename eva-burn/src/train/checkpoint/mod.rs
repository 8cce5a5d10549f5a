//! Checkpoints: a run that was killed at any moment goes on to the weights of an uninterrupted one.
//!
//! A directory holds the last two checkpoints, each a directory of its own:
//!
//! ```text
//! checkpoint-000041/
//! checkpoint-000042/
//!   model.safetensors     the weights (or adapters.safetensors: the adapters alone), in f32
//!   moments.safetensors   AdamW's two moments of each parameter, in f32
//!   state.json            the step, how the model is fitted, what the caller wants back
//!   checksums             XXH3 of the files above
//! checkpoint-000043.partial/   killed while it was written: never read, replaced by the next
//! ```

mod error;
mod files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use error::CheckpointError;

use super::optimizer::Moments;
use super::{Learn, Optimisation, Trainer, adapters};
use crate::config::ModelConfig;
use crate::model::Qwen25Vl;
use crate::weights::{self, Precision};
use files::{Tensors, Written};

const MODEL: &str = "model.safetensors";
const ADAPTERS: &str = "adapters.safetensors";
const MOMENTS: &str = "moments.safetensors";
const STATE: &str = "state.json";

/// What is neither weights nor moments.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    step: usize,
    optimisation: Value,
    /// Every parameter's path and shape.
    parameters: Vec<(String, Vec<usize>)>,
    /// With adapters, what the weights below them are.
    base: Option<u64>,
    /// In how many steps each parameter had a gradient.
    moments: BTreeMap<String, usize>,
    extra: Value,
}

impl Trainer {
    /// Writes a checkpoint into `dir`, which is made where it is missing, and removes those before the
    /// last two. Returns its own directory. A kill at any moment leaves the checkpoints before it as
    /// they were.
    ///
    /// - extra: whatever the caller needs to go on, such as the place in the data and seeds; handed
    ///   back by [`resume`](Self::resume). A fraction may come back with its last digit rounded
    ///   otherwise.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] or [`CheckpointError::Weights`] name the file that cannot be written.
    pub fn save(&self, dir: &Path, extra: &Value) -> Result<PathBuf, CheckpointError> {
        let checkpoint = Written::begin(dir)?;
        let base = match self.optimisation.learn {
            Learn::Decoder | Learn::Everything => {
                weights::save(
                    &self.model(),
                    self.config(),
                    checkpoint.path(),
                    Precision::F32,
                )?;
                checkpoint.seal(MODEL)?;
                None
            }
            Learn::Lora(_) => {
                let path = checkpoint.path().join(ADAPTERS);
                weights::write(&path, adapters::collect(&self.model), Precision::F32)?;
                checkpoint.seal(ADAPTERS)?;
                Some(adapters::base(&self.model))
            }
        };
        let mut moments = Vec::new();
        for (path, moment) in &self.optimizer.moments {
            for (kind, values) in [("first", &moment.first), ("second", &moment.second)] {
                let shape = vec![values.dims()[0]];
                let values = values.clone().try_into_vec_as().unwrap_or_default();
                moments.push((name(kind, path), shape, values));
            }
        }
        let path = checkpoint.path().join(MOMENTS);
        weights::write(&path, moments, Precision::F32)?;
        checkpoint.seal(MOMENTS)?;
        let steps = self.optimizer.moments.iter();
        let state = State {
            step: self.step,
            optimisation: value(&self.optimisation),
            parameters: adapters::listing(&self.model),
            base,
            moments: steps
                .map(|(path, moments)| (path.clone(), moments.steps))
                .collect(),
            extra: extra.clone(),
        };
        checkpoint.json(STATE, &state)?;
        checkpoint.finish()
    }

    /// Goes on from the last whole checkpoint in `dir`, and hands back what the caller stored with it.
    ///
    /// - model: the one that the run began with. Its device and number type are taken over; its weights
    ///   count only below adapters, and must be the same then.
    /// - optimisation: the one that the run began with.
    ///
    /// # Errors
    /// [`CheckpointError::None`] when there is no checkpoint, [`CheckpointError::Damaged`] when a file
    /// of the last one is not as it was written, [`CheckpointError::Mismatch`] when it belongs to another
    /// model or another optimisation; both name the file.
    pub fn resume(
        dir: &Path,
        model: Qwen25Vl,
        config: ModelConfig,
        optimisation: impl Into<Optimisation>,
    ) -> Result<(Self, Value), CheckpointError> {
        let dir = files::last(dir)?;
        files::verify(&dir)?;
        let path = dir.join(STATE);
        let state: State = files::read_json(&path)?;
        let mismatch = |what: String| CheckpointError::Mismatch {
            path: path.clone(),
            what,
        };
        let (device, precision) = (model.device(), model.precision());
        let mut trainer = Self::new(model, config, optimisation)?;
        if let Some(key) = difference(&state.optimisation, &value(&trainer.optimisation)) {
            return Err(mismatch(format!("another value of `{key}`")));
        }
        let parameters = adapters::listing(&trainer.model);
        let mut pairs = state.parameters.iter().zip(&parameters);
        if let Some((stored, (name, shape))) = pairs.find(|(stored, own)| stored != own) {
            return Err(mismatch(format!(
                "parameter {} of shape {:?} where the model has {name} of {shape:?}",
                stored.0, stored.1
            )));
        }
        if state.parameters.len() != parameters.len() {
            return Err(mismatch(format!(
                "{} parameters where the model has {}",
                state.parameters.len(),
                parameters.len()
            )));
        }
        match trainer.optimisation.learn {
            Learn::Decoder | Learn::Everything => {
                trainer.set(Qwen25Vl::load_as(
                    &trainer.config,
                    &dir,
                    &device,
                    precision,
                )?);
            }
            Learn::Lora(_) => {
                if state.base != Some(adapters::base(&trainer.model)) {
                    return Err(mismatch("adapters of other weights".to_owned()));
                }
                let path = dir.join(ADAPTERS);
                let tensors = Tensors::read(&path)?;
                let get = |path: &str, shape: &[usize]| tensors.values(path, shape);
                let model = adapters::restore(trainer.model, get)
                    .map_err(|name| files::damaged(&path, format!("{name} is not in it")))?;
                trainer.model = model;
            }
        }
        let path = dir.join(MOMENTS);
        let tensors = Tensors::read(&path)?;
        let device = device.without_autodiff();
        for (parameter, shape) in parameters {
            let Some(steps) = state.moments.get(&parameter) else {
                continue;
            };
            let moment = |kind| {
                let name = name(kind, &parameter);
                let count = shape.iter().product();
                let values = tensors.values(&name, &[count]);
                let values =
                    values.ok_or_else(|| files::damaged(&path, format!("{name} is not in it")))?;
                let data = TensorData::new(values, [count]);
                Ok::<_, CheckpointError>(Tensor::from_data(data, &device))
            };
            let moments = Moments {
                steps: *steps,
                first: moment("first")?,
                second: moment("second")?,
            };
            trainer.optimizer.moments.insert(parameter, moments);
        }
        trainer.step = state.step;
        Ok((trainer, state.extra))
    }
}

fn name(kind: &str, path: &str) -> String {
    format!("{kind}.{path}")
}

fn value(optimisation: &Optimisation) -> Value {
    // As it is after a way through a file, where a fraction's last digit may change.
    let text = serde_json::to_string(optimisation).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The first key whose values differ, with the tables that it lies in.
fn difference(stored: &Value, own: &Value) -> Option<String> {
    let (Value::Object(stored), Value::Object(own)) = (stored, own) else {
        return (stored != own).then(String::new);
    };
    let keys = stored.keys().chain(own.keys());
    keys.into_iter().find_map(|key| {
        let values = (stored.get(key), own.get(key));
        let inner = difference(
            values.0.unwrap_or(&Value::Null),
            values.1.unwrap_or(&Value::Null),
        )?;
        Some(if inner.is_empty() {
            key.clone()
        } else {
            format!("{key}.{inner}")
        })
    })
}
