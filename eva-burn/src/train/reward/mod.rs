//! The reward of a rollout: `R = w_acc r_acc + w_fmt r_fmt` (paper, section on rewards).
//!
//! ```
//! use eva_burn::train::reward::{Weights, completeness, open_ended};
//!
//! let weights = Weights::default();
//! // Multiple choice: the judge sees the last round's frames alone.
//! let frames = ["frame at 00:41"];
//! let grade = completeness(Some("b"), "B", &frames, |_seen| Some("B".to_owned()));
//! assert_eq!(weights.reward(grade, true), 1.0);
//! // A wrong answer after a look earns the format reward, a guess without one nothing.
//! let grade = completeness(Some("c"), "B", &frames, |_seen| Some("B".to_owned()));
//! assert_eq!((weights.reward(grade, true), weights.reward(grade, false)), (0.05, 0.0));
//! // Open-ended: the mean of ROUGE-1, ROUGE-2 and ROUGE-L.
//! let grade = open_ended(Some("a red card"), "the red card");
//! assert!(weights.reward(grade, true) > 0.5);
//! ```
//!
//! Any other function that makes a [`Grade`] takes the place of these two.

mod completeness;
mod rouge;

pub use completeness::{completeness, is_right, last_round};
pub use rouge::Rouge;

/// The format reward `r_fmt`: below the 0.20 to 0.25 that a random choice expects, so that it can't
/// be farmed.
pub const FORMAT_REWARD: f64 = 0.05;

/// What an answer is worth by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Grade {
    /// It says what the truth says; `r_acc` can still be 0, when nothing seen supports it.
    Right {
        /// The accuracy reward `r_acc`, from 0 to 1.
        accuracy: f64,
    },
    /// There is no answer.
    Unanswered,
    /// It says something else.
    Wrong,
}

impl Grade {
    /// The accuracy reward `r_acc`.
    #[must_use]
    pub fn accuracy(self) -> f64 {
        match self {
            Self::Right { accuracy } => accuracy,
            Self::Unanswered | Self::Wrong => 0.0,
        }
    }
}

/// The weights of the two rewards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// `w_acc`.
    pub accuracy: f64,
    /// `w_fmt`.
    pub format: f64,
}

impl Default for Weights {
    /// Both 1.
    fn default() -> Self {
        Self {
            accuracy: 1.0,
            format: 1.0,
        }
    }
}

impl Weights {
    /// The reward of a rollout; `looked` when it called a tool. The format reward is for a wrong
    /// answer after a look: giving it to rollouts that never answer would pay them as much as those
    /// that do.
    #[must_use]
    pub fn reward(self, grade: Grade, looked: bool) -> f64 {
        let format = if looked && grade == Grade::Wrong {
            FORMAT_REWARD
        } else {
            0.0
        };
        self.accuracy * grade.accuracy() + self.format * format
    }
}

/// Grades an open-ended answer: `r_rouge`, the mean of ROUGE-1, ROUGE-2 and ROUGE-L. An answer that
/// shares no word with the truth is wrong.
#[must_use]
pub fn open_ended(answer: Option<&str>, truth: &str) -> Grade {
    let Some(answer) = answer.filter(|answer| !answer.trim().is_empty()) else {
        return Grade::Unanswered;
    };
    let accuracy = Rouge::new(truth, answer).mean();
    if accuracy > 0.0 {
        Grade::Right { accuracy }
    } else {
        Grade::Wrong
    }
}
