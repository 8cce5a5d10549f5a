//! Tools ready to be given to a [`Session`](eva_core::Session), beside `frame_select`:
//!
//! - [`Crop`]: a part of one frame, sharp
//! - [`Memory`]: notes, kept from one run to the next
#![cfg_attr(
    feature = "subtitles",
    doc = "- [`ReadSubtitles`]: what is said, from a SubRip or WebVTT file"
)]
//!
//! Their arguments are read kindly where the meaning is clear: a number may be written as text
//! (`"12.5"`), a time as the clock that frames are labelled with (`"01:30"`), and members that a tool
//! doesn't know are passed over. What remains unclear is an error in words that the model can act on;
//! it reads them under [`FailedCalls::TellModel`](eva_core::FailedCalls::TellModel).
//!
//! ```
//! use std::sync::Arc;
//!
//! use eva::core::mock::ScriptedPolicy;
//! use eva::tools::{Crop, Memory, Shared};
//! use eva::world::{World, WorldSource};
//! use eva::{FailedCalls, Rules, Session};
//!
//! let video = Shared::new(WorldSource::new(Arc::new(World::new(1))));
//! let policy = ScriptedPolicy::new([
//!     r#"<tool_call>
//!     {"tool": "crop", "arguments": {"time": "00:40", "x": 0.5, "y": 0, "w": 0.5, "h": 1}}
//!     {"tool": "memory", "arguments": {"note": "00:40 is gray"}}
//!     </tool_call>"#,
//!     "<answer>gray</answer>",
//! ]);
//! let notes = Memory::new();
//! let mut session = Session::new(video.clone(), policy)
//!     .with_rules(Rules::published().with_failed_calls(FailedCalls::TellModel))
//!     .with_image_tool(Crop::new(video))
//!     .with_tool(notes.clone());
//! let report = session.ask("Which colour is the wall?")?;
//! assert_eq!(report.answer(), Some("gray"));
//! assert_eq!(report.trajectory.outcome.tally.frames, 1);
//! assert_eq!(notes.notes(), ["00:40 is gray"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arguments;
mod crop;
mod memory;
mod shared;
#[cfg(feature = "subtitles")]
mod subtitles;

pub use arguments::ArgumentsError;
pub use crop::{Crop, CropError};
pub use memory::{Memory, MemoryError};
pub use shared::Shared;
#[cfg(feature = "subtitles")]
pub use subtitles::{Cue, ReadSubtitles, ReadSubtitlesError, Subtitles, SubtitlesError};
