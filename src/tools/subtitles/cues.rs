//! Reading SubRip and WebVTT: [`Subtitles`].

use std::io;
use std::path::{Path, PathBuf};

use subtp::vtt::{VttBlock, VttTimestamp, WebVtt};

/// What stands between the two times of a cue.
const ARROW: &str = "-->";
const SIGNATURE: &str = "WEBVTT";

/// A line of subtitles and when it is on screen.
#[derive(Debug, Clone, PartialEq)]
pub struct Cue {
    /// When it comes up, in seconds.
    pub start: f64,
    /// When it goes, in seconds; not before `start`.
    pub end: f64,
    /// The text as one line, without markup.
    pub text: String,
}

/// The subtitles of a video, in order of time.
///
/// Files are read forgivingly, since hardly one is without fault: a cue that can't be read is passed
/// over ([`Subtitles::skipped`] counts them), the others are kept. With or without a byte order mark,
/// with any line ends; times with a comma or a point, with or without hours; cue settings, comments,
/// styles and regions are passed over, tags are taken out (`<v Ann>` becomes `Ann:`).
///
/// A SubRip cue is a WebVTT cue but for the comma, so one grammar reads both: that of the crate
/// `subtp`. It takes a file as a whole or not at all, hence each cue is given to it alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subtitles {
    cues: Vec<Cue>,
    skipped: usize,
}

/// A file holds no subtitles that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubtitlesError {
    /// The file can't be read.
    #[error("cannot read the subtitles {}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no cue in it. (A WebVTT file without any is in order.)
    #[error(
        "no subtitles in SubRip or WebVTT format were found: each needs a line such as \
         \"00:01:02,000 --> 00:01:04,500\" ({skipped} could not be read)"
    )]
    NoCues {
        /// Cues that can't be read.
        skipped: usize,
    },
}

impl Subtitles {
    /// Reads a `.srt` or `.vtt` file. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`SubtitlesError::Io`], and as [`Subtitles::parse`].
    pub fn open(file: impl AsRef<Path>) -> Result<Self, SubtitlesError> {
        let file = file.as_ref();
        let bytes = std::fs::read(file).map_err(|source| SubtitlesError::Io {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Reads the text of a SubRip or WebVTT file.
    ///
    /// # Errors
    /// [`SubtitlesError::NoCues`] when there is none, and no `WEBVTT` at the beginning either.
    pub fn parse(text: &str) -> Result<Self, SubtitlesError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut subtitles = Self::default();
        for block in blocks(&text) {
            // A block without times is a header, a comment, a style, or nothing known.
            let Some(times) = block.iter().position(|line| line.contains(ARROW)) else {
                continue;
            };
            match cue(block.get(times..).unwrap_or_default()) {
                Some(cue) if cue.text.is_empty() => {}
                Some(cue) => subtitles.cues.push(cue),
                None => subtitles.skipped += 1,
            }
        }
        if subtitles.cues.is_empty() && !text.starts_with(SIGNATURE) {
            let skipped = subtitles.skipped;
            return Err(SubtitlesError::NoCues { skipped });
        }
        subtitles.cues.sort_by(|a, b| a.start.total_cmp(&b.start));
        Ok(subtitles)
    }

    /// All cues.
    #[must_use]
    pub fn cues(&self) -> &[Cue] {
        &self.cues
    }

    /// How many cues could not be read.
    #[must_use]
    pub const fn skipped(&self) -> usize {
        self.skipped
    }

    /// The cues that are on screen between `start` and `end` (seconds), or at `start` if both are
    /// one.
    pub fn between(&self, start: f64, end: f64) -> impl Iterator<Item = &Cue> {
        self.cues.iter().filter(move |cue| {
            (cue.start < end && start < cue.end) || (start == end && cue.start == start)
        })
    }
}

/// The lines between empty ones.
fn blocks(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        while lines.next_if(|line| line.trim().is_empty()).is_some() {}
        lines.peek()?;
        let block = std::iter::from_fn(|| lines.next_if(|line| !line.trim().is_empty()));
        Some(block.collect())
    })
}

/// A cue from its line of times on.
fn cue(lines: &[&str]) -> Option<Cue> {
    let (times, text) = lines.split_first()?;
    let (start, rest) = times.split_once(ARROW)?;
    // Behind the end are settings, of which the grammar refuses all but the standard's.
    let end = rest.split_whitespace().next()?;
    let file = format!(
        "{SIGNATURE}\n\n{} {ARROW} {}\n-\n",
        stamp(start),
        stamp(end)
    );
    let block = WebVtt::parse(&file).ok()?.blocks.pop()?;
    let VttBlock::Que(read) = block else {
        return None;
    };
    let start = seconds(read.timings.start);
    Some(Cue {
        start,
        end: seconds(read.timings.end).max(start),
        text: plain(&text.join(" ")),
    })
}

