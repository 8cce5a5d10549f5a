//! A run between two steps: [`Run`].

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::agent::{Agent, Call, CallState, Step};
use crate::conversation::{Conversation, NoQuestion, OwnedMessage, ToolMessage, question};
use crate::outcome::StopReason;
use crate::reply::{self, FrameSelect, WrittenCall};
use crate::report::Report;
use crate::span::Span;
use crate::trajectory::{CallRecord, OutcomeRecord, Trajectory, Turn};
use crate::{FailedCalls, Picture, Role, Selection, ToolSpec, Usage};

/// A run that a [`Session`](crate::Session) carries on step by step; `P` is its picture type.
///
/// It holds all there is of a run: with feature `serde`, one that was stored between two steps can be
/// carried on by another session, in another process, and comes to the same end. What it does not
/// hold is the state of the policy, which reads the whole conversation each time, and of the tools.
///
/// ```
/// use eva_core::mock::{ScriptedPolicy, SolidSource};
/// use eva_core::{Role, Session, Step, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let policy = ScriptedPolicy::new(["<answer>B</answer>"]);
/// let mut session = Session::new(SolidSource::new(video), policy);
/// let mut run = session.begin(&[(Role::User, "Who wins?")])?;
/// assert_eq!(run.step(), &Step::Generate);
/// let copy = run.clone(); // or stored, with the feature `serde`
/// session.advance(&mut run);
/// assert!(run.is_done() && !copy.is_done());
/// # Ok::<(), eva_core::NoQuestion>(())
/// ```
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Run<P> {
    pub(crate) agent: Agent,
    pub(crate) conversation: Conversation<P>,
    /// The last reply: the agent's spans point into it.
    pub(crate) reply: String,
    question: String,
    /// The answer to the calls of this turn, once there is something to say.
    response: Option<ToolMessage<P>>,
    /// How many calls of this turn need no more telling: their failures stand in `response`.
    told: usize,
    turns: Vec<Turn>,
}

impl<P> Run<P> {
    pub(crate) fn new(
        agent: Agent,
        prompt: &[(Role, &str)],
        tools: &[ToolSpec<'_>],
    ) -> Result<Self, NoQuestion> {
        Ok(Self {
            conversation: Conversation::open_with_tools(agent.info(), prompt, tools)?,
            agent,
            reply: String::new(),
            question: question(prompt).unwrap_or_default().to_string(),
            response: None,
            told: 0,
            turns: Vec::new(),
        })
    }

    /// What the run waits for; [`Step::Done`] when it is over.
    pub fn step(&self) -> &Step {
        self.agent.step()
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.step(), Step::Done(_))
    }

    /// The agent: its calls, its costs, its rules.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The conversation so far.
    #[must_use]
    pub fn conversation(&self) -> &Conversation<P> {
        &self.conversation
    }

    /// The answer to the calls of this turn, what failed before the call at hand told first.
    pub(crate) fn response(&mut self) -> &mut ToolMessage<P> {
        self.tell_failures(self.waiting().unwrap_or(usize::MAX));
        self.response.get_or_insert_with(ToolMessage::new)
    }

    /// Which call of this turn is being carried out.
    pub(crate) fn waiting(&self) -> Option<usize> {
        let mut calls = self.agent.calls();
        calls.position(|call| call.state == CallState::Waiting)
    }

    pub(crate) fn push_reply(&mut self) {
        let message = OwnedMessage::text(Role::Assistant, self.reply.clone());
        self.conversation.push(message);
    }

    /// Lets the agent read the reply, and begins the records of its calls.
    pub(crate) fn replied(&mut self, usage: Usage) {
        self.agent.generated(&self.reply, usage);
        self.told = 0;
        let calls = self.new_calls();
        self.turns.push(Turn { usage, calls });
    }

    fn new_calls(&self) -> Vec<CallRecord> {
        let Some(mut written) = reply::tool_calls(&self.reply) else {
            return Vec::new();
        };
        if self.agent.has_other_tools() {
            written = written.with_other_tools();
        }
        let calls = written.zip(self.agent.calls());
        let records = calls.map(|(written, call)| CallRecord {
            tool: self.text(written.name),
            arguments: self.text(written.arguments),
            selection: call.selection,
            frames: 0,
            error: None,
            message: self.refusal(written, call),
        });
        records.collect()
    }

    /// Why a `frame_select` call with complete arguments can't be carried out.
    fn refusal(&self, written: WrittenCall, call: Call) -> Option<String> {
        if !matches!(call.state, CallState::Failed(_) | CallState::Raised) {
            return None;
        }
        let arguments = FrameSelect::parse(written.arguments.of(&self.reply)?).ok()?;
        let planned = Selection::plan(&arguments, self.agent.info(), self.agent.rules());
        planned.err().map(|error| error.to_string())
    }

