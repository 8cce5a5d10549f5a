//! A run driven to its end: [`Session`].

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::agent::{Abort, Agent, SelectFailed, Step, ToolFailure};
use crate::conversation::NoQuestion;
use crate::outcome::{CallError, StopReason};
use crate::reply::WrittenCall;
use crate::report::{SessionError, SessionResult};
use crate::run::Run;
use crate::watch::Watch;
use crate::{
    Frame, FrameSource, ImageTool, Picture, Policy, Role, Rules, Selection, Tool, ToolSpec,
};

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
    tools: Vec<Box<dyn AnyTool<S::Pixels> + Send>>,
    abort: fn(&M::Error) -> Abort,
    stops: Vec<Stop>,
    watch: W,
    policy_error: Option<M::Error>,
    /// The last failure of the source in this turn.
    source_error: Option<S::Error>,
}

/// A reason to end a run, and whether it is there.
type Stop = (Abort, Box<dyn FnMut() -> bool + Send>);

impl<S: FrameSource, M: Policy<S::Pixels>> Session<S, M> {
    /// A session about the video of `source` under [`Rules::published`]: what the published weights and
    /// the models that were trained on its conversations read the best, and what scores are
    /// compared by. For another model, [`Session::with_rules`] and [`Rules::default`] are kinder.
    pub fn new(source: S, policy: M) -> Self {
        Self {
            source,
            policy,
            rules: Rules::published(),
            tools: Vec::new(),
            abort: |_| Abort::Exception,
            stops: Vec::new(),
            watch: (),
            policy_error: None,
            source_error: None,
        }
    }
}

impl<S: FrameSource, M: Policy<S::Pixels>, W: Watch<S::Pixels>> Session<S, M, W> {
    /// The same under other rules.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The same with one more tool, which the model is told of in the system message and may call by
    /// its name. A tool named `frame_select` is never called.
    #[must_use]
    pub fn with_tool(mut self, tool: impl Tool + Send + 'static) -> Self {
        self.tools.push(Box::new(TextTool(tool)));
        self
    }

    /// The same with one more tool that answers with pictures.
    #[must_use]
    pub fn with_image_tool(mut self, tool: impl ImageTool<S::Pixels> + Send + 'static) -> Self {
        self.tools.push(Box::new(PictureTool(tool)));
        self
    }

    /// The same with a way to call runs off, for instance from another thread through an atomic flag
    /// that `cancelled` reads. It is asked before each step and at each piece of text that the policy
    /// writes; once it says yes, the run ends with [`StopReason::Cancelled`].
    #[must_use]
    pub fn with_cancel(mut self, cancelled: impl FnMut() -> bool + Send + 'static) -> Self {
        self.stops.push((Abort::Cancelled, Box::new(cancelled)));
        self
    }

