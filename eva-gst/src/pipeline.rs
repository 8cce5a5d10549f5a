//! The demuxer: a file in, compressed pictures out.
//!
//! ```text
//!  Location                    pipeline                                   decoder.rs
//! ┌────────┐   ┌─────────┐   ┌──────────┐ video ┌─────────┐  Packet   ┌─────────────────┐
//! │  file  │──▶│ filesrc │──▶│ parsebin │──────▶│ appsink │──────────▶│ pad ▶ avdec ▶ pad│──▶ picture
//! └────────┘   └─────────┘   └──────────┘ first └─────────┘  by hand  └─────────────────┘
//!                                  └─ audio, text: not linked, so never decoded
//! ```
//!
//! Only the demuxer is ever seeked, which costs a fraction of a millisecond; the decoder stands
//! outside the pipeline and is fed what the planner chooses. Seeking a whole pipeline instead would
//! decode every picture from the keyframe on, for every frame asked.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_app::prelude::*;

use crate::GstError;
use crate::cancel::Stop;
use crate::container::Container;
use crate::graph::{Found, Graph, Guard, build};
use crate::location::Location;
use crate::packet::{Codec, Packet};
use crate::reorder::Reorder;

/// How long no thread of the pipeline may be at work before it is taken for dead.
const DEAD: Duration = Duration::from_millis(300);

/// An open file that yields its video's packets in decode order from any keyframe.
pub(crate) struct Demux {
    location: Location,
    file: String,
    timeout: Duration,
    stop: Stop,
    pipeline: Guard,
    source: gst::Element,
    sink: gst_app::AppSink,
    found: Arc<Found>,
    /// The source is known to be one that can be read from any place.
    anywhere: bool,
    codec: Option<(gst::Caps, Codec)>,
    reorder: Reorder,
}

impl Demux {
    /// Starts reading at the beginning. `file` names the video in errors.
    pub(crate) fn open(
        location: Location,
        file: String,
        timeout: Duration,
        stop: Stop,
    ) -> Result<Self, GstError> {
        let Graph {
            pipeline,
            source,
            sink,
            found,
        } = build(&location, &file, timeout)?;
        let demux = Self {
            anywhere: !matches!(location, Location::Uri(_)),
            location,
            file,
            timeout,
            stop,
            pipeline,
            source,
            sink,
            found,
            codec: None,
            reorder: Reorder::default(),
        };
        demux.start()?;
        Ok(demux)
    }

