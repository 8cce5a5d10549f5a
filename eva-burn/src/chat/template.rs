//! The chat template of a model directory, and what its tokenizer_config.json says of tokens.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tokenizers::Tokenizer;

use super::ChatError;
use crate::config::{ConfigError, read_json};

/// Where most directories keep the template, and always that of text alone.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// One template, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

/// The template of `chat_template.jinja`, else `chat_template.json`, else `tokenizer_config.json`.
pub(super) fn read(dir: &Path) -> Result<String, ChatError> {
    #[derive(Deserialize)]
    struct File {
        chat_template: Option<Templates>,
    }
    let path = dir.join("chat_template.jinja");
    if path.exists() {
        return std::fs::read_to_string(&path)
            .map_err(|source| ChatError::Config(ConfigError::Read { path, source }));
    }
    for name in ["chat_template.json", TOKENIZER_CONFIG] {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        match read_json::<File>(&path)?.chat_template {
            None => {}
            Some(Templates::One(template)) => return Ok(template),
            Some(Templates::Named(all)) => {
                let names = all.iter().map(|named| named.name.clone()).collect();
                let default = all.into_iter().find(|named| named.name == "default");
                return match default {
                    Some(named) => Ok(named.template),
                    None => Err(ChatError::NoDefaultTemplate { path, names }),
                };
            }
        }
    }
    Err(ChatError::NoTemplate {
        dir: dir.to_owned(),
    })
}

/// Refuses a `tokenizer_config.json` whose added tokens are not those of the tokenizer.
///
/// The file also holds how text is treated by other implementations; all of that is in
/// `tokenizer.json`, which counts.
pub(super) fn check_added_tokens(dir: &Path, tokenizer: &Tokenizer) -> Result<(), ChatError> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens_decoder: BTreeMap<u32, Added>,
    }
    #[derive(Deserialize)]
    struct Added {
        content: String,
    }
    let path = dir.join(TOKENIZER_CONFIG);
    if !path.exists() {
        return Ok(());
    }
    for (id, Added { content }) in read_json::<File>(&path)?.added_tokens_decoder {
        let found = tokenizer.id_to_token(id);
        if found.as_ref() != Some(&content) {
            return Err(ChatError::AddedToken {
                path,
                id,
                content,
                found,
            });
        }
    }
    Ok(())
}
