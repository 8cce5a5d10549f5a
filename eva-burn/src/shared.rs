//! [`SharedPolicy`]: one model for several threads.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use eva_core::{
    Continuation, Conversation, Frame, Message, OwnedMessage, OwnedPart, Part, Picture, Pixels,
    Policy, Usage,
};

use crate::generate::GenerateError;
use crate::policy::BurnPolicy;
use crate::sample::{Sampler, Sampling};

/// A policy whose model other threads use too: each has a clone.
///
/// The model is in memory once, on a thread of its own. What is asked while it works waits, and is then
/// continued together ([`BurnPolicy::generate_with`]); so a reply may differ by the rounding of sums from the
/// one that it would be alone. Each draws its tokens by itself, a clone at first as the one that it was made
/// from; [`set_sampling`](Self::set_sampling) gives it a seed of its own.
///
/// ```
/// use eva_burn::{BurnPolicy, Device};
/// use eva_core::{Part, Message, Policy, RgbImage, Role};
///
/// let policy = BurnPolicy::tiny(&Device::flex())?.with_kept_conversations(2);
/// let shared = policy.share::<RgbImage>()?;
/// let replies = ["Who wins?", "Who loses?"].map(|question| {
///     let mut policy = shared.clone();
///     std::thread::spawn(move || {
///         let parts = [Part::Text(question)];
///         let mut reply = String::new();
///         policy.generate(&[Message { role: Role::User, parts: &parts }], &mut reply).map(|_| reply)
///     })
/// });
/// for reply in replies {
///     assert!(!reply.join().unwrap()?.is_empty());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedPolicy<P> {
    requests: Sender<Request<P>>,
    sampler: Sampler,
    gone: Arc<AtomicBool>,
}

/// A conversation that is to be continued.
#[derive(Debug)]
struct Request<P> {
    conversation: Conversation<P>,
    sampler: Sampler,
    answer: Answer,
}

/// What is written for a request, and at the end how it ended.
#[derive(Debug)]
struct Answer(Sender<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Ended(Result<Usage, GenerateError>),
}

impl fmt::Write for Answer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let sent = self.0.send(Piece::Text(text.to_owned()));
        sent.map_err(|_| fmt::Error)
    }
}

impl BurnPolicy {
    /// Moves the model to a thread of its own, for several others to use. It ends with the last clone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn share<P>(mut self) -> io::Result<SharedPolicy<P>>
    where
        P: Pixels + Send + 'static,
    {
        let sampler = self.sampler.fork();
        let (requests, received) = channel();
        let gone = Arc::new(AtomicBool::new(false));
        let life = gone.clone();
        thread::Builder::new()
            .name("shared policy".to_owned())
            .spawn(move || {
                while let Some(batch) = next(&received) {
                    self.answer(batch, &life);
                }
            })?;
        Ok(SharedPolicy {
            requests,
            sampler,
            gone,
        })
    }

    fn answer<P: Pixels>(&mut self, batch: Vec<Request<P>>, gone: &AtomicBool) {
        let (mut conversations, mut samplers) = (Vec::new(), Vec::new());
        let (mut replies, mut ends) = (Vec::new(), Vec::new());
        for request in batch {
            conversations.push(request.conversation);
            samplers.push(request.sampler);
            ends.push(request.answer.0.clone());
            replies.push(request.answer);
        }
        tracing::debug!(turns = conversations.len(), "continued together");
        let conversations: Vec<&Conversation<P>> = conversations.iter().collect();
        // Dropped before what those who wait are told by: they find it gone at once.
        let _guard = Guard(gone);
        Conversation::with_all_messages(&conversations, |conversations| {
            let mut turns: Vec<Continuation<'_, P>> = (conversations.iter().zip(&mut replies))
                .map(|(conversation, reply)| Continuation {
                    conversation,
                    reply,
                })
                .collect();
            self.generate_with(&mut turns, &mut samplers, &mut |place, ended| {
                if let Some(end) = ends.get(place) {
                    // Who no longer listens does not want to know.
                    let _ = end.send(Piece::Ended(ended));
                }
            });
        });
    }
}

