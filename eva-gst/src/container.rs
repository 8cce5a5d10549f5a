//! What GStreamer does not tell of a file's container: [`Container`].

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

/// Kinds of container that are read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    /// An MP4 or QuickTime file in fragments. It must be read in order from its beginning:
    /// GStreamer's times are some frames off after a seek.
    FragmentedMp4,
    /// An MP4 or QuickTime file, whose edit list says which part is shown.
    Mp4,
    /// Any other.
    Other,
}

impl Container {
    /// Reads the outermost boxes of the file, if it has any.
    pub(crate) fn of(path: &Path) -> Self {
        let read = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            read(file, length)
        };
        read().unwrap_or(Self::Other)
    }

    /// Reads the outermost boxes as far as `head`, the file's first bytes, holds them.
    pub(crate) fn of_bytes(head: &[u8]) -> Self {
        read(Cursor::new(head), head.len() as u64).unwrap_or(Self::Other)
    }
}

/// Looks for the box `mvex` in `moov`, which announces fragments.
fn read(mut file: impl Read + Seek, length: u64) -> std::io::Result<Container> {
    let mut end = length;
    let mut at = 0_u64;
    let mut found = Container::Other;
    // A box holds at least 8 bytes, so this ends; the count keeps a hostile file short.
    for _ in 0..4096 {
        if at.saturating_add(8) > end {
            break;
        }
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0_u8; 16];
        let read = file.read(&mut head)?;
        let [a, b, c, d, kind @ .., _, _, _, _, _, _, _, _] = head;
        let mut size = u64::from(u32::from_be_bytes([a, b, c, d]));
        let mut header = 8;
        if size == 1 && read == 16 {
            let [_, _, _, _, _, _, _, _, long @ ..] = head;
            size = u64::from_be_bytes(long);
            header = 16;
        }
        match (&kind, size) {
            (b"mvex" | b"moof", _) => return Ok(Container::FragmentedMp4),
            // Its children stand in it, one after another.
            (b"moov", 8..) => {
                found = Container::Mp4;
                end = length.min(at.saturating_add(size));
                at += header;
            }
            (b"ftyp", 8..) => {
                found = Container::Mp4;
                at = at.saturating_add(size);
            }
            (_, 8..) => at = at.saturating_add(size),
            _ => break,
        }
    }
    Ok(found)
}
