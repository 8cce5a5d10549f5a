//! [`Ahead`] and [`ask`]: asking memory for numbers before they are multiplied.

/// How far ahead, in bytes.
const DISTANCE: usize = 4096;

/// The second level of the cache: it is too much for the first.
const LOCALITY: i32 = 2;

/// What lies ahead of numbers that are multiplied one after the other, which comes from memory meanwhile.
///
/// A processor fetches what comes next by itself, but no farther than its page of memory, and sees only a few
/// hundred instructions ahead in a loop: without this, numbers arrive at half the rate that memory has
/// (docs/hardware.md). Where a processor has no such instruction, nothing is done.
pub(crate) struct Ahead<'a, T, const STEP: usize>(std::slice::Iter<'a, [T; STEP]>);

impl<'a, T, const STEP: usize> Ahead<'a, T, STEP> {
    /// - numbers: all that are multiplied, in this order
    #[inline(always)]
    pub(crate) fn of(numbers: &'a [T]) -> Self {
        let ahead = numbers.get(DISTANCE / size_of::<T>()..);
        Self(ahead.unwrap_or_default().as_chunks().0.iter())
    }

    /// Asks for what lies ahead of the next `STEP` numbers: a line of the cache, or less. (Behind a rest of fewer
    /// numbers it asks for what is less far ahead.)
    #[inline(always)]
    pub(crate) fn ask(&mut self) {
        if let Some(numbers) = self.0.next() {
            ask(numbers);
        }
    }
}

/// Asks for numbers that will be needed: a line of the cache, or less.
#[inline(always)]
pub(crate) fn ask<T, const STEP: usize>(numbers: &[T; STEP]) {
    mem_prefetch::prefetch_read_data::<_, LOCALITY>(numbers);
}
