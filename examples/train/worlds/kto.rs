//! KTO on the teacher's conversations, labelled by its habits.

use eva::train::{Ended, Kto, Labelled};
use eva_burn::train::Schedule;
use eva_burn::train::kto::KtoConfig;

use super::lessons::{taught, teacher};
use super::questions::Quiz;
use super::sft::parallel;
use super::{Run, Split};
use crate::{Failure, Stage};

/// Runs a step.
const BATCH: usize = 16;
/// Of them, the desirable ones: 63%, as in the paper.
const DESIRABLE: usize = 10;
/// Number of the first question: those of the stages before are below.
const FIRST: u32 = 1 << 30;

/// The question and the seed of a run.
type Choice = (u32, bool);

pub(super) fn learn(run: &Run<'_>) -> Result<Ended, Failure> {
    let arguments = run.arguments;
    let reference = run.load(Stage::Sft, &run.device)?;
    let model = run.load(Stage::Sft, &run.device.clone().autodiff())?;
    let steps = arguments.kto_steps;
    let schedule = Schedule::new(arguments.kto_rate, 10.min(steps), steps);
    let chosen = choose(arguments.seed, steps);
    let kto = Kto {
        loss: KtoConfig::default().balanced(DESIRABLE, BATCH - DESIRABLE),
        shard: 2,
    };
    run.learn(
        Stage::Kto,
        model,
        schedule.into(),
        10,
        |trainer, step, measures| {
            let own = chosen.get(step * BATCH..).unwrap_or_default();
            let own = &own[..own.len().min(BATCH)];
            let threads = arguments.threads.max(1);
            let parts: Vec<&[Choice]> = own.chunks(own.len().div_ceil(threads).max(1)).collect();
            let made = parallel(parts.len(), |part| {
                let runs = parts[part].iter().map(|(number, desirable)| {
                    let quiz = Quiz::numbered(Split::Train, *number);
                    let conversation = taught(&quiz, seed(*number, arguments.seed))?;
                    Ok(Labelled {
                        example: run.encoder.example(&conversation)?,
                        desirable: *desirable,
                        reference: None,
                    })
                });
                runs.collect::<Result<Vec<_>, Failure>>()
            })?;
            kto.learn(trainer, &reference, &run.encoder, made.concat(), measures)
        },
    )
}

/// The runs of all steps, those of each with the same share of desirable ones, neighbours about
/// different worlds.
fn choose(own: u64, steps: usize) -> Vec<Choice> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut chosen = Vec::with_capacity(steps * BATCH);
    let mut number = FIRST.wrapping_add((own as u32) << 24);
    while chosen.len() < steps * BATCH {
        let quiz = Quiz::numbered(Split::Train, number);
        let desirable = teacher(&quiz, seed(number, own)).desirable();
        if desirable { &mut good } else { &mut bad }.push((number, desirable));
        if good.len() >= DESIRABLE && bad.len() >= BATCH - DESIRABLE {
            let mut step: Vec<Choice> = good.drain(..DESIRABLE).collect();
            step.extend(bad.drain(..BATCH - DESIRABLE));
            // In the order in which they came, so that labels are mixed.
            step.sort_unstable();
            chosen.extend(step);
        }
        number = number.wrapping_add(1);
    }
    chosen
}

fn seed(number: u32, own: u64) -> u64 {
    u64::from(number) ^ own << 40
}
