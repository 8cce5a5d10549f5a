//! `--dry-run`: what a model would take, from its configuration alone.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use eva::burn::config::{stored_precision, unknown_keys};
use eva::burn::memory::{self, ByteSize, Estimate, Workload};
use eva::burn::weights::Precision;
use eva::burn::{DeviceChoice, ModelConfig};

use crate::Failure;
use crate::arguments::Arguments;
use crate::tell::tell;

/// What is shown without a budget: common GPUs.
const BUDGETS: [ByteSize; 3] = [
    ByteSize(8_000_000_000),
    ByteSize(16_000_000_000),
    ByteSize(24_000_000_000),
];

/// Prints the table, and fails if the format of `--precision` is over the budget.
pub(crate) fn run(arguments: &Arguments, dir: &Path) -> Result<ExitCode, Failure> {
    let config = ModelConfig::load(dir)?;
    let defaults = Workload::default();
    let workload = Workload {
        context: arguments.context.unwrap_or(defaults.context),
        turn: arguments.max_visual_tokens.into(),
        ..defaults
    };
    let budgets: Vec<ByteSize> = match arguments.budget {
        Some(budget) => vec![budget],
        None => BUDGETS.to_vec(),
    };
    let estimate = match arguments.device {
        DeviceChoice::Cpu => Estimate::on_cpu,
        _ => Estimate::new,
    };
    let mut out = io::stdout().lock();
    let billions = memory::parameter_count(&config) as f64 / 1e9;
    writeln!(out, "{}: {billions:.2} billion parameters\n", dir.display())?;
    write!(
        out,
        "{}",
        memory::table(&config, &workload, &budgets, estimate)
    )?;
    let stored = stored_precision(dir)?;
    if let Some(stored) = stored {
        writeln!(
            out,
            "\nnote: the weights are stored in {stored}, which is what counts"
        )?;
    }
    for key in unknown_keys(dir)? {
        writeln!(out, "\nnote: {key} is not known here and is ignored")?;
    }
    let Some(budget) = arguments.budget else {
        return Ok(ExitCode::SUCCESS);
    };
    let precision = match stored {
        // What is stored in blocks is read as it is.
        Some(stored) if arguments.precision == Precision::F32 => stored,
        _ => arguments.precision,
    };
    let estimate = estimate(&config, precision, &workload);
    let total = ByteSize(estimate.total());
    if estimate.fits(budget) {
        writeln!(out, "\n{precision} fits: {total} of {budget}")?;
        return Ok(ExitCode::SUCCESS);
    }
    out.flush()?;
    tell(format_args!(
        "error: {precision} takes {total}, the budget is {budget}; choose another --precision, or less \
         with --max-visual-tokens or --context"
    ));
    Ok(ExitCode::FAILURE)
}