/// A time as WebVTT writes it: a point for SubRip's comma, two digits for the hour.
fn stamp(time: &str) -> String {
    let time = time.trim().replace(',', ".");
    let one_digit = time.find(':') == Some(1);
    if one_digit { format!("0{time}") } else { time }
}

fn seconds(time: VttTimestamp) -> f64 {
    let VttTimestamp {
        hours,
        minutes,
        seconds,
        milliseconds,
    } = time;
    let whole = (u32::from(hours) * 60 + u32::from(minutes)) * 60 + u32::from(seconds);
    f64::from(whole) + f64::from(milliseconds) / 1000.0
}

/// The text without tags, with the characters that WebVTT escapes, and single spaces.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['<', '{']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        match tag(from) {
            Some((name, behind)) => {
                if let Some(speaker) = name.strip_prefix("v ") {
                    out.push_str(speaker.trim());
                    out.push_str(": ");
                } else if name.eq_ignore_ascii_case("br") || name.eq_ignore_ascii_case("br/") {
                    out.push(' ');
                }
                rest = behind;
            }
            None => {
                // One character, and a bracket is one byte.
                let (bracket, behind) = from.split_at(1);
                out.push_str(bracket);
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    let out = unescaped(&out);
    let words: Vec<&str> = out.split_whitespace().collect();
    words.join(" ")
}

/// What is inside a tag at the beginning of `text`, and what follows it: `<i>`, `</c>`,
/// `<00:01.500>`, or `{\an8}`. Other brackets are text: `I <3 you`.
fn tag(text: &str) -> Option<(&str, &str)> {
    let inner = text.get(1..)?;
    let (name, behind) = if text.starts_with('{') {
        let (name, behind) = inner.split_once('}')?;
        name.starts_with('\\').then_some((name, behind))?
    } else {
        inner.split_once('>')?
    };
    let first = name.trim_start_matches('/').chars().next();
    let is_time = || {
        name.contains(':') && (name.chars()).all(|c| c.is_ascii_digit() || matches!(c, ':' | '.'))
    };
    let is_tag = match first {
        None | Some('\\') => true,
        Some(c) => c.is_ascii_alphabetic() || is_time(),
    };
    (is_tag && !name.contains('<')).then_some((name, behind))
}

