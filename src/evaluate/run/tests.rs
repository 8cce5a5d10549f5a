#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use eva_core::mock::SolidSource;
use eva_core::{Message, Policy, Usage, VideoInfo};
use serde_json::Map;

use crate::benchmark::{WorldItems, WorldTask};
use crate::world::{Expert, World, WorldSource};

const VIDEO: VideoInfo = VideoInfo {
    duration: 90.0,
    width: 280,
    height: 140,
    fps: 25.0,
};

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(&'static str);

/// Looks once and answers `A`, or does what the question says.
#[derive(Default)]
struct Obedient {
    asked: String,
    panicked: bool,
}

impl<P> Policy<P> for Obedient {
    type Error = Failure;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, Failure> {
        assert!(!self.panicked, "met again after a panic");
        let text = match self.asked.as_str() {
            "panic" => {
                self.panicked = true;
                panic!("as told")
            }
            "fail" => return Err(Failure("as told")),
            "bad call" => {
                "<tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 0, \
                 \"end_time\": 1, \"nframes\": 2.5}}</tool_call>"
            }
            "silence" => "",
            _ if conversation.len() == 2 => {
                "<tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 0, \
                 \"end_time\": 9, \"nframes\": 2, \"resize\": 0.2}}</tool_call>"
            }
            _ => "<answer>A</answer>",
        };
        reply.write_str(text).map_err(|_| Failure("no room"))?;
        Ok(Usage {
            prompt: 100,
            cached: 40,
            completion: 10,
        })
    }
}

#[derive(Default)]
struct Office {
    policies: AtomicUsize,
    no_policy: bool,
}

impl Setup for Office {
    type Source = SolidSource;
    type Policy = Obedient;
    type Error = Failure;

    fn policy(&self) -> Result<Obedient, Failure> {
        self.policies.fetch_add(1, Ordering::Relaxed);
        if self.no_policy {
            return Err(Failure("out of memory"));
        }
        Ok(Obedient::default())
    }

    fn source(&self, item: &Item) -> Result<SolidSource, Failure> {
        match item.video() {
            "missing.mp4" => Err(Failure("no such video")),
            _ => Ok(SolidSource::new(VIDEO)),
        }
    }

    fn prepare(&self, policy: &mut Obedient, item: &Item) -> Result<(), Failure> {
        policy.asked = item.question().to_owned();
        Ok(())
    }
}

fn item(index: u64, video: &str, question: &str) -> Item {
    let line = serde_json::json!({
        "index": index,
        "videos": [video],
        "prompt": [{"role": "user", "content": question}],
        "reward_model": {"ground_truth": "A"},
        "type": "t",
    });
    Item::parse(line.to_string().as_bytes(), 0).unwrap()
}

fn results(folder: &tempfile::TempDir, retry: bool) -> Results {
    Results::open(folder.path(), &Map::new(), retry).unwrap()
}

fn run(
    evaluation: &Evaluation<'_>,
    office: &Office,
    items: Vec<Item>,
    results: &mut Results,
) -> Result<Ended, EvaluateError<Failure>> {
    evaluation.run(office, items, results, &mut |_| ())
}

fn by_index(results: &Results) -> BTreeMap<u64, Record> {
    let records = results.records().unwrap().map(Result::unwrap);
    records.map(|record| (record.index, record)).collect()
}

#[test]
fn every_item_is_answered_once_whatever_the_number_of_workers() {
    for workers in [0, 1, 3, 8] {
        let (folder, office) = (tempfile::tempdir().unwrap(), Office::default());
        let mut results = results(&folder, false);
        let items: Vec<Item> = (0..40)
            .map(|index| item(index, "x.mp4", "Which?"))
            .collect();
        let mut seen = Vec::new();
        let evaluation = Evaluation::new().with_concurrency(workers);
        let ended = evaluation
            .run(&office, items, &mut results, &mut |record| {
                seen.push(record.index)
            })
            .unwrap();
        assert_eq!((ended.finished, ended.interrupted), (40, false));
        seen.sort_unstable();
        assert_eq!(seen, (0..40).collect::<Vec<u64>>());
        assert_eq!(by_index(&results).len(), 40);
        assert!(office.policies.into_inner() <= workers.max(1));
    }
}

#[test]
fn a_record_has_the_tokens_of_all_turns_and_the_extras_of_its_item() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = results(&folder, false);
    let items = vec![item(3, "x.mp4", "Which?")];
    run(&Evaluation::new(), &Office::default(), items, &mut results).unwrap();
    let record = by_index(&results).remove(&3).unwrap();
    assert!(record.is_correct() && record.is_settled());
    assert_eq!((record.num_rounds, record.frames), (2, 2));
    assert_eq!(record.total_tokens, 110);
    let tokens = (
        record.prompt_tokens,
        record.cached_tokens,
        record.completion_tokens,
    );
    assert_eq!(tokens, (200, 80, 20));
    assert_eq!(record.estimated_visual_tokens, 2 * 2);
    assert_eq!(
        (record.videos[0].as_str(), record.gt.as_str()),
        ("x.mp4", "A")
    );
    assert_eq!(record.extras["type"], "t");
    assert!(record.seconds_model >= 0.0 && record.seconds_decoder >= 0.0);
}