    /// Notes what the source or tool said when the call at hand failed.
    pub(crate) fn note_failure(&mut self, message: String) {
        let Some(index) = self.waiting() else {
            return;
        };
        let calls = self.turns.last_mut().map(|turn| &mut turn.calls);
        if let Some(record) = calls.and_then(|calls| calls.get_mut(index)) {
            record.message = Some(message);
        }
    }

    /// Brings the records of this turn's calls up to date; when none is left to do, the answer to
    /// them joins the conversation.
    pub(crate) fn note_calls(&mut self) {
        let Some(turn) = self.turns.last_mut() else {
            return;
        };
        for (record, call) in turn.calls.iter_mut().zip(self.agent.calls()) {
            match call.state {
                CallState::Done(frames) => record.frames = frames,
                CallState::Failed(error) => record.error = Some(error),
                CallState::Raised | CallState::Unknown | CallState::Waiting => {}
            }
        }
        if matches!(self.agent.step(), Step::Generate | Step::Done(_)) {
            self.tell_failures(usize::MAX);
            if let Some(response) = self.response.take() {
                self.conversation.push(response.close(&self.question));
            }
        }
    }

    /// Tells the model of failed calls before the call `until`, where the rules want that.
    fn tell_failures(&mut self, until: usize) {
        if self.agent.rules().failed_calls != FailedCalls::TellModel {
            return;
        }
        let Some(turn) = self.turns.last() else {
            return;
        };
        let calls = turn.calls.iter().zip(self.agent.calls()).enumerate();
        for (index, (record, call)) in calls.take(until).skip(self.told) {
            self.told = index + 1;
            let advice = match call.state {
                CallState::Failed(error) => error.advice(),
                CallState::Raised => "the arguments can't be reckoned with",
                CallState::Unknown => "there is no tool of this name",
                CallState::Done(_) | CallState::Waiting => continue,
            };
            let why = record.message.as_deref().unwrap_or(advice);
            let response = self.response.get_or_insert_with(ToolMessage::new);
            response.failure(&record.tool, why);
        }
    }

    fn text(&self, span: Span) -> String {
        span.of(&self.reply).unwrap_or_default().to_string()
    }

    /// Shows what a tool returned, if the run can pay `cost` for its pictures.
    pub(crate) fn returned(&mut self, text: &str, images: Vec<Picture<P>>, cost: u64) {
        if images.is_empty() {
            self.response().text(text);
            return self.agent.returned(Ok(()));
        }
        let count = u32::try_from(images.len()).unwrap_or(u32::MAX);
        if cost <= self.agent.visual_tokens_left() {
            let response = self.response();
            if !text.is_empty() {
                response.text(text);
            }
            response.images(images);
        }
        self.agent.returned_images(count, cost);
    }

    /// What came of the run: for hosts that carry it on without one session from end to end, such as
    /// one that plays many. One that is not over is taken for one that was called off.
    ///
    /// ```
    /// # use eva_core::mock::{ScriptedPolicy, SolidSource};
    /// # use eva_core::{Role, Session, StopReason, VideoInfo};
    /// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
    /// let policy = ScriptedPolicy::new(["<answer>B</answer>"]);
    /// let mut session = Session::new(SolidSource::new(video), policy);
    /// let mut run = session.begin(&[(Role::User, "Who wins?")])?;
    /// assert_eq!(run.clone().into_report().stop_reason(), &StopReason::Cancelled);
    /// session.advance(&mut run);
    /// assert_eq!(run.into_report().answer(), Some("B"));
    /// # Ok::<(), eva_core::NoQuestion>(())
    /// ```
    #[must_use]
    pub fn into_report(self) -> Report<P> {
        let (answer, stop_reason) = match self.step() {
            Step::Done(outcome) => (outcome.answer, outcome.stop_reason.clone()),
            _ => (None, StopReason::Cancelled),
        };
        let outcome = OutcomeRecord {
            answer: answer.map(|span| self.text(span)),
            stop_reason,
            tally: *self.agent.tally(),
        };
        Report {
            trajectory: Trajectory {
                video: *self.agent.info(),
                messages: Vec::from(&self.conversation),
                question: self.question,
                turns: self.turns,
                outcome,
            },
            conversation: self.conversation,
        }
    }
}

/// Without the pictures.
impl<P> core::fmt::Debug for Run<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Run")
            .field("agent", &self.agent)
            .field("question", &self.question)
            .field("turns", &self.turns)
            .finish_non_exhaustive()
    }
}
