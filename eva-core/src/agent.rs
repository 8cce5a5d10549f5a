//! The run as a state machine without input or output: [`Agent`].

use core::fmt;

use crate::outcome::{CallError, CallErrors, Outcome, StopReason, Tally};
use crate::reply::{self, FRAME_SELECT, FrameSelect, WrittenCall};
use crate::selection::{self, Asked, SelectionError};
use crate::{FailedCalls, Rules, Selection, Usage, VideoInfo};

/// Most calls that are run in one turn. Later ones in the same reply are not run, but counted in
/// [`Tally::dropped_calls`]. A paused agent holds each call: more of them would not fit the half
/// KiB that a microcontroller can spare.
///
/// ```
/// use eva_core::agent::MAX_CALLS;
/// use eva_core::{Agent, Input, Rules, Usage, VideoInfo};
///
/// let call = r#"{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 9, "nframes": 1}}"#;
/// let reply = format!("<tool_call>{}</tool_call>", call.repeat(MAX_CALLS + 2));
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut agent = Agent::new(Rules::published(), video);
/// agent.handle(Input::Generated { reply: &reply, usage: Usage::default() })?;
/// assert_eq!((agent.calls().len(), agent.tally().dropped_calls), (MAX_CALLS, 2));
/// # Ok::<(), eva_core::Unexpected>(())
/// ```
pub const MAX_CALLS: usize = 8;

/// What the agent waits for. Doing it and handing the result to [`Agent::handle`] moves the run on.
///
/// ```
/// use eva_core::agent::StepKind;
/// use eva_core::{Agent, Rules, Step, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let agent = Agent::new(Rules::published(), video);
/// assert_eq!(agent.step(), &Step::Generate);
/// assert_eq!(agent.step().kind(), StepKind::Generate);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "the run goes on only when the step is carried out"]
pub enum Step {
    /// The model shall continue the conversation: answer with [`Input::Generated`].
    Generate,
    /// These frames shall be fetched: answer with [`Input::Selected`].
    SelectFrames(Selection),
    /// A tool of the host shall be called: answer with [`Input::Returned`]. The spans point into the
    /// last reply.
    CallTool(WrittenCall),
    /// The run is over; this step is the last one.
    Done(Outcome),
}

impl Step {
    /// Its name alone.
    #[must_use]
    pub const fn kind(&self) -> StepKind {
        match self {
            Self::Generate => StepKind::Generate,
            Self::SelectFrames(_) => StepKind::SelectFrames,
            Self::CallTool(_) => StepKind::CallTool,
            Self::Done(_) => StepKind::Done,
        }
    }
}

/// The result of a step.
///
/// ```
/// use eva_core::agent::InputKind;
/// use eva_core::{Input, Usage};
///
/// let usage = Usage { prompt: 900, cached: 0, completion: 40 };
/// let input = Input::Generated { reply: "<answer>B</answer>", usage };
/// assert_eq!(input.kind(), InputKind::Generated);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Input<'a> {
    /// The model's reply, whole, and its tokens. For [`Step::Generate`].
    Generated {
        /// The text of the reply.
        reply: &'a str,
        /// Its tokens.
        usage: Usage,
    },
    /// How many frames the source delivered, or that it failed; none is a failure too. For
    /// [`Step::SelectFrames`].
    Selected(Result<u32, SelectFailed>),
    /// Whether the tool did its work. For [`Step::CallTool`].
    Returned(Result<(), ToolFailure>),
    /// The tool did its work and has pictures to show. For [`Step::CallTool`].
    ///
    /// If they cost more than [`Rules::max_run_visual_tokens`] leaves, the call has failed, as
    /// [`Agent::calls`] says, and they must not be shown.
    ReturnedImages {
        /// How many.
        images: u32,
        /// What they cost, see [`Picture::visual_tokens`](crate::Picture::visual_tokens).
        visual_tokens: u64,
    },
    /// The step can't be carried out and the run ends. For any step but [`Step::Done`].
    Abort(Abort),
}

impl Input<'_> {
    /// Its name alone.
    #[must_use]
    pub const fn kind(&self) -> InputKind {
        match self {
            Self::Generated { .. } => InputKind::Generated,
            Self::Selected(_) => InputKind::Selected,
            Self::Returned(_) => InputKind::Returned,
            Self::ReturnedImages { .. } => InputKind::ReturnedImages,
            Self::Abort(_) => InputKind::Abort,
        }
    }
}

