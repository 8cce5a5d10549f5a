//! [`convert`]: a model directory with its weights in blocks of integers.
//!
//! Tensor by tensor, from file to file: a model of any size is converted in the memory of its largest
//! matrix.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use safetensors::tensor::Dtype;
use serde_json::{Map, Value, json};

use super::matrix::{Bits, QuantizedMatrix};
use crate::config::{ConfigError, read_json};
use crate::weights::shard::{Shard, Stored};
use crate::weights::{Precision, WeightsError, open_shards};

/// Files of a model directory that are copied as they are, where they exist.
const COPIED: [&str; 8] = [
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "README.md",
];

/// The key of `config.json` under which a quantized directory says what it is.
const CONFIG_KEY: &str = "quantization_config";

/// Why a model could not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// `config.json` is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be written or copied.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The precision has no blocks of integers.
    #[error("{0} is not a quantized precision; use int8 or int4")]
    NotQuantized(Precision),
    /// The model is quantized already.
    #[error("tensor `{name}` of {dir} is quantized already; start from the original weights")]
    Already {
        /// The tensor.
        name: String,
        /// The directory.
        dir: PathBuf,
    },
    /// The output would overwrite the input.
    #[error("{0} is the model's own directory; write to another one")]
    Same(PathBuf),
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// What [`convert`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Converted {
    /// Matrices that are in blocks of integers now.
    pub quantized: usize,
    /// Other tensors, copied as they were.
    pub copied: usize,
    /// Bytes of the tensors before.
    pub bytes_before: u64,
    /// Bytes of the tensors now.
    pub bytes_after: u64,
}

/// The bits of a matrix by its name in the checkpoint; `None` for what stays in floats: norms, biases
/// and the patches' embedding, which are small, and everything where `precision` is no quantized one.
pub(crate) fn scheme(name: &str, precision: Precision) -> Option<Bits> {
    let decoder = match precision {
        Precision::Int8 => Bits::Eight,
        Precision::Int4 => Bits::Four,
        Precision::Bf16 | Precision::F16 | Precision::F32 => return None,
    };
    let layer = name.ends_with("_proj.weight");
    if let Some(rest) = name.strip_prefix("visual.") {
        let layer = layer
            || rest.ends_with(".attn.qkv.weight")
            || rest.ends_with(".attn.proj.weight")
            || rest.starts_with("merger.mlp.") && rest.ends_with(".weight");
        layer.then_some(Bits::Eight)
    } else if name == "model.embed_tokens.weight" || name == "lm_head.weight" {
        // Their errors reach the scores directly.
        Some(Bits::Eight)
    } else {
        layer.then_some(decoder)
    }
}

/// The name of the scales of the matrix `name`.
pub(crate) fn scales_name(name: &str) -> String {
    format!("{name}_scales")
}

