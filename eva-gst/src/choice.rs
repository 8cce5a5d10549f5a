//! Which decoder elements can be taken, best first: [`candidates`].

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::GstError;
use crate::options::DecoderChoice;

/// A decoder element that takes the video's format.
pub(crate) struct Candidate {
    pub(crate) element: gst::Element,
    pub(crate) hardware: bool,
    /// It is to be driven in a pipeline of its own.
    pub(crate) pipelined: bool,
}

/// Decoder elements that take `caps` and that `choice` allows, best first.
pub(crate) fn candidates(
    file: &str,
    caps: &gst::CapsRef,
    choice: &DecoderChoice,
) -> Result<Vec<Candidate>, GstError> {
    let raw = caps
        .structure(0)
        .is_some_and(|structure| structure.name() == "video/x-raw");
    if raw {
        // Nothing to decode.
        let identity = gst::ElementFactory::make("identity").build().ok();
        return Ok(identity.into_iter().map(plain).collect());
    }
    match choice {
        DecoderChoice::Auto => Ok(by_rank(caps, true)),
        DecoderChoice::Software => Ok(by_rank(caps, false)),
        DecoderChoice::Named(name) => Ok(vec![named(file, caps, name)?]),
        DecoderChoice::Pipelined(name) => Ok(vec![Candidate {
            pipelined: true,
            ..named(file, caps, name)?
        }]),
    }
}

fn plain(element: gst::Element) -> Candidate {
    Candidate {
        element,
        hardware: false,
        pipelined: false,
    }
}

fn is_hardware(factory: &gst::ElementFactory) -> bool {
    factory
        .metadata(gst::ELEMENT_METADATA_KLASS)
        .is_some_and(|klass| klass.contains("Hardware"))
}

/// Those that GStreamer would take by itself, by rank; at equal rank hardware comes first.
fn by_rank(caps: &gst::CapsRef, with_hardware: bool) -> Vec<Candidate> {
    let mut factories: Vec<(bool, gst::ElementFactory)> = Vec::new();
    for media in [
        gst::ElementFactoryType::MEDIA_VIDEO,
        gst::ElementFactoryType::MEDIA_IMAGE,
    ] {
        let kind = gst::ElementFactoryType::DECODER | media;
        for factory in gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL) {
            let hardware = is_hardware(&factory);
            let taken = factories
                .iter()
                .any(|(_, other)| other.name() == factory.name());
            let takes = if hardware {
                // These list the profiles they know, where a stream may name fewer things.
                factory.can_sink_any_caps(caps)
            } else {
                factory.can_sink_all_caps(caps)
            };
            if (with_hardware || !hardware) && !taken && takes {
                factories.push((hardware, factory));
            }
        }
    }
    factories.sort_by_key(|(hardware, factory)| core::cmp::Reverse((factory.rank(), *hardware)));
    factories
        .iter()
        .filter_map(|(hardware, factory)| {
            let element = factory.create().build().ok()?;
            // Bins hold queues, and so threads, of their own.
            (!element.is::<gst::Bin>()).then_some(Candidate {
                element,
                hardware: *hardware,
                pipelined: *hardware,
            })
        })
        .collect()
}

fn named(file: &str, caps: &gst::CapsRef, name: &str) -> Result<Candidate, GstError> {
    let refused = |reason: String| GstError::DecoderChoice {
        file: file.to_owned(),
        name: name.to_owned(),
        reason,
    };
    let factory = gst::ElementFactory::find(name)
        .ok_or_else(|| refused("gstreamer has no such element".to_owned()))?;
    if !factory.has_type(gst::ElementFactoryType::DECODER) {
        return Err(refused("it is no decoder".to_owned()));
    }
    if !factory.can_sink_any_caps(caps) {
        let format = caps.structure(0).map(|structure| structure.name().as_str());
        let format = format.unwrap_or("this format");
        return Err(refused(format!("it does not take {format}")));
    }
    let element = factory
        .create()
        .build()
        .map_err(|error| refused(error.to_string()))?;
    let hardware = is_hardware(&factory);
    Ok(Candidate {
        hardware,
        pipelined: hardware || element.is::<gst::Bin>(),
        element,
    })
}
