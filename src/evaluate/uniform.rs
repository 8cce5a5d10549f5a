//! Perception before planning, to compare with: [`Uniform`].

use std::str::FromStr;
use std::{error, fmt};

use eva_core::outcome::CallErrors;
use eva_core::prompt::{self, Label, trim_question};
use eva_core::reply::{self, Argument, FrameSelect};
use eva_core::trajectory::{OutcomeRecord, Turn};
use eva_core::{
    Abort, CallError, Conversation, Frame, FrameSource, OwnedMessage, OwnedPart, Picture, Policy,
    Role, Rules, Selection, StopReason, Tally, Trajectory,
};

use super::play::{Run, Timer};
use crate::benchmark::Item;

/// The baseline that sees frames first: so many, evenly spaced over the whole video, in the first
/// user message, and no tool. Written `uniform:N` or `uniform:N:RESIZE`.
///
/// The message states the video's length and size as the agent's does, labels each frame with its
/// time, and ends with the question. There is no system message but the item's own. The frames are
/// not cut to a budget: `N` and `RESIZE` say what they cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uniform {
    /// Number of frames, at least 1.
    pub nframes: u32,
    /// Ratio of their sides to the video's, above 0.
    pub resize: f64,
}

/// The text does not name a baseline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a baseline: write uniform:N with 1 to {MOST} frames, for example uniform:32, or \
     uniform:32:0.5 for frames of half the size (0.01 to 4)"
)]
pub struct UniformError(String);

/// Most frames of a baseline: as many as of one call.
const MOST: u32 = Rules::published().max_frames;

impl FromStr for Uniform {
    type Err = UniformError;

    fn from_str(text: &str) -> Result<Self, UniformError> {
        let read = || {
            let mut parts = text.strip_prefix("uniform:")?.split(':');
            let nframes: u32 = parts.next()?.parse().ok()?;
            let resize = parts.next().map_or(Ok(1.0), str::parse::<f64>).ok()?;
            let fits = (1..=MOST).contains(&nframes) && (0.01..=4.0).contains(&resize);
            (fits && parts.next().is_none()).then_some(Self { nframes, resize })
        };
        read().ok_or_else(|| UniformError(text.to_owned()))
    }
}

/// As it is written.
impl fmt::Display for Uniform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uniform:{}", self.nframes)?;
        if self.resize != 1.0 {
            write!(f, ":{}", self.resize)?;
        }
        Ok(())
    }
}

impl Uniform {
    /// Asks `item` once, with all frames before the question.
    pub(super) fn ask<S: FrameSource, M: Policy<S::Pixels>>(
        &self,
        item: &Item,
        source: &mut S,
        policy: &mut M,
        abort: fn(&M::Error) -> Abort,
        timer: &mut Timer,
    ) -> Run {
        let mut asked = Asked {
            trajectory: Trajectory {
                video: source.info(),
                question: item.question().to_owned(),
                messages: Vec::new(),
                turns: Vec::new(),
                outcome: OutcomeRecord {
                    answer: None,
                    stop_reason: StopReason::Exception,
                    tally: Tally::default(),
                },
            },
        };
        let error = asked.frames(self, source, timer).and_then(|frames| {
            let conversation = asked.conversation(item, frames);
            asked.answer(conversation, policy, abort, timer)
        });
        Run {
            trajectory: asked.trajectory,
            error: error.err(),
        }
    }

    /// Which frames, as a call of the tool would select them.
    fn selection(&self, info: &eva_core::VideoInfo) -> Option<Selection> {
        let call = FrameSelect {
            start_time: Argument::whole(0),
            end_time: Argument::float(info.usable_duration()),
            nframes: Argument::whole(self.nframes),
            resize: Argument::float(self.resize),
        };
        let rules = Rules::published().with_max_visual_tokens(u32::MAX);
        Selection::plan(&call, info, &rules).ok()
    }
}

/// A run of the baseline while it goes on. Errors are text: they end up in a record.
struct Asked {
    trajectory: Trajectory,
}

type Frames<P> = (Selection, Vec<Frame<P>>);

