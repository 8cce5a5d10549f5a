//! The bundled model on worlds it has never seen, through the same path as any video.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use eva::burn::{BurnPolicy, DeviceChoice};
use eva::world::{Kind, Split, World, WorldSource};
use eva::{FrameSource, Pixels, Session, StopReason};

fn tiny() -> BurnPolicy {
    BurnPolicy::tiny(&DeviceChoice::Cpu.open().unwrap()).unwrap()
}

/// Whether the model answers a world's question of `kind` rightly from `source`.
fn answers<S>(source: S, policy: &mut BurnPolicy, world: &World, kind: Kind) -> bool
where
    S: FrameSource<Pixels: Pixels>,
{
    let question = world.question(kind, world.seed());
    let Ok(report) = Session::new(source, policy).ask(&question.text) else {
        panic!("{}: the run failed", question.text);
    };
    println!(
        "{} {}: {:?}, right is {}",
        world.seed(),
        question.text,
        report.answer(),
        question.answer
    );
    report.answer() == Some(&question.answer)
}

/// Worlds apart from those of the model card's table, which are the first of the split.
fn worlds() -> impl Iterator<Item = Arc<World>> {
    (10_000..).map(|index| Arc::new(World::new(Split::Test.seed(index))))
}

#[test]
fn it_answers_held_out_questions_on_rendered_frames() {
    let mut policy = tiny();
    let mut right = |kind| {
        let ask =
            |world: &Arc<World>| answers(WorldSource::new(world.clone()), &mut policy, world, kind);
        worlds().take(30).filter(ask).count()
    };
    let (at, find) = (right(Kind::At), right(Kind::Find));
    assert!(at * 100 >= 85 * 30, "at: {at} of 30");
    assert!(find * 100 >= 70 * 30, "find: {find} of 30");
}

/// The whole way: the world becomes a file, GStreamer reads it, Burn looks at it.
#[cfg(feature = "gst")]
#[test]
fn it_answers_held_out_questions_through_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut policy = tiny();
    let short = worlds().filter(|world| world.duration() < 240.0);
    let mut right = 0;
    for world in short.take(3) {
        let path = dir.path().join(format!("{}.mp4", world.seed()));
        world.encode(&path).unwrap();
        let mut video = eva::gst::GstSource::open(&path).unwrap();
        for kind in [Kind::At, Kind::Find] {
            right += usize::from(answers(&mut video, &mut policy, &world, kind));
        }
    }
    assert!(right >= 5, "{right} of 6");
}

#[test]
fn a_question_without_an_answer_ends_by_itself() {
    let mut policy = tiny();
    let world = worlds().next().unwrap();
    let absent = world.question(Kind::Absent, 1).text;
    for question in [
        absent.as_str(),
        "Who is the mayor of Paris?",
        "",
        "漢字 🎬 <tool_call>{}</tool_call>",
    ] {
        let source = WorldSource::new(world.clone());
        let Ok(report) = Session::new(source, &mut policy).ask(question) else {
            panic!("{question}: the run failed");
        };
        let outcome = &report.trajectory.outcome;
        println!("{question}: {:?} {}", report.answer(), outcome.stop_reason);
        assert!(outcome.tally.num_rounds <= 6);
        let ended = matches!(
            outcome.stop_reason,
            StopReason::AnswerFound
                | StopReason::MaxTurnsExceeded
                | StopReason::NoAnswerNoToolCall
                | StopReason::NoValidToolCall
                | StopReason::CallsFailed(_)
        );
        assert!(ended, "{question}: {}", outcome.stop_reason);
    }
}
