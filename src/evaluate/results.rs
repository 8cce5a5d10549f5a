//! The results of a run on disk: [`Results`].

use std::io::Write as _;
use std::path::PathBuf;

use eva_core::Trajectory;
use serde_json::{Map, Value};

use super::Record;
use crate::journal::{Entry, Folder, Found, Indices, Journal, JournalError, Reader};

/// One file an item.
const TRAJECTORIES: &str = "trajectories";

/// The records of a file, one by one.
pub type RecordReader = Reader<Record>;

/// A folder with the results of a run, to which only this process writes.
///
/// Every record is handed to the system whole, at once. What a process that was killed left half
/// written is dropped when the folder is opened again.
#[derive(Debug)]
pub struct Results {
    folder: Folder,
    records: Journal<Record>,
}

impl Entry for Record {
    const FILE: &'static str = "results.jsonl";

    fn parse(line: &[u8]) -> Option<Self> {
        Self::parse(line)
    }

    fn index(&self) -> u64 {
        self.index
    }

    fn is_settled(&self) -> bool {
        self.is_settled()
    }
}

impl Results {
    /// Opens `folder`, which is made if need be, for a run with `settings`. What is done in it stays
    /// done; with `retry`, records that are not settled ([`Record::is_settled`]) are taken out.
    ///
    /// # Errors
    /// [`JournalError`]: another process writes there, the folder holds a run with other settings, or
    /// the system refuses.
    pub fn open(
        folder: impl Into<PathBuf>,
        settings: &Map<String, Value>,
        retry: bool,
    ) -> Result<Self, JournalError> {
        let folder = Folder::open(folder, settings)?;
        let records = Journal::open(&folder, retry)?;
        Ok(Self { folder, records })
    }

    /// Writes `record` at once.
    ///
    /// # Errors
    /// When the system refuses. What it took is cut off at once, or before the next record, which is
    /// refused too as long as that fails.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        self.records.append(record)
    }

    /// Keeps the whole run of an item, in a file of its own that replaces an earlier one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_trajectory(&self, index: u64, run: &Trajectory) -> Result<(), JournalError> {
        let name = format!("{TRAJECTORIES}/{index}.json");
        (self.folder).write(&name, |to| Ok(serde_json::to_writer(to, run)?))
    }

    /// Writes `text` to the file `name` of the folder, whole or not at all.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, name: &str, text: &str) -> Result<(), JournalError> {
        self.folder.write(name, |to| to.write_all(text.as_bytes()))
    }

    /// The numbers of the items that are done.
    #[must_use]
    pub fn done(&self) -> &Indices {
        self.records.done()
    }

    /// What was met when the folder was opened.
    #[must_use]
    pub fn found(&self) -> Found {
        self.records.found()
    }

    /// The records so far.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn records(&self) -> Result<RecordReader, JournalError> {
        self.records.entries()
    }
}

#[cfg(test)]
mod tests;
