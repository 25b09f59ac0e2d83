//! Events as asynchronous streams, in three executors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{CHATML, events, fixture, options, tiny, with_template};
use dunlin::{
    AnswerEvent, CancelToken, Conversation, Error, Event, EventStream, FinishReason,
    GenerateOptions, Lm, ModelRef, Prompt, Speculation, Usage,
};
use futures_core::Stream;

/// A tiny model that chats.
fn chatting() -> Lm {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    with_template(&fixture("tiny.gguf"), &path, CHATML);
    Lm::load(ModelRef::Path(path), options()).unwrap()
}

/// All events, read through the trait.
async fn read<T>(
    mut stream: impl Stream<Item = Result<T, Error>> + Unpin,
) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    while let Some(item) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
        items.push(item?);
    }
    Ok(items)
}

/// Without the seconds, which differ.
fn timeless(events: Vec<Event>) -> Vec<Event> {
    let without_times = |event| match event {
        Event::End { reason, usage } => {
            let mut usage: Usage = usage;
            (usage.prompt_seconds, usage.completion_seconds) = (0.0, 0.0);
            Event::End { reason, usage }
        }
        text => text,
    };
    events.into_iter().map(without_times).collect()
}

#[test]
fn a_stream_has_the_events_of_the_iterator_in_every_executor() {
    let lm = tiny();
    let prompt = Prompt::from("the quick brown fox");
    // How many tokens are guessed is a matter of time.
    let options = GenerateOptions::greedy()
        .with_max_tokens(60)
        .with_seed(1)
        .with_speculation(Speculation::Off);
    // More events than the channel holds at once.
    let expected = timeless(events(&lm, &prompt, &options));
    assert!(expected.len() > 33, "{}", expected.len());
    let stream = || {
        lm.clear_cache();
        lm.generate_stream(prompt.clone(), options.clone())
    };
    let found = futures_executor::block_on(read(stream())).unwrap();
    assert_eq!(timeless(found), expected);
    let found = pollster::block_on(read(stream())).unwrap();
    assert_eq!(timeless(found), expected);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let found = runtime.block_on(read(stream())).unwrap();
    assert_eq!(timeless(found), expected);
}

#[test]
fn an_executor_goes_on_with_other_work_meanwhile() {
    let lm = tiny();
    let is_done = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let done = Arc::clone(&is_done);
    runtime.block_on(async move {
        // The model is busy until this generation is dropped, and the stream waits.
        let prompt = Prompt::from("one two");
        let busy = lm.generate(&prompt, &GenerateOptions::greedy()).unwrap();
        let mut stream =
            lm.generate_stream(prompt.clone(), GenerateOptions::greedy().with_max_tokens(3));
        let waited = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
        assert!(waited.is_err());
        drop(busy);
        assert!(stream.next().await.unwrap().is_ok());
        done.store(true, Ordering::Relaxed);
    });
    assert!(is_done.load(Ordering::Relaxed));
}

#[test]
fn a_generation_waits_for_a_slow_reader_and_ends_with_its_stream() {
    let lm = tiny();
    let prompt = Prompt::from("the quick brown fox");
    let options = GenerateOptions::greedy().with_max_tokens(100_000);
    let mut stream = lm.generate_stream(prompt, options.clone());
    assert!(matches!(
        pollster::block_on(stream.next()),
        Some(Ok(Event::Text(_)))
    ));
    drop(stream);
    // This waits until the generation has ended. Each event was a token or more, and of those that are not text yet there are few.
    assert!(lm.cached_tokens() < 100, "{}", lm.cached_tokens());
    assert!(!options.cancel.is_cancelled());
}

#[test]
fn a_token_of_the_caller_and_the_stream_itself_cancel() {
    let lm = tiny();
    let cancel = CancelToken::new();
    let options = GenerateOptions::greedy()
        .with_max_tokens(100_000)
        .with_cancel(cancel.clone());
    let last = |mut stream: EventStream<Event>, cancel: &dyn Fn(&EventStream<Event>)| {
        pollster::block_on(async {
            assert!(stream.next().await.unwrap().is_ok());
            cancel(&stream);
            read(stream).await.unwrap().pop()
        })
    };
    let stream = lm.generate_stream(Prompt::from("the quick"), options.clone());
    let event = last(stream, &EventStream::cancel);
    let is_cancelled = |event: Option<Event>| matches!(event, Some(Event::End { reason, .. }) if reason == FinishReason::Cancelled);
    assert!(is_cancelled(event));
    assert!(!cancel.is_cancelled());
    let stream = lm.generate_stream(Prompt::from("the quick"), options);
    assert!(is_cancelled(last(stream, &|_| cancel.cancel())));
}

#[test]
fn errors_are_items() {
    let lm = tiny();
    let mut stream = lm.generate_stream(Prompt::Tokens(vec![]), GenerateOptions::greedy());
    pollster::block_on(async {
        assert!(matches!(stream.next().await, Some(Err(Error::EmptyPrompt))));
        assert!(stream.next().await.is_none());
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn a_conversation_comes_back_with_what_was_answered() {
    let lm = chatting();
    let options = GenerateOptions::greedy().with_max_tokens(20);
    let mut expected = Conversation::new(&lm).with_options(options.clone());
    let reply = expected.ask("Hello").unwrap();
    let talk = Conversation::new(&lm).with_options(options);
    let talk = pollster::block_on(async {
        let mut stream = talk.send_stream("Hello");
        let mut text = String::new();
        while let Some(event) = stream.next().await {
            match event.unwrap() {
                AnswerEvent::Text(piece) => text.push_str(&piece),
                AnswerEvent::End(end) => assert_eq!(end.text, text),
                _ => {}
            }
        }
        assert_eq!(text, reply.text);
        stream.into_conversation().await
    });
    assert_eq!(talk.messages(), expected.messages());

    // The next turn goes on, and is not cancelled by the end of the one before.
    let (mut talk, mut expected) = (talk, expected);
    let next = talk.ask("And now?").unwrap();
    assert_eq!(next.text, expected.ask("And now?").unwrap().text);
    assert_ne!(next.finish_reason, FinishReason::Cancelled);
}

#[test]
fn a_conversation_that_is_taken_back_early_keeps_what_was_said() {
    let lm = chatting();
    let options = GenerateOptions::greedy().with_max_tokens(100_000);
    let talk = Conversation::new(&lm).with_options(options);
    let talk = pollster::block_on(async {
        let mut stream = talk.send_stream("Hello");
        assert!(stream.next().await.unwrap().is_ok());
        stream.into_conversation().await
    });
    assert_eq!(talk.messages().len(), 2);
    assert!(!talk.messages()[1].content.is_empty());
    assert!(!talk.options().cancel.is_cancelled());
}

#[test]
fn a_panic_is_an_error_and_neither_model_nor_conversation_are_lost() {
    let lm = chatting();
    let options = GenerateOptions::greedy().with_max_tokens(4);
    let talk = Conversation::new(&lm).with_options(options);
    let mut talk = pollster::block_on(async {
        let mut stream = talk.stream_with(|talk, emit| {
            let mut answer = talk.send("Hello")?;
            emit(answer.next().expect("an event")?);
            panic!("out of ideas")
        });
        assert!(stream.next().await.unwrap().is_ok());
        match stream.next().await {
            Some(Err(Error::Panicked { message })) => assert_eq!(message, "out of ideas"),
            other => panic!("{other:?}"),
        }
        assert!(stream.next().await.is_none());
        stream.into_conversation().await
    });
    assert_eq!(talk.messages().len(), 2);
    assert!(!talk.ask("Once more").unwrap().text.is_empty());
}
