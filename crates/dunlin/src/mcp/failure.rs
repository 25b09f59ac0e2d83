//! Errors of the protocol's client as those of this module.

use std::error::Error as StdError;

use rmcp::model::ProtocolVersion;
use rmcp::service::{ClientInitializeError, ServiceError};
use rmcp::transport::streamable_http_client::StreamableHttpError;

use super::McpError;

/// The error of a handshake.
pub(super) fn of_connecting(server: &str, error: &ClientInitializeError) -> McpError {
    match error {
        ClientInitializeError::NoCompatibleProtocolVersion {
            server_supported, ..
        } => wrong_version(server, in_list(server_supported)),
        // What a server sent instead may be long.
        ClientInitializeError::ExpectedInitResponse(_)
        | ClientInitializeError::ExpectedInitResult(_) => connect(
            server,
            "it does not answer the first request in the protocol",
        ),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => {
            of_connecting(server, fallback)
        }
        ClientInitializeError::TransportError { error, .. } => {
            connect(server, &in_words(root(error.error.as_ref())))
        }
        error => connect(server, &in_words(error)),
    }
}

/// The error of a list of tools.
pub(super) fn of_listing(server: &str, error: &ServiceError) -> McpError {
    let error = match error {
        ServiceError::TransportSend(error) => root(error.error.as_ref()),
        error => error,
    };
    connect(server, &in_words(error))
}

pub(super) fn connect(server: &str, reason: &str) -> McpError {
    McpError::Connect {
        server: server.to_owned(),
        reason: reason.to_owned(),
    }
}

pub(super) fn wrong_version(server: &str, found: String) -> McpError {
    McpError::ProtocolVersion {
        server: server.to_owned(),
        found,
        supported: in_list(ProtocolVersion::KNOWN_VERSIONS),
    }
}

fn in_list(versions: &[ProtocolVersion]) -> String {
    let versions: Vec<&str> = versions.iter().map(ProtocolVersion::as_str).collect();
    versions.join(", ")
}

/// The error of a call.
pub(super) fn of_call(error: ServiceError, server: String, tool: String) -> McpError {
    match error {
        ServiceError::McpError(error) => McpError::Refused {
            server,
            tool,
            code: error.code.0,
            message: error.message.into_owned(),
        },
        ServiceError::TransportSend(error) => match http_error(error.error.as_ref()) {
            Some(StreamableHttpError::ResponseBodyTooLarge { max_size }) => {
                McpError::MessageTooLarge {
                    server,
                    limit: *max_size,
                }
            }
            _ => McpError::Transport {
                server,
                reason: in_words(root(error.error.as_ref())),
            },
        },
        error => McpError::Transport {
            server,
            reason: in_words(&error),
        },
    }
}

/// What the HTTP client says, where that is the error: it is not told as its cause.
fn root<'e>(error: &'e (dyn StdError + 'static)) -> &'e (dyn StdError + 'static) {
    match http_error(error) {
        Some(StreamableHttpError::Client(client)) => client,
        _ => error,
    }
}

fn http_error<'e>(
    error: &'e (dyn StdError + 'static),
) -> Option<&'e StreamableHttpError<reqwest::Error>> {
    error.downcast_ref()
}

/// An error and its causes; a cause that the text above it already contains is not said twice.
fn in_words(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
