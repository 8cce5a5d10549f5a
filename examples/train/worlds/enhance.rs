//! Data-enhanced GRPO: questions that the policy fails at bring more of their kind, about unseen worlds.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use eva::train::TrainError;
use eva::world::{Kind, Split};
use serde::{Deserialize, Serialize};

use super::questions::Quiz;

/// Number of the first question: those of the stages before are below.
const FIRST: u32 = 1 << 31;
/// Of the questions of a step, one in so many is made from failures once there are some.
const MADE: usize = 2;

/// What came of a prompt: a line of `prompts.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// The step, from 0.
    pub(super) step: usize,
    /// Number of the question.
    pub(super) number: u32,
    /// Its kind.
    pub(super) kind: String,
    /// Whether it is multiple choice.
    pub(super) choices: bool,
    /// Runs that did not answer it right.
    pub(super) failed: usize,
    /// Runs.
    pub(super) runs: usize,
}

/// The prompts of all steps so far, in a file: what is asked next follows from it.
#[derive(Debug)]
pub(super) struct Prompts {
    path: PathBuf,
    lines: Vec<Line>,
    /// Prompts a step.
    count: usize,
    /// Steps between two looks at the failures; 0 for never.
    every: usize,
    seed: u64,
}

impl Prompts {
    /// Goes on after `step` steps: lines of later ones, which will be taken again, are dropped.
    ///
    /// # Errors
    /// When a line can't be read: what is asked next would not follow from it.
    pub(super) fn open(
        path: &Path,
        step: usize,
        count: usize,
        every: usize,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let mut lines = read(path)?;
        lines.retain(|line| line.step < step);
        let mut prompts = Self {
            path: path.to_owned(),
            lines: Vec::new(),
            count,
            every,
            seed,
        };
        let new = path.with_extension("jsonl.new");
        prompts.write(&new, &lines, false)?;
        fs::rename(&new, path).map_err(|source| prompts.failed(source))?;
        prompts.lines = lines;
        Ok(prompts)
    }

    /// The questions of a step: kinds in turn; of those after a look at the failures, every other one
    /// is of a kind that failed, as often as it did.
    pub(super) fn of(&self, step: usize) -> Vec<Quiz> {
        let failures = self.failures(step);
        (0..self.count)
            .map(|place| {
                let made = place % MADE == MADE - 1;
                let turn = step * self.count + place;
                // Numbers go round rather than beyond the split.
                let own = FIRST.wrapping_add((self.seed as u32) << 24);
                let number = own.wrapping_add(turn as u32);
                match failures.get(turn.wrapping_mul(7919) % failures.len().max(1)) {
                    Some((kind, choices)) if made => {
                        Quiz::of_kind(Split::Train, number, *kind, *choices)
                    }
                    _ => Quiz::numbered(Split::Train, number),
                }
            })
            .collect()
    }

    /// The kinds of the runs that failed in the round of steps before that of `step`, one for each run.
    fn failures(&self, step: usize) -> Vec<(Kind, bool)> {
        let Some(round) = step.checked_div(self.every) else {
            return Vec::new();
        };
        let lines = self.lines.iter();
        lines
            .filter(|line| line.step / self.every + 1 == round)
            .filter_map(|line| {
                let kind = Kind::ALL.iter().find(|kind| kind.name() == line.kind)?;
                Some(std::iter::repeat_n((*kind, line.choices), line.failed))
            })
            .flatten()
            .collect()
    }

    /// Adds what came of a step's prompts.
    pub(super) fn add(&mut self, lines: Vec<Line>) -> Result<(), TrainError> {
        self.write(&self.path, &lines, true)?;
        self.lines.extend(lines);
        Ok(())
    }

    fn write(&self, path: &Path, lines: &Vec<Line>, append: bool) -> Result<(), TrainError> {
        let mut text = Vec::new();
        for line in lines {
            let written = serde_json::to_writer(&mut text, line);
            written.map_err(|error| TrainError::Data(error.to_string()))?;
            text.push(b'\n');
        }
        let mut options = fs::OpenOptions::new();
        let options = options
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append);
        let file = options.open(path);
        file.and_then(|mut file| file.write_all(&text))
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> TrainError {
        TrainError::File {
            action: "write",
            path: self.path.clone(),
            source,
        }
    }
}

/// The lines of a file; one that is not there has none.
fn read(path: &Path) -> Result<Vec<Line>, TrainError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(TrainError::File {
                action: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    // Without its end the last line was cut short by a kill: its step will be taken again.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = (1..).zip(whole.lines());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| {
                let shown = path.display();
                TrainError::Data(format!(
                    "{shown}, line {number}: {error}; put it right, or remove the stage's folder to begin anew"
                ))
            })
        })
        .collect()
}
