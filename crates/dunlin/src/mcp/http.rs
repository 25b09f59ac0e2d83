//! A server at an address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{StatusCode, Url};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rustls::client::ClientConfig;
use rustls::crypto::ring;
use rustls::{ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::{McpError, McpOptions};

pub(super) type HttpTransport = StreamableHttpClientTransport<reqwest::Client>;

/// How often a stream that broke off is asked for once more. The time limit of the call counts, too.
const RETRIES: usize = 3;
/// Before the first of them; twice as long before each other.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
const MOST_REDIRECTS: usize = 5;

/// An address that was checked.
pub(super) fn parse(address: &str, options: &McpOptions) -> Result<Url, McpError> {
    let invalid = |reason: &str| McpError::Address {
        address: address.to_owned(),
        reason: reason.to_owned(),
    };
    let url = Url::parse(address).map_err(|error| invalid(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("it begins with neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "it holds a user name or password, which would go into messages",
        ));
    }
    if options.bearer_token.is_some() && url.scheme() == "http" && !is_this_machine(&url) {
        return Err(invalid(
            "a token must not go over a line that is not encrypted",
        ));
    }
    Ok(url)
}

/// How an address is named in messages: what follows its path may hold secrets.
pub(super) fn label(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Prepares the connection; nothing is sent yet.
pub(super) fn transport(url: &Url, options: &McpOptions) -> Result<HttpTransport, McpError> {
    let failed = |reason: String| McpError::Client { reason };
    let tls = tls(url.scheme() == "https").map_err(|error| failed(error.to_string()))?;
    let client = reqwest::Client::builder()
        .user_agent(concat!("dunlin/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        // Bodies are not always read to their end: a connection that is used again would wait for the rest.
        .pool_max_idle_per_host(0)
        .redirect(Policy::custom(|attempt| match is_same_place(&attempt) {
            true => attempt.follow(),
            false => attempt.stop(),
        }))
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
        .max_sse_event_size(options.max_message_bytes)
        .max_json_response_size(options.max_message_bytes);
    config.auth_header.clone_from(&options.bearer_token);
    let mut retries = ExponentialBackoff::default();
    retries.max_times = Some(RETRIES);
    retries.base_duration = RETRY_PAUSE;
    config.retry_config = Arc::new(retries);
    Ok(HttpTransport::with_client(client, config))
}

/// Whether a redirect keeps the message, and keeps it from other hosts.
fn is_same_place(attempt: &Attempt<'_>) -> bool {
    let kept = [
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    let from = attempt.previous().first();
    kept.contains(&attempt.status())
        && attempt.previous().len() <= MOST_REDIRECTS
        && from.is_some_and(|from| from.origin() == attempt.url().origin())
}

/// Certificates of the operating system, which a machine that asks nobody over HTTPS need not have.
fn tls(is_used: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder: ConfigBuilder<ClientConfig, WantsVerifier> =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match is_used {
        true => builder.with_platform_verifier()?,
        false => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_tell_secrets_or_lead_nowhere_are_refused() {
        let plain = McpOptions::new();
        let with_token = McpOptions::new().with_bearer_token("secret");
        for (address, options, is_fine) in [
            ("https://example.com/mcp", &plain, true),
            ("http://example.com/mcp", &plain, true),
            ("https://example.com/mcp", &with_token, true),
            ("http://localhost:8000/mcp", &with_token, true),
            ("http://127.0.0.1:8000/mcp", &with_token, true),
            ("http://[::1]:8000/mcp", &with_token, true),
            ("http://example.com/mcp", &with_token, false),
            ("https://me:word@example.com/mcp", &plain, false),
            ("ftp://example.com/mcp", &plain, false),
            ("example.com/mcp", &plain, false),
            ("https://", &plain, false),
        ] {
            assert_eq!(parse(address, options).is_ok(), is_fine, "{address}");
        }
    }

    #[test]
    fn messages_name_an_address_without_its_query() {
        let url = Url::parse("https://example.com/mcp?key=secret#part").unwrap();
        assert_eq!(label(&url), "https://example.com/mcp");
    }
}
