//! Weights in and out of a Hugging Face directory: safetensors, whole or sharded.
//!
//! Layers ask `Weights` for their tensors by the checkpoint's own names; whether the values come
//! from files or from a seeded generator is decided once, so that a model is built the same way for
//! inference and for training from nothing.

mod error;
mod files;
mod precision;
mod save;
pub(crate) mod shard;

use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use safetensors::tensor::Dtype;

pub use error::WeightsError;
pub(crate) use files::open_shards;
pub use precision::{Precision, UnknownPrecision};
pub use save::save;
pub(crate) use save::write;

use crate::projection::{Embedding, Projection};
#[cfg(feature = "gpu-kernels")]
use crate::quantized::GpuLinear;
use crate::quantized::{self, Half, HalfMatrix, Matrix, PackedLinear, QuantizedMatrix};
use files::{expected, stored_blocks};
use shard::Shard;

/// Numbers that a thread takes at least, where each of several takes some.
const ALONE: usize = 1 << 14;

/// Columns that are transposed together: as many numbers as a line of the cache has.
const TOGETHER: usize = 16;

/// How a tensor starts when it does not come from a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Init {
    /// All ones (norm weights).
    Ones,
    /// All zeros (biases).
    Zeros,
    /// Normal with this standard deviation.
    Normal(f64),
}

/// The origin of a model's tensors.
#[derive(Debug)]
pub(crate) struct Weights {
    origin: Origin,
    device: Device,
    precision: Precision,
}

#[derive(Debug)]
enum Origin {
    /// A directory's safetensors, read tensor by tensor.
    Files { dir: PathBuf, shards: Vec<Shard> },
    /// A seeded generator.
    Random(Box<ChaCha8Rng>),
}

impl Weights {
    /// Opens the weight files of `dir`.
    pub(crate) fn open(
        dir: &Path,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, WeightsError> {
        if precision.is_quantized() && !takes_blocks(device) {
            return Err(WeightsError::Device { precision });
        }
        // What an earlier model left, which serves nothing else.
        device.memory_cleanup();
        Ok(Self {
            origin: Origin::Files {
                dir: dir.to_owned(),
                shards: open_shards(dir)?,
            },
            device: device.clone(),
            precision,
        })
    }

    /// Random weights from a seed.
    pub(crate) fn random(seed: u64, device: &Device) -> Self {
        Self {
            origin: Origin::Random(Box::new(ChaCha8Rng::seed_from_u64(seed))),
            device: device.clone(),
            precision: Precision::F32,
        }
    }

    /// One tensor, in the checkpoint's own layout.
    pub(crate) fn tensor<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Tensor<D>, WeightsError> {
        let columns = shape.last().copied().unwrap_or(1);
        self.numbers(name, &shape, columns, Layout::Stored, init)
            .map(|data| self.upload(data, shape))
    }

    /// A vector parameter.
    pub(crate) fn vector(
        &mut self,
        name: &str,
        len: usize,
        init: Init,
    ) -> Result<Param<Tensor<1>>, WeightsError> {
        Ok(Param::from_tensor(self.tensor(name, [len], init)?))
    }

    /// A linear layer; checkpoints store `[output, input]`, Burn multiplies by `[input, output]`.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        input: usize,
        output: usize,
        bias: bool,
    ) -> Result<Projection, WeightsError> {
        let weight = format!("{name}.weight");
        let bias = if bias {
            Some(self.vector(&format!("{name}.bias"), output, Init::Zeros)?)
        } else {
            None
        };
        match self.packed(&weight, output, input, init_of(input))? {
            #[cfg(feature = "gpu-kernels")]
            Some(Matrix::Blocks(matrix)) if !on_processor(&self.device) => Ok(Projection::OnGpu(
                GpuLinear::new(matrix, bias, &self.device),
            )),
            Some(matrix) => Ok(Projection::Packed(PackedLinear::new(matrix, bias))),
            None => {
                let weight = self.matrix(&weight, &[output, input], input)?;
                let weight = Param::from_tensor(weight);
                Ok(Projection::Dense(Linear { weight, bias }))
            }
        }
    }

    /// A table of `rows` rows.
    pub(crate) fn embedding(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        init: Init,
    ) -> Result<Embedding, WeightsError> {
        match self.packed(name, rows, columns, init)? {
            #[cfg(feature = "gpu-kernels")]
            Some(Matrix::Blocks(matrix)) if !on_processor(&self.device) => {
                Ok(Embedding::OnGpu(GpuLinear::new(matrix, None, &self.device)))
            }
            Some(matrix) => Ok(Embedding::Packed(PackedLinear::new(matrix, None))),
            None => {
                let table = self.tensor(name, [rows, columns], init)?;
                Ok(Embedding::dense(table))
            }
        }
    }

