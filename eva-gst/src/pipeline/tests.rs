//! What is dropped stops, wherever it stood.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::decoder::{Decoder, Setup};
use crate::options::DecoderChoice;

/// A Matroska file of 50 pictures.
fn video(dir: &tempfile::TempDir) -> Location {
    gst::init().unwrap();
    let path = dir.path().join("a.mkv");
    let line = format!(
        "videotestsrc num-buffers=50 ! video/x-raw,width=64,height=48 ! jpegenc ! matroskamux ! filesink location={}",
        path.display()
    );
    let pipeline = gst::parse::launch(&line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let limit = gst::ClockTime::from_seconds(60);
    let message = pipeline.bus().unwrap().timed_pop_filtered(limit, &kinds);
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(message.unwrap().type_(), gst::MessageType::Eos);
    Location::Path(path)
}

fn open(location: &Location) -> Result<Demux, GstError> {
    let patience = Duration::from_secs(10);
    Demux::open(location.clone(), "a".to_owned(), patience, Stop::default())
}

fn is_null(element: &impl IsA<gst::Element>) -> bool {
    element.state(gst::ClockTime::ZERO).1 == gst::State::Null
}

#[test]
fn what_is_dropped_is_in_null_wherever_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let location = video(&dir);
    for packets in [0, 1, 20, 60] {
        let setup = Setup {
            choice: DecoderChoice::Auto,
            threads: 1,
            timeout: Duration::from_secs(10),
            stop: Stop::default(),
        };
        let mut demux = open(&location).unwrap();
        let pipeline = demux.pipeline.0.clone();
        let mut decoder = None;
        for _ in 0..packets {
            let Some(packet) = demux.next().unwrap() else {
                break;
            };
            let decoder =
                decoder.get_or_insert_with(|| Decoder::new("a", &packet.caps, &setup).unwrap());
            decoder.feed(&packet, true).unwrap();
        }
        let element = decoder.as_ref().map(Decoder::element);
        drop(demux);
        drop(decoder);
        assert!(is_null(&pipeline), "after {packets} packets");
        assert!(element.is_none_or(|element| is_null(&element)));
    }
    // In the middle of a seek, and where opening or restarting failed.
    let mut demux = open(&location).unwrap();
    demux.next().unwrap();
    demux.seek(1_000_000_000).unwrap();
    let before = demux.pipeline.0.clone();
    demux.restart().unwrap();
    assert!(is_null(&before));
    let pipeline = demux.pipeline.0.clone();
    if let Location::Path(path) = &location {
        std::fs::remove_file(path).unwrap();
    }
    assert!(demux.restart().is_err());
    drop(demux);
    assert!(is_null(&pipeline));
}
