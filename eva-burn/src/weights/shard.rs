//! One safetensors file, read tensor by tensor.
//!
//! Only the header is kept: a tensor's bytes are read when it is asked for, a piece at a time, and
//! converted on the way, so that loading never holds a second copy of the weights.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata};

use crate::weights::WeightsError;

/// The length of the header comes before it.
const LENGTH_BYTES: u64 = 8;
/// A header of more than this is damage (safetensors' own limit).
const MAX_HEADER: u64 = 100_000_000;
/// Bytes read at once.
const PIECE: usize = 4 << 20;

/// A weight file.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the tensors' bytes begin, and how many there are.
    begin: u64,
    len: u64,
}

/// What a shard says of a tensor.
pub(crate) struct Stored {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Its bytes: from and to, counted from the beginning of the file.
    range: (u64, u64),
}

impl Stored {
    /// Its bytes.
    pub(crate) fn len(&self) -> u64 {
        self.range.1 - self.range.0
    }
}

impl Shard {
    pub(crate) fn open(path: PathBuf) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io {
            path: path.clone(),
            source,
        };
        let damaged = |source| WeightsError::Format {
            path: path.clone(),
            source,
        };
        let mut file = File::open(&path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        if size < LENGTH_BYTES {
            return Err(damaged(SafeTensorError::HeaderTooSmall));
        }
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err(damaged(SafeTensorError::HeaderTooLarge));
        }
        let begin = LENGTH_BYTES + length;
        if begin > size {
            return Err(damaged(SafeTensorError::InvalidHeaderLength));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| damaged(SafeTensorError::InvalidHeaderDeserialization(error)))?;
        let len = size - begin;
        if metadata.data_len() as u64 != len {
            return Err(damaged(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(Self {
            path,
            file,
            metadata,
            begin,
            len,
        })
    }

    /// The tensors' names, in the order of their bytes.
    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// A tensor's bytes as they are.
    pub(crate) fn bytes(&mut self, stored: &Stored) -> Result<Vec<u8>, WeightsError> {
        let mut bytes = vec![0; stored.len() as usize];
        self.file
            .seek(SeekFrom::Start(stored.range.0))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|source| self.io(source))?;
        Ok(bytes)
    }

    /// Where a tensor lies; `None` when it is not in this file.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Stored>, WeightsError> {
        let Some(info) = self.metadata.info(name) else {
            return Ok(None);
        };
        let (from, to) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let expected = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize() as u64, |bits, side| {
                bits.checked_mul(*side as u64)
            });
        if from > to || to > self.len || expected != Some((to - from) * 8) {
            return Err(WeightsError::Format {
                path: self.path.clone(),
                source: SafeTensorError::InvalidOffset(name.to_owned()),
            });
        }
        Ok(Some(Stored {
            dtype: info.dtype,
            shape: info.shape.clone(),
            range: (self.begin + from, self.begin + to),
        }))
    }

    /// Reads a tensor's numbers as `f32`, in order, and hands them to `sink` some rows of `columns`
    /// numbers at a time.
    pub(crate) fn read(
        &mut self,
        name: &str,
        stored: &Stored,
        columns: usize,
        mut sink: impl FnMut(&[f32]),
    ) -> Result<(), WeightsError> {
        let convert: fn(&[u8], &mut Vec<f32>) = match stored.dtype {
            Dtype::F32 => |bytes, out| {
                out.extend(
                    bytes
                        .as_chunks::<4>()
                        .0
                        .iter()
                        .map(|b| f32::from_le_bytes(*b)),
                );
            },
            Dtype::BF16 => |bytes, out| {
                let numbers = bytes.as_chunks::<2>().0.iter();
                out.extend(numbers.map(|b| half::bf16::from_le_bytes(*b).to_f32()));
            },
            Dtype::F16 => |bytes, out| {
                let numbers = bytes.as_chunks::<2>().0.iter();
                out.extend(numbers.map(|b| half::f16::from_le_bytes(*b).to_f32()));
            },
            other => {
                return Err(WeightsError::Type {
                    name: name.to_owned(),
                    dtype: format!("{other:?}"),
                });
            }
        };
        let (mut at, to) = stored.range;
        let row = (columns * stored.dtype.bitsize() / 8).max(1);
        let piece = (PIECE / row).max(1) * row;
        let mut bytes = vec![0; piece.min((to - at) as usize)];
        let mut numbers = Vec::new();
        self.file
            .seek(SeekFrom::Start(at))
            .map_err(|source| self.io(source))?;
        while at < to {
            let count = piece.min((to - at) as usize);
            let Some(bytes) = bytes.get_mut(..count) else {
                break;
            };
            self.file
                .read_exact(bytes)
                .map_err(|source| WeightsError::Io {
                    path: self.path.clone(),
                    source,
                })?;
            numbers.clear();
            convert(bytes, &mut numbers);
            sink(&numbers);
            at += count as u64;
        }
        Ok(())
    }

    fn io(&self, source: std::io::Error) -> WeightsError {
        WeightsError::Io {
            path: self.path.clone(),
            source,
        }
    }
}
