//! A video that can be asked for frames: [`GstSource`].

use std::collections::BTreeMap;
use std::path::Path;

use eva_core::{Frame, FrameSource, RgbImage, Selection, VideoInfo};
use gstreamer as gst;

use crate::GstError;
use crate::cancel::{CancelHandle, Stop};
use crate::container::Container;
use crate::decoder::{Decoder, Picture};
use crate::frame::{Converter, Orientation};
use crate::location::{Location, check_file};
use crate::options::{FrameRule, GstOptions};
use crate::packet::Packet;
use crate::pipeline::Demux;
use crate::planner::{Packets, Planner};
use crate::survey::{Survey, survey};

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
/// RGB. See [`GstOptions`] for what can be chosen.
pub struct GstSource {
    file: String,
    reader: Reader,
    planner: Planner,
    decoder: Decoder,
    converter: Converter,
    orientation: Orientation,
    survey: Survey,
    info: VideoInfo,
    rule: FrameRule,
    stop: Stop,
}

/// The demuxer, and whether it may be sought in.
struct Reader {
    demux: Demux,
    seekable: bool,
}

impl Packets for Reader {
    fn next(&mut self) -> Result<Option<Packet>, GstError> {
        match self.demux.next() {
            // Damage ends the stream where it stands; what was read before it is good. The next
            // seek starts over with a new pipeline.
            Err(
                GstError::Damaged { reason, .. }
                | GstError::Bus {
                    message: reason, ..
                },
            ) => {
                tracing::warn!(%reason, "the file is damaged");
                Ok(None)
            }
            other => other,
        }
    }

    fn seek(&mut self, time: i64) -> Result<(), GstError> {
        self.demux.seek(time)
    }

    fn restart(&mut self) -> Result<(), GstError> {
        self.demux.restart()
    }

