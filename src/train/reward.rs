//! What runs are worth: [`Reward`], the paper's, [`PaperReward`], and one that counts the cost,
//! [`Thrifty`].

use eva_burn::train::reward::{FORMAT_REWARD, Weights, completeness, is_right, open_ended};
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

/// Another reward, from which each visual token of a good run takes a little: of two runs that are right,
/// the one that looked at less is worth more. The paper's reward has no such term.
///
/// Advantages of it should be scaled by the whole batch
/// ([`Scale::Batch`](eva_burn::train::advantage::Scale)). Scaled by its group, a few tokens between runs
/// that are all right would weigh as much as right and wrong in another group, and whatever is cheap and
/// right more often than not would win.
#[derive(Debug, Clone)]
pub struct Thrifty<R> {
    /// What a run is worth before its cost.
    pub reward: R,
    /// What a visual token takes, for instance 0.004. A reward above that for a wrong answer, 0.05,
    /// never falls below it, and others stay as they are: nothing is to be saved on a wrong answer.
    pub per_visual_token: f64,
}

impl<P, R: Reward<P>> Reward<P> for Thrifty<R> {
    fn rewards(&mut self, runs: &[(&Asked, &Rollout<P>)]) -> Vec<f64> {
        let mut rewards = self.reward.rewards(runs);
        for ((_, run), reward) in runs.iter().zip(&mut rewards) {
            let tokens = run.report.trajectory.outcome.tally.estimated_visual_tokens;
            if *reward > FORMAT_REWARD {
                let left = *reward - self.per_visual_token * tokens as f64;
                *reward = left.max(FORMAT_REWARD);
            }
        }
        rewards
    }
}

fn has_frames<P>(conversation: &Conversation<P>) -> bool {
    let tools = (conversation.messages().iter()).filter(|message| message.role == Role::Tool);
    let mut parts = tools.flat_map(|message| &message.parts);
    parts.any(|part| matches!(part, OwnedPart::Image(_)))
}
