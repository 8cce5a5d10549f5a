//! What is written about frames that were looked at, and what follows from them.
//!
//! Every look-up is sequential: what has to be copied is the last thing written. A small model
//! learns that far sooner than to look something up in a list.

use super::Colour;
use super::choices::LETTERS;
use super::look::{ZOOM_SECONDS, clock};

/// A frame of a look: its label in seconds, and the colour of the card in it.
pub(super) type Scanned = (u32, Option<Colour>);

/// What the expert writes after a scan that was to find the card of `colour`; `frames` are the
/// scan's, each by its label in seconds and the colour of the card in it.
///
/// It goes through the scan frame by frame (the paper's Summary), and stops at the first one that
/// shows the card to zoom in there. Without one the answer is `none`, open-ended.
pub fn report(colour: Colour, frames: impl Iterator<Item = (u32, Option<Colour>)>) -> String {
    find(colour, frames, None)
}

/// What the expert writes after a scan that was to tell which card of two comes first; `frames` as in
/// [`report`]. The first one that shows either card has the answer; without one it is `none`.
pub fn order_report(
    colours: [Colour; 2],
    frames: impl Iterator<Item = (u32, Option<Colour>)>,
) -> String {
    order(colours, frames, None)
}

/// What the expert writes after a look at blinking; `frames` are those of the window, each by its
/// label in seconds and whether it is dark. It counts as it goes: what was counted so far stands at
/// the end of each line.
///
/// ```
/// let text = eva::world::count_report([(190, false), (190, true), (191, true)].into_iter());
/// assert_eq!(
///     text,
///     "Summary:\nFrame 0 at [03:10]: bright 0\nFrame 1 at [03:10]: dark 1\n\
///      Frame 2 at [03:11]: dark 1\nReflection: That was the whole window.\n<answer>1</answer>"
/// );
/// ```
pub fn count_report(frames: impl Iterator<Item = (u32, bool)>) -> String {
    count(frames, None)
}

/// How the expert ends once it knows the value that is asked for: with the value itself, or after it
/// went through the options up to that value, with its letter. If no option has the value, it says the
/// first.
///
/// ```
/// use eva::world::conclusion;
///
/// assert_eq!(conclusion("7", None), "<answer>7</answer>");
/// let options = ["3", "7", "none", "9"].map(str::to_owned);
/// assert_eq!(conclusion("7", Some(&options)), "It is 7. Options: A: 3, B: 7.\n<answer>B</answer>");
/// ```
#[must_use]
pub fn conclusion(value: &str, options: Option<&[String; 4]>) -> String {
    let Some(options) = options else {
        return format!("<answer>{value}</answer>");
    };
    let (mut read, mut chosen) = (Vec::new(), LETTERS[0]);
    for (letter, option) in LETTERS.into_iter().zip(options) {
        read.push(format!("{letter}: {option}"));
        if option == value {
            chosen = letter;
            break;
        }
    }
    // Said once more: the option that is the same is then found beside it.
    let read = read.join(", ");
    format!("It is {value}. Options: {read}.\n<answer>{chosen}</answer>")
}

pub(super) fn find(
    colour: Colour,
    frames: impl Iterator<Item = Scanned>,
    options: Option<&[String; 4]>,
) -> String {
    let (text, sight) = look_for(&[colour], frames);
    match sight {
        Some((second, _)) => format!("{text}\n{}", sighted(colour, second)),
        None => format!(
            "{text}\nReflection: No frame shows the {colour} card.\n{}",
            conclusion("none", options)
        ),
    }
}

pub(super) fn order(
    colours: [Colour; 2],
    frames: impl Iterator<Item = Scanned>,
    options: Option<&[String; 4]>,
) -> String {
    let (text, sight) = look_for(&colours, frames);
    let (reflection, value) = match sight {
        Some((_, first)) => ("That is the first of the two.", first.to_string()),
        None => ("No frame shows either card.", "none".to_owned()),
    };
    format!(
        "{text}\nReflection: {reflection}\n{}",
        conclusion(&value, options)
    )
}

pub(super) fn count(
    frames: impl Iterator<Item = (u32, bool)>,
    options: Option<&[String; 4]>,
) -> String {
    let mut text = "Summary:".to_owned();
    let (mut counted, mut was_dark) = (0_u32, false);
    for (index, (second, dark)) in frames.enumerate() {
        counted += u32::from(dark && !was_dark);
        was_dark = dark;
        let shown = if dark { "dark" } else { "bright" };
        text += &format!("\nFrame {index} at [{}]: {shown} {counted}", clock(second));
    }
    format!(
        "{text}\nReflection: That was the whole window.\n{}",
        conclusion(&counted.to_string(), options)
    )
}

/// Goes through frames up to the first one with a card of one of `colours`: what is written, and that
/// frame's label and colour.
pub(super) fn look_for(
    colours: &[Colour],
    frames: impl Iterator<Item = Scanned>,
) -> (String, Option<(u32, Colour)>) {
    let mut text = "Summary:".to_owned();
    for (index, (second, shown)) in frames.enumerate() {
        let name = shown.map_or("none".to_owned(), |shown| shown.to_string());
        text += &format!("\nFrame {index} at [{}]: {name}", clock(second));
        if let Some(colour) = shown.filter(|shown| colours.contains(shown)) {
            return (text, Some((second, colour)));
        }
    }
    (text, None)
}

/// The card is found in a scan: zoom in at `second`.
pub(super) fn sighted(colour: Colour, second: u32) -> String {
    format!(
        "Reflection: That is the {colour} card, too small to read.\n\
         Plan: {} is {}. Zoom in.\n{}",
        clock(second),
        sum(second),
        zoom(second, "1.0")
    )
}

/// `180 + 15 = 195 s`: from a clock's minutes and seconds to seconds.
pub(super) fn sum(second: u32) -> String {
    let (minutes, rest) = (second / 60 * 60, second % 60);
    format!("{minutes} + {rest} = {second} s")
}

/// The call for one frame just after `second`.
pub(super) fn zoom(second: u32, resize: &str) -> String {
    call(second, second + ZOOM_SECONDS, 1, resize)
}

pub(super) fn call(start: u32, end: u32, nframes: u32, resize: &str) -> String {
    format!(
        "<tool_call>{{\"tool\": \"frame_select\", \"arguments\": {{\"start_time\": {start}, \
         \"end_time\": {end}, \"nframes\": {nframes}, \"resize\": {resize}}}}}</tool_call>"
    )
}
