//! A world's frames, drawn or from a real file: [`Video`].

use std::sync::Arc;

use eva::core::{Frame, FrameSource, RgbImage, Selection, VideoInfo};
use eva::world::{World, WorldSource, WorldSourceError};

use crate::Failure;

/// Frames of a world.
pub(crate) enum Video {
    Drawn(WorldSource),
    #[cfg(feature = "gst")]
    File {
        source: Box<eva::gst::GstSource>,
        /// Keeps a file that was made for this while it is read.
        _folder: Option<tempfile::TempDir>,
    },
}

/// A frame could not be delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VideoError {
    #[error(transparent)]
    Drawn(#[from] WorldSourceError),
    #[cfg(feature = "gst")]
    #[error(transparent)]
    File(#[from] eva::gst::GstError),
}

impl Video {
    pub(crate) fn drawn(world: Arc<World>) -> Self {
        Self::Drawn(WorldSource::new(world))
    }

    /// The world as an MP4 file (H.264), read back through GStreamer.
    #[cfg(feature = "gst")]
    pub(crate) fn file(world: &World) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("world.mp4");
        world.encode(&path)?;
        Ok(Self::File {
            source: Box::new(eva::gst::GstSource::open(&path)?),
            _folder: Some(folder),
        })
    }

    /// A video file.
    #[cfg(all(feature = "data", feature = "gst"))]
    pub(crate) fn open(path: &std::path::Path) -> Result<Self, Failure> {
        Ok(Self::File {
            source: Box::new(eva::gst::GstSource::open(path)?),
            _folder: None,
        })
    }

    #[cfg(not(feature = "gst"))]
    pub(crate) fn file(_: &World) -> Result<Self, Failure> {
        Err("reading MP4 files is not compiled in; build with `--features gst`".into())
    }
}

impl FrameSource for Video {
    type Pixels = RgbImage;
    type Error = VideoError;

    fn info(&self) -> VideoInfo {
        match self {
            Self::Drawn(source) => source.info(),
            #[cfg(feature = "gst")]
            Self::File { source, .. } => source.info(),
        }
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<RgbImage>),
    ) -> Result<(), VideoError> {
        match self {
            Self::Drawn(source) => Ok(source.frames(selection, sink)?),
            #[cfg(feature = "gst")]
            Self::File { source, .. } => Ok(source.frames(selection, sink)?),
        }
    }
}
