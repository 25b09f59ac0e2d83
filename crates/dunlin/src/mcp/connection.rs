//! A connection and the thread that serves it.
//!
//! The protocol is spoken by an asynchronous client, in a runtime of its own on a thread of its own: callers block, and may do so
//! within any runtime. Calls go to that thread through a channel; the thread ends when the channel does, and with it the server.

use std::ffi::OsString;
use std::pin::pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, Implementation,
    JsonObject, ProtocolVersion, ServerPeerInfo, Tool as Listed,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, Peer, RoleClient, RunningService, ServiceError,
};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use serde_json::Value as Json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::limits::{LimitedLines, LimitedRate, Offence};
use super::process::Process;
use super::{Identity, McpError, McpOptions, answer, failure, http, listing, process};

/// How often a caller that waits looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(20);
/// Longest time for saying goodbye, after which the connection is dropped.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long after an answer that broke off the end of the whole connection may show.
const SETTLE: Duration = Duration::from_millis(100);

/// Where a server is.
pub(super) enum Endpoint {
    Program {
        program: OsString,
        arguments: Vec<OsString>,
    },
    Address(String),
}

/// What a server says at the beginning.
pub(super) struct Opening {
    pub identity: Identity,
    pub tools: Vec<Listed>,
}

/// A connection, for callers of any thread.
pub(super) struct Connection {
    server: String,
    options: McpOptions,
    /// Taken at the end.
    calls: Option<UnboundedSender<Call>>,
    thread: Option<JoinHandle<()>>,
    ended: Arc<OnceLock<McpError>>,
}

/// A call on its way.
struct Call {
    tool: String,
    arguments: JsonObject,
    time: Duration,
    /// Ends when the caller does not wait any more.
    caller: oneshot::Receiver<()>,
    reply: Caller,
}

/// Where a caller waits for an answer.
type Caller = Sender<Result<CallToolResponse, McpError>>;

impl Connection {
    /// Connects, and waits until the server has listed its tools.
    pub(super) fn open(
        endpoint: Endpoint,
        options: &McpOptions,
    ) -> Result<(Self, Opening), McpError> {
        let server = match &endpoint {
            Endpoint::Program { program, .. } => process::label(program),
            Endpoint::Address(address) => http::label(&http::parse(address, options)?),
        };
        let (calls, incoming) = unbounded_channel();
        let (told, opening) = mpsc::channel();
        let ended = Arc::default();
        let session = Session {
            server: server.clone(),
            options: options.clone(),
            offence: Offence::default(),
            ended: Arc::clone(&ended),
        };
        let thread = thread::Builder::new()
            .name("dunlin-mcp".to_owned())
            .spawn(move || session.serve(endpoint, &told, incoming))
            .map_err(|error| McpError::Client {
                reason: error.to_string(),
            })?;
        let connection = Connection {
            server,
            options: options.clone(),
            calls: Some(calls),
            thread: Some(thread),
            ended,
        };
        let opening = connection.wait(&opening)?;
        Ok((connection, opening))
    }

