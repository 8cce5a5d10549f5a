//! What a stage came to, for people and for programs: [`Report`].

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use eva::data::{Ended, Summary};
use serde_json::{Map, Value};

use crate::tell::tell;
use crate::{Failure, exit};

pub(crate) struct Report {
    pub(crate) title: String,
    pub(crate) summary: Summary,
    pub(crate) settings: Map<String, Value>,
    /// `None` after a failure.
    pub(crate) ended: Option<Ended>,
    /// Numbers of this stage alone.
    pub(crate) figures: Vec<(&'static str, Value)>,
}

impl Report {
    fn is_complete(&self) -> bool {
        self.ended.is_some_and(|ended| !ended.interrupted)
    }

    pub(crate) fn json(&self) -> Result<Value, Failure> {
        let mut json = serde_json::to_value(&self.summary)?;
        for (key, value) in &self.figures {
            json[*key] = value.clone();
        }
        json["settings"] = self.settings.clone().into();
        json["complete"] = self.is_complete().into();
        Ok(json)
    }

    pub(crate) fn print(&self, folder: &Path) -> io::Result<()> {
        let Summary {
            made,
            rejected,
            rejected_by_reason,
            labels,
            undesirable_by_reason,
            kinds,
            question_types,
            hints,
            cut,
            objections,
            frames,
            visual_tokens,
            completion_tokens,
            notes,
        } = &self.summary;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", self.title)?;
        writeln!(out, "Made       {made}{}", in_brackets(kinds))?;
        for (key, value) in &self.figures {
            writeln!(out, "           {} {value}", key.replace('_', " "))?;
        }
        for (name, all) in [
            ("Labels", labels),
            ("Because", undesirable_by_reason),
            ("Types", question_types),
            ("Hints", hints),
        ] {
            if !all.is_empty() {
                writeln!(out, "{name:10} {}", counts(all))?;
            }
        }
        if *cut > 0 || *objections > 0 {
            writeln!(
                out,
                "Thinking   {cut} with evidence cut at first, {objections} objections"
            )?;
        }
        if *frames > 0 {
            writeln!(
                out,
                "Costs      {frames} frames, {visual_tokens} visual tokens, {completion_tokens} tokens \
                 written"
            )?;
        }
        writeln!(
            out,
            "Rejected   {rejected}{}",
            in_brackets(rejected_by_reason)
        )?;
        for note in notes {
            writeln!(out, "Note       {note}")?;
        }
        writeln!(
            out,
            "\ndata.jsonl, rejected.jsonl and summary.json are in {}",
            folder.display()
        )?;
        out.flush()
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.is_complete() {
            return ExitCode::SUCCESS;
        }
        tell("stopped: start the same command again to go on");
        ExitCode::from(exit::INTERRUPTED)
    }
}

/// `3 at, 2 find`
fn counts(all: &BTreeMap<String, u64>) -> String {
    let all: Vec<String> = all
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    all.join(", ")
}

/// ` (3 at, 2 find)`, or nothing
fn in_brackets(all: &BTreeMap<String, u64>) -> String {
    if all.is_empty() {
        return String::new();
    }
    format!(" ({})", counts(all))
}
