//! Refusals: what a status means, and whether to ask again.

use std::io::Read as _;

use reqwest::blocking::Response;

use super::http::{Failure, Http};
use super::{HubError, HubModel};

/// Why a request failed that was answered with another status than success.
pub(super) fn of(http: &Http, model: &HubModel, file: Option<&str>, response: Response) -> Failure {
    let status = response.status();
    let own = response.url().origin() == http.endpoint.origin();
    let said = |name: &str| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let (code, message) = (said("x-error-code"), said("x-error-message"));
    let code = code.unwrap_or_default();
    let name = model.to_string();
    let endpoint = http.endpoint.to_string();
    let number = status.as_u16();
    let not_found = |what: String| {
        Failure::Last(HubError::NotFound {
            what,
            endpoint: endpoint.clone(),
        })
    };
    match (number, code.as_str()) {
        // An address that was good for a while only: the hub gives another.
        (400..=499, _) if !own => Failure::Again(format!("status {number}")),
        (401 | 403, "GatedRepo") => Failure::Last(HubError::Gated {
            page: http.at(&[model.owner(), model.name()]).to_string(),
            model: name,
            status: number,
        }),
        (401 | 404, "RepoNotFound") => not_found(name),
        (404, "RevisionNotFound") => not_found(format!(
            "revision {} of {}/{}",
            model.revision(),
            model.owner(),
            model.name()
        )),
        (404, _) => not_found(match file {
            Some(file) => format!("{file} of {name}"),
            None => name,
        }),
        (401 | 403, _) => Failure::Last(HubError::Unauthorized {
            model: name,
            endpoint,
            status: number,
        }),
        (408 | 429 | 500..=599, _) => Failure::Again(format!("status {number}")),
        _ => {
            let message = message.unwrap_or_else(|| {
                let mut text = Vec::new();
                // What cannot be read is not said.
                _ = response.take(4096).read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            });
            Failure::Last(HubError::Status {
                model: name,
                file: file.unwrap_or("the list of files").to_owned(),
                status: number,
                message: http.shown(&message),
            })
        }
    }
}
