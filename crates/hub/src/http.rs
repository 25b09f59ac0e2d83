//! One HTTP exchange: who is asked, how long an answer may take, and what goes along on a redirect.
//!
//! Every exchange runs on a thread of its own and is watched from the caller's, so a name server, proxy or server
//! that says nothing can be given up at the very second, and a cancel is heard at any time. A thread that was given
//! up ends at the latest when its socket's own time limit passes.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::{HeaderMap, Method, Request, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};

use crate::address::{host_of, is_confidential, join, origin, parse};
use crate::config::{HubConfig, Timing};
use crate::error::HubError;
use crate::files::BUFFER_BYTES;
use crate::progress::Reporter;

const MAX_REDIRECTS: usize = 10;
/// Chunks that may wait for the disk: 2 MB.
const CHUNKS_AHEAD: usize = 8;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest body of a page that is read whole (a repository's file list).
const MAX_PAGE_BYTES: usize = 16 << 20;

/// Sends requests with the proxy, certificates and time limits of a configuration.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    pub(crate) timing: Timing,
}

/// What is left of the time in which a source must give its first byte. Only waiting for the source counts.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    left: Duration,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, left: limit }
    }

    /// After the first byte the source has answered, and a later silence is judged by itself.
    pub(crate) fn renew(&mut self, limit: Duration) {
        *self = Self::new(limit);
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.left.is_zero()
    }

    /// Lets the time pass, within what is left.
    pub(crate) fn sleep(
        &mut self,
        pause: Duration,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), HubError> {
        let end = Instant::now() + pause.min(self.left);
        self.left = self.left.saturating_sub(pause);
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            thread::sleep(rest.min(LOOK_EVERY));
            reporter.alive()?;
        }
    }
}

/// A request; redirects are followed with it.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    /// Sent to the first host only, and never over a plain connection that leaves the machine.
    pub(crate) token: Option<&'a str>,
    /// First byte wanted, with the entity tag that the file must still have.
    pub(crate) from: Option<(u64, Option<&'a str>)>,
    /// Ends at the first answer with this header, even if it is a redirect.
    pub(crate) stop_at: Option<&'static str>,
}

/// The head of an answer, and its body still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The address that answered in the end.
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    events: Receiver<Event>,
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The time was up without a byte.
    Silence(Duration),
    /// There is no way to the source (name unknown, connection refused, certificate not trusted): asking again at
    /// once gives the same.
    Unreachable(String),
    /// The connection broke; the reason in words.
    Broken(String),
    /// Trying again cannot help.
    Final(HubError),
}

impl From<HubError> for Trouble {
    fn from(error: HubError) -> Self {
        Trouble::Final(error)
    }
}

#[derive(Debug)]
enum Event {
    Head(u16, HeaderMap),
    Chunk(Vec<u8>),
    End,
    Unreachable(String),
    Failed(String),
}

impl Client {
    pub(crate) fn new(config: &HubConfig) -> Result<Self, HubError> {
        let bad_proxy = |_| HubError::BadConfig {
            what: "the proxy setting".to_owned(),
            reason: "it is not an address such as http://host:3128".to_owned(),
        };
        let proxy = match &config.proxy {
            None => None,
            Some(address) => {
                Some(with_exceptions(address, config.no_proxy.as_deref()).map_err(bad_proxy)?)
            }
        };
        let agent = Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(config.timing.answer))
            .timeout_connect(Some(config.timing.answer))
            .timeout_per_read(Some(config.timing.stall * 2))
            .user_agent(concat!("dunlin/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .tls_config(
                TlsConfig::builder()
                    .root_certs(RootCerts::PlatformVerifier)
                    .build(),
            )
            .build()
            .new_agent();
        Ok(Self {
            agent,
            timing: config.timing,
        })
    }