    /// The same with a deadline: as [`Session::with_cancel`], but the run ends with
    /// [`StopReason::DeadlineExceeded`]. The clock is the host's.
    ///
    /// ```
    /// # use eva_core::mock::{ScriptedPolicy, SolidSource};
    /// # use eva_core::{Session, StopReason, VideoInfo};
    /// use std::time::{Duration, Instant};
    ///
    /// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
    /// # let policy = ScriptedPolicy::new(["<answer>B</answer>"]);
    /// let end = Instant::now() + Duration::from_secs(60);
    /// let mut session = Session::new(SolidSource::new(video), policy)
    ///     .with_deadline(move || Instant::now() >= end);
    /// # assert_eq!(session.ask("?")?.stop_reason(), &StopReason::AnswerFound);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, passed: impl FnMut() -> bool + Send + 'static) -> Self {
        self.stops.push((Abort::DeadlineExceeded, Box::new(passed)));
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
            stops: self.stops,
            watch,
            policy_error: self.policy_error,
            source_error: self.source_error,
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
    /// `Ok` means that the run came to an end by the protocol's rules, or by the host's wish, not that
    /// there is an answer: see [`Report::answer`] and [`Report::stop_reason`].
    ///
    /// [`Report::answer`]: crate::Report::answer
    /// [`Report::stop_reason`]: crate::Report::stop_reason
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
        let mut run = self.begin(prompt)?;
        while self.advance(&mut run) {}
        self.finish(run)
    }

    /// Begins a run without carrying out its first step: for hosts that want to do something between
    /// steps, such as storing the run. [`Session::ask_prompt`] is `begin`, [`Session::advance`] until
    /// it says no, and [`Session::finish`].
    ///
    /// ```
    /// # use eva_core::mock::{ScriptedPolicy, SolidSource};
    /// # use eva_core::{Role, Session, VideoInfo};
    /// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
    /// # let policy = ScriptedPolicy::new(["<answer>B</answer>"]);
    /// let mut session = Session::new(SolidSource::new(video), policy);
    /// let mut run = session.begin(&[(Role::User, "Who wins?")])?;
    /// while session.advance(&mut run) {
    ///     // with feature `serde`, the run can be stored here and carried on elsewhere
    /// }
    /// assert_eq!(session.finish(run)?.answer(), Some("B"));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NoQuestion`] when the prompt has no user message.
    pub fn begin(&mut self, prompt: &[(Role, &str)]) -> Result<Run<S::Pixels>, NoQuestion> {
        self.policy_error = None;
        self.source_error = None;
        let mut agent = Agent::new(self.rules, self.source.info());
        if !self.tools.is_empty() {
            agent = agent.with_other_tools();
        }
        let tools: Vec<ToolSpec<'_>> = self.tools.iter().map(|tool| tool.spec()).collect();
        Run::new(agent, prompt, &tools)
    }

    /// Carries out the step that `run` waits for, and says whether there was one: `false` means that
    /// the run is over.
    pub fn advance(&mut self, run: &mut Run<S::Pixels>) -> bool {
        let reason = match run.step() {
            Step::Done(_) => None,
            _ => reason_to_stop(&mut self.stops),
        };
        if let Some(reason) = reason {
            run.agent.abort(reason);
            run.note_calls();
        }
        let step = run.step().clone();
        self.watch.on_step(&step);
        match step {
            Step::Generate => self.generate(run),
            Step::SelectFrames(selection) => self.select(run, &selection),
            Step::CallTool(call) => self.call(run, call),
            Step::Done(_) => return false,
        }
        run.note_calls();
        true
    }

    /// What `run` came to. One that is not over ends as [`StopReason::Cancelled`].
    ///
    /// # Errors
    /// As [`Session::ask`]. The policy's or source's own error is known to the session that met it, up
    /// to the next [`Session::begin`]; without it, the report says as much in words.
    pub fn finish(&mut self, mut run: Run<S::Pixels>) -> SessionResult<S, M> {
        if !run.is_done() {
            run.agent.abort(Abort::Cancelled);
            run.note_calls();
        }
        let policy_error = self.policy_error.take();
        let source_error = self.source_error.take();
        let report = run.into_report();
        match (report.stop_reason(), policy_error, source_error) {
            (StopReason::Exception | StopReason::OpenaiBadRequest, Some(error), _) => {
                let report = Box::new(report);
                Err(SessionError::Policy { error, report })
            }
            (StopReason::CallsFailed(_), _, Some(error)) => {
                let report = Box::new(report);
                Err(SessionError::Source { error, report })
            }
            _ => Ok(report),
        }
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

    fn generate(&mut self, run: &mut Run<S::Pixels>) {
        self.policy_error = None;
        self.source_error = None;
        run.reply.clear();
        let mut out = Tee {
            reply: &mut run.reply,
            watch: &mut self.watch,
            stops: &mut self.stops,
            stopped: None,
            pixels: core::marker::PhantomData,
        };
        let policy = &mut self.policy;
        let result =
            (run.conversation).with_messages(|messages| policy.generate(messages, &mut out));
        let stopped = out.stopped;
        if result.is_ok() || !run.reply.is_empty() {
            run.push_reply();
        }
        match (stopped, result) {
            // Whether the policy took the refusal of its text for an error or not.
            (Some(reason), _) => run.agent.abort(reason),
            (None, Ok(usage)) => {
                self.watch.on_reply(&run.reply, &usage);
                run.replied(usage);
            }
            (None, Err(error)) => {
                run.agent.abort((self.abort)(&error));
                self.policy_error = Some(error);
            }
        }
    }

    fn select(&mut self, run: &mut Run<S::Pixels>, selection: &Selection) {
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
                    let labels = run.agent.rules().labels;
                    run.response().frames_labelled(labels, selection, frames);
                }
                run.agent.selected(Ok(count));
            }
            Err(error) => {
                run.note_failure(error.to_string());
                self.source_error = Some(error);
                run.agent.selected(Err(SelectFailed));
            }
        }
    }

    fn call(&mut self, run: &mut Run<S::Pixels>, call: WrittenCall) {
        let name = call.name.of(&run.reply).unwrap_or_default();
        let found = (self.tools.iter_mut()).find(|tool| tool.spec().name == name);
        let Some(tool) = found else {
            return run.agent.returned(Err(ToolFailure::Unknown));
        };
        let arguments = call.arguments.of(&run.reply).unwrap_or_default();
        let mut text = String::new();
        let mut images = Vec::new();
        if let Err(message) = tool.call(arguments, &mut text, &mut images) {
            run.note_failure(message);
            return run.agent.returned(Err(ToolFailure::Failed));
        }
        let cost = images.iter().fold(0_u64, |sum, picture: &Picture<_>| {
            sum.saturating_add(picture.visual_tokens())
        });
        if cost > run.agent.visual_tokens_left() {
            run.note_failure(CallError::VisualBudgetSpent.advice().to_string());
        } else {
            self.watch.on_tool(name, arguments, &text);
            if !images.is_empty() {
                self.watch.on_tool_images(name, &images);
            }
        }
        run.returned(&text, images, cost);
    }
}

