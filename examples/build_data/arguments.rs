//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use serde_json::{Map, Value};

use crate::Failure;
use crate::policy::{ModelArguments, PolicyChoice};

/// Makes training data from videos and questions. A run that is stopped or killed goes on where it
/// was when the same command is given again.
#[derive(Debug, Parser)]
#[command(
    name = "build_data",
    after_help = "Exit status: 0 when all is done, 130 after Ctrl-C, 1 for a failure, 2 for bad usage."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) stage: StageChoice,
}

/// What is made.
#[derive(Debug, Subcommand)]
pub(crate) enum StageChoice {
    /// Runs to imitate: the policy plays every question with hints and a thinker; what is answered
    /// right is kept, with a second run that first lacks evidence
    Sft {
        #[command(flatten)]
        common: Common,
    },
    /// Labelled runs: the policy plays every question; rules and a judge say which runs are desirable
    Kto {
        #[command(flatten)]
        common: Common,
        /// Share of desirable runs, between 0 and 1
        #[arg(long, value_name = "SHARE", default_value_t = 0.63, value_parser = share)]
        share: f64,
        /// Runs of each question
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        rollouts: u64,
        /// Who tells guesses from evidence: a policy, expert (synthetic worlds; the default there), or
        /// none (rules alone; the default for files)
        #[arg(long, value_name = "none|POLICY")]
        judge: Option<JudgeChoice>,
    },
    /// New questions: from what the policy fails at, a teacher writes questions about unseen videos
    Rl {
        #[command(flatten)]
        common: Common,
        /// Who writes the questions and has to answer them: a policy, or expert (synthetic worlds; the
        /// default there)
        #[arg(long, value_name = "POLICY")]
        teacher: Option<PlayerChoice>,
        /// Unseen videos at most: those in the folder that no question is about, or further worlds
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = at_least_one)]
        unseen: usize,
        /// New questions a video at most
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
        questions: usize,
    },
}

impl StageChoice {
    /// Fetches the models that are on a hub.
    pub(crate) fn fetch(&mut self) -> Result<(), Failure> {
        let (common, other) = match self {
            Self::Sft { common } => (common, None),
            Self::Kto { common, judge, .. } => match judge {
                Some(JudgeChoice::Player(judge)) => (common, Some(judge)),
                _ => (common, None),
            },
            Self::Rl {
                common, teacher, ..
            } => (common, teacher.as_mut()),
        };
        for player in [Some(&mut common.policy), other].into_iter().flatten() {
            if let PlayerChoice::Named(policy) = player {
                policy.fetch()?;
            }
        }
        Ok(())
    }
}

/// What all stages take.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The questions: a file of JSON Lines with video, question, options, answer and kind
    /// (multiple_choice or open_ended), or world:SEED:COUNT[:KIND] for synthetic worlds (kinds: at,
    /// find, absent, background, order, count; all of them if not given)
    #[arg(long, value_name = "FILE|world:SEED:COUNT[:KIND]")]
    pub(crate) items: String,

    /// Folder of the videos; a path in an item is looked for here by its longest end that exists
    #[arg(long, value_name = "DIR")]
    pub(crate) videos: Option<PathBuf>,

    /// Folder for the data
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// What plays: tiny (the bundled model), burn:DIR (a Qwen2.5-VL model in Hugging Face's layout),
    /// hf:OWNER/NAME[@REVISION] (one on a hub, feature `hub`), expert (knows the synthetic worlds), http://HOST:PORT/v1 (feature `remote`), script:FILE (a JSON
    /// array of replies a line, one line a run)
    #[arg(long, value_name = "POLICY", default_value = "tiny")]
    pub(crate) policy: PlayerChoice,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    /// Makes all that is drawn by chance repeatable
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,

    /// How freely a local model chooses its words, 0 for the likeliest ones (kto with several
    /// rollouts: 1 if not given)
    #[arg(long, value_name = "T", value_parser = temperature, allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,

    /// The first N questions only
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) limit: Option<usize>,

    /// Runs at once; what they ask of a model at the same time it continues together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) concurrency: usize,

    /// Tries again what ended by an error
    #[arg(long)]
    pub(crate) retry_error: bool,

    /// Takes the frames of synthetic worlds from real MP4 files, which are made in the data's folder
    #[arg(long)]
    pub(crate) encode: bool,
}

/// A policy, as it is named on the command line. Policies of the example `evaluate` are known here
/// too; a new kind is added there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlayerChoice {
    Named(PolicyChoice),
    /// Replies from a file.
    Script(PathBuf),
}

/// A judge, as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JudgeChoice {
    None,
    Player(PlayerChoice),
}

impl FromStr for PlayerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("script:") {
            Some(file) if !file.is_empty() => Ok(Self::Script(file.into())),
            _ => match text.parse() {
                Ok(named) => Ok(Self::Named(named)),
                Err(error) => Err(format!("{error}, or script: and a file of replies")),
            },
        }
    }
}

impl FromStr for JudgeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        match text.parse() {
            Ok(player) => Ok(Self::Player(player)),
            Err(error) => Err(format!("{error}; or none")),
        }
    }
}

/// As it is written.
impl fmt::Display for PlayerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(named) => named.fmt(f),
            Self::Script(file) => write!(f, "script:{}", file.display()),
        }
    }
}

/// As it is written.
impl fmt::Display for JudgeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Player(player) => player.fmt(f),
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number from 1 on is expected".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// Anything else would be as good as 0, without a word, and could not be noted in JSON.
fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(temperature) if temperature >= 0.0 && temperature.is_finite() => Ok(temperature),
        _ => Err("a number from 0 on is expected, such as 0.7".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("a number between 0 and 1 is expected, such as 0.63".to_owned()),
    }
}

impl PlayerChoice {
    pub(crate) const EXPERT: Self = Self::Named(PolicyChoice::Expert);
}

impl Common {
    /// Whether the items are of synthetic worlds.
    pub(crate) fn is_worlds(&self) -> bool {
        self.items.starts_with("world:")
    }

    /// What decides the data, and therefore has to be the same when a run goes on.
    pub(crate) fn settings(&self, stage: &str, more: &[(&str, Value)]) -> Map<String, Value> {
        let values = [
            ("stage", stage.into()),
            ("items", self.items.clone().into()),
            ("policy", self.policy.to_string().into()),
            ("seed", self.seed.into()),
            ("temperature", self.temperature.into()),
            ("encode", self.encode.into()),
        ];
        let model = match &self.policy {
            PlayerChoice::Named(named) => self.model.settings(named),
            PlayerChoice::Script(_) => Vec::new(),
        };
        let all = values.iter().chain(more).chain(&model);
        all.map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect()
    }
}
