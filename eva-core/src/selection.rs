//! Which frames to fetch: [`Selection`], planned from a call of `frame_select` within the budget.

use crate::json::Number;
use crate::reply::{Argument, FrameSelect};
use crate::{OutsideWindow, Rules, VideoInfo};

/// Side in pixels of the square that one visual token covers.
///
/// ```
/// use eva_core::{Selection, selection::PATCH};
///
/// let selection = Selection::uniform(0.0, 9.0, 2, 10 * PATCH, 6 * PATCH);
/// assert_eq!(selection.visual_tokens(), 2 * 10 * 6);
/// ```
pub const PATCH: u32 = 28;

/// A window of a video, how many frames of it, and how large: what a [`FrameSource`] is asked for.
///
/// Times are seconds from the first displayed frame.
///
/// [`FrameSource`]: crate::FrameSource
///
/// ```
/// use eva_core::reply::FrameSelect;
/// use eva_core::{Rules, Selection, VideoInfo};
///
/// let video = VideoInfo { duration: 90.0, width: 1920, height: 1080, fps: 25.0 };
/// let call = FrameSelect::parse(r#"{"start_time": 60, "end_time": 120, "nframes": 64}"#)?;
/// let selection = Selection::plan(&call, &video, &Rules::published())?;
/// // Cut to the end of the video, and reduced to what the budget allows.
/// assert_eq!((selection.start, selection.end), (60.0, 90.0));
/// assert_eq!((selection.nframes, selection.width, selection.height), (34, 700, 392));
/// assert_eq!(selection.times().next(), Some(60.0));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Selection {
    /// Start of the window that is watched, within the video.
    pub start: f64,
    /// End of the window that is watched, within the video, after `start` (equal to it only in a
    /// video without length and under [`OutsideWindow::Clamp`]).
    pub end: f64,
    /// Number of frames, at least 1.
    pub nframes: u32,
    /// Width of each delivered frame in pixels.
    pub width: u32,
    /// Height of each delivered frame in pixels.
    pub height: u32,
    /// Start of the window as the model wrote it; may lie outside the video. Frames are labelled
    /// after it, see [`Selection::label_seconds`].
    pub requested_start: f64,
    /// End of the window as the model wrote it.
    pub requested_end: f64,
}

/// Why [`Selection::plan`] can't turn a call into a selection.
///
/// The published code finds these in two places, with different ends: its arithmetic on the visual
/// budget and on the labels raises, which ends the run ([`SelectionError::ends_the_run`]); the
/// extraction of the frames only fails the call.
///
/// ```
/// use eva_core::reply::{Argument, FrameSelect};
/// use eva_core::{Rules, Selection, SelectionError, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let call = FrameSelect {
///     start_time: Argument::whole(0),
///     end_time: Argument::whole(9),
///     nframes: Argument::float(2.5),
///     resize: Argument::whole(1),
/// };
/// let error = Selection::plan(&call, &video, &Rules::published()).unwrap_err();
/// assert_eq!(error, SelectionError::FrameCount(2.5));
/// assert!(!error.ends_the_run());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SelectionError {
    /// `nframes` below 1, or written with a fraction (`8.0`, `2.5`, `NaN`) and not made whole by
    /// the budget.
    #[error("nframes is {0}: ask for a whole number of frames, at least 1")]
    FrameCount(f64),
    /// `nframes` is not a number, or too large for one: the budget can't be counted.
    #[error("nframes is not a usable number: write it as a whole number")]
    Nframes,
    /// `resize` is not a number, or not a finite one: the budget can't be counted.
    #[error("resize is not a usable number: write a ratio between 0 and 1, or leave it out")]
    Resize,
    /// `start_time` or `end_time` is not a number.
    #[error("start_time or end_time is not a number: write seconds")]
    Time,
    /// `start_time` or `end_time` is `NaN` or infinite, or so large that the window has no length: the
    /// frames can't be labelled.
    #[error("start_time or end_time is not finite: write seconds within the video")]
    TimeNotFinite,
    /// The window holds nothing of the video, and [`OutsideWindow::Refuse`] is the rule.
    #[error(
        "nothing of the video is from {start} s to {end} s: ask for a start_time before the end_time, \
         both in seconds; the video ends at {duration} s"
    )]
    Window {
        /// `start_time`.
        start: f64,
        /// `end_time`.
        end: f64,
        /// Length of the video in seconds.
        duration: f64,
    },
}

