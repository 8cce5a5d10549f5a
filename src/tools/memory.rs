//! Notes that outlive a look and a run: [`Memory`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use eva_core::Tool;

use super::arguments::{Arguments, ArgumentsError, cut};

/// A tool by which the model keeps notes and reads them again: `memory(action, note)`.
///
/// The paper's authors name it as a limit that their agent remembers nothing outside its conversation
/// and fetches the same frames again. Notes are kept as long as the tool, so a session that is asked
/// several questions about one video finds in the second run what the first one noted. Clones are the
/// same memory: the host keeps one to read the notes, or to give them to a session of its own.
///
/// Memory is bounded: [`Memory::MAX_NOTES`] notes of [`Memory::MAX_LENGTH`] characters. When it is
/// full, the oldest note gives way.
///
/// Missing members are read kindly: `{"note": "..."}` writes, `{}` lists.
///
/// ```
/// use eva::Tool;
/// use eva::tools::Memory;
///
/// let mut memory = Memory::new();
/// let mut out = String::new();
/// memory.call(r#"{"action": "write", "note": "00:45 a red card"}"#, &mut out)?;
/// memory.call(r#"{"action": "list"}"#, &mut out)?;
/// assert_eq!(out, "Note 1 of at most 64 is kept.1. 00:45 a red card");
/// # Ok::<(), eva::tools::MemoryError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<VecDeque<String>>>);

/// A call of [`Memory`] failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The action is none of the three.
    #[error("action is {given:?}: give \"write\", \"list\" or \"clear\"")]
    Action {
        /// What was written, cut short.
        given: String,
    },
    /// The arguments can't be read.
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    /// There is nothing to write.
    #[error("note is missing or empty: give the text to keep")]
    NoNote,
    /// The host takes no text.
    #[error("the notes can't be handed back")]
    Write(#[from] fmt::Error),
}

impl Memory {
    /// Most notes that are kept.
    pub const MAX_NOTES: usize = 64;
    /// Longest note in characters; what is longer is cut.
    pub const MAX_LENGTH: usize = 500;

    /// A memory without notes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A memory that begins with `notes`, for instance those of an earlier process.
    #[must_use]
    pub fn with_notes<T: Into<String>>(notes: impl IntoIterator<Item = T>) -> Self {
        let memory = Self::new();
        for note in notes {
            memory.keep(&note.into());
        }
        memory
    }

