//! Conversations as `transformers` renders and encodes them, with Qwen's whole vocabulary: see
//! `fixtures/make_chats.py`. The vocabulary is 11 MB: `scripts/qwen_tokenizer.sh` fetches it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use eva_burn::chat::Chat;
use eva_core::{Message, Part, RgbImage, Role};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    messages: Vec<Written>,
    open_reply: bool,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Written {
    role: Role,
    /// Texts; `None` for a picture.
    parts: Vec<Option<String>>,
}

const IMAGE_TOKEN: u32 = 151_655;

/// Where the vocabulary lies, if it was fetched.
fn tokenizer() -> Option<PathBuf> {
    let fetched = std::env::var_os("EVA_QWEN_TOKENIZER").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/qwen-tokenizer/tokenizer.json"),
        PathBuf::from,
    );
    fetched.exists().then_some(fetched)
}

#[test]
fn conversations_are_encoded_as_transformers_does() {
    let Some(tokenizer) = tokenizer() else {
        println!("skipped: scripts/qwen_tokenizer.sh has not fetched the vocabulary");
        return;
    };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chats");
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(tokenizer, dir.path().join("tokenizer.json")).unwrap();
    let template = "chat_template.jinja";
    std::fs::copy(fixtures.join(template), dir.path().join(template)).unwrap();
    let chat = Chat::load(dir.path(), IMAGE_TOKEN).unwrap();
    let goldens: Vec<Golden> =
        serde_json::from_slice(&std::fs::read(fixtures.join("chats.json")).unwrap()).unwrap();
    assert!(goldens.len() >= 40);
    let image = RgbImage::new(1, 1, vec![0; 3]).unwrap();
    for golden in &goldens {
        let parts: Vec<Vec<Part<'_, RgbImage>>> = golden
            .messages
            .iter()
            .map(|message| {
                message
                    .parts
                    .iter()
                    .map(|text| text.as_deref().map_or(Part::Image(&image), Part::Text))
                    .collect()
            })
            .collect();
        let messages: Vec<Message<'_, RgbImage>> = golden
            .messages
            .iter()
            .zip(&parts)
            .map(|(message, parts)| Message {
                role: message.role,
                parts,
            })
            .collect();
        let pictures = parts.iter().flatten();
        let pictures = pictures
            .filter(|part| matches!(part, Part::Image(_)))
            .count();
        let ids = chat
            .encode_with(&messages, &vec![1; pictures], golden.open_reply)
            .unwrap();
        let texts: Vec<_> = golden
            .messages
            .iter()
            .map(|message| &message.parts)
            .collect();
        assert_eq!(ids, golden.ids, "{texts:?}");
    }
}
