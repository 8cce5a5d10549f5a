//! Many runs at once over one model: [`Rollouts`].
//!
//! Learning by GRPO, and measuring what was learnt, take thousands of runs. Here they go in lock-step:
//! all that wait for a reply get it from one batch of the model, which keeps what it has read of each
//! conversation, and all that wait for frames fetch them at the same time.
//!
//! ```
//! use eva::core::mock::{ScriptedPolicy, SolidSource};
//! use eva::rollout::{Rollouts, Task, TextEngine};
//! use eva::VideoInfo;
//!
//! let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
//! let mut engine = TextEngine(ScriptedPolicy::new(["<answer>A</answer>", "<answer>B</answer>"]));
//! let tasks = ["Who wins?", "Who loses?"].map(|text| Task::new(SolidSource::new(video), text));
//! let rollouts = Rollouts::default().play(&mut engine, tasks.into())?;
//! let answers: Vec<_> = rollouts.iter().map(|one| one.report.answer()).collect();
//! assert_eq!(answers, [Some("A"), Some("B")]);
//! # Ok::<(), eva::core::NoQuestion>(())
//! ```

mod engine;
mod player;

use std::num::NonZeroUsize;
use std::thread;

use eva_core::{FrameSource, NoQuestion, Report, Role, Rules, StopReason};

pub use engine::{Engine, Generated, TextEngine, replies};
use player::{Player, generate};

/// A question about a video.
#[derive(Debug, Clone)]
pub struct Task<S> {
    /// The video, for this run alone.
    pub source: S,
    /// The messages that ask it; the first of the user's is the question.
    pub prompt: Vec<(Role, String)>,
}

impl<S> Task<S> {
    /// A question in one message.
    pub fn new(source: S, question: impl Into<String>) -> Self {
        Self {
            source,
            prompt: vec![(Role::User, question.into())],
        }
    }
}

/// A run that is over.
#[derive(Debug, Clone)]
pub struct Rollout<P> {
    /// What came of it, with its pictures.
    pub report: Report<P>,
    /// What is known of each reply, in order.
    pub replies: Vec<Generated>,
    /// Why the engine failed, if it did: the run ended there.
    pub error: Option<String>,
}

impl<P> Rollout<P> {
    /// Whether it was cut off: by the turns it may take, or in the middle of a reply.
    ///
    /// - closing: the tokens that end a turn
    #[must_use]
    pub fn is_cut(&self, closing: &[u32]) -> bool {
        let open = |reply: &Generated| {
            let last = reply.tokens().and_then(<[u32]>::last);
            last.is_some_and(|last| !closing.contains(last))
        };
        *self.report.stop_reason() == StopReason::MaxTurnsExceeded
            || self.replies.last().is_some_and(open)
    }
}

/// Plays many runs in lock-step.
#[derive(Debug, Clone)]
pub struct Rollouts {
    rules: Rules,
    threads: usize,
}

impl Default for Rollouts {
    /// Under [`Rules::published`], frames fetched by as many threads as the machine has.
    fn default() -> Self {
        Self {
            rules: Rules::published(),
            threads: thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }
}

impl Rollouts {
    /// The same under other rules.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The same with so many threads that fetch frames; 0 counts as 1.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Plays a run for each task to its end. They come back in the order of the tasks.
    ///
    /// What fails ends one run, not the others: see [`Rollout::error`] and its report.
    ///
    /// # Errors
    /// [`NoQuestion`] when a task's prompt has no user message; nothing was played then.
    pub fn play<S, E>(
        &self,
        engine: &mut E,
        tasks: Vec<Task<S>>,
    ) -> Result<Vec<Rollout<S::Pixels>>, NoQuestion>
    where
        S: FrameSource + Send,
        S::Pixels: Send,
        E: Engine<S::Pixels>,
    {
        let players = tasks.into_iter().map(|task| Player::new(task, self.rules));
        let mut players: Vec<Player<S>> = players.collect::<Result<_, _>>()?;
        loop {
            self.look(&mut players);
            let mut waiting: Vec<&mut Player<S>> = (players.iter_mut())
                .filter(|player| player.waits_for_reply())
                .collect();
            if waiting.is_empty() {
                break;
            }
            generate(engine, &mut waiting);
        }
        Ok(players.into_iter().map(Player::finish).collect())
    }

    /// Fetches the frames of all runs that wait for some.
    fn look<S>(&self, players: &mut [Player<S>])
    where
        S: FrameSource + Send,
        S::Pixels: Send,
    {
        let mut waiting: Vec<&mut Player<S>> = (players.iter_mut())
            .filter(|player| player.waits_for_frames())
            .collect();
        let share = waiting.len().div_ceil(self.threads).max(1);
        thread::scope(|scope| {
            for players in waiting.chunks_mut(share) {
                scope.spawn(move || players.iter_mut().for_each(|player| player.look()));
            }
        });
    }
}
