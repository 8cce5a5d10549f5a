//! What many workers finish, on disk: [`Folder`] and [`Journal`].
//!
//! Every entry is one line of JSON that is handed to the system whole, at once. What a process that
//! was killed left half written is dropped when the folder is opened again, and what is done stays
//! done. A folder belongs to one process at a time, and to one set of settings for good.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

mod indices;
mod reader;
mod whole;

pub use indices::Indices;
pub use reader::Reader;
use reader::Survey;
use whole::WholeLines;

/// What the run was made with.
const SETTINGS: &str = "run.json";
/// Locked while a process writes to the folder. The file itself stays.
const LOCK: &str = "lock";

/// A line of a [`Journal`]. In JSON its first member is `index`.
pub trait Entry: Serialize + Sized {
    /// Name of the file in the folder.
    const FILE: &'static str;

    /// Reads a line; `None` when it is no entry.
    fn parse(line: &[u8]) -> Option<Self>;

    /// Number of the item that it is about.
    fn index(&self) -> u64;

    /// Whether it can stay when entries that failed are made again.
    fn is_settled(&self) -> bool {
        true
    }
}

/// A folder to which only this process writes.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// Entries of one kind in a [`Folder`].
#[derive(Debug)]
pub struct Journal<E> {
    path: PathBuf,
    lines: WholeLines<File>,
    done: Indices,
    found: Found,
    line: Vec<u8>,
    entry: PhantomData<fn() -> E>,
}

/// What [`Journal::open`] met in the folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Items that are done.
    pub records: u64,
    /// Entries that were taken out, to be made again.
    pub retried: u64,
    /// Lines that are no entries, such as a last one that was cut short.
    pub broken: u64,
    /// Entries of items that have a later one.
    pub doubled: u64,
}

/// Why entries can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
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
    #[error("no line of {} is what is written there: choose another folder", .0.display())]
    NotEntries(PathBuf),
    /// The folder holds another run.
    #[error(
        "what is in {} was made with {key} {before}, not {now}: choose another folder, or set \
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

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io {
        action,
        path,
        source,
    }
}

impl Folder {
    /// Opens the folder at `path`, which is made if need be, for a run with `settings`.
    ///
    /// # Errors
    /// [`JournalError`]: another process writes there, the folder holds a run with other settings, or
    /// the system refuses.
    pub fn open(
        path: impl Into<PathBuf>,
        settings: &Map<String, Value>,
    ) -> Result<Self, JournalError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(io_error("make the folder", &path))?;
        let lock = lock(&path)?;
        check_settings(&path, settings)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that is there whole or not at all; `name` may lie in a folder within.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), JournalError> {
        let path = self.path.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io_error("make the folder", folder))?;
        }
        write_whole(&path, write)
    }
}

impl<E: Entry> Journal<E> {
    /// Opens the entries in `folder`. What is done stays done; with `retry`, entries that are not
    /// settled ([`Entry::is_settled`]) are taken out.
    ///
    /// # Errors
    /// [`JournalError`]: the file is of something else, or the system refuses.
    pub fn open(folder: &Folder, retry: bool) -> Result<Self, JournalError> {
        let path = folder.path.join(E::FILE);
        let survey = Survey::<E>::read(&path).map_err(io_error("read", &path))?;
        if survey.is_foreign() {
            return Err(JournalError::NotEntries(path));
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
        let file = file.map_err(io_error("open", &path))?;
        let len = file.metadata().map_err(io_error("read", &path))?.len();
        Ok(Self {
            lines: WholeLines::new(file, len),
            done: survey.into_done(retry),
            found,
            line: Vec::new(),
            path,
            entry: PhantomData,
        })
    }

    /// Writes `entry` at once.
    ///
    /// # Errors
    /// When the system refuses. What it took is cut off at once, or before the next entry, which is
    /// refused too as long as that fails.
    pub fn append(&mut self, entry: &E) -> Result<(), JournalError> {
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, entry).map_err(io::Error::from);
        self.line.push(b'\n');
        written
            .and_then(|()| self.lines.write(&self.line))
            .map_err(io_error("write to", &self.path))?;
        self.done.insert(entry.index());
        Ok(())
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

    /// The entries so far, in the order in which they were finished.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn entries(&self) -> Result<Reader<E>, JournalError> {
        Reader::open(&self.path)
    }
}

fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join(LOCK);
    let mut options = File::options();
    options.create(true).write(true).truncate(false);
    let file = options.open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

/// Compares `settings` with those of the run in the folder, or notes them if there is none.
fn check_settings(folder: &Path, settings: &Map<String, Value>) -> Result<(), JournalError> {
    let path = folder.join(SETTINGS);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return write_whole(&path, |to| Ok(serde_json::to_writer_pretty(to, settings)?));
        }
        Err(source) => return Err(io_error("read", &path)(source)),
    };
    let before: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|_| JournalError::Settings(path))?;
    let mut keys = settings.keys().chain(before.keys());
    match keys.find(|key| before.get(*key) != settings.get(*key)) {
        None => Ok(()),
        Some(key) => {
            let value = |of: &Map<String, Value>| of.get(key).cloned().unwrap_or_default();
            Err(JournalError::OtherRun {
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
) -> Result<(), JournalError> {
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
