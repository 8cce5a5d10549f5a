//! The steps of a token and of a prompt on a GPU, for inference: a few kernels of our own for a layer.
//!
//! A GPU takes a small kernel in less time than it takes to ask for it, and a token's layer was over twenty of
//! Burn's. Here it is eleven: normalisation, products with their bias, gate or residual
//! ([`steps`]), and attention straight from the KV cache ([`attention`]). Of a long prompt's layer
//! normalisation, rotation, gate and the shares of attention are ours ([`rows`]), and the rest is Burn's. With
//! gradients, and on every other device, Burn's own operations are used.

mod attention;
mod rows;
pub(crate) mod steps;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::cubecl::ir::{ElemType, FloatKind};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

pub(crate) use attention::{append, attend, fits};
use rows::RowOps as _;
use steps::StepOps as _;

/// Numbers that are read at a time.
const WIDTH: usize = 4;

/// Up to this many vectors a matrix is multiplied as in decoding, where each vector reads all of it.
pub(crate) const FEW: usize = 8;

/// Whether a device is one that the kernels are written for.
pub(crate) fn is_gpu(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Cube(_))
}

/// Has compiled kernels kept on disk for the next process, unless the program has set up CubeCL by itself before:
/// CUDA's compiler takes some tenths of a second for each, and a prompt needs a hundred.
#[cfg(all(feature = "kernel-cache", any(feature = "cuda", feature = "wgpu")))]
pub(crate) fn keep_kernels() {
    use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig as _};
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    CubeClRuntimeConfig::try_set(config);
}

/// Whether a tensor's steps are taken here.
pub(crate) fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    !x.is_autodiff() && is_gpu(&x.device())
}

/// Whether a tensor is on a GPU, without gradients, and few vectors.
pub(crate) fn few<const D: usize>(x: &Tensor<D>) -> bool {
    let shape = x.dims();
    shape[..D - 1].iter().product::<usize>() <= FEW && applies(x)
}

/// Root-mean-square normalisation.
///
/// # Shapes
/// - x: `[.., columns]`, returned alike
pub(crate) fn normed<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let shape = x.dims();
    let normed = Dispatch::normalise(vectors(x).into_dispatch(), weight.into_dispatch(), epsilon);
    Tensor::<2>::from_dispatch(normed).reshape(shape)
}

/// Products of few vectors with a matrix, plus other numbers where there are some.
///
/// # Shapes
/// - x: `[.., columns]`
/// - matrix: `[columns, rows]`
/// - more: as many numbers as there are rows, or as are returned
/// - returned: `[.., rows]`
pub(crate) fn product<const D: usize>(
    x: Tensor<D>,
    matrix: Tensor<2>,
    more: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape = x.dims();
    let [columns, rows] = matrix.dims();
    assert_eq!(shape[D - 1], columns, "numbers of a vector");
    shape[D - 1] = rows;
    let (x, matrix) = (vectors(x).into_dispatch(), matrix.into_dispatch());
    let product = match more {
        Some(more) => Dispatch::multiply_dense_add(x, matrix, more.into_dispatch()),
        None => Dispatch::multiply_dense(x, matrix),
    };
    Tensor::<2>::from_dispatch(product).reshape(shape)
}

/// `silu(x * gate) * (x * up)`, number by number, for few vectors.
///
/// # Shapes
/// - x: `[.., columns]`
/// - gate, up: `[columns, rows]`
/// - returned: `[.., rows]`
pub(crate) fn gated<const D: usize>(x: Tensor<D>, gate: Tensor<2>, up: Tensor<2>) -> Tensor<D> {
    let mut shape = x.dims();
    assert_eq!(gate.dims(), up.dims(), "one gates the other");
    let [columns, rows] = gate.dims();
    assert_eq!(shape[D - 1], columns, "numbers of a vector");
    shape[D - 1] = rows;
    let gated = Dispatch::multiply_dense_gated(
        vectors(x).into_dispatch(),
        gate.into_dispatch(),
        up.into_dispatch(),
    );
    Tensor::<2>::from_dispatch(gated).reshape(shape)
}

/// `silu(gate) * up`, number by number.
///
/// # Shapes
/// - gate, up: alike, and so is what is returned
pub(crate) fn gate<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let alike = |x: &Tensor<D>| (x.dims(), x.dtype());
    assert_eq!(alike(&gate), alike(&up), "one gates the other");
    Tensor::from_dispatch(Dispatch::gate(gate.into_dispatch(), up.into_dispatch()))
}

/// Rows rotated by halves.
///
/// # Shapes
/// - x: `[sequences, heads, tokens, width]`, returned alike
/// - cos, sin: `[sequences or 1, 1, tokens, width / 2]`, in `f32`
pub(crate) fn rotated(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let ([sequences, _, tokens, width], angles) = (x.dims(), cos.dims());
    let fits = angles[0] == sequences || angles[0] == 1;
    assert!(fits && angles[1..] == [1, tokens, width / 2], "angles");
    assert_eq!(angles, sin.dims(), "cosines and sines");
    let f32s = cos.dtype() == DType::F32 && sin.dtype() == DType::F32;
    assert!(f32s, "angles are in f32");
    Tensor::from_dispatch(Dispatch::rotate(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
    ))
}

/// Scores as shares of what each query may see; nothing of the rest.
///
/// - queries: the queries of the scores, repeated for each head of a group
/// - causal: whether a query sees no key after its own, the queries being the last of the keys
///
/// # Shapes
/// - scores: `[batch, kv_heads, group * queries, keys]`, returned alike
pub(crate) fn shares(scores: Tensor<4>, queries: usize, causal: bool) -> Tensor<4> {
    let [_, _, rows, keys] = scores.dims();
    assert!(rows.is_multiple_of(queries.max(1)), "whole groups");
    assert!(
        !causal || queries <= keys,
        "the queries are the last of the keys"
    );
    Tensor::from_dispatch(Dispatch::share_out(scores.into_dispatch(), queries, causal))
}

fn vectors<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let shape = x.dims();
    let columns = shape[D - 1];
    x.reshape([shape[..D - 1].iter().product::<usize>(), columns])
}

/// The most numbers, up to [`WIDTH`], that divide all of these.
fn vector_size(counts: &[usize]) -> usize {
    let divides = |width: &usize| counts.iter().all(|count| count.is_multiple_of(*width));
    [WIDTH, 2].into_iter().find(divides).unwrap_or(1)
}

/// CubeCL's name of a type.
fn element(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, shape, dtype)
}

#[cfg(all(test, any(feature = "wgpu", feature = "cuda")))]
pub(crate) mod tests;
