//! The best course of action, scripted: [`Expert`].

use core::fmt;
use std::sync::Arc;

use eva_core::{Message, Policy, Role, Usage};

use super::look::{self, SCAN_FRAMES, ZOOM_SECONDS, clock};
use super::{Colour, Question, Subject, World, stated_length};

/// A policy that knows the world: it plans, looks and answers as a perfect model would.
///
/// It looks at no picture, so it works with any picture type. Which turn it is, it sees from the
/// number of replies in the conversation; reports are those of the frames that its own calls
/// fetch at those times.
///
/// A question of a moment takes one sharp frame. A question of a colour takes a scan of the whole
/// video at a tenth of its size, then one sharp frame, or none if the scan does not show the
/// colour.
#[derive(Debug, Clone)]
pub struct Expert {
    world: Arc<World>,
    question: Question,
}

impl Expert {
    /// The expert for one question about one world.
    #[must_use]
    pub const fn new(world: Arc<World>, question: Question) -> Self {
        Self { world, question }
    }

    /// What it writes in turn number `turn`, counted from 0. After its answer it repeats it.
    #[must_use]
    pub fn reply(&self, turn: usize) -> String {
        match (self.question.subject, turn) {
            (Subject::Moment(second), 0) => {
                let plan = format!("The time is {}, which is {}.", clock(second), sum(second));
                format!("Plan: {plan} One sharp frame will do.\n{}", zoom(second))
            }
            (Subject::Moment(second), _) => self.answer(second),
            (Subject::Colour(_), 0) => {
                let plan = "The question names no time. Scan the whole video cheaply.";
                let length = stated_length(self.world.duration());
                format!("Plan: {plan}\n{}", call(0, length, SCAN_FRAMES, "0.1"))
            }
            (Subject::Colour(colour), 1) => report(colour, self.scanned()),
            (Subject::Colour(colour), _) => match self.sight(colour) {
                None => report(colour, self.scanned()),
                Some(second) => self.answer(second),
            },
        }
    }

    /// The label of the scan frame to zoom into for the card of `colour`.
    fn sight(&self, colour: Colour) -> Option<u32> {
        let mut cards = self.world.cards().iter();
        let card = cards.find(|card| card.colour == colour)?;
        Some(look::sight(self.world.duration(), card)?.label)
    }

    /// The label of each frame of the scan, and the colour of the card in it.
    fn scanned(&self) -> impl Iterator<Item = (u32, Option<Colour>)> {
        let scan = look::scan(self.world.duration());
        (0..scan.nframes).map(move |index| {
            let card = self.world.card_at(scan.time(index));
            (
                scan.label_seconds(index) as u32,
                card.map(|card| card.colour),
            )
        })
    }

    /// What the frame shows that a zoom at `second` fetched.
    fn answer(&self, second: u32) -> String {
        let time = look::zoom_time(self.world.duration(), second);
        let (seen, enough, answer) = match self.world.card_at(time) {
            Some(card) => (
                format!("a {} card with the digit {}", card.colour, card.digit),
                "enough",
                card.digit.to_string(),
            ),
            None => ("no card".to_owned(), "missing", "none".to_owned()),
        };
        format!(
            "Summary: The frame shows {seen}.\n\
             Reflection: The evidence is {enough}.\n\
             <answer>{answer}</answer>"
        )
    }
}

/// What it writes after a scan that was to find the card of `colour`; `frames` are the scan's, each
/// by its label in seconds and the colour of the card in it.
///
/// It goes through the scan frame by frame (the paper's Summary), and stops at the first one that
/// shows the card to zoom in there. So the time to zoom to is the last one written: a small model
/// learns that far sooner than to look it up once the whole scan is summed up.
pub fn report(colour: Colour, frames: impl Iterator<Item = (u32, Option<Colour>)>) -> String {
    let mut text = "Summary:".to_owned();
    for (index, (second, shown)) in frames.enumerate() {
        let time = clock(second);
        text += &format!("\nFrame {index} at [{time}]: ");
        text += &shown.map_or("none".to_owned(), |shown| shown.to_string());
        if shown == Some(colour) {
            return format!(
                "{text}\n\
                 Reflection: That is the {colour} card, too small to read.\n\
                 Plan: {time} is {}. Zoom in.\n{}",
                sum(second),
                zoom(second)
            );
        }
    }
    format!(
        "{text}\n\
         Reflection: No frame shows the {colour} card.\n\
         <answer>none</answer>"
    )
}

