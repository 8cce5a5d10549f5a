//! Which items are run: [`Items`].

use std::path::Path;

use eva::benchmark::{Benchmark, Item, ItemFile, Videos, WorldItems};
use eva::world::Split;
use rand::SeedableRng as _;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use crate::Failure;
use crate::arguments::Arguments;
use crate::policy::PolicyChoice;

/// The items, and where they come from.
pub(crate) struct Items {
    /// Those to be run, in order.
    pub(crate) chosen: Vec<Item>,
    /// The file they are from, without its items; `None` for synthetic worlds.
    pub(crate) file: Option<ItemFile>,
    /// Number of all items.
    pub(crate) all: usize,
    /// The published benchmark they are of.
    pub(crate) benchmark: Option<&'static Benchmark>,
}

/// Which of `all` items are chosen, in order.
fn places(arguments: &Arguments, all: usize) -> Box<dyn Iterator<Item = usize>> {
    let limit = arguments.limit.unwrap_or(all).min(all);
    match arguments.seed {
        Some(seed) if limit < all => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut places = index::sample(&mut rng, all, limit).into_vec();
            places.sort_unstable();
            Box::new(places.into_iter())
        }
        _ => Box::new(0..limit),
    }
}

impl Items {
    pub(crate) fn load(arguments: &Arguments) -> Result<Self, Failure> {
        let named = arguments.items.as_deref().unwrap_or_default();
        if named.starts_with("world:") {
            let items: WorldItems = named.parse()?;
            let all = items.count as usize;
            // Only what is chosen is made: there may be billions.
            let make = |place| items.get(Split::Test, u32::try_from(place).ok()?);
            return Ok(Self {
                chosen: places(arguments, all).filter_map(make).collect(),
                file: None,
                all,
                benchmark: None,
            });
        }
        let mut file = ItemFile::read(named)?;
        let mut items: Vec<Option<Item>> = file.items.drain(..).map(Some).collect();
        let all = items.len();
        Ok(Self {
            chosen: places(arguments, all)
                .filter_map(|place| items.get_mut(place)?.take())
                .collect(),
            file: Some(file),
            all,
            benchmark: Benchmark::of_file(Path::new(named)),
        })
    }

    /// The videos of the chosen items that are not in the folder, each once.
    pub(crate) fn missing(&self, folder: Option<&Path>) -> Result<Vec<String>, Failure> {
        if self.file.is_none() {
            return Ok(Vec::new());
        }
        let videos = Videos::new(folder.ok_or("name the folder of the videos with --videos")?)?;
        let written = self.chosen.iter().map(Item::video);
        let mut missing: Vec<String> = written
            .filter(|video| videos.resolve(video).is_err())
            .map(str::to_owned)
            .collect();
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }

    /// The expert knows nothing but the synthetic worlds.
    pub(crate) fn check_policy(&self, policy: &PolicyChoice) -> Result<(), Failure> {
        match policy {
            PolicyChoice::Expert if self.file.is_some() => Err(
                "the expert only knows items of world:SEED:COUNT: choose another --policy".into(),
            ),
            _ => Ok(()),
        }
    }
}
