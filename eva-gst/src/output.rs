//! What comes out of a decoder, sorted out as it comes: [`Output`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer_video as gst_video;

/// A decoded picture, not yet converted.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    /// When it is shown, in ns of stream time.
    pub(crate) time: i64,
    pub(crate) buffer: gst::Buffer,
    pub(crate) info: gst_video::VideoInfo,
    /// Whether the stream itself names its colours; else `info` holds GStreamer's guess.
    pub(crate) colour: Option<gst_video::VideoColorimetry>,
    /// It is a copy, in memory that the decoder does not need back.
    copied: bool,
}

impl Picture {
    /// Makes a copy of what the decoder needs back.
    fn own(&mut self) {
        if let Ok(copy) = self.buffer.copy_deep() {
            self.buffer = copy;
            self.copied = true;
        }
    }
}

/// What comes out of the decoder, sorted out as it comes.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) info: Option<gst_video::VideoInfo>,
    pub(crate) colour: Option<gst_video::VideoColorimetry>,
    /// Added to stream times on their way through the decoder. Decoder elements rewrite times that
    /// go back, as stream times do when an earlier part is asked for.
    pub(crate) offset: i64,
    /// Times asked for, ascending.
    pub(crate) targets: VecDeque<i64>,
    /// The time of the first picture to come out, where a decoder that gives another one may have
    /// lost it, and makes the others from nothing.
    pub(crate) begins: Option<i64>,
    /// The latest picture: on display until another follows.
    pub(crate) last: Option<Picture>,
    /// Targets answered.
    pub(crate) done: VecDeque<Picture>,
    /// Times for which no picture at or before them came out.
    pub(crate) lost: Option<i64>,
    /// Pictures lie in memory that the decoder needs back: those that are kept are copied.
    pub(crate) borrowed: bool,
}

impl Output {
    pub(crate) fn picture(&mut self, buffer: gst::Buffer) {
        let (Some(info), Some(pts)) = (self.info.clone(), buffer.pts()) else {
            return;
        };
        let Ok(pts) = i64::try_from(pts.nseconds()) else {
            return;
        };
        let time = pts - self.offset;
        if self.begins.take().is_some_and(|begins| begins != time) {
            self.refuse();
        }
        // This picture replaces the one on display: whatever was asked for before its time is
        // answered by that one.
        self.settle(|target| target < time);
        self.last = Some(Picture {
            time,
            buffer,
            info,
            colour: self.colour,
            copied: false,
        });
    }

    /// Answers no more: what comes out is made from nothing.
    pub(crate) fn refuse(&mut self) {
        self.lost = self.lost.or(self.targets.front().copied());
        self.targets.clear();
    }

    pub(crate) fn settle(&mut self, is_before: impl Fn(i64) -> bool) {
        while let Some(target) = self.targets.front().copied().filter(|t| is_before(*t)) {
            match &mut self.last {
                Some(picture) => {
                    if self.borrowed && !picture.copied {
                        picture.own();
                    }
                    self.done.push_back(picture.clone());
                }
                None => {
                    self.lost.get_or_insert(target);
                    return;
                }
            }
            self.targets.pop_front();
        }
    }
}

pub(crate) fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    // A panic while it was held cannot leave it half changed in a way that matters.
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// What answers the targets 0, 1 and 2 when pictures of these times come out.
    fn answers(begins: Option<i64>, times: &[u64]) -> (Vec<i64>, Option<i64>) {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 16, 16);
        let mut output = Output {
            info: info.build().ok(),
            targets: VecDeque::from([0, 1, 2]),
            begins,
            ..Output::default()
        };
        for time in times {
            let mut buffer = gst::Buffer::new();
            let pts = gst::ClockTime::from_nseconds(*time);
            buffer.get_mut().unwrap().set_pts(pts);
            output.picture(buffer);
        }
        output.settle(|_| true);
        let answers = output.done.iter().map(|picture| picture.time).collect();
        (answers, output.lost)
    }

    #[test]
    fn a_decoder_that_lost_the_picture_of_a_recovery_point_answers_nothing() {
        assert_eq!(answers(None, &[0, 1, 2]), (vec![0, 1, 2], None));
        assert_eq!(answers(Some(0), &[0, 1, 2]), (vec![0, 1, 2], None));
        assert_eq!(answers(Some(0), &[1, 2]), (vec![], Some(0)));
    }
}
