//! What runs are worth: [`Reward`], and the paper's, [`PaperReward`].

use eva_burn::train::reward::{Weights, completeness, is_right, open_ended};
use eva_core::{Conversation, OwnedPart, Pixels, Role};

use super::Judge;
use crate::rollout::Rollout;

/// A question with its truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The question as it was asked, with its options.
    pub question: String,
    /// The right answer; for multiple choice the option's letter.
    pub truth: String,
    /// How it is to be answered.
    pub form: Form,
}

/// How a question is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By the letter of an option.
    Letter,
    /// In words.
    Words,
}

#[cfg(feature = "data")]
impl From<&crate::data::Pair> for Asked {
    fn from(pair: &crate::data::Pair) -> Self {
        Self {
            question: pair.prompt(),
            truth: pair.answer.clone(),
            form: match pair.kind {
                crate::data::PairKind::MultipleChoice => Form::Letter,
                crate::data::PairKind::OpenEnded => Form::Words,
            },
        }
    }
}

/// Says what runs are worth.
pub trait Reward<P> {
    /// The reward of each run; larger is better.
    ///
    /// - runs: with what each was asked
    fn rewards(&mut self, runs: &[(&Asked, &Rollout<P>)]) -> Vec<f64>;
}

/// The paper's reward, `w_acc r_acc + w_fmt r_fmt`: for multiple choice completeness
/// self-verification, for open questions the mean of ROUGE-1, -2 and -L, and a little for a wrong
/// answer after a look.
///
/// A single word has no ROUGE-2, so a right answer of one word is worth two thirds.
#[derive(Debug, Clone)]
pub struct PaperReward<J> {
    /// The weights of accuracy and format.
    pub weights: Weights,
    /// Answers from the frames of the last round alone.
    pub judge: J,
}

impl<P: Pixels, J: Judge<P>> Reward<P> for PaperReward<J> {
    fn rewards(&mut self, runs: &[(&Asked, &Rollout<P>)]) -> Vec<f64> {
        let asks = |(asked, run): &(&Asked, &Rollout<P>)| {
            asked.form == Form::Letter
                && is_right(run.report.answer(), &asked.truth)
                && has_frames(&run.report.conversation)
        };
        let cases: Vec<_> = runs.iter().copied().filter(|run| asks(run)).collect();
        let mut said = self.judge.answers(&cases).into_iter();
        runs.iter()
            .map(|run| {
                let (asked, rollout) = run;
                let answer = rollout.report.answer();
                let grade = match asked.form {
                    Form::Words => open_ended(answer, &asked.truth),
                    Form::Letter if asks(run) => {
                        // One picture stands for all: that there are some is what counts here.
                        let judged = said.next().flatten();
                        completeness(answer, &asked.truth, &[()], |_| judged)
                    }
                    Form::Letter => completeness(answer, &asked.truth, &[] as &[()], |_| None),
                };
                let looked = rollout.report.trajectory.outcome.tally.frames > 0;
                self.weights.reward(grade, looked)
            })
            .collect()
    }
}

fn has_frames<P>(conversation: &Conversation<P>) -> bool {
    let tools = (conversation.messages().iter()).filter(|message| message.role == Role::Tool);
    let mut parts = tools.flat_map(|message| &message.parts);
    parts.any(|part| matches!(part, OwnedPart::Image(_)))
}
