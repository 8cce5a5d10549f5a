//! Where an item's frames come from: [`Footage`].

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use eva::benchmark::{Item, Videos, WorldTask};
use eva::core::{Frame, FrameSource, RgbImage, Selection, VideoInfo};
use eva::gst::{FrameRule, GstError, GstOptions, GstSource};
use eva::world::{World, WorldSource, WorldSourceError};

use crate::Failure;
use crate::policy::EquipmentError;

/// The videos of all items, and which of their frames answers a time.
pub(crate) struct Footage {
    videos: Kind,
    options: GstOptions,
}

enum Kind {
    /// Files in a folder.
    Files(Videos),
    /// Synthetic worlds, drawn frame by frame.
    Drawn,
    /// Synthetic worlds as files in a folder, made when they are first needed.
    Encoded {
        folder: PathBuf,
        /// Held while a file is made: two workers may need the same one.
        busy: Mutex<()>,
    },
}

impl Footage {
    /// The files in `folder`.
    pub(crate) fn files(folder: Option<&Path>, rule: FrameRule) -> Result<Self, Failure> {
        let folder = folder.ok_or("name the folder of the videos with --videos")?;
        Ok(Self::new(Kind::Files(Videos::new(folder)?), rule))
    }

    /// Synthetic worlds, drawn or, with a folder, encoded there.
    pub(crate) fn worlds(encode: Option<PathBuf>, rule: FrameRule) -> Self {
        let videos = match encode {
            None => Kind::Drawn,
            Some(folder) => Kind::Encoded {
                folder,
                busy: Mutex::new(()),
            },
        };
        Self::new(videos, rule)
    }

    fn new(videos: Kind, rule: FrameRule) -> Self {
        let options = GstOptions::new().with_rule(rule);
        Self { videos, options }
    }

    pub(crate) fn open(&self, item: &Item) -> Result<Source, EquipmentError> {
        let path = match &self.videos {
            Kind::Files(videos) => videos.resolve(item.video())?,
            Kind::Drawn => {
                let world = Arc::new(world(item)?);
                return Ok(Source::Drawn(Box::new(WorldSource::new(world))));
            }
            Kind::Encoded { folder, busy } => {
                let _busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
                let path = folder.join(item.video());
                if !path.exists() {
                    fs::create_dir_all(folder)?;
                    // Under its own name only when it is whole.
                    let new = path.with_extension("new");
                    world(item)?.encode(&new)?;
                    fs::rename(&new, &path)?;
                }
                path
            }
        };
        let source = GstSource::open_with(path, &self.options)?;
        Ok(Source::Decoded(Box::new(source)))
    }
}

fn world(item: &Item) -> Result<World, EquipmentError> {
    let seed = WorldTask::seed(item.video());
    seed.map(World::new)
        .ok_or(EquipmentError::NotAWorld(item.index))
}

/// Frames of one video.
pub(crate) enum Source {
    Drawn(Box<WorldSource>),
    Decoded(Box<GstSource>),
}

/// A frame could not be delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Drawn(#[from] WorldSourceError),
    #[error(transparent)]
    Decoded(#[from] GstError),
}

impl FrameSource for Source {
    type Pixels = RgbImage;
    type Error = SourceError;

    fn info(&self) -> VideoInfo {
        match self {
            Self::Drawn(source) => source.info(),
            Self::Decoded(source) => source.info(),
        }
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<RgbImage>),
    ) -> Result<(), SourceError> {
        match self {
            Self::Drawn(source) => Ok(source.frames(selection, sink)?),
            Self::Decoded(source) => Ok(source.frames(selection, sink)?),
        }
    }
}
