//! [`Trainer`]: optimisation steps.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, ElementConversion, GradientCheckpointingStrategy, Tensor};

use super::optimizer::Optimizer;
use super::workers::Workers;
use super::{Batch, Learn, Optimisation, Replicas, TrainerError, adapters};
use crate::config::ModelConfig;
use crate::model::Qwen25Vl;

/// What a step measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepReport {
    /// Mean loss over all targets of the batch, in nats.
    pub loss: f64,
    /// Whether each target was the most likely token, shard by shard.
    pub right: Vec<Vec<bool>>,
    /// What it cost and how far it went.
    pub effort: Effort,
}

/// What any step costs, and how far it went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Effort {
    /// The norm of the gradient of all parameters, before the clip. Where it is not finite, nothing
    /// was learnt.
    pub gradient_norm: f64,
    /// The learning rate.
    pub rate: f64,
    /// Tokens that were learnt from, those of pictures included and padding left out.
    pub tokens: usize,
}

/// A model, its optimizer (AdamW) and its learning rate.
///
/// A step takes any number of shards of one batch: each is a forward and a backward pass of its own,
/// several at a time on [threads](Self::with_threads), and their gradients are added in their order.
/// So a batch larger than memory is several shards, and the number of threads changes no weight.
/// They can be spread over [several devices](Self::with_devices).
pub struct Trainer {
    pub(super) model: Qwen25Vl,
    pub(super) config: ModelConfig,
    pub(super) optimisation: Optimisation,
    pub(super) optimizer: Optimizer,
    pub(super) step: usize,
    workers: Workers,
    /// Those beside the model's own.
    others: Vec<Device>,
    threads: usize,
}

/// What the shards of a step made.
pub(super) struct Updated<M> {
    /// The sum of the losses.
    pub(super) loss: f64,
    /// What was measured beside each of them.
    pub(super) measured: Vec<M>,
    pub(super) gradient_norm: f64,
    pub(super) rate: f64,
}

impl<M> Updated<M> {
    pub(super) fn effort<'b>(&self, batches: impl Iterator<Item = &'b Batch>) -> Effort {
        Effort {
            gradient_norm: self.gradient_norm,
            rate: self.rate,
            tokens: batches.map(Batch::tokens_without_padding).sum(),
        }
    }
}

impl Trainer {
    /// Trains `model`, whose device must be an autodiff device. On the CPU as many shards are worked on
    /// at a time as there are cores, on a GPU one.
    ///
    /// # Errors
    /// [`TrainerError`] for a device without gradients, a packed model, or a setting that makes no sense.
    pub fn new(
        model: Qwen25Vl,
        config: ModelConfig,
        optimisation: impl Into<Optimisation>,
    ) -> Result<Self, TrainerError> {
        let optimisation = optimisation.into();
        optimisation.validate_for(&config)?;
        let device = model.device();
        if !device.is_autodiff() {
            return Err(TrainerError::NoGradients);
        }
        if model.is_packed() {
            return Err(TrainerError::Packed);
        }
        let on_cpu = device.clone().without_autodiff() == Device::flex();
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let threads = if on_cpu { cores } else { 1 };
        let model = match optimisation.learn {
            Learn::Decoder | Learn::Everything => model,
            Learn::Lora(lora) => adapters::attach(model, &lora),
        };
        Ok(Self {
            model: prepared(model, &optimisation),
            config,
            optimizer: Optimizer::new(&optimisation),
            optimisation,
            step: 0,
            workers: Workers::new(threads, 1)?,
            others: Vec::new(),
            threads,
        })
    }

    /// Works on so many shards at a time on each device, at least 1. More need more memory; the weights
    /// are the same.
    ///
    /// # Errors
    /// [`TrainerError::Threads`] when the system gives no more.
    pub fn with_threads(mut self, threads: usize) -> Result<Self, TrainerError> {
        self.workers = Workers::new(threads, 1 + self.others.len())?;
        self.threads = threads;
        Ok(self)
    }