impl SelectionError {
    /// Whether the published code raises here, which ends the run with `exception`, where otherwise
    /// only the call fails with `call_frame_select_failed`.
    #[must_use]
    pub const fn ends_the_run(&self) -> bool {
        match self {
            Self::FrameCount(_) | Self::Time | Self::Window { .. } => false,
            Self::Nframes | Self::Resize | Self::TimeNotFinite => true,
        }
    }
}

impl Selection {
    /// `nframes` frames (at least one is taken) evenly spaced from `start` to `end` seconds, each
    /// `width` x `height` pixels. The window counts as the requested one too.
    #[must_use]
    pub const fn uniform(start: f64, end: f64, nframes: u32, width: u32, height: u32) -> Self {
        Self {
            start,
            end,
            nframes: if nframes == 0 { 1 } else { nframes },
            width,
            height,
            requested_start: start,
            requested_end: end,
        }
    }

    /// What to fetch for `call`, within the budget of `rules`.
    ///
    /// A call whose estimate is over [`Rules::max_visual_tokens`] is reduced in two stages: first
    /// the shorter side of its frames comes down to [`Rules::reduced_side`]; if that is not enough,
    /// number of frames and size shrink together by the cube root of budget over estimate, once
    /// (the result may still be somewhat over). At most [`Rules::max_frames`] remain.
    ///
    /// The window is cut down to the video; if nothing is left of it, [`Rules::outside_window`] says
    /// what is taken. A size of 0 or less gives the smallest frame, one visual token.
    ///
    /// # Errors
    /// [`SelectionError`], for arguments that the published code would fail on, and for a window that
    /// [`OutsideWindow::Refuse`] refuses.
    pub fn plan(
        call: &FrameSelect,
        info: &VideoInfo,
        rules: &Rules,
    ) -> Result<Self, SelectionError> {
        Asked::plan(call, info, rules).map(|asked| asked.of(info, rules.outside_window))
    }

    /// The time of frame `index`, in seconds: the middle of the window for a single frame, else
    /// evenly spaced from `start` to just before `end` (facts of the published tool: the last one
    /// is `eps = min(1e-3, (end - start) / (4 n))` before the end).
    #[must_use]
    pub fn time(&self, index: u32) -> f64 {
        if self.nframes <= 1 {
            return (self.start + self.end) / 2.0;
        }
        let n = f64::from(self.nframes);
        let eps = ((self.end - self.start) / (4.0 * n)).min(1e-3);
        let last = (self.end - eps).max(self.start);
        self.start + (last - self.start) * f64::from(index) / (n - 1.0)
    }

    /// All times, in order.
    pub fn times(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        let selection = *self;
        (0..self.nframes as usize).map(move |index| selection.time(index as u32))
    }

    /// The whole seconds that frame `index` is labelled with.
    ///
    /// The published weights were trained on labels that spread evenly over the *requested* window,
    /// both ends included. With one frame, or a window beyond the video, that is not the time of
    /// the frame ([`Selection::time`]); it is what the model expects to read. A negative request
    /// gives a negative label.
    #[must_use]
    pub fn label_seconds(&self, index: u32) -> i64 {
        let steps = f64::from(self.nframes.saturating_sub(1).max(1));
        // In this order, as the published code does: it divides first, which decides the second that a
        // step short of a whole one falls into.
        let step = (self.requested_end - self.requested_start) / steps;
        // Truncates like Python's `int`; saturates where Python would count on.
        (self.requested_start + f64::from(index) * step) as i64
    }

    /// Visual tokens of all frames: one for each [`PATCH`] x [`PATCH`] pixels.
    #[must_use]
    pub fn visual_tokens(&self) -> u64 {
        let side = |pixels: u32| u64::from((pixels / PATCH).max(1));
        u64::from(self.nframes)
            .saturating_mul(side(self.width))
            .saturating_mul(side(self.height))
    }
}