    /// The next packet in decode order; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Result<Option<Packet>, GstError> {
        loop {
            self.stop.check(&self.file)?;
            if let Some(packet) = self.reorder.pop(false) {
                return Ok(Some(packet));
            }
            let Some(sample) = self.pull()? else {
                return Ok(self.reorder.pop(true));
            };
            let Some((packet, timed)) = self.packet(&sample)? else {
                continue;
            };
            let waits = self
                .codec
                .as_ref()
                .is_some_and(|(_, codec)| codec.may_lack_times());
            if !waits {
                return Ok(Some(packet));
            }
            self.reorder.push(packet, timed);
        }
    }

    /// Goes to the keyframe at or before `time` (ns of stream time), as far as the container knows:
    /// the first packet may be another one.
    pub(crate) fn seek(&mut self, time: i64) -> Result<(), GstError> {
        self.reorder.clear();
        if self.bus_error().is_some() {
            // A pipeline that failed stays failed.
            self.restart()?;
            // It must have found its streams before it can be asked to seek.
            if self.pull()?.is_none() {
                return Ok(());
            }
        }
        self.found.leave_hole();
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_BEFORE;
        let time = gst::ClockTime::from_nseconds(u64::try_from(time).unwrap_or(0));
        self.pipeline
            .0
            .seek_simple(flags, time)
            .map_err(|_| match self.bus_error() {
                Some(error) => error,
                None => GstError::Bus {
                    file: self.file.clone(),
                    message: format!("cannot seek to {:.3} s", time.nseconds() as f64 / 1e9),
                },
            })
    }

    /// Starts again at the beginning with a new pipeline.
    pub(crate) fn restart(&mut self) -> Result<(), GstError> {
        let fresh = build(&self.location, &self.file, self.timeout)?;
        self.pipeline = fresh.pipeline;
        self.source = fresh.source;
        self.sink = fresh.sink;
        self.found = fresh.found;
        self.reorder.clear();
        self.start()
    }

    /// Whether [`seek`](Self::seek) works. Known once a packet was read.
    pub(crate) fn seekable(&self) -> bool {
        let mut query = gst::query::Seeking::new(gst::Format::Time);
        self.pipeline.0.query(&mut query) && query.result().0
    }

    /// What the beginning of the file says of its container, for a file that was not looked into
    /// before. Known once a packet was read.
    pub(crate) fn container(&self) -> Container {
        self.found.container()
    }

    /// The container's word on its length, in ns of stream time.
    pub(crate) fn claimed_duration(&self) -> Option<i64> {
        let duration = self.pipeline.0.query_duration::<gst::ClockTime>()?;
        i64::try_from(duration.nseconds()).ok()
    }

    /// How the picture must be turned: the `image-orientation` tag. Known once a packet was read.
    pub(crate) fn orientation(&self) -> Option<String> {
        let pad = self.sink.static_pad("sink")?;
        (0..)
            .map_while(|index| pad.sticky_event::<gst::event::Tag>(index))
            .find_map(|event| {
                let tag = event.tag().get::<gst::tags::ImageOrientation>()?;
                Some(tag.get().to_owned())
            })
    }

    /// The error that the pipeline has reported, if any.
    pub(crate) fn bus_error(&self) -> Option<GstError> {
        let bus = self.pipeline.0.bus()?;
        let kinds = [gst::MessageType::Error, gst::MessageType::Element];
        let mut missing = None;
        while let Some(message) = bus.pop_filtered(&kinds) {
            match message.view() {
                gst::MessageView::Error(error) => {
                    // The message on a missing plugin comes before and says more.
                    if missing.is_some() {
                        return missing;
                    }
                    if self.nobody_listens() {
                        return Some(self.no_video());
                    }
                    let debug = error.debug();
                    // What it says of a connection that cannot be made, or breaks.
                    let failed = error.error().matches(gst::StreamError::Failed);
                    if failed && self.is_remote() && error.src() == Some(self.source.upcast_ref()) {
                        return Some(GstError::Network {
                            file: self.file.clone(),
                            reason: "no connection, or it broke".to_owned(),
                        });
                    }
                    return Some(GstError::from_message(
                        &self.file,
                        &error.error(),
                        debug.as_deref(),
                    ));
                }
                _ => missing = missing.or(GstError::from_missing_plugin(&self.file, &message)),
            }
        }
        // Audio that cannot be parsed does not matter as long as there is video.
        missing.filter(|_| self.only_other_streams())
    }

    /// Whether the video comes from a server.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.location, Location::Uri(_))
    }

    /// The server stopped sending, and nothing else was reported.
    pub(crate) fn broken_off(&self) -> GstError {
        GstError::Network {
            file: self.file.clone(),
            reason: "the connection broke".to_owned(),
        }
    }

    /// Whether all streams are known and none is a video.
    fn only_other_streams(&self) -> bool {
        self.found.all.load(Ordering::SeqCst) && !self.found.video.load(Ordering::SeqCst)
    }

    /// Whether there are streams and none is a video so far. A demuxer fails when nobody takes any
    /// of its streams, and may do so before it says that there are no more.
    fn nobody_listens(&self) -> bool {
        self.found.other.load(Ordering::SeqCst) && !self.found.video.load(Ordering::SeqCst)
    }

    /// Whether any thread of the pipeline is running: one for each pad with a started task.
    fn is_at_work(&self) -> bool {
        let mut elements = self.pipeline.0.iterate_recurse();
        loop {
            match elements.next() {
                Ok(Some(element)) => {
                    let started = |pad: &gst::Pad| pad.task_state() == gst::TaskState::Started;
                    if element.pads().iter().any(started) {
                        return true;
                    }
                }
                Ok(None) => return false,
                // Elements come and go: that is work.
                Err(_) => return true,
            }
        }
    }

    fn no_video(&self) -> GstError {
        GstError::NotVideo {
            file: self.file.clone(),
            reason: "it has no video stream".to_owned(),
        }
    }

    fn start(&self) -> Result<(), GstError> {
        match self.pipeline.0.set_state(gst::State::Playing) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.bus_error().unwrap_or_else(|| GstError::Bus {
                file: self.file.clone(),
                message: "the pipeline does not start".to_owned(),
            })),
        }
    }

    /// Refuses a server that only sends files from their beginning: most demuxers would wait for
    /// what never comes, and the others read all of it for every frame.
    fn check_source(&mut self) -> Result<(), GstError> {
        if self.anywhere || !self.found.began.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut query = gst::query::Seeking::new(gst::Format::Bytes);
        if self.source.query(&mut query) && !query.result().0 {
            return Err(GstError::NoRanges {
                file: self.file.clone(),
            });
        }
        self.anywhere = true;
        Ok(())
    }

    fn pull(&mut self) -> Result<Option<gst::Sample>, GstError> {
        let begin = Instant::now();
        let mut alive = begin;
        loop {
            self.check_source()?;
            let asked = Instant::now();
            let step = gst::ClockTime::from_mseconds(20);
            if let Some(sample) = self.sink.try_pull_sample(step) {
                return Ok(Some(sample));
            }
            if self.sink.is_eos() {
                // A broken connection ends the stream too.
                let broken = self.bus_error().filter(|_| self.is_remote());
                return broken.map_or(Ok(None), Err);
            }
            self.stop.check(&self.file)?;
            if let Some(error) = self.bus_error() {
                return Err(error);
            }
            if self.only_other_streams() {
                return Err(self.no_video());
            }
            if self.found.in_hole() {
                return Err(GstError::Damaged {
                    file: self.file.clone(),
                    at: 0.0,
                    reason: "the file has a hole of zeros".to_owned(),
                });
            }
            // parsebin swallows some errors of the demuxers in it: then nothing ever comes.
            if self.is_at_work() {
                alive = Instant::now();
            } else if alive.elapsed() >= DEAD {
                if self.nobody_listens() {
                    return Err(self.no_video());
                }
                return Err(GstError::Damaged {
                    file: self.file.clone(),
                    at: 0.0,
                    reason: "reading stops for no stated reason".to_owned(),
                });
            }
            if begin.elapsed() >= self.timeout {
                return Err(GstError::Timeout {
                    file: self.file.clone(),
                    waited: begin.elapsed().as_secs_f64(),
                });
            }
            // A sink that is not running answers at once: do not spin on it.
            if asked.elapsed() < Duration::from_millis(1) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// A packet, and whether the container says when it is shown. `None` for a buffer without any
    /// time: it cannot be asked for.
    fn packet(&mut self, sample: &gst::Sample) -> Result<Option<(Packet, bool)>, GstError> {
        let (Some(caps), Some(buffer)) = (sample.caps_owned(), sample.buffer_owned()) else {
            return Ok(None);
        };
        let no_times = || GstError::NoTimestamps {
            file: self.file.clone(),
        };
        let segment = sample
            .segment()
            .and_then(|segment| segment.downcast_ref::<gst::ClockTime>())
            .ok_or_else(no_times)?;
        // By hand: the library's own conversion has no answer outside the segment, where pictures
        // can lie that others refer to.
        let signed = |time: gst::ClockTime| i64::try_from(time.nseconds()).ok();
        let start = segment.start().and_then(signed).unwrap_or(0);
        let begin = segment.time().and_then(signed).unwrap_or(0);
        let stream_time =
            |time: Option<gst::ClockTime>| Some(time.and_then(signed)? - start + begin);
        let dts = stream_time(buffer.dts());
        let shown = stream_time(buffer.pts());
        // Without reordering decode times are the same.
        let Some(time) = shown.or(dts) else {
            return Ok(None);
        };
        let codec = match &self.codec {
            Some((known, codec)) if *known == caps => *codec,
            _ => {
                let codec = Codec::of(&caps);
                self.codec = Some((caps.clone(), codec));
                codec
            }
        };
        let sync = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let duration = buffer
            .duration()
            .and_then(|duration| i64::try_from(duration.nseconds()).ok());
        let dependence = match buffer.map_readable() {
            Ok(data) => codec.dependence(&data, sync),
            Err(_) => return Ok(None),
        };
        let packet = Packet {
            time,
            dts,
            stop: stream_time(segment.stop()),
            duration,
            key: dependence.key,
            recovery: dependence.recovery,
            sync: sync || dependence.key,
            reference: dependence.reference,
            buffer,
            caps,
        };
        Ok(Some((packet, shown.is_some())))
    }
}

#[cfg(test)]
mod tests;
