//! Events as asynchronous streams.
//!
//! Computing blocks, and an executor must not be blocked: a stream computes on a thread of its own and hands the events over.
//! It knows no runtime and runs in any of them.

mod channel;

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::{mem, thread};

use futures_core::Stream;

use crate::{AnswerEvent, CancelToken, Conversation, Error, Event, GenerateOptions, Lm, Prompt};
use channel::{Receiver, channel};

/// Events that wait to be read. A generation that is so far ahead of its reader waits.
const CAPACITY: usize = 32;

/// The events of a generation, for asynchronous code: [`Lm::generate_stream`].
///
/// The generation runs on a thread of its own and is at most 32 events ahead of its reader; until it has ended, the model is
/// busy. An error is the last item, a panic one of them ([`Error::Panicked`]). Where the stream is dropped, the generation is
/// cancelled: it ends after the step that is being computed (a token, or a batch of the prompt), and nobody waits for it.
#[must_use = "the generation is cancelled when its stream is dropped"]
pub struct EventStream<T> {
    events: Receiver<Result<T, Error>>,
    /// Why there is no thread.
    failed: Option<Error>,
    cancel: CancelToken,
}

/// The events of an answer, for asynchronous code: [`Conversation::send_stream`].
///
/// As [`EventStream`]. The conversation is in it, and comes back with [`ConversationStream::into_conversation`].
#[must_use = "the answer is cancelled when its stream is dropped"]
pub struct ConversationStream {
    events: EventStream<AnswerEvent>,
    /// Locked by the thread that answers.
    conversation: Arc<Mutex<Conversation>>,
    /// The token that the conversation had.
    cancel: CancelToken,
}

impl Lm {
    /// As [`Lm::generate`], as a stream for asynchronous code. What that call returns as an error is the stream's first item.
    ///
    /// ```no_run
    /// use dunlin::{Event, GenerateOptions, Lm, Prompt};
    ///
    /// # async fn f(lm: Lm) -> Result<(), dunlin::Error> {
    /// let mut events = lm.generate_stream(Prompt::from("Once upon a time"), GenerateOptions::greedy());
    /// while let Some(event) = events.next().await {
    ///     if let Event::Text(piece) = event? {
    ///         print!("{piece}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn generate_stream(&self, prompt: Prompt, options: GenerateOptions) -> EventStream<Event> {
        let lm = self.clone();
        let cancel = options.cancel.child();
        let options = options.with_cancel(cancel.clone());
        EventStream::start(cancel, move |emit| {
            for event in lm.generate(&prompt, &options)? {
                emit(event?);
            }
            Ok(())
        })
    }
}

impl Conversation {
    /// As [`Conversation::send`], as a stream for asynchronous code. What that call returns as an error is the stream's first item.
    ///
    /// ```no_run
    /// use dunlin::{AnswerEvent, Conversation};
    ///
    /// # async fn f(talk: Conversation) -> Result<(), dunlin::Error> {
    /// let mut answer = talk.send_stream("Why is the sky blue?");
    /// while let Some(event) = answer.next().await {
    ///     if let AnswerEvent::Text(piece) = event? {
    ///         print!("{piece}");
    ///     }
    /// }
    /// let talk = answer.into_conversation().await;
    /// assert_eq!(talk.messages().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_stream(self, text: impl Into<String>) -> ConversationStream {
        let text = text.into();
        self.stream_with(move |talk, emit| {
            for event in talk.send(text)? {
                emit(event?);
            }
            Ok(())
        })
    }

    /// Runs `work` with the conversation on a thread of its own; what it emits is the stream's items. For whatever gives events:
    ///
    /// ```no_run
    /// # use dunlin::{Conversation, Toolbox};
    /// # fn f(talk: Conversation, toolbox: Toolbox) {
    /// let events = talk.stream_with(move |talk, emit| {
    ///     talk.run_tools_with(&toolbox, "What is the weather in Paris?", 3, |event| emit(event.clone()))?;
    ///     Ok(())
    /// });
    /// # }
    /// ```
    ///
    /// When the stream is dropped, the generation at work is cancelled, and what is emitted after that goes nowhere; anything
    /// else that `work` does, such as a tool that it calls, goes on to its end.
    pub fn stream_with(
        mut self,
        work: impl FnOnce(&mut Conversation, &mut dyn FnMut(AnswerEvent)) -> Result<(), Error>
        + Send
        + 'static,
    ) -> ConversationStream {
        let child = self.options().cancel.child();
        let cancel = self.replace_cancel(child.clone());
        let conversation = Arc::new(Mutex::new(self));
        let answering = Arc::clone(&conversation);
        let events = EventStream::start(child, move |emit| {
            let mut talk = answering.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut talk, emit)
        });
        ConversationStream {
            events,
            conversation,
            cancel,
        }
    }
}

impl<T> EventStream<T> {
    /// The next event; `None` behind the last one. (The same as of `StreamExt`, which need not be imported for it.)
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        poll_fn(|context| self.poll(context)).await
    }

    /// Ends the generation early; its last event says so. Other generations with the same [`CancelToken`] go on.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Result<T, Error>>> {
        match self.failed.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => self.events.poll_next(context),
        }
    }
}

impl<T: Send + 'static> EventStream<T> {
    /// Starts a thread that works until it is done or `cancel` says so.
    fn start(
        cancel: CancelToken,
        work: impl FnOnce(&mut dyn FnMut(T)) -> Result<(), Error> + Send + 'static,
    ) -> Self {
        let (sender, events) = channel(CAPACITY);
        let run = move || {
            // Once nobody reads, the work is cancelled and ends by itself.
            let mut emit = |event| drop(sender.send(Ok(event)));
            // What the work holds is free again, locks included, before the stream ends.
            let ended = catch_unwind(AssertUnwindSafe(|| work(&mut emit)));
            let ended = ended.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
            if let Err(error) = ended {
                let _ = sender.send(Err(error));
            }
        };
        let thread = thread::Builder::new().name("dunlin-stream".to_owned());
        EventStream {
            events,
            failed: thread.spawn(run).err().map(Error::Thread),
            cancel,
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Error::Panicked {
        message: text.unwrap_or_else(|| "no message".to_owned()),
    }
}

impl<T> Stream for EventStream<T> {
    type Item = Result<T, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context)
    }
}

impl<T> Drop for EventStream<T> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl ConversationStream {
    /// The next event; `None` behind the last one. (The same as of `StreamExt`, which need not be imported for it.)
    pub async fn next(&mut self) -> Option<Result<AnswerEvent, Error>> {
        self.events.next().await
    }

    /// Ends the answer early; its last event says so.
    pub fn cancel(&self) {
        self.events.cancel();
    }

    /// The conversation with what was answered. Where the answer has not ended yet, it is cancelled and kept as far as it got, and
    /// events that were not read are lost.
    pub async fn into_conversation(mut self) -> Conversation {
        self.cancel();
        while self.next().await.is_some() {}
        let mut guard = self
            .conversation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let empty = Conversation::new(guard.lm());
        let mut conversation = mem::replace(&mut *guard, empty);
        conversation.replace_cancel(self.cancel.clone());
        conversation
    }
}

impl Stream for ConversationStream {
    type Item = Result<AnswerEvent, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().events.poll(context)
    }
}
