//! Pictures kept between calls: [`Cache`].
//!
//! An agent looks again at what it has seen: at the same window larger, at one that overlaps it.
//! Decoded pictures answer at any size, delivered frames only at theirs but are often much smaller:
//! both are kept, each kind within its part of the limit, the longest unused dropped first.

use core::hash::Hash;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use eva_core::{Pixels, RgbImage};

use crate::output::Picture;

/// Counted for each thing held besides its pixels, so that tiny frames cannot pile up either.
const OVERHEAD: usize = 256;

/// What is kept of earlier answers.
pub(crate) struct Cache {
    pictures: Lru<i64, Picture>,
    images: Lru<(i64, u32, u32), Arc<RgbImage>>,
    /// Which frame is on display: from each key up to `until`, the one of `time`.
    spans: BTreeMap<i64, Span>,
}

#[derive(Clone, Copy)]
struct Span {
    until: i64,
    time: i64,
}

impl Cache {
    /// A cache of at most `limit` bytes, of which a quarter is for delivered frames.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            pictures: Lru::new(limit - limit / 4),
            images: Lru::new(limit / 4),
            spans: BTreeMap::new(),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.pictures.bytes + self.images.bytes
    }

    /// The time of the frame on display at `target`, when that is known.
    pub(crate) fn displayed(&self, target: i64) -> Option<i64> {
        let (_, span) = self.spans.range(..=target).next_back()?;
        (target <= span.until).then_some(span.time)
    }

    /// Notes that the frame of `time` is on display from `from` to `until`.
    pub(crate) fn learn(&mut self, from: i64, until: i64, time: i64) {
        let span = self.spans.entry(from).or_insert(Span { until, time });
        span.until = span.until.max(until);
        span.time = time;
        // What is known of frames that are no longer held is of no use.
        let held = self.pictures.entries.len() + self.images.entries.len();
        if self.spans.len() > 2 * held + 1024 {
            let images: std::collections::HashSet<i64> =
                self.images.entries.keys().map(|key| key.0).collect();
            let pictures = &self.pictures.entries;
            self.spans
                .retain(|_, span| pictures.contains_key(&span.time) || images.contains(&span.time));
        }
    }

    pub(crate) fn picture(&mut self, time: i64) -> Option<Picture> {
        self.pictures.touch(&time)
    }

    pub(crate) fn image(&mut self, time: i64, width: u32, height: u32) -> Option<Arc<RgbImage>> {
        self.images.touch(&(time, width, height))
    }

    /// Keeps a picture and the frame that was made of it.
    pub(crate) fn keep(&mut self, picture: &Picture, image: &RgbImage) {
        let bytes = picture.buffer.maxsize() + OVERHEAD;
        self.pictures
            .insert(picture.time, bytes, || picture.clone());
        self.keep_image(picture.time, image, picture.buffer.size());
    }

    /// `source` is the size of the frame's picture in bytes.
    fn keep_image(&mut self, time: i64, image: &RgbImage, source: usize) {
        let bytes = image.rgb().len();
        // A large frame costs about as much to copy as to convert again from its picture.
        if bytes <= source / 4 {
            let key = (time, image.width(), image.height());
            self.images
                .insert(key, bytes + OVERHEAD, || Arc::new(image.clone()));
        }
    }
}

/// Things of known size, the least recently used of which make room for new ones.
struct Lru<K, V> {
    limit: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<K, Entry<V>>,
    by_use: BTreeMap<u64, K>,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Lru<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            clock: 0,
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    fn touch(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.clock += 1;
        self.by_use.remove(&entry.used);
        self.by_use.insert(self.clock, *key);
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    fn insert(&mut self, key: K, bytes: usize, value: impl FnOnce() -> V) {
        if bytes > self.limit || self.entries.contains_key(&key) {
            return;
        }
        while self.bytes > self.limit - bytes {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            if let Some(gone) = self.entries.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        self.by_use.insert(self.clock, key);
        let (value, used) = (value(), self.clock);
        self.entries.insert(key, Entry { value, bytes, used });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_longest_unused_makes_room_and_the_limit_holds() {
        let mut lru = Lru::new(100);
        for key in 0..4 {
            lru.insert(key, 30, || key * 10);
            assert!(lru.bytes <= 100);
            // Number 0 stays in use.
            assert_eq!(lru.touch(&0), Some(0));
        }
        assert_eq!(lru.touch(&1), None);
        assert_eq!((lru.touch(&2), lru.touch(&3)), (Some(20), Some(30)));
        lru.insert(9, 101, || 90);
        assert_eq!((lru.touch(&9), lru.entries.len()), (None, 3));
        assert_eq!(lru.entries.len(), lru.by_use.len());
        lru.insert(5, 100, || 50);
        assert_eq!((lru.bytes, lru.entries.len()), (100, 1));
    }

    #[test]
    fn a_frame_is_known_to_be_on_display_as_far_as_was_read() {
        let mut cache = Cache::new(1 << 20);
        cache.learn(100, 140, 100);
        cache.learn(200, 210, 200);
        // A damaged frame is answered by the one before it.
        cache.learn(300, 340, 260);
        let displayed = [99, 100, 140, 141, 205, 211, 320].map(|at| cache.displayed(at));
        let expected = [None, Some(100), Some(100), None, Some(200), None, Some(260)];
        assert_eq!(displayed, expected);
        cache.learn(200, 240, 200);
        cache.learn(200, 205, 200);
        assert_eq!(cache.displayed(240), Some(200));
    }

    #[test]
    fn knowledge_of_frames_that_are_gone_does_not_pile_up() {
        let mut cache = Cache::new(0);
        for time in 0..100_000 {
            cache.learn(time * 40, time * 40 + 39, time * 40);
        }
        assert!(cache.spans.len() <= 1025);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn only_frames_much_smaller_than_their_picture_are_kept_beside_it() {
        let mut cache = Cache::new(1 << 20);
        let image = RgbImage::new(10, 10, vec![7; 300]).unwrap();
        cache.keep_image(0, &image, 1199);
        assert!(cache.image(0, 10, 10).is_none());
        cache.keep_image(0, &image, 1200);
        assert_eq!(cache.image(0, 10, 10).as_deref(), Some(&image));
        assert!(cache.image(0, 10, 11).is_none());
        assert_eq!(cache.bytes(), 300 + OVERHEAD);
    }
}
