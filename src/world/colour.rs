//! The colours of cards: [`Colour`].

use core::fmt;

/// Colour of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Colour {
    /// Red.
    Red,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Yellow.
    Yellow,
    /// Purple.
    Purple,
    /// White.
    White,
}

impl Colour {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Purple,
        Self::White,
    ];

    /// Red, green and blue of the card before the video's noise.
    #[must_use]
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [222, 40, 40],
            Self::Green => [40, 185, 70],
            Self::Blue => [45, 95, 235],
            Self::Yellow => [238, 215, 45],
            Self::Purple => [175, 50, 205],
            Self::White => [245, 245, 245],
        }
    }
}

/// The name as questions spell it: lower case.
impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Purple => "purple",
            Self::White => "white",
        })
    }
}
