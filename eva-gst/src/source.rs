//! A video that can be asked for frames: [`GstSource`].

use std::path::Path;

use eva_core::{Frame, FrameSource, RgbImage, Selection, VideoInfo};
use gstreamer as gst;
use tempfile::TempPath;

use crate::GstError;
use crate::cache::Cache;
use crate::cancel::{CancelHandle, Stop};
use crate::container::Container;
use crate::decoder::{Decoder, Setup};
use crate::delivery::Delivery;
use crate::download::download;
use crate::engine::Engine;
use crate::frame::{Converter, Orientation};
use crate::index::IndexFile;
use crate::location::{Location, check_file};
use crate::options::{FrameRule, GstOptions};
use crate::pipeline::Demux;
use crate::planner::Packets;
use crate::reader::Reader;
use crate::stats::Stats;
use crate::survey::{Survey, survey};
use crate::worker::{Context, Shape};

/// Frames of one selection at most: more than any model reads, few enough to keep in order.
const MAX_FRAMES: usize = 65_536;

/// Longest side of a delivered frame in pixels.
const MAX_SIDE: u32 = 16_384;

/// Added to asked times (ns): a time that was computed in floating point may fall just short of the
/// frame it means.
const SLACK: i64 = 1_000;

/// A video file, open for as long as it is asked.
///
/// For each time asked it delivers exactly the frame on display: upright, with square pixels, as
/// RGB. What was decoded is kept for later calls as far as memory is given for it. See
/// [`GstOptions`] for what can be chosen.
pub struct GstSource {
    context: Context,
    engine: Engine,
    cache: Cache,
    converter: Converter,
    orientation: Orientation,
    survey: Survey,
    info: VideoInfo,
    rule: FrameRule,
    /// The file's copy, where it had to be fetched as a whole.
    download: Option<TempPath>,
    /// Frames delivered, and those of them that came from the cache.
    frames: u64,
    hits: u64,
}

