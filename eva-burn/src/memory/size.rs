//! Amounts of memory as people write them: [`ByteSize`].

use std::fmt;
use std::str::FromStr;

/// A number of bytes: `8GB` are 8 billion, `8GiB` are 8 times 2^30.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// What was written is no amount of memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount of memory; write for example 8GB, 7.5GiB or 900MB")]
pub struct NoSize(String);

const UNITS: [(&str, u64); 5] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = NoSize;

    fn from_str(text: &str) -> Result<Self, NoSize> {
        let none = || NoSize(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let split = |(unit, bytes): &(&str, u64)| {
            let number = lower.strip_suffix(&unit.to_ascii_lowercase())?;
            Some((number.trim_end().to_owned(), *bytes))
        };
        let (number, unit) = UNITS.iter().find_map(split).ok_or_else(none)?;
        let number: f64 = number.parse().map_err(|_| none())?;
        let bytes = number * unit as f64;
        if bytes >= 1.0 && bytes < u64::MAX as f64 {
            Ok(Self(bytes as u64))
        } else {
            Err(none())
        }
    }
}

/// In the largest decimal unit of which it has one, with three digits.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        let (number, unit) = if self.0 >= 1_000_000_000 {
            (bytes / 1e9, "GB")
        } else if self.0 >= 1_000_000 {
            (bytes / 1e6, "MB")
        } else {
            (bytes / 1e3, "kB")
        };
        let digits = match number {
            100.0.. => 0,
            10.0.. => 1,
            _ => 2,
        };
        // Whole numbers, such as budgets, as they were written.
        let digits = if number.fract() == 0.0 { 0 } else { digits };
        f.pad(&format!("{number:.digits$} {unit}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        for (text, bytes) in [
            ("8GB", 8_000_000_000),
            ("8 gb", 8_000_000_000),
            ("7.5GiB", 8_053_063_680),
            ("900MB", 900_000_000),
            ("1MiB", 1 << 20),
            (" 12B ", 12),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in [
            "", "8", "GB", "-8GB", "0GB", "NaN GB", "inf GB", "8TB", "1e30GB",
        ] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert_eq!(error, NoSize(text.to_owned()));
        }
        for (bytes, text) in [
            (8_000_000_000, "8 GB"),
            (15_234_000_000, "15.2 GB"),
            (1_234_000_000, "1.23 GB"),
            (73_728_000, "73.7 MB"),
            (500, "0.50 kB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
