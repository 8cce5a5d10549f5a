//! The two layers that the decoder and the vision tower share.

use burn::module::{Module, Param};
use burn::tensor::activation::silu;
use burn::tensor::{DType, Device, Tensor};

use crate::cpu;
#[cfg(feature = "gpu-kernels")]
use crate::gpu;
use crate::projection::Projection;
use crate::weights::{Init, Weights, WeightsError};

/// What a block adds to what it was given.
pub(crate) fn residual<const D: usize>(x: Tensor<D>, change: Tensor<D>) -> Tensor<D> {
    if cpu::applies(&x) && cpu::applies(&change) {
        cpu::added(x, change)
    } else {
        x + change
    }
}

/// Root-mean-square normalisation with a learned scale.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn new(
        weights: &mut Weights,
        name: &str,
        width: usize,
        epsilon: f64,
    ) -> Result<Self, WeightsError> {
        Ok(Self {
            weight: weights.vector(&format!("{name}.weight"), width, Init::Ones)?,
            epsilon,
        })
    }

    /// The device its weights are on.
    pub(crate) fn device(&self) -> Device {
        self.weight.val().device()
    }

    /// Numbers of a vector.
    pub(crate) fn width(&self) -> usize {
        self.weight.val().dims()[0]
    }

    /// The type of its weights.
    pub(crate) fn dtype(&self) -> DType {
        self.weight.val().dtype()
    }

    /// # Shapes
    /// - x: `[batch, tokens, width]`, returned alike
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if cpu::applies(&x) && self.dtype() == DType::F32 {
            return cpu::normed(x, self.weight.val(), self.epsilon);
        }
        #[cfg(feature = "gpu-kernels")]
        if gpu::applies(&x) {
            return gpu::normed(x, self.weight.val(), self.epsilon);
        }
        // In f32 whatever the weights are: a sum of squares overflows f16.
        let dtype = x.dtype();
        let x32 = x.cast(DType::F32);
        let scale = (x32.clone().square().mean_dim(D - 1) + self.epsilon)
            .sqrt()
            .recip();
        (x32 * scale).cast(dtype) * self.weight.val().unsqueeze()
    }
}

/// The gated feed-forward layer: `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub(crate) struct SwiGlu {
    gate_proj: Projection,
    up_proj: Projection,
    down_proj: Projection,
}

impl SwiGlu {
    pub(crate) fn new(
        weights: &mut Weights,
        name: &str,
        width: usize,
        inner: usize,
        bias: bool,
    ) -> Result<Self, WeightsError> {
        Ok(Self {
            gate_proj: weights.linear(&format!("{name}.gate_proj"), width, inner, bias)?,
            up_proj: weights.linear(&format!("{name}.up_proj"), width, inner, bias)?,
            down_proj: weights.linear(&format!("{name}.down_proj"), inner, width, bias)?,
        })
    }

    /// What it makes of `x`, added to `to`.
    ///
    /// # Shapes
    /// - x, to: `[.., width]`, returned alike
    pub(crate) fn add_to<const D: usize>(&self, to: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
        self.down_proj.add_to(to, self.gated(x))
    }

    fn gated<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (gate, up) = (&self.gate_proj, &self.up_proj);
        #[cfg(feature = "gpu-kernels")]
        if let Some(gated) = Projection::forward_gated(gate, up, &x) {
            return gated;
        }
        match Projection::forward_each([gate, up], &x) {
            Some([gate, up]) => product_with_silu(gate, up),
            None => product_with_silu(gate.forward(x.clone()), up.forward(x)),
        }
    }
}

/// `silu(gate) * up`.
fn product_with_silu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    if cpu::applies(&gate) {
        return cpu::gated(gate, up);
    }
    #[cfg(feature = "gpu-kernels")]
    if gpu::applies(&gate) {
        return gpu::gate(gate, up);
    }
    silu(gate) * up
}
