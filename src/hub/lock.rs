//! One process at a time: [`lock`].

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::HubError;
use super::cache::make_parent;

/// How often a lock is tried that another process holds.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until no other process holds the lock, and holds it until the file is dropped. The Python
/// tools lock the same files in the same way.
///
/// - patience: how long the other process may do nothing; one that stopped would be waited for for ever
/// - arrived: asked, while it is waited, how many bytes the other process has brought
pub(super) fn lock(
    path: &Path,
    patience: Duration,
    arrived: &mut dyn FnMut() -> u64,
) -> Result<File, HubError> {
    make_parent(path)?;
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(HubError::io(path))?;
    // How much there was, and since when.
    let mut seen: Option<(u64, Instant)> = None;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(HubError::io(path)(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        let bytes = arrived();
        match seen {
            Some((before, since)) if before == bytes => {
                if since.elapsed() >= patience {
                    return Err(HubError::Locked {
                        path: path.to_owned(),
                        patience,
                    });
                }
            }
            _ => {
                if seen.is_none() {
                    tracing::warn!(lock = %path.display(), "another process fetches this file: waiting for it");
                }
                seen = Some((bytes, Instant::now()));
            }
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// A lock that someone else holds.
    fn held(dir: &Path) -> (std::path::PathBuf, File) {
        let path = dir.join("locks/some.lock");
        let holder = lock(&path, Duration::ZERO, &mut || 0).unwrap();
        (path, holder)
    }

    #[test]
    fn who_holds_a_lock_and_brings_nothing_is_named_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _holder) = held(dir.path());
        let patience = Duration::from_millis(300);
        let began = Instant::now();
        let error = lock(&path, patience, &mut || 7).unwrap_err();
        assert!(began.elapsed() >= patience);
        let said = error.to_string();
        assert!(matches!(error, HubError::Locked { .. }), "{error:?}");
        for part in [path.to_str().unwrap(), "300ms", "fuser", "fetch again"] {
            assert!(said.contains(part), "no {part:?} in {said}");
        }
    }

    #[test]
    fn who_holds_a_lock_and_brings_bytes_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (path, holder) = held(dir.path());
        let mut holder = Some(holder);
        let mut bytes = 0;
        // Far less than it takes in all: each look finds something new.
        let taken = lock(&path, PAUSE / 2, &mut || {
            bytes += 1;
            if bytes == 4 {
                holder = None;
            }
            bytes
        });
        taken.unwrap();
        assert_eq!(bytes, 4);
    }
}
