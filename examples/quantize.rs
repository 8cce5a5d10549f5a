//! Writes a model directory anew, its weights in blocks of 8-bit or 4-bit integers:
//!
//! ```text
//! cargo run --release --example quantize -- MODEL OUT --precision int4
//! ```
//!
//! `--model OUT` of `ask` and `--policy burn:OUT` of `evaluate` and `build_data` then read it as it is, in a
//! quarter or so of the memory. The model is converted tensor by tensor: one of any size needs the memory of its largest
//! matrix.

#[path = "shared/tell.rs"]
mod tell;
#[path = "shared/warnings.rs"]
mod warnings;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use eva::burn::memory::ByteSize;
use eva::burn::quantized::convert;
use eva::burn::weights::Precision;
use indicatif::{ProgressBar, ProgressStyle};
use tell::tell;

#[derive(Debug, Parser)]
#[command(
    name = "quantize",
    about = "Writes a model directory anew, its weights in 8 or 4 bits"
)]
struct Arguments {
    /// Folder of a Qwen2.5-VL model in Hugging Face's layout
    model: PathBuf,

    /// Folder to write to; made if it is not there
    out: PathBuf,

    /// int8 (8.5 bits a weight, near to exact) or int4 (4.5 bits in the decoder's layers)
    #[arg(long, default_value_t = Precision::Int8)]
    precision: Precision,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    warnings::show();
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} tensors, {eta} left") {
        bar.set_style(style);
    }
    let done = convert(
        &arguments.model,
        &arguments.out,
        arguments.precision,
        |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        },
    );
    bar.finish_and_clear();
    match done {
        Ok(done) => {
            // The model is written, whether or not anyone reads this.
            _ = writeln!(
                io::stdout(),
                "{}: {} matrices in {}, {} other tensors as they were; {} instead of {}",
                arguments.out.display(),
                done.quantized,
                arguments.precision,
                done.copied,
                ByteSize(done.bytes_after),
                ByteSize(done.bytes_before),
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
