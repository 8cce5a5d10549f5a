//! Which server, and how it is talked to: [`OpenAiConfig`].

use std::env::{self, VarError};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;

use super::{OpenAi, OpenAiError};
use crate::web::Secret;

/// Which server, and how it is talked to.
///
/// ```no_run
/// use std::time::Duration;
/// use eva::openai::{Images, OpenAiConfig};
///
/// let policy = OpenAiConfig::new("https://models.example.org/v1")?
///     .with_key_from_env("OPENAI_API_KEY")?
///     .with_images(Images::Jpeg { quality: 90 })
///     .with_timeout(Duration::from_secs(120))
///     .open()?;
/// # Ok::<(), eva::openai::OpenAiError>(())
/// ```
#[derive(Debug, Clone)]
pub struct OpenAiConfig {
    pub(super) url: Url,
    pub(super) model: Option<String>,
    pub(super) key: Option<Secret>,
    pub(super) images: Images,
    pub(super) tool_role: ToolRole,
    pub(super) stream: bool,
    pub(super) temperature: f64,
    pub(super) max_tokens: u32,
    pub(super) max_reply: usize,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
    pub(super) concurrency: usize,
}

impl OpenAiConfig {
    /// The server at `base_url`, the part of its address before `/chat/completions`; it usually
    /// ends in `/v1`.
    ///
    /// # Errors
    /// [`OpenAiError::Address`] when that is not such an address.
    pub fn new(base_url: &str) -> Result<Self, OpenAiError> {
        Ok(Self {
            url: address(base_url)?,
            model: None,
            key: None,
            images: Images::Png,
            tool_role: ToolRole::Tool,
            stream: false,
            temperature: 0.0,
            max_tokens: 2048,
            max_reply: 8 << 20,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(600),
            retries: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            concurrency: 16,
        })
    }

    /// The same with the model of this name. Without one, the first that the server lists is asked.
    #[must_use]
    pub fn with_model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// The same with the API key that the environment variable `variable` holds. Without one, none
    /// is sent.
    ///
    /// # Errors
    /// [`OpenAiError::Key`] when there is no usable key in it.
    pub fn with_key_from_env(mut self, variable: &str) -> Result<Self, OpenAiError> {
        self.key = Some(key_from_env(variable)?);
        Ok(self)
    }

    /// The same with pictures sent as `images`: [`Images::Png`] by default.
    #[must_use]
    pub fn with_images(mut self, images: Images) -> Self {
        self.images = images;
        self
    }

    /// The same with what tools return sent in messages of `role`: [`ToolRole::Tool`] by default.
    #[must_use]
    pub fn with_tool_role(mut self, role: ToolRole) -> Self {
        self.tool_role = role;
        self
    }

    /// The same with text written as it comes, instead of whole replies. See
    /// [what is tried again](super#what-is-tried-again).
    #[must_use]
    pub fn with_stream(mut self, stream: bool) -> Self {
        self.stream = stream;
        self
    }

    /// The same with sampling at this temperature: 0, that is greedy, by default.
    #[must_use]
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// The same with at most so many new tokens a reply: 2048 by default.
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: u32) -> Self {
        self.max_tokens = tokens;
        self
    }

    /// The same with replies of at most so many bytes as the server sends them: 8 MiB by default.
    /// Of a stream, each event and the text are measured.
    #[must_use]
    pub fn with_max_reply(mut self, bytes: usize) -> Self {
        self.max_reply = bytes;
        self
    }

    /// The same with a limit on the time to connect: 10 s by default. It is tried again after it.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The same with a limit on the time from a request to the last byte of its reply: 10 minutes
    /// by default. It is not tried again after it.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same with so many more tries after the first: 5 by default.
    #[must_use]
    pub fn with_retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// The same with pauses between tries that begin at `first`, double each time, and never get
    /// longer than `longest`, whatever the server asks for: 0.5 s and 60 s by default.
    #[must_use]
    pub fn with_pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.first_pause = first;
        self.longest_pause = longest;
        self
    }

    /// The same with so many requests at a time where several conversations are continued together
    /// ([`Policy::generate_batch`](eva_core::Policy::generate_batch)): 16 by default, 0 counts as 1.
    #[must_use]
    pub fn with_concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests;
        self
    }

    /// The policy. Nothing is sent yet.
    ///
    /// # Errors
    /// [`OpenAiError`] when the folder of [`Images::Files`] can't be made, the temperature is not a
    /// number, or the system has no thread or certificates for an HTTP client.
    pub fn open(self) -> Result<OpenAi, OpenAiError> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err(OpenAiError::Temperature(self.temperature));
        }
        OpenAi::new(self)
    }

    /// The address `path` of the server.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.url.as_str().trim_end_matches('/'))
    }

    /// `text` without the key.
    pub(super) fn hide_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => key.hide(text),
            None => text.to_owned(),
        }
    }
}

fn address(text: &str) -> Result<Url, OpenAiError> {
    let wrong = |why: &'static str| OpenAiError::Address {
        // Before an @ there may be a password.
        address: match text.contains('@') {
            true => "the server's address".to_owned(),
            false => format!("`{text}`"),
        },
        why,
    };
    let url = Url::parse(text).map_err(|_| wrong("is not an address"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is not an HTTP address"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "holds a user name or password; use `with_key_from_env` for a secret",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("goes on behind its path with `?` or `#`"));
    }
    Ok(url)
}

