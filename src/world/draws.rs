//! Random numbers whose sequence never changes with a dependency: a seed names a world for good.

/// Scrambles 64 bits (the finaliser of SplitMix64).
pub(super) const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// What a stream is drawn for. The numbers never change: they are part of what a seed means.
pub(super) mod purpose {
    /// Length of the video.
    pub(in super::super) const LENGTH: u64 = 0;
    /// Everything that is always there.
    pub(in super::super) const SCENERY: u64 = 1;
    /// Which question.
    pub(in super::super) const QUESTION: u64 = 2;
    /// What a teacher does wrong.
    pub(in super::super) const HABITS: u64 = 3;

    /// The cards, in layout number `attempt`, from 1.
    pub(in super::super) const fn cards(attempt: u64) -> u64 {
        attempt << 8
    }

    /// Patterns and blinking, in layout number `attempt`, from 1.
    pub(in super::super) const fn changes(attempt: u64) -> u64 {
        attempt << 8 | 1
    }

    /// The options of questions of kind number `kind`.
    pub(in super::super) const fn choices(kind: u64) -> u64 {
        kind << 8 | 4
    }
}

/// A SplitMix64 stream.
#[derive(Debug, Clone)]
pub(super) struct Draws(u64);

impl Draws {
    /// A stream of its own for each `seed` and `purpose`.
    pub(super) const fn new(seed: u64, purpose: u64) -> Self {
        Self(mix(seed).wrapping_add(mix(purpose.wrapping_add(0x5851_f42d_4c95_7f2d))))
    }

    /// 64 fresh bits.
    const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A whole number, evenly from `low..=high`; `low` when the range is empty.
    pub(super) fn whole(&mut self, low: i32, high: i32) -> i32 {
        let width = (i64::from(high) - i64::from(low) + 1).max(1);
        // The high half of a 96-bit product is even to within 2^-32.
        let step = ((self.bits() >> 32) * width as u64) >> 32;
        (i64::from(low) + step as i64) as i32
    }

    /// A number, evenly from `low..high`.
    pub(super) fn real(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        low + (high - low) * unit
    }

    /// One of `items`; `None` when there are none.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let last = i32::try_from(items.len()).ok()?.checked_sub(1)?;
        items.get(self.whole(0, last) as usize)
    }

    /// Puts `items` into a random order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.whole(0, i32::try_from(last).unwrap_or(i32::MAX));
            items.swap(last, other as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn whole_numbers_reach_both_ends_and_no_further() {
        let mut draws = Draws::new(1, 2);
        let seen: Vec<i32> = (0..1000).map(|_| draws.whole(-2, 2)).collect();
        for value in -2..=2 {
            let count = seen.iter().filter(|&&each| each == value).count();
            assert!((150..250).contains(&count), "{value} came {count} times");
        }
        assert!(seen.iter().all(|value| (-2..=2).contains(value)));
        assert_eq!(draws.whole(5, 3), 5);
    }

    #[test]
    fn real_numbers_stay_in_their_range() {
        let mut draws = Draws::new(7, 0);
        for _ in 0..1000 {
            assert!((3.0..4.5).contains(&draws.real(3.0, 4.5)));
        }
    }

    #[test]
    fn picking_from_nothing_gives_nothing() {
        assert_eq!(Draws::new(0, 0).pick::<u8>(&[]), None);
        assert_eq!(Draws::new(0, 0).pick(&[9]), Some(&9));
    }

    #[test]
    fn shuffling_brings_every_item_to_every_place() {
        let mut draws = Draws::new(3, 0);
        let mut counts = [[0; 4]; 4];
        for _ in 0..4000 {
            let mut items = [0, 1, 2, 3];
            draws.shuffle(&mut items);
            for (place, item) in items.into_iter().enumerate() {
                counts[place][item] += 1;
            }
        }
        let mut all = counts.as_flattened().iter();
        assert!(all.all(|count| (900..1100).contains(count)), "{counts:?}");
        draws.shuffle::<u8>(&mut []);
    }

    #[test]
    fn streams_of_two_purposes_differ() {
        let (mut a, mut b) = (Draws::new(1, 0), Draws::new(1, 1));
        assert_ne!(a.bits(), b.bits());
    }
}
