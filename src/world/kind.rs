//! What questions there are: [`Kind`].

use super::Colour;

/// What a question is about, which decides how it is best answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The digit on the card at a given time: one sharp frame, no scan.
    At,
    /// The digit on the card of a given colour: a cheap scan for when, then a sharp frame.
    Find,
    /// As [`Find`](Self::Find), but no card has the colour; the answer is `none`.
    Absent,
    /// The background at a given time: one frame at half the size, no scan.
    Background,
    /// Which of two cards comes first: a cheap scan, and no more.
    Order,
    /// How often the screen goes dark in a given window: many small frames of that window.
    Count,
}

impl Kind {
    /// All kinds.
    pub const ALL: &[Self] = &[
        Self::At,
        Self::Find,
        Self::Absent,
        Self::Background,
        Self::Order,
        Self::Count,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::At => "at",
            Self::Find => "find",
            Self::Absent => "absent",
            Self::Background => "background",
            Self::Order => "order",
            Self::Count => "count",
        }
    }
}

/// What the question names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// The card at a moment, in whole seconds.
    Moment(u32),
    /// The card of a colour.
    Colour(Colour),
    /// The background at a moment, in whole seconds.
    Background(u32),
    /// Two cards by their colours, in the order of the text.
    Order([Colour; 2]),
    /// A window in which the screen goes dark, in whole seconds.
    Darkness {
        /// Start of the window.
        start: u32,
        /// End of the window.
        end: u32,
    },
}
