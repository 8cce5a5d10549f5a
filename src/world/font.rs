//! Ten digits of 5 x 7 dots, drawn to be told apart when small and noisy.

/// Dots across a digit.
pub(super) const COLUMNS: u32 = 5;
/// Dots down a digit.
pub(super) const ROWS: u32 = 7;

/// Rows from the top; bit 4 is the leftmost dot.
const DIGITS: [[u8; ROWS as usize]; 10] = [
    [
        0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110,
    ],
    [
        0b00100, 0b01100, 0b10100, 0b00100, 0b00100, 0b00100, 0b11111,
    ],
    [
        0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111,
    ],
    [
        0b11111, 0b00010, 0b00100, 0b01110, 0b00001, 0b10001, 0b01110,
    ],
    [
        0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010,
    ],
    [
        0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110,
    ],
    [
        0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110,
    ],
    [
        0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000,
    ],
    [
        0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110,
    ],
    [
        0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100,
    ],
];

/// Whether the dot in `column`, `row` of `digit` is dark.
pub(super) fn dot(digit: u8, column: u32, row: u32) -> bool {
    DIGITS
        .get(usize::from(digit))
        .and_then(|rows| rows.get(row as usize))
        .is_some_and(|bits| column < COLUMNS && (bits >> (COLUMNS - 1 - column)) & 1 == 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn any_two_digits_differ_in_at_least_three_dots() {
        for a in 0..10 {
            for b in 0..a {
                let different = (0..ROWS)
                    .flat_map(|row| (0..COLUMNS).map(move |column| (column, row)))
                    .filter(|&(column, row)| dot(a, column, row) != dot(b, column, row))
                    .count();
                assert!(different >= 3, "{a} and {b} differ in {different} dots");
            }
        }
    }

    #[test]
    fn there_is_nothing_outside_a_digit() {
        assert!(!dot(10, 0, 0) && !dot(0, 5, 0) && !dot(0, 0, 7));
        assert!(dot(1, 2, 0));
    }
}