/// A source could not deliver the frames.
///
/// ```
/// use eva_core::{Input, SelectFailed};
///
/// let decoded: Result<u32, &str> = Err("the disk is gone"); // the host's own error stays with the host
/// let input = Input::Selected(decoded.map_err(|_| SelectFailed));
/// # assert_eq!(input, Input::Selected(Err(SelectFailed)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectFailed;

/// How a call of a host's tool failed.
///
/// ```
/// use eva_core::{Input, ToolFailure};
///
/// let answer = |tool: &str| match tool {
///     "clock" => Input::Returned(Ok(())),
///     _ => Input::Returned(Err(ToolFailure::Unknown)),
/// };
/// # assert_eq!(answer("zoom"), Input::Returned(Err(ToolFailure::Unknown)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFailure {
    /// The tool failed: the call counts as [`CallError::ToolFailed`].
    Failed,
    /// The host has no tool of that name: it is as if the call had not been written.
    Unknown,
}

/// Why the host ends a run.
///
/// ```
/// use eva_core::{Abort, Agent, Input, Rules, Step, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut agent = Agent::new(Rules::published(), video);
/// let last = agent.handle(Input::Abort(Abort::DeadlineExceeded))?;
/// assert!(matches!(last, Step::Done(outcome) if outcome.stop_reason.to_string() == "deadline_exceeded"));
/// # Ok::<(), eva_core::Unexpected>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// A model server refused the conversation: `openai_bad_request`.
    BadRequest,
    /// Somebody called the run off: `cancelled`.
    Cancelled,
    /// The run took too long: `deadline_exceeded`.
    DeadlineExceeded,
    /// Anything else: `exception`.
    Exception,
}

/// Name of a [`Step`].
///
/// ```
/// assert_eq!(eva_core::agent::StepKind::SelectFrames.to_string(), "`Selected` (or `Abort`)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// [`Step::Generate`]
    Generate,
    /// [`Step::SelectFrames`]
    SelectFrames,
    /// [`Step::CallTool`]
    CallTool,
    /// [`Step::Done`]
    Done,
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Generate => "`Generated` (or `Abort`)",
            Self::SelectFrames => "`Selected` (or `Abort`)",
            Self::CallTool => "`Returned` or `ReturnedImages` (or `Abort`)",
            Self::Done => "nothing more: the run is over",
        })
    }
}

/// Name of an [`Input`].
///
/// ```
/// use eva_core::{Abort, Input, agent::InputKind};
///
/// assert_eq!(Input::Abort(Abort::Cancelled).kind(), InputKind::Abort);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// [`Input::Generated`]
    Generated,
    /// [`Input::Selected`]
    Selected,
    /// [`Input::Returned`]
    Returned,
    /// [`Input::ReturnedImages`]
    ReturnedImages,
    /// [`Input::Abort`]
    Abort,
}

/// [`Agent::handle`] was given the result of another step. The agent is as before.
///
/// ```
/// use eva_core::{Agent, Input, Rules, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut agent = Agent::new(Rules::published(), video);
/// let error = agent.handle(Input::Selected(Ok(8))).unwrap_err();
/// assert!(error.to_string().starts_with("the agent expects `Generated` (or `Abort`)"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent expects {expected} but was given `{given:?}`: carry out what `step()` says")]
pub struct Unexpected {
    /// The step whose result is expected.
    pub expected: StepKind,
    /// What came instead.
    pub given: InputKind,
}

/// A call of the current turn, and what became of it: the one at the same place among
/// [`reply::tool_calls`].
///
/// ```
/// use eva_core::agent::CallState;
/// use eva_core::{Agent, Input, Rules, Usage, VideoInfo};
///
/// let reply = r#"<tool_call>{"tool": "frame_select", "arguments":
///     {"start_time": 0, "end_time": 9, "nframes": 2}}</tool_call>"#;
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut agent = Agent::new(Rules::published(), video);
/// agent.handle(Input::Generated { reply, usage: Usage::default() })?;
/// agent.handle(Input::Selected(Ok(2)))?;
/// let calls: Vec<_> = agent.calls().collect();
/// assert_eq!(calls[0].state, CallState::Done(2));
/// assert_eq!(calls[0].selection.map(|selection| selection.end), Some(9.0));
/// # Ok::<(), eva_core::Unexpected>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// What it asks the source for; `None` for another tool, or when it can't be carried out.
    pub selection: Option<Selection>,
    /// Where it stands.
    pub state: CallState,
}

