//! Conversations to tokens: the chat template and the tokenizer of a model directory.

mod template;

use std::path::{Path, PathBuf};

use eva_core::{Message, Part, Role};
use minijinja::{Environment, context};
use tokenizers::Tokenizer;

use crate::config::ConfigError;

/// Why a conversation could not be turned into tokens, or tokens into text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A file is missing or not valid JSON.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// tokenizer.json cannot be used.
    #[error("cannot load {path}: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The directory has no chat template.
    #[error(
        "{dir} has no chat template; expected chat_template.jinja, chat_template.json or a `chat_template` in tokenizer_config.json"
    )]
    NoTemplate {
        /// The directory.
        dir: PathBuf,
    },
    /// tokenizer_config.json gives a token another text than tokenizer.json.
    #[error(
        "{path}: token {id} is `{content}`, in tokenizer.json it is {found:?}; the files do not belong together"
    )]
    AddedToken {
        /// The file.
        path: PathBuf,
        /// The token.
        id: u32,
        /// Its text in the file.
        content: String,
        /// Its text in tokenizer.json.
        found: Option<String>,
    },
    /// The token that stands for pictures is not one that only a template may write.
    #[error(
        "{path}: token {id}, the `image_token_id` of config.json, is not a special token; the files do not belong together"
    )]
    ImageToken {
        /// The tokenizer's file.
        path: PathBuf,
        /// The token.
        id: u32,
    },
    /// The tokenizer has tokens that the model has no embedding for.
    #[error(
        "tokenizer.json has tokens up to {largest}, config.json a `vocab_size` of {vocab_size}; the files do not belong together"
    )]
    Vocabulary {
        /// The tokenizer's largest id.
        largest: u32,
        /// Number of embeddings.
        vocab_size: usize,
    },
    /// The file has several chat templates, and none of them is called default.
    #[error("{path}: `chat_template` has {names:?}, but no template called \"default\"")]
    NoDefaultTemplate {
        /// The file.
        path: PathBuf,
        /// The names that are there.
        names: Vec<String>,
    },
    /// The chat template is not valid, or failed.
    #[error("the chat template failed: {0}")]
    Template(#[from] minijinja::Error),
    /// The template dropped or repeated a picture.
    #[error("the chat template shows {shown} pictures of a conversation with {given}")]
    Pictures {
        /// Places for pictures in the rendered text.
        shown: usize,
        /// Pictures in the conversation.
        given: usize,
    },
    /// A text could not be encoded or decoded.
    #[error("the tokenizer failed: {0}")]
    Encode(String),
}

/// The chat template and the tokenizer of a model directory.
#[derive(Debug)]
pub struct Chat {
    template: Environment<'static>,
    tokenizer: Tokenizer,
    /// Tokens that only the template may produce, longest first.
    special: Vec<(String, u32)>,
    image_token: u32,
}

// Brackets from Unicode's private use area: they stand for a conversation's own text while the
// template runs, so that nothing a user or a model wrote is read as part of the template.
const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';

