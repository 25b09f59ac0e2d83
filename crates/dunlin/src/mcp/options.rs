//! How a server is spoken to.

use std::time::Duration;

use crate::CancelToken;

/// How an MCP server is connected and how far it is trusted. Every field has a default; the builder methods set one each.
#[derive(Clone)]
#[non_exhaustive]
pub struct McpOptions {
    /// Put before the name of each tool, so that those of several servers can be told apart. Default: nothing.
    pub prefix: String,
    /// The only tools that are taken, by the server's own names; `None`: all. Each tool costs room in the prompt, and one whose
    /// schema the model's notation cannot keep would hinder all others.
    pub only: Option<Vec<String>>,
    /// Longest time until the server is connected and has listed its tools. Default: 30 seconds. (A program that is fetched when it
    /// is first started may need more.)
    pub connect_timeout: Duration,
    /// Longest time of a call. Default: 60 seconds.
    pub call_timeout: Duration,
    /// Most tools that a server may list. Default: 128.
    pub max_tools: usize,
    /// Most bytes of one message of the server, and of all its tools together. Default: 4 MiB.
    pub max_message_bytes: usize,
    /// Most bytes of text that a call may give to the model. Default: 64 KiB. A longer result is an error that says so.
    pub max_result_bytes: usize,
    /// Ends calls at work, and the connecting, from elsewhere.
    pub cancel: CancelToken,
    /// Sent to an address as `Authorization: Bearer`, over HTTPS or to this machine only.
    pub bearer_token: Option<String>,
    /// Further variables of the environment of a program.
    pub environment: Vec<(String, String)>,
}

impl Default for McpOptions {
    fn default() -> Self {
        McpOptions {
            prefix: String::new(),
            only: None,
            connect_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(60),
            max_tools: 128,
            max_message_bytes: 4 << 20,
            max_result_bytes: 64 << 10,
            cancel: CancelToken::default(),
            bearer_token: None,
            environment: Vec::new(),
        }
    }
}

impl McpOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this text before the name of each tool.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// With these tools only, by the server's own names.
    #[must_use]
    pub fn with_only(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.only = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// With this much time for connecting.
    #[must_use]
    pub fn with_connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// With this much time for each call.
    #[must_use]
    pub fn with_call_timeout(mut self, time: Duration) -> Self {
        self.call_timeout = time;
        self
    }

    /// With at most this many tools.
    #[must_use]
    pub fn with_max_tools(mut self, tools: usize) -> Self {
        self.max_tools = tools;
        self
    }

    /// With messages of at most this many bytes.
    #[must_use]
    pub fn with_max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// With results of at most this many bytes of text.
    #[must_use]
    pub fn with_max_result_bytes(mut self, bytes: usize) -> Self {
        self.max_result_bytes = bytes;
        self
    }

    /// With this token to cancel calls.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// With this token for an address that asks for one.
    #[must_use]
    pub fn with_bearer_token(mut self, token: impl Into<String>) -> Self {
        self.bearer_token = Some(token.into());
        self
    }

    /// With one more variable of the environment of a program.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

impl std::fmt::Debug for McpOptions {
    /// Without the values of secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let variables = self.environment.iter().map(|(name, _)| name);
        f.debug_struct("McpOptions")
            .field("prefix", &self.prefix)
            .field("only", &self.only)
            .field("connect_timeout", &self.connect_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("max_tools", &self.max_tools)
            .field("max_message_bytes", &self.max_message_bytes)
            .field("max_result_bytes", &self.max_result_bytes)
            .field("has_bearer_token", &self.bearer_token.is_some())
            .field("environment", &variables.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
