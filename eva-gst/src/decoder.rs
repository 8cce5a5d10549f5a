//! The decoder element, driven by hand: compressed pictures in, the wanted ones out.
//!
//! ```text
//!  feed (our source pad) ──▶ avdec_h264, vp9dec, ... ──▶ our sink pad ──▶ Output
//! ```
//!
//! It stands outside any pipeline, so that a target can be chosen, and pictures that nobody needs
//! left out, before anything is decoded. Draining it takes a `SegmentDone` event: neither end of
//! stream nor a flush, after which it would have to be set up again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;

use crate::GstError;
use crate::packet::Packet;

/// Between the times of one run and those of the next on their way through the decoder (ns): more
/// than any reordering, so that they never go back.
const GAP: i64 = 60_000_000_000;

/// A decoded picture, not yet converted.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    /// When it is shown, in ns of stream time.
    pub(crate) time: i64,
    pub(crate) buffer: gst::Buffer,
    pub(crate) info: gst_video::VideoInfo,
    /// Whether the stream itself names its colours; else `info` holds GStreamer's guess.
    pub(crate) colour: Option<gst_video::VideoColorimetry>,
}

/// What comes out of the decoder, sorted out as it comes.
#[derive(Default)]
struct Output {
    info: Option<gst_video::VideoInfo>,
    colour: Option<gst_video::VideoColorimetry>,
    /// Added to stream times on their way through the decoder. Decoder elements rewrite times that
    /// go back, as stream times do when an earlier part is asked for.
    offset: i64,
    /// Times asked for, ascending.
    targets: VecDeque<i64>,
    /// The latest picture: on display until another follows.
    last: Option<Picture>,
    /// Targets answered.
    done: VecDeque<Picture>,
    /// Times for which no picture at or before them came out.
    lost: Option<i64>,
}

impl Output {
    fn picture(&mut self, buffer: gst::Buffer) {
        let (Some(info), Some(pts)) = (self.info.clone(), buffer.pts()) else {
            return;
        };
        let Ok(pts) = i64::try_from(pts.nseconds()) else {
            return;
        };
        let time = pts - self.offset;
        // This picture replaces the one on display: whatever was asked for before its time is
        // answered by that one.
        self.settle(|target| target < time);
        self.last = Some(Picture {
            time,
            buffer,
            info,
            colour: self.colour,
        });
    }

    fn settle(&mut self, is_before: impl Fn(i64) -> bool) {
        while let Some(target) = self.targets.front().copied().filter(|t| is_before(*t)) {
            match &self.last {
                Some(picture) => self.done.push_back(picture.clone()),
                None => {
                    self.lost.get_or_insert(target);
                    return;
                }
            }
            self.targets.pop_front();
        }
    }
}

/// A decoder element and the two pads around it.
pub(crate) struct Decoder {
    file: String,
    element: gst::Element,
    bus: gst::Bus,
    feed: gst::Pad,
    // Kept alive: the element's source pad only refers to its peer.
    _sink: gst::Pad,
    output: Arc<Mutex<Output>>,
    caps: Option<gst::Caps>,
    /// The offset of the run being decoded; unknown between a jump and the next packet.
    offset: Option<i64>,
    /// The latest time given to the element.
    latest: i64,
}

impl Drop for Decoder {
    fn drop(&mut self) {
        if let Err(error) = self.element.set_state(gst::State::Null) {
            tracing::warn!(%error, "a decoder did not stop");
        }
        // Messages that nobody took refer to the element, which refers to the bus: neither would
        // ever be freed, nor the bus's two open files.
        self.bus.set_flushing(true);
        self.element.set_bus(None);
        let _ = self.feed.set_active(false);
    }
}

impl Decoder {
    /// The best decoder installed for `caps`, working in so many threads if it knows how to.
    pub(crate) fn new(file: &str, caps: &gst::CapsRef, threads: usize) -> Result<Self, GstError> {
        let mut refused = None;
        for element in candidates(caps) {
            set_threads(&element, threads);
            match Self::with_element(file, element) {
                Ok(decoder) => return Ok(decoder),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| GstError::no_decoder(file, caps)))
    }

    /// Forgets earlier targets and sets new ones: ascending times in ns.
    pub(crate) fn arm(&mut self, targets: impl IntoIterator<Item = i64>) {
        let mut output = lock(&self.output);
        output.targets = targets.into_iter().collect();
        output.last = None;
        output.lost = None;
        output.done.clear();
    }

