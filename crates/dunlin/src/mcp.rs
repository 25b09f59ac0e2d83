//! Tools of MCP servers: the client side of the [Model Context Protocol](https://modelcontextprotocol.io), for tools only.
//!
//! An [`McpServer`] is a connection to a program that speaks the protocol on its standard input and output, or to an address that
//! speaks it over HTTP ("streamable HTTP"). Its tools go into a [`Toolbox`] beside Rust functions. A server is not
//! trusted: what it sends is limited in size, number and time ([`McpOptions`]), and everything beyond that is an [`McpError`].
//!
//! Resources, prompts, sampling, elicitation and tasks are not supported, and servers are told so. A list of tools that
//! changes is not followed: tools are those that there were when the connection was made.
//!
//! The module is there with the cargo feature `mcp`.

mod answer;
mod connection;
mod error;
mod failure;
mod http;
mod limits;
mod listing;
mod options;
mod process;

use std::ffi::OsStr;
use std::sync::Arc;

use dunlin_text::{Tool, ToolCall};
use serde_json::Value as Json;

use crate::{Error, ToolResult, Toolbox};
use connection::{Connection, Endpoint};

pub use error::McpError;
pub use options::McpOptions;

/// A connection to an MCP server, with the tools that it offers.
///
/// Clones, and toolboxes with its tools, share one connection. It ends with the last of them: a program is asked to end, and made
/// to where it does not within four seconds.
///
/// ```no_run
/// use dunlin::Toolbox;
/// use dunlin::mcp::{McpOptions, McpServer};
///
/// let options = McpOptions::new().with_prefix("files_");
/// let server = McpServer::start("mcp-files", ["/srv/documents"], &options)?;
/// let toolbox = Toolbox::new().with_mcp(&server)?;
/// for tool in toolbox.tools() {
///     println!("{}: {}", tool.name, tool.description);
/// }
/// # Ok::<(), dunlin::Error>(())
/// ```
#[derive(Clone)]
pub struct McpServer {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Connection,
    tools: Vec<Tool>,
    /// The server's own names of the tools.
    names: Vec<String>,
    identity: Identity,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default)]
struct Identity {
    name: Option<String>,
    version: Option<String>,
    protocol: String,
    instructions: Option<String>,
}

impl McpServer {
    /// Starts a program as a server and asks for its tools. It has the environment and the working folder of this process, and
    /// lives in a process group of its own.
    ///
    /// # Errors
    /// [`Error::Mcp`]: the program cannot be started or does not answer in the protocol, or its tools are not sound. What it wrote
    /// to stderr last is part of the message.
    pub fn start<I>(
        program: impl AsRef<OsStr>,
        arguments: I,
        options: &McpOptions,
    ) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let arguments = arguments.into_iter();
        let endpoint = Endpoint::Program {
            program: program.as_ref().to_owned(),
            arguments: arguments.map(|text| text.as_ref().to_owned()).collect(),
        };
        Self::open(endpoint, options)
    }

    /// Connects to a server at an address (`http://` or `https://`) and asks for its tools. Certificates are checked against
    /// those that the operating system trusts.
    ///
    /// # Errors
    /// [`Error::Mcp`]: the address cannot be used, nobody answers there in the protocol, or the tools are not sound.
    pub fn connect(address: &str, options: &McpOptions) -> Result<Self, Error> {
        Self::open(Endpoint::Address(address.to_owned()), options)
    }

    fn open(endpoint: Endpoint, options: &McpOptions) -> Result<Self, Error> {
        let (connection, opening) = Connection::open(endpoint, options)?;
        let (tools, names) = listing::tools(opening.tools, connection.server(), options)?;
        let inner = Inner {
            connection,
            tools,
            names,
            identity: opening.identity,
        };
        Ok(McpServer {
            inner: Arc::new(inner),
        })
    }

    /// The tools, as models are told of them: with the prefix of the options before their names, and as they were when the
    /// connection was made.
    #[must_use]
    pub fn tools(&self) -> &[Tool] {
        &self.inner.tools
    }

    /// What the server calls itself.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.inner.identity.name.as_deref()
    }

    /// The server's own version.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.inner.identity.version.as_deref()
    }

    /// The version of the protocol in use, a date.
    #[must_use]
    pub fn protocol_version(&self) -> &str {
        &self.inner.identity.protocol
    }

    /// What the server tells a model about the use of its tools. Text of a stranger: nothing puts it into a prompt by itself.
    #[must_use]
    pub fn instructions(&self) -> Option<&str> {
        self.inner.identity.instructions.as_deref()
    }

    /// Why the connection has ended; `None` where it has not. A call in a toolbox tells only the model of it.
    #[must_use]
    pub fn ended(&self) -> Option<McpError> {
        self.inner.connection.ended()
    }

    /// Calls a tool and waits for its result. That the tool itself failed is a result ([`ToolResult::is_error`]); a result has the
    /// texts of the server, line by line, and says of images and other content that it cannot be read.
    ///
    /// # Errors
    /// [`Error::Mcp`] where there is no result: the connection has ended, the time is over, the call was cancelled, the server refuses
    /// the call or sends what this client cannot take.
    pub fn call(&self, call: &ToolCall) -> Result<ToolResult, Error> {
        let outcome = self.inner.outcome(&call.name, &call.arguments)?;
        Ok(ToolResult::new(call, outcome))
    }
}

impl Inner {
    /// What the tool of this name answers: a text, or one that is an error.
    fn outcome(&self, name: &str, arguments: &Json) -> Result<Result<String, String>, McpError> {
        let place = self.tools.iter().position(|tool| tool.name == name);
        let Some(own_name) = place.and_then(|place| self.names.get(place)) else {
            return Err(McpError::NoSuchTool {
                server: self.connection.server().to_owned(),
                tool: name.to_owned(),
                offered: listing::in_words(&self.tools),
            });
        };
        self.connection.call(own_name, arguments)
    }
}

impl Toolbox {
    /// With all tools of an MCP server, under their names with its prefix. As with functions, objects in arguments that name
    /// properties have no others.
    ///
    /// What goes wrong with a call is told to the model as the result of the call.
    ///
    /// # Errors
    /// [`Error::Mcp`] ([`McpError::InvalidTool`]) for a tool whose name is there already: give the server a prefix.
    pub fn with_mcp(mut self, server: &McpServer) -> Result<Self, Error> {
        for tool in server.tools() {
            if self.tools().iter().any(|other| other.name == tool.name) {
                return Err(Error::Mcp(McpError::InvalidTool {
                    server: server.inner.connection.server().to_owned(),
                    tool: tool.name.clone(),
                    reason: "another tool of the toolbox has this name".to_owned(),
                }));
            }
            let (inner, name) = (Arc::clone(&server.inner), tool.name.clone());
            self = self.with_tool(tool.clone(), move |arguments| {
                inner
                    .outcome(&name, arguments)
                    .unwrap_or_else(|error| Err(error.to_string()))
            })?;
        }
        Ok(self)
    }
}

impl std::fmt::Debug for McpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpServer")
            .field("server", &self.inner.connection.server())
            .field("identity", &self.inner.identity)
            .field("tools", &self.inner.tools)
            .finish_non_exhaustive()
    }
}
