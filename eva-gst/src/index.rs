//! What opening a file found out, kept in a directory for the next time: [`IndexFile`].
//!
//! ```text
//!  magic, version │ whole │ path │ size │ mtime │ first │ last │ end │ fps │ times … │ checksum
//! ```
//!
//! All numbers are little-endian. The file's name comes from the video's path, so that a video that
//! changed has its index replaced and not one more laid beside it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::survey::Survey;

/// The last byte is the version of what follows.
const MAGIC: &[u8; 8] = b"eva-idx\x01";

/// A file of 100 hours at 60 pictures a second has this many bytes of times: more is no index.
const MOST_BYTES: u64 = 256 << 20;

/// Where the index of one video is kept, and what it must say to be that video's.
pub(crate) struct IndexFile {
    file: PathBuf,
    /// How it begins.
    key: Vec<u8>,
    video: PathBuf,
    whole: bool,
}

impl IndexFile {
    /// `whole`: whether the times of all pictures are wanted. `None` for a video whose size or time
    /// of change cannot be found out.
    pub(crate) fn new(directory: &Path, video: &Path, whole: bool) -> Option<Self> {
        let video = video.canonicalize().ok()?;
        let key = key(&video, whole)?;
        // What changes when the video does is not part of the name.
        let name = [video.as_os_str().as_encoded_bytes(), &[u8::from(whole)]].concat();
        Some(Self {
            file: directory.join(format!("{:016x}.eva-index", hash(&name))),
            key,
            video,
            whole,
        })
    }

    /// What was found out when the video was opened before. `None` where nothing is kept or what is
    /// kept is not to be trusted: damaged, of another version, or of the video as it once was.
    pub(crate) fn load(&self) -> Option<Survey> {
        let bytes = match std::fs::metadata(&self.file) {
            Ok(metadata) if metadata.is_file() && metadata.len() <= MOST_BYTES => {
                std::fs::read(&self.file).ok()?
            }
            _ => return None,
        };
        let survey = self.parse(&bytes);
        if survey.is_none() {
            tracing::debug!(file = %self.file.display(), "an index is damaged or out of date");
        }
        survey
    }

    /// Keeps `survey`; in one step, so that another process sees all of it or nothing. That it
    /// cannot be kept is no failure of opening the video.
    pub(crate) fn store(&self, survey: &Survey) {
        // A file that is still being written has no index worth keeping.
        if key(&self.video, self.whole).as_ref() != Some(&self.key) {
            return;
        }
        if let Err(error) = self.write(survey) {
            tracing::warn!(file = %self.file.display(), %error, "an index cannot be kept");
        }
    }

    fn write(&self, survey: &Survey) -> std::io::Result<()> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut bytes = self.key.clone();
        for number in [survey.first, survey.last, survey.end] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&survey.fps.to_le_bytes());
        for time in &survey.times {
            bytes.extend_from_slice(&time.to_le_bytes());
        }
        bytes.extend_from_slice(&hash(&bytes).to_le_bytes());
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&bytes)?;
        file.persist(&self.file)?;
        Ok(())
    }

    fn parse(&self, bytes: &[u8]) -> Option<Survey> {
        let (content, sum) = bytes.split_last_chunk::<8>()?;
        if u64::from_le_bytes(*sum) != hash(content) {
            return None;
        }
        let rest = content.strip_prefix(self.key.as_slice())?;
        let (numbers, odd) = rest.as_chunks::<8>();
        let [first, last, end, fps, times @ ..] = numbers else {
            return None;
        };
        let survey = Survey {
            first: i64::from_le_bytes(*first),
            last: i64::from_le_bytes(*last),
            end: i64::from_le_bytes(*end),
            fps: f64::from_le_bytes(*fps),
            times: times.iter().map(|time| i64::from_le_bytes(*time)).collect(),
        };
        (odd.is_empty() && self.is_sound(&survey)).then_some(survey)
    }

    /// Whether it can have been written by this code.
    fn is_sound(&self, survey: &Survey) -> bool {
        let within = |time: &i64| (survey.first..=survey.last).contains(time);
        survey.first <= survey.last
            && survey.last <= survey.end
            && survey.end.checked_sub(survey.first).is_some()
            && survey.fps.is_finite()
            && survey.fps >= 0.0
            && (self.whole || survey.times.is_empty())
            && survey.times.iter().all(within)
            && survey.times.is_sorted_by(|a, b| a < b)
    }
}

