//! The results of a run on disk: [`Results`].

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use eva_core::Trajectory;
use serde_json::{Map, Value};

use super::{Indices, Record};

mod reader;

pub use reader::RecordReader;
use reader::Survey;

/// The records, one a line.
const RECORDS: &str = "results.jsonl";
/// What the run was made with.
const SETTINGS: &str = "run.json";
/// Locked while a process writes to the folder. The file itself stays.
const LOCK: &str = "lock";
/// One file an item.
const TRAJECTORIES: &str = "trajectories";

/// A folder with the results of a run, to which only this process writes.
///
/// Every record is handed to the system whole, at once. What a process that was killed left half
/// written is dropped when the folder is opened again.
#[derive(Debug)]
pub struct Results {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    done: Indices,
    found: Found,
    line: Vec<u8>,
    _lock: File,
}

/// What [`Results::open`] met in the folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Items that are done.
    pub records: u64,
    /// Records that were taken out, to be made again.
    pub retried: u64,
    /// Lines that are no records, such as a last one that was cut short.
    pub broken: u64,
    /// Records of items that have a later one.
    pub doubled: u64,
}

/// Why results can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; check the path, the rights and the disk", .path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error(
        "another process writes to {}: wait until it has ended, or choose another folder",
        .0.display()
    )]
    Locked(PathBuf),
    /// The file is of something else.
    #[error("no line of {} is a result: choose another folder", .0.display())]
    NotResults(PathBuf),
    /// The folder holds another run.
    #[error(
        "the results in {} were made with {key} {before}, not {now}: choose another folder, or set \
         it as it was", .folder.display()
    )]
    OtherRun {
        /// The folder.
        folder: PathBuf,
        /// What differs.
        key: String,
        /// What it was, as JSON.
        before: Value,
        /// What it would be.
        now: Value,
    },
    /// The settings of the run that is in the folder can't be read.
    #[error("{} does not say what the run was made with: choose another folder", .0.display())]
    Settings(PathBuf),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ResultsError {
    let path = path.to_owned();
    move |source| ResultsError::Io {
        action,
        path,
        source,
    }
}

impl Results {
    /// Opens `folder`, which is made if need be, for a run with `settings`. What is done in it stays
    /// done; with `retry`, records that are not settled ([`Record::is_settled`]) are taken out.
    ///
    /// # Errors
    /// [`ResultsError`]: another process writes there, the folder holds a run with other settings, or
    /// the system refuses.
    pub fn open(
        folder: impl Into<PathBuf>,
        settings: &Map<String, Value>,
        retry: bool,
    ) -> Result<Self, ResultsError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(io_error("make the folder", &folder))?;
        let lock = lock(&folder)?;
        check_settings(&folder, settings)?;
        let path = folder.join(RECORDS);
        let survey = Survey::read(&path).map_err(io_error("read", &path))?;
        if survey.is_foreign() {
            return Err(ResultsError::NotResults(path));
        }
        let retried = if retry { survey.unsettled() } else { 0 };
        if survey.is_untidy() || retried > 0 {
            // Under another name, then in place of the old file: a process that is killed here
            // leaves either.
            write_whole(&path, |to| survey.copy(&path, retry, to))?;
        }
        let found = Found {
            records: survey.records() - retried,
            retried,
            broken: survey.broken,
            doubled: survey.doubled,
        };
        let file = File::options().append(true).create(true).open(&path);
        Ok(Self {
            file: file.map_err(io_error("open", &path))?,
            done: survey.into_done(retry),
            found,
            line: Vec::new(),
            _lock: lock,
            folder,
            path,
        })
    }

    /// Writes `record` at once.
    ///
    /// # Errors
    /// When the system refuses. What it took is dropped when the folder is opened again.
    pub fn append(&mut self, record: &Record) -> Result<(), ResultsError> {
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, record).map_err(io::Error::from);
        self.line.push(b'\n');
        written
            .and_then(|()| self.file.write_all(&self.line))
            .map_err(io_error("write to", &self.path))?;
        self.done.insert(record.index);
        Ok(())
    }

    /// Keeps the whole run of an item, in a file of its own that replaces an earlier one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_trajectory(&self, index: u64, run: &Trajectory) -> Result<(), ResultsError> {
        let folder = self.folder.join(TRAJECTORIES);
        fs::create_dir_all(&folder).map_err(io_error("make the folder", &folder))?;
        let path = folder.join(format!("{index}.json"));
        write_whole(&path, |to| Ok(serde_json::to_writer(to, run)?))
    }

    /// Writes `text` to the file `name` of the folder, whole or not at all.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, name: &str, text: &str) -> Result<(), ResultsError> {
        let path = self.folder.join(name);
        write_whole(&path, |to| to.write_all(text.as_bytes()))
    }

    /// The numbers of the items that are done.
    #[must_use]
    pub fn done(&self) -> &Indices {
        &self.done
    }

    /// What was met when the folder was opened.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }

    /// The records so far.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn records(&self) -> Result<RecordReader, ResultsError> {
        RecordReader::open(&self.path)
    }
}

fn lock(folder: &Path) -> Result<File, ResultsError> {
    let path = folder.join(LOCK);
    let mut options = File::options();
    options.create(true).write(true).truncate(false);
    let file = options.open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ResultsError::Locked(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

/// Compares `settings` with those of the run in the folder, or notes them if there is none.
fn check_settings(folder: &Path, settings: &Map<String, Value>) -> Result<(), ResultsError> {
    let path = folder.join(SETTINGS);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return write_whole(&path, |to| Ok(serde_json::to_writer_pretty(to, settings)?));
        }
        Err(source) => return Err(io_error("read", &path)(source)),
    };
    let before: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|_| ResultsError::Settings(path))?;
    let mut keys = settings.keys().chain(before.keys());
    match keys.find(|key| before.get(*key) != settings.get(*key)) {
        None => Ok(()),
        Some(key) => {
            let value = |of: &Map<String, Value>| of.get(key).cloned().unwrap_or_default();
            Err(ResultsError::OtherRun {
                folder: folder.to_owned(),
                key: key.clone(),
                before: value(&before),
                now: value(settings),
            })
        }
    }
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), ResultsError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = File::create(&new).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&new, path)
    });
    written.map_err(io_error("write", path))
}

#[cfg(test)]
mod tests;
