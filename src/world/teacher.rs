//! A course of action with bad habits, to learn the form from but not the judgement: [`Teacher`].

use core::fmt;
use std::sync::Arc;

use eva_core::{Message, Policy, Usage};

use super::draws::{Draws, purpose};
use super::{Expert, Question, Subject, World};

/// Videos longer than this many seconds bring out the bad habits.
const LONG: f64 = 480.0;

/// What a [`Teacher`] can do worse than an [`Expert`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flaw {
    /// Scans the whole video although the question names a time.
    NeedlessScan,
    /// Scans with twice the frames.
    DenseScan,
    /// Says some digit as soon as the scan shows the card, without reading it.
    Guess,
    /// Zooms in beside the card first, sees none, and looks again.
    FailedZoom,
    /// Looks at the background at full size.
    Oversharp,
    /// Counts on too few frames: what it reports is what they show, but they miss some.
    SparseCount,
}

impl Flaw {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::NeedlessScan,
        Self::DenseScan,
        Self::Guess,
        Self::FailedZoom,
        Self::Oversharp,
        Self::SparseCount,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeedlessScan => "needless_scan",
            Self::DenseScan => "dense_scan",
            Self::Guess => "guess",
            Self::FailedZoom => "failed_zoom",
            Self::Oversharp => "oversharp",
            Self::SparseCount => "sparse_count",
        }
    }

    /// Whether a judge of evidence and thrift minds: all but a failed zoom, which is made good.
    #[must_use]
    pub const fn undesirable(self) -> bool {
        match self {
            Self::NeedlessScan
            | Self::DenseScan
            | Self::Guess
            | Self::Oversharp
            | Self::SparseCount => true,
            Self::FailedZoom => false,
        }
    }
}

/// How probable a flaw is, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Habit {
    /// In videos longer than 8 minutes.
    pub long: f64,
    /// In the others.
    pub short: f64,
}

/// How probable each flaw is where it can happen.
///
/// The length of the video stands in the prompt. A model that imitates a habit of more than one half
/// there takes it over for good, even when it always writes what is most probable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Habits {
    /// Of [`Flaw::NeedlessScan`]; 0.65 and 0.1.
    pub needless_scan: Habit,
    /// Of [`Flaw::DenseScan`]; 0.65 and 0.1.
    pub dense_scan: Habit,
    /// Of [`Flaw::Guess`]; 0.65 and 0.1.
    pub guess: Habit,
    /// Of [`Flaw::FailedZoom`], among those that do not guess; 0.15 and 0.15.
    pub failed_zoom: Habit,
    /// Of [`Flaw::Oversharp`]; 0.65 and 0.1.
    pub oversharp: Habit,
    /// Of [`Flaw::SparseCount`]; 0.65 and 0.1.
    pub sparse_count: Habit,
}

impl Default for Habits {
    fn default() -> Self {
        let bad = Habit {
            long: 0.65,
            short: 0.1,
        };
        Self {
            needless_scan: bad,
            dense_scan: bad,
            guess: bad,
            failed_zoom: Habit {
                long: 0.15,
                short: 0.15,
            },
            oversharp: bad,
            sparse_count: bad,
        }
    }
}

impl Habits {
    /// The one for a flaw.
    #[must_use]
    pub const fn of(&self, flaw: Flaw) -> Habit {
        match flaw {
            Flaw::NeedlessScan => self.needless_scan,
            Flaw::DenseScan => self.dense_scan,
            Flaw::Guess => self.guess,
            Flaw::FailedZoom => self.failed_zoom,
            Flaw::Oversharp => self.oversharp,
            Flaw::SparseCount => self.sparse_count,
        }
    }
}

/// A policy that plans and reports as the [`Expert`] does, but has bad habits.
///
/// What it writes follows from world, question, habits and seed alone.
#[derive(Debug, Clone)]
pub struct Teacher {
    expert: Expert,
}

impl Teacher {
    /// The teacher for one question about one world; `seed` decides which habits show.
    #[must_use]
    pub fn new(world: Arc<World>, question: Question, habits: &Habits, seed: u64) -> Self {
        let long = world.duration() > LONG;
        let mut draws = Draws::new(seed ^ world.seed().rotate_left(32), purpose::HABITS);
        let subject = question.subject;
        let guess = guess(&question, &mut draws);
        let mut expert = Expert::new(world, question);
        expert.guess = guess;
        for &flaw in Flaw::ALL {
            let Habit {
                long: in_long,
                short,
            } = habits.of(flaw);
            let drawn = draws.real(0.0, 1.0) < if long { in_long } else { short };
            if drawn && possible(flaw, subject, &expert) {
                expert.flaws.push(flaw);
            }
        }
        Self { expert }
    }

    /// What it writes in turn number `turn`, counted from 0. After its answer it repeats it.
    #[must_use]
    pub fn reply(&self, turn: usize) -> String {
        self.expert.reply(turn)
    }