impl Asked {
    fn frames<S: FrameSource>(
        &mut self,
        uniform: &Uniform,
        source: &mut S,
        timer: &mut Timer,
    ) -> Result<Frames<S::Pixels>, String> {
        let outcome = &mut self.trajectory.outcome;
        let unusable = || "the video's size or length is not usable".to_owned();
        let selection = uniform
            .selection(&self.trajectory.video)
            .ok_or_else(unusable)?;
        outcome.tally.estimated_visual_tokens = selection.visual_tokens();
        let mut frames = Vec::new();
        let delivered = timer.decoding(|| {
            source.frames(&selection, &mut |frame| {
                if frames.len() < selection.nframes as usize {
                    frames.push(frame);
                }
            })
        });
        outcome.tally.frames = frames.len() as u64;
        let failure = match delivered {
            Ok(()) if !frames.is_empty() => return Ok((selection, frames)),
            Ok(()) => "the frame source delivered no frame".to_owned(),
            Err(error) => format!("the frame source failed: {error}"),
        };
        let mut errors = CallErrors::new();
        // One fits.
        _ = errors.push(CallError::FrameSelectFailed);
        outcome.stop_reason = StopReason::CallsFailed(errors);
        Err(failure)
    }

    fn conversation<P>(&self, item: &Item, frames: Frames<P>) -> Conversation<P> {
        let mut conversation = Conversation::new();
        let mut frames = Some(frames);
        for message in &item.prompt {
            match frames.take_if(|_| message.role == Role::User) {
                Some(frames) => conversation.push(self.first(&message.content, frames)),
                None => conversation.push(OwnedMessage::text(message.role, &message.content)),
            }
        }
        conversation
    }

    /// The message with the frames: what is known of the video, the frames, the question.
    fn first<P>(&self, text: &str, (selection, frames): Frames<P>) -> OwnedMessage<P> {
        let mut written = String::new();
        // Writing to a `String` can't fail.
        _ = prompt::write_question(&mut written, &self.trajectory.video, "");
        let mut parts = Vec::new();
        for (index, frame) in (0..).zip(frames) {
            let label = Label(selection.label_seconds(index));
            written += &format!("\nFrame {index} at [{label}]: ");
            parts.push(OwnedPart::Text(std::mem::take(&mut written)));
            parts.push(OwnedPart::Image(Picture {
                frame,
                width: selection.width,
                height: selection.height,
            }));
        }
        parts.push(OwnedPart::Text(format!("\n{}", trim_question(text))));
        OwnedMessage {
            role: Role::User,
            parts,
        }
    }

    fn answer<P, M: Policy<P>>(
        &mut self,
        mut conversation: Conversation<P>,
        policy: &mut M,
        abort: fn(&M::Error) -> Abort,
        timer: &mut Timer,
    ) -> Result<(), String> {
        let mut reply = String::new();
        let generated = timer.generating(|| {
            conversation.with_messages(|messages| policy.generate(messages, &mut reply))
        });
        if generated.is_ok() || !reply.is_empty() {
            conversation.push(OwnedMessage::text(Role::Assistant, reply.clone()));
        }
        self.trajectory.messages = Vec::from(&conversation);
        let outcome = &mut self.trajectory.outcome;
        let usage = generated.map_err(|error| {
            if let Abort::BadRequest = abort(&error) {
                outcome.stop_reason = StopReason::OpenaiBadRequest;
            }
            format!("the policy failed: {}", &error as &dyn error::Error)
        })?;
        outcome.tally.num_rounds = 1;
        outcome.tally.total_tokens = u64::from(usage.prompt) + u64::from(usage.completion);
        outcome.answer = answer(&reply);
        outcome.stop_reason = match outcome.answer {
            Some(_) => StopReason::AnswerFound,
            None => StopReason::NoAnswerNoToolCall,
        };
        self.trajectory.turns.push(Turn {
            usage,
            calls: Vec::new(),
        });
        Ok(())
    }
}

