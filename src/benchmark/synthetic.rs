//! Items of synthetic worlds: [`WorldItems`].

use std::fmt;
use std::str::FromStr;

use eva_core::Role;
use serde_json::Map;

use super::{Item, Prompt};
use crate::world::{Kind, Question, Split, World};

/// Questions about synthetic worlds, written `world:SEED:COUNT[:KIND]`.
///
/// `COUNT` questions about the worlds number `SEED` and following of [`Split::Test`], which training
/// never sees, or of another split ([`WorldItems::items_of`]). With a kind (`at`, `find`, `absent`,
/// `background`, `order`, `count`) each world is asked one question of it; without, one of each.
///
/// ```
/// use eva::benchmark::WorldItems;
/// let items: WorldItems = "world:1:12".parse()?;
/// let kinds: Vec<String> =
///     items.items().map(|item| item.extras["question_type"].to_string()).collect();
/// assert_eq!(kinds.len(), 12);
/// assert_eq!(kinds[0], kinds[6]);
/// # Ok::<(), eva::benchmark::WorldItemsError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorldItems {
    /// Number of the first world.
    pub first: u32,
    /// Number of items.
    pub count: u32,
    /// The only kind of question that is asked.
    pub kind: Option<Kind>,
}

/// The text does not say which worlds to ask about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` does not name synthetic items: write world:SEED:COUNT, for example world:1:60, and to \
     ask one kind of question alone, add {}",
    kinds()
)]
pub struct WorldItemsError {
    text: String,
}

fn kinds() -> String {
    let names: Vec<String> = Kind::ALL
        .iter()
        .map(|kind| format!(":{}", kind.name()))
        .collect();
    names.join(" or ")
}

/// What an item of [`WorldItems`] asks about: the truth, for an expert and for a source of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorldTask {
    /// Seed of the world.
    pub seed: u64,
    /// The question about it.
    pub question: Question,
}

impl FromStr for WorldItems {
    type Err = WorldItemsError;

    fn from_str(text: &str) -> Result<Self, WorldItemsError> {
        let read = || {
            let mut parts = text.split(':');
            if parts.next()? != "world" {
                return None;
            }
            let first = parts.next()?.parse().ok()?;
            let count = parts.next()?.parse().ok().filter(|count| *count > 0)?;
            let kind = match parts.next() {
                Some(name) => Some(kind(name)?),
                None => None,
            };
            let items = Self { first, count, kind };
            parts.next().is_none().then_some(items)
        };
        read().ok_or_else(|| WorldItemsError {
            text: text.to_owned(),
        })
    }
}

/// As it is written.
impl fmt::Display for WorldItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "world:{}:{}", self.first, self.count)?;
        match self.kind {
            Some(kind) => write!(f, ":{}", kind.name()),
            None => Ok(()),
        }
    }
}

impl WorldItems {
    /// The items, each made when it is asked for.
    pub fn items(self) -> impl Iterator<Item = Item> + Send {
        self.items_of(Split::Test)
    }

    /// The items about the worlds of another split.
    pub fn items_of(self, split: Split) -> impl Iterator<Item = Item> + Send {
        (0..self.count).map(move |index| self.item(split, index))
    }

    /// The item number `index`, counted from 0, about a world of `split`. No other is made for it.
    #[must_use]
    pub fn get(self, split: Split, index: u32) -> Option<Item> {
        (index < self.count).then(|| self.item(split, index))
    }

    /// Seeds of the worlds of `split` that no item is about, from the one after the last on.
    pub fn other_worlds(self, split: Split) -> impl Iterator<Item = u64> + Send {
        let (_, all) = self.asked();
        let worlds = self.count.div_ceil(all);
        (worlds..=u32::MAX).map(move |number| split.seed(self.first.wrapping_add(number)))
    }

    /// The kinds of questions that each world is asked, and their number.
    fn asked(&self) -> (&[Kind], u32) {
        let kinds = match &self.kind {
            Some(kind) => std::slice::from_ref(kind),
            None => Kind::ALL,
        };
        // There is always at least one kind.
        (kinds, u32::try_from(kinds.len()).unwrap_or(1).max(1))
    }

    fn item(self, split: Split, index: u32) -> Item {
        let (kinds, all) = self.asked();
        let kind = kinds.get((index % all) as usize).copied();
        // Numbers go round rather than beyond the split.
        let number = self.first.wrapping_add(index / all);
        let world = World::new(split.seed(number));
        let question = world.question(kind.unwrap_or(Kind::Find), u64::from(number));
        let length = match world.duration() {
            ..300.0 => "below 5 min",
            ..600.0 => "5 to 10 min",
            _ => "10 to 15 min",
        };
        let mut extras = Map::new();
        extras.insert("duration".to_owned(), length.into());
        extras.insert("question_type".to_owned(), question.kind.name().into());
        Item {
            index: u64::from(index),
            videos: vec![format!("world-{}.mp4", world.seed())],
            prompt: vec![Prompt {
                role: Role::User,
                content: question.text,
            }],
            ground_truth: question.answer,
            extras,
        }
    }
}

