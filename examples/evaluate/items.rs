//! Which items are run: [`Items`].

use std::path::Path;

use eva::benchmark::{Benchmark, Item, ItemFile, Videos, WorldItems};
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

impl Items {
    pub(crate) fn load(arguments: &Arguments) -> Result<Self, Failure> {
        let named = arguments.items.as_deref().unwrap_or_default();
        let (mut chosen, file, benchmark) = if named.starts_with("world:") {
            let items: WorldItems = named.parse()?;
            (items.items().collect::<Vec<Item>>(), None, None)
        } else {
            let mut file = ItemFile::read(named)?;
            let chosen = std::mem::take(&mut file.items);
            (chosen, Some(file), Benchmark::of_file(Path::new(named)))
        };
        let all = chosen.len();
        if let Some(limit) = arguments.limit.filter(|limit| *limit < all) {
            match arguments.seed {
                None => chosen.truncate(limit),
                Some(seed) => {
                    let mut rng = ChaCha8Rng::seed_from_u64(seed);
                    let mut places = index::sample(&mut rng, all, limit).into_vec();
                    places.sort_unstable();
                    let mut number = 0..;
                    chosen.retain(|_| {
                        number
                            .next()
                            .is_some_and(|number| places.binary_search(&number).is_ok())
                    });
                }
            }
        }
        Ok(Self {
            chosen,
            file,
            all,
            benchmark,
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