/// What became of a [`Call`].
///
/// ```
/// use eva_core::{CallError, agent::CallState};
///
/// let told = |state| match state {
///     CallState::Failed(error) => error.advice(),
///     CallState::Raised => "the arguments can't be reckoned with",
///     CallState::Unknown => "there is no tool of this name",
///     CallState::Done(_) | CallState::Waiting => "",
/// };
/// assert!(told(CallState::Failed(CallError::NoNframes)).contains("nframes"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CallState {
    /// It waits for its result.
    Waiting,
    /// It is done; the number of frames it delivered.
    Done(u32),
    /// It failed.
    Failed(CallError),
    /// The published code raises on its arguments: it ended the run with `exception`, unless failed
    /// calls are told to the model.
    Raised,
    /// The host has no tool of that name; it does not count as a call.
    Unknown,
}

/// A call as the agent keeps it: small, since it keeps [`MAX_CALLS`] of them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Kept {
    request: Request,
    state: CallState,
}

/// What a call asks the host for.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Request {
    /// Nothing: it can't be carried out.
    Nothing,
    /// An [`Asked`], field by field: as one, its padding could not hold the variant's tag.
    Frames {
        start: f64,
        end: f64,
        nframes: u32,
        width: u32,
        height: u32,
    },
    Tool(WrittenCall),
}

impl Request {
    const fn frames(asked: Asked) -> Self {
        Self::Frames {
            start: asked.start,
            end: asked.end,
            nframes: asked.nframes,
            width: asked.width,
            height: asked.height,
        }
    }

    fn selection(&self, agent: &Agent) -> Option<Selection> {
        match *self {
            Self::Frames {
                start,
                end,
                nframes,
                width,
                height,
            } => {
                let asked = Asked {
                    start,
                    end,
                    nframes,
                    width,
                    height,
                };
                Some(asked.of(&agent.info, agent.rules.outside_window))
            }
            Self::Nothing | Self::Tool(_) => None,
        }
    }
}

/// A run of the EVA protocol that does no input or output itself: see the [crate] for the
/// loop around it.
///
/// It holds no text and no pictures, needs no allocator, and can be cloned, stored (feature `serde`)
/// and carried on later.
///
/// ```
/// use eva_core::{Agent, Input, Rules, Step, Usage, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut agent = Agent::new(Rules::published(), video);
/// let reply = "<answer>B</answer>";
/// let usage = Usage { prompt: 60, cached: 0, completion: 5 };
/// let step = agent.handle(Input::Generated { reply, usage })?;
/// assert!(matches!(step, Step::Done(_)));
/// assert_eq!(agent.tally().total_tokens, 65);
/// # Ok::<(), eva_core::Unexpected>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Agent {
    rules: Rules,
    info: VideoInfo,
    other_tools: bool,
    calls: heapless::Vec<Kept, MAX_CALLS>,
    tally: Tally,
    /// The state of the run is the step it waits for.
    step: Step,
}

impl Agent {
    /// A run about the video `info` under `rules`. With no turns allowed it is over at once.
    #[must_use]
    pub fn new(rules: Rules, info: VideoInfo) -> Self {
        let mut agent = Self {
            rules,
            info,
            other_tools: false,
            calls: heapless::Vec::new(),
            tally: Tally::default(),
            step: Step::Generate,
        };
        agent.next_turn();
        agent
    }

    /// The same for a host with tools of its own: calls of other tools than `frame_select` become
    /// [`Step::CallTool`]. Without this they are passed over, as in the published protocol.
    #[must_use]
    pub fn with_other_tools(mut self) -> Self {
        self.other_tools = true;
        self
    }

