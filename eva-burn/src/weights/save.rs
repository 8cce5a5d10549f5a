//! Weights out to a Hugging Face directory.

use std::collections::HashMap;
use std::path::Path;

use burn::module::Param;
use burn::tensor::Tensor;
use safetensors::tensor::Dtype;

use super::{Precision, WeightsError};
use crate::config::ModelConfig;
use crate::model::Qwen25Vl;

/// Writes `model.safetensors` into `dir`, with the checkpoint's names and layouts.
///
/// # Errors
/// [`WeightsError::Io`] when the file cannot be written, [`WeightsError::Save`] for a [packed
/// model](Qwen25Vl::is_packed) or a quantized precision: [`convert`](crate::quantized::convert) makes those from a saved directory.
pub fn save(
    model: &Qwen25Vl,
    config: &ModelConfig,
    dir: &Path,
    precision: Precision,
) -> Result<(), WeightsError> {
    if precision.is_quantized() || model.is_packed() {
        return Err(WeightsError::Save);
    }
    write(
        &dir.join("model.safetensors"),
        collect(model, config),
        precision,
    )
}

/// Writes tensors, each with its name, shape and values, into one file; one without its values could not
/// be read from its device.
pub(crate) fn write(
    path: &Path,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    precision: Precision,
) -> Result<(), WeightsError> {
    for (name, shape, values) in &tensors {
        if values.len() != shape.iter().product::<usize>() {
            return Err(WeightsError::Unreadable { name: name.clone() });
        }
    }
    let tensors: Vec<_> = tensors
        .into_iter()
        .map(|(name, shape, values)| (name, Stored::new(shape, &values, precision)))
        .collect();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes =
        safetensors::serialize(tensors, Some(metadata)).map_err(|source| WeightsError::Format {
            path: path.to_owned(),
            source,
        })?;
    // Written beside and renamed: a killed run leaves the old weights or the new, never a half.
    let partial = path.with_extension("safetensors.partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|source| WeightsError::Io {
            path: path.to_owned(),
            source,
        })
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn new(shape: Vec<usize>, values: &[f32], precision: Precision) -> Self {
        let (dtype, bytes) = match precision {
            // `save` refuses the quantized ones.
            Precision::F32 | Precision::Int8 | Precision::Int4 => (
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
            // The checkpoint knows nothing of our enums.
            let names = self.path.iter();
            let names = names.filter(|(_, container)| !container.starts_with("Enum:"));
            let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
            let name = names.join(".");
            let in_linear = self
                .path
                .iter()
                .any(|(_, container)| container.contains("Linear"));
            let tensor = param.val();
            let mut shape = tensor.dims().to_vec();
            // What cannot be read is missing, which `write` refuses.
            let mut values = tensor.try_into_vec_as().unwrap_or_default();
            if D == 2 && in_linear {
                values = transposed(&values, shape[1]);
                shape.reverse();
            }
            self.tensors.push((name, shape, values));
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

/// A matrix whose rows of `columns` become columns.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let column = |index| values.iter().skip(index).step_by(columns).copied();
    (0..columns).flat_map(column).collect()
}
