//! A decoder element outside any pipeline, driven by hand: [`Direct`].
//!
//! ```text
//!  feed (our source pad) ──▶ avdec_h264, vp9dec, ... ──▶ our sink pad ──▶ Output
//! ```
//!
//! It decodes in the thread that feeds it. Draining it takes a `SegmentDone` event: neither end of
//! stream nor a flush, after which it would have to be set up again.

use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::VideoDecoderExtManual;

use crate::output::{Output, lock};

/// A decoder element and the two pads around it.
pub(crate) struct Direct {
    element: gst::Element,
    bus: gst::Bus,
    feed: gst::Pad,
    // Kept alive: the element's source pad only refers to its peer.
    _sink: gst::Pad,
    /// Whether the element knows what is fed to it.
    set_up: bool,
}

impl Drop for Direct {
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

impl Direct {
    /// `None` when the element does not start.
    pub(crate) fn new(element: gst::Element, output: &Arc<Mutex<Output>>) -> Option<Self> {
        let (input, out) = (element.static_pad("sink")?, element.static_pad("src")?);
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let feed = gst::Pad::builder(gst::PadDirection::Src).build();
        let sink = sink_pad(output);
        let linked = feed.link(&input).is_ok() && out.link(&sink).is_ok();
        let active = feed.set_active(true).is_ok() && sink.set_active(true).is_ok();
        // From here on, dropping it stops the element.
        let direct = Self {
            element: element.clone(),
            bus,
            feed,
            _sink: sink,
            set_up: false,
        };
        if !linked || !active || element.set_state(gst::State::Playing).is_err() {
            return None;
        }
        direct.feed.push_event(gst::event::StreamStart::new("eva"));
        Some(direct)
    }

    #[cfg(test)]
    pub(crate) fn element(&self) -> &gst::Element {
        &self.element
    }

    pub(crate) fn bus(&self) -> &gst::Bus {
        &self.bus
    }

    pub(crate) fn set_caps(&mut self, caps: &gst::Caps) {
        self.feed.push_event(gst::event::Caps::new(caps));
        if !core::mem::replace(&mut self.set_up, true) {
            let segment = gst::FormattedSegment::<gst::ClockTime>::new();
            self.feed.push_event(gst::event::Segment::new(&segment));
        }
    }

    /// Decodes one packet. Where its picture is not `asked` for, it is left in the element if it
    /// was not given out at once: what comes out is copied first while others may refer to it.
    pub(crate) fn push(&self, buffer: gst::Buffer, asked: bool) -> Result<(), gst::FlowError> {
        let pts = buffer.pts();
        let outcome = self.feed.push(buffer).map(drop);
        let decoder = self.element.downcast_ref::<gst_video::VideoDecoder>();
        if let Some(decoder) = decoder.filter(|_| !asked) {
            let pending = decoder.frames().into_iter();
            for mut frame in pending.filter(|frame| frame.pts() == pts) {
                frame.set_flags(gst_video::VideoCodecFrameFlags::DECODE_ONLY);
            }
        }
        outcome
    }

    /// Brings out what the element holds back.
    pub(crate) fn drain(&self) {
        self.feed
            .push_event(gst::event::SegmentDone::new(gst::ClockTime::NONE));
    }
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