impl Chat {
    /// Loads `tokenizer.json` and the chat template of `dir`.
    ///
    /// # Errors
    /// [`ChatError`] names the file.
    pub fn load(dir: &Path, image_token: u32) -> Result<Self, ChatError> {
        let path = dir.join("tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(&path).map_err(|error| ChatError::Tokenizer {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        // Special tokens inside a text are text: only the template's own are special.
        tokenizer.set_encode_special_tokens(true);
        let mut special: Vec<(String, u32)> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (token.content, id))
            .collect();
        special.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.cmp(b)));
        if !special.iter().any(|(_, id)| *id == image_token) {
            return Err(ChatError::ImageToken {
                path,
                id: image_token,
            });
        }
        template::check_added_tokens(dir, &tokenizer)?;

        let mut environment = Environment::new();
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_template_owned("chat", template::read(dir)?)?;
        Ok(Self {
            template: environment,
            tokenizer,
            special,
            image_token,
        })
    }

    /// The tokens of a conversation, ending where the assistant's next reply begins.
    ///
    /// - picture_tokens: how many tokens each picture takes, in order
    ///
    /// # Errors
    /// [`ChatError`] when the template fails or loses a picture.
    pub fn encode<P>(
        &self,
        conversation: &[Message<'_, P>],
        picture_tokens: &[usize],
    ) -> Result<Vec<u32>, ChatError> {
        self.encode_with(conversation, picture_tokens, true)
    }

    /// As [`encode`](Self::encode); `open_reply` says whether the assistant's next reply is begun.
    ///
    /// # Errors
    /// [`ChatError`] when the template fails or loses a picture.
    pub fn encode_with<P>(
        &self,
        conversation: &[Message<'_, P>],
        picture_tokens: &[usize],
        open_reply: bool,
    ) -> Result<Vec<u32>, ChatError> {
        let mut texts = Vec::new();
        let mut given = 0;
        let messages: Vec<_> = conversation
            .iter()
            .map(|message| {
                let content: Vec<_> = message
                    .parts
                    .iter()
                    .map(|part| match part {
                        Part::Text(text) => {
                            texts.push(*text);
                            let mark = format!("{OPEN}{}{CLOSE}", texts.len() - 1);
                            context! { type => "text", text => mark }
                        }
                        Part::Image(_) => {
                            given += 1;
                            context! { type => "image" }
                        }
                    })
                    .collect();
                context! { role => role_name(message.role), content => content }
            })
            .collect();
        let rendered = self
            .template
            .get_template("chat")?
            .render(context! { messages => messages, add_generation_prompt => open_reply })?;

        let mut tokens = Vec::new();
        let mut run = String::new();
        let mut pictures = picture_tokens.iter();
        let mut shown = 0;
        let mut rest = rendered.as_str();
        while !rest.is_empty() {
            // The template's own text, up to the next mark.
            let (own, after) = rest
                .split_once(OPEN)
                .map_or((rest, None), |(a, b)| (a, Some(b)));
            self.split_special(own, |piece| {
                match piece {
                    Piece::Text(text) => run.push_str(text),
                    Piece::Special(id) => {
                        self.encode_text(&run, &mut tokens)?;
                        run.clear();
                        if id == self.image_token {
                            shown += 1;
                            let count = pictures.next().copied().unwrap_or(0);
                            tokens.extend(std::iter::repeat_n(id, count));
                        } else {
                            tokens.push(id);
                        }
                    }
                }
                Ok(())
            })?;
            let Some((mark, after)) = after.and_then(|after| after.split_once(CLOSE)) else {
                break;
            };
            let text = mark
                .parse()
                .ok()
                .and_then(|index: usize| texts.get(index))
                .copied();
            run.push_str(text.unwrap_or_default());
            rest = after;
        }
        self.encode_text(&run, &mut tokens)?;
        if shown != given || given != picture_tokens.len() {
            return Err(ChatError::Pictures { shown, given });
        }
        Ok(tokens)
    }

    /// Refuses a model with fewer embeddings than the tokenizer has tokens.
    pub(crate) fn check_vocabulary(&self, vocab_size: usize) -> Result<(), ChatError> {
        let all = self.tokenizer.get_vocab(true);
        let largest = all.into_values().max().unwrap_or_default();
        if largest as usize >= vocab_size {
            return Err(ChatError::Vocabulary {
                largest,
                vocab_size,
            });
        }
        Ok(())
    }

    fn split_special<'t>(
        &self,
        mut text: &'t str,
        mut sink: impl FnMut(Piece<'t>) -> Result<(), ChatError>,
    ) -> Result<(), ChatError> {
        loop {
            let first = self
                .special
                .iter()
                .filter_map(|(content, id)| text.find(content).map(|at| (at, content.len(), *id)))
                .min_by_key(|(at, len, _)| (*at, usize::MAX - len));
            let Some((at, len, id)) = first else {
                return sink(Piece::Text(text));
            };
            sink(Piece::Text(&text[..at]))?;
            sink(Piece::Special(id))?;
            text = &text[at + len..];
        }
    }

    fn encode_text(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), ChatError> {
        if text.is_empty() {
            return Ok(());
        }
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| ChatError::Encode(error.to_string()))?;
        tokens.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// The tokens of a plain text, nothing in it special.
    ///
    /// # Errors
    /// [`ChatError::Encode`] when the tokenizer fails.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        let mut tokens = Vec::new();
        self.encode_text(text, &mut tokens)?;
        Ok(tokens)
    }

    /// The text of tokens, special ones left out.
    ///
    /// # Errors
    /// [`ChatError::Encode`] when the tokenizer fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, ChatError> {
        self.tokenizer
            .decode(tokens, true)
            .map_err(|error| ChatError::Encode(error.to_string()))
    }

    /// The special tokens that end a message or a text.
    pub fn closing_tokens(&self) -> Vec<u32> {
        ["<|im_end|>", "<|endoftext|>"]
            .into_iter()
            .filter_map(|content| self.token_id(content))
            .collect()
    }

    /// The id of a token given by its exact content.
    #[must_use]
    pub fn token_id(&self, content: &str) -> Option<u32> {
        self.tokenizer.token_to_id(content)
    }
}

enum Piece<'t> {
    Text(&'t str),
    Special(u32),
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}