/// A planned call without what follows from the video: what the agent keeps of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) nframes: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Asked {
    /// See [`Selection::plan`].
    pub(crate) fn plan(
        call: &FrameSelect,
        info: &VideoInfo,
        rules: &Rules,
    ) -> Result<Self, SelectionError> {
        let (nframes, resize) = reduced(call, info, rules)?;

        let (Argument::Number(start), Argument::Number(end)) = (call.start_time, call.end_time)
        else {
            return Err(SelectionError::Time);
        };
        let (requested_start, requested_end) = (start.value, end.value);
        if !(requested_start.is_finite() && requested_end.is_finite()) {
            return Err(SelectionError::TimeNotFinite);
        }

        if !(nframes.integer && nframes.value >= 1.0) {
            return Err(SelectionError::FrameCount(nframes.value));
        }
        // Saturates: the count is at least 1 and finite here.
        let mut nframes = (nframes.value as u32).min(rules.max_frames).max(1);
        // The label of the last frame: rounding alone can make it infinite.
        let steps = f64::from(nframes - 1);
        let step = (requested_end - requested_start) / steps.max(1.0);
        if !(requested_start + steps * step).is_finite() {
            return Err(SelectionError::TimeNotFinite);
        }
        if window(requested_start, requested_end, info).is_none() {
            match rules.outside_window {
                OutsideWindow::WholeVideo => {}
                OutsideWindow::Clamp => nframes = 1,
                OutsideWindow::Refuse => {
                    return Err(SelectionError::Window {
                        start: requested_start,
                        end: requested_end,
                        duration: info.usable_duration(),
                    });
                }
            }
        }
        Ok(Self {
            start: requested_start,
            end: requested_end,
            nframes,
            width: pixels(patches(info.width, resize)),
            height: pixels(patches(info.height, resize)),
        })
    }

    /// The selection from the video `info`.
    pub(crate) fn of(&self, info: &VideoInfo, outside: OutsideWindow) -> Selection {
        let duration = info.usable_duration();
        let (start, end) = window(self.start, self.end, info).unwrap_or(match outside {
            OutsideWindow::Clamp => {
                let moment = self.start.max(0.0).min(duration);
                (moment, moment)
            }
            // What is refused was not planned.
            OutsideWindow::WholeVideo | OutsideWindow::Refuse => (0.0, duration),
        });
        Selection {
            start,
            end,
            nframes: self.nframes,
            width: self.width,
            height: self.height,
            requested_start: self.start,
            requested_end: self.end,
        }
    }
}

/// What is within the video of the window from `start` to `end`; `None` if that is nothing. A video
/// without length is within any window.
fn window(start: f64, end: f64, info: &VideoInfo) -> Option<(f64, f64)> {
    let duration = info.usable_duration();
    let (start, end) = (start.max(0.0), end.min(duration));
    if start < end {
        Some((start, end))
    } else {
        (duration == 0.0).then_some((0.0, 0.0))
    }
}

/// Visual tokens of a call that can't be carried out, as the published code counts them before it
/// tries: a fraction of a frame is none, and so are fewer frames than none.
pub(crate) fn estimate(call: &FrameSelect, info: &VideoInfo, rules: &Rules) -> u64 {
    match reduced(call, info, rules) {
        // Saturates, also at 0.
        Ok((nframes, resize)) => {
            let frame = patches(info.height, resize) * patches(info.width, resize);
            (libm::trunc(nframes.value) * frame) as u64
        }
        Err(_) => 0,
    }
}

/// Number of frames and ratio of `call` within the budget.
fn reduced(
    call: &FrameSelect,
    info: &VideoInfo,
    rules: &Rules,
) -> Result<(Number, f64), SelectionError> {
    let nframes = match call.nframes {
        // Python raises on a whole number beyond a float, but counts with an infinite float.
        Argument::Number(n) if n.value.is_finite() || !n.integer => n,
        _ => return Err(SelectionError::Nframes),
    };
    let resize = match call.resize {
        Argument::Number(n) if n.value.is_finite() => n.value,
        _ => return Err(SelectionError::Resize),
    };
    within_budget(nframes, resize, info, rules)
}

