//! Conversations of many turns: what a turn computes, how a conversation is changed, and what happens when it gets too long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use common::{conformance, options, pulled, tiny};
use dunlin::{
    AnswerEvent, CancelToken, ContextPolicy, Conversation, Error, FinishReason, GenerateOptions,
    Lm, Message, ModelRef, Prompt, TemplateOptions,
};

const ANSWER: usize = 12;

fn greedy() -> GenerateOptions {
    GenerateOptions::greedy().with_max_tokens(ANSWER)
}

fn conversation(lm: &Lm) -> Conversation {
    Conversation::new(lm)
        .with_system("Be brief.")
        .with_options(greedy())
}

/// About `tokens` tokens of ordinary text.
fn long_text(lm: &Lm, tokens: usize) -> String {
    let mut text = String::from("Remember this list.");
    for number in 0.. {
        let part = format!(" Item {number} weighs {} grams.", number * 37 % 1000);
        if lm.tokenizer().encode(&text, false).unwrap().len() >= tokens {
            break;
        }
        text.push_str(&part);
    }
    text
}

/// Asks twice and compares with the same two turns of a model that knows nothing, to which the second prompt is given as
/// tokens.
fn two_turns(lm: &Lm, fresh: &Lm, tokens: usize) {
    let mut talk = conversation(lm);
    let first = talk.ask(long_text(lm, tokens)).unwrap();
    assert_eq!(first.usage.cached_prompt_tokens, 0);
    assert!(first.usage.prompt_tokens >= tokens);
    let second = talk.ask("What is the first item?").unwrap();
    // The last token of an answer of full length is chosen and not computed.
    let known = first.usage.prompt_tokens + first.tokens.len() - 1;
    assert!(
        second.usage.cached_prompt_tokens >= known,
        "{:?} of {known}",
        second.usage
    );
    let new = second.usage.prompt_tokens - second.usage.cached_prompt_tokens;
    assert!(new < 60, "{new} tokens were computed");

    let mut other = conversation(fresh);
    other.ask(long_text(lm, tokens)).unwrap();
    fresh.clear_cache();
    let again = other.ask("What is the first item?").unwrap();
    assert_eq!(again.usage.cached_prompt_tokens, 0);
    assert_eq!(again.tokens, second.tokens);
}

#[test]
fn a_second_turn_computes_its_new_tokens_only() {
    two_turns(&tiny(), &tiny(), 200);
}

#[test]
fn a_second_turn_of_real_models_computes_its_new_tokens_only() {
    for name in ["smollm2:135m", "qwen2.5-coder:0.5b"] {
        let Some((one, other)) = pulled(name).zip(pulled(name)) else {
            continue;
        };
        two_turns(&one, &other, 2000);
    }
}

#[test]
fn recurrent_models_go_on_from_the_end_of_an_answer() {
    let Some(folder) = conformance() else { return };
    let chats = tempfile::tempdir().unwrap();
    for name in ["qwen3_5", "lfm2"] {
        let path = chats.path().join(name);
        common::with_template(&folder.join(name).join("model.gguf"), &path, common::CHATML);
        let lm = Lm::load(ModelRef::Path(path), options()).unwrap();
        two_turns(&lm, &lm, 100);
    }
}

#[test]
fn events_together_are_the_reply_and_the_messages_keep_it() {
    let lm = tiny();
    let mut talk = conversation(&lm);
    let mut pieces = String::new();
    let mut reply = None;
    for event in talk.send("Hello").unwrap() {
        match event.unwrap() {
            AnswerEvent::Text(piece) => pieces.push_str(&piece),
            AnswerEvent::End(end) => reply = Some(end),
            event => panic!("{event:?}"),
        }
    }
    let reply = reply.unwrap();
    assert_eq!(reply.text, pieces);
    assert_eq!(reply.finish_reason, FinishReason::Length);
    assert_eq!(reply.dropped, None);
    assert_eq!(
        talk.messages(),
        [
            Message::system("Be brief."),
            Message::user("Hello"),
            Message::assistant(pieces)
        ]
    );
    // The first prompt is that of a plain chat.
    let prompt = Prompt::Chat(talk.messages()[..2].to_vec());
    let plain = lm.complete(&prompt, &greedy()).unwrap();
    assert_eq!(plain.tokens, reply.tokens);
    assert_eq!(plain.usage.prompt_tokens, reply.usage.prompt_tokens);
}

