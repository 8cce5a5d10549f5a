//! What writes the replies of many runs together: [`Engine`].

use std::error::Error;

use eva_burn::{BurnPolicy, GenerateError, Sampled};
use eva_core::{Continuation, Conversation, Pixels, Policy, Usage};

/// A model that continues many conversations at once, and may tell the tokens it drew.
pub trait Engine<P> {
    /// Why a reply can't be made.
    type Error: Error;

    /// Continues every conversation of `turns`; `done` is given the place of each as it ends. A
    /// failure concerns that conversation alone.
    fn generate(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        done: &mut dyn FnMut(usize, Result<Generated, Self::Error>),
    );
}

/// What is known of a reply beside its text.
#[derive(Debug, Clone, PartialEq)]
pub enum Generated {
    /// Its tokens and their log-probabilities.
    Tokens(Sampled),
    /// What it cost. To learn from it, its text is encoded and its log-probabilities are computed.
    Text(Usage),
}

impl Generated {
    /// What the reply cost.
    #[must_use]
    pub const fn usage(&self) -> Usage {
        match self {
            Self::Tokens(sampled) => sampled.usage,
            Self::Text(usage) => *usage,
        }
    }

    /// The tokens, where they are known.
    #[must_use]
    pub fn tokens(&self) -> Option<&[u32]> {
        match self {
            Self::Tokens(sampled) => Some(&sampled.tokens),
            Self::Text(_) => None,
        }
    }
}

impl<P: Pixels> Engine<P> for BurnPolicy {
    type Error = GenerateError;

    fn generate(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        done: &mut dyn FnMut(usize, Result<Generated, GenerateError>),
    ) {
        let mut samplers = self.samplers(turns.len());
        self.generate_sampled(turns, &mut samplers, &mut |place, ended| {
            done(place, ended.map(Generated::Tokens));
        });
    }
}

/// Any [`Policy`] as an engine, such as a model on a server: its replies are text alone.
#[derive(Debug, Clone)]
pub struct TextEngine<M>(pub M);

impl<P, M: Policy<P>> Engine<P> for TextEngine<M>
where
    M::Error: Error,
{
    type Error = M::Error;

    fn generate(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        done: &mut dyn FnMut(usize, Result<Generated, M::Error>),
    ) {
        self.0.generate_batch(turns, &mut |place, ended| {
            done(place, ended.map(Generated::Text));
        });
    }
}

/// Continues each conversation by one reply: its text, and what is known of it or why it was broken
/// off.
pub fn replies<P, E: Engine<P>>(
    engine: &mut E,
    conversations: &[&Conversation<P>],
) -> Vec<(String, Result<Generated, String>)> {
    let mut texts = vec![String::new(); conversations.len()];
    let mut ended: Vec<Result<Generated, String>> = (conversations.iter())
        .map(|_| Err("the engine gave no reply".to_owned()))
        .collect();
    Conversation::with_all_messages(conversations, |conversations| {
        let mut turns: Vec<Continuation<'_, P>> = (conversations.iter().zip(&mut texts))
            .map(|(conversation, reply)| Continuation {
                conversation,
                reply,
            })
            .collect();
        engine.generate(&mut turns, &mut |place, result| {
            if let Some(slot) = ended.get_mut(place) {
                *slot = result.map_err(|error| error.to_string());
            }
        });
    });
    texts.into_iter().zip(ended).collect()
}
