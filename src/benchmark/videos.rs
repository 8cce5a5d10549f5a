//! Where the videos of a benchmark lie on this machine: [`Videos`].

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// The folder with the videos of a benchmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Videos {
    folder: PathBuf,
}

/// What was given as the folder of the videos is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the folder of the videos, {}, is not a folder: check the path", .0.display())]
pub struct VideosError(PathBuf);

/// A video is not in the folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the video {written} is not under {}: put it there", .folder.display())]
pub struct VideoMissing {
    /// The path as the item has it.
    pub written: String,
    /// The folder of the videos.
    pub folder: PathBuf,
}

impl Videos {
    /// The videos in `folder` and below.
    ///
    /// # Errors
    /// [`VideosError`] when it is not a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Result<Self, VideosError> {
        let folder = folder.into();
        if folder.is_dir() {
            Ok(Self { folder })
        } else {
            Err(VideosError(folder))
        }
    }

    /// The file for a path as an item has it, which is often absolute and of another machine: the
    /// longest end of it that exists in the folder, down to the file's name alone.
    ///
    /// Nothing outside the folder is ever named: `..` ends the search, and a path from the root is
    /// one from the folder.
    ///
    /// # Errors
    /// [`VideoMissing`] when there is no such file.
    pub fn resolve(&self, written: &str) -> Result<PathBuf, VideoMissing> {
        let mut names: Vec<&OsStr> = Vec::new();
        for component in Path::new(written).components() {
            match component {
                Component::Normal(name) => names.push(name),
                Component::ParentDir => names.clear(),
                Component::CurDir | Component::Prefix(_) | Component::RootDir => {}
            }
        }
        let mut ends = (0..names.len()).filter_map(|from| names.get(from..));
        ends.find_map(|end| {
            let mut path = self.folder.clone();
            path.extend(end);
            path.is_file().then_some(path)
        })
        .ok_or_else(|| VideoMissing {
            written: written.to_owned(),
            folder: self.folder.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    /// A folder with `x.mp4`, `a/x.mp4` and `a/y.mp4` in it, and `z.mp4` beside it.
    fn folder() -> (tempfile::TempDir, Videos) {
        let dir = tempfile::tempdir().unwrap();
        let videos = dir.path().join("videos");
        fs::create_dir_all(videos.join("a/folder.mp4")).unwrap();
        for file in ["videos/x.mp4", "videos/a/x.mp4", "videos/a/y.mp4", "z.mp4"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        (dir, Videos::new(videos).unwrap())
    }

    #[test]
    fn the_longest_end_of_a_path_that_exists_is_taken() {
        let (_dir, videos) = folder();
        let end = |written: &str| {
            let path = videos.resolve(written).ok()?;
            Some(path.strip_prefix(&videos.folder).unwrap().to_owned())
        };
        let found = |text: &str| Some(PathBuf::from(text));
        assert_eq!(end("x.mp4"), found("x.mp4"));
        assert_eq!(end("/data/of/others/x.mp4"), found("x.mp4"));
        assert_eq!(end("/data/a/x.mp4"), found("a/x.mp4"));
        assert_eq!(end("a/y.mp4"), found("a/y.mp4"));
        assert_eq!(end("./b/../a//y.mp4"), found("a/y.mp4"));
        assert_eq!(end("y.mp4"), None);
        assert_eq!(end("a/folder.mp4"), None);
        assert_eq!(end("../z.mp4"), None);
        for nothing in ["", "/", "..", "a/..", "\0"] {
            assert_eq!(end(nothing), None, "{nothing}");
        }
        let error = videos.resolve("/data/q.mp4").unwrap_err().to_string();
        assert!(
            error.contains("/data/q.mp4") && error.contains("videos"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let (dir, _) = folder();
        let error = Videos::new(dir.path().join("z.mp4")).unwrap_err();
        assert!(error.to_string().contains("z.mp4"), "{error}");
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_the_folder(written in "[./\\\\az]{0,12}(z.mp4)?") {
            let (_dir, videos) = folder();
            if let Ok(path) = videos.resolve(&written) {
                let real = fs::canonicalize(path).unwrap();
                prop_assert!(real.starts_with(fs::canonicalize(&videos.folder).unwrap()));
            }
        }
    }
}
