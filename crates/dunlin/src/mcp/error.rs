//! What can go wrong with an MCP server.

use std::time::Duration;

/// What went wrong with an MCP server. `server` names it: the program, or the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The program cannot be started.
    #[error(
        "the MCP server {server} cannot be started: {reason}. Check that the program is installed and can be run"
    )]
    Start {
        /// The server.
        server: String,
        /// What the system says.
        reason: String,
    },

    /// The address is none of a server.
    #[error(
        "{address} cannot be used as the address of an MCP server: {reason}. Give one such as https://example.com/mcp"
    )]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The server does not begin as the protocol says.
    #[error("the MCP server {server} cannot be connected: {reason}")]
    Connect {
        /// The server.
        server: String,
        /// What happened, and what a program wrote to stderr last.
        reason: String,
    },

    /// The server speaks another version of the protocol.
    #[error(
        "the MCP server {server} speaks version {found:?} of the protocol, and this client {supported}: use another release of the server"
    )]
    ProtocolVersion {
        /// The server.
        server: String,
        /// Its version.
        found: String,
        /// The versions that are understood.
        supported: String,
    },

    /// The server has no tools.
    #[error("the MCP server {server} offers no tools")]
    NoTools {
        /// The server.
        server: String,
    },

    /// A tool cannot be offered to a model.
    #[error(
        "the tool {tool:?} of the MCP server {server} cannot be offered: {reason}. Give the server another prefix, or take only the tools that you need (`McpOptions::with_only`)"
    )]
    InvalidTool {
        /// The server.
        server: String,
        /// The tool, with the prefix.
        tool: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A tool that was asked for does not exist.
    #[error("the MCP server {server} has no tool {tool:?}; it has: {offered}")]
    NoSuchTool {
        /// The server.
        server: String,
        /// The tool asked for.
        tool: String,
        /// Those that there are.
        offered: String,
    },

    /// The server lists too many tools, or lists them without end.
    #[error(
        "the MCP server {server} lists its tools without coming to an end within {limit} {unit}: allow more (`McpOptions::with_max_tools`), or do without this server"
    )]
    ListTooLong {
        /// The server.
        server: String,
        /// The limit that was passed.
        limit: usize,
        /// What was counted.
        unit: &'static str,
    },

    /// A message of the server is too large.
    #[error(
        "the MCP server {server} sent more than {limit} bytes at once: allow more (`McpOptions::with_max_message_bytes`), or ask it for less"
    )]
    MessageTooLarge {
        /// The server.
        server: String,
        /// Bytes that are allowed.
        limit: usize,
    },

    /// The server sends messages that nobody asked for faster than they are worth handling.
    #[error(
        "the MCP server {server} sent more than {limit} messages within {seconds} seconds that nobody had asked for; the connection was ended"
    )]
    Flood {
        /// The server.
        server: String,
        /// Messages that are allowed.
        limit: usize,
        /// In so many seconds.
        seconds: u64,
    },

    /// The server did not answer in time.
    #[error("the MCP server {server} did not answer within {time:?} ({what})")]
    Timeout {
        /// The server.
        server: String,
        /// What was waited for.
        what: String,
        /// How long.
        time: Duration,
    },

    /// The connection has ended.
    #[error("the connection to the MCP server {server} has ended{how}. Connect it again")]
    Ended {
        /// The server.
        server: String,
        /// How, as far as that is known, and what a program wrote to stderr last.
        how: String,
    },

    /// A message could not be sent or its answer not be read; a later call may succeed.
    #[error("the MCP server {server} could not be reached: {reason}")]
    Transport {
        /// The server.
        server: String,
        /// What happened.
        reason: String,
    },

    /// The server answers a call with an error of the protocol.
    #[error("the MCP server {server} refuses the call of {tool}: {message} (code {code})")]
    Refused {
        /// The server.
        server: String,
        /// The tool, by the server's own name.
        tool: String,
        /// The code of the protocol's error.
        code: i32,
        /// What the server says.
        message: String,
    },

    /// The server answers a call with something that this client does not do.
    #[error(
        "the MCP server {server} answers the call of {tool} with {what}, which is not supported"
    )]
    Unsupported {
        /// The server.
        server: String,
        /// The tool, by the server's own name.
        tool: String,
        /// What it answers with.
        what: String,
    },

    /// Arguments are an object.
    #[error("the arguments of {tool} for the MCP server {server} are no JSON object")]
    Arguments {
        /// The server.
        server: String,
        /// The tool, by the server's own name.
        tool: String,
    },

    /// The [`CancelToken`](crate::CancelToken) of the options was cancelled.
    #[error("cancelled")]
    Cancelled,

    /// What this client itself needs is not there.
    #[error("an MCP client cannot be set up: {reason}")]
    Client {
        /// What the system says.
        reason: String,
    },
}
