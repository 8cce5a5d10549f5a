//! What the [`Expert`](super::Expert) and the [`Teacher`](super::Teacher) write, turn by turn.

use super::look::{self, SCAN_FRAMES, clock, stated_length};
use super::report::{Scanned, call, conclusion, count, find, look_for, order, sighted, sum, zoom};
use super::{Colour, Flaw, Question, Subject, World};

/// Frames of a scan that is denser than need be.
pub(super) const DENSE_FRAMES: u32 = 2 * SCAN_FRAMES;
/// Frames of a look at blinking that is too sparse to meet every phase.
pub(super) const SPARSE_FRAMES: u32 = 6;

/// A run about to be written.
pub(super) struct Script<'a> {
    pub(super) world: &'a World,
    pub(super) question: &'a Question,
    pub(super) flaws: &'a [Flaw],
    pub(super) guess: &'a str,
}

impl Script<'_> {
    /// All replies in order; the last one answers.
    pub(super) fn course(&self) -> Vec<String> {
        match self.question.subject {
            Subject::Moment(second) => self.named("One sharp frame will do.", second, "1.0", {
                self.digit(second)
            }),
            Subject::Background(second) => {
                let resize = if self.has(Flaw::Oversharp) {
                    "1.0"
                } else {
                    "0.5"
                };
                self.named(
                    "One frame will do.",
                    second,
                    resize,
                    self.background(second),
                )
            }
            Subject::Colour(colour) => self.colour(colour),
            Subject::Order(colours) => {
                let report = order(colours, self.scanned().into_iter(), self.options());
                vec![self.scan(), report]
            }
            Subject::Darkness { start, end } => self.darkness(start, end),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaws.contains(&flaw)
    }

    fn options(&self) -> Option<&[String; 4]> {
        self.question.options.as_ref()
    }

    /// The course of a question that names a time: one frame, then what it shows.
    fn named(&self, plan: &str, second: u32, resize: &str, last: String) -> Vec<String> {
        let mut look = format!(
            "Plan: The time is {}, which is {}. {plan}\n{}",
            clock(second),
            sum(second),
            zoom(second, resize)
        );
        let mut course = Vec::new();
        if self.has(Flaw::NeedlessScan) {
            let length = stated_length(self.world.duration());
            let scan = call(0, length, SCAN_FRAMES, "0.1");
            course.push(format!("Plan: Scan the whole video first.\n{scan}"));
            look = format!(
                "Summary: That was the whole video.\n\
                 Reflection: The question names a time.\n{look}"
            );
        }
        course.extend([look, last]);
        course
    }

    fn colour(&self, colour: Colour) -> Vec<String> {
        let frames = self.scanned();
        let mut course = vec![self.scan()];
        let Some((_, second)) = self.sight() else {
            course.push(find(colour, frames.into_iter(), self.options()));
            return course;
        };
        if self.has(Flaw::Guess) {
            let (text, _) = look_for(&[colour], frames.into_iter());
            let guess = self.guess;
            course.push(format!(
                "{text}\nReflection: That is the {colour} card. Its digit may be {guess}.\n{}",
                conclusion(guess, self.options())
            ));
            return course;
        }
        match self.miss().filter(|_| self.has(Flaw::FailedZoom)) {
            None => course.push(find(colour, frames.into_iter(), self.options())),
            Some(missed) => {
                let (text, _) = look_for(&[colour], frames.into_iter());
                course.push(format!("{text}\n{}", sighted(colour, missed)));
                course.push(format!(
                    "Summary: The frame shows no card.\n\
                     Reflection: The evidence is missing. The frame at [{time}] showed it.\n\
                     Plan: {time} is {}. Zoom in there.\n{}",
                    sum(second),
                    zoom(second, "1.0"),
                    time = clock(second),
                ));
            }
        }
        course.push(self.digit(second));
        course
    }

    fn darkness(&self, start: u32, end: u32) -> Vec<String> {
        let nframes = if self.has(Flaw::SparseCount) {
            SPARSE_FRAMES
        } else {
            SCAN_FRAMES
        };
        let look = format!(
            "Plan: From {}, which is {}, to {}, which is {}. Look at many small frames.\n{}",
            clock(start),
            sum(start),
            clock(end),
            sum(end),
            call(start, end, nframes, "0.1")
        );
        let watched = look::watched(self.world.duration(), start, end, nframes);
        let frames = (0..nframes).map(|index| {
            let label = watched.label_seconds(index) as u32;
            (label, self.world.dark_at(watched.time(index)))
        });
        vec![look, count(frames, self.options())]
    }

    /// The call for a scan.
    fn scan(&self) -> String {
        let plan = "The question names no time. Scan the whole video cheaply.";
        let length = stated_length(self.world.duration());
        format!(
            "Plan: {plan}\n{}",
            call(0, length, self.scan_frames(), "0.1")
        )
    }

    fn scan_frames(&self) -> u32 {
        if self.has(Flaw::DenseScan) {
            DENSE_FRAMES
        } else {
            SCAN_FRAMES
        }
    }

    /// What the scan shows.
    fn scanned(&self) -> Vec<Scanned> {
        let scan = look::scan(self.world.duration(), self.scan_frames());
        let frame = |index| {
            let card = self.world.card_at(scan.time(index));
            let label = scan.label_seconds(index) as u32;
            (label, card.map(|card| card.colour))
        };
        (0..scan.nframes).map(frame).collect()
    }

    /// The number and label of the first scan frame that shows the card in question.
    pub(super) fn sight(&self) -> Option<(usize, u32)> {
        let Subject::Colour(colour) = self.question.subject else {
            return None;
        };
        let mut frames = self.scanned().into_iter().enumerate();
        let (index, (label, _)) = frames.find(|(_, (_, shown))| *shown == Some(colour))?;
        Some((index, label))
    }

    /// The label of a scan frame next to the first one that shows the card, where a zoom shows no
    /// card at all: a slip of the eye.
    pub(super) fn miss(&self) -> Option<u32> {
        let (sight, _) = self.sight()?;
        let frames = self.scanned();
        let near = [
            sight.checked_sub(1),
            sight.checked_add(1),
            sight.checked_add(2),
        ];
        near.into_iter().flatten().find_map(|index| {
            let &(label, shown) = frames.get(index)?;
            let time = look::zoom_time(self.world.duration(), label);
            (shown.is_none() && self.world.card_at(time).is_none()).then_some(label)
        })
    }

    /// The digit that a zoom at `second` shows.
    fn digit(&self, second: u32) -> String {
        let time = look::zoom_time(self.world.duration(), second);
        let (seen, enough, value) = match self.world.card_at(time) {
            Some(card) => (
                format!("a {} card with the digit {}", card.colour, card.digit),
                "enough",
                card.digit.to_string(),
            ),
            None => ("no card".to_owned(), "missing", "none".to_owned()),
        };
        self.shown(&seen, enough, &value)
    }

    /// The background that a zoom at `second` shows.
    fn background(&self, second: u32) -> String {
        let time = look::zoom_time(self.world.duration(), second);
        let pattern = self.world.pattern_at(time).to_string();
        self.shown(&format!("the background {pattern}"), "enough", &pattern)
    }

    fn shown(&self, seen: &str, enough: &str, value: &str) -> String {
        format!(
            "Summary: The frame shows {seen}.\n\
             Reflection: The evidence is {enough}.\n{}",
            conclusion(value, self.options())
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::{Blinks, Card, Kind, Pattern, PatternSpan, order_report};

    /// A world of 600 s: a red 7 from 190 to 250 s, dots from 300 to 320 s, dark twice from 400 s.
    fn small() -> World {
        let mut world = World::new(0);
        world.length = 600;
        world.cards = vec![Card {
            colour: Colour::Red,
            digit: 7,
            start: 190.0,
            end: 250.0,
            x: 28,
            y: 28,
        }];
        world.changes.patterns = vec![PatternSpan {
            pattern: Pattern::Dots,
            start: 300.0,
            end: 320.0,
        }];
        world.changes.blinks = Some(Blinks {
            start: 400,
            dark: vec![(401.0, 401.75), (405.0, 406.0)],
        });
        world
    }

    fn course_of(subject: Subject, flaws: &[Flaw], options: Option<[&str; 4]>) -> Vec<String> {
        let mut question = Question::open(Kind::Find, subject, String::new(), String::new());
        question.options = options.map(|options| options.map(str::to_owned));
        let script = Script {
            world: &small(),
            question: &question,
            flaws,
            guess: "4",
        };
        script.course()
    }

    fn course(subject: Subject) -> Vec<String> {
        course_of(subject, &[], None)
    }

    const READ: &str = "Summary: The frame shows a red card with the digit 7.\n\
                        Reflection: The evidence is enough.\n";

    #[test]
    fn a_moment_takes_one_sharp_frame() {
        let expected = [
            "Plan: The time is 03:15, which is 180 + 15 = 195 s. One sharp frame will do.\n\
             <tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 195, \
             \"end_time\": 197, \"nframes\": 1, \"resize\": 1.0}}</tool_call>"
                .to_owned(),
            format!("{READ}<answer>7</answer>"),
        ];
        assert_eq!(course(Subject::Moment(195)), expected);
    }

    #[test]
    fn a_colour_takes_a_scan_and_a_zoom() {
        let expected = [
            "Plan: The question names no time. Scan the whole video cheaply.\n\
             <tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 0, \
             \"end_time\": 599, \"nframes\": 16, \"resize\": 0.1}}</tool_call>"
                .to_owned(),
            // Scan frames of a 600 s video come every 39.93 s.
            "Summary:\n\
             Frame 0 at [00:00]: none\n\
             Frame 1 at [00:39]: none\n\
             Frame 2 at [01:19]: none\n\
             Frame 3 at [01:59]: none\n\
             Frame 4 at [02:39]: none\n\
             Frame 5 at [03:19]: red\n\
             Reflection: That is the red card, too small to read.\n\
             Plan: 03:19 is 180 + 19 = 199 s. Zoom in.\n\
             <tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 199, \
             \"end_time\": 201, \"nframes\": 1, \"resize\": 1.0}}</tool_call>"
                .to_owned(),
            format!("{READ}<answer>7</answer>"),
        ];
        assert_eq!(course(Subject::Colour(Colour::Red)), expected);
    }

    #[test]
    fn a_colour_that_is_not_there_takes_a_scan_only() {
        let course = course(Subject::Colour(Colour::Blue));
        assert_eq!(course.len(), 2);
        let reply = &course[1];
        assert!(reply.starts_with("Summary:\nFrame 0 at [00:00]: none\n"));
        assert!(reply.contains("\nFrame 5 at [03:19]: red\nFrame 6 at [03:59]: red\nFrame 7"));
        assert!(reply.ends_with(
            "\nFrame 15 at [09:59]: none\n\
             Reflection: No frame shows the blue card.\n<answer>none</answer>"
        ));
    }

    #[test]
    fn a_frame_without_a_card_is_reported_as_such() {
        assert_eq!(
            course(Subject::Moment(20))[1],
            "Summary: The frame shows no card.\n\
             Reflection: The evidence is missing.\n<answer>none</answer>"
        );
    }

    #[test]
    fn a_background_takes_one_frame_at_half_the_size() {
        let expected = [
            "Plan: The time is 05:10, which is 300 + 10 = 310 s. One frame will do.\n\
             <tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 310, \
             \"end_time\": 312, \"nframes\": 1, \"resize\": 0.5}}</tool_call>",
            "Summary: The frame shows the background dots.\n\
             Reflection: The evidence is enough.\n<answer>dots</answer>",
        ];
        assert_eq!(course(Subject::Background(310)), expected);
    }

    #[test]
    fn an_order_takes_the_scan_alone() {
        let course = course(Subject::Order([Colour::Blue, Colour::Red]));
        assert_eq!(course.len(), 2);
        assert!(course[1].ends_with(
            "\nFrame 5 at [03:19]: red\n\
             Reflection: That is the first of the two.\n<answer>red</answer>"
        ));
        let none = order_report([Colour::Blue, Colour::White], [(3, None)].into_iter());
        assert!(none.ends_with("Reflection: No frame shows either card.\n<answer>none</answer>"));
    }

    #[test]
    fn a_count_takes_many_small_frames_of_its_window() {
        let expected = [
            "Plan: From 06:40, which is 360 + 40 = 400 s, to 06:48, which is 360 + 48 = 408 s. \
             Look at many small frames.\n\
             <tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 400, \
             \"end_time\": 408, \"nframes\": 16, \"resize\": 0.1}}</tool_call>",
            "Summary:\n\
             Frame 0 at [06:40]: bright 0\n\
             Frame 1 at [06:40]: bright 0\n\
             Frame 2 at [06:41]: dark 1\n\
             Frame 3 at [06:41]: dark 1\n\
             Frame 4 at [06:42]: bright 1\n\
             Frame 5 at [06:42]: bright 1\n\
             Frame 6 at [06:43]: bright 1\n\
             Frame 7 at [06:43]: bright 1\n\
             Frame 8 at [06:44]: bright 1\n\
             Frame 9 at [06:44]: bright 1\n\
             Frame 10 at [06:45]: dark 2\n\
             Frame 11 at [06:45]: dark 2\n\
             Frame 12 at [06:46]: bright 2\n\
             Frame 13 at [06:46]: bright 2\n\
             Frame 14 at [06:47]: bright 2\n\
             Frame 15 at [06:48]: bright 2\n\
             Reflection: That was the whole window.\n<answer>2</answer>",
        ];
        let subject = Subject::Darkness {
            start: 400,
            end: 408,
        };
        assert_eq!(course(subject), expected);
        // 1.6 s apart, at 400, 401.6, 403.2, 404.8, 406.4 and 408: the second one is missed.
        let sparse = course_of(subject, &[Flaw::SparseCount], None);
        assert!(sparse[0].contains("\"nframes\": 6,"));
        assert!(sparse[1].contains("\nFrame 1 at [06:41]: dark 1\nFrame 2 at [06:43]: bright 1\n"));
        assert!(sparse[1].ends_with("<answer>1</answer>"));
    }

    #[test]
    fn options_are_gone_through_up_to_the_right_one() {
        let subject = Subject::Moment(195);
        let last = |options| course_of(subject, &[], Some(options)).pop().unwrap();
        let options = format!("{READ}It is 7. Options: A: 3, B: 7.\n<answer>B</answer>");
        assert_eq!(last(["3", "7", "none", "9"]), options);
        let without =
            format!("{READ}It is 7. Options: A: 3, B: 4, C: none, D: 9.\n<answer>A</answer>");
        assert_eq!(last(["3", "4", "none", "9"]), without);
        let absent = Subject::Colour(Colour::Blue);
        let absent = course_of(absent, &[], Some(["none", "1", "2", "3"]));
        assert!(absent[1].ends_with("card.\nIt is none. Options: A: none.\n<answer>A</answer>"));
    }

    #[test]
    fn flaws_change_the_course() {
        let find = Subject::Colour(Colour::Red);
        let guess = course_of(find, &[Flaw::Guess], None);
        assert_eq!(guess.len(), 2);
        assert!(guess[1].ends_with(
            "\nFrame 5 at [03:19]: red\nReflection: That is the red card. Its digit may be 4.\n\
             <answer>4</answer>"
        ));
        let failed = course_of(find, &[Flaw::FailedZoom], None);
        assert_eq!(failed.len(), 4);
        assert!(failed[1].contains("Plan: 02:39 is 120 + 39 = 159 s. Zoom in.\n"));
        assert!(failed[2].starts_with(
            "Summary: The frame shows no card.\n\
             Reflection: The evidence is missing. The frame at [03:19] showed it.\n\
             Plan: 03:19 is 180 + 19 = 199 s. Zoom in there.\n<tool_call>"
        ));
        assert_eq!(failed[3], course(find)[2]);
        let dense = course_of(find, &[Flaw::DenseScan], None);
        assert!(dense[0].contains("\"nframes\": 32,"));
        // 19.32 s apart.
        assert!(dense[1].contains("\nFrame 10 at [03:13]: red\nReflection"));
        let needless = course_of(Subject::Moment(195), &[Flaw::NeedlessScan], None);
        let [plan, last] = <[String; 2]>::try_from(course(Subject::Moment(195))).unwrap();
        assert!(needless[0].starts_with("Plan: Scan the whole video first.\n<tool_call>"));
        assert!(needless[0].contains("\"end_time\": 599, \"nframes\": 16, \"resize\": 0.1"));
        assert!(needless[1].ends_with(&format!("names a time.\n{plan}")));
        assert_eq!((needless.len(), &needless[2]), (3, &last));
        let sharp = course_of(Subject::Background(310), &[Flaw::Oversharp], None);
        assert!(sharp[0].contains("\"resize\": 1.0"));
    }
}
