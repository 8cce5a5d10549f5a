//! A file of whole lines: [`WholeLines`].

use std::fs::File;
use std::io::{self, Write};

/// What is written to at its end, and can be cut there.
pub(super) trait Cut: Write {
    /// Keeps the first `len` bytes alone.
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Cut for File {
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// Takes lines whole or not at all.
#[derive(Debug)]
pub(super) struct WholeLines<F> {
    file: F,
    /// Bytes of the whole lines.
    len: u64,
    /// Whether a part of another line may follow them.
    torn: bool,
}

impl<F: Cut> WholeLines<F> {
    /// - len: bytes that are there, all of whole lines
    pub(super) fn new(file: F, len: u64) -> Self {
        Self {
            file,
            len,
            torn: false,
        }
    }

    /// Writes a line, which ends with a line break.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.mend().map_err(|error| {
            let why = format!("it ends with half an entry that can't be cut off: {error}");
            io::Error::new(error.kind(), why)
        })?;
        let written = self.file.write_all(line);
        match written {
            Ok(()) => self.len += line.len() as u64,
            Err(_) => {
                self.torn = true;
                // If this fails too, nothing is written until it succeeds.
                _ = self.mend();
            }
        }
        written
    }

    /// Cuts off what a line left that didn't fit: the next one would become a part of it, and be lost
    /// with it.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.cut(self.len)?;
            self.torn = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        can_cut: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let free = self.room - self.bytes.len();
            if free == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = &bytes[..bytes.len().min(free)];
            self.bytes.extend(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Cut for Disk {
        fn cut(&mut self, len: u64) -> io::Result<()> {
            if !self.can_cut {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.bytes.truncate(len as usize);
            Ok(())
        }
    }

    fn lines(can_cut: bool) -> WholeLines<Disk> {
        let disk = Disk {
            bytes: b"old\n".to_vec(),
            room: 12,
            can_cut,
        };
        WholeLines::new(disk, 4)
    }

    #[test]
    fn a_line_that_found_no_room_is_no_part_of_the_next_one() {
        let mut lines = lines(true);
        lines.write(b"one\n").unwrap();
        let error = lines.write(b"a long one\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(lines.file.bytes, b"old\none\n");
        lines.write(b"two\n").unwrap();
        assert_eq!(lines.file.bytes, b"old\none\ntwo\n");
    }

    #[test]
    fn nothing_is_written_behind_half_a_line_until_that_can_be_cut_off() {
        let mut lines = lines(false);
        lines.write(b"a long one\n").unwrap_err();
        lines.file.room = 100;
        let error = lines.write(b"one\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("half an entry"), "{error}");
        assert_eq!(lines.file.bytes, b"old\na long o");
        lines.file.can_cut = true;
        lines.write(b"one\n").unwrap();
        assert_eq!(lines.file.bytes, b"old\none\n");
    }
}