#[test]
fn what_fails_is_recorded_and_the_others_go_on_with_a_fresh_policy() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = results(&folder, false);
    let items = vec![
        item(0, "x.mp4", "panic"),
        item(1, "missing.mp4", "Which?"),
        item(2, "x.mp4", "fail"),
        item(3, "x.mp4", "bad call"),
        item(4, "x.mp4", "silence"),
        item(5, "x.mp4", "Which?"),
    ];
    let office = Office::default();
    run(&Evaluation::new(), &office, items, &mut results).unwrap();
    let records = by_index(&results);
    let ends: Vec<(&str, &str)> = records
        .values()
        .map(|record| {
            let error = record.error.as_deref().unwrap_or_default();
            (record.stop_reason.as_str(), error)
        })
        .collect();
    let fraction = "nframes is 2.5: ask for a whole number of frames, at least 1";
    assert_eq!(
        ends,
        [
            ("exception", "panicked: as told"),
            ("exception", "no such video"),
            ("exception", "the policy failed in turn 1: as told"),
            ("call_frame_select_failed", fraction),
            ("no_answer_no_tool_call", ""),
            ("answer_found", ""),
        ]
    );
    assert_eq!(office.policies.into_inner(), 2);
}

#[test]
fn a_second_run_does_what_is_left_and_a_retry_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let all = |question: &str| {
        let failing = item(1, "x.mp4", question);
        vec![
            item(0, "x.mp4", "Which?"),
            failing,
            item(2, "x.mp4", "silence"),
        ]
    };
    let (evaluation, office) = (Evaluation::new(), Office::default());
    let finished = |retry, items| {
        let mut results = results(&folder, retry);
        let ended = run(&evaluation, &office, items, &mut results).unwrap();
        assert_eq!(results.done().len(), by_index(&results).len() as u64);
        ended.finished
    };
    assert_eq!(finished(false, all("fail")[..2].to_vec()), 2);
    assert_eq!(finished(false, all("Which?")), 1);
    assert_eq!(finished(false, all("Which?")), 0);
    assert_eq!(finished(true, all("Which?")), 1);
    let records = by_index(&results(&folder, true));
    assert_eq!(records.len(), 3);
    assert!(records[&1].is_correct());
}

#[test]
fn items_that_share_an_index_are_run_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = results(&folder, false);
    let items = vec![item(7, "x.mp4", "Which?"), item(7, "x.mp4", "silence")];
    let ended = run(&Evaluation::new(), &Office::default(), items, &mut results).unwrap();
    assert_eq!(ended.finished, 1);
}

#[test]
fn a_stop_finishes_what_runs_and_begins_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = results(&folder, false);
    let stop = AtomicBool::new(false);
    let evaluation = Evaluation::new().with_concurrency(2).with_stop(&stop);
    let items: Vec<Item> = (0..1000)
        .map(|index| item(index, "x.mp4", "Which?"))
        .collect();
    let office = Office::default();
    let ended = evaluation.run(&office, items, &mut results, &mut |record| {
        stop.fetch_or(record.index >= 10, Ordering::Relaxed);
    });
    let ended = ended.unwrap();
    assert!(
        ended.interrupted && ended.finished >= 11 && ended.finished < 1000,
        "{ended:?}"
    );
    assert_eq!(by_index(&results).len() as u64, ended.finished);
    // With nothing left to do there is nothing to interrupt.
    let ended = run(&evaluation, &office, Vec::new(), &mut results).unwrap();
    assert_eq!(ended, Ended::default());
}