    /// Forgets the targets after `until`: another run answers them.
    pub(crate) fn forget_after(&mut self, until: i64) {
        lock(&self.output).targets.retain(|target| *target <= until);
    }

    /// Says that the next packet is not the one after the last: what is on display is unknown.
    ///
    /// The decoder must have been drained.
    pub(crate) fn jump(&mut self) {
        lock(&self.output).last = None;
        self.offset = None;
    }

    /// Decodes one packet.
    pub(crate) fn feed(&mut self, packet: &Packet) -> Result<(), GstError> {
        if self.caps.as_ref() != Some(&packet.caps) {
            self.set_caps(&packet.caps);
        }
        let offset = match self.offset {
            Some(offset) => offset,
            None => {
                let offset = self.latest.saturating_add(GAP).saturating_sub(packet.time);
                lock(&self.output).offset = offset;
                *self.offset.insert(offset)
            }
        };
        self.latest = self.latest.max(packet.time.saturating_add(offset));
        let mut buffer = packet.buffer.clone();
        let shifted = |time: i64| {
            let time = u64::try_from(time.saturating_add(offset)).ok()?;
            Some(gst::ClockTime::from_nseconds(time))
        };
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(shifted(packet.time));
            buffer.set_dts(packet.dts.and_then(shifted));
        }
        match self.feed.push(buffer) {
            Ok(_) => Ok(()),
            // A broken picture: others may still be decodable.
            Err(gst::FlowError::Error) => {
                tracing::debug!(file = %self.file, time = packet.time, "a picture is not decodable");
                Ok(())
            }
            Err(flow) => Err(self.error().unwrap_or_else(|| GstError::Bus {
                file: self.file.clone(),
                message: format!("the decoder stopped ({flow})"),
            })),
        }
    }

    /// Brings out what the decoder holds back, and answers the targets up to `until` from it.
    pub(crate) fn drain(&mut self, until: i64) {
        self.feed
            .push_event(gst::event::SegmentDone::new(gst::ClockTime::NONE));
        lock(&self.output).settle(|target| target <= until);
    }

    /// The next answer: targets are answered in order, each by one picture.
    pub(crate) fn take(&mut self) -> Option<Picture> {
        lock(&self.output).done.pop_front()
    }

    /// The first time that no picture answers, and why.
    pub(crate) fn lost(&self) -> Option<(i64, String)> {
        let time = lock(&self.output).lost?;
        let reason = match self.error() {
            Some(
                GstError::Damaged { reason, .. }
                | GstError::Bus {
                    message: reason, ..
                },
            ) => reason,
            _ => "the decoder gives no picture".to_owned(),
        };
        Some((time, reason))
    }

    #[cfg(test)]
    pub(crate) fn element(&self) -> gst::Element {
        self.element.clone()
    }

    fn error(&self) -> Option<GstError> {
        let message = self.bus.pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(GstError::from_message(
                &self.file,
                &error.error(),
                error.debug().as_deref(),
            )),
            _ => None,
        }
    }

    fn set_caps(&mut self, caps: &gst::Caps) {
        // GStreamer fills in colours that a stream does not name, and the MP4 demuxer loses the
        // full-range mark. So the decoder is not told: what it then says of the range comes from
        // the stream itself, and the matrix is taken from here.
        let named = caps
            .structure(0)
            .and_then(|structure| structure.get::<&str>("colorimetry").ok())
            .and_then(|text| text.parse::<gst_video::VideoColorimetry>().ok());
        let mut plain = caps.clone();
        for structure in plain.make_mut().iter_mut() {
            structure.remove_field("colorimetry");
        }
        lock(&self.output).colour = named;
        self.feed.push_event(gst::event::Caps::new(&plain));
        if self.caps.is_none() {
            let segment = gst::FormattedSegment::<gst::ClockTime>::new();
            self.feed.push_event(gst::event::Segment::new(&segment));
        }
        self.caps = Some(caps.clone());
    }

    fn with_element(file: &str, element: gst::Element) -> Result<Self, GstError> {
        let refused = || GstError::Bus {
            file: file.to_owned(),
            message: format!("the decoder {} does not start", element.name()),
        };
        let (Some(input), Some(out)) = (element.static_pad("sink"), element.static_pad("src"))
        else {
            return Err(refused());
        };
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let output = Arc::new(Mutex::new(Output::default()));
        let feed = gst::Pad::builder(gst::PadDirection::Src).build();
        let sink = sink_pad(&output);
        let linked = feed.link(&input).is_ok() && out.link(&sink).is_ok();
        let active = feed.set_active(true).is_ok() && sink.set_active(true).is_ok();
        let decoder = Self {
            file: file.to_owned(),
            element: element.clone(),
            bus,
            feed,
            _sink: sink,
            output,
            caps: None,
            offset: None,
            latest: 0,
        };
        // From here on, dropping `decoder` stops the element.
        if !linked || !active || element.set_state(gst::State::Playing).is_err() {
            return Err(refused());
        }
        tracing::debug!(file, element = %element.name(), "decoder");
        decoder.feed.push_event(gst::event::StreamStart::new("eva"));
        Ok(decoder)
    }
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    // A panic while it was held cannot leave it half changed in a way that matters.
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sink_pad(output: &Arc<Mutex<Output>>) -> gst::Pad {
    let (pictures, events) = (Arc::clone(output), Arc::clone(output));
    gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(move |_, _, buffer| {
            lock(&pictures).picture(buffer);
            Ok(gst::FlowSuccess::Ok)
        })
        .event_function(move |_, _, event| {
            if let gst::EventView::Caps(caps) = event.view() {
                lock(&events).info = gst_video::VideoInfo::from_caps(caps.caps()).ok();
            }
            true
        })
        .query_function(|pad, parent, query| match query.view_mut() {
            // Without it the decoder would copy each picture into the plainest layout.
            gst::QueryViewMut::Allocation(query) => {
                query.add_allocation_meta::<gst_video::VideoMeta>(None);
                true
            }
            gst::QueryViewMut::Caps(query) => {
                let plain = gst::Caps::builder("video/x-raw").build();
                let answer = match query.filter() {
                    Some(filter) => {
                        filter.intersect_with_mode(&plain, gst::CapsIntersectMode::First)
                    }
                    None => plain,
                };
                query.set_result(&answer);
                true
            }
            gst::QueryViewMut::AcceptCaps(query) => {
                let plain = gst::Caps::builder("video/x-raw").build();
                let accepted = query.caps().is_subset(&plain);
                query.set_result(accepted);
                true
            }
            _ => gst::Pad::query_default(pad, parent, query),
        })
        .build()
}

