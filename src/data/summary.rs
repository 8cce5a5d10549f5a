//! What a data set holds, in numbers: [`Summary`].

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Label, Pair, Rejected, Sample};

/// Counts of a data set.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Runs, or questions.
    pub made: u64,
    /// What could not be used.
    pub rejected: u64,
    /// Why, each with its count.
    pub rejected_by_reason: BTreeMap<String, u64>,
    /// Runs by label.
    pub labels: BTreeMap<String, u64>,
    /// Why runs are undesirable; one can have several reasons.
    pub undesirable_by_reason: BTreeMap<String, u64>,
    /// By kind of question.
    pub kinds: BTreeMap<String, u64>,
    /// By what the item calls its type, if it does.
    pub question_types: BTreeMap<String, u64>,
    /// Runs by the hint they were made with.
    pub hints: BTreeMap<String, u64>,
    /// Runs with insufficient evidence at first.
    pub cut: u64,
    /// Objections of the thinker.
    pub objections: u64,
    /// Frames of all runs.
    pub frames: u64,
    /// Visual tokens of all runs, as estimated.
    pub visual_tokens: u64,
    /// Tokens that the policy wrote in all runs.
    pub completion_tokens: u64,
    /// What a reader has to know, such as a share that could not be met.
    pub notes: Vec<String>,
}

impl Summary {
    /// Counts runs.
    #[must_use]
    pub fn of_samples(samples: &[Sample], rejected: &[Rejected]) -> Self {
        let mut summary = Self::default();
        for sample in samples {
            summary.add_pair(&sample.pair);
            if let Some(label) = sample.label {
                let name = match label {
                    Label::Desirable => "desirable",
                    Label::Undesirable => "undesirable",
                };
                count(&mut summary.labels, name);
            }
            for reason in &sample.reasons {
                count(&mut summary.undesirable_by_reason, &name(reason));
            }
            if let Some(family) = sample.provenance.family {
                count(&mut summary.hints, &name(&family));
            }
            summary.cut += u64::from(sample.provenance.cut_turn.is_some());
            summary.objections += sample.provenance.objections.len() as u64;
            let tally = &sample.trajectory.outcome.tally;
            summary.frames += tally.frames;
            summary.visual_tokens += tally.estimated_visual_tokens;
            for turn in &sample.trajectory.turns {
                summary.completion_tokens += u64::from(turn.usage.completion);
            }
        }
        summary.add_rejected(rejected);
        summary
    }

    /// Counts questions.
    #[must_use]
    pub fn of_pairs(pairs: &[Pair], rejected: &[Rejected]) -> Self {
        let mut summary = Self::default();
        pairs.iter().for_each(|pair| summary.add_pair(pair));
        summary.add_rejected(rejected);
        summary
    }

    fn add_pair(&mut self, pair: &Pair) {
        self.made += 1;
        count(&mut self.kinds, pair.kind.name());
        if let Some(kind) = pair
            .extras
            .get("question_type")
            .and_then(|kind| kind.as_str())
        {
            count(&mut self.question_types, kind);
        }
    }

    fn add_rejected(&mut self, rejected: &[Rejected]) {
        self.rejected = rejected.len() as u64;
        for one in rejected {
            count(&mut self.rejected_by_reason, &name(&one.reason));
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    *counts.entry(name.to_owned()).or_default() += 1;
}

/// The name that a variant has in files.
fn name(variant: &impl Serialize) -> String {
    let value = serde_json::to_value(variant).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
