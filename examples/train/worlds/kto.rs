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

/// The number of a run's question, and whether the run is desirable.
type Choice = (u32, bool);

pub(super) fn learn(run: &Run<'_>) -> Result<Ended, Failure> {
    let arguments = run.arguments;
    let reference = run.load(Stage::Sft, &run.device)?;
    let model = run.load(Stage::Sft, &run.device.clone().autodiff())?;
    let steps = arguments.kto_steps;
    let schedule = Schedule::new(arguments.kto_rate, 10.min(steps), steps);
    let mut choices = Choices::new(arguments.seed);
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
            let own = choices.of(step);
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

/// The runs of the steps, those of each with the same share of desirable ones, neighbours about
/// different worlds. They are looked for as they are needed: there may be any number of steps.
struct Choices {
    own: u64,
    /// The next question.
    number: u32,
    good: Vec<Choice>,
    bad: Vec<Choice>,
    /// Those of the steps so far.
    chosen: Vec<Choice>,
}

impl Choices {
    fn new(own: u64) -> Self {
        Self {
            own,
            number: FIRST.wrapping_add((own as u32) << 24),
            good: Vec::new(),
            bad: Vec::new(),
            chosen: Vec::new(),
        }
    }

    /// The runs of a step.
    fn of(&mut self, step: usize) -> &[Choice] {
        let range = step * BATCH..(step + 1) * BATCH;
        while self.chosen.len() < range.end {
            let number = self.number;
            let quiz = Quiz::numbered(Split::Train, number);
            let desirable = teacher(&quiz, seed(number, self.own)).desirable();
            let (good, bad) = (&mut self.good, &mut self.bad);
            if desirable { &mut *good } else { &mut *bad }.push((number, desirable));
            if good.len() >= DESIRABLE && bad.len() >= BATCH - DESIRABLE {
                let mut step: Vec<Choice> = good.drain(..DESIRABLE).collect();
                step.extend(bad.drain(..BATCH - DESIRABLE));
                // In the order in which they came, so that labels are mixed.
                step.sort_unstable();
                self.chosen.extend(step);
            }
            self.number = number.wrapping_add(1);
        }
        &self.chosen[range]
    }
}

fn seed(number: u32, own: u64) -> u64 {
    u64::from(number) ^ own << 40
}
