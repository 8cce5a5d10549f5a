//! What a caller may choose: [`GstOptions`], [`FrameRule`], [`DecoderChoice`].

use core::time::Duration;
use std::path::PathBuf;

use crate::CancelHandle;

/// Which frame answers a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FrameRule {
    /// The frame on display at that time: the last one whose presentation time is not after it.
    #[default]
    Displayed,
    /// The frame whose index is `round(time * average frame rate)`, halves to even.
    ///
    /// This is what the published evaluation code takes. It differs from [`Displayed`] wherever the
    /// time lies in the second half of a frame's display, and everywhere in a video of variable
    /// frame rate. Opening a source with this rule reads the whole file once, without decoding, to
    /// number its frames.
    ///
    /// [`Displayed`]: FrameRule::Displayed
    Published,
}

/// Which decoder element decodes.
///
/// [`GstSource::decoder`](crate::GstSource::decoder) tells which it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecoderChoice {
    /// The one of the highest GStreamer rank, hardware decoders included. Where a hardware decoder
    /// fails, a software decoder takes over for good, and a warning is logged.
    #[default]
    Auto,
    /// The element of this name, such as `vah264dec`; if it is a hardware decoder and fails, a
    /// software decoder takes over as in [`Auto`](Self::Auto).
    Named(String),
    /// The same, driven in a pipeline of its own as hardware decoders are: for an element that
    /// works in threads of its own but does not say that it is hardware. It decodes all in a row.
    Pipelined(String),
    /// The software decoder of the highest rank.
    Software,
}

/// How a [`GstSource`](crate::GstSource) behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GstOptions {
    /// The longest wait without any progress before [`GstError::Timeout`](crate::GstError::Timeout);
    /// 30 seconds by default.
    pub timeout: Duration,
    /// Which frame answers a time.
    pub rule: FrameRule,
    /// Bytes of pictures kept in memory for later calls, 256 MiB by default; 0 keeps none.
    ///
    /// Three quarters are for decoded pictures, which answer later calls at any size (1.4 MB each
    /// at 1280 x 720); the rest is for delivered frames much smaller than their pictures.
    pub cache_bytes: usize,
    /// How many threads decode at once; 0, the default, takes as many as the machine has cores, but
    /// at most 8.
    ///
    /// Parts of the video that do not depend on each other are decoded side by side. The frames are
    /// the same with any number. Each thread has a decoder with memory of its own.
    pub threads: usize,
    /// Fetches the whole file into a temporary one where the server does not serve parts of files;
    /// it is deleted with the source. Off by default: then such a server is an error,
    /// [`GstError::NoRanges`](crate::GstError::NoRanges).
    pub download: bool,
    /// A directory for what opening a file found out of it, so that opening it again is cheaper;
    /// none, the default, keeps nothing on disk.
    ///
    /// It pays where all of a file is read to open it: with [`FrameRule::Published`], and for MP4
    /// files in fragments. Such a file of two hours opens in milliseconds instead of a second.
    /// One small file is kept for each video (8 bytes a frame where all is read), found by the
    /// video's path and good for as long as its size and time of change are the same. The directory
    /// is made if need be and can be emptied at any time. Videos from servers are not kept.
    pub index_dir: Option<PathBuf>,
    /// Which decoder element decodes.
    pub decoder: DecoderChoice,
    /// Stops calls of the source, its opening included; by default the source makes its own.
    pub cancel: Option<CancelHandle>,
}

impl Default for GstOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            rule: FrameRule::default(),
            cache_bytes: 256 << 20,
            threads: 0,
            download: false,
            index_dir: None,
            decoder: DecoderChoice::default(),
            cancel: None,
        }
    }
}

impl GstOptions {
    /// The defaults: 30 seconds without progress, the frame on display, 256 MiB of pictures kept,
    /// a thread for each core.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// [`threads`](Self::threads) with the default resolved.
    pub(crate) fn decoder_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8)),
            threads => threads,
        }
    }

    /// Sets the longest wait without any progress.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets which frame answers a time.
    #[must_use]
    pub fn with_rule(mut self, rule: FrameRule) -> Self {
        self.rule = rule;
        self
    }

    /// Sets how many bytes of pictures are kept in memory for later calls; 0 keeps none.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets how many threads decode at once; 0 takes as many as the machine has cores, up to 8.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets whether the whole file is fetched where the server does not serve parts of files.
    #[must_use]
    pub fn with_download(mut self, download: bool) -> Self {
        self.download = download;
        self
    }

    /// Sets the directory for what opening a file found out of it.
    #[must_use]
    pub fn with_index_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.index_dir = Some(directory.into());
        self
    }

    /// Sets which decoder element decodes.
    #[must_use]
    pub fn with_decoder(mut self, decoder: DecoderChoice) -> Self {
        self.decoder = decoder;
        self
    }

    /// Lets `cancel` stop calls of the source, its opening included.
    #[must_use]
    pub fn with_cancel(mut self, cancel: &CancelHandle) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }
}
