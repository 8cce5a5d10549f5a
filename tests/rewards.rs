//! What runs are worth, and what the judge of completeness is shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::fmt;

use eva::core::mock::{ScriptedPolicy, SolidSource};
use eva::core::{Continuation, Message, Part};
use eva::rollout::{Engine, Generated, Rollout, Rollouts, Task, TextEngine};
use eva::train::{Asked, Form, Judge, LastRound, PaperReward, Reward as _, Thrifty};
use eva::{RgbImage, Role, Usage, VideoInfo};
use eva_burn::train::reward::Weights;

const VIDEO: VideoInfo = VideoInfo {
    duration: 90.0,
    width: 640,
    height: 360,
    fps: 25.0,
};

fn look(start: u32) -> String {
    format!(
        "I bet on B. <tool_call>{{\"tool\": \"frame_select\", \"arguments\": {{\"start_time\": {start}, \
         \"end_time\": 9{start}, \"nframes\": 2, \"resize\": 0.1}}}}</tool_call> Surely B."
    )
}

/// A run of these replies.
fn played(replies: &[&str]) -> Rollout<RgbImage> {
    let mut engine = TextEngine(ScriptedPolicy::new(replies.iter().copied()));
    let task = Task::new(SolidSource::new(VIDEO), "Who wins? A: dog, B: cat.");
    let mut runs = Rollouts::default().play(&mut engine, vec![task]).unwrap();
    runs.remove(0)
}

fn asked(form: Form, truth: &str) -> Asked {
    Asked {
        question: "Who wins? A: dog, B: cat.".to_owned(),
        truth: truth.to_owned(),
        form,
    }
}

