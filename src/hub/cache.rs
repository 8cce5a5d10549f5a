//! The cache on disk, in the Python tools' layout: [`Repository`].
//!
//! ```text
//! models--OWNER--NAME/
//!   refs/main                      the commit that a branch was last seen at
//!   blobs/HASH                     contents, by the hub's hash; HASH.incomplete while they come
//!   snapshots/COMMIT/config.json   a link to ../../blobs/HASH
//! .locks/models--OWNER--NAME/HASH.lock
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::files::{self, INDEX, Weights, is_safe};
use super::name::is_commit;
use super::{HubError, HubModel, Snapshot};

/// The folders of one model.
#[derive(Debug)]
pub(super) struct Repository {
    cache: PathBuf,
    folder: String,
}

impl Repository {
    pub(super) fn new(cache: &Path, model: &HubModel) -> Self {
        Self {
            cache: cache.to_owned(),
            folder: format!("models--{}--{}", model.owner(), model.name()),
        }
    }

    fn root(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, revision: &str) -> PathBuf {
        self.root().join("snapshots").join(revision)
    }

    /// Where contents with this hash are.
    pub(super) fn blob(&self, hash: &str) -> PathBuf {
        self.root().join("blobs").join(hash)
    }

    /// What is locked while contents with this hash come.
    pub(super) fn lock(&self, hash: &str) -> PathBuf {
        let locks = self.cache.join(".locks").join(&self.folder);
        locks.join(format!("{hash}.lock"))
    }

    /// Makes contents that are there a file of a commit.
    pub(super) fn link(&self, revision: &str, file: &str, hash: &str) -> Result<(), HubError> {
        let path = self.snapshot(revision).join(file);
        make_parent(&path)?;
        // A link that leads nowhere is in the way.
        if path.symlink_metadata().is_ok() && !path.exists() {
            fs::remove_file(&path).map_err(HubError::io(&path))?;
        }
        match link(&self.blob(hash), hash, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(HubError::io(&path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Notes which commit a branch or tag is at.
    pub(super) fn name(&self, model: &HubModel, revision: &str) -> Result<(), HubError> {
        if model.revision() == revision {
            return Ok(());
        }
        let path = self.root().join("refs").join(model.revision());
        if fs::read_to_string(&path).is_ok_and(|known| known == revision) {
            return Ok(());
        }
        make_parent(&path)?;
        fs::write(&path, revision).map_err(HubError::io(&path))
    }

    /// What is here of a model.
    ///
    /// - weights: whether these are needed too
    pub(super) fn offline(&self, model: &HubModel, weights: bool) -> Result<Snapshot, HubError> {
        let missing = |missing: String| HubError::NotCached {
            model: model.to_string(),
            cache: self.cache.clone(),
            missing,
        };
        let named = model.revision();
        let revision = if is_commit(named) {
            named.to_owned()
        } else {
            let noted = fs::read_to_string(self.root().join("refs").join(named));
            let noted = noted.unwrap_or_default().trim().to_owned();
            if !is_commit(&noted) {
                return Err(missing(format!("revision {named}")));
            }
            noted
        };
        let dir = self.snapshot(&revision);
        let mut needed = vec!["config.json".to_owned()];
        if weights {
            needed.push("tokenizer.json".to_owned());
            let here: Vec<String> = ["model.safetensors", INDEX]
                .into_iter()
                .filter(|name| dir.join(name).exists())
                .map(str::to_owned)
                .collect();
            needed.extend(match files::weights(&here) {
                Weights::Files(names) => names,
                Weights::Index(index) => named_by(&dir.join(index))?,
                Weights::None => vec!["model.safetensors".to_owned()],
            });
        }
        match needed.into_iter().find(|name| !dir.join(name).exists()) {
            Some(name) => Err(missing(name)),
            None => Ok(Snapshot { dir, revision }),
        }
    }
}

/// The weight files that an index names.
pub(super) fn named_by(index: &Path) -> Result<Vec<String>, HubError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = fs::read(index).map_err(HubError::io(index))?;
    let index_of: Index = serde_json::from_slice(&text)
        .map_err(|error| HubError::io(index)(io::Error::from(error)))?;
    let mut names: Vec<String> = index_of.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    match names
        .iter()
        .find(|name| !is_safe(name) || name.contains('/'))
    {
        Some(name) => Err(HubError::UnsafeName {
            model: index.display().to_string(),
            name: name.clone(),
        }),
        None => Ok(names),
    }
}

/// Makes the folder that a file is to be in.
pub(super) fn make_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(HubError::io(folder)),
        None => Ok(()),
    }
}

/// A relative link: the cache may be moved as a whole.
#[cfg(unix)]
fn link(_: &Path, hash: &str, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(Path::new("../../blobs").join(hash), path)
}

/// Links need a privilege elsewhere: the contents move.
#[cfg(not(unix))]
fn link(blob: &Path, _: &str, path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::rename(blob, path)
}