    /// The notes, oldest first.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.with(|notes| notes.iter().cloned().collect())
    }

    /// Keeps `note`, and says how many there are now and whether one gave way. White space, line
    /// breaks too, becomes single spaces: a note is a line.
    fn keep(&self, note: &str) -> (usize, bool) {
        let words: Vec<&str> = note.split_whitespace().collect();
        self.with(|notes| {
            let full = notes.len() >= Self::MAX_NOTES;
            if full {
                notes.pop_front();
            }
            notes.push_back(cut(&words.join(" "), Self::MAX_LENGTH));
            (notes.len(), full)
        })
    }

    fn with<R>(&self, look: impl FnOnce(&mut VecDeque<String>) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tool for Memory {
    type Error = MemoryError;

    fn name(&self) -> &str {
        "memory"
    }

    fn description(&self) -> &str {
        "Keeps notes about the video from one question to the next. Look into it first; write down \
         what you saw and when."
    }

    fn parameters(&self) -> &str {
        r#"{"type": "object", "properties": {"action": {"type": "string", "enum": ["write", "list", "clear"]}, "note": {"type": "string", "description": "with write: one line to keep"}}, "required": ["action"]}"#
    }

    fn call(&mut self, arguments: &str, out: &mut dyn fmt::Write) -> Result<(), MemoryError> {
        let arguments = Arguments::parse(arguments)?;
        let note = arguments.text("note")?.filter(|note| !note.is_empty());
        let default = if note.is_some() { "write" } else { "list" };
        let action = arguments.text("action")?.unwrap_or(default);
        match action.to_ascii_lowercase().as_str() {
            "write" => {
                let (count, full) = self.keep(note.ok_or(MemoryError::NoNote)?);
                write!(out, "Note {count} of at most {} is kept.", Self::MAX_NOTES)?;
                if full {
                    out.write_str(" The oldest one had to go.")?;
                }
            }
            "list" => {
                let notes = self.notes();
                if notes.is_empty() {
                    out.write_str("There are no notes yet.")?;
                }
                for (index, note) in notes.iter().enumerate() {
                    let line = if index == 0 { "" } else { "\n" };
                    write!(out, "{line}{}. {note}", index + 1)?;
                }
            }
            "clear" => {
                self.with(VecDeque::clear);
                out.write_str("All notes are gone.")?;
            }
            _ => {
                let given = cut(action, 40);
                return Err(MemoryError::Action { given });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use eva_core::Session;
    use eva_core::mock::{ScriptedPolicy, SolidSource};
    use eva_core::{OwnedPart, VideoInfo};
    use proptest::prelude::*;

    fn call(memory: &mut Memory, arguments: &str) -> Result<String, String> {
        let mut out = String::new();
        match memory.call(arguments, &mut out) {
            Ok(()) => Ok(out),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn notes_are_written_listed_and_cleared() {
        let mut memory = Memory::new();
        let list = r#"{"action": "list"}"#;
        assert_eq!(call(&mut memory, list).unwrap(), "There are no notes yet.");
        call(&mut memory, r#"{"action": "write", "note": " a\n b "}"#).unwrap();
        call(&mut memory, r#"{"action": "WRITE", "note": "c"}"#).unwrap();
        assert_eq!(call(&mut memory, list).unwrap(), "1. a b\n2. c");
        assert_eq!(memory.clone().notes(), ["a b", "c"]);
        call(&mut memory, r#"{"action": "clear"}"#).unwrap();
        assert!(memory.notes().is_empty());
    }

    #[test]
    fn a_missing_action_is_read_kindly() {
        let mut memory = Memory::with_notes(["one"]);
        call(&mut memory, r#"{"note": "two"}"#).unwrap();
        assert_eq!(call(&mut memory, "{}").unwrap(), "1. one\n2. two");
    }

    #[test]
    fn what_can_not_be_done_is_explained() {
        let mut memory = Memory::new();
        assert_eq!(
            call(&mut memory, r#"{"action": "forget"}"#).unwrap_err(),
            r#"action is "forget": give "write", "list" or "clear""#
        );
        assert_eq!(
            call(&mut memory, r#"{"action": "write", "note": "  "}"#).unwrap_err(),
            "note is missing or empty: give the text to keep"
        );
        assert_eq!(
            call(&mut memory, r#"{"note": 7}"#).unwrap_err(),
            "note is 7: give text in quotes"
        );
    }

    #[test]
    fn the_oldest_note_gives_way_and_long_notes_are_cut() {
        let mut memory = Memory::with_notes((0..Memory::MAX_NOTES).map(|index| index.to_string()));
        let long = "é".repeat(Memory::MAX_LENGTH + 1);
        let said = call(&mut memory, &format!(r#"{{"note": "{long}"}}"#)).unwrap();
        assert_eq!(
            said,
            "Note 64 of at most 64 is kept. The oldest one had to go."
        );
        let notes = memory.notes();
        assert_eq!((notes.len(), notes[0].as_str()), (Memory::MAX_NOTES, "1"));
        let last = notes.last().unwrap();
        assert_eq!(last.chars().count(), Memory::MAX_LENGTH + 3);
        assert!(last.ends_with("é..."));
    }

    #[test]
    fn a_second_run_reads_what_the_first_noted() {
        let video = VideoInfo {
            duration: 9.0,
            width: 56,
            height: 28,
            fps: 25.0,
        };
        let calls = |arguments: &str| {
            format!(r#"<tool_call>{{"tool": "memory", "arguments": {arguments}}}</tool_call>"#)
        };
        let policy = ScriptedPolicy::new([
            calls(r#"{"action": "write", "note": "a red car at 00:07"}"#),
            "<answer>red</answer>".to_owned(),
            calls(r#"{"action": "list"}"#),
            "<answer>00:07</answer>".to_owned(),
        ]);
        let mut session = Session::new(SolidSource::new(video), policy).with_tool(Memory::new());
        session.ask("Which colour is the car?").unwrap();
        let report = session.ask("When does it come?").unwrap();
        let message = &report.conversation.messages()[3];
        let [OwnedPart::Text(text)] = message.parts.as_slice() else {
            panic!("{message:?}")
        };
        assert!(
            text.starts_with("<tool_response>1. a red car at 00:07\n"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn no_arguments_make_it_panic_or_grow_without_bound(
            texts in prop::collection::vec(
                prop_oneof![".*", "\\{\"note\": \".{0,600}\"\\}", "\\{\"action\": \".{0,6}\"\\}"],
                0..100,
            ),
        ) {
            let mut memory = Memory::new();
            for text in &texts {
                _ = call(&mut memory, text);
            }
            let notes = memory.notes();
            prop_assert!(notes.len() <= Memory::MAX_NOTES);
            for note in notes {
                prop_assert!(note.chars().count() <= Memory::MAX_LENGTH + 3);
            }
        }
    }
}
