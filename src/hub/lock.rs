//! One process at a time: [`lock`].

use std::fs::{File, TryLockError};
use std::path::Path;

use super::HubError;
use super::cache::make_parent;

/// Waits until no other process holds the lock, and holds it until the file is dropped. The Python
/// tools lock the same files in the same way.
pub(super) fn lock(path: &Path) -> Result<File, HubError> {
    make_parent(path)?;
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(HubError::io(path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::info!(lock = %path.display(), "another process fetches this file: waiting");
            file.lock().map_err(HubError::io(path))?;
        }
        Err(TryLockError::Error(error)) => return Err(HubError::io(path)(error)),
    }
    Ok(file)
}