impl GstSource {
    /// Opens a video file with the default options.
    ///
    /// # Errors
    /// See [`GstError`]: each kind of file that is not a readable video has its variant.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GstError> {
        Self::open_with(path, &GstOptions::default())
    }

    /// Opens a video file.
    ///
    /// # Errors
    /// See [`GstError`]: each kind of file that is not a readable video has its variant.
    pub fn open_with(path: impl AsRef<Path>, options: &GstOptions) -> Result<Self, GstError> {
        let path = path.as_ref();
        Self::open_file(path, path.display().to_string(), options)
    }

    /// `file` names the video in errors.
    fn open_file(path: &Path, file: String, options: &GstOptions) -> Result<Self, GstError> {
        check_file(path, &file)?;
        let container = Container::of(path);
        let location = match container {
            Container::FragmentedMp4 => Location::InOrder(path.to_owned()),
            Container::Mp4 | Container::Other => Location::Path(path.to_owned()),
        };
        Self::start(location, file, Some(container), options)
    }

    /// Opens a video by its address, such as `file:///tmp/a.mp4`, with the default options.
    ///
    /// # Errors
    /// See [`GstError`]; [`GstError::MissingPlugin`] for an unknown kind of address.
    pub fn open_uri(uri: &str) -> Result<Self, GstError> {
        Self::open_uri_with(uri, &GstOptions::default())
    }

    /// Opens a video by its address.
    ///
    /// # Errors
    /// See [`GstError`]; [`GstError::MissingPlugin`] for an unknown kind of address.
    pub fn open_uri_with(uri: &str, options: &GstOptions) -> Result<Self, GstError> {
        if uri
            .get(..5)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
        {
            let (path, _) = gst::glib::filename_from_uri(uri).map_err(|_| GstError::NotFound {
                file: uri.to_owned(),
            })?;
            return Self::open_with(path, options);
        }
        let opened = Self::start(Location::Uri(uri.to_owned()), uri.to_owned(), None, options);
        let in_parts = match &opened {
            Ok(source) => source.engine.reader.seekable(),
            Err(error) => !matches!(error, GstError::NoRanges { .. }),
        };
        if in_parts || !options.download {
            return opened;
        }
        drop(opened);
        let stop = Stop::new(options.cancel.clone().unwrap_or_default());
        let running = stop.begin();
        let file = download(uri, options.timeout, &stop)?;
        drop(running);
        // The copy is gone with the source.
        let mut options = options.clone();
        options.index_dir = None;
        let mut source = Self::open_file(&file, uri.to_owned(), &options)?;
        source.download = Some(file);
        Ok(source)
    }

    fn start(
        location: Location,
        file: String,
        container: Option<Container>,
        options: &GstOptions,
    ) -> Result<Self, GstError> {
        gst::init().map_err(|error| GstError::Start {
            reason: error.to_string(),
        })?;
        let stop = Stop::new(options.cancel.clone().unwrap_or_default());
        let _running = stop.begin();
        let whole =
            container == Some(Container::FragmentedMp4) || options.rule == FrameRule::Published;
        // Looked at before the file is: should it change meanwhile, nothing is kept.
        let index = match (&options.index_dir, &location) {
            (Some(directory), Location::Path(path) | Location::InOrder(path)) => {
                IndexFile::new(directory, path, whole)
            }
            _ => None,
        };
        let mut demux = Demux::open(location, file.clone(), options.timeout, stop.clone())?;
        let first = demux.next()?;
        let container = container.unwrap_or_else(|| demux.container());
        let Some(head) = first else {
            return Err(demux.bus_error().unwrap_or_else(|| GstError::NotVideo {
                file,
                reason: "its video stream is empty".to_owned(),
            }));
        };
        let caps = head.caps.clone();
        let orientation = demux
            .orientation()
            .map_or_else(Orientation::default, |tag| Orientation::from_tag(&tag));
        let setup = Setup {
            choice: options.decoder.clone(),
            threads: options.decoder_threads(),
            timeout: options.timeout,
            stop: stop.clone(),
        };
        // Before the whole file may be read: a format without a decoder is refused at once.
        let decoder = Decoder::new(&file, &caps, &setup)?;
        let in_order = container == Container::FragmentedMp4;
        let survey = match index.as_ref().and_then(IndexFile::load) {
            Some(known) => known,
            None => {
                let survey = survey(&mut demux, head, &file, container, whole || in_order)?;
                if let Some(index) = index {
                    index.store(&survey);
                }
                survey
            }
        };
        let seekable = !in_order && demux.seekable();
        let context = Context {
            file: file.into(),
            stop,
            first: survey.first,
        };
        let (width, height) = display_size(&caps, orientation).unwrap_or((0, 0));
        let mut source = Self {
            info: VideoInfo {
                duration: (survey.end - survey.first) as f64 / 1e9,
                width,
                height,
                fps: survey.fps,
            },
            engine: Engine::new(
                context.clone(),
                caps,
                setup,
                decoder,
                Reader::new(demux, seekable),
            ),
            context,
            cache: Cache::new(options.cache_bytes),
            converter: Converter::default(),
            orientation,
            survey,
            rule: options.rule,
            download: None,
            frames: 0,
            hits: 0,
        };
        if width == 0 || height == 0 {
            source.measure()?;
        }
        Ok(source)
    }

    /// What this source has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let reader = &self.engine.reader;
        Stats {
            packets_read: reader.packets(),
            packets_decoded: self.engine.decoded(),
            seeks: reader.seeks(),
            frames: self.frames,
            cache_hits: self.hits,
            cached_bytes: self.cache.bytes() as u64,
        }
    }

    /// The kind of element that decodes, such as `avdec_h264`.
    #[must_use]
    pub fn decoder(&self) -> &str {
        self.engine.decoder()
    }

    /// Stops a call of this source from another thread.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.context.stop.handle().clone()
    }

    /// Pushes the frames on display at `times` (seconds from the first displayed frame) into
    /// `sink`, in the order of `times`, which may repeat and go back.
    ///
    /// Times before the first frame give the first, times after the last the last.
    ///
    /// # Errors
    /// [`GstError::Selection`] for a time that is not a number or a size of zero,
    /// [`GstError::Damaged`] when no frame can be decoded at one of the times,
    /// [`GstError::Cancelled`] when another thread asked for it; frames pushed before remain valid.
    pub fn frames_at(
        &mut self,
        times: &[f64],
        width: u32,
        height: u32,
        sink: &mut dyn FnMut(Frame<RgbImage>),
    ) -> Result<(), GstError> {
        self.check(times, width, height)?;
        let _running = self.context.stop.begin();
        let targets: Vec<i64> = times.iter().map(|time| self.target(*time)).collect();
        let shape = Shape {
            orientation: self.orientation,
            width,
            height,
        };
        let mut delivery = Delivery::new(
            &self.context,
            &mut self.cache,
            &mut self.converter,
            &targets,
            shape,
            sink,
        );
        delivery.hand_on();
        let missing = delivery.missing();
        let outcome = match delivery.outcome() {
            Ok(()) => self
                .engine
                .fetch(&missing, Some(shape), &mut |answer, shown| {
                    delivery.take(answer, shown);
                })
                .and_then(|()| delivery.outcome()),
            failed => failed,
        };
        self.frames += delivery.frames;
        self.hits += delivery.hits;
        outcome
    }

    /// The size of frames from the first decoded one, where the container does not tell.
    fn measure(&mut self) -> Result<(), GstError> {
        let (mut size, orientation, first) = (None, self.orientation, self.survey.first);
        self.engine.fetch(&[first], None, &mut |answer, _| {
            let caps = answer.picture.info.to_caps().ok();
            size = caps.and_then(|caps| display_size(&caps, orientation));
        })?;
        let (width, height) = size.ok_or_else(|| {
            self.context
                .damaged(first, "its pictures have no size".to_owned())
        })?;
        self.info.width = width;
        self.info.height = height;
        Ok(())
    }

    fn check(&self, times: &[f64], width: u32, height: u32) -> Result<(), GstError> {
        let reason = if times.len() > MAX_FRAMES {
            format!("{} frames; at most {MAX_FRAMES} at once", times.len())
        } else if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
            format!("a size of {width} x {height}; each side must be 1 to {MAX_SIDE} pixels")
        } else if let Some(time) = times.iter().find(|time| time.is_nan()) {
            format!("a time of {time}; times are seconds from the first frame")
        } else {
            return Ok(());
        };
        Err(GstError::Selection {
            file: self.context.file.to_string(),
            reason,
        })
    }

    /// The stream time (ns) whose displayed frame answers `time`.
    fn target(&self, time: f64) -> i64 {
        let survey = &self.survey;
        if self.rule == FrameRule::Published {
            let index = (time * survey.fps).round_ties_even().max(0.0) as usize;
            let index = index.min(survey.times.len().saturating_sub(1));
            if let Some(time) = survey.times.get(index) {
                return *time;
            }
        }
        // The conversion saturates: any finite or infinite time is fine.
        survey
            .first
            .saturating_add((time * 1e9).round() as i64)
            .saturating_add(SLACK)
            .clamp(survey.first, survey.last.max(survey.first))
    }
}

