//! What the harness itself takes, with a policy that answers at once and frames that are there:
//! items a second on one core, and memory after 1,000 and after 100,000 items.
//!
//! ```text
//! cargo bench --bench evaluate
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::time::Instant;

use eva::benchmark::Item;
use eva::core::mock::SolidSource;
use eva::core::{Message, Policy, RgbImage, Usage, VideoInfo};
use eva::evaluate::{Evaluation, Results, Scorer, Setup};

/// Looks once at eight small frames, then answers.
struct Instantly;

impl Policy<RgbImage> for Instantly {
    type Error = fmt::Error;

    fn generate(
        &mut self,
        conversation: &[Message<'_, RgbImage>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        reply.write_str(if conversation.len() == 2 {
            "<tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 0, \
             \"end_time\": 90, \"nframes\": 8, \"resize\": 0.1}}</tool_call>"
        } else {
            "<answer>A</answer>"
        })?;
        Ok(Usage::default())
    }
}

struct Harness;

impl Setup for Harness {
    type Source = SolidSource;
    type Policy = Instantly;
    type Error = Infallible;

    fn policy(&self) -> Result<Instantly, Infallible> {
        Ok(Instantly)
    }

    fn source(&self, _: &Item) -> Result<SolidSource, Infallible> {
        Ok(SolidSource::new(VideoInfo {
            duration: 90.0,
            width: 640,
            height: 360,
            fps: 25.0,
        }))
    }
}

/// As long as a published item with its options.
fn item(index: u64) -> Item {
    let line = serde_json::json!({
        "index": index,
        "videos": [format!("/data/videos/{index}.mp4")],
        "prompt": [{"role": "user", "content": "What is it about? A. This. B. That. ".repeat(12)}],
        "reward_model": {"style": "rule", "ground_truth": if index % 3 == 0 { "B" } else { "A" }},
        "question_type": format!("type {}", index % 7),
        "uid": format!("item-{index}"),
    });
    Item::parse(line.to_string().as_bytes(), index).unwrap()
}

/// Memory of this process in MiB, where the system tells.
fn memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

fn main() {
    // `cargo test` runs benchmarks too, to see that they work.
    let brief = !std::env::args().any(|argument| argument == "--bench");
    let rounds: &[u64] = if brief {
        &[100]
    } else {
        &[1_000, 10_000, 100_000]
    };
    for &count in rounds {
        let folder = tempfile::tempdir().unwrap();
        let mut results = Results::open(folder.path(), &serde_json::Map::new(), false).unwrap();
        let mut scorer = Scorer::new();
        let began = Instant::now();
        let ended = Evaluation::new()
            .run(
                &Harness,
                (0..count).map(item),
                &mut results,
                &mut |record| scorer.add(record),
            )
            .unwrap();
        let seconds = began.elapsed().as_secs_f64();
        assert_eq!((ended.finished, scorer.score().items), (count, count));
        assert_eq!(scorer.score().correct, count - count.div_ceil(3));
        let memory = memory().map_or("unknown".to_owned(), |mib| format!("{mib:.1} MiB"));
        println!(
            "{count:>7} items: {:>7.0} items/s, {memory} in memory",
            count as f64 / seconds
        );
    }
}
