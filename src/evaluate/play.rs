//! One item, from its video to its record.

use std::time::{Duration, Instant};

use eva_core::agent::StepKind;
use eva_core::{Role, Rules, Session, Step, StopReason, Trajectory, Watch};

use super::{Record, Setup, Uniform};
use crate::benchmark::Item;

/// A run that came to an end, and what failed in it.
pub(super) struct Run {
    pub(super) trajectory: Trajectory,
    pub(super) error: Option<String>,
}

/// A finished item.
pub(super) struct Played {
    pub(super) record: Record,
    /// `None` when there was no run, because the video could not be opened.
    pub(super) trajectory: Option<Trajectory>,
}

/// Time spent in the policy and in the source.
#[derive(Debug, Default)]
pub(super) struct Timer {
    model: Duration,
    decoder: Duration,
    /// The step that goes on, and since when.
    current: Option<(StepKind, Instant)>,
}

impl Timer {
    pub(super) fn generating<R>(&mut self, work: impl FnOnce() -> R) -> R {
        timed(&mut self.model, work)
    }

    pub(super) fn decoding<R>(&mut self, work: impl FnOnce() -> R) -> R {
        timed(&mut self.decoder, work)
    }
}

fn timed<R>(sum: &mut Duration, work: impl FnOnce() -> R) -> R {
    let began = Instant::now();
    let result = work();
    *sum += began.elapsed();
    result
}

impl<P> Watch<P> for Timer {
    fn on_step(&mut self, step: &Step) {
        let now = Instant::now();
        if let Some((kind, since)) = self.current.replace((step.kind(), now)) {
            let spent = now.duration_since(since);
            match kind {
                StepKind::Generate => self.model += spent,
                StepKind::SelectFrames => self.decoder += spent,
                StepKind::CallTool | StepKind::Done => {}
            }
        }
    }
}

/// Answers `item`. Whatever fails is in the record.
pub(super) fn play<T: Setup>(
    setup: &T,
    policy: &mut T::Policy,
    item: &Item,
    rules: Rules,
    uniform: Option<&Uniform>,
) -> Played {
    let mut timer = Timer::default();
    let prepared = setup.prepare(policy, item);
    let opened = prepared.and_then(|()| timer.decoding(|| setup.source(item)));
    let run = match opened {
        Err(error) => Err(error.to_string()),
        Ok(mut source) => match uniform {
            Some(uniform) => Ok(uniform.ask(item, &mut source, policy, T::abort, &mut timer)),
            None => ask::<T>(item, source, policy, rules, &mut timer),
        },
    };
    let mut record = Record::new(item);
    record.seconds_model = timer.model.as_secs_f64();
    record.seconds_decoder = timer.decoder.as_secs_f64();
    match run {
        Err(error) => Played {
            record: failed(record, error),
            trajectory: None,
        },
        Ok(run) => Played {
            record: filled(record, &run),
            trajectory: Some(run.trajectory),
        },
    }
}

/// The record of an item that could not even be asked.
pub(super) fn failed(mut record: Record, error: String) -> Record {
    record.stop_reason = StopReason::Exception.to_string();
    record.error = Some(error);
    record
}

fn ask<T: Setup>(
    item: &Item,
    source: T::Source,
    policy: &mut T::Policy,
    rules: Rules,
    timer: &mut Timer,
) -> Result<Run, String> {
    let messages = item.prompt.iter();
    let prompt: Vec<(Role, &str)> = messages
        .map(|one| (one.role, one.content.as_str()))
        .collect();
    let asked = Session::new(source, policy)
        .with_rules(rules)
        .with_abort(T::abort)
        .with_watch(timer)
        .ask_prompt(&prompt);
    match asked {
        Ok(report) => Ok(Run {
            trajectory: report.trajectory,
            error: None,
        }),
        Err(error) => {
            let message = error.to_string();
            let report = error.into_report().ok_or_else(|| message.clone())?;
            Ok(Run {
                trajectory: report.trajectory,
                error: Some(message),
            })
        }
    }
}

fn filled(mut record: Record, run: &Run) -> Record {
    let outcome = &run.trajectory.outcome;
    record.video_seconds = run.trajectory.video.usable_duration();
    record.answer.clone_from(&outcome.answer);
    record.stop_reason = outcome.stop_reason.to_string();
    record.num_rounds = outcome.tally.num_rounds;
    record.total_tokens = outcome.tally.total_tokens;
    record.estimated_visual_tokens = outcome.tally.estimated_visual_tokens;
    record.frames = outcome.tally.frames;
    for turn in &run.trajectory.turns {
        record.prompt_tokens += u64::from(turn.usage.prompt);
        record.cached_tokens += u64::from(turn.usage.cached);
        record.completion_tokens += u64::from(turn.usage.completion);
    }
    record.error.clone_from(&run.error);
    if record.error.is_none() && !outcome.stop_reason.is_settled() {
        record.error = complaints(&run.trajectory);
    }
    record
}

/// What was wrong with the calls of the last turn, which ended the run.
fn complaints(trajectory: &Trajectory) -> Option<String> {
    let calls = &trajectory.turns.last()?.calls;
    let said: Vec<&str> = calls
        .iter()
        .filter_map(|call| call.message.as_deref())
        .collect();
    (!said.is_empty()).then(|| said.join("; "))
}
