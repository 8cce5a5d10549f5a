//! Seekable, frame-exact video sources over GStreamer for the EVA video agent.
//!
//! [`GstSource`] opens a video file and delivers, for each time asked, exactly the frame on display
//! at that time. It needs GStreamer 1.22 or later with its base, good and libav plugins at run time.
//!
//! Only what must be decoded is: a planner reads the packets' times before anything is decoded, and
//! pictures are kept for later calls. [`GstOptions`] chooses the rule for which frame a time means
//! ([`FrameRule`]), the decoder, hardware included ([`DecoderChoice`]), threads, memory and patience;
//! [`CancelHandle`] stops a call. docs/frames.md in the repository tells more, with measurements.
//!
//! ```no_run
//! use eva_core::{FrameSource, Pixels, Selection};
//! use eva_gst::GstSource;
//!
//! # fn main() -> Result<(), eva_gst::GstError> {
//! let mut video = GstSource::open("holiday.mp4")?;
//! let info = video.info();
//! let (width, height) = (info.width / 2, info.height / 2);
//! let selection = Selection::uniform(0.0, info.duration, 8, width, height);
//! video.frames(&selection, &mut |frame| {
//!     println!("{:.3} s: {} bytes", frame.time, frame.pixels.rgb().len());
//! })?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod ahead;
mod cache;
mod cancel;
mod choice;
mod colour;
mod container;
mod costs;
mod decoder;
mod deep;
mod delivery;
mod direct;
mod download;
mod engine;
mod error;
mod frame;
mod graph;
mod index;
mod location;
mod options;
mod output;
mod packet;
mod pipeline;
mod pipelined;
mod plan;
mod planner;
mod reader;
mod recovery;
mod reorder;
mod source;
mod stats;
mod survey;
mod units;
mod worker;

pub use cancel::CancelHandle;
pub use error::GstError;
pub use options::{DecoderChoice, FrameRule, GstOptions};
pub use source::GstSource;
pub use stats::Stats;
