//! The fuzz targets on the stable compiler: every file of the corpus, and many changes of each.

use std::fs;
use std::path::Path;

/// Changed inputs for each target; `EVA_FUZZ_CASES` asks for more or fewer.
const CASES: u32 = 100_000;

/// A small generator of random numbers, the same each time: a failure can be met again.
struct Random(u64);

impl Random {
    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// One of the changes that fuzzers make.
fn change(data: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(data.len() + 1);
    match random.below(6) {
        0 => data.insert(at, random.below(256) as u8),
        1 => data.truncate(at),
        2 => {
            let piece = b"{}[]\",:0.e-<>/ \\"[random.below(16)];
            data.insert(at, piece);
        }
        3 => {
            // The head of this and the tail of another.
            let other = &others[random.below(others.len())];
            let tail = random.below(other.len() + 1);
            data.truncate(at);
            data.extend_from_slice(&other[tail..]);
        }
        4 => {
            let end = at + random.below(data.len() - at + 1);
            let piece = data[at..end].to_vec();
            data.splice(at..at, piece);
        }
        _ => {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
    data.truncate(4096);
}

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!corpus.is_empty());
    corpus.iter().for_each(|data| target(data));

    let cases = std::env::var("EVA_FUZZ_CASES")
        .ok()
        .map(|cases| cases.parse().unwrap());
    let mut random = Random(0x5EED);
    for _ in 0..cases.unwrap_or(CASES) {
        let mut data = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(8) {
            change(&mut data, &corpus, &mut random);
        }
        let shown = Shown(&data);
        target(&data);
        std::mem::forget(shown);
    }
}

/// Says which input a target panicked on.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        eprintln!("input: \"{}\"", self.0.escape_ascii());
    }
}

#[test]
fn replies_are_read_in_place_whatever_they_say() {
    replay("reply", eva_fuzz::reply);
}

#[test]
fn arguments_are_read_as_json() {
    replay("arguments", eva_fuzz::arguments);
}

#[test]
fn selections_of_any_numbers_lie_within_the_video() {
    replay("selection", eva_fuzz::selection);
}

#[test]
fn the_agent_stays_sound_under_any_inputs_in_any_order() {
    replay("agent", eva_fuzz::agent);
}

#[test]
fn records_and_stored_runs_of_any_origin_are_safe() {
    replay("records", eva_fuzz::records);
}

/// Else changes of them would test the JSON reader alone.
#[test]
fn the_seeds_of_records_are_records_and_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/records");
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        let read = if file.file_name().to_string_lossy().starts_with("run-") {
            serde_json::from_str::<eva_core::Run<u8>>(&text).map(drop)
        } else {
            serde_json::from_str::<eva_core::Trajectory>(&text).map(drop)
        };
        assert!(read.is_ok(), "{file:?}: {read:?}");
    }
}
