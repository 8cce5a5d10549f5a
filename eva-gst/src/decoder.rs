//! The decoder: compressed pictures in, the wanted ones out.
//!
//! It stands outside the pipeline that reads the file, so that a target can be chosen, and pictures
//! that nobody needs left out, before anything is decoded. How an element is driven is told in
//! [`direct`](crate::direct) and [`pipelined`](crate::pipelined).

use core::time::Duration;
use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;

use crate::GstError;
use crate::cancel::Stop;
use crate::choice::{Candidate, candidates};
use crate::direct::Direct;
use crate::options::DecoderChoice;
use crate::output::{Output, Picture, lock};
use crate::packet::Packet;
use crate::pipelined::Pipelined;
use crate::recovery::Recovery;

/// Between the times of one run and those of the next on their way through the decoder (ns): more
/// than any reordering, so that they never go back.
const GAP: i64 = 60_000_000_000;

/// What a decoder is made for.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) choice: DecoderChoice,
    pub(crate) threads: usize,
    /// The longest wait without progress.
    pub(crate) timeout: Duration,
    pub(crate) stop: Stop,
}

/// How the element is driven.
enum Drive {
    Direct(Direct),
    Pipelined(Pipelined),
}

/// A decoder element, what is fed to it and what comes out.
pub(crate) struct Decoder {
    file: String,
    name: String,
    hardware: bool,
    drive: Drive,
    output: Arc<Mutex<Output>>,
    caps: Option<gst::Caps>,
    /// The offset of the run being decoded; unknown between a jump and the next packet.
    offset: Option<i64>,
    /// The latest time given to the element.
    latest: i64,
    /// Where the run being decoded starts, if that is a recovery point.
    recovery: Option<Recovery>,
}

impl Decoder {
    /// The best decoder for `caps` that the choice allows and that starts.
    pub(crate) fn new(file: &str, caps: &gst::CapsRef, setup: &Setup) -> Result<Self, GstError> {
        let mut refused = None;
        for candidate in candidates(file, caps, &setup.choice)? {
            set_threads(&candidate.element, setup.threads);
            match Self::with_element(file, &candidate, setup) {
                Ok(decoder) => return Ok(decoder),
                Err(error) => {
                    tracing::warn!(file, %error, "another decoder is tried");
                    refused = Some(error);
                }
            }
        }
        Err(refused.unwrap_or_else(|| GstError::no_decoder(file, caps)))
    }

    /// The kind of element, such as `avdec_h264`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it decodes with the help of a device.
    pub(crate) fn is_hardware(&self) -> bool {
        self.hardware
    }

    /// Whether it can start at recovery points: not tested with other elements.
    pub(crate) fn starts_at_recovery_points(&self) -> bool {
        self.name == "avdec_h264"
    }

    /// Whether another one beside it may do more in the same time.
    pub(crate) fn can_be_joined(&self) -> bool {
        matches!(self.drive, Drive::Direct(_))
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
        let mut output = lock(&self.output);
        (output.last, output.begins) = (None, None);
        self.offset = None;
    }

    /// Decodes one packet. Its picture comes out if it is `asked` for; otherwise it need not.
    pub(crate) fn feed(&mut self, packet: &Packet, asked: bool) -> Result<(), GstError> {
        if self.caps.as_ref() != Some(&packet.caps) {
            self.set_caps(&packet.caps);
        }
        // The picture of a recovery point must come out, to see that it was not lost.
        let asked = asked || (self.offset.is_none() && packet.key && packet.recovery.is_some());
        let offset = match self.offset {
            Some(offset) => offset,
            None => {
                let offset = self.latest.saturating_add(GAP).saturating_sub(packet.time);
                let mut output = lock(&self.output);
                output.offset = offset;
                self.recovery = packet.recovery.filter(|_| packet.key);
                output.begins = self.recovery.map(|_| packet.time);
                *self.offset.insert(offset)
            }
        };
        if packet.key && packet.recovery.is_none() {
            // An IDR picture: numbers begin with 0 by themselves.
            self.recovery = None;
        }
        self.latest = self.latest.max(packet.time.saturating_add(offset));
        let mut buffer = packet.buffer.clone();
        if let Some(recovery) = &mut self.recovery {
            match recovery.renumbered(&packet.buffer) {
                Some(renumbered) => buffer = renumbered,
                None => {
                    self.recovery = None;
                    lock(&self.output).refuse();
                }
            }
        }
        let shifted = |time: i64| {
            let time = u64::try_from(time.saturating_add(offset)).ok()?;
            Some(gst::ClockTime::from_nseconds(time))
        };
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(shifted(packet.time));
            buffer.set_dts(packet.dts.and_then(shifted));
        }
        let pushed = match &mut self.drive {
            Drive::Direct(direct) => direct.push(buffer, asked),
            Drive::Pipelined(pipelined) => return pipelined.push(&self.file, buffer),
        };
        match pushed {
            Ok(()) => Ok(()),
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
    pub(crate) fn drain(&mut self, until: i64) -> Result<(), GstError> {
        match &mut self.drive {
            Drive::Direct(direct) => direct.drain(),
            Drive::Pipelined(pipelined) => pipelined.drain(&self.file)?,
        }
        lock(&self.output).settle(|target| target <= until);
        Ok(())
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
        match &self.drive {
            Drive::Direct(direct) => direct.element().clone(),
            Drive::Pipelined(pipelined) => pipelined.element().clone(),
        }
    }

    fn error(&self) -> Option<GstError> {
        let bus = match &self.drive {
            Drive::Direct(direct) => direct.bus(),
            Drive::Pipelined(pipelined) => pipelined.bus(),
        };
        let message = bus.pop_filtered(&[gst::MessageType::Error])?;
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
        match &mut self.drive {
            Drive::Direct(direct) => direct.set_caps(&plain),
            Drive::Pipelined(pipelined) => pipelined.set_caps(&plain),
        }
        self.caps = Some(caps.clone());
    }

    fn with_element(file: &str, candidate: &Candidate, setup: &Setup) -> Result<Self, GstError> {
        let element = candidate.element.clone();
        let name = element
            .factory()
            .map_or_else(|| element.name(), |factory| factory.name());
        let refused = || GstError::Bus {
            file: file.to_owned(),
            message: format!("the decoder {name} does not start"),
        };
        let output = Arc::new(Mutex::new(Output::default()));
        let drive = if candidate.pipelined {
            let (timeout, stop) = (setup.timeout, setup.stop.clone());
            Pipelined::new(element, &output, timeout, stop).map(Drive::Pipelined)
        } else {
            Direct::new(element, &output).map(Drive::Direct)
        };
        let drive = drive.ok_or_else(refused)?;
        tracing::debug!(file, element = %name, "decoder");
        Ok(Self {
            file: file.to_owned(),
            name: name.to_string(),
            hardware: candidate.hardware,
            drive,
            output,
            caps: None,
            offset: None,
            latest: 0,
            recovery: None,
        })
    }
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