fn reason_to_stop(stops: &mut [Stop]) -> Option<Abort> {
    let mut stops = stops.iter_mut();
    stops.find_map(|(reason, is_there)| is_there().then_some(*reason))
}

/// Collects the reply and shows it to the observer as it comes, until there is a reason to stop.
struct Tee<'a, W, P> {
    reply: &'a mut String,
    watch: &'a mut W,
    stops: &'a mut [Stop],
    stopped: Option<Abort>,
    pixels: core::marker::PhantomData<fn(P)>,
}

impl<W: Watch<P>, P> fmt::Write for Tee<'_, W, P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.stopped.is_some() {
            return Err(fmt::Error);
        }
        self.reply.push_str(text);
        self.watch.on_text(text);
        self.stopped = reason_to_stop(self.stops);
        match self.stopped {
            Some(_) => Err(fmt::Error),
            None => Ok(()),
        }
    }
}

/// A tool of either kind whose error is text, so that tools of many kinds fit one list.
trait AnyTool<P> {
    fn spec(&self) -> ToolSpec<'_>;
    fn call(
        &mut self,
        arguments: &str,
        text: &mut String,
        images: &mut Vec<Picture<P>>,
    ) -> Result<(), String>;
}

struct TextTool<T>(T);

impl<P, T: Tool> AnyTool<P> for TextTool<T> {
    fn spec(&self) -> ToolSpec<'_> {
        ToolSpec {
            name: self.0.name(),
            description: self.0.description(),
            parameters: self.0.parameters(),
        }
    }

    fn call(
        &mut self,
        arguments: &str,
        text: &mut String,
        _: &mut Vec<Picture<P>>,
    ) -> Result<(), String> {
        (self.0.call(arguments, text)).map_err(|error| error.to_string())
    }
}

struct PictureTool<T>(T);

impl<P, T: ImageTool<P>> AnyTool<P> for PictureTool<T> {
    fn spec(&self) -> ToolSpec<'_> {
        ToolSpec {
            name: self.0.name(),
            description: self.0.description(),
            parameters: self.0.parameters(),
        }
    }

    fn call(
        &mut self,
        arguments: &str,
        text: &mut String,
        images: &mut Vec<Picture<P>>,
    ) -> Result<(), String> {
        let result = (self.0).call(arguments, text, &mut |picture| images.push(picture));
        result.map_err(|error| error.to_string())
    }
}