/// How pictures are sent. Written `png`, `jpeg`, `jpeg:QUALITY` or `file:DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Images {
    /// As PNG files of this folder, which the server reads itself: `file://` addresses. Each picture
    /// is written once, under a name made of its content, and left there.
    ///
    /// The server has to see the same folder and to be allowed to read it (vLLM:
    /// `--allowed-local-media-path`).
    Files(PathBuf),
    /// In the request, as JPEG, which is several times smaller but changes pixels.
    Jpeg {
        /// 1 to 100.
        quality: u8,
    },
    /// In the request, as PNG: the exact pixels.
    Png,
}

/// The text does not say how pictures are sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no way to send pictures: write png, jpeg, jpeg:QUALITY (1 to 100), or file: and a folder \
     that the server can read"
)]
pub struct UnknownImages(String);

/// Quality of `jpeg` without a number.
const JPEG_QUALITY: u8 = 90;

impl FromStr for Images {
    type Err = UnknownImages;

    fn from_str(text: &str) -> Result<Self, UnknownImages> {
        let unknown = || UnknownImages(text.to_owned());
        match text.split_once(':') {
            None if text == "png" => Ok(Self::Png),
            None if text == "jpeg" => Ok(Self::Jpeg {
                quality: JPEG_QUALITY,
            }),
            Some(("jpeg", quality)) => match quality.parse() {
                Ok(quality @ 1..=100) => Ok(Self::Jpeg { quality }),
                _ => Err(unknown()),
            },
            Some(("file", folder)) if !folder.is_empty() => Ok(Self::Files(folder.into())),
            _ => Err(unknown()),
        }
    }
}

/// As it is written.
impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(folder) => write!(f, "file:{}", folder.display()),
            Self::Jpeg {
                quality: JPEG_QUALITY,
            } => f.write_str("jpeg"),
            Self::Jpeg { quality } => write!(f, "jpeg:{quality}"),
            Self::Png => f.write_str("png"),
        }
    }
}

/// The role of messages that hold what a tool returned. Written `tool` or `user`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ToolRole {
    /// `tool`, as the published weights expect it.
    #[default]
    Tool,
    /// `user`, for servers that refuse pictures in messages of role `tool`.
    User,
}

/// The text is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role for what tools return: write tool, or user for servers that refuse that")]
pub struct UnknownToolRole(String);

impl ToolRole {
    /// The role as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::User => "user",
        }
    }
}

impl FromStr for ToolRole {
    type Err = UnknownToolRole;

    fn from_str(text: &str) -> Result<Self, UnknownToolRole> {
        match text {
            "tool" => Ok(Self::Tool),
            "user" => Ok(Self::User),
            _ => Err(UnknownToolRole(text.to_owned())),
        }
    }
}

/// As it is sent.
impl fmt::Display for ToolRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The API key in an environment variable.
fn key_from_env(variable: &str) -> Result<Secret, OpenAiError> {
    let unusable = |why| OpenAiError::Key {
        variable: variable.to_owned(),
        why,
    };
    let key = env::var(variable).map_err(|error| match error {
        VarError::NotPresent => unusable("is not set"),
        VarError::NotUnicode(_) => unusable("is not text"),
    })?;
    Secret::new(&key, "[key]").map_err(unusable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn paths_are_put_behind_the_address_with_or_without_a_slash() {
        for base in ["http://h:1/v1", "http://h:1/v1/"] {
            let config = OpenAiConfig::new(base).unwrap();
            assert_eq!(config.at("models"), "http://h:1/v1/models");
        }
        let root = OpenAiConfig::new("https://h").unwrap();
        assert_eq!(root.at("models"), "https://h/models");
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_a_password() {
        for (text, why) in [
            ("localhost:8000/v1", "HTTP"),
            ("", "`` is not an address"),
            ("ftp://h/v1", "HTTP"),
            ("http://h/v1?key=3", "`?`"),
            ("http://h/v1#a", "`#`"),
            ("http://me:hunter2@h/v1", "password"),
            ("http://hunter2@h/v1", "user name"),
            ("http://me:hunter2@:::/v1", "is not an address"),
        ] {
            let error = OpenAiConfig::new(text).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(why), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn ways_to_send_are_read_as_they_are_written_and_others_refused() {
        for text in [
            "png",
            "jpeg",
            "jpeg:1",
            "jpeg:75",
            "file:/tmp/frames",
            "file:x:y",
        ] {
            assert_eq!(text.parse::<Images>().unwrap().to_string(), text);
        }
        assert_eq!("jpeg".parse::<Images>(), "jpeg:90".parse());
        for text in ["", "gif", "jpeg:0", "jpeg:101", "jpeg:", "file:", "png:9"] {
            let error = text.parse::<Images>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        for text in ["tool", "user"] {
            assert_eq!(text.parse::<ToolRole>().unwrap().to_string(), text);
        }
        assert!("assistant".parse::<ToolRole>().is_err());
    }

    #[test]
    fn a_temperature_that_is_no_number_is_refused() {
        for temperature in [f64::NAN, f64::INFINITY, -1.0] {
            let config = OpenAiConfig::new("http://h/v1").unwrap();
            let error = config.with_temperature(temperature).open().unwrap_err();
            assert!(error.to_string().contains("temperature"), "{error}");
        }
    }
}