/// `180 + 15 = 195 s`: from a clock's minutes and seconds to seconds.
fn sum(second: u32) -> String {
    let (minutes, rest) = (second / 60 * 60, second % 60);
    format!("{minutes} + {rest} = {second} s")
}

fn zoom(second: u32) -> String {
    call(second, second + ZOOM_SECONDS, 1, "1.0")
}

fn call(start: u32, end: u32, nframes: u32, resize: &str) -> String {
    format!(
        "<tool_call>{{\"tool\": \"frame_select\", \"arguments\": {{\"start_time\": {start}, \
         \"end_time\": {end}, \"nframes\": {nframes}, \"resize\": {resize}}}}}</tool_call>"
    )
}

impl<P> Policy<P> for Expert {
    /// Only the host's own writer can fail.
    type Error = fmt::Error;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        let own = |message: &&Message<'_, P>| message.role == Role::Assistant;
        let turn = conversation.iter().filter(own).count();
        reply.write_str(&self.reply(turn))?;
        Ok(Usage::default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::{Card, Kind};

    /// A world of 600 s with one red 7 on screen from 190 to 250 s.
    fn small() -> Arc<World> {
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
        Arc::new(world)
    }

    fn expert(subject: Subject) -> Expert {
        let question = Question {
            kind: Kind::Find,
            subject,
            text: String::new(),
            answer: String::new(),
        };
        Expert::new(small(), question)
    }

    #[test]
    fn a_moment_takes_one_sharp_frame() {
        let expert = expert(Subject::Moment(195));
        assert_eq!(
            expert.reply(0),
            "Plan: The time is 03:15, which is 180 + 15 = 195 s. One sharp frame will do.\n\
             <tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 195, \
             \"end_time\": 197, \"nframes\": 1, \"resize\": 1.0}}</tool_call>"
        );
        let last = "Summary: The frame shows a red card with the digit 7.\n\
                    Reflection: The evidence is enough.\n<answer>7</answer>";
        assert_eq!(expert.reply(1), last);
        assert_eq!(expert.reply(5), last);
    }

    #[test]
    fn a_colour_takes_a_scan_and_a_zoom() {
        let expert = expert(Subject::Colour(Colour::Red));
        assert_eq!(
            expert.reply(0),
            "Plan: The question names no time. Scan the whole video cheaply.\n\
             <tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 0, \
             \"end_time\": 599, \"nframes\": 16, \"resize\": 0.1}}</tool_call>"
        );
        // Scan frames of a 600 s video come every 39.93 s.
        assert_eq!(
            expert.reply(1),
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
        );
        assert!(expert.reply(2).ends_with("<answer>7</answer>"));
    }

    #[test]
    fn a_colour_that_is_not_there_takes_a_scan_only() {
        let reply = expert(Subject::Colour(Colour::Blue)).reply(1);
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
            expert(Subject::Moment(20)).reply(1),
            "Summary: The frame shows no card.\n\
             Reflection: The evidence is missing.\n<answer>none</answer>"
        );
    }

    #[test]
    fn it_is_always_right_and_tells_its_turn_from_the_conversation() {
        for seed in 0..500 {
            let world = Arc::new(World::new(seed));
            for &kind in Kind::ALL {
                let question = world.question(kind, seed);
                let right = format!("<answer>{}</answer>", question.answer);
                let mut expert = Expert::new(world.clone(), question);
                let (mut replies, mut conversation) = (0, Vec::<Message<'_, ()>>::new());
                loop {
                    let mut reply = String::new();
                    expert.generate(&conversation, &mut reply).unwrap();
                    replies += 1;
                    if reply.contains("<answer>") {
                        assert!(reply.ends_with(&right), "seed {seed}, {kind:?}: {reply}");
                        break;
                    }
                    for role in [Role::Assistant, Role::Tool] {
                        conversation.push(Message { role, parts: &[] });
                    }
                }
                let expected = if kind == Kind::Find { 3 } else { 2 };
                assert_eq!(replies, expected, "seed {seed}, {kind:?}");
            }
        }
    }
}
