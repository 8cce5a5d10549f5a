//! [`Trainer`]: optimisation steps.

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{ElementConversion, Tensor};

use crate::config::ModelConfig;
use crate::model::Qwen25Vl;

use super::Batch;

/// The learning rate over a run: a linear rise, then half a cosine down to a tenth.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps of the rise.
    pub warmup: usize,
    /// Steps of the run.
    pub steps: usize,
}

impl Schedule {
    /// The rate at a step, counted from 0.
    #[must_use]
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / span).min(1.0);
        self.peak * (0.1 + 0.45 * (1.0 + (std::f64::consts::PI * progress).cos()))
    }
}

/// What a step measured.
#[derive(Debug, Clone, Default)]
pub struct StepReport {
    /// Mean loss over all targets of the batch, in nats.
    pub loss: f64,
    /// Whether each target was the most likely token, shard by shard.
    pub right: Vec<Vec<bool>>,
}

/// A model, its optimizer (AdamW) and its learning rate.
pub struct Trainer {
    model: Qwen25Vl,
    config: ModelConfig,
    optimizer: ModuleOptimizer,
    schedule: Schedule,
    step: usize,
    /// One thread a shard: small products do not scale over threads, whole shards do. The backend
    /// splits its work over the pool it runs in, so a pool of one keeps a shard on its thread.
    pools: Vec<rayon::ThreadPool>,
}

impl Trainer {
    /// Trains `model`, whose device must be an autodiff device.
    #[must_use]
    pub fn new(model: Qwen25Vl, config: ModelConfig, schedule: Schedule) -> Self {
        let optimizer = AdamWConfig::new()
            .with_beta_1(0.9)
            .with_beta_2(0.98)
            .with_epsilon(1e-8)
            .with_weight_decay(0.01)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
            .init();
        Self {
            model,
            config,
            optimizer,
            schedule,
            step: 0,
            pools: Vec::new(),
        }
    }

    /// The model as it is now, without gradients.
    #[must_use]
    pub fn model(&self) -> Qwen25Vl {
        self.model.valid()
    }

    /// The model's configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.step
    }

    /// One supervised step over the shards of a batch, each on a thread of its own; the gradient is
    /// that of the mean loss over all targets, whatever their split. The vision tower keeps its
    /// weights.
    pub fn sft(&mut self, shards: &[Batch]) -> StepReport {
        let eyes = self.model.valid();
        let total: usize = shards.iter().map(Batch::targets).sum();
        let config = self.config.clone();
        let (loss, right) = self.update(shards.len(), |model, index| {
            let shard = &shards[index];
            let scored = shard.score(model, &eyes, &config);
            let share = shard.targets() as f64 / total.max(1) as f64;
            (scored.loss.mul_scalar(share), scored.right)
        });
        StepReport { loss, right }
    }

    /// A step on the sum of `count` losses, each computed on a thread of its own. Returns that sum,
    /// and what was measured beside each loss.
    pub(super) fn update<M: Send>(
        &mut self,
        count: usize,
        loss: impl Fn(&Qwen25Vl, usize) -> (Tensor<1>, M) + Sync,
    ) -> (f64, Vec<M>) {
        let model = self.model.clone();
        let results = self.parallel(count, |index| {
            // Leaves of its own: graphs that share a leaf are merged and run one after the other.
            let model = model.clone().fork(&model.device());
            let (loss, measured) = loss(&model, index);
            let value = loss.clone().into_scalar::<f32>().elem::<f64>();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            (gradients, value, measured)
        });
        let mut total = 0.0;
        let mut measured = Vec::new();
        let mut gradients = GradientsAccumulator::new();
        for (gradient, loss, other) in results {
            gradients.accumulate(&self.model, gradient);
            total += loss;
            measured.push(other);
        }
        let rate = self.schedule.rate(self.step);
        self.model = self
            .optimizer
            .step(rate, self.model.clone(), gradients.grads());
        self.step += 1;
        (total, measured)
    }

    /// Runs `work` for 0 to `count`, each on a thread of its own.
    pub(super) fn parallel<M: Send>(
        &mut self,
        count: usize,
        work: impl Fn(usize) -> M + Sync,
    ) -> Vec<M> {
        while self.pools.len() < count {
            match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
                Ok(pool) => self.pools.push(pool),
                Err(_) => break,
            }
        }
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..count)
                .map(|index| {
                    let (work, pool) = (&work, self.pools.get(index));
                    scope.spawn(move || match pool {
                        Some(pool) => pool.install(|| work(index)),
                        // No thread to be had: the default pool does it, slower.
                        None => work(index),
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        })
    }

    /// Which targets of a batch the model gets right, without learning from them.
    #[must_use]
    pub fn evaluate(&self, batch: &Batch) -> Vec<bool> {
        let model = self.model.valid();
        batch.score(&model, &model, &self.config).right
    }
}
