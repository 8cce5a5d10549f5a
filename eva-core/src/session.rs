//! A run driven to its end: [`Session`].

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::agent::{Abort, Agent, Call, CallState, SelectFailed, Step, ToolFailure};
use crate::conversation::{Conversation, OwnedMessage, ToolMessage, question};
use crate::outcome::{Outcome, StopReason};
use crate::reply::{self, FrameSelect, WrittenCall};
use crate::report::{Report, SessionError, SessionResult};
use crate::span::Span;
use crate::trajectory::{CallRecord, OutcomeRecord, Trajectory, Turn};
use crate::watch::Watch;
use crate::{Frame, FrameSource, Policy, Role, Rules, Selection, Tool};

/// Answers questions about one video: a frame source, a policy, and what else a run needs.
///
/// Each question is a run of its own; source, policy and tools stay open between them.
///
/// ```
/// use eva_core::mock::{ScriptedPolicy, SolidSource};
/// use eva_core::{Session, VideoInfo};
///
/// let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let policy = ScriptedPolicy::new([
///     r#"Look at all of it. <tool_call>{"tool": "frame_select", "arguments":
///        {"start_time": 0, "end_time": 90, "nframes": 8, "resize": 0.1}}</tool_call>"#,
///     "It is gray. <answer>gray</answer>",
/// ]);
/// let mut session = Session::new(SolidSource::new(video), policy);
/// let report = session.ask("Which colour?")?;
/// assert_eq!(report.answer(), Some("gray"));
/// assert_eq!(report.trajectory.outcome.tally.frames, 8);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Session<S: FrameSource, M: Policy<S::Pixels>, W = ()> {
    source: S,
    policy: M,
    rules: Rules,
    tools: Vec<Box<dyn AnyTool + Send>>,
    abort: fn(&M::Error) -> Abort,
    watch: W,
}

impl<S: FrameSource, M: Policy<S::Pixels>> Session<S, M> {
    /// A session about the video of `source` under [`Rules::published`].
    pub fn new(source: S, policy: M) -> Self {
        Self {
            source,
            policy,
            rules: Rules::published(),
            tools: Vec::new(),
            abort: |_| Abort::Exception,
            watch: (),
        }
    }
}

impl<S: FrameSource, M: Policy<S::Pixels>, W: Watch<S::Pixels>> Session<S, M, W> {
    /// The same under other limits.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The same with one more tool, which the model may call by its name. A tool named
    /// `frame_select` is never called.
    #[must_use]
    pub fn with_tool(mut self, tool: impl Tool + Send + 'static) -> Self {
        self.tools.push(Box::new(tool));
        self
    }

    /// The same with another observer. Pass `&mut watch` to keep it.
    #[must_use]
    pub fn with_watch<V: Watch<S::Pixels>>(self, watch: V) -> Session<S, M, V> {
        Session {
            source: self.source,
            policy: self.policy,
            rules: self.rules,
            tools: self.tools,
            abort: self.abort,
            watch,
        }
    }

    /// The same with a function that says which of the policy's errors is a server's refusal
    /// (`openai_bad_request`). By default each is an `exception`.
    #[must_use]
    pub fn with_abort(mut self, abort: fn(&M::Error) -> Abort) -> Self {
        self.abort = abort;
        self
    }

    /// Asks `question`: drives a run to its end.
    ///
    /// `Ok` means that the run came to an end by the protocol's rules, not that there is an answer:
    /// see [`Report::answer`] and [`Report::stop_reason`].
    ///
    /// # Errors
    /// [`SessionError`] when the policy or the source failed; it holds the run up to there.
    pub fn ask(&mut self, question: &str) -> SessionResult<S, M> {
        self.ask_prompt(&[(Role::User, question)])
    }

