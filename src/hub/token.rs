//! The secret that a hub may ask for: [`Token`].

use std::fmt;

use reqwest::header::HeaderValue;

use super::HubError;

/// A token. It can be sent and taken out of texts, but not shown.
#[derive(Clone)]
pub(super) struct Token {
    secret: String,
    header: HeaderValue,
}

impl Token {
    pub(super) fn new(text: &str) -> Result<Self, HubError> {
        // A line break at the end is that of the file it comes from.
        let secret = text.trim();
        if secret.is_empty() {
            return Err(HubError::Token("is empty"));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {secret}"))
            .map_err(|_| HubError::Token("has characters that no HTTP header can hold"))?;
        header.set_sensitive(true);
        Ok(Self {
            secret: secret.to_owned(),
            header,
        })
    }

    /// The value of the header `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// `text` with `[token]` wherever the token was.
    pub(super) fn hide(&self, text: &str) -> String {
        text.replace(&self.secret, "[token]")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}
