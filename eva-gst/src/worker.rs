//! One decoder with what turns its pictures into frames: [`Worker`].

use std::sync::Arc;

use eva_core::RgbImage;

use crate::GstError;
use crate::cancel::Stop;
use crate::decoder::Decoder;
use crate::frame::{Converter, Orientation};
use crate::output::Picture;
use crate::planner::Run;

/// What every picture is turned into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) orientation: Orientation,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// The answer to one target.
pub(crate) struct Answer {
    pub(crate) picture: Picture,
    /// Absent where no shape was asked for.
    pub(crate) pixels: Option<RgbImage>,
}

/// A target that no picture answers, and why.
pub(crate) struct Lost {
    pub(crate) time: i64,
    pub(crate) reason: String,
}

/// What stays the same for all workers of a file.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) file: Arc<str>,
    pub(crate) stop: Stop,
    /// When the first frame is shown (ns of stream time): errors count from it.
    pub(crate) first: i64,
}

impl Context {
    pub(crate) fn damaged(&self, time: i64, reason: String) -> GstError {
        GstError::Damaged {
            file: self.file.to_string(),
            at: (time - self.first) as f64 / 1e9,
            reason,
        }
    }
}

/// A decoder, a converter, and where they stand.
pub(crate) struct Worker {
    context: Context,
    decoder: Decoder,
    converter: Converter,
    /// The last run is to be continued: the decoder still holds pictures of it.
    undrained: bool,
    /// Pictures that nobody asked for stay in the decoder, until one that was does not come out.
    /// Devices are not relied on to do that.
    hides: bool,
    /// Packets given to the decoder.
    pub(crate) decoded: u64,
}

/// Which pictures come out of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    Asked,
    All,
}

impl Worker {
    pub(crate) fn new(context: Context, decoder: Decoder) -> Self {
        Self {
            context,
            hides: decoder.can_be_joined(),
            decoder,
            converter: Converter::default(),
            undrained: false,
            decoded: 0,
        }
    }

    /// Decodes `run`, which answers the first of `targets` (ascending), and hands on the answers in
    /// order. An unfinished run must be followed by the run that continues it; some of its answers
    /// come with that.
    pub(crate) fn decode(
        &mut self,
        run: &Run,
        targets: &[i64],
        shape: Option<Shape>,
        sink: &mut dyn FnMut(Answer),
    ) -> Result<Option<Lost>, GstError> {
        let mut answered = 0;
        let whole = !run.unfinished && !run.resumed;
        let recovers = run.may_recover();
        if whole && (self.hides || recovers) {
            let mut sound = true;
            let show = if self.hides { Show::Asked } else { Show::All };
            let lost = self.pass(run, targets, show, shape, &mut |answer| {
                sound &= run.displayed(answered) == Some(answer.picture.time);
                if sound {
                    answered += 1;
                    sink(answer);
                }
            })?;
            if answered == run.covered.min(targets.len()) {
                return Ok(None);
            }
            if recovers {
                // Whether it is damaged, or could not be made from here, shows from an IDR picture on.
                let time = targets.get(answered).copied().unwrap_or(i64::MIN);
                let reason = "a picture cannot be made from a recovery point".to_owned();
                return Ok(Some(lost.unwrap_or(Lost { time, reason })));
            }
            // A picture is missing, and which one is on display instead was not seen.
            self.hides = false;
        }
        let mut place = 0;
        self.pass(run, targets, Show::All, shape, &mut |answer| {
            place += 1;
            if place > answered {
                sink(answer);
            }
        })
    }

    /// Decodes `run` once.
    fn pass(
        &mut self,
        run: &Run,
        targets: &[i64],
        show: Show,
        shape: Option<Shape>,
        sink: &mut dyn FnMut(Answer),
    ) -> Result<Option<Lost>, GstError> {
        let (covered, _) = targets.split_at(run.covered.min(targets.len()));
        if !run.resumed {
            if self.undrained {
                self.decoder.drain(i64::MIN)?;
            }
            // Which targets an unfinished run answers is not known yet.
            let armed = if run.unfinished { targets } else { covered };
            self.decoder.arm(armed.iter().copied());
            self.decoder.jump();
        }
        self.undrained = run.unfinished;
        let until = covered.last().copied().unwrap_or(i64::MIN);
        if !run.unfinished {
            self.decoder.forget_after(until);
        }
        for packet in run.needed() {
            self.context.stop.check(&self.context.file)?;
            self.decoded += 1;
            let asked = run.wanted.binary_search(&packet.time).is_ok();
            self.decoder.feed(packet, asked || show == Show::All)?;
            self.deliver(shape, sink)?;
        }
        if !run.unfinished {
            self.decoder.drain(until)?;
            self.deliver(shape, sink)?;
        }
        let lost = self.decoder.lost();
        Ok(lost.map(|(time, reason)| Lost { time, reason }))
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Takes another decoder.
    pub(crate) fn replace(&mut self, decoder: Decoder) {
        self.hides = decoder.can_be_joined();
        self.decoder = decoder;
        self.undrained = false;
    }

    /// Forgets what was being decoded.
    pub(crate) fn reset(&mut self) {
        // A decoder that cannot be drained says so when it is fed.
        let _ = self.decoder.drain(i64::MIN);
        self.decoder.arm([]);
        self.undrained = false;
    }

    /// `picture` as a frame.
    pub(crate) fn convert(
        &mut self,
        picture: &Picture,
        shape: Shape,
    ) -> Result<RgbImage, GstError> {
        self.converter
            .convert(picture, shape.orientation, shape.width, shape.height)
            .map_err(|reason| self.context.damaged(picture.time, reason))
    }

    /// Hands on what came out of the decoder.
    fn deliver(
        &mut self,
        shape: Option<Shape>,
        sink: &mut dyn FnMut(Answer),
    ) -> Result<(), GstError> {
        let mut next = self.decoder.take();
        let mut same: Option<RgbImage> = None;
        while let Some(picture) = next {
            next = self.decoder.take();
            let pixels = match (same.take(), shape) {
                (Some(pixels), _) => Some(pixels),
                (None, Some(shape)) => Some(self.convert(&picture, shape)?),
                (None, None) => None,
            };
            // Neighbouring targets often show the same frame.
            if next.as_ref().is_some_and(|next| next.time == picture.time) {
                same.clone_from(&pixels);
            }
            sink(Answer { picture, pixels });
        }
        Ok(())
    }
}