    fn seekable(&self) -> bool {
        self.seekable
    }
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
        let file = path.display().to_string();
        check_file(path, &file)?;
        let container = Container::of(path);
        Self::start(Location::Path(path.to_owned()), file, container, options)
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
        Self::start(
            Location::Uri(uri.to_owned()),
            uri.to_owned(),
            Container::Other,
            options,
        )
    }

    fn start(
        location: Location,
        file: String,
        container: Container,
        options: &GstOptions,
    ) -> Result<Self, GstError> {
        gst::init().map_err(|error| GstError::Start {
            reason: error.to_string(),
        })?;
        let stop = Stop::new(options.cancel.clone().unwrap_or_default());
        let _running = stop.begin();
        let mut demux = Demux::open(location, file.clone(), options.timeout, stop.clone())?;
        let Some(head) = demux.next()? else {
            return Err(demux.bus_error().unwrap_or_else(|| GstError::NotVideo {
                file,
                reason: "its video stream is empty".to_owned(),
            }));
        };
        let caps = head.caps.clone();
        let orientation = demux
            .orientation()
            .map_or_else(Orientation::default, |tag| Orientation::from_tag(&tag));
        let decoder = Decoder::new(&file, &caps)?;
        let in_order = container == Container::FragmentedMp4;
        let whole = in_order || options.rule == FrameRule::Published;
        let survey = survey(&mut demux, head, &file, container, whole)?;
        let seekable = !in_order && demux.seekable();
        let (width, height) = display_size(&caps, orientation).unwrap_or((0, 0));
        let mut source = Self {
            info: VideoInfo {
                duration: (survey.end - survey.first) as f64 / 1e9,
                width,
                height,
                fps: survey.fps,
            },
            file,
            reader: Reader { demux, seekable },
            planner: Planner::default(),
            decoder,
            converter: Converter::default(),
            orientation,
            survey,
            rule: options.rule,
            stop: stop.clone(),
        };
        if width == 0 || height == 0 {
            source.measure()?;
        }
        Ok(source)
    }

    /// Stops a call of this source from another thread.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.stop.handle().clone()
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
        let _running = self.stop.begin();
        let asked: Vec<i64> = times.iter().map(|time| self.target(*time)).collect();
        let mut order: Vec<usize> = (0..asked.len()).collect();
        order.sort_by_key(|index| asked.get(*index).copied());
        let targets: Vec<i64> = order
            .iter()
            .filter_map(|index| asked.get(*index).copied())
            .collect();

        let first = self.survey.first;
        let mut waiting: BTreeMap<usize, Frame<RgbImage>> = BTreeMap::new();
        let mut next = 0;
        let mut order = order.into_iter();
        self.decode(&targets, width, height, &mut |time, pixels| {
            let Some(index) = order.next() else {
                return;
            };
            let time = (time - first) as f64 / 1e9;
            waiting.insert(index, Frame { time, pixels });
            while let Some(frame) = waiting.remove(&next) {
                sink(frame);
                next += 1;
            }
        })
    }

    /// Answers ascending targets in order.
    fn decode(
        &mut self,
        targets: &[i64],
        width: u32,
        height: u32,
        sink: &mut dyn FnMut(i64, RgbImage),
    ) -> Result<(), GstError> {
        let mut converted: Option<(i64, RgbImage)> = None;
        self.pictures(targets, &mut |picture, converter, orientation| {
            // Neighbouring times often show the same frame.
            let pixels = match &converted {
                Some((time, pixels)) if *time == picture.time => pixels.clone(),
                _ => converter.convert(picture, orientation, width, height)?,
            };
            converted = Some((picture.time, pixels.clone()));
            sink(picture.time, pixels);
            Ok(())
        })
    }

    /// Decodes the pictures on display at ascending targets, one for each, in order.
    fn pictures(
        &mut self,
        targets: &[i64],
        sink: &mut dyn FnMut(&Picture, &mut Converter, Orientation) -> Result<(), String>,
    ) -> Result<(), GstError> {
        let outcome = self.run(targets, sink);
        if outcome.is_err() {
            self.planner.reset();
            self.decoder.drain(i64::MIN);
        }
        outcome
    }

    fn run(
        &mut self,
        targets: &[i64],
        sink: &mut dyn FnMut(&Picture, &mut Converter, Orientation) -> Result<(), String>,
    ) -> Result<(), GstError> {
        self.decoder.arm(targets.iter().copied());
        let mut answered = 0;
        let mut retried = None;
        let mut undrained = false;
        let mut rest = targets;
        while let Some(&target) = rest.first() {
            let run = self.planner.gather(&mut self.reader, rest)?;
            if !run.resumed {
                if undrained {
                    self.decoder.drain(i64::MIN);
                }
                self.decoder.jump();
            }
            undrained = run.unfinished;
            for packet in run.needed() {
                self.stop.check(&self.file)?;
                self.decoder.feed(packet)?;
                answered += self.deliver(sink)?;
            }
            let (covered, left) = rest.split_at(run.covered.min(rest.len()));
            if let Some(until) = covered.last().filter(|_| !run.unfinished) {
                self.decoder.drain(*until);
                answered += self.deliver(sink)?;
            }
            rest = left;
            if let Some((time, reason)) = self.decoder.lost() {
                // Where a keyframe is damaged, the picture before it stays on display.
                let begin = run.packets.first().map(|packet| packet.time);
                match begin.filter(|begin| *begin > self.survey.first) {
                    Some(begin) if retried != Some(time) => {
                        retried = Some(time);
                        rest = targets.get(answered..).unwrap_or_default();
                        self.decoder.drain(i64::MIN);
                        self.decoder.arm(rest.iter().copied());
                        self.planner.retry_before(begin);
                    }
                    _ => return Err(self.damaged(time, reason)),
                }
            } else if run.covered == 0 && run.packets.is_empty() {
                return Err(self.damaged(target, "nothing can be read there".to_owned()));
            }
        }
        Ok(())
    }

    /// Hands on what came out of the decoder; returns how many targets that answers.
    fn deliver(
        &mut self,
        sink: &mut dyn FnMut(&Picture, &mut Converter, Orientation) -> Result<(), String>,
    ) -> Result<usize, GstError> {
        let mut delivered = 0;
        while let Some(picture) = self.decoder.take() {
            sink(&picture, &mut self.converter, self.orientation)
                .map_err(|reason| self.damaged(picture.time, reason))?;
            delivered += 1;
        }
        Ok(delivered)
    }

    /// The size of frames from the first decoded one, where the container does not tell.
    fn measure(&mut self) -> Result<(), GstError> {
        let mut size = None;
        let first = self.survey.first;
        self.pictures(&[first], &mut |picture, _, orientation| {
            size = picture
                .info
                .to_caps()
                .ok()
                .and_then(|caps| display_size(&caps, orientation));
            Ok(())
        })?;
        let (width, height) =
            size.ok_or_else(|| self.damaged(first, "its pictures have no size".to_owned()))?;
        self.info.width = width;
        self.info.height = height;
        Ok(())
    }

    fn damaged(&self, time: i64, reason: String) -> GstError {
        GstError::Damaged {
            file: self.file.clone(),
            at: (time - self.survey.first) as f64 / 1e9,
            reason,
        }
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
            file: self.file.clone(),
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
            .field("file", &self.file)
            .field("info", &self.info)
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