    /// A matrix in fewer bits than it is multiplied in; `None` when it is to be one of Burn's tensors.
    fn packed(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        init: Init,
    ) -> Result<Option<Matrix>, WeightsError> {
        if let Some(matrix) = self.quantized(name, rows, columns, init)? {
            return Ok(Some(Matrix::Blocks(matrix)));
        }
        let Some(half) = self.half() else {
            return Ok(None);
        };
        self.expect(name, &[rows, columns])?;
        let mut matrix = HalfMatrix::with_capacity(half, rows, columns);
        self.pieces(name, &[rows, columns], columns, init, |numbers| {
            matrix.push_rows(numbers);
        })?;
        Ok(Some(Matrix::Halves(matrix)))
    }

    /// The 16 bits in which the processor keeps matrices; all else is `f32` beside them.
    fn half(&self) -> Option<Half> {
        match self.precision {
            Precision::F16 if on_processor(&self.device) => Some(Half::F16),
            Precision::Bf16 if on_processor(&self.device) => Some(Half::Bf16),
            _ => None,
        }
    }

    /// A matrix in blocks of integers: as the files hold it, or made while it is read; `None` when it
    /// is to be floats.
    fn quantized(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        init: Init,
    ) -> Result<Option<QuantizedMatrix>, WeightsError> {
        let wanted = quantized::scheme(name, self.precision);
        let stored = match &mut self.origin {
            Origin::Files { shards, .. } => stored_blocks(shards, name, rows, columns)?,
            Origin::Random(_) => None,
        };
        if let Some(matrix) = stored {
            let fits = match self.precision {
                Precision::F32 => takes_blocks(&self.device),
                Precision::Bf16 | Precision::F16 => false,
                Precision::Int8 | Precision::Int4 => wanted == Some(matrix.bits()),
            };
            return if fits {
                Ok(Some(matrix))
            } else {
                Err(WeightsError::Quantized {
                    name: name.to_owned(),
                    stored: matrix.bits().name(),
                    precision: self.precision,
                })
            };
        }
        let Some(bits) = wanted else {
            return Ok(None);
        };
        self.expect(name, &[rows, columns])?;
        let mut matrix = QuantizedMatrix::with_capacity(bits, rows, columns);
        self.pieces(name, &[rows, columns], columns, init, |numbers| {
            matrix.push_rows(numbers);
        })?;
        Ok(Some(matrix))
    }

