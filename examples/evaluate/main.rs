//! Evaluates a policy on many questions about many videos:
//!
//! ```text
//! cargo run --release --example evaluate --features gst -- --items world:1:60 --out runs/try
//! cargo run --release --example evaluate --features gst -- --items lvbench.jsonl --videos DIR --out runs/lvbench
//! cargo run --release --example evaluate --features gst -- --compare runs/a runs/b
//! cargo run --release --example evaluate --features gst,remote -- --items world:1:60 --out runs/server \
//!     --policy http://127.0.0.1:8000/v1 --concurrency 8
//! ```
//!
//! The exit status is 0 when all items are done, 130 after Ctrl-C, 2 for bad usage, and 1 for
//! everything else.
#![forbid(unsafe_code)]

#[path = "../shared/allocator.rs"]
mod allocator;
mod arguments;
mod chart;
#[path = "../shared/exit.rs"]
mod exit;
#[path = "../shared/font.rs"]
mod font;
mod footage;
#[cfg(feature = "hub")]
#[path = "../shared/hub.rs"]
mod hub;
mod items;
mod policy;
mod progress;
#[cfg(feature = "remote")]
#[path = "../shared/remote.rs"]
mod remote;
mod table;
#[path = "../shared/tell.rs"]
mod tell;
#[path = "../shared/warnings.rs"]
mod warnings;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::Arguments;
use clap::Parser as _;
use eva::core::Rules;
use eva::evaluate::{Evaluation, RecordReader, Results, Scorer, compare};
use footage::Footage;
use items::Items;
use policy::Equipment;
use progress::Progress;
use tell::tell;

/// What ends the program, with a message that names the thing and the remedy.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    warnings::show();
    let run = match &arguments.compare {
        Some(runs) => side_by_side(runs),
        None if arguments.check => check(&arguments),
        None => evaluate(arguments),
    };
    exit::code(run)
}

/// Loads the items and finds their videos, and says what is odd.
fn check(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let items = Items::load(arguments)?;
    let missing = items.missing(arguments.videos.as_deref())?;
    let mut out = io::stdout().lock();
    let fine = table::check(&mut out, &items, &missing)?;
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn side_by_side(runs: &[PathBuf]) -> Result<ExitCode, Failure> {
    let [a, b] = runs else {
        return Err("--compare takes two runs".into());
    };
    let read = |path: &PathBuf| RecordReader::open(path)?.collect::<Result<Vec<_>, _>>();
    let (first, second) = (read(a)?, read(b)?);
    let summaries = [&first, &second].map(|run| run.iter().collect::<Scorer>().summary());
    let compared = compare(&first, &second);
    table::compare(&mut io::stdout().lock(), [a, b], &summaries, &compared)?;
    Ok(ExitCode::SUCCESS)
}

fn evaluate(mut arguments: Arguments) -> Result<ExitCode, Failure> {
    let items = Items::load(&arguments)?;
    items.check_policy(&arguments.policy)?;
    arguments.policy.fetch()?;
    let out = arguments.out.as_ref().ok_or("name a folder with --out")?;
    let rule = arguments.frame_rule.into();
    let footage = if items.file.is_some() {
        Footage::files(arguments.videos.as_deref(), rule)?
    } else {
        Footage::worlds(arguments.encode.then(|| out.join("videos")), rule)
    };
    let settings = arguments.settings();
    let mut results = Results::open(out, &settings, arguments.retry_error)?;
    // That nobody reads it is no reason to evaluate nothing.
    _ = table::begin(&mut io::stderr().lock(), &items, &results.found());

    let stop = exit::on_signal()?;
    let mut rules = Rules::published();
    if let Some(turns) = arguments.max_turns {
        rules = rules.with_max_turns(turns);
    }
    if let Some(tokens) = arguments.max_visual_tokens {
        rules = rules.with_max_visual_tokens(tokens);
    }
    let mut evaluation = Evaluation::new()
        .with_rules(rules)
        .with_concurrency(arguments.concurrency)
        .with_stop(&stop);
    if let Some(uniform) = arguments.baseline {
        evaluation = evaluation.with_uniform(uniform);
    }
    if arguments.save_trajectories {
        evaluation = evaluation.with_trajectories();
    }
    let equipment = Equipment::new(
        &arguments.policy,
        &arguments.model,
        arguments.concurrency,
        footage,
    )?;
    let mut scorer = Scorer::new();
    for record in results.records()? {
        scorer.add(&record?);
    }
    let mut progress = Progress::new(&items, &results, scorer, &stop)?;
    let ended = evaluation.run(
        &equipment,
        items.chosen.iter().cloned(),
        &mut results,
        &mut |record| progress.on_record(record),
    );
    let scorer = progress.finish();
    let summary = scorer.summary();
    let interrupted = ended.as_ref().is_ok_and(|ended| ended.interrupted);
    // After a failure too: what is done is worth its numbers.
    let mut report = serde_json::to_value(&summary)?;
    report["settings"] = settings.into();
    report["complete"] = (ended.is_ok() && !interrupted).into();
    report["published"] = table::published_json(items.benchmark);
    results.write("summary.json", &format!("{report:#}\n"))?;
    let label = arguments.label();
    let svg = chart::draw(&label, &summary, items.benchmark)?;
    results.write("chart.svg", &svg)?;
    let mut stdout = io::stdout().lock();
    table::summary(&mut stdout, &label, &summary, items.benchmark)?;
    writeln!(
        stdout,
        "\nRecords, summary and chart are in {}",
        out.display()
    )?;
    stdout.flush()?;
    ended?;
    Ok(if interrupted {
        tell("stopped: start the same command again to go on");
        ExitCode::from(exit::INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}
