//! The NAL units of an access unit: [`units`].

use core::ops::Range;

/// Where the units of `data` lie, without the lengths or start codes before them.
///
/// - length: bytes of length before each unit; 0: start codes
///
/// With start codes a unit reaches to the end of `data`, see [`bounded`]: its own is looked for when
/// the next one is asked for, so that nothing is searched behind the first slice, which is most of a
/// picture. A unit that is cut short is what there is of it.
pub(crate) fn units(data: &[u8], length: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    core::iter::from_fn(move || {
        if length == 0 {
            let begin = at + start_code(data.get(at..)?)? + START_CODE.len();
            at = begin;
            return Some(begin..data.len());
        }
        let begin = at.checked_add(length)?;
        let size = data
            .get(at..begin)?
            .iter()
            .fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
        at = begin.saturating_add(size);
        (begin < data.len()).then_some(begin..at.min(data.len()))
    })
}

const START_CODE: [u8; 3] = [0, 0, 1];

/// Where the first start code is.
fn start_code(data: &[u8]) -> Option<usize> {
    memchr::memmem::find(data, &START_CODE)
}

/// A unit of start codes without what follows it.
pub(crate) fn bounded(unit: &[u8]) -> &[u8] {
    let end = start_code(unit).unwrap_or(unit.len());
    let unit = unit.get(..end).unwrap_or(unit);
    // The byte before a start code that makes it one of four.
    unit.strip_suffix(&[0]).unwrap_or(unit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn units_lie_behind_lengths_or_start_codes() {
        let lengths = [0, 2, 7, 8, 0, 0, 0, 3, 9];
        let found: Vec<_> = units(&lengths, 2).collect();
        assert_eq!(found, [2..4, 6..6, 8..9]);
        let codes = [0, 0, 0, 1, 7, 8, 0, 0, 0, 1, 9];
        let found: Vec<_> = units(&codes, 0).map(|unit| bounded(&codes[unit])).collect();
        assert_eq!(found, [&[7, 8][..], &[9]]);
        assert_eq!(units(&[], 0).count() + units(&[], 4).count(), 0);
    }
}