    /// Spreads the shards of a step over the model's own device and these: the first to its own, the
    /// next to the first of these, and so on in turn. Before each step the weights go to all of them and
    /// after it the gradients come back, to be added and applied on the model's own device. So two
    /// devices of one kind take the steps that one takes with the same shards, in half the time but for
    /// the copies. A slower one holds the others up, whose gradients wait for its own in memory. Each device
    /// works on as many shards at a time as [`with_threads`](Self::with_threads) says.
    ///
    /// # Errors
    /// [`TrainerError::Threads`] when the system gives no more threads.
    pub fn with_devices(mut self, others: &[Device]) -> Result<Self, TrainerError> {
        self.workers = Workers::new(self.threads, 1 + others.len())?;
        let plain = others.iter().cloned().map(Device::without_autodiff);
        self.others = plain.collect();
        Ok(self)
    }

    /// Goes on with other weights.
    pub(super) fn set(&mut self, model: Qwen25Vl) {
        self.model = prepared(model, &self.optimisation);
    }

    /// The model as it is now, without gradients; adapters are folded into its weights.
    #[must_use]
    pub fn model(&self) -> Qwen25Vl {
        self.model.valid().materialize()
    }

    /// The model's configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How it is fitted.
    #[must_use]
    pub fn optimisation(&self) -> &Optimisation {
        &self.optimisation
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.step
    }

    /// One supervised step over the shards of a batch; the gradient is that of the mean loss over all
    /// targets, whatever their split.
    pub fn sft(&mut self, shards: &[Batch]) -> StepReport {
        let total: usize = shards.iter().map(Batch::targets).sum();
        let config = self.config.clone();
        // A shard without targets has no gradient.
        let taught: Vec<usize> = (0..shards.len())
            .filter(|index| shards[*index].targets() > 0)
            .collect();
        let updated = self.update(taught.len(), |model, eyes, index| {
            let shard = &shards[taught[index]];
            let scored = shard.score(model, eyes, &config);
            let share = shard.targets() as f64 / total as f64;
            (scored.loss.mul_scalar(share), scored.right)
        });
        let effort = updated.effort(shards.iter());
        let mut right = vec![Vec::new(); shards.len()];
        for (index, measured) in taught.into_iter().zip(updated.measured) {
            right[index] = measured;
        }
        StepReport {
            loss: updated.loss,
            right,
            effort,
        }
    }

    /// What sees the pictures of a shard: the same weights without gradients, or, where the vision tower
    /// is learnt, the model in training itself.
    fn eyes<'m>(&self, plain: &'m Qwen25Vl, training: &'m Qwen25Vl) -> &'m Qwen25Vl {
        match self.optimisation.learn {
            Learn::Decoder | Learn::Lora(_) => plain,
            Learn::Everything => training,
        }
    }

    /// A model without gradients on each device that shards are spread over.
    #[must_use]
    pub fn replicas(&self, model: &Qwen25Vl) -> Replicas {
        Replicas::new(model, &self.others)
    }

    /// A step on the sum of `count` losses.
    ///
    /// - loss: of the shard of a number, by the model in training and the one that sees its pictures
    pub(super) fn update<M: Send>(
        &mut self,
        count: usize,
        loss: impl Fn(&Qwen25Vl, &Qwen25Vl, usize) -> (Tensor<1>, M) + Sync,
    ) -> Updated<M> {
        let (gradients, loss, measured) = self.gradients(count, loss);
        let rate = self.optimisation.schedule.rate(self.step);
        let (optimizer, before) = (&mut self.optimizer, self.model.clone());
        // On one thread, so that the norm is the same sum on any machine.
        let (model, gradient_norm) = self.workers.one(|| optimizer.step(rate, before, gradients));
        self.model = model;
        self.step += 1;
        Updated {
            loss,
            measured,
            gradient_norm,
            rate,
        }
    }

    /// The gradient of the sum of `count` losses, that sum, and what was measured beside.
    fn gradients<M: Send>(
        &self,
        count: usize,
        loss: impl Fn(&Qwen25Vl, &Qwen25Vl, usize) -> (Tensor<1>, M) + Sync,
    ) -> (GradientsParams, f64, Vec<M>) {
        let model = &self.model;
        let home = model.device().without_autodiff();
        let strategy = model.device().gradient_checkpointing_strategy();
        let replicas = self.replicas(&model.valid());
        let mut total = 0.0;
        let mut measured = Vec::with_capacity(count);
        let mut gradients = GradientsAccumulator::new();
        let work = |index| {
            // Leaves of its own: graphs that share a leaf are merged and run one after the other. Not by
            // `fork`, whose copies stay in the graph of the weight that they were made from: of one that
            // is not learnt for good, and each backward pass searches all of them.
            let plain = replicas.of(index);
            let model = keeping(plain.clone().train(), strategy.unwrap_or_default());
            let (loss, measured) = loss(&model, self.eyes(plain, &model), index);
            let value = loss.clone().into_scalar::<f32>().elem::<f64>();
            // No weight that is learnt had a part in it.
            let gradients = if loss.is_tracked() {
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                if plain.device() == home {
                    gradients
                } else {
                    gradients.to_device(&home, &model)
                }
            } else {
                GradientsParams::new()
            };
            (gradients, value, measured)
        };
        self.workers.each(count, work, |(gradient, loss, other)| {
            gradients.accumulate(model, gradient);
            total += loss;
            measured.push(other);
        });
        (gradients.grads(), total, measured)
    }