impl FrameSource for GstSource {
    type Pixels = RgbImage;
    type Error = GstError;

    fn info(&self) -> VideoInfo {
        self.info
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<RgbImage>),
    ) -> Result<(), GstError> {
        // One more than allowed is enough to be refused.
        let times: Vec<f64> = selection.times().take(MAX_FRAMES + 1).collect();
        self.frames_at(&times, selection.width, selection.height, sink)
    }
}

impl core::fmt::Debug for GstSource {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("GstSource")
            .field("file", &self.context.file)
            .field("info", &self.info)
            .field("download", &self.download)
            .finish_non_exhaustive()
    }
}

/// Width and height on display: square pixels (the height stays), upright.
fn display_size(caps: &gst::CapsRef, orientation: Orientation) -> Option<(u32, u32)> {
    let structure = caps.structure(0)?;
    let side = |name| {
        let side = structure.get::<i32>(name).ok()?;
        u32::try_from(side).ok().filter(|side| *side > 0)
    };
    let (width, height) = (side("width")?, side("height")?);
    let aspect = structure
        .get::<gst::Fraction>("pixel-aspect-ratio")
        .ok()
        .filter(|ratio| ratio.numer() > 0 && ratio.denom() > 0)
        .map_or(1.0, |ratio| {
            f64::from(ratio.numer()) / f64::from(ratio.denom())
        });
    // Saturates; a nonsensical aspect must not make a nonsensical size.
    let width = ((f64::from(width) * aspect).round() as u32).clamp(1, 1 << 20);
    Some(if orientation.is_sideways() {
        (height, width)
    } else {
        (width, height)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_display_size_has_square_pixels_and_is_upright() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-h264")
            .field("width", 720)
            .field("height", 576)
            .field("pixel-aspect-ratio", gst::Fraction::new(16, 15))
            .build();
        let upright = Orientation::default();
        assert_eq!(display_size(&caps, upright), Some((768, 576)));
        let turned = Orientation::from_tag("rotate-270");
        assert_eq!(display_size(&caps, turned), Some((576, 768)));
        let nothing = gst::Caps::builder("video/x-h264").build();
        assert_eq!(display_size(&nothing, upright), None);
    }
}
