//! What the environment says of hub, cache and token.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

use reqwest::Url;

use super::{Hub, HubError};
use crate::web::Secret;

const ENDPOINT: &str = "https://huggingface.co";

/// A variable's value, if it is set.
type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

pub(super) fn read(env: Env<'_>) -> Result<Hub, HubError> {
    let address = text(env, "HF_ENDPOINT");
    let cache = cache(env).ok_or(HubError::NoCache)?;
    let mut hub = Hub::new(address.as_deref().unwrap_or(ENDPOINT), cache)?;
    hub.token = token(env)?;
    Ok(hub.with_offline(is_on(env, "HF_HUB_OFFLINE")))
}

/// The address of a hub, without a slash at its end.
pub(super) fn endpoint(address: &str) -> Result<Url, HubError> {
    let url = Url::parse(address.trim().trim_end_matches('/'));
    let url = url.map_err(|_| wrong(address))?;
    let plain = url.username().is_empty() && url.password().is_none();
    let web = matches!(url.scheme(), "http" | "https") && url.has_host();
    if !(plain && web && url.query().is_none() && url.fragment().is_none()) {
        return Err(wrong(address));
    }
    Ok(url)
}

fn wrong(address: &str) -> HubError {
    HubError::Endpoint {
        address: match address.contains('@') {
            true => "what was given".to_owned(),
            false => format!("`{address}`"),
        },
    }
}

fn set(env: Env<'_>, name: &str) -> Option<OsString> {
    env(name).filter(|value| !value.is_empty())
}

fn text(env: Env<'_>, name: &str) -> Option<String> {
    set(env, name)?.into_string().ok()
}

fn is_on(env: Env<'_>, name: &str) -> bool {
    let value = text(env, name).unwrap_or_default().to_ascii_lowercase();
    matches!(value.as_str(), "1" | "true" | "yes" | "on")
}

/// A folder that a variable names; `~` is the home directory.
fn folder(env: Env<'_>, name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(set(env, name)?);
    match path.strip_prefix("~") {
        Ok(rest) => Some(home(env)?.join(rest)),
        Err(_) => Some(path),
    }
}

fn home(env: Env<'_>) -> Option<PathBuf> {
    let home = set(env, "HOME").or_else(|| set(env, "USERPROFILE"));
    home.map(PathBuf::from)
}

/// Where all that belongs to the hub is kept.
fn hub_home(env: Env<'_>) -> Option<PathBuf> {
    folder(env, "HF_HOME").or_else(|| {
        let caches = folder(env, "XDG_CACHE_HOME").or_else(|| Some(home(env)?.join(".cache")));
        Some(caches?.join("huggingface"))
    })
}

fn cache(env: Env<'_>) -> Option<PathBuf> {
    folder(env, "HF_HUB_CACHE")
        .or_else(|| folder(env, "HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(hub_home(env)?.join("hub")))
}

/// A token, which can be sent but not shown.
pub(super) fn secret(text: &str) -> Result<Secret, HubError> {
    Secret::new(text, "[token]").map_err(HubError::Token)
}

fn token(env: Env<'_>) -> Result<Option<Secret>, HubError> {
    if is_on(env, "HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return Ok(None);
    }
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(value) = set(env, name) {
            let value = value.into_string();
            let value = value.map_err(|_| HubError::Token("is not text"))?;
            return secret(&value).map(Some);
        }
    }
    let path = folder(env, "HF_TOKEN_PATH").or_else(|| Some(hub_home(env)?.join("token")));
    let Some(path) = path else {
        return Ok(None);
    };
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => secret(&text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HubError::io(&path)(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Result<Hub, HubError> {
        read(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_where_the_python_tools_have_it() {
        for (variables, path) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/x/huggingface/hub",
            ),
            (&[("HOME", "/h"), ("HF_HOME", "~/models")], "/h/models/hub"),
            (&[("HF_HOME", "/m"), ("HF_HUB_CACHE", "/c")], "/c"),
            (
                &[("HUGGINGFACE_HUB_CACHE", "/c"), ("HF_HUB_CACHE", "")],
                "/c",
            ),
        ] {
            assert_eq!(hub(variables).unwrap().cache(), Path::new(path));
        }
        assert!(matches!(hub(&[]), Err(HubError::NoCache)));
    }

    #[test]
    fn endpoint_and_switches_are_read() {
        let plain = hub(&[("HOME", "/h")]).unwrap();
        assert_eq!(plain.endpoint.as_str(), "https://huggingface.co/");
        assert!(!plain.offline);
        let other = hub(&[
            ("HOME", "/h"),
            ("HF_ENDPOINT", "http://mirror.example/hub/"),
            ("HF_HUB_OFFLINE", "True"),
        ]);
        let other = other.unwrap();
        assert_eq!(other.endpoint.as_str(), "http://mirror.example/hub");
        assert!(other.offline);
        for address in [
            "mirror",
            "ftp://a.example",
            "https://a.example?x=1",
            "http://",
        ] {
            let error = hub(&[("HOME", "/h"), ("HF_ENDPOINT", address)]).unwrap_err();
            assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
        }
        let secret = hub(&[("HOME", "/h"), ("HF_ENDPOINT", "https://me:pass@a.example")]);
        assert!(!secret.unwrap_err().to_string().contains("pass"));
    }

    #[test]
    fn the_token_is_found_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().to_str().unwrap();
        let none = hub(&[("HF_HOME", folder)]).unwrap();
        assert!(none.token.is_none());
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let header = |hub: Hub| hub.token.unwrap().header().to_str().unwrap().to_owned();
        assert_eq!(
            header(hub(&[("HF_HOME", folder)]).unwrap()),
            "Bearer hf_file"
        );
        let both = hub(&[("HF_HOME", folder), ("HF_TOKEN", " hf_env ")]).unwrap();
        let shown = format!("{both:?}");
        assert!(!shown.contains("hf_env"), "{shown}");
        assert_eq!(header(both), "Bearer hf_env");
        let off = [("HF_HOME", folder), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert!(hub(&off).unwrap().token.is_none());
        let broken = hub(&[("HF_HOME", folder), ("HF_TOKEN", "hf_a\nb")]);
        let error = broken.unwrap_err().to_string();
        assert!(
            error.contains("HF_TOKEN") && !error.contains("hf_a"),
            "{error}"
        );
    }
}
