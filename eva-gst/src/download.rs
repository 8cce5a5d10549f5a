//! A whole file from an address, for servers that do not serve parts: [`download`].
//!
//! ```text
//!  HTTP source ──▶ filesink into a temporary file
//! ```

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use tempfile::TempPath;

use crate::GstError;
use crate::cancel::Stop;
use crate::graph::{Found, Guard, element, remote};

/// Fetches all of `uri` into a temporary file, which is deleted when the result is dropped.
pub(crate) fn download(uri: &str, timeout: Duration, stop: &Stop) -> Result<TempPath, GstError> {
    let unwritable = |reason: String| GstError::Unreadable {
        file: uri.to_owned(),
        reason: format!("no temporary file for it: {reason}"),
    };
    let path = tempfile::Builder::new()
        .prefix("eva-")
        .tempfile()
        .map_err(|error| unwritable(error.to_string()))?
        .into_temp_path();
    let source = remote(uri, uri, timeout, &Arc::new(Found::default()))?;
    let sink = element("filesink")?;
    sink.set_property("location", &*path);
    sink.set_property("sync", false);
    let pipeline = Guard(gst::Pipeline::new());
    pipeline
        .0
        .add_many([&source, &sink])
        .and_then(|()| source.link(&sink))
        .map_err(|error| unwritable(error.to_string()))?;
    let bus = pipeline.0.bus().ok_or_else(|| GstError::Start {
        reason: "a pipeline has no bus".to_owned(),
    })?;
    // What is wrong is on the bus.
    let _ = pipeline.0.set_state(gst::State::Playing);
    let kinds = [gst::MessageType::Error, gst::MessageType::Eos];
    let (mut received, mut since) = (None, Instant::now());
    loop {
        stop.check(uri)?;
        let step = gst::ClockTime::from_mseconds(20);
        if let Some(message) = bus.timed_pop_filtered(step, &kinds) {
            return match message.view() {
                gst::MessageView::Error(error) => Err(GstError::from_message(
                    uri,
                    &error.error(),
                    error.debug().as_deref(),
                )),
                _ => Ok(path),
            };
        }
        let length = std::fs::metadata(&path).map(|file| file.len()).ok();
        if length != received {
            received = length;
            since = Instant::now();
        }
        if since.elapsed() >= timeout {
            return Err(GstError::Timeout {
                file: uri.to_owned(),
                waited: since.elapsed().as_secs_f64(),
            });
        }
    }
}
