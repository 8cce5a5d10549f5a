//! The command line.

use std::path::PathBuf;

use clap::Parser;
use eva::burn::DeviceChoice;
use eva::burn::memory::ByteSize;
use eva::burn::weights::Precision;

#[cfg(feature = "remote")]
use crate::remote::RemoteArguments;

/// Asks a question about a video: the model plans what to watch, looks at just that, and looks
/// again or answers. Each turn is shown as it happens.
#[derive(Debug, Parser)]
#[command(
    name = "ask",
    after_help = "Exit status: 0 with an answer, 1 without one or on a failure, 2 for bad usage. With \
                  --dry-run: 1 if the model is over the budget."
)]
pub(crate) struct Arguments {
    /// The video: a file of any kind that GStreamer reads, or an address (https://...)
    #[arg(required_unless_present_any = ["demo", "dry_run"], conflicts_with = "demo")]
    pub(crate) video: Option<PathBuf>,

    /// The question
    #[arg(required_unless_present_any = ["demo", "dry_run"], conflicts_with = "demo")]
    pub(crate) question: Option<String>,

    /// Writes a demo video, runs/demo.mp4, and asks a question about it
    #[arg(long)]
    pub(crate) demo: bool,

    /// An answer to choose from, as LETTER=TEXT; give one for each
    #[arg(long = "option", value_name = "A=TEXT", value_parser = choice, conflicts_with = "demo")]
    pub(crate) options: Vec<Choice>,

    /// Folder of a Qwen2.5-VL model in Hugging Face's layout, its name on a hub, hf:OWNER/NAME[@REVISION]
    /// (feature `hub`), or the address of an OpenAI-compatible server, http://HOST:PORT/v1 (feature
    /// `remote`); the bundled eva-tiny if not given
    #[arg(long, value_name = "DIR|hf:...|http://...")]
    pub(crate) model: Option<PathBuf>,

    /// Loads nothing: prints what the model would take of memory, and whether that fits
    #[arg(long, requires = "model", conflicts_with_all = ["demo", "video", "question"])]
    pub(crate) dry_run: bool,

    /// Memory that there is, for --dry-run: 8GB, 7.5GiB
    #[arg(long, value_name = "SIZE", requires = "dry_run")]
    pub(crate) budget: Option<ByteSize>,

    /// Tokens of the longest conversation, for --dry-run [default: 20000]
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) context: Option<u64>,

    /// Name of the model on the server; the first that it lists if not given
    #[cfg(feature = "remote")]
    #[arg(long, value_name = "NAME", requires = "model")]
    pub(crate) model_name: Option<String>,

    /// Where the model runs: cpu, wgpu, vulkan, metal, cuda or cuda:N; all but cpu must be compiled in
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceChoice,

    /// The model's weights in memory: f32, f16 or bf16 (half of it), int8 (a quarter) or int4 (about an
    /// eighth)
    #[arg(long, default_value_t)]
    pub(crate) precision: Precision,

    /// Replies of the model before the run ends without an answer
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_turns: u32,

    /// Visual tokens that one call may take; a call over it is reduced
    #[arg(long, value_name = "N", default_value_t = 12_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_visual_tokens: u32,

    /// Prints one JSON object instead of the turns
    #[arg(long)]
    pub(crate) json: bool,

    /// Writes the record of the run to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    #[cfg(feature = "remote")]
    #[command(flatten)]
    pub(crate) remote: RemoteArguments,
}

/// An answer to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    letter: char,
    text: String,
}

fn choice(argument: &str) -> Result<Choice, String> {
    let expected = || format!("`{argument}` is not of the form A=TEXT");
    let (letter, text) = argument.split_once('=').ok_or_else(expected)?;
    let mut letters = letter.trim().chars();
    match (letters.next(), letters.next(), text.trim()) {
        (Some(letter), None, text) if letter.is_ascii_alphanumeric() && !text.is_empty() => {
            Ok(Choice {
                letter,
                text: text.to_owned(),
            })
        }
        _ => Err(expected()),
    }
}

impl Arguments {
    /// The address of a server, if the model is on one.
    pub(crate) fn server(&self) -> Option<&str> {
        let model = self.model.as_ref()?.to_str()?;
        model.contains("://").then_some(model)
    }

    /// The name of a model on a hub, if it is one.
    pub(crate) fn hub_name(&self) -> Option<&str> {
        self.model.as_ref()?.to_str()?.strip_prefix("hf:")
    }

    /// The question with its options below, as the benchmarks write them.
    pub(crate) fn question_with_options(&self, question: &str) -> String {
        let mut text = question.to_owned();
        for Choice {
            letter,
            text: option,
        } in &self.options
        {
            text += &format!("\n{letter}. {option}");
        }
        if !self.options.is_empty() {
            text += "\nAnswer with the option's letter.";
        }
        text
    }
}
