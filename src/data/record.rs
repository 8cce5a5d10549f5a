//! What a stage makes: [`Sample`]s, and what it could not use: [`Rejected`].

use eva_core::Trajectory;
use serde::{Deserialize, Serialize};

use super::{Family, Fault, Pair};
use crate::journal::Entry;

/// A run to learn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Number of the job that made it.
    pub index: u64,
    /// Number of the pair in the input, from 0.
    pub item: u64,
    /// What was asked.
    pub pair: Pair,
    /// Whether it is worth following (KTO); `None` where all are.
    pub label: Option<Label>,
    /// Why it is undesirable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// The run as the trained model will meet it: without hints and objections.
    pub trajectory: Trajectory,
    /// How it was made.
    pub provenance: Provenance,
}

/// Whether a run is worth following.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// It is.
    Desirable,
    /// It is to be avoided.
    Undesirable,
}

/// Why a run is undesirable, or could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The judge said neither of its words.
    JudgeMalformed,
    /// The question was asked before.
    Duplicate,
    /// Policy, source or judge failed.
    Failed,
    /// The judge: answered without enough evidence.
    Guessed,
    /// There is no answer.
    NoAnswer,
    /// Answered without a look.
    NoFrames,
    /// See [`Fault::Rewatched`].
    Rewatched,
    /// The teacher's reply holds no questions, or this one is none.
    TeacherMalformed,
    /// See [`Fault::TooDense`].
    TooDense,
    /// See [`Fault::TooSmall`].
    TooSmall,
    /// See [`Fault::TooSparse`].
    TooSparse,
    /// The teacher could not answer its own question twice the same.
    Unanswerable,
    /// The answer is another one.
    WrongAnswer,
}

/// How a sample was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// The policy's name.
    pub policy: String,
    /// The judge's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// Which kind of hint the policy was given. The messages don't hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// The hint itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What the thinker objected to. The messages hold the revised calls alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objections: Vec<Objection>,
    /// For a run made to have insufficient evidence: the turn (from 0) whose look was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_turn: Option<u32>,
    /// Number of the rollout among those of its pair.
    pub rollout: u64,
    /// The seed of the whole.
    pub seed: u64,
    /// The version of this crate.
    pub version: String,
}

/// What the thinker said to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objection {
    /// The turn, from 0.
    pub turn: u32,
    /// What was wrong.
    pub faults: Vec<Fault>,
    /// Whether the next try was without fault.
    pub resolved: bool,
}

/// What could not be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// Number of the job.
    pub index: u64,
    /// Number of the pair in the input, or of the video that the teacher was shown.
    pub item: u64,
    /// Why.
    pub reason: Reason,
    /// More about it, such as what was answered, or a malformed reply.
    pub detail: String,
    /// The question it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
    /// The run, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trajectory: Option<Trajectory>,
}

/// What came of one job: a line of `runs.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Number of the job.
    pub index: u64,
    /// What can be used.
    pub samples: Vec<Sample>,
    /// What can't.
    pub rejected: Vec<Rejected>,
}

impl Entry for Made {
    const FILE: &'static str = "runs.jsonl";

    fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    fn index(&self) -> u64 {
        self.index
    }

    fn is_settled(&self) -> bool {
        !self.rejected.iter().any(Rejected::is_failure)
    }
}

impl Rejected {
    /// Whether it may go better another time.
    pub(super) fn is_failure(&self) -> bool {
        self.reason == Reason::Failed
    }
}

impl From<Fault> for Reason {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Rewatched => Self::Rewatched,
            Fault::TooDense => Self::TooDense,
            Fault::TooSmall => Self::TooSmall,
            Fault::TooSparse => Self::TooSparse,
        }
    }
}
