//! Reading entries back: [`Reader`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use super::{Entry, Indices, JournalError, io_error};
use crate::benchmark::lines;

/// How every line that this program writes begins.
const BEGINNING: &[u8] = b"{\"index\":";

/// The entries of a file, one by one. Of two with the same index the later one counts; what is no
/// entry is passed over.
#[derive(Debug)]
pub struct Reader<E> {
    path: PathBuf,
    lines: Lines<E>,
    survey: Survey<E>,
}

impl<E: Entry> Reader<E> {
    /// Reads the file at `path`, or [`Entry::FILE`] in the folder there.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let mut path = path.as_ref().to_owned();
        if path.is_dir() {
            path.push(E::FILE);
        }
        // A file that is not there is a mistake here; for a new run it is not.
        let file = File::open(&path).map_err(io_error("read", &path))?;
        let survey = Survey::read(&path).map_err(io_error("read", &path))?;
        if survey.is_foreign() {
            return Err(JournalError::NotEntries(path));
        }
        Ok(Self {
            lines: Lines::new(file),
            survey,
            path,
        })
    }

    /// Number of lines that are no entries.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.survey.broken
    }
}

impl<E: Entry> Iterator for Reader<E> {
    type Item = Result<E, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.lines.next_record() {
                Ok(None) => return None,
                Ok(Some((number, Some(record), _))) => {
                    if self.survey.is_last(record.index(), number) {
                        return Some(Ok(record));
                    }
                }
                Ok(Some(_)) => {}
                Err(source) => return Some(Err(io_error("read", &self.path)(source))),
            }
        }
    }
}

#[derive(Debug)]
struct Lines<E> {
    from: BufReader<File>,
    line: Vec<u8>,
    number: u64,
    entry: PhantomData<fn() -> E>,
}

/// Number of a line, its record if it is one, and whether a line break ends it.
type Numbered<E> = (u64, Option<E>, bool);

impl<E: Entry> Lines<E> {
    fn new(file: File) -> Self {
        Self {
            from: BufReader::new(file),
            line: Vec::new(),
            number: 0,
            entry: PhantomData,
        }
    }

    /// The next line that is not blank.
    fn next_record(&mut self) -> io::Result<Option<Numbered<E>>> {
        while let Some(read) = lines::next(&mut self.from, &mut self.line)? {
            self.number += 1;
            if read.ended && lines::is_blank(&self.line) {
                continue;
            }
            let record = if read.too_long {
                None
            } else {
                E::parse(&self.line)
            };
            return Ok(Some((self.number, record, read.ended)));
        }
        Ok(None)
    }
}

/// What is in a file of entries, without the entries.
#[derive(Debug)]
pub(super) struct Survey<E> {
    /// For each index the number of its last line, and whether that record is settled.
    last: HashMap<u64, (u64, bool)>,
    /// Lines that are no records.
    pub(super) broken: u64,
    /// Records of items that have a later one.
    pub(super) doubled: u64,
    /// Whether the last line has no end: what is written next would become part of it.
    cut: bool,
    /// Whether that line can't even be the beginning of a record.
    cut_foreign: bool,
    entry: PhantomData<fn() -> E>,
}

impl<E> Default for Survey<E> {
    fn default() -> Self {
        Self {
            last: HashMap::new(),
            broken: 0,
            doubled: 0,
            cut: false,
            cut_foreign: false,
            entry: PhantomData,
        }
    }
}

impl<E: Entry> Survey<E> {
    /// Reads the file at `path`. One that is not there has nothing in it.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut survey = Self::default();
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(survey),
            Err(error) => return Err(error),
        };
        let mut lines = Lines::<E>::new(file);
        while let Some((number, record, ended)) = lines.next_record()? {
            survey.cut = !ended;
            match record {
                None => {
                    survey.broken += 1;
                    let begins = lines
                        .line
                        .iter()
                        .zip(BEGINNING)
                        .all(|(byte, known)| byte == known);
                    survey.cut_foreign = !ended && !begins;
                }
                Some(record) => {
                    let settled = record.is_settled();
                    let earlier = survey.last.insert(record.index(), (number, settled));
                    survey.doubled += u64::from(earlier.is_some());
                }
            }
        }
        Ok(survey)
    }

    pub(super) fn records(&self) -> u64 {
        self.last.len() as u64
    }

    pub(super) fn unsettled(&self) -> u64 {
        self.last.values().filter(|(_, settled)| !settled).count() as u64
    }

    /// Whether the file is of something else. One broken line alone may be the first record of a
    /// process that was killed.
    pub(super) fn is_foreign(&self) -> bool {
        let killed = self.cut && !self.cut_foreign;
        self.last.is_empty() && self.broken > u64::from(killed)
    }

    /// Whether the file has to be written anew before anything is added.
    pub(super) fn is_untidy(&self) -> bool {
        self.cut || self.doubled > 0
    }

    fn is_last(&self, index: u64, number: u64) -> bool {
        self.last
            .get(&index)
            .is_some_and(|(last, _)| *last == number)
    }

    /// Copies the lines that count; with `retry` only the settled ones.
    pub(super) fn copy(&self, path: &Path, retry: bool, to: &mut impl Write) -> io::Result<()> {
        let mut lines = Lines::<E>::new(File::open(path)?);
        while let Some((number, record, _)) = lines.next_record()? {
            let Some(record) = record else { continue };
            let Some((last, settled)) = self.last.get(&record.index()) else {
                continue;
            };
            if *last == number && (*settled || !retry) {
                to.write_all(&lines.line)?;
                to.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// The items that are done; with `retry` only the settled ones.
    pub(super) fn into_done(self, retry: bool) -> Indices {
        let last = self.last.into_iter();
        let done = last.filter(|(_, (_, settled))| *settled || !retry);
        done.map(|(index, _)| index).collect()
    }
}
