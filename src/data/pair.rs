//! A question about a video with its answer: [`Pair`].

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use eva_burn::train::reward::Rouge;
use eva_core::Role;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::text::{is_same, words};
use crate::benchmark::lines::{self, LONGEST};
use crate::benchmark::{Item, Prompt};

/// Least mean of ROUGE-1, ROUGE-2 and ROUGE-L at which an open answer counts as right.
const RIGHT_ROUGE: f64 = 0.5;
/// Most bad lines that are kept with their reasons; the rest are counted.
const NAMED: usize = 20;

/// A question about a video and its right answer. In JSON one object:
/// `{"video": "x.mp4", "question": "Who wins?", "answer": "the dog", "kind": "open_ended"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Path of the video as it is written.
    pub video: String,
    /// The question, without its options.
    pub question: String,
    /// What can be chosen from, named A, B, C and so on; empty for an open question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// The right answer; for multiple choice the option's letter.
    pub answer: String,
    /// How it is to be answered.
    pub kind: PairKind,
    /// What else there is to say, for example `question_type`.
    #[serde(flatten)]
    pub extras: Map<String, Value>,
}

/// How a question is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairKind {
    /// By the letter of an option.
    MultipleChoice,
    /// In words.
    OpenEnded,
}

/// Why a line is not a [`Pair`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// The answer of a multiple choice is no option.
    #[error("`answer` is no option: write its letter, or its text as it stands in `options`")]
    Answer,
    /// A text that has to be there is empty.
    #[error("`{0}` is empty: write it, or take the line out")]
    Empty(&'static str),
    /// Not an object with the needed members.
    #[error(
        "not a question with its answer: {0}; write {{\"video\", \"question\", \"answer\", \"kind\"}}"
    )]
    NotAPair(String),
    /// Options where none belong, or too few or too many to choose from.
    #[error("`options` has {0} entries: a multiple_choice takes 2 to 26, an open_ended none")]
    Options(usize),
    /// Longer than any pair can be.
    #[error("longer than {LONGEST} bytes: write one question a line")]
    TooLong,
}

impl PairKind {
    /// The name in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MultipleChoice => "multiple_choice",
            Self::OpenEnded => "open_ended",
        }
    }
}

impl Pair {
    /// Reads one line of JSON.
    ///
    /// # Errors
    /// [`PairError`] says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, PairError> {
        let mut pair: Self =
            serde_json::from_slice(line).map_err(|error| PairError::NotAPair(error.to_string()))?;
        for (name, text) in [
            ("video", &pair.video),
            ("question", &pair.question),
            ("answer", &pair.answer),
        ] {
            if text.trim().is_empty() {
                return Err(PairError::Empty(name));
            }
        }
        match (pair.kind, pair.options.len()) {
            (PairKind::OpenEnded, 0) => {}
            (PairKind::MultipleChoice, 2..=26) => {
                let letter = pair.letter(&pair.answer).ok_or(PairError::Answer)?;
                pair.answer = letter.to_string();
            }
            (_, count) => return Err(PairError::Options(count)),
        }
        Ok(pair)
    }

    /// The open question of an item, for instance of a synthetic world.
    #[must_use]
    pub fn of_item(item: &Item) -> Self {
        Self {
            video: item.video().to_owned(),
            question: item.question().to_owned(),
            options: Vec::new(),
            answer: item.ground_truth.clone(),
            kind: PairKind::OpenEnded,
            extras: item.extras.clone(),
        }
    }

    /// The item that asks it, as number `index`.
    #[must_use]
    pub fn item(&self, index: u64) -> Item {
        Item {
            index,
            videos: vec![self.video.clone()],
            prompt: vec![Prompt {
                role: Role::User,
                content: self.prompt(),
            }],
            ground_truth: self.answer.clone(),
            extras: self.extras.clone(),
        }
    }

    /// The question as it is asked, its options below.
    #[must_use]
    pub fn prompt(&self) -> String {
        let mut text = self.question.trim().to_owned();
        for (letter, option) in ('A'..='Z').zip(&self.options) {
            text += &format!("\n{letter}. {option}");
        }
        if !self.options.is_empty() {
            text += "\nAnswer with the option's letter.";
        }
        text
    }

    /// Whether `answer` is right: the same option, or the same words, or nearly (the mean of its
    /// ROUGE scores is at least 0.5).
    #[must_use]
    pub fn is_right(&self, answer: &str) -> bool {
        match self.kind {
            PairKind::MultipleChoice => {
                let letter = self.letter(answer);
                letter.is_some() && letter == self.letter(&self.answer)
            }
            PairKind::OpenEnded => {
                is_same(answer, &self.answer)
                    || Rouge::new(&self.answer, answer).mean() >= RIGHT_ROUGE
            }
        }
    }

    /// The option that `answer` names: `C`, `(C)`, `C. The dog`, `the dog`.
    fn letter(&self, answer: &str) -> Option<char> {
        let letters = ('A'..='Z').zip(&self.options);
        for (letter, option) in letters {
            if is_same(option, answer) {
                return Some(letter);
            }
        }
        let words = words(answer);
        let first = words.first()?;
        let mut letters = ('A'..='Z').zip(&self.options);
        letters.find_map(|(letter, option)| {
            let named = first.len() == 1 && first.eq_ignore_ascii_case(&letter.to_string());
            let rest = words.get(1..).unwrap_or_default().join(" ");
            (named && (rest.is_empty() || is_same(&rest, option))).then_some(letter)
        })
    }
}

/// The pairs of a file of JSON Lines, and what is odd about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairFile {
    /// The pairs, in the file's order.
    pub pairs: Vec<Pair>,
    /// Number of lines that are none.
    pub bad: u64,
    /// The first of those lines.
    pub bad_lines: Vec<BadPair>,
}

