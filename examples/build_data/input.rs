//! What is asked, and about which videos: [`Input`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eva::benchmark::{Videos, WorldItems};
use eva::data::{Pair, PairFile};
use eva::gst::FrameRule;
use eva::world::Split;

use crate::Failure;
use crate::arguments::{Common, PlayerChoice};
use crate::footage::Footage;
use crate::tell::tell;

/// Endings of files that count as videos.
const ENDINGS: [&str; 7] = ["avi", "m4v", "mkv", "mov", "mp4", "ts", "webm"];

/// Which worlds data is made of: those of `Split::Test` are for reported numbers alone.
const SPLIT: Split = Split::Train;

/// The pairs, and where their videos are.
pub(crate) struct Input {
    /// Those to be asked.
    pub(crate) pairs: Vec<Pair>,
    /// All that there are.
    all: All,
    pub(crate) footage: Arc<Footage>,
}

enum All {
    File(Vec<Pair>),
    /// Made one by one: there may be billions.
    Worlds(WorldItems),
}

impl Input {
    pub(crate) fn load(common: &Common) -> Result<Self, Failure> {
        let most = common.limit.unwrap_or(usize::MAX);
        let (pairs, all, footage) = if common.is_worlds() {
            let items: WorldItems = common.items.parse()?;
            let chosen = items.items_of(SPLIT).take(most);
            let videos = common.encode.then(|| common.out.join("videos"));
            (
                chosen.map(|item| Pair::of_item(&item)).collect(),
                All::Worlds(items),
                Footage::worlds(videos, FrameRule::default()),
            )
        } else {
            let file = PairFile::read(&common.items)?;
            if file.bad > 0 {
                tell(format_args!(
                    "left out: {} lines that are no questions",
                    file.bad
                ));
                for bad in &file.bad_lines {
                    tell(format_args!("  {bad}"));
                }
            }
            (
                file.pairs.iter().take(most).cloned().collect(),
                All::File(file.pairs),
                Footage::files(common.videos.as_deref(), FrameRule::default())?,
            )
        };
        if common.policy == PlayerChoice::EXPERT && !common.is_worlds() {
            return Err(
                "the expert only knows items of world:SEED:COUNT: choose another --policy".into(),
            );
        }
        Ok(Self {
            pairs,
            all,
            footage: Arc::new(footage),
        })
    }

    /// At most `most` videos that no pair is about.
    pub(crate) fn unseen(&self, common: &Common, most: usize) -> Result<Vec<String>, Failure> {
        let all = match &self.all {
            All::File(pairs) => pairs,
            All::Worlds(items) => {
                let seeds = items.other_worlds(SPLIT).take(most);
                return Ok(seeds.map(|seed| format!("world-{seed}.mp4")).collect());
            }
        };
        let folder = common.videos.as_deref();
        let folder = folder.ok_or("name the folder of the videos with --videos")?;
        let videos = Videos::new(folder)?;
        let asked: BTreeSet<PathBuf> = all
            .iter()
            .filter_map(|pair| videos.resolve(&pair.video).ok())
            .collect();
        let mut found = Vec::new();
        collect(folder, &mut found)?;
        found.sort();
        let unseen = found.iter().filter(|path| !asked.contains(*path));
        let names = unseen.filter_map(|path| path.strip_prefix(folder).ok()?.to_str());
        Ok(names.take(most).map(str::to_owned).collect())
    }
}

/// All videos in a folder and below. Links to folders are not followed: they may lead in a ring.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("cannot read the folder {}: {error}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, found)?;
            continue;
        }
        let ending = path.extension().and_then(|ending| ending.to_str());
        let ending = ending.map(str::to_lowercase).unwrap_or_default();
        if ENDINGS.contains(&ending.as_str()) {
            found.push(path);
        }
    }
    Ok(())
}
