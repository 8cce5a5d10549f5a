//! What is sent: the conversation as the published client writes it.

use std::sync::Arc;

use eva_core::{Message, Part, Role};
use serde::Serialize;

use super::config::OpenAiConfig;
use super::{OpenAiError, ToolRole};

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Sent<'a>>,
    temperature: f64,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Sent<'a> {
    role: &'static str,
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Pieces(Vec<Piece<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl<'a> },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: &'a str,
}

/// The body of a request. `urls` are those of all pictures of the conversation, in order.
pub(super) fn body<P>(
    config: &OpenAiConfig,
    model: &str,
    conversation: &[Message<'_, P>],
    urls: &[Arc<str>],
) -> Result<Vec<u8>, OpenAiError> {
    let mut urls = urls.iter();
    let messages = conversation.iter().map(|message| Sent {
        role: role(message.role, config.tool_role),
        content: content(message, &mut urls),
    });
    let request = Request {
        model,
        messages: messages.collect(),
        temperature: config.temperature,
        max_tokens: config.max_tokens,
        stream: config.stream,
        stream_options: config.stream.then_some(StreamOptions {
            include_usage: true,
        }),
    };
    serde_json::to_vec(&request).map_err(OpenAiError::Request)
}

const fn role(role: Role, tool: ToolRole) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => tool.as_str(),
    }
}

/// A text is sent as such, what a tool returned always as a list.
fn content<'a, P>(
    message: &Message<'a, P>,
    urls: &mut impl Iterator<Item = &'a Arc<str>>,
) -> Content<'a> {
    match message.parts {
        [] => Content::Text(""),
        [Part::Text(text)] if message.role != Role::Tool => Content::Text(text),
        parts => Content::Pieces(
            parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => Piece::Text { text },
                    Part::Image(_) => Piece::ImageUrl {
                        image_url: ImageUrl {
                            url: urls.next().map_or("", |url| url),
                        },
                    },
                })
                .collect(),
        ),
    }
}
