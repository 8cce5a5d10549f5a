//! Where a video is: [`Location`], and whether it can be one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::GstError;

/// Where the video is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A file that can be read from any place.
    Path(PathBuf),
    /// A file that is only read from its beginning to its end.
    InOrder(PathBuf),
    /// An address.
    Uri(String),
}

/// Refuses what is not a readable file before GStreamer waits on it.
pub(crate) fn check_file(path: &Path, file: &str) -> Result<(), GstError> {
    let file = file.to_owned();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(GstError::NotFound { file });
        }
        Err(error) => {
            return Err(GstError::Unreadable {
                file,
                reason: error.to_string(),
            });
        }
    };
    if metadata.is_dir() {
        return Err(GstError::IsDirectory { file });
    }
    if !metadata.is_file() {
        return Err(GstError::NotAFile { file });
    }
    if metadata.len() == 0 {
        return Err(GstError::NotVideo {
            file,
            reason: "it is empty".to_owned(),
        });
    }
    match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(GstError::Unreadable {
            file,
            reason: error.to_string(),
        }),
    }
}
