//! [`Optimizer`]: Burn's AdamW over a whole model, with a state that can be stored.
//!
//! Burn's own `ModuleOptimizer` keys its state by parameter ids, which are random and new in each
//! process, puts a loaded state on the default device (the GPU, when one is compiled in, whether it
//! is there or not) and clips each parameter by itself. Here the state is keyed by the parameter's
//! path, goes where its parameter is, and the gradient is clipped as one vector.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{
    AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, GradientsParams, Optimizer as _,
};
use burn::tensor::{DType, ElementConversion, Tensor};

use super::Optimisation;
use crate::model::Qwen25Vl;

/// AdamW, and what it remembers of each parameter.
pub(super) struct Optimizer {
    rule: AdamW,
    clip_norm: f64,
    pub(super) moments: BTreeMap<String, Moments>,
}

/// What is remembered of a parameter.
pub(super) struct Moments {
    /// Steps in which it had a gradient.
    pub(super) steps: usize,
    /// The mean gradient, `[values]`.
    pub(super) first: Tensor<1>,
    /// The mean squared gradient, `[values]`.
    pub(super) second: Tensor<1>,
}

impl Optimizer {
    pub(super) fn new(optimisation: &Optimisation) -> Self {
        let rule = AdamWConfig::new()
            .with_beta_1(optimisation.beta_1 as f32)
            .with_beta_2(optimisation.beta_2 as f32)
            .with_epsilon(optimisation.epsilon as f32)
            .with_weight_decay(optimisation.weight_decay as f32)
            .build();
        Self {
            rule,
            clip_norm: optimisation.clip_norm,
            moments: BTreeMap::new(),
        }
    }

    /// One step of all parameters that have a gradient; returns its norm before the clip. A gradient
    /// that isn't finite is not applied: it would spoil weights and moments for good.
    pub(super) fn step(
        &mut self,
        rate: f64,
        model: Qwen25Vl,
        gradients: GradientsParams,
    ) -> (Qwen25Vl, f64) {
        let norm = norm(&model, &gradients);
        if !norm.is_finite() {
            return (model, norm);
        }
        let scale = (norm > self.clip_norm).then(|| self.clip_norm / norm);
        let model = model.map(&mut Update {
            optimizer: self,
            gradients,
            rate,
            scale,
            path: Vec::new(),
        });
        (model, norm)
    }
}

/// The norm of the gradient of all parameters.
fn norm(model: &Qwen25Vl, gradients: &GradientsParams) -> f64 {
    struct Squares<'g> {
        gradients: &'g GradientsParams,
        sums: Vec<Tensor<1>>,
    }
    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(param.id) {
                self.sums.push(gradient.cast(DType::F32).square().sum());
            }
        }
    }
    let mut squares = Squares {
        gradients,
        sums: Vec::new(),
    };
    model.visit(&mut squares);
    if squares.sums.is_empty() {
        return 0.0;
    }
    let norm = Tensor::cat(squares.sums, 0).sum().sqrt();
    norm.into_scalar::<f32>().elem()
}

struct Update<'o> {
    optimizer: &'o mut Optimizer,
    gradients: GradientsParams,
    rate: f64,
    scale: Option<f64>,
    path: Vec<String>,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(mut gradient) = self.gradients.remove::<D>(param.id) else {
            return param;
        };
        if let Some(scale) = self.scale {
            gradient = gradient.mul_scalar(scale);
        }
        let (id, weight, mapper) = param.consume();
        let strategy = weight.gradient_checkpointing_strategy();
        let Optimizer { rule, moments, .. } = &mut *self.optimizer;
        let path = self.path.join(".");
        let state = moments.remove(&path);
        let state = state.map(|moments| moments.restore(&gradient));
        let (weight, state) = rule.step(self.rate, weight.without_autodiff(), gradient, state);
        if let Some(state) = state {
            moments.insert(path, Moments::keep(state));
        }
        // As it was before: a leaf of its own, with its way of keeping activations.
        let mut weight = Tensor::from_inner(weight);
        if let Some(strategy) = strategy {
            weight = weight.with_gradient_checkpointing_strategy(strategy);
        }
        Param::from_mapped_value(id, weight.require_grad(), mapper)
    }
}

impl Moments {
    fn keep<const D: usize>(state: AdamWState<D>) -> Self {
        let AdaptiveMomentumState {
            time,
            moment_1,
            moment_2,
            ..
        } = state.momentum;
        let count = moment_1.shape().num_elements();
        Self {
            steps: time,
            first: moment_1.reshape([count]),
            second: moment_2.reshape([count]),
        }
    }

    /// With the shape, type and device of the gradient; the number of values is the same.
    fn restore<const D: usize>(self, gradient: &Tensor<D>) -> AdamWState<D> {
        let device = gradient.device();
        let shaped = |moment: Tensor<1>| {
            let moment = moment.to_device(&device).cast(gradient.dtype());
            moment.reshape(gradient.dims())
        };
        let (first, second) = (shaped(self.first), shaped(self.second));
        AdamWState::new(AdaptiveMomentumState::new(self.steps, first, second))
    }
}
