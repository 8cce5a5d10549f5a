//! A part of one frame, sharp: [`Crop`].

use std::fmt;

use eva_core::selection::PATCH;
use eva_core::{
    Frame, FrameSource, ImageTool, Picture, Pixels, RgbImage, Selection, VideoInfo, WrongLength,
};

use super::arguments::{Arguments, ArgumentsError};

/// A tool that shows a part of one frame at the video's own resolution: `crop(time, x, y, w, h)`. The
/// model zooms into what it saw too small, for the visual tokens of the part alone.
///
/// `x` and `y` are the upper left corner of the part, `w` and `h` its size, all in pixels of the
/// displayed video. The model was shown smaller frames and knows where something is only in relation
/// to them, so fractions of the frame are accepted too: the four numbers are fractions if none is
/// above 1. The tool's description says so, and how large the video is.
///
/// What lies outside the frame is cut off, and a time outside the video becomes its first or last
/// moment; a part that is empty or wholly outside is an error. The answer says which part is shown.
///
/// The picture's sides are multiples of [`PATCH`] pixels, the nearest to the part's own size (a part
/// below one patch is widened to one around its middle). A part over the budget
/// ([`Crop::with_max_visual_tokens`]) is scaled down to it. The source does the scaling, so the
/// picture looks like the source's other frames; only the bytes of the part are copied.
///
/// It asks a source of its own: a second handle on the same video, or the session's through
/// [`Shared`](super::Shared). It fits sessions whose picture type `P` can be made from an
/// [`RgbImage`].
///
/// ```
/// use std::sync::Arc;
///
/// use eva::tools::Crop;
/// use eva::world::{World, WorldSource};
/// use eva::{ImageTool, Picture, RgbImage};
///
/// let mut crop = Crop::new(WorldSource::new(Arc::new(World::new(1))));
/// let mut text = String::new();
/// let mut pictures: Vec<Picture<RgbImage>> = Vec::new();
/// let right_half = r#"{"time": 12, "x": 112, "y": 0, "w": 112, "h": 168}"#;
/// crop.call(right_half, &mut text, &mut |picture| pictures.push(picture))?;
/// assert_eq!((pictures[0].width, pictures[0].height), (112, 168));
/// assert_eq!(text, "x 112 to 224, y 0 to 168 of 224 x 168:");
/// # Ok::<(), eva::tools::CropError<eva::world::WorldSourceError>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Crop<S> {
    source: S,
    max_visual_tokens: u32,
    description: String,
}