    /// Moves the run on by the result of its step, and gives the next one.
    ///
    /// # Errors
    /// [`Unexpected`] when `input` is not the result of the current step; nothing has changed then.
    pub fn handle(&mut self, input: Input<'_>) -> Result<&Step, Unexpected> {
        match (&self.step, input) {
            (Step::Generate, Input::Generated { reply, usage }) => self.generated(reply, usage),
            (Step::SelectFrames(_), Input::Selected(result)) => self.selected(result),
            (Step::CallTool(_), Input::Returned(result)) => self.returned(result),
            (
                Step::CallTool(_),
                Input::ReturnedImages {
                    images,
                    visual_tokens,
                },
            ) => self.returned_images(images, visual_tokens),
            (Step::Generate | Step::SelectFrames(_) | Step::CallTool(_), Input::Abort(abort)) => {
                self.abort(abort)
            }
            (step, input) => {
                return Err(Unexpected {
                    expected: step.kind(),
                    given: input.kind(),
                });
            }
        }
        Ok(&self.step)
    }

    /// What the run waits for. Asking changes nothing.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// The calls of the last reply, in order, and what became of each so far.
    pub fn calls(&self) -> impl ExactSizeIterator<Item = Call> {
        self.calls.iter().map(|kept| Call {
            selection: kept.request.selection(self),
            state: kept.state,
        })
    }