/// Says the same of each run, and counts them.
struct Says(Option<&'static str>, usize);

impl Judge<RgbImage> for Says {
    fn answers(&mut self, runs: &[(&Asked, &Rollout<RgbImage>)]) -> Vec<Option<String>> {
        self.1 += runs.len();
        vec![self.0.map(str::to_owned); runs.len()]
    }
}

fn rewards(says: Option<&'static str>, runs: &[(&Asked, &Rollout<RgbImage>)]) -> (Vec<f64>, usize) {
    let mut reward = PaperReward {
        weights: Weights::default(),
        judge: Says(says, 0),
    };
    (reward.rewards(runs), reward.judge.1)
}

#[test]
fn a_choice_is_worth_something_only_if_the_last_look_alone_gives_it() {
    let first = look(0);
    let right = played(&[&first, "<answer>b</answer>"]);
    let wrong = played(&[&first, "<answer>A</answer>"]);
    let guess = played(&["<answer>B</answer>"]);
    let silent = played(&[&first, "No idea."]);
    let letter = asked(Form::Letter, "B");
    let runs = [&right, &wrong, &guess, &silent].map(|run| (&letter, run));
    // The judge is asked about the one run that is right and saw something.
    assert_eq!(rewards(Some("B"), &runs), (vec![1.0, 0.05, 0.0, 0.0], 1));
    assert_eq!(rewards(Some("A"), &runs), (vec![0.0, 0.05, 0.0, 0.0], 1));
    assert_eq!(rewards(None, &runs), (vec![0.0, 0.05, 0.0, 0.0], 1));
}

#[test]
fn open_answers_are_worth_the_words_that_they_share_and_need_no_judge() {
    let first = look(0);
    let right = played(&[&first, "<answer>the red card</answer>"]);
    let near = played(&[&first, "<answer>a red card</answer>"]);
    let wrong = played(&[&first, "<answer>blue</answer>"]);
    let words = asked(Form::Words, "the red card");
    let (rewards, judged) = rewards(None, &[&right, &near, &wrong].map(|run| (&words, run)));
    assert_eq!(judged, 0);
    assert!((rewards[0] - 1.0).abs() < 1e-12);
    assert!(rewards[1] > 0.5 && rewards[1] < 1.0, "{rewards:?}");
    assert_eq!(rewards[2], 0.05);
}

#[test]
fn of_two_right_runs_the_one_that_looked_at_less_is_worth_more_and_nothing_is_saved_on_wrong_ones()
{
    let (first, second) = (look(0), look(5));
    let once = played(&[&first, "<answer>the red card</answer>"]);
    let twice = played(&[&first, &second, "<answer>the red card</answer>"]);
    let wrong = played(&[&first, &second, "<answer>blue</answer>"]);
    let blind = played(&["<answer>the red card</answer>"]);
    let spent = |run: &Rollout<RgbImage>| {
        run.report.trajectory.outcome.tally.estimated_visual_tokens as f64
    };
    assert!(spent(&once) > 0.0 && spent(&twice) > spent(&once));
    let words = asked(Form::Words, "the red card");
    let runs = [&once, &twice, &wrong, &blind].map(|run| (&words, run));
    let rewards = |per_visual_token| {
        let reward = PaperReward {
            weights: Weights::default(),
            judge: Says(None, 0),
        };
        let mut thrifty = Thrifty {
            reward,
            per_visual_token,
        };
        thrifty.rewards(&runs)
    };
    let cost = 1e-4;
    let expected = [
        1.0 - cost * spent(&once),
        1.0 - cost * spent(&twice),
        0.05,
        1.0,
    ];
    for (reward, expected) in rewards(cost).iter().zip(expected) {
        assert!((reward - expected).abs() < 1e-12, "{reward} {expected}");
    }
    // However dear a look is, a right answer is not worth less than a wrong one.
    assert_eq!(rewards(1e3), [0.05, 0.05, 0.05, 1.0]);
}

/// Keeps what it is shown as text, pictures as `#`, and answers.
#[derive(Default)]
struct Shown(RefCell<Vec<String>>);

impl Engine<RgbImage> for &Shown {
    type Error = fmt::Error;

    fn generate(
        &mut self,
        turns: &mut [Continuation<'_, RgbImage>],
        done: &mut dyn FnMut(usize, Result<Generated, fmt::Error>),
    ) {
        for (place, turn) in turns.iter_mut().enumerate() {
            let text = |message: &Message<'_, RgbImage>| {
                let mut text = format!("{:?}:", message.role);
                for part in message.parts {
                    match part {
                        Part::Text(part) => text += part,
                        Part::Image(_) => text += "#",
                    }
                }
                text
            };
            let shown: Vec<String> = turn.conversation.iter().map(text).collect();
            self.0.borrow_mut().push(shown.join("\n"));
            let written = turn.reply.write_str("It is the cat. <answer>B</answer>");
            done(place, written.map(|()| Generated::Text(Usage::default())));
        }
    }
}

#[test]
fn the_judge_is_shown_the_last_call_and_its_frames_and_none_of_the_words() {
    let (first, second) = (look(0), look(5));
    let run = played(&[&first, &second, "<answer>B</answer>"]);
    let blind = played(&["<answer>B</answer>"]);
    let letter = asked(Form::Letter, "B");
    let shown = Shown::default();
    let answers = LastRound(&shown).answers(&[(&letter, &blind), (&letter, &run)]);
    assert_eq!(answers, [None, Some("B".to_owned())]);
    let shown = shown.0.into_inner();
    let [text] = shown.as_slice() else {
        panic!("shown {} conversations", shown.len())
    };
    assert_eq!(text.matches('#').count(), 2, "{text}");
    assert!(
        text.contains("\"start_time\": 5") && !text.contains("\"start_time\": 0"),
        "{text}"
    );
    assert!(
        !text.contains("bet on") && !text.contains("Surely"),
        "{text}"
    );
    let roles = [Role::System, Role::User, Role::Assistant, Role::Tool];
    let found = roles.map(|role| text.matches(&format!("{role:?}:")).count());
    assert_eq!(found, [1, 1, 1, 1], "{text}");
}
