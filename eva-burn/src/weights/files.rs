//! The weight files of a model directory, and where in them a tensor lies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::Dtype;

use super::WeightsError;
use super::shard::{Shard, Stored};
use crate::config::read_json;
use crate::quantized::{self, Bits, QuantizedMatrix};

/// The weight files of a model directory.
pub(crate) fn open_shards(dir: &Path) -> Result<Vec<Shard>, WeightsError> {
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
    paths.into_iter().map(Shard::open).collect()
}

/// The file that holds a tensor, and where.
fn find<'a>(
    shards: &'a mut [Shard],
    name: &str,
) -> Result<Option<(&'a mut Shard, Stored)>, WeightsError> {
    for shard in shards {
        if let Some(stored) = shard.find(name)? {
            return Ok(Some((shard, stored)));
        }
    }
    Ok(None)
}

/// The file that holds a tensor of this shape, and where.
pub(super) fn expected<'a>(
    shards: &'a mut [Shard],
    dir: &Path,
    name: &str,
    shape: &[usize],
) -> Result<(&'a mut Shard, Stored), WeightsError> {
    match find(shards, name)? {
        Some((shard, stored)) if stored.shape == shape => Ok((shard, stored)),
        Some((_, stored)) => Err(WeightsError::Shape {
            name: name.to_owned(),
            found: stored.shape,
            expected: shape.to_vec(),
        }),
        None => Err(WeightsError::Missing {
            name: name.to_owned(),
            dir: dir.to_owned(),
        }),
    }
}

/// A matrix that is stored as blocks of integers; `None` when it is not.
pub(super) fn stored_blocks(
    shards: &mut [Shard],
    name: &str,
    rows: usize,
    columns: usize,
) -> Result<Option<QuantizedMatrix>, WeightsError> {
    let Some((shard, stored)) = find(shards, name)? else {
        return Ok(None);
    };
    if stored.dtype != Dtype::U8 {
        return Ok(None);
    }
    let wrong = |stored: &Stored, columns| WeightsError::Shape {
        name: name.to_owned(),
        found: stored.shape.clone(),
        expected: vec![rows, columns],
    };
    let bits = [Bits::Four, Bits::Eight]
        .into_iter()
        .find(|bits| stored.shape == [rows, bits.row_bytes(columns)])
        .ok_or_else(|| wrong(&stored, Bits::Eight.row_bytes(columns)))?;
    let codes = shard.bytes(&stored)?;
    let scales_name = quantized::scales_name(name);
    let Some((shard, stored)) = find(shards, &scales_name)? else {
        return Err(WeightsError::NoScales { name: scales_name });
    };
    let blocks = Bits::row_scales(columns);
    if stored.dtype != Dtype::BF16 || stored.shape != [rows, blocks] {
        return Err(wrong(&stored, blocks));
    }
    let scales = shard.bytes(&stored)?;
    let scales = scales.as_chunks::<2>().0.iter();
    let scales = scales.map(|bytes| u16::from_le_bytes(*bytes)).collect();
    QuantizedMatrix::from_parts(bits, rows, columns, codes, scales)
        .map(Some)
        .ok_or_else(|| wrong(&stored, blocks))
}