/// A call of [`Crop`] failed; `E` is the source's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CropError<E> {
    /// The arguments can't be read.
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    /// The part is empty.
    #[error("w is {w} and h is {h}: give a width and a height above 0")]
    Empty {
        /// Width as asked.
        w: f64,
        /// Height as asked.
        h: f64,
    },
    /// The part is wholly outside the frame.
    #[error(
        "the part from x {x}, y {y} is outside the frame of {width} x {height} pixels: begin inside"
    )]
    Outside {
        /// Left edge in pixels.
        x: f64,
        /// Upper edge in pixels.
        y: f64,
        /// Width of the video in pixels.
        width: u32,
        /// Height of the video in pixels.
        height: u32,
    },
    /// The source failed.
    #[error("the frame can't be fetched: {0}")]
    Source(E),
    /// The source delivered no frame, or one of another size than asked for.
    #[error("the source delivered no frame of {width} x {height} pixels: try another time")]
    NoFrame {
        /// Width that was asked for, in pixels.
        width: u32,
        /// Height that was asked for, in pixels.
        height: u32,
    },
    /// The bytes don't fit the picture. A bug in this module if it ever comes.
    #[error(transparent)]
    Length(#[from] WrongLength),
    /// The host takes no text.
    #[error("the answer can't be handed back")]
    Write(#[from] fmt::Error),
}

impl<S: FrameSource> Crop<S> {
    /// Visual tokens of a picture at most, if nothing else is said: 896 x 896 pixels.
    pub const MAX_VISUAL_TOKENS: u32 = 1024;

    /// The tool for the video of `source`.
    #[must_use]
    pub fn new(source: S) -> Self {
        let VideoInfo { width, height, .. } = source.info();
        Self {
            source,
            max_visual_tokens: Self::MAX_VISUAL_TOKENS,
            description: format!(
                "Shows a part of the frame at time (seconds), sharp: x and y are its upper left \
                 corner, w and h its size, in pixels of the video, which is {width} wide and \
                 {height} high, or as fractions of it if none is above 1."
            ),
        }
    }

    /// The same with another budget of a picture, in visual tokens (at least 1 is spent).
    #[must_use]
    pub fn with_max_visual_tokens(mut self, max_visual_tokens: u32) -> Self {
        self.max_visual_tokens = max_visual_tokens;
        self
    }
}

impl<S, P> ImageTool<P> for Crop<S>
where
    S: FrameSource<Pixels: Pixels>,
    P: From<RgbImage>,
{
    type Error = CropError<S::Error>;

    fn name(&self) -> &str {
        "crop"
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> &str {
        r#"{"type": "object", "properties": {"time": {"type": "number"}, "x": {"type": "number"}, "y": {"type": "number"}, "w": {"type": "number"}, "h": {"type": "number"}}, "required": ["time", "x", "y", "w", "h"]}"#
    }

    fn call(
        &mut self,
        arguments: &str,
        out: &mut dyn fmt::Write,
        images: &mut dyn FnMut(Picture<P>),
    ) -> Result<(), Self::Error> {
        let info = self.source.info();
        let arguments = Arguments::parse(arguments)?;
        let time = (arguments.time("time")?).clamp(0.0, info.usable_duration());
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| arguments.number(name));
        let part = Part::new([x?, y?, w?, h?], &info)?;
        let cut = part.cut(&info, self.max_visual_tokens.max(1));

        let mut cropped = None;
        let selection = Selection::uniform(time, time, 1, cut.frame.0, cut.frame.1);
        let taken = self.source.frames(&selection, &mut |frame| {
            if cropped.is_none() {
                cropped = cut.of(&frame.pixels).map(|rgb| (frame.time, rgb));
            }
        });
        taken.map_err(CropError::Source)?;
        let (width, height) = cut.frame;
        let (time, rgb) = cropped.ok_or(CropError::NoFrame { width, height })?;

        let (width, height) = cut.size;
        let pixels = P::from(RgbImage::new(width, height, rgb)?);
        write!(out, "{part} of {} x {}:", info.width, info.height)?;
        images(Picture {
            frame: Frame { time, pixels },
            width,
            height,
        });
        Ok(())
    }
}

/// A part of a frame in pixels, within the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

/// How to get a part: the size to fetch the frame at, and what to copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    frame: (u32, u32),
    corner: (u32, u32),
    size: (u32, u32),
}

impl Part {
    fn new<E>([x, y, w, h]: [f64; 4], info: &VideoInfo) -> Result<Self, CropError<E>> {
        // Not `w <= 0.0`: a number that is none is empty too.
        if !(w > 0.0 && h > 0.0) {
            return Err(CropError::Empty { w, h });
        }
        let (width, height) = (f64::from(info.width), f64::from(info.height));
        // One pixel of one corner is of no use: all four at most 1 are fractions.
        let fractions = [x, y, w, h].iter().all(|&number| number <= 1.0);
        let unit = if fractions {
            (width, height)
        } else {
            (1.0, 1.0)
        };
        let (left, right) = within(x * unit.0, w * unit.0, width);
        let (top, bottom) = within(y * unit.1, h * unit.1, height);
        if left >= right || top >= bottom {
            // Nobody wants to read a number of 300 digits.
            let short = |number: f64| number.clamp(-1e9, 1e9);
            return Err(CropError::Outside {
                x: short(x * unit.0),
                y: short(y * unit.1),
                width: info.width,
                height: info.height,
            });
        }
        let (x, w) = widened(left, right - left, width);
        let (y, h) = widened(top, bottom - top, height);
        Ok(Self { x, y, w, h })
    }

