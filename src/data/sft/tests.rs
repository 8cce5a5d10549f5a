#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::benchmark::{WorldItems, WorldTask};
use crate::data::Family;
use crate::journal::Folder;
use crate::world::{Expert, Split, World, WorldSource};
use eva_burn::chat::Chat;
use eva_burn::config::{ImageConfig, ModelConfig};
use eva_burn::train::{Batch, Example};
use eva_core::{Message, Policy, RgbImage, Usage};
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

/// Plays synthetic worlds with the expert, but answers every fifth item wrong.
struct Worlds {
    wrong: bool,
    policy: bool,
}

const WORLDS: Worlds = Worlds {
    wrong: false,
    policy: true,
};

struct Player {
    expert: Option<Expert>,
    wrong: bool,
}

impl Policy<RgbImage> for Player {
    type Error = fmt::Error;

    fn generate(
        &mut self,
        conversation: &[Message<'_, RgbImage>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        if self.wrong {
            reply.write_str("<answer>eleven</answer>")?;
            return Ok(Usage::default());
        }
        self.expert.as_mut().unwrap().generate(conversation, reply)
    }
}

impl Setup for Worlds {
    type Source = WorldSource;
    type Policy = Player;
    type Error = fmt::Error;

    fn policy(&self) -> Result<Player, fmt::Error> {
        if !self.policy {
            return Err(fmt::Error);
        }
        Ok(Player {
            expert: None,
            wrong: false,
        })
    }

    fn source(&self, item: &Item) -> Result<WorldSource, fmt::Error> {
        let seed = WorldTask::seed(item.video()).ok_or(fmt::Error)?;
        Ok(WorldSource::new(Arc::new(World::new(seed))))
    }

    fn prepare(&self, player: &mut Player, item: &Item) -> Result<(), fmt::Error> {
        let task = WorldTask::of(item).ok_or(fmt::Error)?;
        player.expert = Some(Expert::new(Arc::new(World::new(task.seed)), task.question));
        player.wrong = self.wrong && item.index.is_multiple_of(5);
        Ok(())
    }
}

fn pairs(count: u32) -> Vec<Pair> {
    let items: WorldItems = format!("world:5:{count}").parse().unwrap();
    let items = items.items_of(Split::Train);
    items.map(|item| Pair::of_item(&item)).collect()
}

fn folder(path: &Path) -> (Folder, Journal<Made>) {
    let folder = Folder::open(path, &serde_json::Map::new()).unwrap();
    let journal = Journal::open(&folder, false).unwrap();
    (folder, journal)
}

fn made(journal: &Journal<Made>) -> Vec<Made> {
    let mut made: Vec<Made> = journal.entries().unwrap().map(Result::unwrap).collect();
    made.sort_by_key(|made| made.index);
    made
}

fn run(setup: &Worlds, pairs: &[Pair], concurrency: usize) -> Vec<Made> {
    let dir = tempfile::tempdir().unwrap();
    let (_folder, mut journal) = folder(dir.path());
    let stage = Stage::new("expert")
        .with_seed(3)
        .with_concurrency(concurrency);
    let ended = Sft::new(stage)
        .run(setup, pairs, &mut journal, &mut |_| ())
        .unwrap();
    assert_eq!(
        (ended.finished, ended.interrupted),
        (pairs.len() as u64, false)
    );
    made(&journal)
}

#[test]
fn right_runs_are_kept_clean_with_a_cut_one_beside_them_and_wrong_ones_are_not() {
    let setup = Worlds {
        wrong: true,
        policy: true,
    };
    let pairs = pairs(70);
    let all = run(&setup, &pairs, 2);
    let mut families = BTreeSet::new();
    for made in &all {
        if made.index % 5 == 0 {
            assert!(made.samples.is_empty());
            assert_eq!(made.rejected[0].reason, Reason::WrongAnswer);
            assert!(made.rejected[0].trajectory.is_some());
            continue;
        }
        let kind = made.samples[0].pair.extras["question_type"]
            .as_str()
            .unwrap();
        // One sharp frame is nothing that could be cut.
        let one_look = matches!(kind, "at" | "background");
        assert_eq!(made.samples.len(), if one_look { 1 } else { 2 });
        for sample in &made.samples {
            let provenance = &sample.provenance;
            families.extend(provenance.family);
            let hint = provenance.hint.as_deref().unwrap();
            let text = serde_json::to_string(&sample.trajectory).unwrap();
            let line = hint.lines().next_back().unwrap();
            assert!(!text.contains(&line[..line.len().min(30)]) || line.contains("tool_call"));
            assert_eq!(sample.trajectory.question, sample.pair.question);
            assert_eq!((provenance.seed, provenance.policy.as_str()), (3, "expert"));
        }
        if let [whole, cut] = made.samples.as_slice() {
            assert_eq!(cut.provenance.cut_turn, Some(0));
            let rounds = |sample: &Sample| sample.trajectory.outcome.tally.num_rounds;
            assert_eq!(rounds(cut), rounds(whole) + 1);
        }
    }
    assert_eq!(families.len(), 3, "{families:?}");
    // No experience is used in the first round.
    let past = |made: &&Made| {
        let family = made
            .samples
            .first()
            .and_then(|sample| sample.provenance.family);
        family == Some(Family::PastSuccesses)
    };
    assert!(all.iter().filter(past).all(|made| made.index >= ROUND));
}

