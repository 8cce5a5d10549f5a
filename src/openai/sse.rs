//! Server-sent events, as far as a chat API uses them: [`Events`].
//!
//! Written here because the kept crates for them read asynchronous streams.

use std::io::{self, BufRead};

/// Reads the data of events from a body.
///
/// Lines end with LF, CR or CRLF. Comments and fields other than `data` are passed over; the `data`
/// lines of an event are joined by line breaks. What stands behind the last blank line counts as an
/// event too, for servers that leave the blank line out.
pub(super) struct Events<R> {
    body: R,
    /// Most bytes of one event.
    limit: usize,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    /// Nothing was read yet: there may be a byte order mark.
    at_start: bool,
}

/// Events can't be read on.
#[derive(Debug)]
pub(super) enum EventError {
    Io(io::Error),
    NotUtf8,
    TooLarge,
}

impl<R: BufRead> Events<R> {
    pub(super) fn new(body: R, limit: usize) -> Self {
        Self {
            body,
            limit,
            after_cr: false,
            at_start: true,
        }
    }

    /// The data of the next event that has some, or `None` at the end of the body.
    pub(super) fn next(&mut self) -> Result<Option<String>, EventError> {
        let mut data: Option<Vec<u8>> = None;
        let mut line = Vec::new();
        while self.line(&mut line)? {
            match value(&line) {
                Some(value) => {
                    let data = match &mut data {
                        Some(data) => {
                            data.push(b'\n');
                            data
                        }
                        none => none.insert(Vec::new()),
                    };
                    if data.len().saturating_add(value.len()) > self.limit {
                        return Err(EventError::TooLarge);
                    }
                    data.extend_from_slice(value);
                }
                None if line.is_empty() && data.is_some() => break,
                None => {}
            }
        }
        let text = data.map(|data| String::from_utf8(data).map_err(|_| EventError::NotUtf8));
        text.transpose()
    }

    /// Reads the next line, without its end, and says whether there was one.
    fn line(&mut self, line: &mut Vec<u8>) -> Result<bool, EventError> {
        line.clear();
        loop {
            let buffer = match self.body.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(EventError::Io(error)),
            };
            if buffer.is_empty() {
                return Ok(!line.is_empty());
            }
            if self.after_cr {
                self.after_cr = false;
                if buffer.first() == Some(&b'\n') {
                    self.body.consume(1);
                    continue;
                }
            }
            let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let text = buffer
                .get(..end.unwrap_or(buffer.len()))
                .unwrap_or_default();
            // The name of the field beside the value.
            if line.len().saturating_add(text.len()) > self.limit.saturating_add(16) {
                return Err(EventError::TooLarge);
            }
            line.extend_from_slice(text);
            let used = text.len() + usize::from(end.is_some());
            self.after_cr = end.is_some_and(|end| buffer.get(end) == Some(&b'\r'));
            self.body.consume(used);
            if end.is_some() {
                if std::mem::take(&mut self.at_start) && line.starts_with(b"\xef\xbb\xbf") {
                    line.drain(..3);
                }
                return Ok(true);
            }
        }
    }
}

/// The value of a field `data`.
fn value(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::io::{BufReader, Read};

    /// Gives one byte a read, as a slow network does.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match (self.0.split_first(), into.first_mut()) {
                (Some((byte, rest)), Some(into)) => {
                    *into = *byte;
                    self.0 = rest;
                    Ok(1)
                }
                _ => Ok(0),
            }
        }
    }

    fn read(body: &[u8]) -> Vec<String> {
        let mut events = Events::new(body, 100);
        let all: Vec<String> = std::iter::from_fn(|| events.next().unwrap()).collect();
        let mut slow = Events::new(BufReader::new(Slow(body)), 100);
        let slowly: Vec<String> = std::iter::from_fn(|| slow.next().unwrap()).collect();
        assert_eq!(all, slowly);
        all
    }

    #[test]
    fn events_are_read_whatever_ends_their_lines() {
        let body = "data: one\n\ndata:two\n\ndata\n\ndata: three\n\n";
        for end in ["\n", "\r", "\r\n"] {
            let body = body.replace('\n', end);
            assert_eq!(read(body.as_bytes()), ["one", "two", "", "three"]);
        }
        assert_eq!(
            read(b"data: a\r\n\ndata: b\r\r\ndata: c\n\n"),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn several_data_lines_are_one_event_and_other_fields_and_comments_none() {
        let body = "\u{feff}: welcome\n\n: ping\nevent: delta\nid: 7\ndata: {\"a\":\ndata: 1}\n\
                    retry: 10\n\ndatabase: x\nunknown\n\n\n\ndata: \u{e9}\u{1f600}\n\n";
        assert_eq!(read(body.as_bytes()), ["{\"a\":\n1}", "\u{e9}\u{1f600}"]);
        assert_eq!(read("\u{feff}data: x\n\n".as_bytes()), ["x"]);
    }

    #[test]
    fn an_end_without_a_blank_line_ends_the_last_event() {
        assert_eq!(read(b"data: a\n\ndata: b"), ["a", "b"]);
        assert_eq!(read(b"data: a\n"), ["a"]);
        assert_eq!(read(b""), [""; 0]);
        assert_eq!(read(b"\n\n: bye\n"), [""; 0]);
    }

    #[test]
    fn an_event_beyond_the_limit_is_refused_before_it_is_held() {
        struct Endless;
        impl Read for Endless {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                into.fill(b'x');
                Ok(into.len())
            }
        }
        let mut one_line = Events::new(BufReader::new(b"data: ".chain(Endless)), 1000);
        assert!(matches!(one_line.next(), Err(EventError::TooLarge)));
        let lines = b"data: 0123456789\n".repeat(100);
        let mut many_lines = Events::new(lines.as_slice(), 1000);
        assert!(matches!(many_lines.next(), Err(EventError::TooLarge)));
        let mut comment = Events::new(BufReader::new(b":".chain(Endless)), 1000);
        assert!(matches!(comment.next(), Err(EventError::TooLarge)));
    }

    #[test]
    fn what_is_not_utf8_is_refused() {
        let mut events = Events::new(b"data: \xff\n\n".as_slice(), 100);
        assert!(matches!(events.next(), Err(EventError::NotUtf8)));
    }
}