/// Number of frames and ratio after both stages of reduction.
fn within_budget(
    nframes: Number,
    resize: f64,
    info: &VideoInfo,
    rules: &Rules,
) -> Result<(Number, f64), SelectionError> {
    let budget = f64::from(rules.max_visual_tokens);
    let estimate =
        |resize| nframes.value * patches(info.height, resize) * patches(info.width, resize);
    if !patches(info.height, resize).is_finite() || !patches(info.width, resize).is_finite() {
        return Err(SelectionError::Resize);
    }
    // As in Python, an estimate that is not a number is not over budget.
    let over = |resize| estimate(resize) > budget;
    if !over(resize) {
        return Ok((nframes, resize));
    }
    // A side of 0 gives an infinite ratio here, and thus no reduction.
    let cap = f64::from(rules.reduced_side) / f64::from(info.shorter_side());
    let resize = resize.min(cap.min(1.0));
    if !over(resize) {
        return Ok((nframes, resize));
    }
    let ratio = cube_root(budget / estimate(resize));
    let reduced = nframes.value * ratio;
    if reduced.is_nan() {
        return Err(SelectionError::Nframes);
    }
    let nframes = Number {
        value: libm::trunc(reduced).max(1.0),
        integer: true,
    };
    Ok((nframes, resize * ratio))
}

/// Python's `x ** (1 / 3)` for `x` from 0 to 1, to the last bit.
///
/// Ratios are often cubes of simple ones, and then a bit decides which whole number comes out: in
/// Python 0.001 gives a little over 0.1, since the power is a little below a third. `libm::cbrt` is
/// not that power, and `libm::pow` is not exact enough.
fn cube_root(x: f64) -> f64 {
    /// What 1/3 lacks of a third.
    const LACK: f64 = 1.850_371_707_708_594e-17;
    if x <= 0.0 {
        return 0.0;
    }
    let root = libm::cbrt(x);
    // The exact square and cube of it, each as a number and what rounding took from it.
    let square = root * root;
    let square_rest = libm::fma(root, root, -square);
    let cube = square * root;
    let cube_rest = libm::fma(square, root, -cube) + square_rest * root;
    let exact = ((x - cube) - cube_rest) / (3.0 * square);
    // x ** -LACK is 1 - LACK * ln(x), so small is LACK.
    root + (exact - LACK * libm::log(x) * root)
}

/// Patches along a side of `side` pixels at ratio `resize`, at least 1, halves to even.
fn patches(side: u32, resize: f64) -> f64 {
    libm::rint(f64::from(side) * resize / f64::from(PATCH)).max(1.0)
}

/// A side of so many patches in pixels, the largest multiple of a patch if it does not fit.
fn pixels(patches: f64) -> u32 {
    (patches as u32).min(u32::MAX / PATCH) * PATCH
}

#[cfg(test)]
mod tests {
    #![allow(clippy::excessive_precision)]
    use super::*;

    /// Each with what Python gives for `x ** (1 / 3)`.
    #[test]
    fn cube_roots_are_pythons_to_the_last_bit() {
        for (x, root) in [
            (0.125, 0.5),
            (0.037037037037037035, 0.33333333333333337),
            (0.015625, 0.25),
            (0.008, 0.2),
            (0.004629629629629629, 0.16666666666666669),
            (0.0029154518950437317, 0.14285714285714288),
            (0.0013717421124828531, 0.11111111111111112),
            (0.001, 0.10000000000000002),
            (0.2962962962962963, 0.6666666666666666),
            (0.421875, 0.75),
            (0.5, 0.7937005259840998),
            (0.9999999999999999, 1.0),
            (1.0, 1.0),
            (1e-12, 0.00010000000000000005),
            (3e-07, 0.006694329500821697),
            (0.23796462709189137, 0.6196847400797993),
            (0.5442292252959519, 0.8164456634245953),
            (0.36995516654807925, 0.7178764374780785),
            (0.6039200385961945, 0.8452655065186417),
            (0.625720304108054, 0.8553163012925308),
            (0.06552885923981311, 0.4031600922149709),
            (0.013167991554874137, 0.23614196879592977),
            (0.83746908209646, 0.942590216055511),
            (2.5935401432800766e-05, 0.029600405336244178),
            (1.917441039952995e-09, 0.0012423405844005898),
            (5.409738856290389e-10, 0.0008148145339973622),
            (0.00047635320869933494, 0.07809856095794866),
            (0.00023192200537667162, 0.061439449989258176),
        ] {
            assert_eq!(cube_root(x).to_bits(), f64::to_bits(root), "{x}");
        }
        assert_eq!(cube_root(0.0), 0.0);
    }
}
