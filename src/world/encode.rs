//! A world as a real MP4 file: [`World::encode`].
//!
//! ```text
//! appsrc (RGB) ! videoconvert ! I420, BT.601 ! x264enc ! mp4mux ! filesink
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;
use gstreamer_video::{VideoFormat, VideoInfo};

use super::{FPS, HEIGHT, WIDTH, World};

/// Bytes of frames that may wait for the encoder: enough to keep it busy, little memory.
const QUEUE: u64 = 16 * (WIDTH * HEIGHT * 3) as u64;
/// How long the encoder may take for one step before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Elements that are needed, each with the Debian package that has it.
const ELEMENTS: [(&str, &str); 6] = [
    ("appsrc", "gstreamer1.0-plugins-base"),
    ("videoconvert", "gstreamer1.0-plugins-base"),
    ("capsfilter", "libgstreamer1.0-0"),
    ("x264enc", "gstreamer1.0-plugins-ugly"),
    ("mp4mux", "gstreamer1.0-plugins-good"),
    ("filesink", "libgstreamer1.0-0"),
];

/// A world could not be written as a video file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// GStreamer itself does not start.
    #[error("cannot start GStreamer: check its installation (package libgstreamer1.0-0)")]
    Start(#[source] gst::glib::Error),
    /// A GStreamer plugin is not installed.
    #[error(
        "GStreamer has no element `{element}`: install the package {package} (Debian, Ubuntu), \
         or what holds that element on your system"
    )]
    MissingElement {
        /// The element's name.
        element: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The file cannot be created.
    #[error("cannot create the video file {}: choose another path or make its folder", .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// GStreamer takes paths as UTF-8 text only.
    #[error("the path {} is not UTF-8, which GStreamer needs: choose another", .path.display())]
    Path {
        /// The file.
        path: PathBuf,
    },
    /// The pipeline failed while writing, for example on a full disk.
    #[error("cannot encode {}: {message}", .path.display())]
    Pipeline {
        /// The file.
        path: PathBuf,
        /// GStreamer's words.
        message: String,
    },
    /// The encoder stopped taking frames or never finished.
    #[error(
        "encoding {} made no progress for {} s: check the disk, and the installed x264enc",
        .path.display(), PATIENCE.as_secs()
    )]
    Stuck {
        /// The file.
        path: PathBuf,
    },
}

impl World {
    /// Writes the video to `path` as an MP4 with H.264: every frame, in order, `FPS` a second.
    ///
    /// An existing file is replaced. A 10-minute world takes a few seconds.
    ///
    /// # Errors
    /// [`EncodeError`]; no file is left behind then.
    pub fn encode(&self, path: impl AsRef<Path>) -> Result<(), EncodeError> {
        self.encode_with(path, |_, _| ())
    }

    /// As [`encode`](Self::encode), and calls `progress` after each frame with the number of
    /// frames handed to the encoder and the number of all frames.
    ///
    /// # Errors
    /// [`EncodeError`]; no file is left behind then.
    pub fn encode_with(
        &self,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(u32, u32),
    ) -> Result<(), EncodeError> {
        let path = path.as_ref();
        gst::init().map_err(EncodeError::Start)?;
        for (element, package) in ELEMENTS {
            if gst::ElementFactory::find(element).is_none() {
                return Err(EncodeError::MissingElement { element, package });
            }
        }
        // GStreamer's own error for a path that cannot be written does not name the reason.
        fs::File::create(path).map_err(|source| EncodeError::Create {
            path: path.to_owned(),
            source,
        })?;
        let written = Writer::new(path).and_then(|writer| writer.write(self, &mut progress));
        if written.is_err() {
            // Half a file is of no use; the first error is the one to report.
            let _ = fs::remove_file(path);
        }
        written
    }
}

