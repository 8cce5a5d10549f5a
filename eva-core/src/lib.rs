//! The EVA video agent: plan before you look.
#![no_std]
#![forbid(unsafe_code)]
#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
pub mod image;
pub mod policy;
pub mod rules;
pub mod selection;
pub mod source;
pub mod tool;

#[cfg(feature = "alloc")]
pub use image::{RgbImage, WrongLength};
pub use policy::{Message, Part, Policy, Role, Usage};
pub use rules::VideoInfo;
pub use selection::Selection;
pub use source::{Frame, FrameSource, Pixels};
pub use tool::Tool;
