//! Accuracy on held-out worlds, through the same path as any video.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use eva::core::{FrameSource, Pixels, Rules, Session, Trajectory};
use eva::world::{Kind, Split, World, WorldSource};
use eva_burn::{BurnPolicy, Device};

use crate::Failure;

#[derive(Default)]
struct Score {
    right: u32,
    asked: u32,
    rounds: u32,
    frames: u32,
    tokens: u64,
}

/// Which worlds to ask about, and how.
pub(crate) struct Exam {
    pub(crate) split: Split,
    /// Number of the first world.
    pub(crate) first: u32,
    /// Number of worlds; one question of each kind is asked about each.
    pub(crate) worlds: u32,
    /// Through a real MP4 file instead of rendered frames.
    pub(crate) mp4: bool,
    /// Where the model runs.
    pub(crate) device: Device,
}

/// Asks, appends every answer to `eval.jsonl` beside the weights, and prints accuracy, rounds, frames
/// and visual tokens by kind.
pub(crate) fn run(model: &Path, exam: &Exam) -> Result<(), Failure> {
    let mut policy = BurnPolicy::load(model, &exam.device)?;
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    let name = format!(
        "eval-{:?}-{}-{}.jsonl",
        exam.split,
        if exam.mp4 { "mp4" } else { "rendered" },
        exam.first
    );
    let mut log = std::fs::File::create(model.join(name.to_lowercase()))?;
    for number in exam.first..exam.first + exam.worlds {
        let world = Arc::new(World::new(exam.split.seed(number)));
        let mut video = Video::new(&world, exam.mp4)?;
        for kind in Kind::ALL {
            let question = world.question(*kind, u64::from(number));
            let answer = video.ask(&mut policy, &question.text)?;
            let right = answer.text.as_deref() == Some(question.answer.as_str());
            let score = scores.entry(kind.name()).or_default();
            score.asked += 1;
            score.right += u32::from(right);
            score.rounds += answer.rounds;
            score.frames += answer.frames;
            score.tokens += answer.tokens;
            let line = serde_json::json!({
                "world": number,
                "kind": kind.name(),
                "question": question.text,
                "truth": question.answer,
                "right": right,
                "trajectory": answer.trajectory,
            });
            writeln!(log, "{line}")?;
        }
    }
    for (kind, score) in &scores {
        let mean = |sum: f64| sum / f64::from(score.asked);
        println!(
            "{kind}: {}/{} right ({:.1}%), {:.2} rounds, {:.1} frames, {:.0} visual tokens",
            score.right,
            score.asked,
            100.0 * mean(f64::from(score.right)),
            mean(f64::from(score.rounds)),
            mean(f64::from(score.frames)),
            mean(score.tokens as f64),
        );
    }
    Ok(())
}

struct Answer {
    text: Option<String>,
    rounds: u32,
    frames: u32,
    tokens: u64,
    trajectory: Trajectory,
}

/// A world to be asked about.
enum Video {
    Rendered(WorldSource),
    #[cfg(feature = "gst")]
    File {
        source: Box<eva::gst::GstSource>,
        /// Keeps the file while it is read.
        _folder: tempfile::TempDir,
    },
}

impl Video {
    #[cfg(feature = "gst")]
    fn new(world: &Arc<World>, mp4: bool) -> Result<Self, Failure> {
        if !mp4 {
            return Ok(Self::Rendered(WorldSource::new(world.clone())));
        }
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("world.mp4");
        world.encode(&path)?;
        Ok(Self::File {
            source: Box::new(eva::gst::GstSource::open(&path)?),
            _folder: folder,
        })
    }

    #[cfg(not(feature = "gst"))]
    fn new(world: &Arc<World>, mp4: bool) -> Result<Self, Failure> {
        if mp4 {
            return Err("reading MP4 files is not compiled in; build with `--features gst`".into());
        }
        Ok(Self::Rendered(WorldSource::new(world.clone())))
    }

    fn ask(&mut self, policy: &mut BurnPolicy, question: &str) -> Result<Answer, Failure> {
        match self {
            Self::Rendered(source) => ask(source, policy, question),
            #[cfg(feature = "gst")]
            Self::File { source, .. } => ask(&mut **source, policy, question),
        }
    }
}

fn ask<S>(source: S, policy: &mut BurnPolicy, question: &str) -> Result<Answer, Failure>
where
    S: FrameSource<Error: 'static>,
    S::Pixels: Pixels + 'static,
{
    let mut session = Session::new(source, policy).with_rules(Rules::published());
    let report = session.ask(question)?;
    let tally = &report.trajectory.outcome.tally;
    Ok(Answer {
        text: report.answer().map(str::to_owned),
        rounds: tally.num_rounds,
        frames: tally.frames as u32,
        tokens: tally.estimated_visual_tokens,
        trajectory: report.trajectory,
    })
}
