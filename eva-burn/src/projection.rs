//! Linear maps and embeddings, whose weights are floats, or packed in fewer bits.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::cpu;
#[cfg(feature = "gpu-kernels")]
use crate::gpu;
use crate::layers::residual;
#[cfg(feature = "gpu-kernels")]
use crate::quantized::GpuLinear;
use crate::quantized::PackedLinear;

/// A linear map.
#[derive(Module, Debug)]
#[cfg_attr(
    feature = "gpu-kernels",
    expect(
        clippy::large_enum_variant,
        reason = "there are a few hundred, and modules cannot be boxed"
    )
)]
pub(crate) enum Projection {
    /// Floats, on any device; trained like any layer.
    Dense(Linear),
    /// In fewer bits than they are multiplied in, on the processor; for inference.
    Packed(PackedLinear),
    /// In blocks of integers, on a GPU; for inference.
    #[cfg(feature = "gpu-kernels")]
    OnGpu(GpuLinear),
}

impl Projection {
    /// # Shapes
    /// - x: `[.., input]`
    /// - returned: `[.., output]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            #[cfg(feature = "gpu-kernels")]
            Self::Dense(layer) if gpu::few(&x) => {
                let bias = layer.bias.as_ref().map(|bias| bias.val());
                gpu::product(x, layer.weight.val(), bias)
            }
            Self::Dense(layer) if cpu::applies(&x) => {
                let product = cpu::linear(x, layer.weight.val());
                match &layer.bias {
                    Some(bias) => cpu::biased(product, bias.val()),
                    None => product,
                }
            }
            Self::Dense(layer) => layer.forward(x),
            Self::Packed(layer) => layer.forward(x),
            #[cfg(feature = "gpu-kernels")]
            Self::OnGpu(layer) => layer.forward(x),
        }
    }

    /// What it makes of `x`, added to `to`.
    ///
    /// # Shapes
    /// - x: `[.., input]`
    /// - to: `[.., output]`, returned alike
    pub(crate) fn add_to<const D: usize>(&self, to: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
        #[cfg(feature = "gpu-kernels")]
        if let Self::Dense(Linear { weight, bias: None }) = self
            && gpu::few(&x)
        {
            let shape = to.dims();
            let to = to.reshape([shape.iter().product::<usize>()]);
            return gpu::product(x, weight.val(), Some(to));
        }
        #[cfg(feature = "gpu-kernels")]
        if let Self::OnGpu(layer) = self
            && let Some(sum) = layer.add_to(&to, &x)
        {
            return sum;
        }
        residual(to, self.forward(x))
    }

    /// `silu(gate(x)) * up(x)`, in one go; `None` unless both are on a GPU, without bias, and `x` is few vectors.
    #[cfg(feature = "gpu-kernels")]
    pub(crate) fn forward_gated<const D: usize>(
        gate: &Self,
        up: &Self,
        x: &Tensor<D>,
    ) -> Option<Tensor<D>> {
        match (gate, up) {
            (
                Self::Dense(Linear {
                    weight: gate,
                    bias: None,
                }),
                Self::Dense(Linear {
                    weight: up,
                    bias: None,
                }),
            ) if gpu::few(x) => Some(gpu::gated(x.clone(), gate.val(), up.val())),
            (Self::OnGpu(gate), Self::OnGpu(up)) => GpuLinear::gated(gate, up, x),
            _ => None,
        }
    }

    /// What each of several maps makes of the same numbers, in one go; `None` unless all are packed on the
    /// processor, or all are large and `x` is few vectors there, without gradients.
    ///
    /// # Shapes
    /// - x: `[.., input]`
    /// - returned: `[.., output]` of each
    pub(crate) fn forward_each<const N: usize, const D: usize>(
        maps: [&Self; N],
        x: &Tensor<D>,
    ) -> Option<[Tensor<D>; N]> {
        let packed = maps.iter().filter_map(|map| match map {
            Self::Packed(layer) => Some(layer),
            _ => None,
        });
        if let Ok(layers) = <[&PackedLinear; N]>::try_from(packed.collect::<Vec<_>>()) {
            return Some(PackedLinear::forward_each(layers, x.clone()));
        }
        if !cpu::few(x) {
            return None;
        }
        let dense = maps.iter().filter_map(|map| match map {
            Self::Dense(layer) => Some(layer),
            _ => None,
        });
        let layers = <[&Linear; N]>::try_from(dense.collect::<Vec<_>>()).ok()?;
        let products = cpu::linear_each(x, layers.map(|layer| layer.weight.val()))?;
        let mut layers = layers.into_iter();
        Some(products.map(
            |product| match layers.next().and_then(|layer| layer.bias.as_ref()) {
                Some(bias) => cpu::biased(product, bias.val()),
                None => product,
            },
        ))
    }
}

