//! A file that is still coming: [`Partial`].

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::HubError;
use super::cache::make_parent;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// An `.incomplete` file, with the hash of what is in it.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    hash: Sha256,
    len: u64,
    /// Bytes it has when it is complete.
    size: u64,
}

impl Partial {
    /// Opens what there is, or begins.
    ///
    /// - size: bytes it has when it is complete
    pub(super) fn open(path: PathBuf, size: u64) -> Result<Self, HubError> {
        make_parent(&path)?;
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(HubError::io(&path))?;
        let mut partial = Self {
            path,
            file,
            hash: Sha256::new(),
            len: 0,
            size,
        };
        partial.look().map_err(|error| partial.failed(error))?;
        if partial.len > size {
            partial.clear()?;
        }
        Ok(partial)
    }

    /// Hashes what is there.
    fn look(&mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        // Not of a device, which has no end.
        while self.len <= self.size && self.file.metadata()?.is_file() {
            let read = self.file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            self.hash.update(piece.get(..read).unwrap_or_default());
            self.len += read as u64;
        }
        Ok(())
    }

    /// Bytes that are there.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Bytes it has when it is complete.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.len == self.size
    }

    /// Adds bytes to the end; they are not more than are missing.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| self.failed(error))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Begins again.
    pub(super) fn clear(&mut self) -> Result<(), HubError> {
        let emptied = self.file.set_len(0);
        let emptied = emptied.and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|error| self.failed(error))?;
        self.hash = Sha256::new();
        self.len = 0;
        Ok(())
    }

    /// The hash of all that is there, in hexadecimal.
    pub(super) fn sha256(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for byte in self.hash.clone().finalize() {
            // Writing to a string does not fail.
            _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// Removes it.
    pub(super) fn remove(self) {
        _ = fs::remove_file(&self.path);
    }

    /// Gives it its name, once it is whole.
    pub(super) fn finish(self, path: &Path) -> Result<(), HubError> {
        // On the disk before its name says that it is whole.
        self.file.sync_all().map_err(|error| self.failed(error))?;
        fs::rename(&self.path, path).map_err(HubError::io(path))
    }

    fn failed(&self, error: io::Error) -> HubError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HubError::NoSpace {
                path: self.path.clone(),
                needed: self.size,
            },
            _ => HubError::io(&self.path)(error),
        }
    }
}
