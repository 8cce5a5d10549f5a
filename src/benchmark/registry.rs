//! What is published on the six benchmarks: [`Benchmark`].

use std::path::Path;

/// A benchmark, and what the published 7B weights reach on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Benchmark {
    /// Its name.
    pub name: &'static str,
    /// Number of its items.
    pub items: u64,
    /// What the published code reports.
    pub published: Published,
    /// Accuracies that are published beside the visual tokens they took.
    pub visual: &'static [VisualPoint],
}

/// A row of the published table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// Accuracy, 0 to 1.
    pub accuracy: f64,
    /// Mean number of replies.
    pub rounds: f64,
    /// Mean of all tokens of a run, text and pictures.
    pub total_tokens: f64,
}

/// An accuracy and the visual tokens it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VisualPoint {
    /// What reached it.
    pub label: &'static str,
    /// Accuracy, 0 to 1.
    pub accuracy: f64,
    /// Mean number of visual tokens.
    pub visual_tokens: f64,
    /// Mean number of frames.
    pub frames: f64,
}

const fn benchmark(
    name: &'static str,
    items: u64,
    (accuracy, rounds, total_tokens): (f64, f64, f64),
    visual: &'static [VisualPoint],
) -> Benchmark {
    Benchmark {
        name,
        items,
        published: Published {
            accuracy,
            rounds,
            total_tokens,
        },
        visual,
    }
}

impl Benchmark {
    /// The six, each with what the published 7B weights reach.
    pub const ALL: [Self; 6] = [
        benchmark("VideoMME", 2700, (0.6015, 2.42, 16_911.0), &[]),
        benchmark("LongVideoBench", 1337, (0.5497, 2.57, 19_042.0), &[]),
        benchmark("MLVU", 2174, (0.6826, 2.42, 16_570.0), &[]),
        benchmark(
            "LSDBench",
            1304,
            (0.4931, 2.48, 13_914.0),
            &[
                VisualPoint {
                    label: "EVA, as in the paper",
                    accuracy: 0.510,
                    visual_tokens: 10_300.0,
                    frames: 76.9,
                },
                VisualPoint {
                    label: "its base with 32 uniform frames",
                    accuracy: 0.492,
                    visual_tokens: 21_000.0,
                    frames: 32.0,
                },
            ],
        ),
        benchmark("Video-Holmes", 1837, (0.3718, 2.75, 9085.0), &[]),
        benchmark("LVBench", 1549, (0.4332, 2.62, 20_412.0), &[]),
    ];

    /// The benchmark of that name, however it is spelt: `Video-Holmes`, `videoholmes`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = plain(name);
        Self::ALL.iter().find(|known| plain(known.name) == name)
    }

    /// The benchmark whose name is part of the file's, for example `eval_mlvu_mcq.jsonl`.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<&'static Self> {
        let stem = plain(path.file_stem()?.to_str()?);
        Self::ALL
            .iter()
            .find(|known| stem.contains(&plain(known.name)))
    }
}

/// Letters and digits alone, in lower case.
fn plain(name: &str) -> String {
    let kept = name.chars().filter(char::is_ascii_alphanumeric);
    kept.map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_six_have_all_their_items() {
        let items: u64 = Benchmark::ALL.iter().map(|known| known.items).sum();
        assert_eq!(items, 10_901);
    }

    #[test]
    fn names_are_found_however_they_are_spelt() {
        for known in &Benchmark::ALL {
            assert_eq!(Benchmark::named(&known.name.to_uppercase()), Some(known));
            let file = format!("some/eval_{}_mcq-v2.jsonl", known.name.to_lowercase());
            assert_eq!(Benchmark::of_file(Path::new(&file)), Some(known));
        }
        let holmes = Benchmark::named("video_holmes").unwrap();
        assert_eq!(holmes.name, "Video-Holmes");
        assert_eq!(
            Benchmark::of_file(Path::new("videoholmes.jsonl")),
            Some(holmes)
        );
        assert_eq!(Benchmark::named("bench"), None);
        assert_eq!(Benchmark::of_file(Path::new("items.jsonl")), None);
        assert_eq!(Benchmark::of_file(Path::new("/")), None);
    }
}
