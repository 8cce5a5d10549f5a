//! One run of a policy about a video.

use eva_core::conversation::Conversation;
use eva_core::{FrameSource, Policy, Report, Role, Rules, Session, Trajectory};

use crate::benchmark::Item;

/// A run that failed: what went wrong, and what there is of it.
pub(super) struct Broken {
    pub(super) message: String,
    pub(super) trajectory: Option<Box<Trajectory>>,
}

impl Broken {
    pub(super) fn before(message: impl ToString) -> Self {
        Self {
            message: message.to_string(),
            trajectory: None,
        }
    }
}

/// Asks `policy` the question of `item`. Whatever ends the run by the protocol's rules is no failure.
pub(super) fn play<S, M>(
    source: S,
    policy: M,
    item: &Item,
    rules: Rules,
) -> Result<(Trajectory, Conversation<S::Pixels>), Broken>
where
    S: FrameSource,
    M: Policy<S::Pixels>,
{
    let messages = item.prompt.iter();
    let prompt: Vec<(Role, &str)> = messages
        .map(|one| (one.role, one.content.as_str()))
        .collect();
    let asked = Session::new(source, policy)
        .with_rules(rules)
        .ask_prompt(&prompt);
    match asked {
        Ok(Report {
            trajectory,
            conversation,
        }) => Ok((trajectory, conversation)),
        Err(error) => Err(Broken {
            message: error.to_string(),
            trajectory: (error.into_report()).map(|report| Box::new(report.trajectory)),
        }),
    }
}