/// Tells a decoder in how many threads to work; each library has its own name for that.
fn set_threads(element: &gst::Element, threads: usize) {
    for name in ["max-threads", "n-threads", "threads"] {
        let kind = element.find_property(name).map(|spec| spec.value_type());
        if kind == Some(i32::static_type()) {
            element.set_property(name, i32::try_from(threads).unwrap_or(i32::MAX).min(16));
        } else if kind == Some(u32::static_type()) {
            element.set_property(name, u32::try_from(threads).unwrap_or(u32::MAX).min(16));
        }
    }
}

/// Decoder elements that take `caps`, best first. Hardware decoders are left out: they work in
/// threads of their own, and some do not answer a drain without an end of stream.
fn candidates(caps: &gst::CapsRef) -> Vec<gst::Element> {
    let raw = caps
        .structure(0)
        .is_some_and(|structure| structure.name() == "video/x-raw");
    if raw {
        // Nothing to decode.
        return gst::ElementFactory::make("identity")
            .build()
            .into_iter()
            .collect();
    }
    let kind = gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO;
    let images = gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_IMAGE;
    let mut factories: Vec<gst::ElementFactory> = Vec::new();
    for kind in [kind, images] {
        for factory in gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL) {
            let hardware = factory
                .metadata(gst::ELEMENT_METADATA_KLASS)
                .is_some_and(|klass| klass.contains("Hardware"));
            let taken = factories.iter().any(|other| other.name() == factory.name());
            if !hardware && !taken && factory.can_sink_all_caps(caps) {
                factories.push(factory);
            }
        }
    }
    factories.sort_by_key(|factory| core::cmp::Reverse(factory.rank()));
    factories
        .iter()
        .filter_map(|factory| factory.create().build().ok())
        // Bins hold queues, and so threads, of their own.
        .filter(|element| !element.is::<gst::Bin>())
        .collect()
}
