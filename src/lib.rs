//! eva

pub use eva_burn as burn;
pub use eva_core as core;
#[cfg(feature = "gst")]
pub use eva_gst as gst;

pub mod benchmark;
pub mod evaluate;
pub mod world;