#[test]
fn an_answer_can_be_made_again_and_gone_on_with() {
    let lm = tiny();
    let mut talk = conversation(&lm);
    let first = talk.ask("Hello").unwrap();
    let again = talk.regenerate().unwrap().complete().unwrap();
    assert_eq!(again.tokens, first.tokens);
    assert_eq!(talk.messages().len(), 3);

    let more = talk.continue_answer().unwrap().complete().unwrap();
    let mut whole = conversation(&lm);
    whole.set_options(greedy().with_max_tokens(2 * ANSWER));
    let whole_reply = whole.ask("Hello").unwrap();
    assert_eq!([first.tokens, more.tokens].concat(), whole_reply.tokens);
    assert_eq!(talk.messages(), whole.messages());
    // The tokens of the first part were kept as they were.
    assert!(more.usage.cached_prompt_tokens >= more.usage.prompt_tokens - 1);
}

#[test]
fn a_beginning_can_be_put_into_the_models_mouth() {
    let lm = tiny();
    let mut talk = conversation(&lm);
    talk.push(Message::user("Hello"));
    talk.push(Message::assistant("The answer"));
    let reply = talk.continue_answer().unwrap().complete().unwrap();
    let mut ids = lm
        .encode_prompt(
            &Prompt::Chat(talk.messages()[..2].to_vec()),
            &GenerateOptions::default(),
        )
        .unwrap();
    ids.extend(lm.tokenizer().encode("The answer", false).unwrap());
    let plain = lm.complete(&Prompt::Tokens(ids), &greedy()).unwrap();
    assert_eq!(plain.tokens, reply.tokens);
    let message = &talk.messages()[2];
    assert_eq!(message.content, format!("The answer{}", plain.text));
}

#[test]
fn messages_can_be_changed() {
    let lm = tiny();
    let mut talk = conversation(&lm);
    talk.ask("One").unwrap();
    talk.ask("Two").unwrap();
    talk.edit(1, "Changed").unwrap();
    assert_eq!(talk.messages()[1], Message::user("Changed"));
    let error = talk.edit(9, "").unwrap_err();
    assert!(matches!(
        error,
        Error::NoSuchMessage {
            index: 9,
            messages: 5
        }
    ));
    let undone = talk.undo();
    assert_eq!(undone.len(), 2);
    assert_eq!(undone[0], Message::user("Two"));
    talk.truncate(2);
    let reply = talk.regenerate().unwrap().complete().unwrap();
    let plain = [Message::system("Be brief."), Message::user("Changed")];
    let plain = lm
        .complete(&Prompt::Chat(plain.to_vec()), &greedy())
        .unwrap();
    assert_eq!(reply.tokens, plain.tokens);
    talk.set_system(None);
    assert_eq!(talk.system(), None);
    talk.set_system(Some("New.".to_owned()));
    talk.clear();
    assert_eq!(talk.messages(), [Message::system("New.")]);
    assert!(matches!(
        talk.regenerate().err(),
        Some(Error::NothingToAnswer)
    ));
    assert!(matches!(
        talk.continue_answer().err(),
        Some(Error::NothingToContinue)
    ));
}