/// The input embeddings, `[vocab, hidden]`; also the output head when tied.
#[derive(Module, Debug)]
#[cfg_attr(
    feature = "gpu-kernels",
    expect(
        clippy::large_enum_variant,
        reason = "there are a few hundred, and modules cannot be boxed"
    )
)]
pub(crate) enum Embedding {
    /// Floats.
    Dense(Table),
    /// In fewer bits, as above.
    Packed(PackedLinear),
    /// In blocks of integers, as above.
    #[cfg(feature = "gpu-kernels")]
    OnGpu(GpuLinear),
}

/// A table of rows.
#[derive(Module, Debug)]
pub(crate) struct Table {
    weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(crate) fn dense(weight: Tensor<2>) -> Self {
        Self::Dense(Table {
            weight: Param::from_tensor(weight),
        })
    }

    /// Rows by their index.
    ///
    /// # Shapes
    /// - returned: `[ids, hidden]`
    pub(crate) fn rows(&self, ids: &[u32], device: &Device) -> Tensor<2> {
        let indices = || {
            let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
            let count = ids.len();
            Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), device)
        };
        match self {
            Self::Dense(table) => table.weight.val().select(0, indices()),
            #[cfg(feature = "gpu-kernels")]
            Self::OnGpu(layer) => layer.rows(indices()),
            Self::Packed(layer) => {
                let matrix = layer.matrix();
                // A token that the table lacks is a row of zeros.
                let mut numbers = vec![0.0; ids.len() * matrix.columns()];
                for (row, id) in numbers.chunks_exact_mut(matrix.columns().max(1)).zip(ids) {
                    matrix.write_out(*id as usize, row.len(), row);
                }
                let shape = [ids.len(), matrix.columns()];
                Tensor::from_data(TensorData::new(numbers, shape), device)
            }
        }
    }

    /// What keys and values are kept in beside packed weights.
    pub(crate) fn kv_dtype(&self) -> Option<DType> {
        match self {
            Self::Dense(_) => None,
            Self::Packed(layer) => Some(layer.matrix().kv_dtype()),
            #[cfg(feature = "gpu-kernels")]
            Self::OnGpu(_) => Some(DType::F16),
        }
    }

    /// Products with every row: the scores of a tied output head.
    ///
    /// # Shapes
    /// - hidden: `[rows, hidden]`
    /// - returned: `[rows, vocab]`
    pub(crate) fn scores(&self, hidden: Tensor<2>) -> Tensor<2> {
        match self {
            #[cfg(feature = "gpu-kernels")]
            Self::Dense(table) if gpu::few(&hidden) => {
                gpu::product(hidden, table.weight.val().transpose(), None)
            }
            Self::Dense(table) => {
                let rows = table.weight.val().transpose();
                if cpu::applies(&hidden) {
                    cpu::linear(hidden, rows)
                } else {
                    hidden.matmul(rows)
                }
            }
            Self::Packed(layer) => layer.forward(hidden),
            #[cfg(feature = "gpu-kernels")]
            Self::OnGpu(layer) => layer.forward(hidden),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::{DType, Distribution};

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn map(input: usize, output: usize, bias: bool) -> Projection {
        Projection::Dense(Linear {
            weight: Param::from_tensor(random([input, output])),
            bias: bias.then(|| Param::from_tensor(random([output]))),
        })
    }

    #[test]
    fn several_maps_of_few_vectors_in_one_go_are_each_by_itself() {
        let maps = [
            map(700, 900, true),
            map(700, 60, false),
            map(700, 2000, true),
        ];
        let maps = maps.each_ref();
        for shape in [[1, 1, 700], [1, 3, 700], [8, 1, 700]] {
            let x = random(shape);
            let together = Projection::forward_each(maps, &x).unwrap();
            for (together, map) in together.into_iter().zip(maps) {
                let alone = map.forward(x.clone());
                assert_eq!(together.dims(), alone.dims());
                let [together, alone] = [together, alone].map(|x| x.try_into_vec_as::<f32>());
                for (a, b) in together.unwrap().iter().zip(&alone.unwrap()) {
                    assert!((a - b).abs() < 1e-3, "{shape:?}: {a} for {b}");
                }
            }
        }
    }

    #[test]
    fn maps_are_left_alone_with_many_vectors_gradients_or_halves() {
        let maps = [map(700, 900, true), map(700, 900, false)];
        let maps = maps.each_ref();
        assert!(Projection::forward_each(maps, &random([1, 700])).is_some());
        assert!(Projection::forward_each(maps, &random([0, 700])).is_none());
        assert!(Projection::forward_each(maps, &random([9, 700])).is_none());
        assert!(Projection::forward_each(maps, &random([1, 700]).autodiff()).is_none());
        let halves = random([1, 700]).cast(DType::F16);
        assert!(Projection::forward_each(maps, &halves).is_none());
        let small = [map(70, 90, true), map(70, 90, false)];
        assert!(Projection::forward_each(small.each_ref(), &random([1, 70])).is_none());
    }
}
