//! What a server asks for and nobody else may see: [`Secret`].

use std::fmt;

use reqwest::header::HeaderValue;

/// A key or token. It can be sent and taken out of texts, but not shown.
#[derive(Clone)]
pub(crate) struct Secret {
    /// What stands for it in texts: `[key]`.
    label: &'static str,
    text: String,
    header: HeaderValue,
}

impl Secret {
    /// # Errors
    /// What is wrong with `text`, as the end of a sentence about it.
    pub(crate) fn new(text: &str, label: &'static str) -> Result<Self, &'static str> {
        // A line break at the end is that of the file it comes from.
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty");
        }
        let mut header = HeaderValue::try_from(format!("Bearer {text}"))
            .map_err(|_| "has characters that no HTTP header can hold")?;
        header.set_sensitive(true);
        Ok(Self {
            label,
            text: text.to_owned(),
            header,
        })
    }

    /// The value of the header `Authorization`.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// `text` with the label wherever the secret was, as it is or as a JSON string may write it.
    pub(crate) fn hide(&self, text: &str) -> String {
        let json = serde_json::Value::from(self.text.as_str()).to_string();
        let json = json.trim_matches('"');
        let mut text = text.replace(&self.text, self.label);
        for written in [json, &json.replace('/', "\\/")] {
            text = text.replace(written, self.label);
        }
        text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_secret_is_sent_and_never_shown() {
        let secret = Secret::new(" a/b\"c\n", "[key]").unwrap();
        assert_eq!(secret.header().to_str().unwrap(), "Bearer a/b\"c");
        assert!(secret.header().is_sensitive());
        for text in ["a/b\"c", "a/b\\\"c", "a\\/b\\\"c"] {
            assert_eq!(secret.hide(&format!("<{text}>")), "<[key]>");
        }
        assert_eq!(format!("{secret:?}"), "[key]");
    }

    #[test]
    fn what_cannot_be_sent_says_why() {
        assert_eq!(Secret::new(" \n", "[key]").unwrap_err(), "is empty");
        let error = Secret::new("a\nb", "[key]").unwrap_err();
        assert!(error.contains("no HTTP header"), "{error}");
    }
}