/// Writes the model of `from` into the directory `to`, its matrices quantized: `model.safetensors`,
/// `config.json` with what was done, and the other files of a model directory as they are.
///
/// Each matrix becomes a tensor of bytes under its own name, `[rows, bytes of a row]`, and one of bf16
/// scales, `NAME_scales`, `[rows, blocks of a row]`. `progress` hears of each tensor: how many are
/// done, and of how many.
///
/// # Errors
/// [`ConvertError`] names the file or tensor. Nothing of an earlier `model.safetensors` in `to` is
/// lost when it fails.
pub fn convert(
    from: &Path,
    to: &Path,
    precision: Precision,
    mut progress: impl FnMut(usize, usize),
) -> Result<Converted, ConvertError> {
    if !precision.is_quantized() {
        return Err(ConvertError::NotQuantized(precision));
    }
    let mut shards = open_shards(from)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ConvertError::Io { path, source }
    };
    std::fs::create_dir_all(to).map_err(io(to))?;
    if let (Ok(a), Ok(b)) = (from.canonicalize(), to.canonicalize())
        && a == b
    {
        return Err(ConvertError::Same(to.to_owned()));
    }
    let mut config: Map<String, Value> = read_json(&from.join("config.json"))?;

    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for (index, shard) in shards.iter().enumerate() {
        for name in shard.names() {
            // Of a tensor that two files hold the first is read, as when a model is loaded.
            if !seen.insert(name.clone()) {
                continue;
            }
            if let Some(stored) = shard.find(&name)? {
                entries.push(Entry::new(index, name, stored, precision, from)?);
            }
        }
    }

    let path = to.join("model.safetensors");
    // Written beside and renamed, so that a run that fails leaves what was there.
    let partial = to.join("model.safetensors.partial");
    let mut file = BufWriter::new(std::fs::File::create(&partial).map_err(io(&partial))?);
    let mut done = Converted::default();
    let header = header(&entries);
    let length = (header.len() as u64).to_le_bytes();
    file.write_all(&length).map_err(io(&partial))?;
    file.write_all(&header).map_err(io(&partial))?;
    for (index, entry) in entries.iter().enumerate() {
        let Some(shard) = shards.get_mut(entry.shard) else {
            continue;
        };
        done.bytes_before += entry.stored.len();
        done.bytes_after += entry.bytes.iter().sum::<u64>();
        match entry.bits {
            Some(bits) => {
                let matrix = entry.quantize(shard, bits)?;
                file.write_all(matrix.codes()).map_err(io(&partial))?;
                for scale in matrix.scales() {
                    file.write_all(&scale.to_le_bytes()).map_err(io(&partial))?;
                }
                done.quantized += 1;
            }
            None => {
                let bytes = shard.bytes(&entry.stored)?;
                file.write_all(&bytes).map_err(io(&partial))?;
                done.copied += 1;
            }
        }
        progress(index + 1, entries.len());
    }
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(io(&partial))?;

    for name in COPIED {
        let source = from.join(name);
        if source.exists() {
            let target = to.join(name);
            std::fs::copy(&source, &target).map_err(io(&target))?;
        }
    }
    config.insert(
        CONFIG_KEY.to_owned(),
        json!({
            "quant_method": "eva",
            "precision": precision.to_string(),
            "block_size": super::BLOCK,
        }),
    );
    let target = to.join("config.json");
    std::fs::write(&target, format!("{:#}\n", Value::Object(config))).map_err(io(&target))?;
    std::fs::rename(&partial, &path).map_err(io(&path))?;
    Ok(done)
}

/// A tensor of the input, and what becomes of it.
struct Entry {
    shard: usize,
    name: String,
    stored: Stored,
    /// The bits it is quantized to.
    bits: Option<Bits>,
    /// Bytes that are written: its own, or those of the weights and of the scales.
    bytes: Vec<u64>,
}

impl Entry {
    fn new(
        shard: usize,
        name: String,
        stored: Stored,
        precision: Precision,
        dir: &Path,
    ) -> Result<Self, ConvertError> {
        if stored.dtype == Dtype::U8 {
            return Err(ConvertError::Already {
                name,
                dir: dir.to_owned(),
            });
        }
        // One without numbers may claim sides of any length.
        let bits = scheme(&name, precision).filter(|_| stored.shape.len() == 2 && stored.len() > 0);
        let bytes = match (bits, stored.shape.as_slice()) {
            (Some(bits), [rows, columns]) => vec![
                (rows * bits.row_bytes(*columns)) as u64,
                (rows * Bits::row_scales(*columns) * size_of::<u16>()) as u64,
            ],
            _ => vec![stored.len()],
        };
        Ok(Self {
            shard,
            name,
            stored,
            bits,
            bytes,
        })
    }

    fn quantize(&self, shard: &mut Shard, bits: Bits) -> Result<QuantizedMatrix, WeightsError> {
        let [rows, columns] = self.stored.shape[..] else {
            return Ok(QuantizedMatrix::with_capacity(bits, 0, 1));
        };
        let mut matrix = QuantizedMatrix::with_capacity(bits, rows, columns);
        shard.read(&self.name, &self.stored, columns, |numbers| {
            matrix.push_rows(numbers);
        })?;
        Ok(matrix)
    }
}

/// The JSON at the head of a safetensors file, padded so that the tensors begin at 8 bytes.
fn header(entries: &[Entry]) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut at = 0;
    for entry in entries {
        let mut place = |name: String, dtype: Dtype, shape: &[usize], bytes: u64| {
            let offsets = [at, at + bytes];
            at += bytes;
            let info = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
            map.insert(name, info);
        };
        match (entry.bits, &entry.stored.shape[..], &entry.bytes[..]) {
            (Some(bits), [rows, columns], [codes, scales]) => {
                let shape = [*rows, bits.row_bytes(*columns)];
                place(entry.name.clone(), Dtype::U8, &shape, *codes);
                let shape = [*rows, Bits::row_scales(*columns)];
                place(scales_name(&entry.name), Dtype::BF16, &shape, *scales);
            }
            (_, shape, bytes) => {
                let bytes = bytes.iter().sum();
                place(entry.name.clone(), entry.stored.dtype, shape, bytes);
            }
        }
    }
    let mut header = Value::Object(map).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}