/// A line that is not a pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct BadPair {
    /// Its number, from 1 on.
    pub line: u64,
    /// What is wrong with it.
    pub error: PairError,
}

/// Why a file gives no pairs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairFileError {
    /// No line is a pair.
    #[error("no line of {} is a question with its answer; {first}", .path.display())]
    AllBad {
        /// The file.
        path: PathBuf,
        /// The first bad line.
        first: BadPair,
    },
    /// There is nothing in it.
    #[error("{} holds no questions: name a file of JSON Lines", .0.display())]
    Empty(PathBuf),
    /// The file can't be read.
    #[error("cannot read the questions of {}: {source}; check the path", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl PairFile {
    /// Reads the pairs of the file at `path`.
    ///
    /// # Errors
    /// [`PairFileError`], when it can't be read or holds no pair. Bad lines among good ones are no
    /// error.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PairFileError> {
        let path = path.as_ref().to_owned();
        let read = File::open(&path).and_then(|file| Self::parse(BufReader::new(file)));
        let file = match read {
            Ok(file) => file,
            Err(source) => return Err(PairFileError::Read { path, source }),
        };
        match file.bad_lines.first() {
            _ if !file.pairs.is_empty() => Ok(file),
            Some(first) => {
                let first = first.clone();
                Err(PairFileError::AllBad { path, first })
            }
            None => Err(PairFileError::Empty(path)),
        }
    }

    /// Reads pairs from text that need not be a file. Blank lines are passed over.
    ///
    /// # Errors
    /// When `text` can't be read; never for what it says.
    pub fn parse(text: impl BufRead) -> io::Result<Self> {
        let mut file = Self::default();
        lines::each(text, |number, line| {
            match line.map_or(Err(PairError::TooLong), Pair::parse) {
                Ok(pair) => file.pairs.push(pair),
                Err(error) => {
                    file.bad += 1;
                    if file.bad_lines.len() < NAMED {
                        let line = number + 1;
                        file.bad_lines.push(BadPair { line, error });
                    }
                }
            }
        })?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn choice(answer: &str) -> Result<Pair, PairError> {
        let line = serde_json::json!({
            "video": "x.mp4", "question": " Who? ", "options": ["a dog", "A cat"],
            "answer": answer, "kind": "multiple_choice", "source": "mine",
        });
        Pair::parse(line.to_string().as_bytes())
    }

    fn open(answer: &str) -> Pair {
        let line = serde_json::json!({
            "video": "x.mp4", "question": "Who?", "answer": answer, "kind": "open_ended",
        });
        Pair::parse(line.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn options_are_asked_with_letters_and_their_answer_is_one() {
        let pair = choice("a CAT").unwrap();
        assert_eq!(pair.answer, "B");
        assert_eq!(
            pair.prompt(),
            "Who?\nA. a dog\nB. A cat\nAnswer with the option's letter."
        );
        assert_eq!(pair.extras["source"], "mine");
        for right in ["B", "b.", "(B)", "B. a cat", "A cat"] {
            assert!(pair.is_right(right), "{right}");
        }
        for wrong in ["A", "C", "", "a dog", "B. a dog", "both"] {
            assert!(!pair.is_right(wrong), "{wrong}");
        }
    }

    #[test]
    fn open_answers_are_right_by_their_words() {
        let pair = open("The red car");
        assert!(pair.is_right("the red car.") && pair.is_right("a red car"));
        assert!(!pair.is_right("the blue bus") && !pair.is_right(""));
        assert!(open("7").is_right(" 7 ") && !open("7").is_right("9"));
    }

    #[test]
    fn what_is_no_pair_is_refused_with_the_reason() {
        assert_eq!(choice("C"), Err(PairError::Answer));
        for (line, expected) in [
            ("{\"video\": \"x\"}", "not a question"),
            ("[]", "not a question"),
            (
                "{\"video\": \" \", \"question\": \"?\", \"answer\": \"a\", \"kind\": \"open_ended\"}",
                "`video` is empty",
            ),
            (
                "{\"video\": \"x\", \"question\": \"?\", \"answer\": \"a\", \"kind\": \"multiple_choice\"}",
                "`options` has 0",
            ),
            (
                "{\"video\": \"x\", \"question\": \"?\", \"answer\": \"a\", \"kind\": \"essay\"}",
                "essay",
            ),
        ] {
            let error = Pair::parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn bad_lines_are_counted_and_a_file_without_pairs_is_an_error() {
        let good = serde_json::to_string(&open("a")).unwrap();
        let text = format!("{good}\n\nnonsense\n{good}");
        let file = PairFile::parse(text.as_bytes()).unwrap();
        assert_eq!((file.pairs.len(), file.bad), (2, 1));
        assert_eq!(file.bad_lines[0].line, 3);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl");
        std::fs::write(&path, "nonsense\n").unwrap();
        let error = PairFile::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("pairs.jsonl") && error.contains("line 1"),
            "{error}"
        );
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(
            PairFile::read(&path),
            Err(PairFileError::Empty(_))
        ));
        let missing = PairFile::read(dir.path().join("no"));
        assert!(matches!(missing, Err(PairFileError::Read { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let file = PairFile::parse(bytes.as_slice()).unwrap();
            prop_assert!(file.pairs.is_empty());
        }

        #[test]
        fn the_right_answer_is_right_and_is_read_back(answer in "[a-z]{1,8}( [a-z]{1,8}){0,4}") {
            let pair = open(&answer);
            prop_assert!(pair.is_right(&answer));
            let line = serde_json::to_vec(&pair).unwrap();
            prop_assert_eq!(Pair::parse(&line), Ok(pair));
        }
    }
}