    /// Asks, follows redirects, and returns when the head of the last answer is here.
    pub(crate) fn ask(
        &self,
        ask: &Ask<'_>,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<Answer, Trouble> {
        let first = parse(ask.url)?;
        let mut uri = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let events = self.start(ask, &uri, &first)?;
            let (status, headers) = wait_for_head(&events, patience, reporter)?;
            let answer = Answer {
                url: uri.to_string(),
                status,
                headers,
                events,
            };
            let stops = ask
                .stop_at
                .is_some_and(|name| answer.headers.contains_key(name));
            if stops || !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            uri = redirect_target(&uri, &answer)?;
        }
        Err(Trouble::Final(HubError::BadResponse {
            url: ask.url.to_owned(),
            reason: format!("more than {MAX_REDIRECTS} redirects in a row"),
        }))
    }

    /// Asks for a page and reads it whole. Connection failures and passing errors are tried again within the
    /// patience.
    pub(crate) fn page(
        &self,
        ask: &Ask<'_>,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<(Answer, Vec<u8>), HubError> {
        let mut pause = self.timing.backoff;
        let mut attempt = 1;
        loop {
            let result = self.ask(ask, patience, reporter).and_then(|answer| {
                let body = if is_passing(answer.status) {
                    Vec::new()
                } else {
                    answer.read_all(patience, reporter)?
                };
                Ok((answer, body))
            });
            let last = attempt >= self.timing.attempts || patience.left <= pause;
            match result {
                Err(Trouble::Final(error)) => return Err(error),
                Err(trouble @ (Trouble::Silence(_) | Trouble::Unreachable(_))) => {
                    return Err(no_answer(ask.url, trouble, patience));
                }
                Err(trouble) if last => return Err(no_answer(ask.url, trouble, patience)),
                Ok((answer, _)) if is_passing(answer.status) && last => {
                    return Err(HubError::Status {
                        url: answer.url,
                        status: answer.status,
                        message: String::new(),
                    });
                }
                Ok((answer, body)) if !is_passing(answer.status) => return Ok((answer, body)),
                _ => patience.sleep(pause, reporter)?,
            }
            pause *= 2;
            attempt += 1;
        }
    }

    fn start(&self, ask: &Ask<'_>, uri: &Uri, first: &Uri) -> Result<Receiver<Event>, HubError> {
        let bad = |reason: String| HubError::BadResponse {
            url: ask.url.to_owned(),
            reason,
        };
        let mut request = Request::builder().method(ask.method.clone()).uri(uri);
        if let Some(token) = ask.token
            && origin(uri) == origin(first)
            && is_confidential(uri)
        {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((from, tag)) = ask.from {
            request = request.header(header::RANGE, format!("bytes={from}-"));
            if let Some(tag) = tag {
                request = request.header(header::IF_RANGE, tag);
            }
        }
        let request = request.body(()).map_err(|error| bad(error.to_string()))?;
        let with_body = ask.method != Method::HEAD;
        let agent = self.agent.clone();
        let (sender, events) = sync_channel(CHUNKS_AHEAD);
        thread::Builder::new()
            .name("dunlin-http".to_owned())
            .spawn(move || exchange(&agent, request, with_body, &sender))
            .map_err(|error| bad(format!("no thread could be started: {error}")))?;
        Ok(events)
    }
}

impl Answer {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header as a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }

    /// The next bytes of the body; `None` at its end.
    pub(crate) fn next_chunk(
        &self,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        match wait(&self.events, patience, reporter)? {
            Event::Chunk(bytes) => Ok(Some(bytes)),
            Event::End => Ok(None),
            Event::Failed(reason) | Event::Unreachable(reason) => Err(Trouble::Broken(reason)),
            Event::Head(..) => Err(Trouble::Broken("two answers to one request".to_owned())),
        }
    }

    fn read_all(
        &self,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<Vec<u8>, Trouble> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next_chunk(patience, reporter)? {
            all.extend_from_slice(&chunk);
            if all.len() > MAX_PAGE_BYTES {
                let reason = format!("it is longer than {MAX_PAGE_BYTES} bytes");
                return Err(Trouble::Final(HubError::BadResponse {
                    url: self.url.clone(),
                    reason,
                }));
            }
        }
        Ok(all)
    }
}

/// Whether asking again may help.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The error of a source that could not be reached.
pub(crate) fn no_answer(url: &str, trouble: Trouble, patience: &Patience) -> HubError {
    let reason = match trouble {
        Trouble::Final(error) => return error,
        Trouble::Silence(_) => format!(
            "nothing came within {} seconds",
            patience.limit.as_secs_f32()
        ),
        Trouble::Broken(reason) | Trouble::Unreachable(reason) => reason,
    };
    HubError::NoAnswer {
        host: host_of(url),
        reason,
    }
}