    /// The server's name in messages.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    pub(super) fn ended(&self) -> Option<McpError> {
        self.ended.get().cloned()
    }

    /// Calls a tool by the server's own name. Inner error: that of the tool.
    pub(super) fn call(
        &self,
        tool: &str,
        arguments: &Json,
    ) -> Result<Result<String, String>, McpError> {
        let Json::Object(arguments) = arguments else {
            return Err(McpError::Arguments {
                server: self.server.clone(),
                tool: tool.to_owned(),
            });
        };
        let (reply, answer) = mpsc::channel();
        // Dropped when this function returns.
        let (_waiting, caller) = oneshot::channel();
        let call = Call {
            tool: tool.to_owned(),
            arguments: arguments.clone(),
            time: self.options.call_timeout,
            caller,
            reply,
        };
        let calls = self.calls.as_ref();
        if calls.is_none_or(|calls| calls.send(call).is_err()) {
            return Err(self.why_ended());
        }
        let unsupported = |what: &str| McpError::Unsupported {
            server: self.server.clone(),
            tool: tool.to_owned(),
            what: what.to_owned(),
        };
        match self.wait(&answer)? {
            CallToolResponse::Complete(result) => {
                Ok(answer::outcome(result, self.options.max_result_bytes))
            }
            CallToolResponse::InputRequired(_) => Err(unsupported("a question to the user")),
            CallToolResponse::Task(_) => Err(unsupported("a task that goes on in the background")),
            _ => Err(unsupported("a result of an unknown kind")),
        }
    }

    /// What the thread tells, unless it is cancelled before.
    fn wait<T>(&self, told: &Receiver<Result<T, McpError>>) -> Result<T, McpError> {
        loop {
            match told.recv_timeout(LOOK) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => return Err(self.why_ended()),
                Err(RecvTimeoutError::Timeout) if self.options.cancel.is_cancelled() => {
                    return Err(McpError::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn why_ended(&self) -> McpError {
        self.ended().unwrap_or_else(|| McpError::Ended {
            server: self.server.clone(),
            how: String::new(),
        })
    }
}

impl Drop for Connection {
    /// Waits until the server has ended: a program that is left behind would be nobody's.
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been told as the end of the connection.
            let _ = thread.join();
        }
    }
}

/// The thread's side of a connection.
struct Session {
    server: String,
    options: McpOptions,
    offence: Offence,
    ended: Arc<OnceLock<McpError>>,
}

type Running = RunningService<RoleClient, ClientConfig>;

impl Session {
    /// Serves until there are no more callers or no more server.
    fn serve(
        self,
        endpoint: Endpoint,
        told: &Sender<Result<Opening, McpError>>,
        calls: UnboundedReceiver<Call>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let outcome = match runtime {
            Ok(runtime) => runtime.block_on(self.meet(endpoint, told, calls)),
            Err(error) => Err(McpError::Client {
                reason: error.to_string(),
            }),
        };
        if let Err(error) = outcome {
            // Nobody listens who was cancelled.
            let _ = told.send(Err(error));
        }
    }

    /// # Errors
    /// There is no connection.
    async fn meet(
        &self,
        endpoint: Endpoint,
        told: &Sender<Result<Opening, McpError>>,
        calls: UnboundedReceiver<Call>,
    ) -> Result<(), McpError> {
        let (options, server) = (&self.options, self.server.as_str());
        match endpoint {
            Endpoint::Program { program, arguments } => {
                let (mut process, pipes) = Process::start(&program, &arguments, options)?;
                let limit = options.max_message_bytes;
                let lines = LimitedLines::new(pipes.stdout, server, limit, self.offence.clone());
                let transport = AsyncRwTransport::new_client(lines, pipes.stdin)
                    .with_max_line_length(limit.saturating_add(1));
                let outcome = self.talk(transport, Some(&mut process), told, calls).await;
                process.stop().await;
                outcome
            }
            Endpoint::Address(address) => {
                let url = http::parse(&address, options)?;
                let transport = http::transport(&url, options)?;
                self.talk(transport, None, told, calls).await
            }
        }
    }

    /// Shakes hands, and then passes calls on.
    async fn talk<T: Transport<RoleClient> + 'static>(
        &self,
        transport: T,
        mut process: Option<&mut Process>,
        told: &Sender<Result<Opening, McpError>>,
        mut calls: UnboundedReceiver<Call>,
    ) -> Result<(), McpError> {
        let transport = LimitedRate::new(transport, &self.server, self.offence.clone());
        let time = self.options.connect_timeout;
        let opened = tokio::select! {
            opened = timeout(time, self.open(transport)) => opened,
            // No call comes before the tools are known: this is the end of the channel.
            _ = calls.recv() => return Err(McpError::Cancelled),
        };
        let opened = opened.unwrap_or_else(|_| {
            Err(McpError::Timeout {
                server: self.server.clone(),
                what: "connecting and listing its tools".to_owned(),
                time,
            })
        });
        let (running, opening) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(self.with_last_words(error, &mut process).await),
        };
        // The caller may be gone: then the channel ends, too.
        let _ = told.send(Ok(opening));
        self.pass_on(running, &mut process, calls).await;
        Ok(())
    }

    /// The handshake and the list of tools.
    async fn open<T: Transport<RoleClient> + 'static>(
        &self,
        transport: T,
    ) -> Result<(Running, Opening), McpError> {
        let client = Implementation::new("dunlin", env!("CARGO_PKG_VERSION"));
        let client = ClientConfig::new(ClientCapabilities::default(), client);
        // Servers of the newest protocol are asked who they are; all others shake hands.
        let lifecycle = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::LATEST],
            legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
        };
        let running = client.serve_with_lifecycle(transport, lifecycle).await;
        let running = running.map_err(|error| failure::of_connecting(&self.server, &error))?;
        let identity = self.identity(running.peer_info().as_deref())?;
        let tools = listing::list(running.peer(), &self.server, &self.options)
            .await
            .map_err(|error| failure::of_listing(&self.server, &error))??;
        Ok((running, Opening { identity, tools }))
    }

    /// # Errors
    /// The server answers with a version of its own making.
    fn identity(&self, info: Option<&ServerPeerInfo>) -> Result<Identity, McpError> {
        let info =
            info.ok_or_else(|| failure::connect(&self.server, "it does not say what it is"))?;
        if !ProtocolVersion::KNOWN_VERSIONS.contains(&info.protocol_version) {
            return Err(failure::wrong_version(
                &self.server,
                info.protocol_version.to_string(),
            ));
        }
        let implementation = info.server_info.as_ref();
        Ok(Identity {
            name: implementation.map(|server| server.name.clone()),
            version: implementation
                .map(|server| server.version.clone())
                .filter(|version| !version.is_empty()),
            protocol: info.protocol_version.to_string(),
            instructions: info.instructions.clone(),
        })
    }

    /// The error of an opening, with what is known of the reason.
    async fn with_last_words(
        &self,
        error: McpError,
        process: &mut Option<&mut Process>,
    ) -> McpError {
        if let Some(offence) = self.offence.get() {
            return offence;
        }
        let Some(process) = process else {
            return error;
        };
        match error {
            McpError::Connect { server, reason } => McpError::Connect {
                server,
                reason: reason + &process.last_words().await,
            },
            McpError::Timeout { server, what, time } => McpError::Timeout {
                server,
                what: what + &process.last_words().await,
                time,
            },
            other => other,
        }
    }

    /// Passes calls on until there are no more callers or no more server.
    async fn pass_on(
        &self,
        running: Running,
        process: &mut Option<&mut Process>,
        mut calls: UnboundedReceiver<Call>,
    ) {
        let peer = running.peer().clone();
        let stop = running.cancellation_token();
        let mut end = pin!(running.waiting());
        let mut at_work = JoinSet::new();
        // Callers whose answers broke off; they wait for the reason.
        let mut cut_off: Vec<Caller> = Vec::new();
        loop {
            tokio::select! {
                call = calls.recv() => match call {
                    Some(call) => {
                        at_work.spawn(call.run(peer.clone(), self.server.clone()));
                    }
                    None => {
                        at_work.shutdown().await;
                        stop.cancel();
                        let _ = timeout(GOODBYE, end).await;
                        return;
                    }
                },
                Some(call) = at_work.join_next() => {
                    cut_off.extend(call.ok().flatten());
                    if cut_off.is_empty() {
                        continue;
                    }
                    if timeout(SETTLE, &mut end).await.is_ok() {
                        break;
                    }
                    for caller in cut_off.drain(..) {
                        let _ = caller.send(Err(self.broken_off()));
                    }
                }
                _ = &mut end => break,
            }
        }
        let how = match process {
            Some(process) => process.last_words().await,
            None => String::new(),
        };
        let ended = self.offence.get().unwrap_or_else(|| McpError::Ended {
            server: self.server.clone(),
            how,
        });
        // Before callers learn that there is no answer, which is when the calls are dropped.
        let _ = self.ended.set(ended);
    }

    /// An answer did not come to its end, and the connection stands.
    fn broken_off(&self) -> McpError {
        McpError::Transport {
            server: self.server.clone(),
            reason: format!(
                "the answer broke off (as one does that has a message of more than {} bytes)",
                self.options.max_message_bytes
            ),
        }
    }
}

impl Call {
    /// Calls the tool and tells the caller the answer. Handed back is who waits for one where it broke off.
    async fn run(self, peer: Peer<RoleClient>, server: String) -> Option<Caller> {
        let request = CallToolRequestParams::new(self.tool.clone()).with_arguments(self.arguments);
        let answer = tokio::select! {
            answer = timeout(self.time, peer.call_tool_once(request)) => answer,
            // The request is dropped, which tells the server.
            _ = self.caller => return None,
        };
        let outcome = match answer {
            Err(_) => Err(McpError::Timeout {
                server,
                what: format!("the call of {}", self.tool),
                time: self.time,
            }),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(ServiceError::TransportClosed)) => return Some(self.reply),
            Ok(Err(error)) => Err(failure::of_call(error, server, self.tool)),
        };
        let _ = self.reply.send(outcome);
        None
    }
}
