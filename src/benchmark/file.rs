//! A benchmark as a file of JSON Lines: [`ItemFile`].

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::lines::{self, LONGEST};
use super::{Item, ItemError};

/// Most bad lines that are kept with their reasons; the rest are counted.
const NAMED: usize = 20;

/// The items of a file, and what is odd about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ItemFile {
    /// The items, in the file's order, each with an index of its own.
    pub items: Vec<Item>,
    /// Number of lines that are not items. They are left out.
    pub bad: u64,
    /// The first of those lines.
    pub bad_lines: Vec<BadLine>,
    /// Whether two items had the same index. All items have the number of their line instead then.
    pub renumbered: bool,
}

/// A line that is not an item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct BadLine {
    /// Its number, from 1 on.
    pub line: u64,
    /// What is wrong with it.
    pub error: ItemError,
}

/// Why a file gives no items.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ItemFileError {
    /// No line is an item.
    #[error(
        "no line of {} is an item; {first}. Name a file of JSON Lines with `videos`, `prompt` and \
         `reward_model`", .path.display()
    )]
    AllBad {
        /// The file.
        path: PathBuf,
        /// The first bad line.
        first: BadLine,
    },
    /// There is nothing in it.
    #[error("{} holds no items: name a file of JSON Lines", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be read.
    #[error("cannot read the items of {}: {source}; check the path", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl ItemFile {
    /// Reads the items of the file at `path`.
    ///
    /// # Errors
    /// [`ItemFileError`], when it can't be read or holds no item. Bad lines among good ones are no
    /// error.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ItemFileError> {
        let path = path.as_ref().to_owned();
        let read = File::open(&path).and_then(|file| Self::parse(BufReader::new(file)));
        let file = match read {
            Ok(file) => file,
            Err(source) => return Err(ItemFileError::Read { path, source }),
        };
        match file.bad_lines.first() {
            _ if !file.items.is_empty() => Ok(file),
            Some(first) => Err(ItemFileError::AllBad {
                path,
                first: first.clone(),
            }),
            None => Err(ItemFileError::Empty { path }),
        }
    }

    /// Reads items from text that need not be a file. Blank lines are passed over.
    ///
    /// # Errors
    /// When `text` can't be read; never for what it says.
    pub fn parse(text: impl BufRead) -> io::Result<Self> {
        let mut file = Self::default();
        let mut numbers = Vec::new();
        lines::each(text, |number, line| {
            let parsed = match line {
                Some(line) => Item::parse(line, number),
                None => Err(ItemError::TooLong(LONGEST)),
            };
            match parsed {
                Ok(item) => {
                    file.items.push(item);
                    numbers.push(number);
                }
                Err(error) => {
                    file.bad += 1;
                    if file.bad_lines.len() < NAMED {
                        let line = number + 1;
                        file.bad_lines.push(BadLine { line, error });
                    }
                }
            }
        })?;
        file.make_unique(&numbers);
        Ok(file)
    }

    /// Number of items whose ground truth no answer can match.
    #[must_use]
    pub fn unanswerable(&self) -> usize {
        let unanswerable = |item: &&Item| !item.is_answerable();
        self.items.iter().filter(unanswerable).count()
    }

    /// Number of items with more than one video, of which the first is watched.
    #[must_use]
    pub fn with_several_videos(&self) -> usize {
        let several = |item: &&Item| item.videos.len() > 1;
        self.items.iter().filter(several).count()
    }

    /// Results are found again by index: two items must not share one.
    fn make_unique(&mut self, numbers: &[u64]) {
        let mut seen = HashSet::new();
        if self.items.iter().all(|item| seen.insert(item.index)) {
            return;
        }
        self.renumbered = true;
        for (item, number) in self.items.iter_mut().zip(numbers) {
            item.index = *number;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn line(more: &str) -> String {
        format!(
            "{{\"videos\": [\"x.mp4\"], \"prompt\": [{{\"role\": \"user\", \"content\": \"?\"}}], \
             \"reward_model\": {{\"ground_truth\": \"A\"}}{more}}}"
        )
    }

    fn indices(file: &ItemFile) -> Vec<u64> {
        file.items.iter().map(|item| item.index).collect()
    }

    #[test]
    fn bad_lines_are_counted_and_named_and_never_fatal() {
        let text = format!("\u{feff}{}\n\n{{\"half\r\n{}\r\n[]", line(""), line(""));
        let file = ItemFile::parse(text.as_bytes()).unwrap();
        // Numbers count every line, as a reader does that numbers a file's lines.
        assert_eq!(indices(&file), [0, 3]);
        assert_eq!(file.bad, 2);
        let lines: Vec<u64> = file.bad_lines.iter().map(|bad| bad.line).collect();
        assert_eq!(lines, [3, 5]);
        assert!(
            file.bad_lines[0]
                .to_string()
                .starts_with("line 3: not a JSON object")
        );
    }

    #[test]
    fn a_flood_of_bad_lines_is_counted_but_not_kept() {
        let text = "nonsense\n".repeat(1000);
        let file = ItemFile::parse(text.as_bytes()).unwrap();
        assert_eq!((file.bad, file.bad_lines.len()), (1000, NAMED));
    }

    #[test]
    fn items_that_share_an_index_are_all_numbered_by_line() {
        let text = [line(", \"index\": 5"), line(""), line(", \"index\": 5")].join("\n");
        let file = ItemFile::parse(text.as_bytes()).unwrap();
        assert!(file.renumbered);
        assert_eq!(indices(&file), [0, 1, 2]);
    }

    #[test]
    fn a_file_without_items_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.jsonl");
        let error = ItemFile::read(&path).unwrap_err();
        assert!(matches!(error, ItemFileError::Read { .. }));
        std::fs::write(&path, "\n \n").unwrap();
        let error = ItemFile::read(&path).unwrap_err();
        assert!(matches!(error, ItemFileError::Empty { .. }));
        std::fs::write(&path, "\nnonsense\n").unwrap();
        let error = ItemFile::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("items.jsonl") && error.contains("line 2: "),
            "{error}"
        );
    }

    #[test]
    fn what_is_odd_about_items_is_counted() {
        let odd = line("").replace("\"A\"", "\"@\"");
        let two = line("").replace("[\"x.mp4\"]", "[\"x.mp4\", \"y.mp4\"]");
        let text = [line(""), odd, two].join("\n");
        let file = ItemFile::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (
                file.items.len(),
                file.unanswerable(),
                file.with_several_videos()
            ),
            (3, 1, 1)
        );
    }

    proptest! {
        #[test]
        fn every_line_is_an_item_or_bad_or_blank(kinds in proptest::collection::vec(0..3, 0..40)) {
            let texts = kinds.iter().map(|kind| match kind {
                0 => line(""),
                1 => "{\"videos\": 3}".to_owned(),
                _ => "\t ".to_owned(),
            });
            let text = texts.collect::<Vec<_>>().join("\n");
            let file = ItemFile::parse(text.as_bytes()).unwrap();
            let count = |wanted| kinds.iter().filter(|kind| **kind == wanted).count();
            prop_assert_eq!(file.items.len(), count(0));
            prop_assert_eq!(file.bad, count(1) as u64);
            prop_assert!(!file.renumbered);
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let file = ItemFile::parse(bytes.as_slice()).unwrap();
            prop_assert!(file.items.is_empty());
        }
    }
}
