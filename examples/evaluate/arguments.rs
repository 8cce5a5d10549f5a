//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use eva::evaluate::Uniform;
use eva::gst::FrameRule;
use serde_json::{Map, Value};

use crate::policy::{ModelArguments, PolicyChoice};

/// Asks a policy many questions about many videos and shows how many answers are right, and what
/// they cost. A run that is stopped or killed goes on where it was when the same command is given
/// again.
#[derive(Debug, Parser)]
#[command(
    name = "evaluate",
    after_help = "Exit status: 0 when all items are done, 130 after Ctrl-C, 1 for a failure, 2 for \
                  bad usage. With --check: 0 when every line is an item and every video is there."
)]
pub(crate) struct Arguments {
    /// The questions: a file of JSON Lines as the benchmarks are published, or world:SEED:COUNT[:KIND]
    /// for synthetic worlds (kinds: at, find, absent, background, order, count; all of them if not given)
    #[arg(
        long,
        value_name = "FILE|world:SEED:COUNT[:KIND]",
        required_unless_present = "compare"
    )]
    pub(crate) items: Option<String>,

    /// Folder of the videos; a path in an item is looked for here by its longest end that exists
    #[arg(long, value_name = "DIR")]
    pub(crate) videos: Option<PathBuf>,

    /// Folder for the results
    #[arg(long, value_name = "DIR", required_unless_present_any = ["check", "compare"])]
    pub(crate) out: Option<PathBuf>,

    /// What answers: tiny (the bundled model), burn:DIR (a Qwen2.5-VL model in Hugging Face's
    /// layout), hf:OWNER/NAME[@REVISION] (one on a hub, feature `hub`), expert (knows the synthetic
    /// worlds), or the address of an OpenAI-compatible server, http://HOST:PORT/v1 (feature `remote`)
    #[arg(
        long,
        value_name = "tiny|burn:DIR|hf:...|expert|http://...",
        default_value = "tiny"
    )]
    pub(crate) policy: PolicyChoice,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    /// Perception first, to compare with: N frames, evenly spaced, before the question, and no tool
    #[arg(long, value_name = "uniform:N[:RESIZE]")]
    pub(crate) baseline: Option<Uniform>,

    /// Items at once; what they ask of a model at the same time it continues together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) concurrency: usize,

    /// The first N items only; with --seed, N of all
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) limit: Option<usize>,

    /// Chooses the items of --limit at random, the same for the same seed
    #[arg(long, value_name = "SEED", requires = "limit")]
    pub(crate) seed: Option<u64>,

    /// Tries items again that ended by an error
    #[arg(long)]
    pub(crate) retry_error: bool,

    /// Which frame of a video file answers a time
    #[arg(long, value_enum, value_name = "RULE", default_value_t = Rule::Displayed)]
    pub(crate) frame_rule: Rule,

    /// Visual tokens that one call may take; a call over it is reduced (12000 if not given)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_visual_tokens: Option<u32>,

    /// Replies of the model before a run ends without an answer (6 if not given)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_turns: Option<u32>,

    /// Keeps every run whole, in trajectories/INDEX.json
    #[arg(long)]
    pub(crate) save_trajectories: bool,

    /// Takes the frames of synthetic worlds from real MP4 files, which are made in the results' folder
    #[arg(long)]
    pub(crate) encode: bool,

    /// Only loads the items, finds their videos and says what is missing or odd
    #[arg(long)]
    pub(crate) check: bool,

    /// Shows two runs side by side, with a paired test on the items both have
    #[arg(long, num_args = 2, value_names = ["A", "B"], exclusive = true)]
    pub(crate) compare: Option<Vec<PathBuf>>,
}

/// Which frame answers a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rule {
    /// The one on display at that time.
    Displayed,
    /// The one whose index is the time multiplied by the average frame rate, rounded, as in the
    /// published evaluation; reads each file once as a whole.
    Published,
}

impl From<Rule> for FrameRule {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::Displayed => Self::Displayed,
            Rule::Published => Self::Published,
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number from 1 on is expected".to_owned()),
        Ok(number) => Ok(number),
    }
}

impl Arguments {
    /// What decides the results, and therefore has to be the same when a run goes on.
    pub(crate) fn settings(&self) -> Map<String, Value> {
        let values = [
            ("items", self.items.clone().into()),
            ("policy", self.policy.to_string().into()),
            (
                "baseline",
                self.baseline.map(|baseline| baseline.to_string()).into(),
            ),
            ("encode", self.encode.into()),
            ("max_turns", self.max_turns.into()),
            ("max_visual_tokens", self.max_visual_tokens.into()),
        ];
        let named = values
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        let mut settings: Map<String, Value> = named.collect();
        if self.frame_rule == Rule::Published {
            settings.insert("frame_rule".to_owned(), "published".into());
        }
        for (key, value) in self.model.settings(&self.policy) {
            settings.insert(key.to_owned(), value);
        }
        settings
    }

    /// What the run is called in tables and charts.
    pub(crate) fn label(&self) -> String {
        match self.baseline {
            Some(baseline) => format!("{}, {baseline}", self.policy),
            None => self.policy.to_string(),
        }
    }
}
