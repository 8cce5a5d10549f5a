//! What an executor is told beyond the question, so that its runs differ: [`Family`].

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use serde::{Deserialize, Serialize};

use super::bank::{Bank, Experience};
use super::dice::{Purpose, dice};

/// The three kinds of hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Runs that answered similar questions right.
    PastSuccesses,
    /// What to mind when reflecting.
    Reflection,
    /// In which order to go about it.
    Workflow,
}

/// Past successes that are shown at most.
const SHOWN: usize = 2;

/// What each turn looks like, whatever the hint.
const FORM: &str = "Write each turn in parts: Summary (what the frames show, frame by frame), Plan \
                    (what to look at next, what it costs and what it may show), Action (one call of \
                    frame_select), Reflection (whether the evidence is enough). Answer in \
                    <answer></answer> once it is.";

const WORKFLOWS: [&str; 6] = [
    "Scan the whole video with many small frames first, then look sharply at the moment that matters.",
    "If the question names a time, go there at once with a short window and sharp frames.",
    "Go from coarse to fine: halve the window at each look until the moment is found.",
    "Look for the event first and for its details second; note the time of each frame that shows it.",
    "For a question of order or count, scan evenly and list what each frame shows before you answer.",
    "Check a first impression with one more look at another moment before you answer.",
];

const REFLECTIONS: [&str; 5] = [
    "Before each call ask: what would this look show that the frames so far don't?",
    "Before you answer, name the frame that proves it. If there is none, look again.",
    "After each look say what is still unknown, and whether the cost of finding out is worth it.",
    "Doubt the first answer: which frame could show that it is wrong? Look at that one.",
    "When the frames are too small or too far apart to decide, say so and look again, elsewhere or \
     more sharply, rather than guess.",
];

/// The hint for item `index`: each family in turn at random. Without any experience a workflow takes
/// the place of past successes.
pub(super) fn hint(seed: u64, index: u64, question: &str, bank: &Bank) -> (Family, String) {
    let mut rng = dice(seed, Purpose::Hint, index);
    let pick = |from: &[&'static str], rng: &mut _| from.choose(rng).copied().unwrap_or_default();
    match rng.random_range(0..3) {
        0 => {
            let similar = bank.similar(question, SHOWN);
            if !similar.is_empty() {
                return (Family::PastSuccesses, successes(&similar));
            }
            (Family::Workflow, formed(pick(&WORKFLOWS, &mut rng)))
        }
        1 => (Family::Workflow, formed(pick(&WORKFLOWS, &mut rng))),
        _ => (Family::Reflection, formed(pick(&REFLECTIONS, &mut rng))),
    }
}

/// Workflow number `number`, going round.
pub(super) fn workflow(number: usize) -> String {
    let workflow = WORKFLOWS.get(number % WORKFLOWS.len());
    formed(workflow.copied().unwrap_or_default())
}

fn formed(advice: &str) -> String {
    format!("{FORM}\n{advice}")
}

fn successes(similar: &[&Experience]) -> String {
    let mut text =
        format!("{FORM}\nThis is how similar questions about other videos were answered:");
    for one in similar {
        text += &format!("\n\nQuestion: {}\n{}", one.question, one.course);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn all_families_come_and_the_same_seed_gives_the_same() {
        let bank = Bank::new([Experience {
            question: "Who wins the race?".to_owned(),
            course: "Scan. Zoom.".to_owned(),
        }]);
        let all: Vec<_> = (0..40)
            .map(|index| hint(1, index, "Who wins?", &bank))
            .collect();
        let families: BTreeSet<Family> = all.iter().map(|(family, _)| *family).collect();
        assert_eq!(families.len(), 3);
        let texts: BTreeSet<&String> = all.iter().map(|(_, text)| text).collect();
        assert!(texts.len() > 8, "{}", texts.len());
        assert!(
            texts
                .iter()
                .any(|text| text.contains("Who wins the race?\nScan. Zoom."))
        );
        let again: Vec<_> = (0..40)
            .map(|index| hint(1, index, "Who wins?", &bank))
            .collect();
        assert_eq!(all, again);
        let other: Vec<_> = (0..40)
            .map(|index| hint(2, index, "Who wins?", &bank))
            .collect();
        assert_ne!(all, other);
    }

    #[test]
    fn without_experience_there_are_no_past_successes() {
        let bank = Bank::new([]);
        for index in 0..40 {
            assert_ne!(hint(1, index, "Who?", &bank).0, Family::PastSuccesses);
        }
    }
}
