//! The EVA video agent: plan before you look.
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
pub use conversation::{Conversation, NoQuestion, OwnedMessage, OwnedPart, Picture};
#[cfg(feature = "alloc")]
pub use image::{RgbImage, WrongLength};
pub use outcome::{CallError, Outcome, StopReason, Tally};
pub use policy::{Message, Part, Policy, Role, Usage};
#[cfg(feature = "alloc")]
pub use report::{Report, SessionError, SessionResult};
pub use rules::{Rules, VideoInfo};
pub use selection::{Selection, SelectionError};
#[cfg(feature = "alloc")]
pub use session::Session;
pub use source::{Frame, FrameSource, Pixels};
pub use span::Span;
pub use tool::Tool;
#[cfg(feature = "alloc")]
pub use trajectory::Trajectory;
#[cfg(feature = "alloc")]
pub use watch::Watch;
