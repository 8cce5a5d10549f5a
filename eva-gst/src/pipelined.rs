//! A decoder element in a pipeline of its own: [`Pipelined`].
//!
//! ```text
//!  push ──▶ appsrc ──▶ vah264dec, v4l2h264dec, ... ──▶ (download) ──▶ appsink ──▶ Output
//! ```
//!
//! Hardware decoders may work in threads of their own, ask the pipeline for their device, keep
//! pictures in the device's memory, and give out their last ones only at the end of the stream. So
//! each run ends with one, and the next begins with a flushing seek, which opens the pipeline again.

use core::time::Duration;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_app::prelude::*;
use gstreamer_video as gst_video;

use crate::GstError;
use crate::cancel::Stop;
use crate::graph::Guard;
use crate::output::{Output, lock};

/// Compressed pictures given to the element before it must have taken some.
const AHEAD: u64 = 16;

/// The element that brings pictures out of each kind of device memory.
const DOWNLOADS: [(&str, &str); 5] = [
    ("memory:NVMM", "nvvidconv"),
    ("memory:CUDAMemory", "cudadownload"),
    ("memory:VAMemory", "vapostproc"),
    ("memory:GLMemory", "gldownload"),
    ("memory:D3D11Memory", "d3d11download"),
];

/// A pipeline around one decoder element.
pub(crate) struct Pipelined {
    pipeline: Guard,
    element: gst::Element,
    bus: gst::Bus,
    source: gst_app::AppSrc,
    ended: Arc<AtomicBool>,
    /// The end of the stream was sent: it must be flushed before more is.
    closed: bool,
    timeout: Duration,
    stop: Stop,
}

impl Pipelined {
    /// `None` when the pipeline does not start.
    pub(crate) fn new(
        element: gst::Element,
        output: &Arc<Mutex<Output>>,
        timeout: Duration,
        stop: Stop,
    ) -> Option<Self> {
        lock(output).borrowed = true;
        let source = gst_app::AppSrc::builder()
            .format(gst::Format::Time)
            .stream_type(gst_app::AppStreamType::Seekable)
            .max_bytes(0)
            .callbacks(
                gst_app::AppSrcCallbacks::builder()
                    .seek_data(|_, _| true)
                    .build(),
            )
            .build();
        let ended = Arc::new(AtomicBool::new(false));
        let (pictures, eos) = (Arc::clone(output), Arc::clone(&ended));
        let sink = gst_app::AppSink::builder()
            .sync(false)
            .async_(false)
            .enable_last_sample(false)
            .caps(&gst::Caps::builder("video/x-raw").build())
            .callbacks(
                gst_app::AppSinkCallbacks::builder()
                    .new_sample(move |sink| {
                        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Flushing)?;
                        let info = sample
                            .caps()
                            .and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
                        if let Some(buffer) = sample.buffer_owned() {
                            let mut output = lock(&pictures);
                            output.info = info;
                            output.picture(buffer);
                        }
                        Ok(gst::FlowSuccess::Ok)
                    })
                    .eos(move |_| eos.store(true, Ordering::SeqCst))
                    .build(),
            )
            .build();
        sink.set_drop_out_of_segment(false);
        let pipeline = Guard(gst::Pipeline::new());
        pipeline.0.use_clock(None::<&gst::Clock>);
        let mut chain = vec![source.clone().upcast::<gst::Element>(), element.clone()];
        if let Some(download) = download(&element) {
            chain.push(gst::ElementFactory::make(download).build().ok()?);
        }
        chain.push(sink.upcast());
        pipeline.0.add_many(&chain).ok()?;
        gst::Element::link_many(&chain).ok()?;
        let bus = pipeline.0.bus()?;
        pipeline.0.set_state(gst::State::Playing).ok()?;
        Some(Self {
            pipeline,
            element,
            bus,
            source,
            ended,
            closed: false,
            timeout,
            stop,
        })
    }

    #[cfg(test)]
    pub(crate) fn element(&self) -> &gst::Element {
        &self.element
    }

    pub(crate) fn bus(&self) -> &gst::Bus {
        &self.bus
    }

    pub(crate) fn set_caps(&self, caps: &gst::Caps) {
        self.source.set_caps(Some(caps));
    }

    /// Gives one packet, and waits while the element has enough to do.
    pub(crate) fn push(&mut self, file: &str, buffer: gst::Buffer) -> Result<(), GstError> {
        if core::mem::take(&mut self.closed) {
            self.ended.store(false, Ordering::SeqCst);
            let opened = self
                .pipeline
                .0
                .seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO);
            opened.map_err(|_| self.failed(file, "cannot be opened again"))?;
        }
        self.source
            .push_buffer(buffer)
            .map_err(|_| self.failed(file, "takes no more"))?;
        let source = self.source.clone();
        self.wait(file, || level(&source) < AHEAD)
    }

    /// Brings out what the element holds back.
    pub(crate) fn drain(&mut self, file: &str) -> Result<(), GstError> {
        if self.closed || self.source.caps().is_none() {
            return Ok(());
        }
        self.closed = true;
        self.source
            .end_of_stream()
            .map_err(|_| self.failed(file, "cannot be drained"))?;
        let ended = Arc::clone(&self.ended);
        self.wait(file, || ended.load(Ordering::SeqCst))
    }

    /// Waits until `done`, as long as something still happens.
    fn wait(&self, file: &str, done: impl Fn() -> bool) -> Result<(), GstError> {
        let mut since = Instant::now();
        let mut before = level(&self.source);
        while !done() {
            self.stop.check(file)?;
            let step = gst::ClockTime::from_mseconds(1);
            let kinds = [gst::MessageType::Error];
            if let Some(message) = self.bus.timed_pop_filtered(step, &kinds) {
                return Err(match message.view() {
                    gst::MessageView::Error(error) => {
                        GstError::from_message(file, &error.error(), error.debug().as_deref())
                    }
                    _ => self.failed(file, "stopped"),
                });
            }
            let now = level(&self.source);
            if now != before {
                before = now;
                since = Instant::now();
            }
            if since.elapsed() >= self.timeout {
                return Err(self.failed(file, "makes no progress"));
            }
        }
        Ok(())
    }

    fn failed(&self, file: &str, what: &str) -> GstError {
        GstError::Bus {
            file: file.to_owned(),
            message: format!("the decoder {} {what}", self.element.name()),
        }
    }
}

/// Packets that wait for the element.
fn level(source: &gst_app::AppSrc) -> u64 {
    source.property("current-level-buffers")
}

/// What must stand behind `element` where it does not give pictures in plain memory.
fn download(element: &gst::Element) -> Option<&'static str> {
    let caps = element.static_pad("src")?.query_caps(None);
    let plain = caps.iter_with_features().any(|(structure, features)| {
        structure.name() == "video/x-raw" && features.contains("memory:SystemMemory")
    });
    if plain || caps.is_any() {
        return None;
    }
    DOWNLOADS.iter().find_map(|(memory, download)| {
        let given = caps
            .iter_with_features()
            .any(|(_, features)| features.contains(*memory));
        given.then_some(*download)
    })
}