#[test]
fn without_a_policy_nothing_can_be_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = results(&folder, false);
    let office = Office {
        no_policy: true,
        ..Office::default()
    };
    let items: Vec<Item> = (0..50)
        .map(|index| item(index, "x.mp4", "Which?"))
        .collect();
    let evaluation = Evaluation::new().with_concurrency(4);
    let error = run(&evaluation, &office, items, &mut results).unwrap_err();
    assert_eq!(error.to_string(), "cannot make a policy: out of memory");
    assert!(results.done().is_empty());
    // Nor is one needed when nothing is to be answered.
    run(&evaluation, &office, Vec::new(), &mut results).unwrap();
}

#[test]
fn trajectories_are_kept_one_file_an_item() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = results(&folder, false);
    let items = vec![item(5, "x.mp4", "Which?"), item(6, "missing.mp4", "Which?")];
    let evaluation = Evaluation::new().with_trajectories();
    run(&evaluation, &Office::default(), items, &mut results).unwrap();
    let text = std::fs::read(folder.path().join("trajectories/5.json")).unwrap();
    let kept: eva_core::Trajectory = serde_json::from_slice(&text).unwrap();
    assert_eq!(kept.frame_times().count(), 2);
    assert!(!folder.path().join("trajectories/6.json").exists());
}

#[test]
fn the_baseline_asks_once_with_its_frames() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = results(&folder, false);
    let evaluation = Evaluation::new().with_uniform("uniform:4".parse().unwrap());
    let items = vec![item(0, "x.mp4", "Which?"), item(1, "x.mp4", "fail")];
    run(&evaluation, &Office::default(), items, &mut results).unwrap();
    let records = by_index(&results);
    assert!(records[&0].is_correct());
    assert_eq!((records[&0].num_rounds, records[&0].frames), (1, 4));
    assert_eq!(records[&0].estimated_visual_tokens, 4 * 10 * 5);
    assert_eq!(
        records[&1].error.as_deref(),
        Some("the policy failed: as told")
    );
    assert_eq!(records[&1].stop_reason, "exception");
}

/// The expert, who has to be told which question comes.
struct Experts;

impl Setup for Experts {
    type Source = WorldSource;
    type Policy = Told;
    type Error = Failure;

    fn policy(&self) -> Result<Told, Failure> {
        Ok(Told(None))
    }

    fn source(&self, item: &Item) -> Result<WorldSource, Failure> {
        let task = WorldTask::of(item).ok_or(Failure("no world"))?;
        Ok(WorldSource::new(Arc::new(World::new(task.seed))))
    }

    fn prepare(&self, policy: &mut Told, item: &Item) -> Result<(), Failure> {
        let task = WorldTask::of(item).ok_or(Failure("no world"))?;
        let world = Arc::new(World::new(task.seed));
        policy.0 = Some(Expert::new(world, task.question));
        Ok(())
    }
}

struct Told(Option<Expert>);

impl<P> Policy<P> for Told {
    type Error = fmt::Error;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        match &mut self.0 {
            Some(expert) => expert.generate(conversation, reply),
            None => Err(fmt::Error),
        }
    }
}

#[test]
fn the_expert_answers_every_question_about_synthetic_worlds() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = results(&folder, false);
    let items: WorldItems = "world:5:12".parse().unwrap();
    let evaluation = Evaluation::new().with_concurrency(2);
    let mut scorer = crate::evaluate::Scorer::new();
    evaluation
        .run(&Experts, items.items(), &mut results, &mut |record| {
            scorer.add(record)
        })
        .unwrap();
    let summary = scorer.summary();
    assert_eq!((summary.score.items, summary.score.correct), (12, 12));
    assert_eq!(summary.categories["question_type"]["absent"].correct, 2);
}
