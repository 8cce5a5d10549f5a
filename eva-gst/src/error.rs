//! What can go wrong between a file and its frames: [`GstError`].

use gstreamer as gst;

/// A video could not be opened, or its frames could not be fetched.
///
/// `file` is the path or URI as it was given.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GstError {
    /// GStreamer reported an error that has no variant of its own.
    #[error("{file}: gstreamer reported: {message}; see GST_DEBUG=3 for more")]
    Bus {
        /// The video.
        file: String,
        /// What GStreamer said.
        message: String,
    },
    /// The call was stopped through a [`CancelHandle`](crate::CancelHandle). The source can be asked
    /// again.
    #[error("{file}: the call was cancelled; ask again for what is still wanted")]
    Cancelled {
        /// The video.
        file: String,
    },
    /// The data around a time cannot be read or decoded: the file is truncated or has bit rot.
    #[error(
        "{file}: no frame can be decoded at {at:.3} s ({reason}); the file is damaged there: fetch it again or ask for other times"
    )]
    Damaged {
        /// The video.
        file: String,
        /// Seconds from the first displayed frame.
        at: f64,
        /// What was found.
        reason: String,
    },
    /// The decoder that was asked for cannot be taken.
    #[error(
        "{file}: the decoder {name} cannot be taken ({reason}); name another or let it be chosen"
    )]
    DecoderChoice {
        /// The video.
        file: String,
        /// The name that was given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The path names a directory.
    #[error("{file}: is a directory; name a video file in it")]
    IsDirectory {
        /// The video.
        file: String,
    },
    /// GStreamer lacks the plugin that reads this container or protocol.
    #[error("{file}: gstreamer has no plugin for {what}; install {package}")]
    MissingPlugin {
        /// The video.
        file: String,
        /// What is missing, in GStreamer's words.
        what: String,
        /// The Debian or Ubuntu package that usually has it.
        package: String,
    },
    /// The server at this address does not answer, or not with the file.
    #[error("{file}: cannot be fetched ({reason}); check the address and the server")]
    Network {
        /// The address.
        file: String,
        /// What was reported.
        reason: String,
    },
    /// GStreamer has no decoder for this video format.
    #[error("{file}: gstreamer has no decoder for {caps}; install {package}")]
    NoDecoder {
        /// The video.
        file: String,
        /// The format, as GStreamer capabilities.
        caps: String,
        /// The Debian or Ubuntu package that usually has it.
        package: String,
    },
    /// The server at this address does not serve parts of files (HTTP range requests), which
    /// looking at single frames takes.
    #[error(
        "{file}: the server does not serve parts of files; download it and open it as a file, or use a server with range requests"
    )]
    NoRanges {
        /// The address.
        file: String,
    },
    /// The stream does not say when its frames are shown (a raw H.264 stream, for example).
    #[error(
        "{file}: the video has no timestamps; put it into a container first, for example with `ffmpeg -i IN -c copy OUT.mp4`"
    )]
    NoTimestamps {
        /// The video.
        file: String,
    },
    /// The path names a pipe, a socket or a device.
    #[error("{file}: is not a regular file; save the video to a file first")]
    NotAFile {
        /// The video.
        file: String,
    },
    /// Nothing is there.
    #[error("{file}: no such file; check the path or address")]
    NotFound {
        /// The video.
        file: String,
    },
    /// The file holds no video that can be read.
    #[error("{file}: is not a video ({reason}); name a file with a video stream, such as an MP4")]
    NotVideo {
        /// The video.
        file: String,
        /// What was found instead.
        reason: String,
    },
    /// The selection asks for something that cannot be delivered.
    #[error("{file}: the selection cannot be delivered: {reason}")]
    Selection {
        /// The video.
        file: String,
        /// What is wrong with it, and its limit.
        reason: String,
    },
    /// GStreamer itself does not start, or lacks its basic elements.
    #[error(
        "gstreamer does not start ({reason}); install gstreamer1.0-plugins-base and gstreamer1.0-plugins-good"
    )]
    Start {
        /// What GStreamer said.
        reason: String,
    },
    /// Nothing happened for too long.
    #[error(
        "{file}: no progress for {waited:.1} s; check that the file's disk or server answers, or raise the timeout"
    )]
    Timeout {
        /// The video.
        file: String,
        /// The wait in seconds.
        waited: f64,
    },
    /// The file is there but cannot be read.
    #[error("{file}: cannot be read ({reason}); check its permissions")]
    Unreadable {
        /// The video.
        file: String,
        /// What the system said.
        reason: String,
    },
}

