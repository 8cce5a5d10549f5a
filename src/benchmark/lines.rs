//! Lines of a file that may be damaged: of any bytes, of any length.

use std::io::{self, BufRead};

/// Longest line that is kept, in bytes. A file without line breaks must not fill the memory.
pub(crate) const LONGEST: usize = 16 << 20;

/// A line, or what there is of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// Whether a line break ends it. The last line of a file that was cut short has none.
    pub(crate) ended: bool,
    /// Whether it is longer than [`LONGEST`]; what is kept is of no use then.
    pub(crate) too_long: bool,
}

/// Reads the next line into `kept`, without its line break. `None` at the end.
pub(crate) fn next(from: &mut impl BufRead, kept: &mut Vec<u8>) -> io::Result<Option<Line>> {
    kept.clear();
    let (mut any, mut too_long) = (false, false);
    loop {
        let chunk = match from.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if chunk.is_empty() {
            let ended = false;
            return Ok(any.then_some(Line { ended, too_long }));
        }
        any = true;
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let piece = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        too_long |= kept.len() + piece.len() > LONGEST;
        if !too_long {
            kept.extend_from_slice(piece);
        }
        let used = piece.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            let ended = true;
            return Ok(Some(Line { ended, too_long }));
        }
    }
}

/// Hands every line that is not blank to `each`, with its number from 0 on; `None` stands for one
/// that is too long.
pub(crate) fn each(
    mut from: impl BufRead,
    mut each: impl FnMut(u64, Option<&[u8]>),
) -> io::Result<()> {
    let mut kept = Vec::new();
    let mut number = 0;
    while let Some(read) = next(&mut from, &mut kept)? {
        // A mark that some editors put before the first line.
        let content = kept.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 0);
        let content = content.unwrap_or(&kept);
        if read.too_long {
            each(number, None);
        } else if !is_blank(content) {
            each(number, Some(content));
        }
        number += 1;
    }
    Ok(())
}

/// Whether there is nothing but white space on a line.
pub(crate) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::io::BufReader;

    fn read(bytes: &[u8], buffer: usize) -> Vec<(Vec<u8>, bool)> {
        let mut from = BufReader::with_capacity(buffer, bytes);
        let mut kept = Vec::new();
        let mut lines = Vec::new();
        while let Some(line) = next(&mut from, &mut kept).unwrap() {
            lines.push((kept.clone(), line.ended));
        }
        lines
    }

    #[test]
    fn lines_are_the_same_whatever_the_buffer() {
        for buffer in [1, 2, 3, 100] {
            let line = |text: &str, ended| (text.as_bytes().to_vec(), ended);
            assert_eq!(
                read(b"one\n\ntwo\nha", buffer),
                [
                    line("one", true),
                    line("", true),
                    line("two", true),
                    line("ha", false)
                ]
            );
            assert_eq!(read(b"", buffer), []);
            assert_eq!(read(b"\n", buffer), [line("", true)]);
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let long = vec![b'x'; LONGEST + 5];
        let mut from = BufReader::new(long.as_slice());
        let mut kept = Vec::new();
        let line = next(&mut from, &mut kept).unwrap().unwrap();
        assert!(line.too_long && !line.ended);
        assert!(kept.len() <= LONGEST);
        assert_eq!(next(&mut from, &mut kept).unwrap(), None);
    }
}
