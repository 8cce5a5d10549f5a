//! The files that a stage leaves: [`write_files`].

use std::io::{self, Write};

use serde::Serialize;

use super::Rejected;
use crate::journal::{Folder, JournalError};

/// Writes `data.jsonl`, `rejected.jsonl` and `summary.json` into `folder`, each whole or not at all.
///
/// # Errors
/// When the system refuses.
pub fn write_files(
    folder: &Folder,
    data: &[impl Serialize],
    rejected: &[Rejected],
    summary: &serde_json::Value,
) -> Result<(), JournalError> {
    folder.write("data.jsonl", |to| lines(to, data))?;
    folder.write("rejected.jsonl", |to| lines(to, rejected))?;
    folder.write("summary.json", |to| writeln!(to, "{summary:#}"))
}

fn lines(to: &mut impl Write, entries: &[impl Serialize]) -> io::Result<()> {
    for entry in entries {
        serde_json::to_writer(&mut *to, entry)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}