    /// The matrix of a linear map from `input` numbers, which the checkpoint stores with `shape`: one
    /// row for each number of the output.
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        shape: &[usize],
        input: usize,
    ) -> Result<Tensor<2>, WeightsError> {
        let output = shape.first().copied().unwrap_or_default();
        let init = init_of(input);
        // On a GPU a token's product reads it row by row.
        if rows_side_by_side(&self.device) {
            let data = self.numbers(name, shape, input, Layout::Stored, init)?;
            return Ok(self.upload(data, [output, input]).transpose());
        }
        self.numbers(name, shape, input, Layout::Transposed, init)
            .map(|data| self.upload(data, [input, output]))
    }

    fn upload<const D: usize>(&self, numbers: Numbers, shape: [usize; D]) -> Tensor<D> {
        let (data, dtype) = match numbers {
            Numbers::F32(values) => (TensorData::new(values, shape), DType::F32),
            Numbers::F16(values) => (TensorData::new(values, shape), DType::F16),
            Numbers::Bf16(values) => (TensorData::new(values, shape), DType::BF16),
            Numbers::Stored(bytes, dtype) => {
                (TensorData::from_bytes_vec(bytes, shape, dtype), dtype)
            }
        };
        let device = &self.device;
        to_stay(data, device, |data| {
            Tensor::from_data(data, (device, dtype))
        })
    }

    /// The numbers of a tensor of `shape`, as rows of `columns`, in the precision asked for.
    fn numbers(
        &mut self,
        name: &str,
        shape: &[usize],
        columns: usize,
        layout: Layout,
        init: Init,
    ) -> Result<Numbers, WeightsError> {
        let precision = match self.half() {
            Some(_) => Precision::F32,
            None => self.precision,
        };
        if layout == Layout::Stored
            && rows_side_by_side(&self.device)
            && let Some(numbers) = self.as_stored(name, shape, precision)?
        {
            return Ok(numbers);
        }
        Ok(match precision {
            // Beside packed matrices all is `f32`.
            Precision::F32 | Precision::Int8 | Precision::Int4 => {
                Numbers::F32(self.gather(name, shape, columns, layout, init, |x| x)?)
            }
            Precision::F16 => Numbers::F16(self.gather(
                name,
                shape,
                columns,
                layout,
                init,
                half::f16::from_f32,
            )?),
            Precision::Bf16 => Numbers::Bf16(self.gather(
                name,
                shape,
                columns,
                layout,
                init,
                half::bf16::from_f32,
            )?),
        })
    }

    /// A tensor's bytes as the files hold them, where that is the precision asked for: to convert 7 B numbers takes
    /// half a minute.
    fn as_stored(
        &mut self,
        name: &str,
        shape: &[usize],
        precision: Precision,
    ) -> Result<Option<Numbers>, WeightsError> {
        let Origin::Files { dir, shards } = &mut self.origin else {
            return Ok(None);
        };
        let (shard, stored) = expected(shards, dir, name, shape)?;
        let dtype = match (stored.dtype, precision) {
            // Files are little-endian.
            _ if cfg!(target_endian = "big") => return Ok(None),
            (Dtype::F32, Precision::F32 | Precision::Int8 | Precision::Int4) => DType::F32,
            (Dtype::F16, Precision::F16) => DType::F16,
            (Dtype::BF16, Precision::Bf16) => DType::BF16,
            _ => return Ok(None),
        };
        Ok(Some(Numbers::Stored(shard.bytes(&stored)?, dtype)))
    }

    /// Refuses a tensor that the files lack or hold in another shape, before there is room made for it: what
    /// `config.json` asks for can be larger than any memory.
    fn expect(&mut self, name: &str, shape: &[usize]) -> Result<(), WeightsError> {
        match &mut self.origin {
            Origin::Files { dir, shards } => expected(shards, dir, name, shape).map(drop),
            Origin::Random(_) => Ok(()),
        }
    }

    /// Fills one vector, converting on the way: nothing of the tensor is held twice.
    fn gather<E: Copy + Default + Send>(
        &mut self,
        name: &str,
        shape: &[usize],
        columns: usize,
        layout: Layout,
        init: Init,
        convert: fn(f32) -> E,
    ) -> Result<Vec<E>, WeightsError> {
        self.expect(name, shape)?;
        let columns = columns.max(1);
        let count: usize = shape.iter().product();
        let rows = (count / columns).max(1);
        let mut out = vec![E::default(); count];
        let mut row = 0;
        self.pieces(name, shape, columns, init, |piece| {
            match layout {
                Layout::Stored => {
                    let target = out.get_mut(row * columns..).unwrap_or_default();
                    let converted = target.par_iter_mut().with_min_len(ALONE).zip(piece);
                    converted.for_each(|(to, from)| *to = convert(*from));
                }
                Layout::Transposed => {
                    // Some columns at a time, which lie side by side in what is read.
                    let parts = out.par_chunks_mut(rows * TOGETHER).enumerate();
                    parts.for_each(|(part, target)| {
                        for (new, from) in piece.chunks_exact(columns).enumerate() {
                            let from = from.iter().skip(part * TOGETHER);
                            let target = target.iter_mut().skip(row + new).step_by(rows);
                            for (to, from) in target.zip(from) {
                                *to = convert(*from);
                            }
                        }
                    });
                }
            }
            row += piece.len() / columns;
        })?;
        Ok(out)
    }

    /// Hands a tensor's numbers to `sink`, some rows of `columns` at a time.
    fn pieces(
        &mut self,
        name: &str,
        shape: &[usize],
        columns: usize,
        init: Init,
        mut sink: impl FnMut(&[f32]) + Send,
    ) -> Result<(), WeightsError> {
        match &mut self.origin {
            Origin::Files { dir, shards } => {
                let (shard, stored) = expected(shards, dir, name, shape)?;
                shard.read(name, &stored, columns, sink)
            }
            Origin::Random(rng) => {
                let count = shape.iter().product();
                let values: Vec<f32> = match init {
                    Init::Ones => vec![1.0; count],
                    Init::Zeros => vec![0.0; count],
                    Init::Normal(std) => (0..count).map(|_| normal(rng) * std as f32).collect(),
                };
                sink(&values);
                Ok(())
            }
        }
    }
}

/// Weights on their device.
///
/// On a GPU they lie apart from what comes and goes, small ones too, or else its memory is searched with all of them in
/// it each time that a kernel needs some. Not those that are trained, which come and go.
pub(crate) fn to_stay<T: Send>(
    data: TensorData,
    device: &Device,
    upload: impl Fn(TensorData) -> T + Send,
) -> T {
    if device.is_autodiff() {
        return upload(data);
    }
    device.memory_persistent_allocations(data, upload)
}

/// Whether that is the processor, and without gradients: halves are multiplied there as they are.
fn on_processor(device: &Device) -> bool {
    *device == Device::flex() && !device.is_autodiff()
}

/// Whether weights in blocks of integers are multiplied there; never with gradients.
fn takes_blocks(device: &Device) -> bool {
    #[cfg(feature = "gpu-kernels")]
    if crate::gpu::is_gpu(device) {
        return true;
    }
    on_processor(device)
}

/// Whether the matrices of linear maps lie there as in a checkpoint.
fn rows_side_by_side(device: &Device) -> bool {
    #[cfg(feature = "gpu-kernels")]
    if crate::gpu::is_gpu(device) {
        return !device.is_autodiff();
    }
    let _ = device;
    false
}

/// How the weights of a linear map from `input` numbers start.
fn init_of(input: usize) -> Init {
    Init::Normal((input as f64).powf(-0.5))
}

/// How a matrix is laid out in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// As in the checkpoint.
    Stored,
    /// Rows and columns change places.
    Transposed,
}

/// Numbers on their way to the device.
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<half::f16>),
    Bf16(Vec<half::bf16>),
    /// As a file holds them.
    Stored(Vec<u8>, DType),
}

/// Box-Muller, from two uniform numbers.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}
