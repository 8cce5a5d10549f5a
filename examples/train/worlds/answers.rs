//! The answers of an exam on disk: [`Answers`].

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use eva::Trajectory;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// An answered question: a line of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The exam that it is of.
    pub(super) exam: String,
    /// Seed of the world.
    pub(super) world: u64,
    pub(super) kind: String,
    pub(super) question: String,
    pub(super) truth: String,
    pub(super) right: bool,
    /// Whether the evidence was seen.
    pub(super) evidence: bool,
    pub(super) trajectory: Trajectory,
}

/// A file with the answers to the first questions of one exam, in their order.
pub(super) struct Answers {
    file: File,
}

/// What is known of an exam before it goes on.
pub(super) struct Found {
    /// The answers to its first questions.
    pub(super) answers: Vec<Answer>,
    /// Where a file of another exam is now that was in its place.
    pub(super) aside: Option<PathBuf>,
}

impl Answers {
    /// Goes on with the file at `path` if all its answers are of `exam`, which has so many questions, of
    /// which so many are asked together. The answers of another exam are put aside: they took long, and
    /// a reported number may rest on them.
    pub(super) fn open(
        path: &Path,
        exam: &str,
        questions: usize,
        together: usize,
    ) -> Result<(Self, Found), Failure> {
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
        };
        // Without its end the last line was cut short by a kill.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| {
            let answer = serde_json::from_str::<Answer>(line).ok();
            answer.filter(|answer| answer.exam == exam)
        });
        let known: Option<Vec<Answer>> = lines.collect();
        let aside = match known {
            Some(_) => None,
            None => Some(put_aside(path)?),
        };
        let mut answers = known.unwrap_or_default();
        // Questions that are asked together are answered together: what a kill left of them goes.
        if answers.len() < questions {
            answers.truncate(answers.len() / together * together);
        }
        let mut kept = String::new();
        for line in whole.lines().take(answers.len()) {
            kept.push_str(line);
            kept.push('\n');
        }
        if aside.is_none() && kept.len() < text.len() {
            let new = path.with_extension("jsonl.new");
            fs::write(&new, kept)?;
            fs::rename(&new, path)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        Ok((Self { file }, Found { answers, aside }))
    }

    /// Adds the answers to questions that were asked together.
    pub(super) fn add(&mut self, answers: &[Answer]) -> Result<(), Failure> {
        let mut text = String::new();
        for answer in answers {
            text.push_str(&serde_json::to_string(answer)?);
            text.push('\n');
        }
        Ok(self.file.write_all(text.as_bytes())?)
    }
}

/// Gives a file another name, which no file has.
fn put_aside(path: &Path) -> Result<PathBuf, Failure> {
    let names = (1..u32::MAX).map(|number| path.with_extension(format!("{number}.jsonl")));
    let free = names.into_iter().find(|name| !name.exists());
    let free = free.ok_or_else(|| format!("{} can't be put aside: move it", path.display()))?;
    fs::rename(path, &free)
        .map_err(|error| format!("cannot put {} aside: {error}", path.display()))?;
    Ok(free)
}
