//! The EVA video agent: a multimodal model that plans before it looks.
//!
//! Asked about a video, the model first sees only the question and the video's length and size. It
//! then calls one tool, `frame_select`, that says when to look, at how many frames and how sharply;
//! it reads the frames, looks again if they are not enough, and answers. This crate is that
//! protocol, exactly as the published weights expect it: the state machine, the reading of replies,
//! the visual budget, the wording. It decodes nothing and runs no model: those are traits.
//!
//! `no_std`, and no allocator without the feature `alloc`.
//!
//! # The loop
//!
//! > **The agent waits for exactly one thing: the result of its current step.** [`Agent::step`] says
//! > which, and asking changes nothing. [`Agent::handle`] takes the result of that step and of no
//! > other, and moves the run on. [`Step::Done`] is the last step, and it comes after at most
//! > [`Rules::max_turns`] replies.
//!
//! ```
//! use eva_core::{Agent, Input, Rules, SelectFailed, Step, ToolFailure, Usage, VideoInfo};
//!
//! # let mut script = [
//! #     r#"<tool_call>{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 90,
//! #        "nframes": 8, "resize": 0.1}}</tool_call>"#,
//! #     "It is red. <answer> B </answer>",
//! # ].into_iter();
//! # let mut model = |reply: &mut String| {
//! #     reply.clear();
//! #     reply.push_str(script.next().unwrap_or_default());
//! #     Usage::default()
//! # };
//! # let decode = |time: f64, width: u32, height: u32| time < 90.0 && (width, height) == (140, 84);
//! let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
//! let mut agent = Agent::new(Rules::published(), video);
//! let mut reply = String::new(); // the host keeps the text, here and in a `heapless::String`
//!
//! let outcome = loop {
//!     let input = match agent.step() {
//!         Step::Generate => {
//!             let usage = model(&mut reply); // on the conversation so far
//!             Input::Generated { reply: &reply, usage }
//!         }
//!         Step::SelectFrames(selection) => {
//!             let all = selection.times().all(|t| decode(t, selection.width, selection.height));
//!             Input::Selected(if all { Ok(selection.nframes) } else { Err(SelectFailed) })
//!         }
//!         Step::CallTool(_) => Input::Returned(Err(ToolFailure::Unknown)),
//!         Step::Done(outcome) => break outcome.clone(),
//!     };
//!     agent.handle(input)?;
//! };
//!
//! assert_eq!(outcome.answer.and_then(|span| span.of(&reply)), Some("B"));
//! assert_eq!(outcome.stop_reason.to_string(), "answer_found");
//! assert_eq!((outcome.tally.num_rounds, outcome.tally.frames), (2, 8));
//! # Ok::<(), eva_core::Unexpected>(())
//! ```
//!
//! The messages around the replies are written by [`prompt`]. With an allocator, [`Session`] is this
//! loop, the conversation and the record of the run.
//!
//! # States
//!
//! ```text
//!                    +-----------------------------------------------+
//!                    v                                               |
//! new ---------> Generate --Generated--+--> SelectFrames --Selected--+  a call of the turn
//!                                      |      ^  |                   |  succeeded, turns left
//!                                      |      |  v (next call)       |
//!                                      +--> CallTool ----Returned----+   (or ReturnedImages)
//!                                      |                             |
//!            answer, no call at all,   v                             |  every call failed,
//!            no call read       -->  Done  <-------------------------+  or no turn left
//!
//! Abort leads from any state to Done. Under FailedCalls::TellModel, a turn whose calls all failed
//! leads to Generate as well.
//! ```
//!
//! # What can be swapped
//!
//! | Part | By | Here |
//! |---|---|---|
//! | the model | [`Policy`] | [`mock::ScriptedPolicy`] |
//! | the video | [`FrameSource`] | [`mock::SolidSource`] |
//! | the picture type | [`Pixels`], or any type that source and policy share | [`RgbImage`] |
//! | tools beside `frame_select` | [`Tool`], or [`ImageTool`] for pictures | |
//! | display, log, progress | [`Watch`] | `()` |
//! | limits; labels, windows outside the video, failed calls | [`Rules`] | [`Rules::published`], [`Rules::default`] |
//! | an early end, a deadline | [`Session::with_cancel`], [`Session::with_deadline`] | |
//! | pauses between steps | [`Session::begin`], [`Session::advance`], [`Run`] | [`Session::ask`] |
//! | system message, further messages | [`Session::ask_prompt`] | [`prompt::SYSTEM`] |
//! | the loop itself | your own around [`Agent`] | [`Session`] |
//!
//! # Panics
//!
//! None, whatever the model writes and whatever numbers come in: what does not fit is an error, counts
//! saturate, and nothing is indexed. `scripts/no_std.sh` looks for calls of panics in the firmware's
//! machine code; those that it lets pass are `core`'s own, in reading and writing numbers, which
//! check the bounds of `core`'s own tables.
//!
//! # Features
//!
//! - `alloc`: [`Session`], [`Conversation`], [`Trajectory`], [`RgbImage`], [`mock`]. Needs a global
//!   allocator.
//! - `serde`: the plain data types, a paused [`Agent`] and, with `alloc`, a paused [`Run`] and
//!   [`Trajectory`] can be stored. Needs no allocator itself. With serde_json, its feature
//!   `float_roundtrip` keeps times to the last bit.
// Without `alloc` the text above names types that are not there.
#![cfg_attr(not(feature = "alloc"), allow(rustdoc::broken_intra_doc_links))]
#![no_std]
#![forbid(unsafe_code)]
#[cfg(feature = "alloc")]
extern crate alloc;

pub mod agent;
#[cfg(feature = "alloc")]
pub mod conversation;
#[cfg(feature = "alloc")]
pub mod image;
pub mod json;
#[cfg(feature = "alloc")]
pub mod mock;
pub mod outcome;
pub mod policy;
pub mod prompt;
pub mod reply;
#[cfg(feature = "alloc")]
pub mod report;
pub mod rules;
#[cfg(feature = "alloc")]
mod run;
pub mod selection;
#[cfg(feature = "alloc")]
pub mod session;
pub mod source;
pub mod span;
pub mod tool;
#[cfg(feature = "alloc")]
pub mod trajectory;
#[cfg(feature = "alloc")]
pub mod watch;
mod word;

pub use agent::{Abort, Agent, Input, SelectFailed, Step, ToolFailure, Unexpected};
#[cfg(feature = "alloc")]
pub use conversation::{Conversation, NoQuestion, OwnedMessage, OwnedPart};
#[cfg(feature = "alloc")]
pub use image::{RgbImage, WrongLength};
pub use outcome::{CallError, Outcome, StopReason, Tally};
pub use policy::{Continuation, Message, Part, Policy, Role, Usage};
#[cfg(feature = "alloc")]
pub use report::{Report, SessionError, SessionResult};
pub use rules::{FailedCalls, FrameLabels, OutsideWindow, Rules, VideoInfo};
#[cfg(feature = "alloc")]
pub use run::Run;
pub use selection::{Selection, SelectionError};
#[cfg(feature = "alloc")]
pub use session::Session;
pub use source::{Frame, FrameSource, Picture, Pixels};
pub use span::Span;
pub use tool::{ImageTool, Tool, ToolSpec};
#[cfg(feature = "alloc")]
pub use trajectory::Trajectory;
#[cfg(feature = "alloc")]
pub use watch::Watch;