/// The answer in a reply, as the agent reads it; else, since a model without the agent's training
/// does not write `<answer>`, a reply that is an option's letter, or begins with one: `C`, `(C)`,
/// `C. The dog`.
fn answer(reply: &str) -> Option<String> {
    if let Some(answer) = reply::answer(reply).and_then(|span| span.of(reply)) {
        return Some(answer.to_owned());
    }
    let text = trim_question(reply);
    let mut rest = text.strip_prefix('(').unwrap_or(text).chars();
    let letter = rest.next().filter(char::is_ascii_alphanumeric)?;
    let ends = match rest.next() {
        None => true,
        Some(next) => letter.is_ascii_uppercase() && matches!(next, '.' | ':' | ')'),
    };
    ends.then(|| letter.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use eva_core::mock::{ScriptedPolicy, SolidSource};
    use eva_core::trajectory::PartRecord;
    use eva_core::{RgbImage, VideoInfo};

    const VIDEO: VideoInfo = VideoInfo {
        duration: 90.0,
        width: 1280,
        height: 720,
        fps: 25.0,
    };

    fn ask(uniform: &str, replies: &[&str]) -> Run {
        let line = br#"{"videos": ["x.mp4"], "prompt": [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": " Which? "}], "reward_model": {"ground_truth": "A"}}"#;
        let item = Item::parse(line, 0).unwrap();
        let mut policy = ScriptedPolicy::new(replies.iter().copied());
        let uniform: Uniform = uniform.parse().unwrap();
        let mut source = SolidSource::new(VIDEO);
        uniform.ask::<_, ScriptedPolicy>(
            &item,
            &mut source,
            &mut policy,
            |_| Abort::BadRequest,
            &mut Timer::default(),
        )
    }

    #[test]
    fn frames_come_before_the_question_in_one_message_and_are_not_cut_to_a_budget() {
        let Run { trajectory, error } = ask("uniform:3:0.5", &["<answer>A</answer>"]);
        assert_eq!(error, None);
        let texts: Vec<String> = trajectory.messages[1]
            .parts
            .iter()
            .map(|part| match part {
                PartRecord::Text(text) => text.clone(),
                PartRecord::Image(image) => format!("{}x{}", image.width, image.height),
            })
            .collect();
        assert_eq!(
            texts,
            [
                "Video Length: 89 seconds. Original video resolution: 720p. \nFrame 0 at [00:00]: ",
                "644x364",
                "\nFrame 1 at [00:45]: ",
                "644x364",
                "\nFrame 2 at [01:30]: ",
                "644x364",
                "\nWhich?",
            ]
        );
        assert_eq!(trajectory.messages[0].role, Role::System);
        assert_eq!(trajectory.messages[2].role, Role::Assistant);
        let tally = trajectory.outcome.tally;
        assert_eq!((tally.num_rounds, tally.frames), (1, 3));
        assert_eq!(tally.estimated_visual_tokens, 3 * 23 * 13);
        // 64 frames of full size are far above a call's budget.
        let many = ask("uniform:64", &["A"]).trajectory.outcome.tally;
        assert_eq!(
            (many.frames, many.estimated_visual_tokens),
            (64, 64 * 46 * 26)
        );
    }

    #[test]
    fn a_failure_of_the_policy_is_the_end_that_it_is_said_to_be() {
        let Run { trajectory, error } = ask("uniform:1", &[]);
        assert_eq!(trajectory.outcome.stop_reason, StopReason::OpenaiBadRequest);
        assert!(error.unwrap().contains("the script has no more replies"));
    }

    #[test]
    fn a_source_that_fails_is_a_failed_call() {
        struct Broken;
        impl FrameSource for Broken {
            type Pixels = RgbImage;
            type Error = fmt::Error;
            fn info(&self) -> VideoInfo {
                VIDEO
            }
            fn frames(
                &mut self,
                _: &Selection,
                _: &mut dyn FnMut(Frame<RgbImage>),
            ) -> Result<(), fmt::Error> {
                Err(fmt::Error)
            }
        }
        let line = br#"{"videos": ["x.mp4"], "prompt": [{"role": "user", "content": "?"}],
            "reward_model": {"ground_truth": "A"}}"#;
        let item = Item::parse(line, 0).unwrap();
        let uniform: Uniform = "uniform:2".parse().unwrap();
        let mut policy = ScriptedPolicy::new(["A"]);
        let exception = |_: &_| Abort::Exception;
        let run = uniform.ask(
            &item,
            &mut Broken,
            &mut policy,
            exception,
            &mut Timer::default(),
        );
        let outcome = run.trajectory.outcome;
        assert_eq!(outcome.stop_reason.to_string(), "call_frame_select_failed");
        assert!(run.error.unwrap().starts_with("the frame source failed: "));
    }

    #[test]
    fn bare_letters_count_as_answers_and_prose_does_not() {
        for (reply, expected) in [
            ("<answer> B </answer>", Some("B")),
            ("The answer: D.", Some("D")),
            ("C", Some("C")),
            (" (C) \n", Some("C")),
            ("C. The dog", Some("C")),
            ("7", Some("7")),
            ("Clearly a dog", None),
            ("a: b", None),
            ("", None),
        ] {
            assert_eq!(answer(reply).as_deref(), expected, "{reply}");
        }
    }

    #[test]
    fn baselines_are_read_as_they_are_written_and_others_refused() {
        for text in ["uniform:32", "uniform:1:0.25", "uniform:12000:4"] {
            assert_eq!(text.parse::<Uniform>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "uniform",
            "uniform:",
            "uniform:0",
            "uniform:12001",
            "uniform:2:0",
            "uniform:2:NaN",
            "uniform:2:-1",
            "uniform:2:inf",
            "uniform:2:1:1",
            "random:3",
        ] {
            let error = text.parse::<Uniform>().unwrap_err().to_string();
            assert!(error.contains("uniform:32"), "{error}");
        }
    }
}
