//! Trains a tiny Qwen2.5-VL from nothing to watch synthetic videos, on the CPU, by the paper's recipe:
//!
//! ```text
//! cargo run --release --example train -- all --seed 1
//! ```
//!
//! Stages, each of which begins with the model of the one before and can be run alone: `base`
//! (configuration and tokenizer), `sight` (the vision tower learns to name what it sees), `sft`
//! (conversations of a teacher with bad habits), `kto` (runs labelled as worth following or not), `grpo`
//! (groups of its own runs by their rewards), `eval` (held-out worlds). `uniform` trains and asks a model
//! that is shown frames at even distances instead of looking for itself, to compare with.
//!
//! A stage that was stopped or killed goes on where it was. With `--config`, `sft`, `kto` and `grpo` train
//! a model directory of one's own on data of one's own (docs/training.md).

#[path = "../shared/allocator.rs"]
mod allocator;
mod curves;
#[path = "../shared/exit.rs"]
mod exit;
#[path = "../shared/font.rs"]
mod font;
#[cfg(all(feature = "data", feature = "gst"))]
mod own;
#[path = "../shared/warnings.rs"]
mod warnings;
mod worlds;

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use eva::train::Ended;
use eva_burn::DeviceChoice;

/// Any stage's error, with what it was about.
type Failure = Box<dyn std::error::Error>;

/// The most of anything that a step or a reply takes, such as examples, threads or tokens: far more than
/// any machine has room for, so that a slip of the finger is named before memory runs out.
const MOST: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// All stages up to `eval`, one after the other.
    All,
    /// Configuration, tokenizer and chat template.
    Base,
    /// First sight of the vision tower.
    Sight,
    /// Supervised fine-tuning on the teacher's conversations.
    Sft,
    /// KTO on the teacher's labelled conversations.
    Kto,
    /// GRPO on the model's own runs.
    Grpo,
    /// Accuracy on held-out worlds.
    Eval,
    /// A model that is shown frames at even distances: training and accuracy.
    Uniform,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Base => "base",
            Self::Sight => "sight",
            Self::Sft => "sft",
            Self::Kto => "kto",
            Self::Grpo => "grpo",
            Self::Eval => "eval",
            Self::Uniform => "uniform",
        }
    }
}

#[derive(Debug, Parser)]
#[command(
    about = "Trains a Qwen2.5-VL to look for itself: a tiny one on synthetic videos, or your own"
)]
struct Arguments {
    /// What to run.
    stage: Stage,
    /// Train a model of your own on data of your own, as this TOML file says (docs/training.md); the
    /// other options don't count then.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of the weights and of the order of the data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder of the run: a model directory for each stage, metrics.jsonl, report.json, curves.png.
    #[arg(long, default_value = "runs/tiny")]
    out: PathBuf,
    /// Steps of first sight.
    #[arg(long, default_value_t = 400)]
    sight_steps: usize,
    /// Steps of supervised fine-tuning.
    #[arg(long, default_value_t = 2400)]
    sft_steps: usize,
    /// Steps of KTO.
    #[arg(long, default_value_t = 50)]
    kto_steps: usize,
    /// Steps of GRPO.
    #[arg(long, default_value_t = 40)]
    grpo_steps: usize,
    /// Examples a step and thread in supervised fine-tuning.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Threads, each with a part of the batch; the weights depend on them in `sight`, `sft` and `uniform`
    /// alone, where each has examples of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Peak learning rate of supervised fine-tuning.
    #[arg(long, default_value_t = 2e-3)]
    sft_rate: f64,
    /// Peak learning rate of KTO.
    #[arg(long, default_value_t = 5e-5)]
    kto_rate: f64,
    /// Peak learning rate of GRPO.
    #[arg(long, default_value_t = 1e-4)]
    grpo_rate: f64,
    /// Prompts a step of GRPO.
    #[arg(long, default_value_t = 16)]
    prompts: usize,
    /// Rollouts a prompt of GRPO.
    #[arg(long, default_value_t = 8)]
    rollouts: usize,
    /// What a visual token takes from the reward of a good run in GRPO.
    #[arg(long, default_value_t = 0.004, value_name = "REWARD")]
    token_cost: f64,
    /// Steps of GRPO after which failures become new questions; 0 for never.
    #[arg(long, default_value_t = 10)]
    enhance_every: usize,
    /// Steps between two checkpoints (default: 20 in GRPO, 40 in KTO, else 200).
    #[arg(long, value_name = "STEPS")]
    save_every: Option<usize>,
    /// Where the model runs: cpu, wgpu, vulkan, metal, cuda or cuda:N; all but cpu must be compiled in.
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// The model directory that `eval` asks (default: the last stage's in the folder of the run).
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Held-out questions: all kinds in turn, every other one multiple choice.
    #[arg(long, default_value_t = 600)]
    questions: u32,
    /// Number of the first held-out question.
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// Temperature at which questions are answered; 0 for the most probable token, 1 for the policy as
    /// GRPO samples it.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Evaluate through real MP4 files instead of rendered frames.
    #[arg(long)]
    mp4: bool,
    /// Evaluate on the test worlds: for reported numbers only, never to choose anything.
    #[arg(long)]
    test: bool,
}

/// Prints a line. Nobody has to read it: what is learnt and measured is in the folder of the run, and
/// goes on to be after `train sft | head`.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Tells whoever watches how far a stage is; nobody has to here either.
fn tell(progress: impl Display) {
    let _ = write!(std::io::stderr(), "{progress}");
}

/// The exit status of stages that went well; that some are left is told.
fn code(ended: Ended) -> ExitCode {
    match ended {
        Ended::Done => ExitCode::SUCCESS,
        Ended::Stopped => {
            say("stopped; the same command goes on from here");
            ExitCode::from(exit::INTERRUPTED)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let Some(config) = &arguments.config {
        return own_data(arguments.stage, config);
    }
    worlds::run(arguments)
}

#[cfg(all(feature = "data", feature = "gst"))]
fn own_data(stage: Stage, config: &std::path::Path) -> Result<ExitCode, Failure> {
    own::run(stage, config)
}

#[cfg(not(all(feature = "data", feature = "gst")))]
fn own_data(_: Stage, _: &std::path::Path) -> Result<ExitCode, Failure> {
    Err("training on own data is not compiled in; build with `--features data,gst`".into())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    warnings::show();
    exit::code(run(&arguments))
}