impl GstError {
    /// The typed form of an error message of the bus.
    pub(crate) fn from_message(file: &str, error: &gst::glib::Error, detail: Option<&str>) -> Self {
        let file = file.to_owned();
        let reason = error.message().trim_end_matches('.').to_owned();
        tracing::debug!(%file, %reason, detail, "gstreamer error");
        if let Some(kind) = error.kind::<gst::StreamError>() {
            return match kind {
                gst::StreamError::TypeNotFound | gst::StreamError::WrongType => {
                    Self::NotVideo { file, reason }
                }
                gst::StreamError::CodecNotFound => Self::MissingPlugin {
                    file,
                    what: reason,
                    package: CODEC_PACKAGES.to_owned(),
                },
                gst::StreamError::Demux | gst::StreamError::Decode => Self::Damaged {
                    file,
                    at: 0.0,
                    reason,
                },
                _ => Self::Bus {
                    file,
                    message: reason,
                },
            };
        }
        if let Some(kind) = error.kind::<gst::ResourceError>() {
            let remote = file.contains("://");
            return match kind {
                gst::ResourceError::NotFound => Self::NotFound { file },
                gst::ResourceError::Seek if remote => Self::NoRanges { file },
                _ if remote => Self::Network { file, reason },
                gst::ResourceError::OpenRead
                | gst::ResourceError::Read
                | gst::ResourceError::NotAuthorized => Self::Unreadable { file, reason },
                _ => Self::Bus {
                    file,
                    message: reason,
                },
            };
        }
        if error.kind::<gst::CoreError>() == Some(gst::CoreError::MissingPlugin) {
            return Self::MissingPlugin {
                file,
                what: reason,
                package: CODEC_PACKAGES.to_owned(),
            };
        }
        Self::Bus {
            file,
            message: reason,
        }
    }

    /// The typed form of a `missing-plugin` element message, when `message` is one.
    pub(crate) fn from_missing_plugin(file: &str, message: &gst::MessageRef) -> Option<Self> {
        let structure = message.structure()?;
        if structure.name() != "missing-plugin" {
            return None;
        }
        let what = structure
            .get::<String>("name")
            .unwrap_or_else(|_| "this format".to_owned());
        let file = file.to_owned();
        match structure.get::<gst::Caps>("detail") {
            Ok(caps) if is_text(&caps) => Some(Self::NotVideo {
                file,
                reason: format!("it is {}", caps),
            }),
            Ok(caps) if is_picture(&caps) => Some(Self::NoDecoder {
                file,
                package: package_for(&caps).to_owned(),
                caps: what,
            }),
            Ok(caps) => Some(Self::MissingPlugin {
                file,
                package: package_for(&caps).to_owned(),
                what,
            }),
            Err(_) => Some(Self::MissingPlugin {
                file,
                what,
                package: "gstreamer1.0-plugins-good".to_owned(),
            }),
        }
    }

    /// Whether the call must end here, where other errors leave something to be tried.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Cancelled { .. }
                | Self::Network { .. }
                | Self::NoRanges { .. }
                | Self::Timeout { .. }
        )
    }

    /// A format that no decoder takes.
    pub(crate) fn no_decoder(file: &str, caps: &gst::CapsRef) -> Self {
        let mut short = caps.to_owned();
        for structure in short.make_mut().iter_mut() {
            structure.remove_fields(["codec_data", "streamheader"]);
        }
        Self::NoDecoder {
            file: file.to_owned(),
            package: package_for(caps).to_owned(),
            caps: short.to_string(),
        }
    }
}

const CODEC_PACKAGES: &str =
    "gstreamer1.0-libav, gstreamer1.0-plugins-good and gstreamer1.0-plugins-bad";

/// Whether a stream of this format is made of pictures.
pub(crate) fn is_picture(caps: &gst::CapsRef) -> bool {
    caps.structure(0).is_some_and(|structure| {
        let name = structure.name().as_str();
        (name.starts_with("video/") || name.starts_with("image/")) && !is_container(name)
    })
}

fn is_text(caps: &gst::CapsRef) -> bool {
    caps.structure(0)
        .is_some_and(|structure| structure.name().as_str().starts_with("text/"))
}

fn is_container(name: &str) -> bool {
    matches!(
        name,
        "video/quicktime"
            | "video/mpegts"
            | "video/x-matroska"
            | "video/webm"
            | "video/x-msvideo"
            | "video/x-flv"
            | "video/x-ms-asf"
    )
}

/// The Debian or Ubuntu package that usually reads or decodes this format.
fn package_for(caps: &gst::CapsRef) -> &'static str {
    match caps.structure(0).map(|structure| structure.name().as_str()) {
        Some("video/x-av1" | "video/mpegts") => "gstreamer1.0-plugins-bad",
        Some("video/x-vp8" | "video/x-vp9" | "image/jpeg" | "image/png") => {
            "gstreamer1.0-plugins-good"
        }
        Some("video/x-theora") => "gstreamer1.0-plugins-base",
        Some("video/x-ms-asf") => "gstreamer1.0-plugins-ugly",
        Some(name) if is_container(name) => "gstreamer1.0-plugins-good",
        Some(name) if name.starts_with("video/") => "gstreamer1.0-libav",
        _ => CODEC_PACKAGES,
    }
}
