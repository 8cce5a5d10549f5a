//! What the headers of an answer say.

use reqwest::Url;
use reqwest::blocking::Response;
use reqwest::header::{HeaderMap, LOCATION};

/// Where a redirect leads.
pub(super) fn next(url: &Url, response: &Response) -> Result<Url, String> {
    let location = response.headers().get(LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    let next = location.and_then(|location| url.join(location).ok());
    match next {
        Some(next) if next.scheme() == "https" => Ok(next),
        // Not from a safe connection to an open one.
        Some(next) if next.scheme() == "http" && url.scheme() == "http" => Ok(next),
        _ => Err("a redirect that leads nowhere".to_owned()),
    }
}

/// The hash in an `ETag`, if a file can be called so.
pub(super) fn tag(headers: &HeaderMap, name: &str) -> Option<String> {
    let tag = headers.get(name)?.to_str().ok()?.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fine = (1..=128).contains(&tag.len()) && tag.bytes().all(is_fine);
    fine.then(|| tag.to_owned())
}

pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