#[test]
fn a_cancelled_answer_is_kept_as_far_as_it_got() {
    let lm = tiny();
    let cancel = CancelToken::new();
    let mut talk = conversation(&lm).with_options(greedy().with_cancel(cancel.clone()));
    let mut shown = String::new();
    let mut reason = None;
    for event in talk.send("Hello").unwrap() {
        match event.unwrap() {
            AnswerEvent::Text(piece) => shown.push_str(&piece),
            AnswerEvent::End(reply) => reason = Some(reply.finish_reason),
            event => panic!("{event:?}"),
        }
        if shown.len() > 3 {
            cancel.cancel();
        }
    }
    assert_eq!(reason, Some(FinishReason::Cancelled));
    assert_eq!(talk.messages()[2], Message::assistant(shown.clone()));

    // Cancelled before the first token, the conversation is as before.
    let before = talk.messages().to_vec();
    let reply = talk.ask("More").unwrap();
    assert_eq!(reply.finish_reason, FinishReason::Cancelled);
    assert_eq!(talk.messages(), before);

    cancel.reset();
    talk.continue_answer().unwrap().complete().unwrap();
    assert!(
        talk.messages()[2]
            .content
            .starts_with(shown.trim_end_matches('\u{fffd}'))
    );
}

#[test]
fn a_dropped_answer_is_kept_as_far_as_it_was_shown() {
    let lm = tiny();
    let mut talk = conversation(&lm);
    drop(talk.send("Hello").unwrap());
    assert_eq!(talk.messages(), [Message::system("Be brief.")]);
    let mut answer = talk.send("Hello").unwrap();
    let Some(Ok(AnswerEvent::Text(piece))) = answer.next() else {
        panic!("no text")
    };
    drop(answer);
    assert_eq!(talk.messages()[2], Message::assistant(piece));
    talk.continue_answer().unwrap().complete().unwrap();
    let mut whole = conversation(&lm);
    let longest = greedy().with_max_tokens(2 * ANSWER);
    whole.set_options(longest);
    whole.ask("Hello").unwrap();
    let whole = &whole.messages()[2].content;
    assert!(whole.starts_with(&*talk.messages()[2].content));
}

