//! From a record back to a conversation with pictures.

use eva_core::trajectory::PartRecord;
use eva_core::{Conversation, FrameSource, OwnedMessage, OwnedPart, Picture, Selection};

use super::Sample;

/// How far the time of a frame may be from the recorded one, in seconds: less than any two frames
/// are apart.
const SAME: f64 = 1e-3;
/// Added to a recorded time, in seconds, since one that was written as text and read back can lie a
/// rounding before the frame.
const AFTER: f64 = 1e-6;

/// Why the frames of a record can't be fetched again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The source delivered none.
    #[error("the source has no frame at {0} s: is it the video that the record is of?")]
    NoFrame(f64),
    /// The source delivered another one.
    #[error(
        "the source has a frame at {found} s, not at {recorded} s: is it the video that the record \
         is of?"
    )]
    OtherFrame {
        /// Time in the record, in seconds.
        recorded: f64,
        /// Time of the frame, in seconds.
        found: f64,
    },
    /// The source failed.
    #[error("the frame source failed: {0}")]
    Source(String),
}

impl Sample {
    /// The whole conversation, its frames fetched again from `source`: with
    /// [`Conversation::with_messages`], what `eva_burn::train::Example::new` reads.
    ///
    /// # Errors
    /// [`ReplayError`] when the source fails or is another video.
    pub fn conversation<S: FrameSource>(
        &self,
        source: &mut S,
    ) -> Result<Conversation<S::Pixels>, ReplayError> {
        let mut conversation = Conversation::new();
        for message in &self.trajectory.messages {
            let mut parts = Vec::with_capacity(message.parts.len());
            for part in &message.parts {
                parts.push(match part {
                    PartRecord::Text(text) => OwnedPart::Text(text.clone()),
                    PartRecord::Image(image) => {
                        let (width, height) = (image.width, image.height);
                        let recorded = image.time;
                        let at = recorded + AFTER;
                        let selection = Selection::uniform(at, at, 1, width, height);
                        let mut frame = None;
                        source
                            .frames(&selection, &mut |delivered| frame = Some(delivered))
                            .map_err(|error| ReplayError::Source(error.to_string()))?;
                        let mut frame = frame.ok_or(ReplayError::NoFrame(recorded))?;
                        if (frame.time - recorded).abs() > SAME {
                            let found = frame.time;
                            return Err(ReplayError::OtherFrame { recorded, found });
                        }
                        frame.time = recorded;
                        OwnedPart::Image(Picture {
                            frame,
                            width,
                            height,
                        })
                    }
                });
            }
            conversation.push(OwnedMessage {
                role: message.role,
                parts,
            });
        }
        Ok(conversation)
    }
}