    /// What it does worse than the expert in this run.
    #[must_use]
    pub fn flaws(&self) -> &[Flaw] {
        &self.expert.flaws
    }

    /// Whether the run has no [undesirable](Flaw::undesirable) flaw.
    #[must_use]
    pub fn desirable(&self) -> bool {
        !self.flaws().iter().any(|flaw| flaw.undesirable())
    }
}

/// Whether a run about `subject` can have `flaw`, given those before it.
fn possible(flaw: Flaw, subject: Subject, so_far: &Expert) -> bool {
    match flaw {
        Flaw::NeedlessScan => matches!(subject, Subject::Moment(_) | Subject::Background(_)),
        Flaw::DenseScan => matches!(subject, Subject::Colour(_) | Subject::Order(_)),
        Flaw::Guess => so_far.script().sight().is_some(),
        Flaw::FailedZoom => {
            !so_far.flaws.contains(&Flaw::Guess) && so_far.script().miss().is_some()
        }
        Flaw::Oversharp => matches!(subject, Subject::Background(_)),
        Flaw::SparseCount => matches!(subject, Subject::Darkness { .. }),
    }
}

/// A digit, one of those among the options if there are some.
fn guess(question: &Question, draws: &mut Draws) -> String {
    let digits: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    let offered = question.options.iter().flatten();
    let offered: Vec<String> = offered
        .filter(|value| digits.contains(value))
        .cloned()
        .collect();
    let choice = if offered.is_empty() {
        &digits
    } else {
        &offered
    };
    draws.pick(choice).cloned().unwrap_or_default()
}

impl<P> Policy<P> for Teacher {
    /// Only the host's own writer can fail.
    type Error = fmt::Error;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        self.expert.generate(conversation, reply)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::{Kind, WorldSource, look, seen, stated_length};
    use eva_core::{Rules, Selection, Session, Trajectory};

    fn teach(kind: Kind, seed: u64, choices: bool) -> (Arc<World>, Question, Teacher) {
        let world = Arc::new(World::new(seed));
        let mut question = world.question(kind, seed);
        if choices {
            question = question.choices(seed);
        }
        let teacher = Teacher::new(world.clone(), question.clone(), &Habits::default(), seed);
        (world, question, teacher)
    }

    fn run(world: &Arc<World>, question: &Question, teacher: Teacher) -> Trajectory {
        let source = WorldSource::new(world.clone());
        let mut session = Session::new(source, teacher).with_rules(Rules::published());
        session.ask(&question.text).unwrap().trajectory
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let replies =
            |teacher: &Teacher| (0..5).map(|turn| teacher.reply(turn)).collect::<Vec<_>>();
        for seed in 0..100 {
            let (_, _, once) = teach(Kind::Find, seed, false);
            let (_, _, again) = teach(Kind::Find, seed, false);
            assert_eq!(replies(&once), replies(&again));
            assert_eq!(once.flaws(), again.flaws());
        }
        let (world, question, _) = teach(Kind::Find, 1, false);
        let flaws = |seed| {
            let habits = Habits::default();
            let teacher = Teacher::new(world.clone(), question.clone(), &habits, seed);
            teacher.flaws().to_vec()
        };
        assert!((0..50).any(|seed| flaws(seed) != flaws(0)));
    }

    #[test]
    fn habits_show_at_their_rates_where_they_can() {
        let expected: [(Kind, &[Flaw]); 6] = [
            (Kind::At, &[Flaw::NeedlessScan]),
            (Kind::Find, &[Flaw::DenseScan, Flaw::Guess]),
            (Kind::Absent, &[Flaw::DenseScan]),
            (Kind::Background, &[Flaw::NeedlessScan, Flaw::Oversharp]),
            (Kind::Order, &[Flaw::DenseScan]),
            (Kind::Count, &[Flaw::SparseCount]),
        ];
        for (kind, flaws) in expected {
            // By length of video: all of them, and those with each flaw.
            let mut all = [0.0; 2];
            let mut with = vec![[0.0; 2]; Flaw::ALL.len()];
            for seed in 0..1500 {
                let (world, _, teacher) = teach(kind, seed, false);
                let long = usize::from(world.duration() > 480.0);
                all[long] += 1.0;
                for (flaw, with) in Flaw::ALL.iter().zip(&mut with) {
                    with[long] += f64::from(u8::from(teacher.flaws().contains(flaw)));
                }
            }
            for (flaw, with) in Flaw::ALL.iter().zip(with) {
                let rates = [with[0] / all[0], with[1] / all[1]];
                let [short, long] = match flaw {
                    flaw if flaws.contains(flaw) => [0.1, 0.65],
                    // Where it does not guess, and can miss.
                    Flaw::FailedZoom if kind == Kind::Find => [0.9 * 0.15, 0.35 * 0.15],
                    _ => [0.0, 0.0],
                };
                let near = (rates[0] - short).abs() < 0.05 && (rates[1] - long).abs() < 0.06;
                assert!(near, "{kind:?}, {flaw:?}: {rates:?}");
            }
        }
    }