#[test]
fn an_error_leaves_the_conversation_as_it_was() {
    let lm = tiny();
    let mut talk = conversation(&lm);
    talk.ask("Hello").unwrap();
    let before = talk.messages().to_vec();
    let long = long_text(&lm, lm.context_length());
    let error = talk.ask(&long).unwrap_err();
    let Error::ConversationTooLong {
        prompt_tokens,
        answer_room,
        context_length,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!((answer_room, context_length), (ANSWER, lm.context_length()));
    assert!(prompt_tokens > context_length - answer_room);
    assert_eq!(talk.messages(), before);
    talk.set_options(greedy().with_stop(""));
    assert!(matches!(talk.ask("x"), Err(Error::Engine(_))));
    assert_eq!(talk.messages(), before);
    // It goes on from where it was.
    talk.set_options(greedy());
    assert!(talk.ask("Go on").unwrap().usage.cached_prompt_tokens > 0);
}

/// Asks until something is dropped, and checks what is left against a conversation that had only that.
fn fill(policy: ContextPolicy) -> (Conversation, dunlin::Dropped, Vec<Message>) {
    let lm = tiny();
    let mut talk = conversation(&lm).with_policy(policy);
    for turn in 0.. {
        let asked = long_text(&lm, 90 + turn);
        let before = [talk.messages(), &[Message::user(&*asked)]].concat();
        let reply = talk.ask(asked).unwrap();
        assert!(reply.usage.prompt_tokens + ANSWER <= lm.context_length());
        if let Some(dropped) = reply.dropped {
            assert!(turn > 3);
            return (talk, dropped, before);
        }
    }
    unreachable!()
}

#[test]
fn the_oldest_turns_go_whole_and_are_told() {
    let (talk, dropped, before) = fill(ContextPolicy::DropOldestTurns);
    assert_eq!(dropped.messages, before[1..3]);
    assert!(dropped.tokens > 90);
    assert_eq!(dropped.summary, None);
    assert_eq!(talk.messages()[0], before[0]);
    let left = talk.messages().len() - 1;
    assert_eq!(talk.messages()[1..left], before[3..]);
}

#[test]
fn the_first_turns_stay_in_a_sliding_window() {
    let (talk, dropped, before) = fill(ContextPolicy::SlidingWindow { keep_first: 1 });
    assert_eq!(dropped.messages, before[3..5]);
    assert_eq!(talk.messages()[..3], before[..3]);
    let left = talk.messages().len() - 1;
    assert_eq!(talk.messages()[3..left], before[5..]);
    // Where all that may go is not enough, it is an error.
    let mut talk = talk.with_policy(ContextPolicy::SlidingWindow { keep_first: 9 });
    let long = long_text(talk.lm(), 200);
    let before = talk.messages().to_vec();
    assert!(matches!(
        talk.ask(long),
        Err(Error::ConversationTooLong { .. })
    ));
    assert_eq!(talk.messages(), before);
}

#[test]
fn a_summary_stands_for_the_oldest_turns() {
    let (mut talk, dropped, before) = fill(ContextPolicy::Summarize);
    let count = dropped.messages.len();
    // More than one turn, so that it is not needed again at once.
    assert!(count > 2 && count.is_multiple_of(2));
    assert_eq!(dropped.messages, before[1..1 + count]);
    let summary = dropped.summary.unwrap();
    assert_eq!(talk.summary(), Some(&*summary.text));
    assert!(summary.usage.prompt_tokens > 90 && summary.usage.completion_tokens > 0);
    let left = talk.messages().len() - 1;
    assert_eq!(talk.messages()[1..left], before[1 + count..]);
    // The model reads it: without it the prompt is shorter.
    let with = talk.ask("One more").unwrap().usage.prompt_tokens;
    talk.undo();
    let mut plain = Conversation::new(talk.lm()).with_options(greedy());
    for message in talk.messages() {
        plain.push(message.clone());
    }
    let without = plain.ask("One more").unwrap().usage.prompt_tokens;
    assert!(with > without + summary.text.len() / 8, "{with} {without}");
}

#[test]
fn a_dropped_turn_keeps_the_tokens_of_the_others() {
    let (talk, _, before) = fill(ContextPolicy::DropOldestTurns);
    let lm = talk.lm();
    assert!(before.len() > talk.messages().len() - 1);
    // What is left is found again in the next turn.
    let mut talk = talk.clone();
    talk.undo();
    let reply = talk.ask("Short").unwrap();
    let new = reply.usage.prompt_tokens - reply.usage.cached_prompt_tokens;
    assert!(new < 40 + lm.tokenizer().encode("Short", false).unwrap().len());
}

/// A template with the rule of Qwen 3: the reasoning of old answers is left out.
const DROPS_REASONING: &str = "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}\
    {{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1] + '<|im_end|>\n' }}{% else %}\
    {{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}\
    {{ '<|im_start|>assistant\n' }}";

#[test]
fn old_reasoning_that_the_template_drops_costs_the_answer_and_the_new_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reasons.gguf");
    common::with_template(&common::fixture("tiny.gguf"), &path, DROPS_REASONING);
    let lm = Lm::load(ModelRef::Path(path), options()).unwrap();
    let mut talk = Conversation::new(&lm).with_options(greedy());
    talk.push(Message::user(long_text(&lm, 200)));
    talk.push(Message::assistant("<think>one two three</think>Yes"));
    talk.continue_answer().unwrap().complete().unwrap();
    let asked = talk.messages()[0].clone();
    let kept = lm
        .encode_prompt(&Prompt::Chat(vec![asked]), &GenerateOptions::default())
        .unwrap()
        .len();
    let reply = talk.ask("And now?").unwrap();
    assert!(reply.usage.cached_prompt_tokens >= kept);
    assert!(reply.usage.prompt_tokens - kept < 100, "{:?}", reply.usage);
    let prompt = lm
        .render_chat(&talk.messages()[..3], &TemplateOptions::default())
        .unwrap();
    assert!(!prompt.contains("three"));
}
