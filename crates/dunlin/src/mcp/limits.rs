//! How much a server may send.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rmcp::RoleClient;
use rmcp::model::JsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::io::{AsyncRead, ReadBuf};

use super::McpError;

/// Requests and notifications of a server within [`WINDOW`]. A client that declares no capability is asked for nothing but signs of
/// life, and told of progress and log lines.
const MOST_MESSAGES: usize = 2000;
const WINDOW: Duration = Duration::from_secs(10);

/// What a server did beyond its limits, told from the reader of its messages to who reports the end of the connection.
#[derive(Clone, Default)]
pub(super) struct Offence(Arc<OnceLock<McpError>>);

impl Offence {
    pub(super) fn get(&self) -> Option<McpError> {
        self.0.get().cloned()
    }

    fn set(&self, error: McpError) {
        // The first one counts.
        let _ = self.0.set(error);
    }
}

/// A stream of bytes that fails at a line that is too long, before it is read into memory as a whole.
pub(super) struct LimitedLines<R> {
    source: R,
    server: String,
    limit: usize,
    /// Bytes of the line so far.
    length: usize,
    offence: Offence,
}

impl<R> LimitedLines<R> {
    pub(super) fn new(source: R, server: &str, limit: usize, offence: Offence) -> Self {
        LimitedLines {
            source,
            server: server.to_owned(),
            limit,
            length: 0,
            offence,
        }
    }

    /// Counts what was read. False: a line is too long.
    fn count(&mut self, bytes: &[u8]) -> bool {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        self.length += lines.next().map_or(0, <[u8]>::len);
        let mut longest = self.length;
        for line in lines {
            self.length = line.len();
            longest = longest.max(self.length);
        }
        longest <= self.limit
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for LimitedLines<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.source).poll_read(context, buffer))?;
        if this.count(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        this.offence.set(McpError::MessageTooLarge {
            server: this.server.clone(),
            limit: this.limit,
        });
        Poll::Ready(Err(std::io::Error::other("a line is too long")))
    }
}

/// A transport that ends where a server sends too many messages that nobody asked for: each of them is handled beside the others,
/// and takes memory until then.
pub(super) struct LimitedRate<T> {
    transport: T,
    server: String,
    count: usize,
    since: Instant,
    offence: Offence,
}

impl<T> LimitedRate<T> {
    pub(super) fn new(transport: T, server: &str, offence: Offence) -> Self {
        LimitedRate {
            transport,
            server: server.to_owned(),
            count: 0,
            since: Instant::now(),
            offence,
        }
    }

    /// Counts a message. False: there are too many.
    fn count(&mut self) -> bool {
        if self.since.elapsed() > WINDOW {
            self.since = Instant::now();
            self.count = 0;
        }
        self.count += 1;
        self.count <= MOST_MESSAGES
    }
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for LimitedRate<T> {
    type Error = T::Error;

    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.transport.send(message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let message = self.transport.receive().await?;
        let is_asked = matches!(message, JsonRpcMessage::Response(_));
        if is_asked || self.count() {
            return Some(message);
        }
        self.offence.set(McpError::Flood {
            server: self.server.clone(),
            limit: MOST_MESSAGES,
            seconds: WINDOW.as_secs(),
        });
        None
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.transport.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(limit: usize, chunks: &[&str]) -> bool {
        let mut lines = LimitedLines::new((), "server", limit, Offence::default());
        chunks.iter().all(|chunk| lines.count(chunk.as_bytes()))
    }

    #[test]
    fn lines_are_counted_over_the_pieces_they_come_in() {
        assert!(accepts(4, &["abcd\nabcd\n", "ab", "cd", "\n\n\nabcd"]));
        assert!(!accepts(4, &["abc", "de\n"]));
        assert!(!accepts(4, &["a\nabcde\na\n"]));
        assert!(!accepts(4, &["a\nabc", "de"]));
    }
}