    fn cut(&self, info: &VideoInfo, max_visual_tokens: u32) -> Cut {
        let budget = f64::from(max_visual_tokens);
        let patch = f64::from(PATCH);
        let patches = |side: f64| (side / patch).round().max(1.0);
        let (mut across, mut down) = (patches(self.w), patches(self.h));
        if across * down > budget {
            let scale = (budget / (across * down)).sqrt();
            across = (across * scale).floor().max(1.0);
            down = (down * scale).floor().max(1.0);
            // Where one side is held at one patch, the other pays for it.
            down = down.min((budget / across).floor()).max(1.0);
            across = across.min((budget / down).floor()).max(1.0);
        }
        let (size_x, size_y) = (across * patch, down * patch);
        let (frame_x, corner_x) = placed(f64::from(info.width), self.x, size_x / self.w, size_x);
        let (frame_y, corner_y) = placed(f64::from(info.height), self.y, size_y / self.h, size_y);
        Cut {
            frame: (frame_x, frame_y),
            corner: (corner_x, corner_y),
            size: (size_x as u32, size_y as u32),
        }
    }
}

/// Both ends of a side from `start` on, within `whole` pixels.
fn within(start: f64, length: f64, whole: f64) -> (f64, f64) {
    (start.clamp(0.0, whole), (start + length).clamp(0.0, whole))
}

/// Start and length of a side that is at least one patch long, as far as the frame is.
fn widened(start: f64, length: f64, whole: f64) -> (f64, f64) {
    let least = f64::from(PATCH).min(whole);
    if length >= least {
        return (start, length);
    }
    let start = start + (length - least) / 2.0;
    (start.clamp(0.0, whole - least), least)
}

/// Side of the frame at `scale`, and where in it the part of `size` pixels begins.
fn placed(whole: f64, start: f64, scale: f64, size: f64) -> (u32, u32) {
    let frame = (whole * scale).round().max(size);
    let corner = (start * scale).round().clamp(0.0, frame - size);
    (frame as u32, corner as u32)
}

impl Cut {
    /// The bytes of the part; `None` if the picture has another size than asked for.
    fn of(&self, pixels: &impl Pixels) -> Option<Vec<u8>> {
        if (pixels.width(), pixels.height()) != self.frame {
            return None;
        }
        let row = self.frame.0 as usize * 3;
        let (left, width) = (self.corner.0 as usize * 3, self.size.0 as usize * 3);
        let (top, height) = (self.corner.1 as usize, self.size.1 as usize);
        let mut rgb = Vec::with_capacity(width * height);
        for line in pixels.rgb().chunks_exact(row).skip(top).take(height) {
            rgb.extend_from_slice(line.get(left..left + width)?);
        }
        (rgb.len() == width * height).then_some(rgb)
    }
}

