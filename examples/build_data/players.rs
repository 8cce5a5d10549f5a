//! What plays, judges and teaches: [`Players`].

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use eva::benchmark::Item;
use eva::burn::sample::Sampling;
use eva::core::{Message, Policy, RgbImage, Usage};
use eva::data::{Judge, PolicyJudge, PolicyTeacher, Teacher, WorldJudge, WorldTeacher};
use eva::evaluate::Setup;

use crate::Failure;
use crate::arguments::{Common, JudgeChoice, PlayerChoice};
use crate::footage::{Footage, Source};
use crate::policy::{AnyPolicy, Equipment, EquipmentError, PolicyError};

/// A policy at work.
pub(crate) enum Player {
    Named(AnyPolicy),
    Script(Script),
}

/// A reply could not be generated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlayerError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the script's run has no more replies")]
    ScriptEnded,
}

/// Replies from a file: those of one run a line.
pub(crate) struct Script {
    runs: Arc<Vec<Vec<String>>>,
    /// Replies of the run at hand.
    left: VecDeque<String>,
    /// Whether each run is announced. Judges and teachers are just asked: one line after the other.
    announced: bool,
    next: usize,
}

/// Makes policies and sources for the workers.
pub(crate) struct Players {
    equipment: Equipment,
    script: Option<Arc<Vec<Vec<String>>>>,
    /// Temperature and seed.
    sampling: Option<(f32, u64)>,
}

impl Players {
    pub(crate) fn new(
        choice: &PlayerChoice,
        common: &Common,
        footage: &Arc<Footage>,
        temperature: f32,
    ) -> Result<Self, Failure> {
        let (named, script) = match choice {
            PlayerChoice::Named(named) => (named, None),
            // What a script needs of the equipment are the videos alone.
            PlayerChoice::Script(file) => (
                &crate::policy::PolicyChoice::Expert,
                Some(Arc::new(read(file)?)),
            ),
        };
        Ok(Self {
            equipment: Equipment::new(named, &common.model, common.concurrency, footage.clone())?,
            script,
            sampling: (temperature > 0.0).then_some((temperature, common.seed)),
        })
    }
}

/// Reads the replies of a script.
fn read(file: &Path) -> Result<Vec<Vec<String>>, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read the script {}: {error}", file.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let runs = lines
        .map(serde_json::from_str)
        .collect::<Result<Vec<Vec<String>>, _>>();
    let runs = runs.map_err(|error| {
        let file = file.display();
        format!("{file} is no script: {error}; write a JSON array of replies a line")
    })?;
    if runs.is_empty() {
        return Err(format!("the script {} is empty: write replies", file.display()).into());
    }
    Ok(runs)
}

impl Policy<RgbImage> for Player {
    type Error = PlayerError;

    fn generate(
        &mut self,
        conversation: &[Message<'_, RgbImage>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, PlayerError> {
        let script = match self {
            Self::Named(policy) => return Ok(policy.generate(conversation, reply)?),
            Self::Script(script) => script,
        };
        if script.left.is_empty() && !script.announced {
            script.begin(script.next as u64);
            script.next += 1;
        }
        let text = script.left.pop_front().ok_or(PlayerError::ScriptEnded)?;
        // Only a session that was called off refuses text, and it knows.
        _ = reply.write_str(&text);
        Ok(Usage::default())
    }
}

impl Script {
    fn begin(&mut self, run: u64) {
        let number = run % self.runs.len().max(1) as u64;
        let run = self.runs.get(number as usize);
        self.left = run.cloned().unwrap_or_default().into();
    }
}

impl Setup for Players {
    type Source = Source;
    type Policy = Player;
    type Error = EquipmentError;

    fn policy(&self) -> Result<Player, EquipmentError> {
        Ok(match &self.script {
            None => Player::Named(self.equipment.policy()?),
            Some(runs) => Player::Script(Script {
                runs: runs.clone(),
                left: VecDeque::new(),
                announced: false,
                next: 0,
            }),
        })
    }

    fn source(&self, item: &Item) -> Result<Source, EquipmentError> {
        self.equipment.source(item)
    }

    fn prepare(&self, player: &mut Player, item: &Item) -> Result<(), EquipmentError> {
        match player {
            Player::Named(policy) => {
                if let (AnyPolicy::Burn(model), Some((temperature, seed))) =
                    (&mut *policy, self.sampling)
                {
                    model.set_sampling(Sampling::Random {
                        temperature,
                        top_k: 0,
                        top_p: 1.0,
                        // A seed for each run, so that one that is made again is the same, up to the
                        // rounding of sums in what is continued together.
                        seed: seed.rotate_left(32) ^ item.index,
                    });
                }
                self.equipment.prepare(policy, item)
            }
            Player::Script(script) => {
                script.announced = true;
                script.begin(item.index);
                Ok(())
            }
        }
    }
}

/// The judge's name, and what makes it.
pub(crate) struct Judges {
    choice: JudgeChoice,
    players: Option<Players>,
}

impl Judges {
    pub(crate) fn new(
        choice: JudgeChoice,
        common: &Common,
        footage: &Arc<Footage>,
    ) -> Result<Self, Failure> {
        let players = match &choice {
            JudgeChoice::None => None,
            JudgeChoice::Player(player) if *player == PlayerChoice::EXPERT => {
                if !common.is_worlds() {
                    return Err(
                        "the expert only judges items of world:SEED:COUNT: choose another \
                                --judge"
                            .into(),
                    );
                }
                None
            }
            JudgeChoice::Player(player) => Some(Players::new(player, common, footage, 0.0)?),
        };
        Ok(Self { choice, players })
    }

    pub(crate) fn judge(&self) -> Result<Box<dyn Judge<RgbImage>>, EquipmentError> {
        Ok(match (&self.choice, &self.players) {
            (_, Some(players)) => Box::new(PolicyJudge::new(players.policy()?)),
            (JudgeChoice::None, None) => Box::new(()),
            (JudgeChoice::Player(_), None) => Box::new(WorldJudge),
        })
    }
}

/// A teacher as it writes.
pub(crate) fn teacher(
    choice: &PlayerChoice,
    players: &Players,
) -> Result<Box<dyn Teacher<RgbImage>>, EquipmentError> {
    Ok(if *choice == PlayerChoice::EXPERT {
        Box::new(WorldTeacher)
    } else {
        Box::new(PolicyTeacher::new(players.policy()?))
    })
}
