//! Frames on their way to the caller, in the caller's order: [`Delivery`].

use std::sync::Arc;

use eva_core::{Frame, RgbImage};

use crate::GstError;
use crate::cache::Cache;
use crate::frame::Converter;
use crate::output::Picture;
use crate::worker::{Answer, Context, Shape};

/// What is there of a frame that was asked for.
enum Slot {
    /// To be decoded.
    Missing,
    /// Kept from an earlier call.
    Kept(Kept),
    /// Waiting for frames before it.
    Ready(i64, RgbImage),
}

enum Kept {
    Image(i64, Arc<RgbImage>),
    Picture(Picture),
}

impl Kept {
    fn time(&self) -> i64 {
        match self {
            Self::Image(time, _) => *time,
            Self::Picture(picture) => picture.time,
        }
    }
}

/// One call's frames.
pub(crate) struct Delivery<'a> {
    context: &'a Context,
    cache: &'a mut Cache,
    converter: &'a mut Converter,
    shape: Shape,
    sink: &'a mut dyn FnMut(Frame<RgbImage>),
    slots: Vec<Slot>,
    /// The slot that is handed on next.
    next: usize,
    /// The slots to be decoded, by ascending target, and those targets.
    missing: Vec<(i64, usize)>,
    /// How many of them were.
    decoded: usize,
    error: Option<GstError>,
    /// Frames handed on, and those of them that came from the cache.
    pub(crate) frames: u64,
    pub(crate) hits: u64,
}

impl<'a> Delivery<'a> {
    /// Looks up which frames for `targets`, in the caller's order, are kept.
    pub(crate) fn new(
        context: &'a Context,
        cache: &'a mut Cache,
        converter: &'a mut Converter,
        targets: &[i64],
        shape: Shape,
        sink: &'a mut dyn FnMut(Frame<RgbImage>),
    ) -> Self {
        let mut slots = Vec::with_capacity(targets.len());
        let mut missing = Vec::new();
        for (place, target) in targets.iter().enumerate() {
            slots.push(match look_up(cache, *target, shape) {
                Some(kept) => Slot::Kept(kept),
                None => {
                    missing.push((*target, place));
                    Slot::Missing
                }
            });
        }
        missing.sort_unstable();
        Self {
            context,
            cache,
            converter,
            shape,
            sink,
            slots,
            next: 0,
            missing,
            decoded: 0,
            error: None,
            frames: 0,
            hits: 0,
        }
    }

    /// What must be decoded, ascending.
    pub(crate) fn missing(&self) -> Vec<i64> {
        self.missing.iter().map(|(target, _)| *target).collect()
    }

    /// Takes the answer to the next of the missing targets.
    pub(crate) fn take(&mut self, answer: Answer, shown: Option<(i64, i64)>) {
        let (picture, Some(pixels)) = (answer.picture, answer.pixels) else {
            return;
        };
        if let Some((from, until)) = shown {
            self.cache.learn(from, until, picture.time);
        }
        self.cache.keep(&picture, &pixels);
        let place = self.missing.get(self.decoded).map(|(_, place)| *place);
        self.decoded += 1;
        if let Some(slot) = place.and_then(|place| self.slots.get_mut(place)) {
            *slot = Slot::Ready(picture.time, pixels);
        }
        self.hand_on();
    }

    /// Hands on all frames up to the first that is still missing.
    pub(crate) fn hand_on(&mut self) {
        // The last kept frame, where the next one is the same.
        let mut same: Option<RgbImage> = None;
        while self.error.is_none() {
            let Some(slot) = self.slots.get_mut(self.next) else {
                return;
            };
            let (time, pixels) = match core::mem::replace(slot, Slot::Missing) {
                Slot::Missing => return,
                Slot::Ready(time, pixels) => (time, pixels),
                Slot::Kept(kept) => {
                    let time = kept.time();
                    let pixels = match same.take() {
                        Some(pixels) => pixels,
                        None => match self.unpack(kept) {
                            Ok(pixels) => pixels,
                            Err(error) => {
                                self.error = Some(error);
                                return;
                            }
                        },
                    };
                    self.hits += 1;
                    if let Some(Slot::Kept(next)) = self.slots.get(self.next + 1)
                        && next.time() == time
                    {
                        same = Some(pixels.clone());
                    }
                    (time, pixels)
                }
            };
            // Decoders run ahead: all frames can be there by the time that the call is cancelled.
            if let Err(cancelled) = self.context.stop.check(&self.context.file) {
                self.error = Some(cancelled);
                return;
            }
            self.next += 1;
            self.frames += 1;
            let time = (time - self.context.first) as f64 / 1e9;
            (self.sink)(Frame { time, pixels });
        }
    }

    /// What went wrong outside the decoder.
    pub(crate) fn outcome(&mut self) -> Result<(), GstError> {
        self.error.take().map_or(Ok(()), Err)
    }

    fn unpack(&mut self, kept: Kept) -> Result<RgbImage, GstError> {
        self.context.stop.check(&self.context.file)?;
        let picture = match kept {
            Kept::Image(_, image) => return Ok(RgbImage::clone(&image)),
            Kept::Picture(picture) => picture,
        };
        let Shape {
            orientation,
            width,
            height,
        } = self.shape;
        let pixels = self
            .converter
            .convert(&picture, orientation, width, height)
            .map_err(|reason| self.context.damaged(picture.time, reason))?;
        self.cache.keep(&picture, &pixels);
        Ok(pixels)
    }
}

fn look_up(cache: &mut Cache, target: i64, shape: Shape) -> Option<Kept> {
    let time = cache.displayed(target)?;
    match cache.image(time, shape.width, shape.height) {
        Some(image) => Some(Kept::Image(time, image)),
        None => cache.picture(time).map(Kept::Picture),
    }
}
