//! Perception first, to compare with: frames at even distances before the question ([`Uniform`]).

use eva::core::conversation::ToolMessage;
use eva::core::trajectory::OutcomeRecord;
use eva::core::{
    Conversation, FrameSource, OwnedMessage, RgbImage, Role, Selection, StopReason, Trajectory,
    reply,
};
use eva::rollout::{Engine, Generated, Rollout, Task, replies};
use eva::train::Ended;
use eva::world::{conclusion, stated_length};
use eva::{Report, Usage};
use eva_burn::train::Schedule;

use super::exam::Exam;
use super::lessons::Lesson;
use super::questions::Quiz;
use super::sft::{parallel, teach};
use super::video::Video;
use super::{Run, Split};
use crate::{Failure, Stage};

/// How many frames, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uniform {
    pub(crate) frames: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// About twice the visual tokens that the agent takes.
const SHOWN: Uniform = Uniform {
    frames: 16,
    width: 84,
    height: 56,
};

/// Trains a model to answer from such frames, with as many steps as the agent's fine-tuning on the same
/// kinds of questions, and asks it what the agent is asked.
pub(super) fn learn(run: &Run<'_>) -> Result<Ended, Failure> {
    let arguments = run.arguments;
    let model = run.load(Stage::Sight, &run.device.clone().autodiff())?;
    let steps = arguments.sft_steps;
    let schedule = Schedule::new(arguments.sft_rate, 100.min(steps), steps);
    let (threads, size) = (arguments.threads, arguments.batch);
    let ended = run.learn(
        Stage::Uniform,
        model,
        schedule.into(),
        50,
        |trainer, step, measures| {
            let lessons = parallel(threads, |thread| {
                let first = (step * threads + thread) * size;
                let examples = (first..first + size).map(|number| {
                    let number = number as u32 ^ (arguments.seed as u32) << 24;
                    let quiz = Quiz::numbered(Split::Train, number);
                    Ok(run.encoder.example(&SHOWN.taught(&quiz)?)?)
                });
                Ok(Lesson {
                    field: "uniform".to_owned(),
                    examples: examples.collect::<Result<_, Failure>>()?,
                })
            })?;
            teach(trainer, &lessons, measures);
            Ok(())
        },
    )?;
    if ended == Ended::Done {
        let exam = Exam {
            uniform: Some(SHOWN),
            ..Exam::new(arguments)?
        };
        let model = run.folder(Stage::Uniform);
        let (scores, ended) = exam.run(&model, &model, &run.stop)?;
        if ended == Ended::Stopped {
            return Ok(ended);
        }
        let report = serde_json::json!({ "uniform": scores });
        let path = arguments.out.join("report-uniform.json");
        std::fs::write(path, format!("{report:#}\n"))?;
    }
    Ok(ended)
}

impl Uniform {
    fn selection(self, duration: f64) -> Selection {
        let end = f64::from(stated_length(duration));
        Selection::uniform(0.0, end, self.frames, self.width, self.height)
    }

    /// The question with its frames, labelled as the tool labels them.
    fn asked(self, video: &mut Video, question: &str) -> Result<Conversation<RgbImage>, Failure> {
        let info = video.info();
        let selection = self.selection(info.duration);
        let mut frames = Vec::new();
        video.frames(&selection, &mut |frame| frames.push(frame))?;
        let mut conversation = Conversation::open(&info, &[(Role::User, question)])?;
        let mut shown = ToolMessage::new();
        shown.frames(&selection, frames);
        conversation.push(shown.close(question));
        Ok(conversation)
    }

    /// What the model of this kind learns: the answer from the frames, at once.
    pub(crate) fn taught(self, quiz: &Quiz) -> Result<Conversation<RgbImage>, Failure> {
        let mut video = Video::drawn(quiz.world.clone());
        let mut conversation = self.asked(&mut video, &quiz.question.text)?;
        let ending = conclusion(quiz.question.truth(), quiz.question.options.as_ref());
        conversation.push(OwnedMessage::text(Role::Assistant, ending));
        Ok(conversation)
    }

    /// Answers each task in one reply.
    pub(crate) fn answer(
        self,
        engine: &mut impl Engine<RgbImage>,
        tasks: Vec<Task<Video>>,
    ) -> Result<Vec<Rollout<RgbImage>>, Failure> {
        let mut asked = Vec::new();
        for mut task in tasks {
            let question = task.prompt.pop().map(|(_, text)| text).unwrap_or_default();
            let conversation = self.asked(&mut task.source, &question)?;
            asked.push((task.source.info(), question, conversation));
        }
        let conversations: Vec<_> = asked.iter().map(|(_, _, one)| one).collect();
        let said = replies(engine, &conversations);
        let runs = asked.into_iter().zip(said);
        Ok(runs
            .map(|((video, question, mut conversation), (text, ended))| {
                conversation.push(OwnedMessage::text(Role::Assistant, text.clone()));
                let answer = reply::answer(&text).and_then(|answer| answer.of(&text));
                let usage = ended.as_ref().map_or(Usage::default(), Generated::usage);
                let mut outcome = OutcomeRecord {
                    answer: answer.map(str::to_owned),
                    stop_reason: match answer {
                        Some(_) => StopReason::AnswerFound,
                        None => StopReason::NoAnswerNoToolCall,
                    },
                    tally: Default::default(),
                };
                outcome.tally.num_rounds = 1;
                outcome.tally.frames = u64::from(self.frames);
                outcome.tally.estimated_visual_tokens = self.visual_tokens(video.duration);
                outcome.tally.total_tokens = u64::from(usage.prompt + usage.completion);
                let trajectory = Trajectory {
                    video,
                    question,
                    messages: Vec::from(&conversation),
                    turns: Vec::new(),
                    outcome,
                };
                Rollout {
                    report: Report {
                        trajectory,
                        conversation,
                    },
                    error: ended.as_ref().err().cloned(),
                    replies: ended.into_iter().collect(),
                }
            })
            .collect())
    }

    fn visual_tokens(self, duration: f64) -> u64 {
        self.selection(duration).visual_tokens()
    }
}
