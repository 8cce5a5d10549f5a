//! The elements that read a video, and how they are linked: [`build`].

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_app::prelude::*;

use crate::GstError;
use crate::container::Container;
use crate::error::is_picture;
use crate::location::Location;

/// Compressed pictures that the demuxer may read ahead of us. A seek throws them away.
pub(crate) const AHEAD: u32 = 16;

/// Bytes from the beginning that are looked at for what GStreamer does not tell of a container.
const HEAD: usize = 1 << 18;

/// More zeros than this one after another are no part of a video.
const HOLE: u64 = 32 << 20;

/// A pipeline that is in NULL before it is dropped: dropping a running one can block for ever.
pub(crate) struct Guard(pub(crate) gst::Pipeline);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.0.set_state(gst::State::Null) {
            tracing::warn!(%error, "a pipeline did not stop");
        }
    }
}

/// What is learned of the streams while they appear.
#[derive(Default)]
pub(crate) struct Found {
    /// A video stream is linked.
    pub(crate) video: AtomicBool,
    /// There is a stream of another kind.
    pub(crate) other: AtomicBool,
    /// All streams are known.
    pub(crate) all: AtomicBool,
    /// Something came from the address.
    pub(crate) began: AtomicBool,
    /// How many bytes of nothing but zeros were read from the file one after another.
    zeros: AtomicU64,
    /// The first bytes from the address. A demuxer may go on elsewhere before they are all here:
    /// then other bytes follow, which changes nothing in what is looked for.
    head: Mutex<Vec<u8>>,
}

impl Found {
    /// Whether a demuxer is looking for something in a hole of the file (a sparse file, or one
    /// whose download was given up): it would go on to the end, however far that is.
    pub(crate) fn in_hole(&self) -> bool {
        self.zeros.load(Ordering::Relaxed) > HOLE
    }

    /// Forgets the zeros read so far, as when reading goes on elsewhere.
    pub(crate) fn leave_hole(&self) {
        self.zeros.store(0, Ordering::Relaxed);
    }
    /// What the first bytes from an address say of the container.
    pub(crate) fn container(&self) -> Container {
        Container::of_bytes(&self.head.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A pipeline and its parts.
pub(crate) struct Graph {
    pub(crate) pipeline: Guard,
    pub(crate) source: gst::Element,
    pub(crate) sink: gst_app::AppSink,
    pub(crate) found: Arc<Found>,
}

/// A new element.
pub(crate) fn element(name: &str) -> Result<gst::Element, GstError> {
    gst::ElementFactory::make(name)
        .build()
        .map_err(|_| GstError::Start {
            reason: format!("it has no element {name}"),
        })
}

/// The elements from `location` to where packets are pulled, linked as streams appear.
pub(crate) fn build(location: &Location, file: &str, timeout: Duration) -> Result<Graph, GstError> {
    let refused = |_| GstError::Start {
        reason: "its elements cannot be linked".to_owned(),
    };
    let found = Arc::new(Found::default());
    let source = match location {
        Location::Path(path) | Location::InOrder(path) => {
            let source = element("filesrc")?;
            source.set_property("location", path);
            count_zeros(&source, &found);
            source
        }
        Location::Uri(uri) => remote(uri, file, timeout, &found)?,
    };
    let parse = element("parsebin")?;
    let sink = gst_app::AppSink::builder()
        .sync(false)
        .async_(false)
        .max_buffers(AHEAD)
        .enable_last_sample(false)
        .build();
    // Pictures outside what the container shows are needed where others refer to them.
    sink.set_drop_out_of_segment(false);
    let guard = Guard(gst::Pipeline::new());
    // Nothing here is played in real time.
    guard.0.use_clock(None::<&gst::Clock>);
    guard
        .0
        .add_many([&source, &parse, sink.upcast_ref()])
        .map_err(refused)?;
    if let Location::InOrder(_) = location {
        // A queue can only be pushed through. A demuxer that may read where it likes looks for the
        // index of fragments at the end, and in a damaged file it does so for ever.
        let queue = element("queue")?;
        guard.0.add(&queue).map_err(refused)?;
        gst::Element::link_many([&source, &queue, &parse]).map_err(refused)?;
    } else {
        source.link(&parse).map_err(refused)?;
    }

    let target = sink.downgrade();
    let seen = Arc::clone(&found);
    parse.connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        if !is_picture(&caps) {
            seen.other.store(true, Ordering::SeqCst);
            return;
        }
        if seen.video.load(Ordering::SeqCst) {
            return;
        }
        let input = target.upgrade().and_then(|sink| sink.static_pad("sink"));
        if let Some(input) = input {
            match pad.link(&input) {
                Ok(_) => seen.video.store(true, Ordering::SeqCst),
                Err(error) => tracing::warn!(%error, "a video stream cannot be linked"),
            }
        }
    });
    let seen = Arc::clone(&found);
    parse.connect_no_more_pads(move |_| seen.all.store(true, Ordering::SeqCst));
    Ok(Graph {
        pipeline: guard,
        source,
        sink,
        found,
    })
}

/// Notes what `source` reads of holes. Pictures are no zeros, so this ends at the first byte of
/// most of what is read.
fn count_zeros(source: &gst::Element, found: &Arc<Found>) {
    let Some(pad) = source.static_pad("src") else {
        return;
    };
    let found = Arc::clone(found);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let data = info.buffer().and_then(|buffer| buffer.map_readable().ok());
        if let Some(data) = data {
            if data.iter().all(|byte| *byte == 0) {
                found.zeros.fetch_add(data.len() as u64, Ordering::Relaxed);
            } else {
                found.leave_hole();
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// The source element for an address.
pub(crate) fn remote(
    uri: &str,
    file: &str,
    timeout: Duration,
    found: &Arc<Found>,
) -> Result<gst::Element, GstError> {
    let source = gst::Element::make_from_uri(gst::URIType::Src, uri, None).map_err(|error| {
        GstError::MissingPlugin {
            file: file.to_owned(),
            what: format!("this kind of address ({})", error.message()),
            package: "gstreamer1.0-plugins-good".to_owned(),
        }
    })?;
    // Seconds, as the HTTP sources have it. Well after our own patience is over: a source that gives
    // up at the same moment connects anew, and says meanwhile that it cannot be read in parts.
    let kind = source
        .find_property("timeout")
        .map(|spec| spec.value_type());
    if kind == Some(u32::static_type()) {
        let seconds = timeout.as_secs().saturating_mul(2).saturating_add(5);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        source.set_property("timeout", seconds.clamp(1, 3600));
    }
    if let Some(pad) = source.static_pad("src") {
        let found = Arc::clone(found);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            found.began.store(true, Ordering::SeqCst);
            let mut head = found.head.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(data) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) else {
                return gst::PadProbeReturn::Remove;
            };
            let room = HEAD.saturating_sub(head.len()).min(data.len());
            head.extend_from_slice(data.get(..room).unwrap_or_default());
            if head.len() < HEAD {
                gst::PadProbeReturn::Ok
            } else {
                gst::PadProbeReturn::Remove
            }
        });
    }
    Ok(source)
}
