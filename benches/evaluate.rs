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
        "reward_model": {"style": "rule", "ground_truth": if index.is_multiple_of(3) { "B" } else { "A" }},
        "question_type": format!("type {}", index % 7),
        "uid": format!("item-{index}"),
    });
    Item::parse(line.to_string().as_bytes(), index).unwrap()
}

/// Time that this process has had a core, in seconds, where the system tells. On a machine that does
/// other work too, it says more than the clock.
fn busy() -> Option<f64> {
    /// A second as the kernel counts it for programs.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name before it may hold anything, but ends with the last bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut numbers = rest.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((numbers.next()?.ok()? + numbers.next()?.ok()?) / TICKS)
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
        let (began, busy_before) = (Instant::now(), busy());
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
        let rate = |seconds: f64| format!("{:.0}", count as f64 / seconds.max(1e-3));
        let busy = busy()
            .zip(busy_before)
            .map(|(after, before)| after - before);
        let per_core = busy.map_or("unknown".to_owned(), rate);
        println!(
            "{count:>7} items: {:>6} items/s by the clock, {per_core:>6} items/s of a core, {memory}",
            rate(seconds)
        );
    }
}
