//! A place in the host's text: [`Span`].

/// A range of bytes in a text that the host keeps, usually the model's last reply.
///
/// The agent stores no text: what it has to point out, it points out with a span, and the host reads
/// it with [`Span::of`].
///
/// ```
/// use eva_core::Span;
///
/// let span = Span::new(3, 6);
/// assert_eq!((span.of("So red."), span.len()), (Some("red"), 3));
/// assert_eq!(span.of("So"), None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The span from byte `start` up to, not including, byte `end`.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The text under the span, or `None` when `text` is not the text the span was made for (too
    /// short, or cut inside a character).
    #[must_use]
    pub fn of(self, text: &str) -> Option<&str> {
        text.get(self.start..self.end)
    }

    /// Number of bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Whether no byte is covered.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_text_and_refuses_another() {
        let span = Span::new(2, 5);
        assert_eq!(span.of("abcdef"), Some("cde"));
        assert_eq!((span.len(), span.is_empty()), (3, false));
        assert_eq!(span.of("abc"), None);
        assert_eq!(span.of("abcdé"), None);
        assert_eq!(Span::new(4, 2).of("abcdef"), None);
        assert!(Span::new(4, 2).is_empty());
    }
}