    /// The same with a prompt of several messages; the first user message is the question.
    ///
    /// # Errors
    /// As [`Session::ask`], and [`SessionError::NoQuestion`].
    pub fn ask_prompt(&mut self, prompt: &[(Role, &str)]) -> SessionResult<S, M> {
        let info = self.source.info();
        let conversation = Conversation::open(&info, prompt)?;
        let mut agent = Agent::new(self.rules, info);
        if !self.tools.is_empty() {
            agent = agent.with_other_tools();
        }
        let mut run = Run {
            question: question(prompt).unwrap_or_default().to_string(),
            conversation,
            reply: String::new(),
            response: None,
            turns: Vec::new(),
            policy_error: None,
            source_error: None,
        };
        let outcome = loop {
            self.watch.on_step(agent.step());
            match agent.step().clone() {
                Step::Generate => self.generate(&mut agent, &mut run),
                Step::SelectFrames(selection) => self.select(&mut agent, &mut run, &selection),
                Step::CallTool(call) => self.call(&mut agent, &mut run, call),
                Step::Done(outcome) => break outcome,
            }
            run.note_calls(&agent);
        };
        run.finish(info, outcome)
    }

    /// The frame source.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The policy.
    pub fn policy(&self) -> &M {
        &self.policy
    }

    /// Source, policy and observer, taken out of the session.
    pub fn into_parts(self) -> (S, M, W) {
        (self.source, self.policy, self.watch)
    }

    fn generate(&mut self, agent: &mut Agent, run: &mut Run<S, M>) {
        run.source_error = None;
        run.reply.clear();
        let mut out = Tee {
            reply: &mut run.reply,
            watch: &mut self.watch,
            pixels: core::marker::PhantomData,
        };
        let policy = &mut self.policy;
        let result =
            (run.conversation).with_messages(|messages| policy.generate(messages, &mut out));
        if result.is_ok() || !run.reply.is_empty() {
            let message = OwnedMessage::text(Role::Assistant, run.reply.clone());
            run.conversation.push(message);
        }
        match result {
            Ok(usage) => {
                self.watch.on_reply(&run.reply, &usage);
                run.turns.push(Turn {
                    usage,
                    calls: Vec::new(),
                });
                let reply = &run.reply;
                agent.generated(reply, usage);
                run.note_new_calls(agent);
            }
            Err(error) => {
                agent.abort((self.abort)(&error));
                run.policy_error = Some(error);
            }
        }
    }

    fn select(&mut self, agent: &mut Agent, run: &mut Run<S, M>, selection: &Selection) {
        let mut frames: Vec<Frame<S::Pixels>> = Vec::new();
        let result = self.source.frames(selection, &mut |frame| {
            // A source that delivers too much must not fill the conversation.
            if frames.len() < selection.nframes as usize {
                frames.push(frame);
            }
        });
        match result {
            Ok(()) => {
                self.watch.on_frames(selection, &frames);
                let count = frames.len() as u32;
                if count > 0 {
                    run.response().frames(selection, frames);
                }
                agent.selected(Ok(count));
            }
            Err(error) => {
                run.note_failure(agent, error.to_string());
                run.source_error = Some(error);
                agent.selected(Err(SelectFailed));
            }
        }
    }

    fn call(&mut self, agent: &mut Agent, run: &mut Run<S, M>, call: WrittenCall) {
        let name = call.name.of(&run.reply).unwrap_or_default();
        let Some(tool) = self.tools.iter_mut().find(|tool| tool.name() == name) else {
            return agent.returned(Err(ToolFailure::Unknown));
        };
        let arguments = call.arguments.of(&run.reply).unwrap_or_default();
        let mut returned = String::new();
        match tool.call(arguments, &mut returned) {
            Ok(()) => {
                self.watch.on_tool(name, arguments, &returned);
                run.response().text(&returned);
                agent.returned(Ok(()));
            }
            Err(message) => {
                run.note_failure(agent, message);
                agent.returned(Err(ToolFailure::Failed));
            }
        }
    }
}

/// What is collected while a run goes on.
struct Run<S: FrameSource, M: Policy<S::Pixels>> {
    question: String,
    conversation: Conversation<S::Pixels>,
    reply: String,
    /// The answer to the calls of this turn, once one has succeeded.
    response: Option<ToolMessage<S::Pixels>>,
    turns: Vec<Turn>,
    policy_error: Option<M::Error>,
    /// The last failure of the source in this turn.
    source_error: Option<S::Error>,
}

impl<S: FrameSource, M: Policy<S::Pixels>> Run<S, M> {
    fn response(&mut self) -> &mut ToolMessage<S::Pixels> {
        self.response.get_or_insert_with(ToolMessage::new)
    }

