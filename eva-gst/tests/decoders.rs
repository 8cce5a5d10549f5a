//! Which decoder decodes is the caller's choice; the frames are the same with each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Clip, assert_exact_with, fetch, h264, number, steady, uneven};
use eva_gst::{DecoderChoice, GstError, GstOptions, GstSource};

fn options(decoder: DecoderChoice) -> GstOptions {
    GstOptions::new().with_decoder(decoder)
}

fn clip(dir: &tempfile::TempDir) -> std::path::PathBuf {
    Clip {
        times: steady(200, 25),
        encode: &format!("{} ! mp4mux", h264(50, 2)),
        caps: "",
    }
    .file(dir, "a.mp4")
}

#[test]
fn a_decoder_in_a_pipeline_of_its_own_gives_the_same_frames() {
    let dir = tempfile::tempdir().unwrap();
    let open_gop = "x264enc key-int-max=30 bframes=2 speed-preset=veryfast option-string=scenecut=0:open-gop=1 ! h264parse ! matroskamux";
    for (name, decoder, encode, times) in [
        (
            "a.mp4",
            "avdec_h264",
            format!("{} ! mp4mux", h264(30, 2)),
            steady(300, 30),
        ),
        (
            "b.mkv",
            "avdec_h264",
            format!("{} ! matroskamux", h264(20, 3)),
            uneven(150),
        ),
        ("c.mkv", "avdec_h264", open_gop.to_owned(), steady(200, 25)),
        (
            "d.webm",
            "vp8dec",
            "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=40 ! webmmux".to_owned(),
            steady(100, 25),
        ),
        (
            "e.avi",
            "jpegdec",
            "jpegenc ! avimux".to_owned(),
            steady(60, 25),
        ),
    ] {
        let clip = Clip {
            times,
            encode: &encode,
            caps: "",
        };
        let path = clip.file(&dir, name);
        let own = options(DecoderChoice::Pipelined(decoder.to_owned()));
        let source = assert_exact_with(&path, &clip, 1_000_000, &own);
        assert_eq!(source.decoder(), decoder);
        // The same pixels, too.
        let pixels = |options: &GstOptions| {
            let mut source = GstSource::open_with(&path, options).unwrap();
            let mut all = Vec::new();
            source
                .frames_at(&[0.5, 1.9, 1.2], 100, 60, &mut |frame| all.push(frame))
                .unwrap();
            all
        };
        let by_hand = options(DecoderChoice::Named(decoder.to_owned()));
        assert!(pixels(&own) == pixels(&by_hand), "{name}");
    }
}

#[test]
fn the_choice_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(&dir);
    let named = DecoderChoice::Named("avdec_h264".to_owned());
    for choice in [DecoderChoice::Software, named] {
        let source = GstSource::open_with(&path, &options(choice)).unwrap();
        assert_eq!(source.decoder(), "avdec_h264");
    }
}

#[test]
fn a_decoder_that_cannot_be_taken_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(&dir);
    for (name, reason) in [
        ("nosuchdec", "no such element"),
        ("identity", "no decoder"),
        ("vp8dec", "does not take video/x-h264"),
    ] {
        let choice = DecoderChoice::Named(name.to_owned());
        let error = GstSource::open_with(&path, &options(choice)).unwrap_err();
        assert!(matches!(error, GstError::DecoderChoice { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// A decoder that calls itself hardware and fails at its first picture.
mod broken {
    use gstreamer as gst;
    use gstreamer::glib;
    use gstreamer::prelude::*;
    use gstreamer::subclass::prelude::*;
    use std::sync::LazyLock;

    pub(crate) const NAME: &str = "evabrokendec";

    #[derive(Default)]
    pub(crate) struct Inner;

    static PADS: LazyLock<[gst::PadTemplate; 2]> = LazyLock::new(|| {
        let pad = |name, direction, kind| {
            let caps = gst::Caps::new_empty_simple(kind);
            gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).unwrap()
        };
        [
            pad("sink", gst::PadDirection::Sink, "video/x-h264"),
            pad("src", gst::PadDirection::Src, "video/x-raw"),
        ]
    });

    #[glib::object_subclass]
    impl ObjectSubclass for Inner {
        const NAME: &'static str = "EvaBrokenDec";
        type Type = Broken;
        type ParentType = gst::Element;
    }

    impl ObjectImpl for Inner {
        fn constructed(&self) {
            self.parent_constructed();
            let [sink, src] = &*PADS;
            let sink = gst::Pad::builder_from_template(sink)
                .chain_function(|pad, _, _| {
                    let element = pad.parent_element().unwrap();
                    gst::element_error!(element, gst::StreamError::Decode, ("the device is gone"));
                    Err(gst::FlowError::Error)
                })
                .event_function(|_, _, _| true)
                .build();
            let src = gst::Pad::from_template(src);
            self.obj().add_pad(&sink).unwrap();
            self.obj().add_pad(&src).unwrap();
        }
    }

    impl GstObjectImpl for Inner {}

    impl ElementImpl for Inner {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Broken",
                    "Decoder/Video/Hardware",
                    "Fails",
                    "tests",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            &*PADS
        }
    }

    glib::wrapper! {
        pub(crate) struct Broken(ObjectSubclass<Inner>) @extends gst::Element, gst::Object;
    }

    pub(crate) fn register() {
        gst::init().unwrap();
        let rank = gst::Rank::NONE;
        gst::Element::register(None, NAME, rank, Broken::static_type()).unwrap();
    }
}

#[test]
fn a_hardware_decoder_that_fails_makes_way_for_software() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(&dir);
    broken::register();
    let choice = DecoderChoice::Named(broken::NAME.to_owned());
    let mut source = GstSource::open_with(&path, &options(choice)).unwrap();
    assert_eq!(source.decoder(), broken::NAME);
    for time in [3_010_000_000, 7_010_000_000] {
        let frames = fetch(&mut source, &[time, 1_010_000_000, time]);
        let seen: Vec<u32> = frames.iter().map(|frame| number(&frame.pixels)).collect();
        let there = (time / 40_000_000) as u32;
        assert_eq!(seen, [there, 25, there]);
        assert_eq!(source.decoder(), "avdec_h264");
    }
}
