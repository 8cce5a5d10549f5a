//! Completeness self-verification: an answer counts when the last look alone supports it.

use eva_core::Role;
use eva_core::trajectory::{ImageRecord, MessageRecord, PartRecord};

use super::Grade;

/// Grades a multiple-choice answer: `r_csv`, 1 when it is right and the judge, shown only the frames
/// of the last round, answers right too; else 0 (paper, section on rewards: this is what makes a
/// guess worthless).
///
/// - frames: those of the [`last_round`]; without any there is nothing to verify the answer by
/// - judge: answers the same question from these frames; asked only about a right answer with
///   frames. Where many rollouts are judged in one batch, choose them by [`is_right`] and hand in
///   what the judge said.
#[must_use]
pub fn completeness<F>(
    answer: Option<&str>,
    truth: &str,
    frames: &[F],
    judge: impl FnOnce(&[F]) -> Option<String>,
) -> Grade {
    if answer.is_none_or(|answer| answer.trim().is_empty()) {
        return Grade::Unanswered;
    }
    if !is_right(answer, truth) {
        return Grade::Wrong;
    }
    let verified = !frames.is_empty() && is_right(judge(frames).as_deref(), truth);
    Grade::Right {
        accuracy: if verified { 1.0 } else { 0.0 },
    }
}

/// Whether an answer is the truth, by the published evaluation's rule: equal once trimmed and in
/// upper case; an empty answer never is.
#[must_use]
pub fn is_right(answer: Option<&str>, truth: &str) -> bool {
    let normal = |text: &str| text.trim().to_uppercase();
    answer.is_some_and(|answer| !answer.trim().is_empty() && normal(answer) == normal(truth))
}

/// The frames of the last round that brought any.
#[must_use]
pub fn last_round(messages: &[MessageRecord]) -> Vec<ImageRecord> {
    let frames = |message: &MessageRecord| -> Vec<ImageRecord> {
        let parts = message.parts.iter();
        parts
            .filter_map(|part| match part {
                PartRecord::Image(image) => Some(*image),
                PartRecord::Text(_) => None,
            })
            .collect()
    };
    messages
        .iter()
        .rev()
        .filter(|message| message.role == Role::Tool)
        .map(frames)
        .find(|frames| !frames.is_empty())
        .unwrap_or_default()
}