    fn text(&self, span: Span) -> String {
        span.of(&self.reply).unwrap_or_default().to_string()
    }

    /// Begins the records of the calls of a new reply.
    fn note_new_calls(&mut self, agent: &Agent) {
        let Some(mut written) = reply::tool_calls(&self.reply) else {
            return;
        };
        if agent.has_other_tools() {
            written = written.with_other_tools();
        }
        let calls = written
            .zip(agent.calls())
            .map(|(written, call)| CallRecord {
                tool: self.text(written.name),
                arguments: self.text(written.arguments),
                selection: call.selection,
                frames: 0,
                error: None,
                message: self.refusal(agent, written, call),
            });
        let calls = calls.collect();
        if let Some(turn) = self.turns.last_mut() {
            turn.calls = calls;
        }
    }

    /// Why a `frame_select` call with complete arguments can't be carried out.
    fn refusal(&self, agent: &Agent, written: WrittenCall, call: Call) -> Option<String> {
        if !matches!(call.state, CallState::Failed(_) | CallState::Raised) {
            return None;
        }
        let arguments = FrameSelect::parse(written.arguments.of(&self.reply)?).ok()?;
        let planned = Selection::plan(&arguments, agent.info(), agent.rules());
        planned.err().map(|error| error.to_string())
    }

    /// Notes what the source or tool said when the call that waits now failed.
    fn note_failure(&mut self, agent: &Agent, message: String) {
        let waiting = agent
            .calls()
            .position(|call| call.state == CallState::Waiting);
        let records = self.turns.last_mut().map(|turn| &mut turn.calls);
        if let (Some(index), Some(records)) = (waiting, records)
            && let Some(record) = records.get_mut(index)
        {
            record.message = Some(message);
        }
    }

    /// Brings the records of this turn's calls up to date; when none is left to do, the answer to
    /// them joins the conversation.
    fn note_calls(&mut self, agent: &Agent) {
        let Some(turn) = self.turns.last_mut() else {
            return;
        };
        for (record, call) in turn.calls.iter_mut().zip(agent.calls()) {
            match call.state {
                CallState::Done(frames) => record.frames = frames,
                CallState::Failed(error) => record.error = Some(error),
                CallState::Raised | CallState::Unknown | CallState::Waiting => {}
            }
        }
        if matches!(agent.step(), Step::Generate | Step::Done(_))
            && let Some(response) = self.response.take()
        {
            self.conversation.push(response.close(&self.question));
        }
    }

    fn finish(self, video: crate::VideoInfo, outcome: Outcome) -> SessionResult<S, M> {
        let answer = outcome.answer.map(|span| self.text(span));
        let report = Report {
            trajectory: Trajectory {
                video,
                messages: Vec::from(&self.conversation),
                question: self.question,
                turns: self.turns,
                outcome: OutcomeRecord {
                    answer,
                    stop_reason: outcome.stop_reason,
                    tally: outcome.tally,
                },
            },
            conversation: self.conversation,
        };
        if let Some(error) = self.policy_error {
            let report = Box::new(report);
            return Err(SessionError::Policy { error, report });
        }
        match (report.stop_reason(), self.source_error) {
            (StopReason::CallsFailed(_), Some(error)) => {
                let report = Box::new(report);
                Err(SessionError::Source { error, report })
            }
            _ => Ok(report),
        }
    }
}

/// Collects the reply and shows it to the observer as it comes.
struct Tee<'a, W, P> {
    reply: &'a mut String,
    watch: &'a mut W,
    pixels: core::marker::PhantomData<fn(P)>,
}

impl<W: Watch<P>, P> fmt::Write for Tee<'_, W, P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.reply.push_str(text);
        self.watch.on_text(text);
        Ok(())
    }
}

/// A [`Tool`] whose error is text, so that tools of many kinds fit one list.
trait AnyTool {
    fn name(&self) -> &str;
    fn call(&mut self, arguments: &str, out: &mut String) -> Result<(), String>;
}

impl<T: Tool> AnyTool for T {
    fn name(&self) -> &str {
        Tool::name(self)
    }
    fn call(&mut self, arguments: &str, out: &mut String) -> Result<(), String> {
        Tool::call(self, arguments, out).map_err(|error| error.to_string())
    }
}
