//! Weights in and out of a Hugging Face directory: safetensors, whole or sharded.
//!
//! Layers ask `Weights` for their tensors by the checkpoint's own names; whether the values come
//! from files or from a seeded generator is decided once, so that a model is built the same way for
//! inference and for training from nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use safetensors::tensor::Dtype;

use crate::config::{ConfigError, ModelConfig, read_json};
use crate::model::Qwen25Vl;
use crate::shard::Shard;

/// Why weights could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The configuration, or the index of the shards, is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no weight file.
    #[error(
        "{dir} has neither model.safetensors nor model.safetensors.index.json; is it a model directory?"
    )]
    NoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// A weight file cannot be read or written.
    #[error("cannot access {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A weight file is not safetensors, or is damaged.
    #[error("{path} is not a valid safetensors file: {source}; download it again")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor that the configuration asks for is not in the files.
    #[error(
        "tensor `{name}` is missing from {dir}; config.json and the weights do not belong together, or a shard is missing"
    )]
    Missing {
        /// The tensor.
        name: String,
        /// The directory.
        dir: PathBuf,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("tensor `{name}` has shape {found:?}, config.json asks for {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that was expected.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type that is not read.
    #[error("tensor `{name}` is stored as {dtype}; f32, f16 and bf16 are read")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
}

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
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, PathBuf>,
        }
        let single = dir.join("model.safetensors");
        let sharded = dir.join("model.safetensors.index.json");
        let mut paths = if single.exists() {
            vec![single]
        } else if sharded.exists() {
            let index: Index = read_json(&sharded)?;
            index
                .weight_map
                .into_values()
                // A name of an index file must not lead out of the model directory.
                .filter_map(|file| file.file_name().map(|name| dir.join(name)))
                .collect()
        } else {
            return Err(WeightsError::NoWeights {
                dir: dir.to_owned(),
            });
        };
        paths.sort();
        paths.dedup();
        let shards = paths
            .into_iter()
            .map(Shard::open)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            origin: Origin::Files {
                dir: dir.to_owned(),
                shards,
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
    ) -> Result<Linear, WeightsError> {
        let weight = self.matrix(&format!("{name}.weight"), &[output, input], input)?;
        let bias = if bias {
            Some(self.vector(&format!("{name}.bias"), output, Init::Zeros)?)
        } else {
            None
        };
        Ok(Linear {
            weight: Param::from_tensor(weight),
            bias,
        })
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
        let init = Init::Normal((input as f64).powf(-0.5));
        self.numbers(name, shape, input, Layout::Transposed, init)
            .map(|data| self.upload(data, [input, output]))
    }

    fn upload<const D: usize>(&self, numbers: Numbers, shape: [usize; D]) -> Tensor<D> {
        let (data, dtype) = match numbers {
            Numbers::F32(values) => (TensorData::new(values, shape), DType::F32),
            Numbers::F16(values) => (TensorData::new(values, shape), DType::F16),
            Numbers::Bf16(values) => (TensorData::new(values, shape), DType::BF16),
        };
        Tensor::from_data(data, (&self.device, dtype))
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
        Ok(match self.precision {
            Precision::F32 => {
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

    /// Fills one vector, converting on the way: nothing of the tensor is held twice.
    fn gather<E: Copy + Default>(
        &mut self,
        name: &str,
        shape: &[usize],
        columns: usize,
        layout: Layout,
        init: Init,
        convert: fn(f32) -> E,
    ) -> Result<Vec<E>, WeightsError> {
        let count = shape.iter().product();
        let rows = count / columns.max(1);
        let mut out = vec![E::default(); count];
        let mut row = 0;
        let mut place = |piece: &[f32]| {
            let new = piece.len() / columns.max(1);
            match layout {
                Layout::Stored => {
                    let target = out.iter_mut().skip(row * columns);
                    for (to, from) in target.zip(piece) {
                        *to = convert(*from);
                    }
                }
                // Column by column, so that what is written is contiguous.
                Layout::Transposed => {
                    for (column, target) in out.chunks_exact_mut(rows).enumerate() {
                        let from = piece.iter().skip(column).step_by(columns);
                        for (to, from) in target.iter_mut().skip(row).zip(from) {
                            *to = convert(*from);
                        }
                    }
                }
            }
            row += new;
        };
        match &mut self.origin {
            Origin::Files { dir, shards } => {
                for shard in shards {
                    let Some(stored) = shard.find(name)? else {
                        continue;
                    };
                    if stored.shape != shape {
                        return Err(WeightsError::Shape {
                            name: name.to_owned(),
                            found: stored.shape,
                            expected: shape.to_vec(),
                        });
                    }
                    shard.read(name, &stored, columns, place)?;
                    return Ok(out);
                }
                return Err(WeightsError::Missing {
                    name: name.to_owned(),
                    dir: dir.clone(),
                });
            }
            Origin::Random(rng) => {
                let values: Vec<f32> = match init {
                    Init::Ones => vec![1.0; count],
                    Init::Zeros => vec![0.0; count],
                    Init::Normal(std) => (0..count).map(|_| normal(rng) * std as f32).collect(),
                };
                place(&values);
            }
        }
        Ok(out)
    }
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
}

/// Transposed and laid out anew.
fn transposed(weight: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = weight.dims();
    let device = weight.device();
    let values: Vec<f32> = weight.try_into_vec_as().unwrap_or_default();
    let mut out = vec![0.0; values.len()];
    for row in 0..rows {
        for column in 0..columns {
            out[column * rows + row] = values[row * columns + column];
        }
    }
    Tensor::from_data(TensorData::new(out, [columns, rows]), &device)
}

/// Box-Muller, from two uniform numbers.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

/// The number type of weights, in a file and in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// 16 bits with the range of `f32` and 8 bits of mantissa: half the size. The published weights'.
    Bf16,
    /// 16 bits with 11 bits of mantissa; numbers end at 65,504.
    F16,
    /// Exactly what was trained.
    #[default]
    F32,
}

impl Precision {
    /// Bytes of a number.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A precision was named that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a precision; use f32, f16 or bf16")]
pub struct UnknownPrecision(String);

impl std::str::FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(UnknownPrecision(name.to_owned())),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

/// Writes `model.safetensors` into `dir`, with the checkpoint's names and layouts.
///
/// # Errors
/// [`WeightsError::Io`] when the file cannot be written.
pub fn save(
    model: &Qwen25Vl,
    config: &ModelConfig,
    dir: &Path,
    precision: Precision,
) -> Result<(), WeightsError> {
    let path = dir.join("model.safetensors");
    let tensors: Vec<_> = collect(model, config)
        .into_iter()
        .map(|(name, shape, values)| (name, Stored::new(shape, &values, precision)))
        .collect();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes =
        safetensors::serialize(tensors, Some(metadata)).map_err(|source| WeightsError::Format {
            path: path.clone(),
            source,
        })?;
    // Written beside and renamed: a killed run leaves the old weights or the new, never a half.
    let partial = dir.join("model.safetensors.partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, &path))
        .map_err(|source| WeightsError::Io { path, source })
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn new(shape: Vec<usize>, values: &[f32], precision: Precision) -> Self {
        let (dtype, bytes) = match precision {
            Precision::F32 => (
                Dtype::F32,
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
            Precision::Bf16 => (
                Dtype::BF16,
                values
                    .iter()
                    .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
                    .collect(),
            ),
            Precision::F16 => (
                Dtype::F16,
                values
                    .iter()
                    .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
                    .collect(),
            ),
        };
        Self {
            dtype,
            shape,
            bytes,
        }
    }
}

impl safetensors::View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.bytes).into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Every parameter under the checkpoint's name, in the checkpoint's layout.
fn collect(model: &Qwen25Vl, config: &ModelConfig) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    use burn::module::{Module, ModuleVisitor};

    #[derive(Default)]
    struct Collector {
        path: Vec<(String, String)>,
        tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    }
    impl ModuleVisitor for Collector {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.push((name.to_owned(), container.to_owned()));
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let names: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
            let name = names.join(".");
            let in_linear = self
                .path
                .iter()
                .any(|(_, container)| container.contains("Linear"));
            let tensor = param.val();
            let mut shape = tensor.dims().to_vec();
            let values = if D == 2 && in_linear {
                shape.reverse();
                transposed(tensor.reshape([shape[1], shape[0]])).try_into_vec_as()
            } else {
                tensor.try_into_vec_as()
            };
            self.tensors.push((name, shape, values.unwrap_or_default()));
        }
    }

    let mut collector = Collector::default();
    model.visit(&mut collector);
    let mut tensors = collector.tensors;
    for (name, shape, _) in &mut tensors {
        // Burn numbers the merger's two layers 0 and 1; the checkpoint counts the activation too.
        if let Some(rest) = name.strip_prefix("visual.merger.mlp.1.") {
            *name = format!("visual.merger.mlp.2.{rest}");
        }
        if name == "visual.patch_embed.proj.weight" {
            let v = &config.vision;
            *shape = vec![
                v.hidden_size,
                v.in_channels,
                v.temporal_patch_size,
                v.patch_size,
                v.patch_size,
            ];
        }
    }
    tensors
}