/// Tells of a panic.
struct Guard<'a>(&'a AtomicBool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// All requests that wait, once there is one; none when nobody is left who could ask.
fn next<P>(requests: &Receiver<Request<P>>) -> Option<Vec<Request<P>>> {
    let first = requests.recv().ok()?;
    Some(std::iter::once(first).chain(requests.try_iter()).collect())
}

impl<P> Clone for SharedPolicy<P> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
            sampler: self.sampler.clone(),
            gone: self.gone.clone(),
        }
    }
}

impl<P> SharedPolicy<P> {
    /// Chooses this clone's tokens otherwise from now on, with the repetition penalty as it is: for
    /// rollouts that differ by their seed.
    pub fn set_sampling(&mut self, sampling: Sampling) {
        self.sampler = Sampler::new(sampling, self.sampler.penalty());
    }

    /// Whether the model's thread has panicked: every call fails then.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

impl<P: Pixels + Clone> SharedPolicy<P> {
    /// Asks for a reply, which comes piece by piece.
    fn ask(&mut self, conversation: &[Message<'_, P>]) -> Receiver<Piece> {
        let (answer, pieces) = channel();
        let request = Request {
            conversation: owned(conversation),
            sampler: self.sampler.fork(),
            answer: Answer(answer),
        };
        // Where nobody is left to answer, no piece comes.
        let _ = self.requests.send(request);
        pieces
    }
}

/// Writes a reply as it comes.
fn listen(pieces: &Receiver<Piece>, reply: &mut dyn fmt::Write) -> Result<Usage, GenerateError> {
    loop {
        match pieces.recv() {
            Ok(Piece::Text(text)) => reply.write_str(&text)?,
            Ok(Piece::Ended(ended)) => return ended,
            Err(_) => return Err(GenerateError::Gone),
        }
    }
}

impl<P: Pixels + Clone> Policy<P> for SharedPolicy<P> {
    type Error = GenerateError;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, GenerateError> {
        listen(&self.ask(conversation), reply)
    }

