//! Makes training data from videos and questions:
//!
//! ```text
//! cargo run --release --example build_data --features gst,data -- sft --items world:1:60 --out runs/sft --policy expert
//! cargo run --release --example build_data --features gst,data -- kto --items world:1:60 --out runs/kto --rollouts 4
//! cargo run --release --example build_data --features gst,data -- rl --items pairs.jsonl --videos DIR --out runs/rl --policy burn:MODEL --teacher burn:LARGER
//! ```
//!
//! The exit status is 0 when all is done, 130 after Ctrl-C, 2 for bad usage, and 1 for everything
//! else.
#![forbid(unsafe_code)]

#[path = "../shared/allocator.rs"]
mod allocator;
mod arguments;
#[path = "../shared/exit.rs"]
mod exit;
#[path = "../evaluate/footage.rs"]
mod footage;
#[cfg(feature = "hub")]
#[path = "../shared/hub.rs"]
mod hub;
mod input;
mod players;
#[path = "../evaluate/policy.rs"]
mod policy;
mod progress;
#[cfg(feature = "remote")]
#[path = "../shared/remote.rs"]
mod remote;
mod report;
#[path = "../shared/tell.rs"]
mod tell;
#[path = "../shared/warnings.rs"]
mod warnings;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use arguments::{Arguments, Common, JudgeChoice, PlayerChoice, StageChoice};
use clap::Parser as _;
use eva::data::{
    Failure as FailedPair, Kto, Made, Rejected, Rl, Sample, Sft, Stage, Summary, Written,
    write_files,
};
use eva::journal::{Folder, Journal, JournalError};
use input::Input;
use players::{Judges, Players, teacher};
use progress::Progress;
use report::Report;

/// What ends the program, with a message that names the thing and the remedy.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    warnings::show();
    if let Err(failure) = arguments.stage.fetch() {
        return exit::code(Err(failure));
    }
    exit::code(match &arguments.stage {
        StageChoice::Sft { common } => sft(common),
        StageChoice::Kto {
            common,
            share,
            rollouts,
            judge,
        } => kto(common, *share, *rollouts, judge.clone()),
        StageChoice::Rl {
            common,
            teacher,
            unseen,
            questions,
        } => rl(common, teacher.as_ref(), *unseen, *questions),
    })
}

fn stage<'a>(common: &Common, stop: &'a AtomicBool) -> Stage<'a> {
    Stage::new(common.policy.to_string())
        .with_seed(common.seed)
        .with_concurrency(common.concurrency)
        .with_stop(stop)
}

/// All that is in a journal, in the order of jobs.
fn all(journal: &Journal<Made>) -> Result<(Vec<Sample>, Vec<Rejected>), JournalError> {
    let mut made = journal.entries()?.collect::<Result<Vec<Made>, _>>()?;
    made.sort_by_key(|made| made.index);
    let (mut samples, mut rejected) = (Vec::new(), Vec::new());
    for one in made {
        samples.extend(one.samples);
        rejected.extend(one.rejected);
    }
    Ok((samples, rejected))
}

fn sft(common: &Common) -> Result<ExitCode, Failure> {
    let input = Input::load(common)?;
    let settings = common.settings("sft", &[]);
    let temperature = common.temperature.unwrap_or(0.0);
    let players = Players::new(&common.policy, common, &input.footage, temperature)?;
    let folder = Folder::open(&common.out, &settings)?;
    let mut journal = Journal::open(&folder, common.retry_error)?;
    let stop = exit::on_signal()?;
    let jobs = input.pairs.len() as u64;
    let mut progress = Progress::new("questions", journal.found().records, jobs, &stop)?;
    let ended =
        Sft::new(stage(common, &stop)).run(&players, &input.pairs, &mut journal, &mut |made| {
            progress.on_done(made.samples.len(), made.rejected.len())
        });
    progress.finish();
    let (samples, rejected) = all(&journal)?;
    let report = Report {
        title: format!("sft, {}", common.policy),
        summary: Summary::of_samples(&samples, &rejected),
        settings,
        ended: ended.as_ref().ok().copied(),
        figures: Vec::new(),
    };
    write_files(&folder, &samples, &rejected, &report.json()?)?;
    report.print(&common.out)?;
    ended?;
    Ok(report.exit_code())
}