    #[test]
    fn every_flaw_is_to_be_seen_in_the_run_and_only_there() {
        for seed in 0..50 {
            for &kind in Kind::ALL {
                for choices in [false, true] {
                    let (world, question, teacher) = teach(kind, seed, choices);
                    let flaws = teacher.flaws().to_vec();
                    let desirable = teacher.desirable();
                    let run = run(&world, &question, teacher);
                    let found = found(&world, &question, &run);
                    let about = format!("seed {seed}: {}", question.text);
                    assert_eq!(found, flaws, "{about}");
                    assert_eq!(desirable, !found.iter().any(|flaw| flaw.undesirable()));
                    let right = run.outcome.answer.as_ref() == Some(&question.answer);
                    let harmless =
                        !flaws.contains(&Flaw::Guess) && !flaws.contains(&Flaw::SparseCount);
                    assert!(right || !harmless, "{about}");
                    assert!(harmless || !desirable, "{about}");
                    if harmless {
                        assert!(question.seen_by(&world, &seen(&run)), "{about}");
                    }
                }
            }
        }
    }

    /// The flaws of a run, told from what it looked at.
    fn found(world: &World, question: &Question, run: &Trajectory) -> Vec<Flaw> {
        let looks: Vec<&Selection> = run.selections().collect();
        let whole = f64::from(stated_length(world.duration()));
        let scans = |look: &&&Selection| look.start == 0.0 && look.end == whole && look.nframes > 1;
        let scan = looks.iter().find(scans);
        let named = !matches!(question.kind, Kind::Find | Kind::Absent | Kind::Order);
        let zooms = looks.iter().filter(|look| look.nframes == 1).count();
        let has = |flaw: &Flaw| match flaw {
            Flaw::NeedlessScan => named && scan.is_some(),
            Flaw::DenseScan => !named && scan.is_some_and(|scan| scan.nframes == 32),
            Flaw::Guess => question.kind == Kind::Find && zooms == 0,
            Flaw::FailedZoom => question.kind == Kind::Find && zooms == 2,
            Flaw::Oversharp => {
                let sharp = |look: &&Selection| look.width == 224;
                question.kind == Kind::Background && looks.iter().any(sharp)
            }
            Flaw::SparseCount => looks.iter().any(|look| look.nframes == 6),
        };
        Flaw::ALL.iter().copied().filter(has).collect()
    }

    #[test]
    fn a_guess_is_seldom_right_and_has_not_seen_the_card() {
        let (mut right, mut all) = (0_usize, 0_usize);
        for seed in 0..600 {
            for choices in [false, true] {
                let (world, question, teacher) = teach(Kind::Find, seed, choices);
                if !teacher.flaws().contains(&Flaw::Guess) {
                    continue;
                }
                let last = teacher.reply(1);
                if choices {
                    // One of the three digits among the options.
                    let letter = format!("<answer>{}</answer>", question.answer);
                    assert!(last.contains("Options: "));
                    right += usize::from(last.ends_with(&letter));
                } else {
                    let digit = last.trim_end_matches("</answer>").chars().last();
                    assert!(digit.unwrap().is_ascii_digit(), "{last}");
                }
                all += usize::from(choices);
                let scan = look::scan(world.duration(), 32);
                let frames = scan.times().map(|time| eva_core::trajectory::ImageRecord {
                    time,
                    width: 28,
                    height: 28,
                });
                assert!(!question.seen_by(&world, &frames.collect::<Vec<_>>()));
            }
        }
        let share = right as f64 / all as f64;
        assert!((0.2..0.45).contains(&share), "{share}");
    }

    #[test]
    fn a_sparse_count_is_often_wrong() {
        let mut wrong = 0;
        let mut all = 0;
        for seed in 0..600 {
            let (_, question, teacher) = teach(Kind::Count, seed, false);
            if teacher.flaws().contains(&Flaw::SparseCount) {
                let right = format!("<answer>{}</answer>", question.answer);
                wrong += usize::from(!teacher.reply(1).ends_with(&right));
                all += 1;
            }
        }
        assert!(wrong * 2 > all, "{wrong} of {all}");
    }

    #[test]
    fn without_habits_it_is_the_expert() {
        let never = Habit {
            long: 0.0,
            short: 0.0,
        };
        let habits = Habits {
            needless_scan: never,
            dense_scan: never,
            guess: never,
            failed_zoom: never,
            oversharp: never,
            sparse_count: never,
        };
        for seed in 0..100 {
            let world = Arc::new(World::new(seed));
            for &kind in Kind::ALL {
                let question = world.question(kind, seed);
                let expert = Expert::new(world.clone(), question.clone());
                let teacher = Teacher::new(world.clone(), question, &habits, seed);
                assert!(teacher.flaws().is_empty() && teacher.desirable());
                for turn in 0..4 {
                    assert_eq!(teacher.reply(turn), expert.reply(turn));
                }
            }
        }
    }
}