/// As the model reads it, in whole pixels.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (right, bottom) = (self.x + self.w, self.y + self.h);
        write!(
            f,
            "x {:.0} to {right:.0}, y {:.0} to {bottom:.0}",
            self.x, self.y
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// A video whose pixels say where they are: R is x, G is y at the delivered size, B the time.
    struct Map {
        info: VideoInfo,
        asked: Vec<Selection>,
        /// Pixels that each frame is too narrow by.
        short: u32,
    }

    fn map(width: u32, height: u32) -> Map {
        Map {
            info: VideoInfo {
                duration: 90.0,
                width,
                height,
                fps: 25.0,
            },
            asked: Vec::new(),
            short: 0,
        }
    }

    impl FrameSource for Map {
        type Pixels = RgbImage;
        type Error = Infallible;

        fn info(&self) -> VideoInfo {
            self.info
        }

        fn frames(
            &mut self,
            selection: &Selection,
            sink: &mut dyn FnMut(Frame<RgbImage>),
        ) -> Result<(), Infallible> {
            self.asked.push(*selection);
            let (width, height) = (selection.width - self.short, selection.height);
            let time = selection.time(0);
            let pixels = (0..height)
                .flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, time as u8]));
            sink(Frame {
                time,
                pixels: RgbImage::new(width, height, pixels.collect()).unwrap(),
            });
            Ok(())
        }
    }

    type Shown = (String, Picture<RgbImage>);

    fn call(crop: &mut Crop<Map>, arguments: &str) -> Result<Shown, CropError<Infallible>> {
        let mut text = String::new();
        let mut pictures = Vec::new();
        crop.call(arguments, &mut text, &mut |picture| pictures.push(picture))?;
        assert_eq!(pictures.len(), 1);
        Ok((text, pictures.remove(0)))
    }

    fn show(crop: &mut Crop<Map>, arguments: &str) -> Shown {
        call(crop, arguments).unwrap()
    }

    fn why(crop: &mut Crop<Map>, arguments: &str) -> String {
        call(crop, arguments).unwrap_err().to_string()
    }

    fn first_and_last(picture: &Picture<RgbImage>) -> [[u8; 3]; 2] {
        let rgb = picture.frame.pixels.rgb();
        [*rgb.first_chunk().unwrap(), *rgb.last_chunk().unwrap()]
    }

    #[test]
    fn a_part_of_whole_patches_is_copied_as_it_is() {
        let mut crop = Crop::new(map(200, 100));
        let (text, picture) = show(
            &mut crop,
            r#"{"time": 7.5, "x": 10, "y": 20, "w": 56, "h": 28}"#,
        );
        assert_eq!(text, "x 10 to 66, y 20 to 48 of 200 x 100:");
        assert_eq!((picture.width, picture.height), (56, 28));
        assert_eq!(picture.frame.time, 7.5);
        assert_eq!(first_and_last(&picture), [[10, 20, 7], [65, 47, 7]]);
        let asked = crop.source.asked[0];
        assert_eq!((asked.width, asked.height, asked.nframes), (200, 100, 1));
    }

    #[test]
    fn other_sizes_are_scaled_by_the_source_to_the_nearest_patches() {
        let mut crop = Crop::new(map(200, 100));
        let (_, picture) = show(
            &mut crop,
            r#"{"time": 0, "x": 100, "y": 0, "w": 100, "h": 100}"#,
        );
        // 100 pixels are 3.57 patches: 4, so the frame is fetched 1.12 times as large.
        assert_eq!((picture.width, picture.height), (112, 112));
        let asked = crop.source.asked[0];
        assert_eq!((asked.width, asked.height), (224, 112));
        assert_eq!(first_and_last(&picture), [[112, 0, 0], [223, 111, 0]]);
    }

    #[test]
    fn four_numbers_up_to_one_are_fractions() {
        let mut crop = Crop::new(map(224, 112));
        let half = r#"{"time": 0, "x": 0.5, "y": "0.5", "w": 0.5, "h": 0.5}"#;
        let (text, _) = show(&mut crop, half);
        assert_eq!(text, "x 112 to 224, y 56 to 112 of 224 x 112:");
        let all = r#"{"time": 0, "x": 0, "y": 0, "w": 1, "h": 1}"#;
        let (text, _) = show(&mut crop, all);
        assert_eq!(text, "x 0 to 224, y 0 to 112 of 224 x 112:");
        let pixels = r#"{"time": 0, "x": 1, "y": 1, "w": 56, "h": 56}"#;
        let (text, _) = show(&mut crop, pixels);
        assert_eq!(text, "x 1 to 57, y 1 to 57 of 224 x 112:");
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        let mut crop = Crop::new(map(224, 112));
        let (text, picture) = show(
            &mut crop,
            r#"{"time": "99:00", "x": -20, "y": 56, "w": 76, "h": 900}"#,
        );
        assert_eq!(text, "x 0 to 56, y 56 to 112 of 224 x 112:");
        assert_eq!((picture.width, picture.height), (56, 56));
        assert_eq!(picture.frame.time, 90.0, "the last moment");
        let (_, picture) = show(
            &mut crop,
            r#"{"time": -5, "x": 0, "y": 0, "w": 28, "h": 28}"#,
        );
        assert_eq!(picture.frame.time, 0.0);
    }

    #[test]
    fn a_part_below_a_patch_is_widened_around_its_middle() {
        let mut crop = Crop::new(map(224, 112));
        let (text, picture) = show(
            &mut crop,
            r#"{"time": 0, "x": 100, "y": 110, "w": 2, "h": 2}"#,
        );
        assert_eq!(text, "x 87 to 115, y 84 to 112 of 224 x 112:");
        assert_eq!((picture.width, picture.height), (28, 28));
    }

    #[test]
    fn a_part_over_the_budget_is_scaled_down_to_it() {
        let mut crop = Crop::new(map(2800, 1400)).with_max_visual_tokens(50);
        let (_, picture) = show(&mut crop, r#"{"time": 0, "x": 0, "y": 0, "w": 1, "h": 1}"#);
        assert_eq!((picture.width, picture.height), (10 * 28, 5 * 28));
        let asked = crop.source.asked[0];
        assert_eq!(
            (asked.width, asked.height),
            (280, 140),
            "no larger than needed"
        );
    }

    #[test]
    fn parts_that_are_none_are_explained() {
        let mut crop = Crop::new(map(224, 112));
        assert_eq!(
            why(
                &mut crop,
                r#"{"time": 0, "x": 300, "y": 0, "w": 28, "h": 28}"#
            ),
            "the part from x 300, y 0 is outside the frame of 224 x 112 pixels: begin inside"
        );
        assert_eq!(
            why(&mut crop, r#"{"time": 0, "x": 0, "y": 0, "w": 0, "h": -1}"#),
            "w is 0 and h is -1: give a width and a height above 0"
        );
        assert_eq!(
            why(&mut crop, r#"{"time": 0, "x": 0, "y": 0, "w": 9}"#),
            "h is missing: give a number"
        );
        assert!(crop.source.asked.is_empty());
    }

    #[test]
    fn a_source_that_delivers_another_size_is_found_out() {
        let mut crop = Crop::new(Map {
            short: 1,
            ..map(224, 112)
        });
        assert_eq!(
            why(
                &mut crop,
                r#"{"time": 0, "x": 0, "y": 0, "w": 28, "h": 28}"#
            ),
            "the source delivered no frame of 224 x 112 pixels: try another time"
        );
        let mut nothing = Crop::new(map(0, 0));
        let error = why(
            &mut nothing,
            r#"{"time": 0, "x": 0, "y": 0, "w": 1, "h": 1}"#,
        );
        assert!(
            error.contains("outside the frame of 0 x 0 pixels"),
            "{error}"
        );
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            -0.5..1.5,
            -50.0..700.0,
            prop::num::f64::ANY.prop_filter("JSON has no others", |number| number.is_finite()),
        ]
    }

    proptest! {
        #[test]
        fn any_part_is_refused_or_shown_in_whole_patches_within_the_budget(
            numbers in prop::array::uniform5(number()),
            (width, height) in (0_u32..400, 0_u32..400),
            budget in 0_u32..80,
        ) {
            let mut crop = Crop::new(map(width, height)).with_max_visual_tokens(budget);
            let [time, x, y, w, h] = numbers;
            let arguments = serde_json::json!({"time": time, "x": x, "y": y, "w": w, "h": h});
            if let Ok((_, picture)) = call(&mut crop, &arguments.to_string()) {
                prop_assert_eq!((picture.width % PATCH, picture.height % PATCH), (0, 0));
                prop_assert!(picture.visual_tokens() >= 1);
                prop_assert!(picture.visual_tokens() <= u64::from(budget.max(1)));
                let pixels = &picture.frame.pixels;
                prop_assert_eq!((pixels.width(), pixels.height()), (picture.width, picture.height));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in prop_oneof![".*", "\\{\"time\": .{0,9}, \"x\": .{0,9}\\}"]) {
            let mut crop = Crop::new(map(56, 56));
            _ = call(&mut crop, &text);
        }
    }
}
