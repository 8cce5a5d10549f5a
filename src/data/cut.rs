//! Runs made to have insufficient evidence: [`cut`] takes most of a look away and lets the run notice.

use std::fmt;

use eva_core::reply::{self, Argument, FrameSelect};
use eva_core::trajectory::{CallRecord, PartRecord};
use eva_core::{Message, Policy, Role, Selection, Trajectory, Usage};
use rand::seq::IndexedRandom as _;

use super::dice::{Purpose, dice};
use crate::world::clock;

/// Least number of frames of a look that is cut.
const FRAMES: u32 = 4;
/// Least length of its window, in seconds.
const SECONDS: f64 = 8.0;
/// Parts of the window, of which one is left.
const PARTS: u32 = 4;

/// The replies of a run whose first wide look was cut, and the turn of that look.
///
/// The run begins as `trajectory` does; then it looks at a quarter of the window with a quarter of
/// the frames, a quarter in which the look that it answers from does not lie; it states what was
/// seen of the window, and that this is not enough; and it goes on as `trajectory` does. `None` when
/// no look is wide enough.
pub(super) fn cut(trajectory: &Trajectory, seed: u64, index: u64) -> Option<(u32, Vec<String>)> {
    let replies = replies(trajectory);
    let turn = trajectory.turns.iter().position(|turn| {
        let [call] = turn.calls.as_slice() else {
            return false;
        };
        call.selection.is_some_and(|look| {
            call.error.is_none() && look.nframes >= FRAMES && look.end - look.start >= SECONDS
        })
    })?;
    let [call] = trajectory.turns.get(turn)?.calls.as_slice() else {
        return None;
    };
    let look = call.selection?;
    // Where the answer is read from, if that is another look.
    let decisive = trajectory.selections().last().filter(|last| **last != look);
    let quarters: Vec<(u32, u32)> = (0..PARTS)
        .map(|part| quarter(&look, part))
        .filter(|(start, end)| start < end)
        .filter(|(start, end)| decisive.is_none_or(|other| apart(*start, *end, other)))
        .collect();
    let mut rng = dice(seed, Purpose::Cut, index);
    let (start, end) = *quarters.choose(&mut rng)?;
    let nframes = look.nframes / PARTS;
    let mut changed = replies.get(..turn)?.to_vec();
    changed.push(format!(
        "Plan: Look at {} to {} first.\n{}",
        clock(start),
        clock(end),
        written(start, end, nframes, resize(call)?)
    ));
    changed.push(format!(
        "Summary: {} shown, of {} to {} alone.\n\
         Reflection: That is not enough: the rest of {} to {} has not been seen, and what is asked \
         may be there. Look again.\n{}",
        if nframes == 1 {
            "1 frame was".to_owned()
        } else {
            format!("{nframes} frames were")
        },
        clock(start),
        clock(end),
        clock(look.start as u32),
        clock(look.end as u32),
        replies.get(turn)?
    ));
    changed.extend(replies.get(turn + 1..)?.iter().cloned());
    Some((u32::try_from(turn).ok()?, changed))
}

/// What the model wrote, turn by turn.
fn replies(trajectory: &Trajectory) -> Vec<String> {
    let own = trajectory.messages.iter();
    own.filter(|message| message.role == Role::Assistant)
        .map(|message| {
            let texts = message.parts.iter().filter_map(|part| match part {
                PartRecord::Text(text) => Some(text.as_str()),
                PartRecord::Image(_) => None,
            });
            texts.collect()
        })
        .collect()
}

fn quarter(look: &Selection, part: u32) -> (u32, u32) {
    let at = |part: u32| look.start + (look.end - look.start) * f64::from(part) / f64::from(PARTS);
    (at(part).ceil() as u32, at(part + 1).floor() as u32)
}

fn apart(start: u32, end: u32, look: &Selection) -> bool {
    f64::from(end) < look.start || f64::from(start) > look.end
}

/// The ratio as the call has it.
fn resize(call: &CallRecord) -> Option<f64> {
    match FrameSelect::parse(&call.arguments).ok()?.resize {
        Argument::Number(number) => Some(number.value),
        Argument::NotANumber => None,
    }
}

fn written(start: u32, end: u32, nframes: u32, resize: f64) -> String {
    format!(
        "<tool_call>{{\"tool\": \"{}\", \"arguments\": {{\"start_time\": {start}, \"end_time\": \
         {end}, \"nframes\": {nframes}, \"resize\": {resize}}}}}</tool_call>",
        reply::FRAME_SELECT
    )
}

/// Says given replies, one a turn, at no cost.
pub(super) struct Replay {
    replies: std::vec::IntoIter<String>,
}

impl Replay {
    pub(super) fn new(replies: Vec<String>) -> Self {
        Self {
            replies: replies.into_iter(),
        }
    }
}

impl<P> Policy<P> for Replay {
    type Error = fmt::Error;

    fn generate(
        &mut self,
        _: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        let text = self.replies.next().ok_or(fmt::Error)?;
        reply.write_str(&text)?;
        Ok(Usage::default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::{Expert, Kind, World, WorldSource};
    use eva_core::Session;
    use std::sync::Arc;

    fn run(kind: Kind, seed: u64) -> (Arc<World>, Trajectory) {
        let world = Arc::new(World::new(seed));
        let question = world.question(kind, seed);
        let text = question.text.clone();
        let expert = Expert::new(world.clone(), question);
        let report = Session::new(WorldSource::new(world.clone()), expert)
            .ask(&text)
            .unwrap();
        (world, report.trajectory)
    }

    #[test]
    fn the_cut_look_misses_what_the_answer_is_read_from_and_the_run_looks_again() {
        for seed in 0..20 {
            let (world, whole) = run(Kind::Find, seed);
            let (turn, replies) = cut(&whole, 1, seed).unwrap();
            assert_eq!((turn, replies.len()), (0, 4));
            let report = Session::new(WorldSource::new(world.clone()), Replay::new(replies))
                .ask(&whole.question)
                .unwrap();
            assert_eq!(report.answer(), whole.outcome.answer.as_deref());
            let looks: Vec<&Selection> = report.trajectory.selections().collect();
            assert_eq!(looks.len(), 3);
            assert!(looks[0].end - looks[0].start <= (looks[1].end - looks[1].start) / 4.0);
            assert_eq!(looks[0].nframes * 4, looks[1].nframes);
            assert!(looks[0].end < looks[2].start || looks[0].start > looks[2].end);
            // What is read from afterwards is as it was.
            assert_eq!(looks[1..], whole.selections().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_run_without_a_wide_look_is_not_cut() {
        let (_, narrow) = run(Kind::At, 1);
        assert_eq!(cut(&narrow, 1, 1), None);
    }

    #[test]
    fn the_seed_chooses_the_quarter() {
        let (_, whole) = run(Kind::Absent, 3);
        assert_eq!(cut(&whole, 1, 3), cut(&whole, 1, 3));
        let first = |seed| cut(&whole, seed, 3).unwrap().1[0].clone();
        assert!((0..10).any(|seed| first(seed) != first(0)));
    }
}