#[test]
fn the_records_are_the_same_whatever_the_workers_and_the_interruptions() {
    let pairs = pairs(70);
    let whole = run(&WORLDS, &pairs, 1);
    assert_eq!(run(&WORLDS, &pairs, 4), whole);
    let dir = tempfile::tempdir().unwrap();
    let mut runs = 0;
    loop {
        let (_folder, mut journal) = folder(dir.path());
        let stop = AtomicBool::new(false);
        let stage = Stage::new("expert")
            .with_seed(3)
            .with_concurrency(3)
            .with_stop(&stop);
        let mut count = 0;
        let ended = Sft::new(stage)
            .run(&WORLDS, &pairs, &mut journal, &mut |_| {
                count += 1;
                stop.fetch_or(count == 9, std::sync::atomic::Ordering::Relaxed);
            })
            .unwrap();
        runs += 1;
        if !ended.interrupted {
            assert_eq!(made(&journal), whole);
            break;
        }
    }
    assert!(runs > 3, "{runs}");
}

#[test]
fn without_a_policy_the_stage_ends_and_does_not_hang() {
    let setup = Worlds {
        wrong: false,
        policy: false,
    };
    let dir = tempfile::tempdir().unwrap();
    let (_folder, mut journal) = folder(dir.path());
    let stage = Stage::new("none").with_concurrency(3);
    let ended = Sft::new(stage).run(&setup, &pairs(40), &mut journal, &mut |_| ());
    assert!(matches!(ended, Err(DataError::Equip(_))));
}

#[test]
fn a_panic_while_a_run_is_told_leaves_no_worker_waiting() {
    let (told, ended) = mpsc::channel();
    thread::spawn(move || {
        let dir = tempfile::tempdir().unwrap();
        let (_folder, mut journal) = folder(dir.path());
        let stage = Stage::new("expert").with_concurrency(2);
        let mut count = 0;
        let run = catch_unwind(AssertUnwindSafe(|| {
            Sft::new(stage).run(&WORLDS, &pairs(70), &mut journal, &mut |_| {
                count += 1;
                // One of the round is missing, for which the other worker waits.
                assert!(count < ROUND - 1, "nobody reads it");
            })
        }));
        told.send(run.is_err()).unwrap();
    });
    // On its own thread: without an end this test shall have one.
    assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true));
}

#[test]
fn a_sample_that_was_stored_becomes_an_example_of_the_trainer() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("eva-burn/assets/eva-tiny");
    let config = ModelConfig::load(&assets).unwrap();
    let images = ImageConfig::load(&assets).unwrap();
    let chat = Chat::load(&assets, config.image_token_id).unwrap();
    for made in run(&WORLDS, &pairs(3), 1) {
        for sample in made.samples {
            let line = serde_json::to_string(&sample).unwrap();
            let stored: Sample = serde_json::from_str(&line).unwrap();
            let mut source = WORLDS.source(&stored.pair.item(0)).unwrap();
            let conversation = stored.conversation(&mut source).unwrap();
            let encode = |messages: &[Message<'_, RgbImage>]| {
                Example::new(messages, &chat, &config, &images).unwrap()
            };
            let example = conversation.with_messages(encode);
            // The same pictures and texts as those of the run itself.
            let item = stored.pair.item(stored.index);
            let own = WORLDS.source(&item).unwrap();
            let messages = stored.trajectory.messages.iter();
            let replies = messages
                .filter(|message| message.role == eva_core::Role::Assistant)
                .map(|message| match &message.parts[0] {
                    eva_core::trajectory::PartRecord::Text(text) => text.clone(),
                    other => panic!("{other:?}"),
                });
            let replies: Vec<String> = replies.collect();
            let rounds = replies.len();
            let rules = eva_core::Rules::published();
            let Ok((_, played)) = play(own, Replay::new(replies), &item, rules) else {
                panic!("it does not play")
            };
            let expected = played.with_messages(encode);
            assert_eq!(example.tokens, expected.tokens);
            assert_eq!(example.patches.values(), expected.patches.values());
            assert_eq!(example.turns.len(), rounds);
            let targets: usize = example.turns.iter().map(ExactSizeIterator::len).sum();
            assert_eq!(Batch::new(&[example], &config).targets(), targets);
        }
    }
}

#[test]
fn another_video_than_the_recorded_one_is_noticed() {
    let made = &run(&WORLDS, &pairs(1), 1)[0];
    let mut sample = made.samples[0].clone();
    for message in &mut sample.trajectory.messages {
        for part in &mut message.parts {
            if let eva_core::trajectory::PartRecord::Image(image) = part {
                image.time += 0.06;
            }
        }
    }
    let mut source = WORLDS.source(&sample.pair.item(0)).unwrap();
    let error = sample.conversation(&mut source).unwrap_err().to_string();
    assert!(error.contains("is it the video"), "{error}");
}
