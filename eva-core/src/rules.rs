//! What the agent may spend, and what it knows of the video before it looks.

/// What is known of a video before any frame is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VideoInfo {
    /// Length in seconds, from the first displayed frame to the end of the last.
    pub duration: f64,
    /// Width in pixels as displayed (after rotation and pixel aspect).
    pub width: u32,
    /// Height in pixels as displayed.
    pub height: u32,
    /// Average frames per second; 0 when unknown.
    pub fps: f64,
}