/// A running pipeline. It is stopped on every way out: dropping one that runs can block for ever.
struct Writer<'a> {
    path: &'a Path,
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    frames: AppSrc,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a pipeline that does not even stop.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl<'a> Writer<'a> {
    fn new(path: &'a Path) -> Result<Self, EncodeError> {
        let failed = |error: gst::glib::BoolError| pipeline_error(path, error.to_string());
        let text = path.to_str().ok_or_else(|| EncodeError::Path {
            path: path.to_owned(),
        })?;
        let rgb = VideoInfo::builder(VideoFormat::Rgb, WIDTH, HEIGHT)
            .fps(gst::Fraction::new(FPS as i32, 1))
            .build()
            .and_then(|info| info.to_caps())
            .map_err(failed)?;
        let frames = AppSrc::builder()
            .caps(&rgb)
            .format(gst::Format::Time)
            .build();
        let make = gst::ElementFactory::make;
        // No dithering: it would be noise that the ground truth does not know.
        let convert = make("videoconvert").property_from_str("dither", "none");
        // Said outright, so that players need not guess the matrix from the picture's size.
        let yuv = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("colorimetry", "bt601")
            .build();
        let encode = make("x264enc")
            .property_from_str("pass", "qual")
            .property("quantizer", 20_u32)
            .property_from_str("speed-preset", "veryfast")
            .property("key-int-max", 40_u32);
        let chain = [
            convert.build().map_err(failed)?,
            make("capsfilter")
                .property("caps", yuv)
                .build()
                .map_err(failed)?,
            encode.build().map_err(failed)?,
            make("mp4mux").build().map_err(failed)?,
            make("filesink")
                .property("location", text)
                .build()
                .map_err(failed)?,
        ];
        let pipeline = gst::Pipeline::new();
        let bus = pipeline
            .bus()
            .ok_or_else(|| pipeline_error(path, "the pipeline has no bus".to_owned()))?;
        let writer = Self {
            path,
            pipeline,
            bus,
            frames,
        };
        let mut last: gst::Element = writer.frames.clone().upcast();
        writer.pipeline.add(&last).map_err(failed)?;
        for element in chain {
            writer.pipeline.add(&element).map_err(failed)?;
            last.link(&element).map_err(failed)?;
            last = element;
        }
        Ok(writer)
    }

    fn write(self, world: &World, progress: &mut dyn FnMut(u32, u32)) -> Result<(), EncodeError> {
        if self.pipeline.set_state(gst::State::Playing).is_err() {
            self.wait_for(Duration::ZERO, || true)?;
            return Err(pipeline_error(self.path, "it does not start".to_owned()));
        }
        let all = world.frame_count();
        let mut rgb = Vec::new();
        for frame in 0..all {
            world.render_into(frame, &mut rgb);
            let mut buffer = gst::Buffer::from_slice(rgb.clone());
            if let Some(fields) = buffer.get_mut() {
                let time = |frame: u32| gst::ClockTime::SECOND * u64::from(frame) / u64::from(FPS);
                fields.set_pts(time(frame));
                fields.set_duration(time(1));
            }
            // A source that blocks when full would hang for ever behind a failed encoder.
            self.wait_for(PATIENCE, || self.frames.current_level_bytes() < QUEUE)?;
            if self.frames.push_buffer(buffer).is_err() {
                break;
            }
            progress(frame + 1, all);
        }
        // Refused when the pipeline has failed, which the bus then says.
        let _ = self.frames.end_of_stream();
        self.wait_for(PATIENCE, || false)
    }

    /// Waits until `ready` or the end of the stream.
    fn wait_for(&self, patience: Duration, ready: impl Fn() -> bool) -> Result<(), EncodeError> {
        let deadline = Instant::now() + patience;
        let wanted = [gst::MessageType::Error, gst::MessageType::Eos];
        let mut pause = gst::ClockTime::ZERO;
        loop {
            if let Some(message) = self.bus.timed_pop_filtered(pause, &wanted) {
                return match message.view() {
                    gst::MessageView::Error(error) => {
                        let words = format!("{} ({:?})", error.error(), error.debug());
                        Err(pipeline_error(self.path, words))
                    }
                    _ => Ok(()),
                };
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(EncodeError::Stuck {
                    path: self.path.to_owned(),
                });
            }
            pause = gst::ClockTime::from_mseconds(2);
        }
    }
}

fn pipeline_error(path: &Path, message: String) -> EncodeError {
    EncodeError::Pipeline {
        path: path.to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_whole_video_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("world.mp4");
        let mut world = World::new(1);
        world.length = 120;
        let mut seen = Vec::new();
        world
            .encode_with(&path, |done, all| seen.push((done, all)))
            .unwrap();
        assert_eq!(seen.len(), 960);
        assert_eq!(seen.last(), Some(&(960, 960)));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.get(4..8), Some(b"ftyp".as_slice()));
        // The table of frames comes last: it is there only if the file was finished.
        assert!(bytes.windows(4).any(|name| name == b"moov"));
        assert!(
            (100_000..30_000_000).contains(&bytes.len()),
            "{}",
            bytes.len()
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = World::new(1).encode("/nowhere/world.mp4").unwrap_err();
        assert!(matches!(error, EncodeError::Create { .. }));
        assert!(error.to_string().contains("/nowhere/world.mp4"), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error_and_not_a_hang() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.mp4");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let error = World::new(1).encode(&path).unwrap_err();
        assert!(matches!(error, EncodeError::Pipeline { .. }), "{error}");
        assert!(fs::symlink_metadata(&path).is_err());
    }
}