/// The six references that WebVTT's authors are told of; `&amp;` last, so that none is made anew.
fn unescaped(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&nbsp;", " "),
        ("&lrm;", ""),
        ("&rlm;", ""),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (reference, character)| {
        text.replace(reference, character)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const HELLO: &str = "1.000-2.000 Hello";

    /// All cues, in short.
    fn read(text: &str) -> Vec<String> {
        let subtitles = Subtitles::parse(text).unwrap();
        let cues = subtitles.cues().iter();
        cues.map(|cue| format!("{:.3}-{:.3} {}", cue.start, cue.end, cue.text))
            .collect()
    }

    #[test]
    fn subrip_is_read() {
        let text = "1\n00:00:01,000 --> 00:00:02,000\nHello\nyou\n\n\
                    2\n01:02:03,004 --> 01:02:05,000\nagain\n";
        assert_eq!(
            read(text),
            ["1.000-2.000 Hello you", "3723.004-3725.000 again"]
        );
    }

    #[test]
    fn webvtt_is_read() {
        let text = "WEBVTT - a title\nKind: captions\n\nNOTE\nnothing\n\n\
                    STYLE\n::cue { color: red }\n\nREGION\nid:fred\n\n\
                    intro\n00:01.000 --> 00:02.000 position:10%,line-left align:middle foo:bar\n\
                    Hello\n\n01:00:00.000 --> 01:00:01.000\nagain";
        assert_eq!(read(text), [HELLO, "3600.000-3601.000 again"]);
        assert!(read("WEBVTT").is_empty());
        assert!(read("WEBVTT\n\n").is_empty());
    }

    #[test]
    fn faults_of_real_files_are_forgiven() {
        for text in [
            "1\n00:00:01,000 --> 00:00:02,000\nHello",
            "\u{feff}1\n00:00:01,000 --> 00:00:02,000\nHello\n",
            "1\r\n00:00:01,000 --> 00:00:02,000\r\nHello\r\n\r\n",
            "1\r00:00:01,000 --> 00:00:02,000\rHello\r",
            "1\n00:00:01.000 --> 00:00:02.000\nHello\n",
            "00:00:01,000-->00:00:02,000\nHello\n",
            "1\n0:00:01,000 --> 0:00:02,000\nHello\n",
            "1 \n 00:00:01,000  -->\t00:00:02,000 \n  Hello \n",
            "1\n00:00:01,000 --> 00:00:02,000 X1:1 X2:2 Y1:3 Y2:4\nHello\n",
            "\n \n\n1\n\n00:00:01,000 --> 00:00:02,000\nHello\n\n\n\nno cue\n",
            "\u{feff}WEBVTT\r\n\r\n  00:01.000 --> 00:02.000\r\n  Hello\r\n",
        ] {
            assert_eq!(read(text), [HELLO], "{text:?}");
        }
    }

    #[test]
    fn cues_that_can_not_be_read_are_passed_over_and_counted() {
        let text = "1\n00:00:01,000 --> 00:00:02,000\nHello\n\n\
                    2\nsoon --> later\nno\n\n\
                    3\n99999999999999999999:00:01,000 --> 00:00:02,000\nno\n\n\
                    4\n00:00:03,000 -->\nno\n\n\
                    5\n00:00:03";
        let subtitles = Subtitles::parse(text).unwrap();
        assert_eq!((subtitles.cues().len(), subtitles.skipped()), (1, 3));
        for text in ["", "\n\n", "not a subtitle", "1\nsoon --> later\nno\n"] {
            let error = Subtitles::parse(text).unwrap_err().to_string();
            assert!(error.contains("00:01:02,000 --> 00:01:04,500"), "{error}");
        }
    }

    #[test]
    fn cues_come_in_order_and_never_end_before_they_start() {
        let text = "1\n00:00:09,000 --> 00:00:08,000\nlate\n\n\
                    2\n00:00:01,000 --> 00:00:02,000\nHello\n\n\
                    3\n00:00:05,000 --> 00:00:06,000\n\n";
        assert_eq!(read(text), [HELLO, "9.000-9.000 late"]);
        let subtitles = Subtitles::parse(text).unwrap();
        assert_eq!(subtitles.between(9.0, 9.0).count(), 1);
        assert_eq!(subtitles.between(2.0, 9.0).count(), 0);
    }

    #[test]
    fn markup_is_taken_out_and_text_is_left_alone() {
        for (text, expected) in [
            ("<i>Hello</i> <font color=\"red\">you</font>", "Hello you"),
            ("<v Ann Lee>Hello</v>", "Ann Lee: Hello"),
            ("<00:01.500><c.loud> Hello</c>", "Hello"),
            ("{\\an8}Hello<br/>you", "Hello you"),
            (
                "I <3 you, x < y > z {smiles}",
                "I <3 you, x < y > z {smiles}",
            ),
            ("a &amp; b &lt;i&gt; &amp;lt; &nbsp;c", "a & b <i> &lt; c"),
            ("Hello -- > <", "Hello -- > <"),
        ] {
            assert_eq!(plain(text), expected);
        }
        let arrow = "1\n00:00:01,000 --> 00:00:02,000\nA --> B\n";
        assert_eq!(read(arrow), ["1.000-2.000 A --> B"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Subtitles::open("no/such.srt").unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read the subtitles no/such.srt: "),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in prop_oneof![
            ".*",
            "(WEBVTT)?[\r\n 0-9:.,>a<&{}/-]{0,200}",
            "(1\n[0-9]{1,3}:[0-9]{1,3}:[0-9]{1,3}[,.][0-9]{0,4} --> [0-9:,.]{0,13}.{0,9}\n.{0,9}\n\n){0,5}",
        ]) {
            if let Ok(subtitles) = Subtitles::parse(&text) {
                for cue in subtitles.cues() {
                    prop_assert!(0.0 <= cue.start && cue.start <= cue.end);
                    prop_assert!(!cue.text.is_empty() && !cue.text.contains('\n'));
                }
            }
        }

        #[test]
        fn a_damaged_file_keeps_its_other_cues(at in 0_usize..120, byte in any::<u8>()) {
            let file: String = (0..4)
                .map(|i| format!("{i}\n00:00:0{i},000 --> 00:00:0{i},500\ncue {i}\n\n"))
                .collect();
            let mut bytes = file.into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let subtitles = Subtitles::parse(&String::from_utf8_lossy(&bytes)).unwrap();
            prop_assert!(subtitles.cues().len() >= 2);
        }
    }
}
