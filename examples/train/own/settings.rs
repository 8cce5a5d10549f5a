//! What a stage on own data is told: [`Settings`].

use std::fs;
use std::path::{Path, PathBuf};

use eva_burn::train::Optimisation;
use eva_burn::train::advantage::Scale;
use eva_burn::train::grpo::{Aggregation, GrpoConfig};
use serde::Deserialize;

use crate::{Failure, MOST};

/// A TOML file. Paths are read from the file's folder on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// The model directory to begin with, in Hugging Face's layout. For `kto` and `grpo` it is the
    /// reference too.
    pub(super) model: PathBuf,
    /// The folder of the run; the new model is written to `model` in it.
    pub(super) out: PathBuf,
    /// JSON Lines: what `build_data` wrote for the stage.
    pub(super) data: PathBuf,
    /// The folder with the videos; without it, they are synthetic worlds.
    pub(super) videos: Option<PathBuf>,
    #[serde(default)]
    pub(super) seed: u64,
    /// cpu, wgpu, vulkan, metal, cuda or cuda:N.
    #[serde(default = "cpu")]
    pub(super) device: String,
    /// Devices beside that one that shards are spread over.
    #[serde(default)]
    pub(super) more_devices: Vec<String>,
    /// f32, f16 or bf16.
    #[serde(default = "f32")]
    pub(super) precision: String,
    /// Conversations a step; in `grpo`, prompts.
    #[serde(default = "eight")]
    pub(super) batch: usize,
    /// Conversations that are computed at once: more take more memory.
    #[serde(default = "one")]
    pub(super) shard: usize,
    /// Shards that are worked on at a time on each device; 0 for what `device` suits.
    #[serde(default)]
    pub(super) threads: usize,
    #[serde(default = "ten")]
    pub(super) report_every: usize,
    #[serde(default = "fifty")]
    pub(super) save_every: usize,
    pub(super) optimisation: Optimisation,
    #[serde(default)]
    pub(super) kto: Kto,
    #[serde(default)]
    pub(super) grpo: Grpo,
}

fn cpu() -> String {
    "cpu".to_owned()
}

fn f32() -> String {
    "f32".to_owned()
}

const fn one() -> usize {
    1
}

const fn eight() -> usize {
    8
}

const fn ten() -> usize {
    10
}

const fn fifty() -> usize {
    50
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Kto {
    pub(super) beta: f64,
}

impl Default for Kto {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Grpo {
    /// Rollouts a prompt.
    pub(super) rollouts: usize,
    /// Optimisation epochs over the rollouts of a step.
    pub(super) epochs: usize,
    pub(super) clip_low: f64,
    pub(super) clip_high: f64,
    /// The weight of the KL divergence from the model that the stage began with.
    pub(super) kl: f64,
    /// `grpo`, `dapo` or `dr_grpo`.
    pub(super) aggregation: Tokens,
    /// `group`, `batch` or `none`.
    pub(super) scale: Divisor,
    /// Whether runs that were cut off teach nothing.
    pub(super) mask_truncated: bool,
    pub(super) temperature: f32,
    /// What a visual token takes from the reward of a good run; best with `scale = "batch"`.
    pub(super) token_cost: f64,
    /// New tokens a reply may take.
    pub(super) max_new_tokens: usize,
    /// The judge's model directory; without it, the model that the stage began with.
    pub(super) judge: Option<PathBuf>,
}

impl Default for Grpo {
    fn default() -> Self {
        let GrpoConfig {
            clip_low,
            clip_high,
            kl,
            mask_truncated,
            ..
        } = GrpoConfig::default();
        Self {
            rollouts: 8,
            epochs: 1,
            clip_low,
            clip_high,
            kl,
            aggregation: Tokens::Grpo,
            scale: Divisor::Group,
            mask_truncated,
            temperature: 1.0,
            token_cost: 0.0,
            max_new_tokens: eva_burn::MAX_NEW_TOKENS,
            judge: None,
        }
    }
}

/// How tokens make up the loss.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tokens {
    Grpo,
    Dapo,
    DrGrpo,
}

/// What advantages are divided by.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Divisor {
    Group,
    Batch,
    None,
}

impl Settings {
    pub(super) fn load(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let text =
            fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
        let read = toml::from_str(&text);
        let mut settings: Self = read.map_err(|error| format!("{shown}: {error}"))?;
        let checked = settings.check();
        checked.map_err(|error| format!("{shown}: {error}"))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let Self {
            model,
            out,
            data,
            videos,
            grpo,
            ..
        } = &mut settings;
        let others = videos.iter_mut().chain(&mut grpo.judge);
        for path in [model, out, data].into_iter().chain(others) {
            *path = folder.join(&*path);
        }
        Ok(settings)
    }

    /// Whether something can be learnt with them; of `optimisation` the trainer knows.
    fn check(&self) -> Result<(), String> {
        let Self { kto, grpo, .. } = self;
        for (key, count) in [
            ("batch", self.batch),
            ("shard", self.shard),
            ("grpo.rollouts", grpo.rollouts),
            ("grpo.epochs", grpo.epochs),
            ("grpo.max_new_tokens", grpo.max_new_tokens),
        ] {
            if !(1..=MOST).contains(&count) {
                return Err(format!("`{key}` = {count}; expected 1 to {MOST}"));
            }
        }
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        let not_below_zero = |value: f64| value >= 0.0 && value.is_finite();
        for (key, value, expected, fits) in [
            (
                "kto.beta",
                kto.beta,
                "a number above 0",
                above_zero(kto.beta),
            ),
            // At 0 all rollouts of a prompt would be the same, and nothing could be learnt from them.
            (
                "grpo.temperature",
                f64::from(grpo.temperature),
                "a number above 0",
                above_zero(f64::from(grpo.temperature)),
            ),
            ("grpo.kl", grpo.kl, "0 or more", not_below_zero(grpo.kl)),
            (
                "grpo.clip_low",
                grpo.clip_low,
                "0 or more",
                not_below_zero(grpo.clip_low),
            ),
            (
                "grpo.clip_high",
                grpo.clip_high,
                "0 or more",
                not_below_zero(grpo.clip_high),
            ),
            (
                "grpo.token_cost",
                grpo.token_cost,
                "0 to below 1",
                (0.0..1.0).contains(&grpo.token_cost),
            ),
        ] {
            if !fits {
                return Err(format!("`{key}` = {value}; expected {expected}"));
            }
        }
        Ok(())
    }

    /// The directory that the new model is written to.
    pub(super) fn new_model(&self) -> PathBuf {
        self.out.join("model")
    }
}

impl Grpo {
    pub(super) fn learning(&self, shard: usize) -> eva::train::Grpo {
        eva::train::Grpo {
            loss: GrpoConfig {
                clip_low: self.clip_low,
                clip_high: self.clip_high,
                kl: self.kl,
                aggregation: match self.aggregation {
                    Tokens::Grpo => Aggregation::Grpo,
                    Tokens::Dapo => Aggregation::Dapo,
                    Tokens::DrGrpo => Aggregation::DrGrpo {
                        length: self.max_new_tokens,
                    },
                },
                mask_truncated: self.mask_truncated,
            },
            scale: match self.scale {
                Divisor::Group => Scale::Group,
                Divisor::Batch => Scale::Batch,
                Divisor::None => Scale::None,
            },
            epochs: self.epochs,
            shard,
        }
    }
}