fn kto(
    common: &Common,
    share: f64,
    rollouts: u64,
    judge: Option<JudgeChoice>,
) -> Result<ExitCode, Failure> {
    let input = Input::load(common)?;
    let judge = judge.unwrap_or_else(|| {
        if common.is_worlds() {
            JudgeChoice::Player(PlayerChoice::EXPERT)
        } else {
            JudgeChoice::None
        }
    });
    let more = [
        ("rollouts", rollouts.into()),
        ("judge", judge.to_string().into()),
    ];
    let settings = common.settings("kto", &more);
    let default = if rollouts > 1 { 1.0 } else { 0.0 };
    let temperature = common.temperature.unwrap_or(default);
    let players = Players::new(&common.policy, common, &input.footage, temperature)?;
    let name = judge.to_string();
    let judges = Judges::new(judge, common, &input.footage)?;
    let folder = Folder::open(&common.out, &settings)?;
    let mut journal = Journal::open(&folder, common.retry_error)?;
    let stop = exit::on_signal()?;
    let kto = Kto::new(stage(common, &stop))
        .with_rollouts(rollouts)
        .with_judge_name(name);
    let jobs = kto.jobs(input.pairs.len());
    let mut progress = Progress::new("runs", journal.found().records, jobs, &stop)?;
    let ended = kto.run(
        &players,
        &|| judges.judge(),
        &input.pairs,
        &mut journal,
        &mut |made| progress.on_done(made.samples.len(), made.rejected.len()),
    );
    progress.finish();
    let (samples, rejected) = all(&journal)?;
    let labelled = samples.len();
    let balanced = kto.balanced(samples, share)?;
    let (yes, no) = (balanced.balance.desirable, balanced.balance.undesirable);
    let met = yes as f64 / (yes + no).max(1) as f64;
    let mut summary = Summary::of_samples(&balanced.samples, &rejected);
    if !balanced.balance.possible {
        let note = "all runs have the same label: the share can't be had, and all are kept; try \
                    harder questions, another policy, or more rollouts at a higher temperature";
        summary.notes.push(note.to_owned());
    }
    if balanced.touching > 0 {
        let note = "one question has more than half of the runs: some neighbours are of it both";
        summary.notes.push(note.to_owned());
    }
    let report = Report {
        title: format!("kto, {}", common.policy),
        summary,
        settings,
        ended: ended.as_ref().ok().copied(),
        figures: vec![
            ("labelled", labelled.into()),
            ("share_wanted", share.into()),
            ("share", ((met * 1000.0).round() / 1000.0).into()),
            ("neighbours_of_one_question", balanced.touching.into()),
        ],
    };
    write_files(&folder, &balanced.samples, &rejected, &report.json()?)?;
    report.print(&common.out)?;
    ended?;
    Ok(report.exit_code())
}

fn rl(
    common: &Common,
    choice: Option<&PlayerChoice>,
    unseen: usize,
    questions: usize,
) -> Result<ExitCode, Failure> {
    let input = Input::load(common)?;
    let choice = match choice {
        Some(choice) if *choice == PlayerChoice::EXPERT && !common.is_worlds() => {
            return Err(
                "the expert only teaches world:SEED:COUNT: choose another --teacher".into(),
            );
        }
        Some(choice) => choice.clone(),
        None if common.is_worlds() => PlayerChoice::EXPERT,
        None => return Err("name who writes the questions with --teacher".into()),
    };
    let videos = input.unseen(common, unseen)?;
    let more = [
        ("teacher", choice.to_string().into()),
        ("questions", questions.into()),
    ];
    let settings = common.settings("rl", &more);
    let temperature = common.temperature.unwrap_or(0.0);
    let players = Players::new(&common.policy, common, &input.footage, temperature)?;
    let teachers = Players::new(&choice, common, &input.footage, temperature)?;
    let folder = Folder::open(&common.out, &settings)?;
    let mut rollouts = Journal::open(&folder, common.retry_error)?;
    let mut journal = Journal::<Written>::open(&folder, common.retry_error)?;
    let stop = exit::on_signal()?;

    let jobs = input.pairs.len() as u64;
    let mut progress = Progress::new("runs", rollouts.found().records, jobs, &stop)?;
    let played = Kto::new(stage(common, &stop)).run(
        &players,
        &|| Ok(()),
        &input.pairs,
        &mut rollouts,
        &mut |made| progress.on_done(made.samples.len(), made.rejected.len()),
    );
    progress.finish();
    let played = played?;
    let mut made = rollouts.entries()?.collect::<Result<Vec<Made>, _>>()?;
    made.sort_by_key(|made| made.index);
    let failures: Vec<FailedPair> = made.iter().flat_map(FailedPair::of).collect();

    let mut ended = Ok(played);
    if !played.interrupted {
        let jobs = videos.len() as u64;
        let mut progress = Progress::new("videos", journal.found().records, jobs, &stop)?;
        ended = Rl::new(stage(common, &stop), choice.to_string())
            .with_questions(questions)
            .run(
                &teachers,
                &|| teacher(&choice, &teachers),
                &failures,
                &videos,
                &mut journal,
                &mut |written| progress.on_done(written.pairs.len(), written.rejected.len()),
            );
        progress.finish();
    }
    let mut written = journal.entries()?.collect::<Result<Vec<Written>, _>>()?;
    written.sort_by_key(|written| written.index);
    let (mut pairs, mut rejected) = (Vec::new(), Vec::new());
    for one in &mut made {
        rejected.append(&mut one.rejected);
    }
    for one in written {
        pairs.extend(one.pairs);
        rejected.extend(one.rejected);
    }
    let mut summary = Summary::of_pairs(&pairs, &rejected);
    if failures.is_empty() {
        let note = "the policy failed at nothing: there is nothing to write questions from; give it \
                    harder ones";
        summary.notes.push(note.to_owned());
    }
    if videos.is_empty() {
        let note = "there is no unseen video: put some beside the others";
        summary.notes.push(note.to_owned());
    }
    let report = Report {
        title: format!("rl, {}, taught by {choice}", common.policy),
        summary,
        settings,
        ended: ended.as_ref().ok().copied(),
        figures: vec![
            ("played", input.pairs.len().into()),
            ("failures", failures.len().into()),
            ("unseen_videos", videos.len().into()),
        ],
    };
    write_files(&folder, &pairs, &rejected, &report.json()?)?;
    report.print(&common.out)?;
    ended?;
    Ok(report.exit_code())
}
