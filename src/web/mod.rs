//! What the clients for servers share.

mod secret;

use std::net::IpAddr;

use reqwest::Url;
use reqwest::blocking::{Client, ClientBuilder};

pub(crate) use secret::Secret;

/// A client for the server at `url`, which follows no redirects by itself.
///
/// - limits: sets the builder's limits of time
pub(crate) fn client(
    url: &Url,
    limits: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, String> {
    let builder = || {
        let builder = limits(Client::builder())
            .user_agent(concat!("eva/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none());
        match is_loopback(url.host_str().unwrap_or_default()) {
            // A proxy would look for the server on its own machine.
            true => builder.no_proxy(),
            false => builder,
        }
    };
    let client = builder().build().or_else(|error| match url.scheme() {
        // The system has no certificates, and none are needed.
        "http" => builder().tls_certs_only([]).build(),
        _ => Err(error),
    });
    client.map_err(|error| innermost(&error))
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback())
}

/// What really happened, without the layers around it and the addresses in them.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_a_proxy() {
        for host in ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.org",
            "10.0.0.1",
            "localhost.example.org",
            "[::2]",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
