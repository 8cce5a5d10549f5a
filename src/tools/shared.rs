//! One source for a session and its tools: [`Shared`].

use std::sync::{Arc, Mutex, PoisonError};

use eva_core::{Frame, FrameSource, Selection, VideoInfo};

/// A [`FrameSource`] that several owners ask, one after the other: a session and its tools, with one
/// decoder and one cache among them. Clones ask the same source.
///
/// The sink of one owner must not ask another: it would wait for itself.
#[derive(Debug)]
pub struct Shared<S>(Arc<Mutex<S>>);

impl<S> Shared<S> {
    /// Makes `source` one that can be shared.
    #[must_use]
    pub fn new(source: S) -> Self {
        Self(Arc::new(Mutex::new(source)))
    }

    /// Looks at the source itself, for instance at its statistics.
    pub fn with<R>(&self, look: impl FnOnce(&mut S) -> R) -> R {
        // An owner that panicked leaves a source that is as usable as after an error.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: FrameSource> FrameSource for Shared<S> {
    type Pixels = S::Pixels;
    type Error = S::Error;

    fn info(&self) -> VideoInfo {
        self.with(|source| source.info())
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<S::Pixels>),
    ) -> Result<(), S::Error> {
        self.with(|source| source.frames(selection, sink))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use eva_core::mock::SolidSource;

    #[test]
    fn clones_ask_the_same_source() {
        let info = VideoInfo {
            duration: 9.0,
            width: 56,
            height: 28,
            fps: 25.0,
        };
        let mut one = Shared::new(SolidSource::new(info));
        let two = one.clone();
        two.with(|source| *source = source.clone().with_color([1, 2, 3]));
        let mut colors = Vec::new();
        let selection = Selection::uniform(0.0, 9.0, 2, 1, 1);
        one.frames(&selection, &mut |frame| {
            colors.push(frame.pixels.into_rgb());
        })
        .unwrap();
        assert_eq!(colors, [[1, 2, 3], [1, 2, 3]]);
        assert_eq!(two.info(), info);
    }
}
