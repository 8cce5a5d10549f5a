//! A small byte-level BPE tokenizer, trained on the texts of a task.
//!
//! Texts that recur become few tokens (a whole phrase can be one), which is what makes a tiny model
//! fast; any other text falls back to bytes. Pieces that a model must copy or compare (digits, names
//! of colours) are kept apart from the phrases around them.

use std::path::Path;

use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

/// The special tokens of Qwen2.5-VL that the chat template uses, in the order of their ids.
pub const SPECIAL: [&str; 6] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
];

/// Why a tokenizer could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the tokenizer: {0}")]
pub struct TokenizerError(String);

/// Trains a tokenizer of at most `vocabulary` tokens on `texts` and writes `tokenizer.json` to `path`.
///
/// - apart: a regular expression of the pieces that stay tokens of their own
///
/// Returns the number of tokens.
///
/// # Errors
/// [`TokenizerError`] when the expression is not valid or the file cannot be written.
pub fn train<'t>(
    texts: impl Iterator<Item = &'t str> + Send,
    apart: &str,
    vocabulary: usize,
    path: &Path,
) -> Result<usize, TokenizerError> {
    let error = |error: tokenizers::Error| TokenizerError(error.to_string());
    let split = Split::new(
        SplitPattern::Regex(apart.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(error)?;
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])));
    tokenizer.with_decoder(Some(ByteLevelDecoder::default()));
    let special: Vec<AddedToken> = SPECIAL
        .iter()
        .map(|content| AddedToken::from(*content, true))
        .collect();
    let mut trainer: tokenizers::models::TrainerWrapper = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocabulary)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special)
        .build()
        .into();
    tokenizer.train(&mut trainer, texts).map_err(error)?;
    tokenizer.save(path, true).map_err(error)?;
    Ok(tokenizer.get_vocab_size(true))
}