    /// Runs `work` for 0 to `count`, several at a time, each on a thread of its own: for passes beside a
    /// step, such as those of a reference model, of which [`replicas`](Self::replicas) are on the
    /// devices that these threads are for. The results come in that order.
    pub fn parallel<M: Send>(&self, count: usize, work: impl Fn(usize) -> M + Sync) -> Vec<M> {
        self.workers.map(count, work)
    }

    /// Which targets of a batch the model gets right, without learning from them.
    #[must_use]
    pub fn evaluate(&self, batch: &Batch) -> Vec<bool> {
        if batch.targets() == 0 {
            return Vec::new();
        }
        let model = self.model.valid();
        batch.score(&model, &model, &self.config).right
    }
}

/// With the way of keeping activations that is set.
fn prepared(model: Qwen25Vl, optimisation: &Optimisation) -> Qwen25Vl {
    if optimisation.checkpoint_activations {
        keeping(model, GradientCheckpointingStrategy::Balanced)
    } else {
        model
    }
}

/// With a way of keeping activations. It is a property of each parameter: moving a model to a device that
/// has another one does not change it.
fn keeping(model: Qwen25Vl, strategy: GradientCheckpointingStrategy) -> Qwen25Vl {
    struct Keeping(GradientCheckpointingStrategy);
    impl ModuleMapper for Keeping {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, weight, mapper) = param.consume();
            let weight = weight.with_gradient_checkpointing_strategy(self.0);
            Param::from_mapped_value(id, weight, mapper)
        }
    }
    if model.device().gradient_checkpointing_strategy() == Some(strategy) {
        return model;
    }
    model.map(&mut Keeping(strategy))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::train::Schedule;
    use crate::weights::Precision;

    #[test]
    fn a_step_keeps_the_way_of_keeping_activations() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/eva-tiny");
        let config = ModelConfig::load(dir.as_ref()).unwrap();
        let plain = Device::flex().autodiff();
        let own = plain.clone().gradient_checkpointing();
        for (device, checkpoint_activations, expected) in [
            (&plain, false, GradientCheckpointingStrategy::Disabled),
            (&plain, true, GradientCheckpointingStrategy::Balanced),
            (&own, false, GradientCheckpointingStrategy::Balanced),
        ] {
            let model = Qwen25Vl::random(&config, 1, device).unwrap();
            let optimisation = Optimisation {
                checkpoint_activations,
                ..Optimisation::new(Schedule::new(1e-3, 0, 1))
            };
            let mut trainer = Trainer::new(model, config.clone(), optimisation).unwrap();
            let strategy = |model: &Qwen25Vl| model.device().gradient_checkpointing_strategy();
            let updated = trainer.update(2, |model, _, _| {
                let embeddings = model.embed(&[&[1, 2, 3]], None, &config);
                (embeddings.square().sum(), strategy(model))
            });
            assert_eq!(updated.measured, [Some(expected); 2]);
            assert!(updated.gradient_norm > 0.0);
            assert_eq!(strategy(&trainer.model), Some(expected));
        }
    }

    #[test]
    fn a_packed_model_is_refused() {
        let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/eva-tiny"));
        let config = ModelConfig::load(dir).unwrap();
        let load = |precision| Qwen25Vl::load_as(&config, dir, &Device::flex(), precision).unwrap();
        for precision in [Precision::Bf16, Precision::Int8] {
            let optimisation = Optimisation::new(Schedule::new(1e-3, 0, 1));
            let refused = Trainer::new(load(precision).train(), config.clone(), optimisation);
            assert!(matches!(refused.err(), Some(TrainerError::Packed)));
        }
    }
}
