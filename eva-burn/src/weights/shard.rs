//! One safetensors file, read tensor by tensor.
//!
//! Only the header is kept: a tensor's bytes are read when it is asked for, a piece at a time, and
//! converted on the way, so that loading never holds a second copy of the weights. All threads read and convert:
//! one alone takes half a minute for 7 B numbers.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use rayon::prelude::*;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata};

use crate::weights::WeightsError;

/// The length of the header comes before it.
const LENGTH_BYTES: u64 = 8;
/// A header of more than this is damage (safetensors' own limit).
const MAX_HEADER: u64 = 100_000_000;
/// Bytes read at once.
const PIECE: usize = 4 << 20;
/// Numbers that a thread converts at once.
const CONVERTED: usize = 1 << 15;

/// A weight file.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
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
    pub(crate) fn bytes(&self, stored: &Stored) -> Result<Vec<u8>, WeightsError> {
        let mut bytes = vec![0; stored.len() as usize];
        bytes
            .par_chunks_mut(PIECE)
            .enumerate()
            .try_for_each(|(index, piece)| {
                self.read_at(stored.range.0 + (index * PIECE) as u64, piece)
            })?;
        Ok(bytes)
    }

    /// Fills `out` from a place in the file. Threads that read at once each open it, as a file has one position.
    fn read_at(&self, at: u64, out: &mut [u8]) -> Result<(), WeightsError> {
        File::open(&self.path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(out)
            })
            .map_err(|source| WeightsError::Io {
                path: self.path.clone(),
                source,
            })
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
    /// numbers at a time, the next ones being read meanwhile.
    pub(crate) fn read(
        &self,
        name: &str,
        stored: &Stored,
        columns: usize,
        mut sink: impl FnMut(&[f32]) + Send,
    ) -> Result<(), WeightsError> {
        let convert: fn(&[u8], &mut [f32]) = match stored.dtype {
            Dtype::F32 => |bytes, out| {
                for (to, from) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *to = f32::from_le_bytes(*from);
                }
            },
            Dtype::BF16 => |bytes, out| {
                for (to, from) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *to = half::bf16::from_le_bytes(*from).to_f32();
                }
            },
            Dtype::F16 => |bytes, out| {
                for (to, from) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *to = half::f16::from_le_bytes(*from).to_f32();
                }
            },
            other => {
                return Err(WeightsError::Type {
                    name: name.to_owned(),
                    dtype: format!("{other:?}"),
                });
            }
        };
        let size = stored.dtype.bitsize() / 8;
        let row = (columns * size).max(1);
        let piece = (PIECE / row).max(1) * row;
        let (from, to) = stored.range;
        let mut places = (from..to)
            .step_by(piece)
            .map(|at| (at, piece.min((to - at) as usize)));
        let mut next = |mut bytes: Vec<u8>| -> Result<Vec<u8>, WeightsError> {
            let Some((at, count)) = places.next() else {
                bytes.clear();
                return Ok(bytes);
            };
            bytes.resize(count, 0);
            self.read_at(at, &mut bytes)?;
            Ok(bytes)
        };
        let mut bytes = next(Vec::new())?;
        let mut spare = Vec::new();
        let mut numbers = Vec::new();
        while !bytes.is_empty() {
            let (read, ()) = rayon::join(
                || next(std::mem::take(&mut spare)),
                || {
                    numbers.resize(bytes.len() / size, 0.0);
                    numbers
                        .par_chunks_mut(CONVERTED)
                        .zip(bytes.par_chunks(CONVERTED * size))
                        .for_each(|(numbers, bytes)| convert(bytes, numbers));
                    sink(&numbers);
                },
            );
            spare = std::mem::replace(&mut bytes, read?);
        }
        Ok(())
    }
}
