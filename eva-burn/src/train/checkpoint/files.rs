//! The files of a checkpoint: written aside, checked, and made visible at once.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3;

use super::CheckpointError;

/// Checkpoints that are kept: the one before the last, too, should the last be damaged.
const KEPT: usize = 2;
const PREFIX: &str = "checkpoint-";
const PARTIAL: &str = ".partial";
const CHECKSUMS: &str = "checksums";

/// A checkpoint that is being written.
pub(super) struct Written {
    dir: PathBuf,
    number: u64,
    partial: PathBuf,
    checksums: RefCell<String>,
}

impl Written {
    pub(super) fn begin(dir: &Path) -> Result<Self, CheckpointError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let number = numbers(dir)?.last().map_or(1, |last| last + 1);
        let partial = dir.join(format!("{PREFIX}{number:06}{PARTIAL}"));
        // Of a run that was killed here.
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(io_error(&partial))?;
        }
        fs::create_dir(&partial).map_err(io_error(&partial))?;
        Ok(Self {
            dir: dir.to_owned(),
            number,
            partial,
            checksums: RefCell::default(),
        })
    }

    /// Where files are written to.
    pub(super) fn path(&self) -> &Path {
        &self.partial
    }

    /// Notes the checksum of a file that was written, and waits until it is on the disk.
    pub(super) fn seal(&self, name: &str) -> Result<(), CheckpointError> {
        let path = self.partial.join(name);
        let sync = || File::options().append(true).open(&path)?.sync_all();
        sync().map_err(io_error(&path))?;
        let checksum = checksum(&path)?;
        self.checksums
            .borrow_mut()
            .push_str(&format!("{checksum}  {name}\n"));
        Ok(())
    }

    /// Writes a value as JSON.
    pub(super) fn json(&self, name: &str, value: &impl Serialize) -> Result<(), CheckpointError> {
        let path = self.partial.join(name);
        serde_json::to_vec_pretty(value)
            .map_err(io::Error::other)
            .and_then(|bytes| fs::write(&path, bytes))
            .map_err(io_error(&path))?;
        self.seal(name)
    }

    /// Makes it the last checkpoint.
    pub(super) fn finish(self) -> Result<PathBuf, CheckpointError> {
        let path = self.partial.join(CHECKSUMS);
        fs::write(&path, self.checksums.take())
            .and_then(|()| File::options().append(true).open(&path)?.sync_all())
            .map_err(io_error(&path))?;
        sync_dir(&self.partial);
        let whole = directory(&self.dir, self.number);
        fs::rename(&self.partial, &whole).map_err(io_error(&whole))?;
        sync_dir(&self.dir);
        let numbers = numbers(&self.dir)?;
        let old = numbers.len().saturating_sub(KEPT);
        for number in &numbers[..old] {
            let path = directory(&self.dir, *number);
            if let Err(error) = fs::remove_dir_all(&path) {
                // It does no harm but for its size.
                tracing::warn!(
                    "cannot remove the old checkpoint {}: {error}",
                    path.display()
                );
            }
        }
        Ok(whole)
    }
}

/// The last whole checkpoint.
pub(super) fn last(dir: &Path) -> Result<PathBuf, CheckpointError> {
    let none = || CheckpointError::None {
        dir: dir.to_owned(),
    };
    if !dir.exists() {
        return Err(none());
    }
    let last = numbers(dir)?.pop();
    last.map(|number| directory(dir, number)).ok_or_else(none)
}

/// Compares each file with its checksum.
pub(super) fn verify(dir: &Path) -> Result<(), CheckpointError> {
    let path = dir.join(CHECKSUMS);
    let lines = fs::read_to_string(&path).map_err(io_error(&path))?;
    let mut files = 0;
    for line in lines.lines() {
        let Some((expected, name)) = line.split_once("  ") else {
            return Err(damaged(&path, format!("`{line}` is no checksum")));
        };
        // A name must not lead out of the directory.
        let Some(file) = Path::new(name).file_name().map(|name| dir.join(name)) else {
            return Err(damaged(&path, format!("`{name}` is no file")));
        };
        if checksum(&file)? != expected {
            return Err(damaged(&file, "its checksum is another".to_owned()));
        }
        files += 1;
    }
    // Weights, moments and state.
    if files < 3 {
        return Err(damaged(&path, format!("it names {files} files of 3")));
    }
    Ok(())
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    let bytes = fs::read(path).map_err(io_error(path))?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(path, error.to_string()))
}

pub(super) fn damaged(path: &Path, reason: String) -> CheckpointError {
    CheckpointError::Damaged {
        path: path.to_owned(),
        reason,
    }
}

/// A safetensors file in memory.
pub(super) struct Tensors {
    bytes: Vec<u8>,
}

impl Tensors {
    pub(super) fn read(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = fs::read(path).map_err(io_error(path))?;
        SafeTensors::deserialize(&bytes).map_err(|error| damaged(path, error.to_string()))?;
        Ok(Self { bytes })
    }

    /// The values of a tensor of `f32` with this name and shape.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let all = SafeTensors::deserialize(&self.bytes).ok()?;
        let tensor = all.tensor(name).ok()?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return None;
        }
        let values = tensor.data().as_chunks::<4>().0.iter();
        Some(values.map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

fn directory(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:06}"))
}

/// The numbers of the whole checkpoints, the last one last.
fn numbers(dir: &Path) -> Result<Vec<u64>, CheckpointError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let name = entry.map_err(io_error(dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn checksum(path: &Path) -> Result<String, CheckpointError> {
    let mut hash = Xxh3::new();
    let mut file = File::open(path).map_err(io_error(path))?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).map_err(io_error(path))? {
            0 => return Ok(format!("{:032x}", hash.digest128())),
            count => hash.update(&piece[..count]),
        }
    }
}

/// Where a system cannot open directories, it needs no such call.
fn sync_dir(path: &Path) {
    if let Ok(dir) = File::open(path) {
        let _ = dir.sync_all();
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> CheckpointError {
    move |source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    }
}