impl WorldTask {
    /// The seed of the world whose video has this name, as items of synthetic worlds write it.
    #[must_use]
    pub fn seed(video: &str) -> Option<u64> {
        let name = video.strip_prefix("world-")?;
        name.strip_suffix(".mp4")?.parse().ok()
    }

    /// The task of an item, if it is one about a synthetic world.
    #[must_use]
    pub fn of(item: &Item) -> Option<Self> {
        let seed = Self::seed(item.video())?;
        let kind = kind(item.extras.get("question_type")?.as_str()?)?;
        // The seed of the question is the number of the world within its split.
        let question = World::new(seed).question(kind, seed & u64::from(u32::MAX));
        (question.text == item.question()).then_some(Self { seed, question })
    }
}

fn kind(name: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.name() == name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_world_is_asked_each_kind_in_turn_or_the_one_that_is_named() {
        let items: Vec<Item> = "world:7:12"
            .parse::<WorldItems>()
            .unwrap()
            .items()
            .collect();
        let kinds: Vec<&serde_json::Value> = items
            .iter()
            .map(|item| &item.extras["question_type"])
            .collect();
        let all = ["at", "find", "absent", "background", "order", "count"];
        assert_eq!(kinds, [all, all].concat());
        assert_eq!(items[0].videos, items[5].videos);
        assert_ne!(items[5].videos, items[6].videos);
        let finds: WorldItems = "world:7:2:find".parse().unwrap();
        let finds: Vec<Item> = finds.items().collect();
        assert_eq!(finds[0].prompt, items[1].prompt);
        assert_eq!(finds[1].prompt, items[7].prompt);
        assert_eq!((finds[0].index, finds[1].index), (0, 1));
        for kind in Kind::ALL {
            let named: WorldItems = format!("world:7:1:{}", kind.name()).parse().unwrap();
            let items: Vec<Item> = named.items().collect();
            assert_eq!(items[0].extras["question_type"], kind.name());
            let asked = World::new(Split::Test.seed(7)).question(*kind, 7);
            assert_eq!(WorldTask::of(&items[0]).unwrap().question, asked);
        }
    }

    #[test]
    fn an_item_is_made_alone_and_the_worlds_of_none_are_the_others() {
        let items: WorldItems = "world:7:13".parse().unwrap();
        let all: Vec<Item> = items.items().collect();
        let alone = |index| items.get(Split::Test, index);
        let made: Vec<Item> = (0..20).filter_map(alone).collect();
        assert_eq!(made, all);
        // Three worlds are asked, the last of them one question alone.
        let others: Vec<u64> = items.other_worlds(Split::Train).take(2).collect();
        assert_eq!(others, [10, 11]);
        // Round the end of the split, not into the next one.
        let last: WorldItems = "world:4294967295:1:at".parse().unwrap();
        assert_eq!(last.other_worlds(Split::Train).next(), Some(0));
        // Billions of items are no reason to make them.
        let most: WorldItems = "world:1:4294967295:at".parse().unwrap();
        let others: Vec<u64> = most.other_worlds(Split::Train).collect();
        assert_eq!(others, [0]);
        assert!(most.get(Split::Test, u32::MAX - 1).is_some());
    }

    #[test]
    fn the_task_behind_an_item_is_found_again_and_only_there() {
        for item in "world:9:30".parse::<WorldItems>().unwrap().items() {
            let task = WorldTask::of(&item).unwrap();
            assert_eq!(task.question.text, item.question());
            assert_eq!(task.question.answer, item.ground_truth);
            let mut other = item.clone();
            other.prompt[0].content = "Who is the mayor?".to_owned();
            assert_eq!(WorldTask::of(&other), None);
            other.extras.clear();
            assert_eq!(WorldTask::of(&other), None);
        }
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in [
            "",
            "world",
            "world:",
            "world:1",
            "world:1:",
            "world:1:0",
            "world:-1:5",
            "world:1:5:",
            "world:1:5:why",
            "world:1:5:at:at",
            "World:1:5",
            "world:1:99999999999",
        ] {
            let error = text.parse::<WorldItems>().unwrap_err().to_string();
            assert!(
                error.contains("world:1:60") && error.contains(":find"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(first: u32, count in 1u32.., kind in 0usize..=Kind::ALL.len()) {
            let items = WorldItems { first, count, kind: Kind::ALL.get(kind).copied() };
            prop_assert_eq!(items.to_string().parse::<WorldItems>(), Ok(items));
        }
    }
}