/// What tells the video from others and from itself before it was changed.
fn key(video: &Path, whole: bool) -> Option<Vec<u8>> {
    let metadata = video.metadata().ok()?;
    let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let path = OsStr::as_encoded_bytes(video.as_os_str());
    let mut key = MAGIC.to_vec();
    key.push(u8::from(whole));
    key.extend_from_slice(&(path.len() as u64).to_le_bytes());
    key.extend_from_slice(path);
    key.extend_from_slice(&metadata.len().to_le_bytes());
    key.extend_from_slice(&changed.as_nanos().to_le_bytes());
    Some(key)
}

/// FNV-1a: the same in every version and on every machine. It guards against accidents only.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn survey(times: &[i64]) -> Survey {
        Survey {
            first: times[0],
            last: times[times.len() - 1],
            end: times[times.len() - 1] + 40,
            fps: 25.0,
            times: times.to_vec(),
        }
    }

    struct Place {
        dir: tempfile::TempDir,
        video: PathBuf,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let video = dir.path().join("a b.mp4");
            std::fs::write(&video, "video").unwrap();
            Self { dir, video }
        }

        fn index(&self, whole: bool) -> IndexFile {
            IndexFile::new(&self.dir.path().join("cache/deep"), &self.video, whole).unwrap()
        }
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let place = Place::new();
        assert_eq!(place.index(true).load(), None);
        let whole = survey(&[80, 120, 170]);
        place.index(true).store(&whole);
        assert_eq!(place.index(true).load(), Some(whole));
        // The other kind is apart.
        assert_eq!(place.index(false).load(), None);
        let mut ends = survey(&[80, 120]);
        ends.times.clear();
        place.index(false).store(&ends);
        assert_eq!(place.index(false).load(), Some(ends));
        assert!(place.index(true).load().is_some());
        // Nothing temporary stays behind.
        let kept = std::fs::read_dir(place.dir.path().join("cache/deep")).unwrap();
        assert_eq!(kept.count(), 2);
    }

    #[test]
    fn a_video_that_changed_has_a_new_index() {
        let place = Place::new();
        let old = place.index(true);
        old.store(&survey(&[0, 40]));
        std::fs::write(&place.video, "another video").unwrap();
        let new = place.index(true);
        assert_eq!(new.load(), None);
        // What was found out of it as it was before is not taken for it.
        old.store(&survey(&[0, 40, 80]));
        assert_eq!(new.load(), None);
        new.store(&survey(&[0, 50]));
        assert_eq!(new.load(), Some(survey(&[0, 50])));
        assert_eq!(old.file, new.file);
    }

    #[test]
    fn what_cannot_be_kept_is_no_failure() {
        let place = Place::new();
        let file = place.dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let index = IndexFile::new(&file, &place.video, true).unwrap();
        index.store(&survey(&[0]));
        assert_eq!(index.load(), None);
        assert!(IndexFile::new(&file, Path::new("nowhere"), true).is_none());
        // A directory where the index would be.
        let index = place.index(true);
        std::fs::create_dir_all(&index.file).unwrap();
        index.store(&survey(&[0]));
        assert_eq!(index.load(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_damaged_is_trusted(
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
            cut in any::<bool>(),
        ) {
            let place = Place::new();
            let index = place.index(true);
            index.store(&survey(&[0, 40, 80, 120]));
            let mut bytes = std::fs::read(&index.file).unwrap();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= flip;
            }
            std::fs::write(&index.file, &bytes).unwrap();
            prop_assert_eq!(index.load(), None);
            index.store(&survey(&[0, 40]));
            prop_assert_eq!(index.load(), Some(survey(&[0, 40])));
        }

        /// Also what carries the right sum.
        #[test]
        fn nonsense_is_not_trusted(numbers in prop::collection::vec(any::<u64>(), 0..12)) {
            let place = Place::new();
            let index = place.index(true);
            let mut bytes = index.key.clone();
            bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            bytes.extend(hash(&bytes).to_le_bytes());
            if let Some(survey) = index.parse(&bytes) {
                prop_assert!(index.is_sound(&survey));
            }
        }
    }
}
