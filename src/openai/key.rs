//! The secret that a server asks for: [`Key`].

use std::env::{self, VarError};
use std::fmt;

use reqwest::header::HeaderValue;

use super::OpenAiError;

/// An API key. It can be sent and taken out of texts, but not shown.
#[derive(Clone)]
pub(super) struct Key {
    secret: String,
    header: HeaderValue,
}

impl Key {
    pub(super) fn from_env(variable: &str) -> Result<Self, OpenAiError> {
        let unusable = |why| OpenAiError::Key {
            variable: variable.to_owned(),
            why,
        };
        let value = env::var(variable).map_err(|error| match error {
            VarError::NotPresent => unusable("is not set"),
            VarError::NotUnicode(_) => unusable("is not text"),
        })?;
        // A line break at the end is a slip of whoever read it from a file.
        let secret = value.trim();
        if secret.is_empty() {
            return Err(unusable("is empty"));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {secret}"))
            .map_err(|_| unusable("has characters that no HTTP header can hold"))?;
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

    /// `text` with `[key]` wherever the key was, as it is or as a JSON string may write it.
    pub(super) fn hide(&self, text: &str) -> String {
        let json = serde_json::Value::from(self.secret.as_str()).to_string();
        let json = json.trim_matches('"');
        let mut text = text.replace(&self.secret, "[key]");
        for written in [json, &json.replace('/', "\\/")] {
            text = text.replace(written, "[key]");
        }
        text
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}
