//! What can be chosen about optimisation; read from a configuration file, or built in code.

use serde::{Deserialize, Serialize};

use super::TrainerError;
use crate::config::ModelConfig;

/// How a model is fitted: AdamW, the learning rate over the run, and what is learnt at all.
///
/// As TOML, with everything that has a default:
///
/// ```toml
/// beta_1 = 0.9
/// beta_2 = 0.98
/// epsilon = 1e-8
/// weight_decay = 0.01
/// clip_norm = 1.0               # inf: no clip
/// checkpoint_activations = false
/// learn = "decoder"             # or "everything", or { lora = { rank = 8, alpha = 16.0, seed = 0 } }
///
/// [schedule]
/// peak = 1e-3                   # required
/// steps = 1000                  # required
/// warmup = 0
/// decay = { cosine = { to = 0.1 } } # or "constant"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimisation {
    /// How much of the mean gradient is kept from step to step, from 0 to below 1.
    #[serde(default = "defaults::beta_1")]
    pub beta_1: f64,
    /// How much of the mean squared gradient is kept from step to step, from 0 to below 1.
    #[serde(default = "defaults::beta_2")]
    pub beta_2: f64,
    /// Added to the root of the mean square, above 0.
    #[serde(default = "defaults::epsilon")]
    pub epsilon: f64,
    /// How fast weights decay: by the rate times this in each step, at least 0.
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: f64,
    /// The largest norm of the gradient of all parameters together: a longer one is shortened to
    /// it. Infinity clips nothing.
    #[serde(default = "defaults::clip_norm")]
    pub clip_norm: f64,
    /// Whether results of cheap operations are computed again for the gradient, instead of being
    /// kept: less memory, more time.
    #[serde(default)]
    pub checkpoint_activations: bool,
    /// What is learnt.
    #[serde(default)]
    pub learn: Learn,
    /// The learning rate over the run.
    pub schedule: Schedule,
}

mod defaults {
    pub(super) const fn beta_1() -> f64 {
        0.9
    }
    pub(super) const fn beta_2() -> f64 {
        0.98
    }
    pub(super) const fn epsilon() -> f64 {
        1e-8
    }
    pub(super) const fn weight_decay() -> f64 {
        0.01
    }
    pub(super) const fn clip_norm() -> f64 {
        1.0
    }
}

/// Which weights a step changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Learn {
    /// The decoder's; the vision tower sees as it did.
    #[default]
    Decoder,
    /// All of them.
    Everything,
    /// Low-rank adapters of the decoder's linear layers; the weights themselves stay.
    Lora(Lora),
}

/// Low-rank adaptation: each weight `W` of the decoder's layers becomes `W + alpha / rank * A B`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Columns of `A` and rows of `B`, at least 1 and at most the decoder's `hidden_size`.
    pub rank: usize,
    /// How strongly adapters count, above 0.
    pub alpha: f64,
    /// The numbers that `A` starts with (`B` starts with zeros). The device's random numbers are
    /// seeded with it.
    #[serde(default)]
    pub seed: u64,
}

/// The learning rate over a run: a linear rise, then a decay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The highest rate, above 0.
    pub peak: f64,
    /// Steps of the rise, at most `steps`.
    #[serde(default)]
    pub warmup: usize,
    /// Steps of the run, at least 1; the rate stays at its last value after them.
    pub steps: usize,
    /// What follows the rise.
    #[serde(default)]
    pub decay: Decay,
}

/// The learning rate after the rise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// It stays at its peak.
    Constant,
    /// Half a cosine down to a fraction of the peak.
    Cosine {
        /// The fraction, from 0 to 1.
        to: f64,
    },
}

impl Default for Decay {
    fn default() -> Self {
        Self::Cosine { to: 0.1 }
    }
}

impl Schedule {
    /// A rise to `peak` over `warmup` steps, then a cosine to a tenth of it until step `steps`.
    #[must_use]
    pub fn new(peak: f64, warmup: usize, steps: usize) -> Self {
        Self {
            peak,
            warmup,
            steps,
            decay: Decay::default(),
        }
    }

    /// The rate at a step, counted from 0.
    #[must_use]
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let Decay::Cosine { to } = self.decay else {
            return self.peak;
        };
        let span = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / span).min(1.0);
        let height = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.peak * (to + (1.0 - to) * height)
    }
}

impl From<Schedule> for Optimisation {
    fn from(schedule: Schedule) -> Self {
        Self::new(schedule)
    }
}

impl Optimisation {
    /// The defaults with a schedule.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self {
            beta_1: defaults::beta_1(),
            beta_2: defaults::beta_2(),
            epsilon: defaults::epsilon(),
            weight_decay: defaults::weight_decay(),
            clip_norm: defaults::clip_norm(),
            checkpoint_activations: false,
            learn: Learn::default(),
            schedule,
        }
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// [`TrainerError::Setting`] names the first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), TrainerError> {
        let Schedule {
            peak,
            warmup,
            steps,
            decay,
        } = self.schedule;
        // As the optimizer gets it: what is below 1 in f64 can be 1 in f32.
        let kept = |beta: f64| (0.0..1.0).contains(&(beta as f32));
        let positive = |value: f64| value > 0.0 && value.is_finite();
        check("beta_1", self.beta_1, "0 to below 1", kept(self.beta_1))?;
        check("beta_2", self.beta_2, "0 to below 1", kept(self.beta_2))?;
        check(
            "epsilon",
            self.epsilon,
            "a number above 0",
            positive(f64::from(self.epsilon as f32)),
        )?;
        let decays = self.weight_decay >= 0.0 && self.weight_decay.is_finite();
        check("weight_decay", self.weight_decay, "0 or more", decays)?;
        check(
            "clip_norm",
            self.clip_norm,
            "a number above 0, or infinity",
            self.clip_norm > 0.0,
        )?;
        if let Learn::Lora(lora) = self.learn {
            let rank = lora.rank;
            check("learn.lora.rank", rank, "1 or more", rank > 0)?;
            let alpha = lora.alpha;
            check("learn.lora.alpha", alpha, "above 0", positive(alpha))?;
        }
        check("schedule.peak", peak, "a rate above 0", positive(peak))?;
        check("schedule.steps", steps, "1 or more", steps > 0)?;
        check(
            "schedule.warmup",
            warmup,
            "at most `schedule.steps`",
            warmup <= steps,
        )?;
        if let Decay::Cosine { to } = decay {
            let fraction = (0.0..=1.0).contains(&to);
            check("schedule.decay.cosine.to", to, "0 to 1", fraction)?;
        }
        Ok(())
    }

    /// Whether a model can be fitted so.
    pub(super) fn validate_for(&self, config: &ModelConfig) -> Result<(), TrainerError> {
        self.validate()?;
        if let Learn::Lora(lora) = self.learn {
            // One side of each of the decoder's matrices is no longer than that: more columns could
            // change nothing more, and any number of them would be made.
            check(
                "learn.lora.rank",
                lora.rank,
                "at most the `hidden_size` of the model",
                lora.rank <= config.text.hidden_size,
            )?;
        }
        Ok(())
    }
}

fn check(
    key: &'static str,
    value: impl std::fmt::Display,
    expected: &'static str,
    fits: bool,
) -> Result<(), TrainerError> {
    if fits {
        Ok(())
    } else {
        Err(TrainerError::Setting {
            key,
            value: value.to_string(),
            expected,
        })
    }
}
