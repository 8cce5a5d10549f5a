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

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_app::prelude::*;

use crate::GstError;
use crate::cancel::Stop;
use crate::error::is_picture;
use crate::location::Location;
use crate::packet::{Codec, Packet};
use crate::reorder::Reorder;

/// Compressed pictures that the demuxer may read ahead of us.
const AHEAD: u32 = 64;

/// How long no thread of the pipeline may be at work before it is taken for dead.
const DEAD: Duration = Duration::from_millis(300);

/// A pipeline that is in NULL before it is dropped: dropping a running one can block for ever.
struct Guard(gst::Pipeline);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.0.set_state(gst::State::Null) {
            tracing::warn!(%error, "a pipeline did not stop");
        }
    }
}

/// What is learned of the streams while they appear.
#[derive(Default)]
struct Found {
    /// A video stream is linked.
    video: AtomicBool,
    /// There is a stream of another kind.
    other: AtomicBool,
    /// All streams are known.
    all: AtomicBool,
}

/// An open file that yields its video's packets in decode order from any keyframe.
pub(crate) struct Demux {
    location: Location,
    file: String,
    timeout: Duration,
    stop: Stop,
    pipeline: Guard,
    sink: gst_app::AppSink,
    found: Arc<Found>,
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
        let (pipeline, sink, found) = build(&location, &file)?;
        let demux = Self {
            location,
            file,
            timeout,
            stop,
            pipeline,
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
        let (pipeline, sink, found) = build(&self.location, &self.file)?;
        self.pipeline = pipeline;
        self.sink = sink;
        self.found = found;
        self.reorder.clear();
        self.start()
    }

    /// Whether [`seek`](Self::seek) works. Known once a packet was read.
    pub(crate) fn seekable(&self) -> bool {
        let mut query = gst::query::Seeking::new(gst::Format::Time);
        self.pipeline.0.query(&mut query) && query.result().0
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

    fn pull(&self) -> Result<Option<gst::Sample>, GstError> {
        let begin = Instant::now();
        let mut alive = begin;
        loop {
            let asked = Instant::now();
            let step = gst::ClockTime::from_mseconds(20);
            if let Some(sample) = self.sink.try_pull_sample(step) {
                return Ok(Some(sample));
            }
            if self.sink.is_eos() {
                return Ok(None);
            }
            self.stop.check(&self.file)?;
            if let Some(error) = self.bus_error() {
                return Err(error);
            }
            if self.only_other_streams() {
                return Err(self.no_video());
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
            sync: sync || dependence.key,
            reference: dependence.reference,
            buffer,
            caps,
        };
        Ok(Some((packet, shown.is_some())))
    }
}

fn element(name: &str) -> Result<gst::Element, GstError> {
    gst::ElementFactory::make(name)
        .build()
        .map_err(|_| GstError::Start {
            reason: format!("it has no element {name}"),
        })
}

fn build(
    location: &Location,
    file: &str,
) -> Result<(Guard, gst_app::AppSink, Arc<Found>), GstError> {
    let refused = |_| GstError::Start {
        reason: "its elements cannot be linked".to_owned(),
    };
    let source =
        match location {
            Location::Path(path) => {
                let source = element("filesrc")?;
                source.set_property("location", path);
                source
            }
            Location::Uri(uri) => gst::Element::make_from_uri(gst::URIType::Src, uri, None)
                .map_err(|error| GstError::MissingPlugin {
                    file: file.to_owned(),
                    what: format!("this kind of address ({})", error.message()),
                    package: "gstreamer1.0-plugins-good".to_owned(),
                })?,
        };
    let parse = element("parsebin")?;
    let sink = gst_app::AppSink::builder()
        .sync(false)
        .async_(false)
        .max_buffers(AHEAD)
        .enable_last_sample(false)
        .build();
    // Pictures outside what the container shows are needed where others refer to them.
    sink.set_drop_out_of_segment(false);
    let guard = Guard(gst::Pipeline::new());
    // Nothing here is played in real time.
    guard.0.use_clock(None::<&gst::Clock>);
    guard
        .0
        .add_many([&source, &parse, sink.upcast_ref()])
        .map_err(refused)?;
    source.link(&parse).map_err(refused)?;

    let found = Arc::new(Found::default());
    let target = sink.downgrade();
    let seen = Arc::clone(&found);
    parse.connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        if !is_picture(&caps) {
            seen.other.store(true, Ordering::SeqCst);
            return;
        }
        if seen.video.load(Ordering::SeqCst) {
            return;
        }
        let input = target.upgrade().and_then(|sink| sink.static_pad("sink"));
        if let Some(input) = input {
            match pad.link(&input) {
                Ok(_) => seen.video.store(true, Ordering::SeqCst),
                Err(error) => tracing::warn!(%error, "a video stream cannot be linked"),
            }
        }
    });
    let seen = Arc::clone(&found);
    parse.connect_no_more_pads(move |_| seen.all.store(true, Ordering::SeqCst));
    Ok((guard, sink, found))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::decoder::Decoder;

    /// A Matroska file of 50 pictures.
    fn video(dir: &tempfile::TempDir) -> Location {
        gst::init().unwrap();
        let path = dir.path().join("a.mkv");
        let line = format!(
            "videotestsrc num-buffers=50 ! video/x-raw,width=64,height=48 ! jpegenc ! matroskamux ! filesink location={}",
            path.display()
        );
        let pipeline = gst::parse::launch(&line).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        let limit = gst::ClockTime::from_seconds(60);
        let message = pipeline.bus().unwrap().timed_pop_filtered(limit, &kinds);
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(message.unwrap().type_(), gst::MessageType::Eos);
        Location::Path(path)
    }

    fn open(location: &Location) -> Result<Demux, GstError> {
        let patience = Duration::from_secs(10);
        Demux::open(location.clone(), "a".to_owned(), patience, Stop::default())
    }

    fn is_null(element: &impl IsA<gst::Element>) -> bool {
        element.state(gst::ClockTime::ZERO).1 == gst::State::Null
    }

    #[test]
    fn what_is_dropped_is_in_null_wherever_it_stood() {
        let dir = tempfile::tempdir().unwrap();
        let location = video(&dir);
        for packets in [0, 1, 20, 60] {
            let mut demux = open(&location).unwrap();
            let pipeline = demux.pipeline.0.clone();
            let mut decoder = None;
            for _ in 0..packets {
                let Some(packet) = demux.next().unwrap() else {
                    break;
                };
                let decoder =
                    decoder.get_or_insert_with(|| Decoder::new("a", &packet.caps).unwrap());
                decoder.feed(&packet).unwrap();
            }
            let element = decoder.as_ref().map(Decoder::element);
            drop(demux);
            drop(decoder);
            assert!(is_null(&pipeline), "after {packets} packets");
            assert!(element.is_none_or(|element| is_null(&element)));
        }
        // In the middle of a seek, and where opening or restarting failed.
        let mut demux = open(&location).unwrap();
        demux.next().unwrap();
        demux.seek(1_000_000_000).unwrap();
        let before = demux.pipeline.0.clone();
        demux.restart().unwrap();
        assert!(is_null(&before));
        let pipeline = demux.pipeline.0.clone();
        if let Location::Path(path) = &location {
            std::fs::remove_file(path).unwrap();
        }
        assert!(demux.restart().is_err());
        drop(demux);
        assert!(is_null(&pipeline));
    }
}