    /// What the run has cost so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The limits of the run.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The video the run is about.
    #[must_use]
    pub fn info(&self) -> &VideoInfo {
        &self.info
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn has_other_tools(&self) -> bool {
        self.other_tools
    }

    /// Visual tokens that the run may still spend.
    #[must_use]
    pub fn visual_tokens_left(&self) -> u64 {
        let spent = self.tally.estimated_visual_tokens;
        self.rules.max_run_visual_tokens.saturating_sub(spent)
    }

    fn tells_failures(&self) -> bool {
        self.rules.failed_calls == FailedCalls::TellModel
    }

    // The results, each to be given only when the agent waits for it: `handle` and `Session`
    // look at the step first.

    pub(crate) fn generated(&mut self, reply: &str, usage: Usage) {
        self.calls.clear();
        self.tally.num_rounds = self.tally.num_rounds.saturating_add(1);
        self.tally.total_tokens = u64::from(usage.prompt) + u64::from(usage.completion);

        if let Some(answer) = reply::answer(reply) {
            self.step = Step::Done(Outcome {
                answer: Some(answer),
                stop_reason: StopReason::AnswerFound,
                tally: self.tally,
            });
            return;
        }
        let Some(mut written) = reply::tool_calls(reply) else {
            return self.done(StopReason::NoAnswerNoToolCall);
        };
        if self.other_tools {
            written = written.with_other_tools();
        }
        for written in written {
            let (kept, estimate) = self.planned(reply, written);
            if self.calls.push(kept).is_err() {
                self.tally.dropped_calls = self.tally.dropped_calls.saturating_add(1);
            } else {
                let sum = &mut self.tally.estimated_visual_tokens;
                *sum = sum.saturating_add(estimate);
            }
            if kept.state == CallState::Raised && !self.tells_failures() {
                return self.done(StopReason::Exception);
            }
        }
        self.next_call();
    }

    /// The call, read and set against the video, and its visual tokens as estimated. The published
    /// code counts them before it extracts frames, hence also for a call that fails then.
    fn planned(&self, reply: &str, written: WrittenCall) -> (Kept, u64) {
        let waits_for = |request| {
            let state = CallState::Waiting;
            Kept { request, state }
        };
        let failed = |state| {
            let request = Request::Nothing;
            Kept { request, state }
        };
        let fails = |state| (failed(state), 0);
        if written.name.of(reply) != Some(FRAME_SELECT) {
            return (waits_for(Request::Tool(written)), 0);
        }
        let arguments = written.arguments.of(reply).unwrap_or_default();
        let arguments = match FrameSelect::parse(arguments) {
            Ok(arguments) => arguments,
            Err(error) => return fails(CallState::Failed(error)),
        };
        let left = self.visual_tokens_left();
        let mut rules = self.rules;
        // Saturates: what is left is a bound only when it is small.
        let bound = u32::try_from(left).unwrap_or(u32::MAX);
        rules.max_visual_tokens = rules.max_visual_tokens.min(bound);
        match Asked::plan(&arguments, &self.info, &rules) {
            Ok(asked) => {
                let estimate = asked
                    .of(&self.info, self.rules.outside_window)
                    .visual_tokens();
                if estimate > left {
                    fails(CallState::Failed(CallError::VisualBudgetSpent))
                } else {
                    (waits_for(Request::frames(asked)), estimate)
                }
            }
            Err(SelectionError::Window { .. }) => {
                fails(CallState::Failed(CallError::WindowOutsideVideo))
            }
            Err(error) if error.ends_the_run() => fails(CallState::Raised),
            Err(_) => {
                let estimate = selection::estimate(&arguments, &self.info, &rules);
                let state = CallState::Failed(CallError::FrameSelectFailed);
                (failed(state), estimate.min(left))
            }
        }
    }

    pub(crate) fn selected(&mut self, result: Result<u32, SelectFailed>) {
        let state = match result {
            Ok(0) | Err(SelectFailed) => CallState::Failed(CallError::FrameSelectFailed),
            Ok(frames) => {
                self.tally.frames = self.tally.frames.saturating_add(u64::from(frames));
                CallState::Done(frames)
            }
        };
        self.settle(state);
    }

    pub(crate) fn returned(&mut self, result: Result<(), ToolFailure>) {
        let state = match result {
            Ok(()) => CallState::Done(0),
            Err(ToolFailure::Failed) => CallState::Failed(CallError::ToolFailed),
            Err(ToolFailure::Unknown) => CallState::Unknown,
        };
        self.settle(state);
    }

    pub(crate) fn returned_images(&mut self, images: u32, visual_tokens: u64) {
        if visual_tokens > self.visual_tokens_left() {
            return self.settle(CallState::Failed(CallError::VisualBudgetSpent));
        }
        let tally = &mut self.tally;
        tally.estimated_visual_tokens = tally.estimated_visual_tokens.saturating_add(visual_tokens);
        tally.frames = tally.frames.saturating_add(u64::from(images));
        self.settle(CallState::Done(images));
    }

    pub(crate) fn abort(&mut self, abort: Abort) {
        self.done(match abort {
            Abort::BadRequest => StopReason::OpenaiBadRequest,
            Abort::Cancelled => StopReason::Cancelled,
            Abort::DeadlineExceeded => StopReason::DeadlineExceeded,
            Abort::Exception => StopReason::Exception,
        });
    }

    /// Notes the result of the call that waits first, and goes on to the next.
    fn settle(&mut self, state: CallState) {
        if let Some(call) = self.calls.iter_mut().find(|call| is_waiting(call)) {
            call.state = state;
        }
        self.next_call();
    }

    fn next_call(&mut self) {
        if let Some(call) = self.calls.iter().find(|call| is_waiting(call)) {
            let selection = call.request.selection(self).map(Step::SelectFrames);
            match (selection, call.request) {
                (Some(select), _) => self.step = select,
                (None, Request::Tool(written)) => self.step = Step::CallTool(written),
                (None, _) => {} // does not wait
            }
            return;
        }
        let mut errors = CallErrors::new();
        let mut done = 0;
        for call in &self.calls {
            match call.state {
                // Fits: there are as many places as calls.
                CallState::Failed(error) => _ = errors.push(error),
                CallState::Done(_) => done += 1,
                CallState::Raised | CallState::Unknown | CallState::Waiting => {}
            }
        }
        let told = self.tells_failures() && !self.calls.is_empty();
        if done > 0 || told {
            self.next_turn();
        } else if errors.is_empty() {
            self.done(StopReason::NoValidToolCall);
        } else {
            self.done(StopReason::CallsFailed(errors));
        }
    }

    fn next_turn(&mut self) {
        if self.tally.num_rounds < self.rules.max_turns {
            self.step = Step::Generate;
        } else {
            self.done(StopReason::MaxTurnsExceeded);
        }
    }

    fn done(&mut self, stop_reason: StopReason) {
        self.step = Step::Done(Outcome {
            answer: None,
            stop_reason,
            tally: self.tally,
        });
    }
}

fn is_waiting(call: &Kept) -> bool {
    // One that asks for nothing and yet waits can only come from a store that was tampered with.
    call.state == CallState::Waiting && call.request != Request::Nothing
}
