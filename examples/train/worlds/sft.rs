//! First sight and supervised fine-tuning.

use eva::train::{Ended, Measures, TrainError};
use eva_burn::train::{Batch, Schedule, Trainer};

use super::Run;
use super::lessons::{Lesson, lesson};
use crate::{Failure, Stage};

pub(super) fn learn(run: &Run<'_>) -> Result<Ended, Failure> {
    let arguments = run.arguments;
    let model = run.load(Stage::Sight, &run.device.clone().autodiff())?;
    let schedule = Schedule::new(
        arguments.sft_rate,
        100.min(arguments.sft_steps),
        arguments.sft_steps,
    );
    run.learn(
        Stage::Sft,
        model,
        schedule.into(),
        50,
        |trainer, step, measures| {
            let progress = step as f64 / arguments.sft_steps as f64;
            let made = lessons(run, step, progress)?;
            teach(trainer, &made, measures);
            Ok(())
        },
    )
}

/// The lessons of a step, one for each thread.
fn lessons(run: &Run<'_>, step: usize, progress: f64) -> Result<Vec<Lesson>, TrainError> {
    let (seed, size) = (run.arguments.seed, run.arguments.batch);
    parallel(run.arguments.threads, |thread| {
        let index = (step * run.arguments.threads + thread) as u64;
        lesson(&run.encoder, seed, index, progress, size)
    })
}

/// Parts of a lesson, each a shard, so that no thread waits for one with a longer lesson, and what is
/// kept for the backward pass stays in the processor's caches (measured: docs/training.md).
const PARTS: usize = 8;

/// One step over lessons. A turn is right when all its tokens are.
pub(super) fn teach(trainer: &mut Trainer, lessons: &[Lesson], measures: &mut Measures) {
    let config = trainer.config().clone();
    let parts = lessons.iter().flat_map(|lesson| {
        let size = lesson.examples.len().div_ceil(PARTS).max(1);
        let parts = lesson.examples.chunks(size);
        parts.map(|part| (&lesson.field, part))
    });
    let (fields, shards): (Vec<&String>, Vec<Batch>) = parts
        .map(|(field, part)| (field, Batch::new(part, &config)))
        .unzip();
    let report = trainer.sft(&shards);
    measures.add("loss", report.loss);
    measures.effort(&report.effort);
    for ((field, shard), right) in fields.iter().zip(&shards).zip(&report.right) {
        for turns in shard.turns() {
            for (turn, range) in turns.iter().enumerate() {
                let whole = right[range.clone()].iter().all(|right| *right);
                let field = format!("{field}.{}", turn + 1);
                measures.add_share(&field, usize::from(whole), 1);
            }
        }
    }
}

/// The results of `work` for 0 to `count`, each made on a thread of its own.
///
/// # Errors
/// Those of `work`, or when the system gives no more threads.
pub(super) fn parallel<M: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<M, Failure> + Sync,
) -> Result<Vec<M>, TrainError> {
    std::thread::scope(|scope| {
        let work = &work;
        let started = (0..count).map(|index| {
            std::thread::Builder::new().spawn_scoped(scope, move || {
                work(index).map_err(|error| error.to_string())
            })
        });
        let workers = started.collect::<Result<Vec<_>, _>>().map_err(|error| {
            TrainError::Data(format!("cannot start {count} threads: {error}; take fewer"))
        })?;
        let made = workers.into_iter().map(|worker| match worker.join() {
            Ok(made) => made.map_err(TrainError::Data),
            Err(_) => Err(TrainError::Data("a worker stopped".to_owned())),
        });
        made.collect()
    })
}
