//! What a [`Session`](crate::Session) leaves: [`Report`], and how it can fail.

use alloc::boxed::Box;
use core::fmt;

use crate::conversation::{Conversation, NoQuestion};
use crate::outcome::StopReason;
use crate::trajectory::Trajectory;
use crate::{FrameSource, Policy};

/// What a finished run leaves.
///
/// ```
/// use eva_core::mock::{ScriptedPolicy, SolidSource};
/// use eva_core::{Session, StopReason, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let report = Session::new(SolidSource::new(video), ScriptedPolicy::new(["I give up."])).ask("?")?;
/// assert_eq!(report.answer(), None);
/// assert_eq!(report.stop_reason(), &StopReason::NoAnswerNoToolCall);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Report<P> {
    /// The record of the run, without pixels.
    pub trajectory: Trajectory,
    /// The conversation with its pictures, for instance to train on.
    pub conversation: Conversation<P>,
}

impl<P> Report<P> {
    /// The answer, if there is one; never empty.
    #[must_use]
    pub fn answer(&self) -> Option<&str> {
        self.trajectory.outcome.answer.as_deref()
    }

    /// Why the run ended.
    #[must_use]
    pub fn stop_reason(&self) -> &StopReason {
        &self.trajectory.outcome.stop_reason
    }
}

/// Without the pictures.
impl<P> fmt::Debug for Report<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("trajectory", &self.trajectory)
            .finish_non_exhaustive()
    }
}

/// Why [`Session::ask`](crate::Session::ask) failed. `M` and `S` are the errors of the policy and the source.
///
/// ```
/// use eva_core::mock::{ScriptedPolicy, SolidSource};
/// use eva_core::{Session, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut session = Session::new(SolidSource::new(video), ScriptedPolicy::default());
/// let error = session.ask("Who wins?").unwrap_err();
/// assert!(error.to_string().starts_with("the policy failed in turn 1: the script has no more replies"));
/// assert!(error.into_report().is_some_and(|report| report.answer().is_none()));
/// ```
#[derive(thiserror::Error)]
pub enum SessionError<M, S, P> {
    /// The prompt has no user message; nothing was run.
    #[error(transparent)]
    NoQuestion(#[from] NoQuestion),
    /// The policy failed, which ended the run.
    #[error("the policy failed in turn {}: {error}", .report.trajectory.turns.len() + 1)]
    Policy {
        /// The policy's own error.
        error: M,
        /// The run up to there.
        report: Box<Report<P>>,
    },
    /// The source failed, and with it every call of the turn, which ended the run. (A failure
    /// beside a call that succeeds is only noted in the trajectory.)
    #[error("the frame source failed in turn {}: {error}", .report.trajectory.turns.len())]
    Source {
        /// The source's own error, the last one of the turn.
        error: S,
        /// The run up to there.
        report: Box<Report<P>>,
    },
}

impl<M, S, P> SessionError<M, S, P> {
    /// The run up to the failure; `None` if there was none.
    #[must_use]
    pub fn report(&self) -> Option<&Report<P>> {
        match self {
            Self::NoQuestion(_) => None,
            Self::Policy { report, .. } | Self::Source { report, .. } => Some(report),
        }
    }

    /// The run up to the failure, taken out of the error.
    #[must_use]
    pub fn into_report(self) -> Option<Report<P>> {
        match self {
            Self::NoQuestion(_) => None,
            Self::Policy { report, .. } | Self::Source { report, .. } => Some(*report),
        }
    }
}

/// Without the run.
impl<M: fmt::Debug, S: fmt::Debug, P> fmt::Debug for SessionError<M, S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoQuestion(error) => f.debug_tuple("NoQuestion").field(error).finish(),
            Self::Policy { error, .. } => f.debug_tuple("Policy").field(error).finish(),
            Self::Source { error, .. } => f.debug_tuple("Source").field(error).finish(),
        }
    }
}

/// What [`Session::ask`](crate::Session::ask) returns for source `S` and policy `M`.
///
/// ```
/// use eva_core::report::SessionResult;
/// use eva_core::{FrameSource, Policy};
///
/// fn answer<S: FrameSource, M: Policy<S::Pixels>>(result: SessionResult<S, M>) -> Option<String> {
///     result.ok()?.answer().map(str::to_string)
/// }
/// ```
pub type SessionResult<S, M> = Result<
    Report<<S as FrameSource>::Pixels>,
    SessionError<
        <M as Policy<<S as FrameSource>::Pixels>>::Error,
        <S as FrameSource>::Error,
        <S as FrameSource>::Pixels,
    >,
>;