fn exchange(agent: &Agent, request: Request<()>, with_body: bool, events: &SyncSender<Event>) {
    // A receiver that is gone has given this exchange up: every failed send ends the thread.
    let response = match agent.run(request) {
        Ok(response) => response,
        Err(error) => return drop(events.send(failed_start(&error))),
    };
    let (parts, body) = response.into_parts();
    let has_more = with_body && !parts.status.is_redirection();
    if events
        .send(Event::Head(parts.status.as_u16(), parts.headers))
        .is_err()
    {
        return;
    }
    if !has_more {
        return drop(events.send(Event::End));
    }
    let mut reader = body.into_reader();
    loop {
        let mut chunk = vec![0; BUFFER_BYTES];
        let event = match reader.read(&mut chunk) {
            Ok(0) => Event::End,
            Ok(read) => {
                chunk.truncate(read);
                Event::Chunk(chunk)
            }
            Err(error) => Event::Failed(error.to_string()),
        };
        let ends = !matches!(event, Event::Chunk(_));
        if events.send(event).is_err() || ends {
            return;
        }
    }
}

/// A connection that was made and then lost may succeed the next time; one that was never made will not so soon.
fn failed_start(error: &ureq::Error) -> Event {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let was_made = match error {
        ureq::Error::Io(error) => {
            matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
            )
        }
        ureq::Error::Protocol(_) => true,
        _ => false,
    };
    let reason = match error {
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    if was_made {
        Event::Failed(reason)
    } else {
        Event::Unreachable(reason)
    }
}

fn wait_for_head(
    events: &Receiver<Event>,
    patience: &mut Patience,
    reporter: &mut Reporter<'_>,
) -> Result<(u16, HeaderMap), Trouble> {
    match wait(events, patience, reporter)? {
        Event::Head(status, headers) => Ok((status, headers)),
        Event::Failed(reason) => Err(Trouble::Broken(reason)),
        Event::Unreachable(reason) => Err(Trouble::Unreachable(reason)),
        Event::Chunk(_) | Event::End => Err(Trouble::Broken("a body without a head".to_owned())),
    }
}

fn wait(
    events: &Receiver<Event>,
    patience: &mut Patience,
    reporter: &mut Reporter<'_>,
) -> Result<Event, Trouble> {
    loop {
        let start = Instant::now();
        let received = events.recv_timeout(LOOK_EVERY.min(patience.left));
        patience.left = patience.left.saturating_sub(start.elapsed());
        match received {
            Ok(event) => return Ok(event),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Trouble::Broken("the connection ended".to_owned()));
            }
            Err(RecvTimeoutError::Timeout) if patience.is_spent() => {
                return Err(Trouble::Silence(patience.limit));
            }
            Err(RecvTimeoutError::Timeout) => reporter.alive()?,
        }
    }
}

fn redirect_target(from: &Uri, answer: &Answer) -> Result<Uri, HubError> {
    let bad = |reason: String| HubError::BadResponse {
        url: from.to_string(),
        reason,
    };
    let location = answer
        .header("location")
        .ok_or_else(|| bad("a redirect without a target".to_owned()))?;
    let target =
        join(from, location).ok_or_else(|| bad(format!("it redirects to {location:?}")))?;
    if from.scheme_str() == Some("https") && target.scheme_str() != Some("https") {
        return Err(bad(format!(
            "it redirects from https to the unprotected {target}"
        )));
    }
    Ok(target)
}

/// The proxy, with the hosts that are asked without it: those of the user, and this machine, which a proxy elsewhere
/// cannot reach.
fn with_exceptions(address: &str, exceptions: Option<&str>) -> Result<ureq::Proxy, ureq::Error> {
    let plain = ureq::Proxy::new(address)?;
    let mut builder = ureq::Proxy::builder(plain.protocol())
        .host(plain.host())
        .port(plain.port());
    if let Some(name) = plain.username() {
        builder = builder.username(name);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    let named = exceptions.unwrap_or_default().split(',').map(str::trim);
    let here = ["localhost", "127.0.0.1", "::1", "[::1]"];
    for exception in named.filter(|exception| !exception.is_empty()).chain(here) {
        builder = builder.no_proxy(exception);
    }
    builder.build()
}