    fn generate_batch(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        done: &mut dyn FnMut(usize, Result<Usage, GenerateError>),
    ) {
        let asked: Vec<Receiver<Piece>> = (turns.iter())
            .map(|turn| self.ask(turn.conversation))
            .collect();
        for (place, (turn, pieces)) in turns.iter_mut().zip(asked).enumerate() {
            done(place, listen(&pieces, turn.reply));
        }
    }
}

/// A copy of what is lent for the length of a call.
fn owned<P: Pixels + Clone>(messages: &[Message<'_, P>]) -> Conversation<P> {
    let mut conversation = Conversation::new();
    for message in messages {
        let part = |part: &Part<'_, P>| match *part {
            Part::Text(text) => OwnedPart::Text(text.to_owned()),
            Part::Image(pixels) => OwnedPart::Image(Picture {
                width: pixels.width(),
                height: pixels.height(),
                frame: Frame {
                    time: 0.0,
                    pixels: pixels.clone(),
                },
            }),
        };
        conversation.push(OwnedMessage {
            role: message.role,
            parts: message.parts.iter().map(part).collect(),
        });
    }
    conversation
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use burn::tensor::Device;
    use eva_core::{RgbImage, Role};

    fn tiny() -> BurnPolicy {
        let policy = BurnPolicy::tiny(&Device::flex()).unwrap();
        policy.with_max_new_tokens(24).with_kept_conversations(8)
    }

    fn ask<P, M: Policy<P>>(policy: &mut M, parts: &[Part<'_, P>]) -> Result<String, M::Error> {
        let role = Role::User;
        let mut reply = String::new();
        policy.generate(&[Message { role, parts }], &mut reply)?;
        Ok(reply)
    }

    #[test]
    fn threads_get_the_replies_that_they_would_get_alone() {
        let picture = RgbImage::new(56, 56, [200, 30, 40].repeat(56 * 56)).unwrap();
        let questions: Vec<String> = (0..6)
            .map(|number| format!("What digit is on the card at 0{number}:30?"))
            .collect();
        let parts = |question| [Part::Image(&picture), Part::Text(question)];
        let mut alone = tiny();
        let expected: Vec<String> = (questions.iter())
            .map(|question| ask(&mut alone, &parts(question)).unwrap())
            .collect();
        let shared = tiny().share().unwrap();
        let replies: Vec<String> = thread::scope(|scope| {
            let asking: Vec<_> = (questions.iter())
                .map(|question| {
                    let mut policy = shared.clone();
                    scope.spawn(move || ask(&mut policy, &parts(question)).unwrap())
                })
                .collect();
            let replies = asking.into_iter().map(|one| one.join().unwrap());
            replies.collect()
        });
        assert_eq!(replies, expected);
        assert!(!shared.is_gone());
    }

    #[test]
    fn a_batch_gets_the_replies_of_one_after_the_other() {
        let mut shared = tiny().share::<RgbImage>().unwrap();
        let parts = ["Who wins?", "What digit is on the red card?"].map(|text| [Part::Text(text)]);
        let expected = parts
            .each_ref()
            .map(|parts| ask(&mut shared, parts).unwrap());
        let messages = parts.each_ref().map(|parts| {
            let role = Role::User;
            [Message { role, parts }]
        });
        let mut replies = [String::new(), String::new()];
        let mut turns: Vec<Continuation<'_, RgbImage>> = (messages.iter().zip(&mut replies))
            .map(|(conversation, reply)| Continuation {
                conversation,
                reply,
            })
            .collect();
        let mut places = Vec::new();
        shared.generate_batch(&mut turns, &mut |place, ended| {
            ended.unwrap();
            places.push(place);
        });
        assert_eq!(places, [0, 1]);
        assert_eq!(replies, expected);
    }

    #[test]
    fn what_waits_is_continued_together() {
        let (requests, received) = channel();
        for number in [1, 3] {
            for _ in 0..number {
                let (answer, _) = channel();
                let request = Request::<()> {
                    conversation: Conversation::new(),
                    sampler: Sampler::new(Sampling::Greedy, 1.0),
                    answer: Answer(answer),
                };
                requests.send(request).unwrap();
            }
            assert_eq!(next(&received).unwrap().len(), number);
        }
        drop(requests);
        assert!(next(&received).is_none());
    }

    #[test]
    fn draws_follow_from_the_seed_of_a_clone() {
        let shared = tiny().share::<RgbImage>().unwrap();
        let drawn = |seed| {
            let mut policy = shared.clone();
            policy.set_sampling(Sampling::Random {
                temperature: 20.0,
                top_k: 0,
                top_p: 1.0,
                seed,
            });
            [(); 2].map(|()| ask(&mut policy, &[Part::Text("Who wins?")]).unwrap())
        };
        let first = drawn(1);
        assert_ne!(first, drawn(2));
        assert_eq!(first, drawn(1));
        // Nor does a clone draw the same again at its next turn.
        assert_ne!(first[0], first[1]);
    }

    struct Full;
    impl fmt::Write for Full {
        fn write_str(&mut self, _: &str) -> fmt::Result {
            Err(fmt::Error)
        }
    }

    #[test]
    fn a_sink_that_refuses_text_ends_its_own_turn_alone() {
        let mut shared = tiny().share::<RgbImage>().unwrap();
        let parts = [Part::Text("Who wins?")];
        let message = Message {
            role: Role::User,
            parts: &parts,
        };
        let refused = shared.generate(&[message], &mut Full);
        assert!(matches!(refused, Err(GenerateError::Write(_))));
        assert!(!ask(&mut shared, &parts).unwrap().is_empty());
    }

    /// A picture that can't be read.
    #[derive(Clone)]
    struct Broken;
    impl Pixels for Broken {
        fn width(&self) -> u32 {
            28
        }
        fn height(&self) -> u32 {
            28
        }
        fn rgb(&self) -> &[u8] {
            panic!("as the test wants it")
        }
    }

    #[test]
    fn a_model_whose_thread_panicked_is_gone() {
        let mut shared = tiny().share::<Broken>().unwrap();
        let gone = ask(&mut shared, &[Part::Image(&Broken)]);
        assert!(matches!(gone, Err(GenerateError::Gone)), "{gone:?}");
        let gone = ask(&mut shared.clone(), &[Part::Text("Who wins?")]);
        assert!(matches!(gone, Err(GenerateError::Gone)), "{gone:?}");
        assert!(shared.is_gone());
    }
}
