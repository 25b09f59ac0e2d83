//! Generation, on a tiny random model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{events, greedy, tiny};
use dunlin::{CancelToken, Error, Event, FinishReason, GenerateOptions, Prompt, SamplerConfig};

const PROMPT: &str = "The quick brown fox";

fn prompt() -> Prompt {
    Prompt::from(PROMPT)
}

fn end(events: &[Event]) -> (&FinishReason, dunlin::Usage) {
    match events.last() {
        Some(Event::End { reason, usage }) => (reason, *usage),
        other => panic!("the last event is {other:?}"),
    }
}

fn text(events: &[Event]) -> String {
    let pieces = events.iter().filter_map(|event| match event {
        Event::Text(piece) => Some(piece.as_str()),
        Event::End { .. } => None,
    });
    pieces.collect()
}

#[test]
fn text_comes_in_pieces_and_ends_with_reason_and_usage() {
    let lm = tiny();
    let events = events(
        &lm,
        &prompt(),
        &GenerateOptions::greedy().with_max_tokens(24),
    );
    let (reason, usage) = end(&events);
    assert_eq!(*reason, FinishReason::Length);
    assert_eq!(
        usage.prompt_tokens,
        lm.tokenizer().encode(PROMPT, false).unwrap().len()
    );
    assert_eq!(
        (
            usage.cached_prompt_tokens,
            usage.completion_tokens,
            usage.completion_steps + usage.accepted_tokens
        ),
        (0, 24, 23)
    );
    assert!(usage.prompt_seconds > 0.0 && usage.completion_seconds > 0.0);
    assert!(usage.prompt_tokens_per_second() > 0.0 && usage.completion_tokens_per_second() > 0.0);
    assert!(events.len() > 10, "{} events", events.len());
    assert!(
        events[..events.len() - 1]
            .iter()
            .all(|event| matches!(event, Event::Text(piece) if !piece.is_empty()))
    );
}

#[test]
fn the_pieces_together_are_the_decoded_tokens() {
    let lm = tiny();
    let completion = lm
        .generate(&prompt(), &GenerateOptions::greedy().with_max_tokens(60))
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(completion.tokens.len(), 60);
    assert_eq!(
        completion.text,
        lm.tokenizer().decode(&completion.tokens, false)
    );
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_seed_another_one() {
    let lm = tiny();
    let run = |seed| {
        let mut options = GenerateOptions::default()
            .with_max_tokens(40)
            .with_temperature(2.0);
        options.seed = seed;
        lm.clear_cache();
        lm.generate(&prompt(), &options)
            .unwrap()
            .complete()
            .unwrap()
    };
    let first = run(None);
    assert_eq!(run(Some(first.usage.seed)).tokens, first.tokens);
    let second = run(None);
    assert_ne!(second.usage.seed, first.usage.seed);
    assert_ne!(second.tokens, first.tokens);
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let lm = tiny();
    let whole = greedy(&lm, PROMPT, 40);
    let characters: Vec<char> = whole.chars().collect();
    // Three characters, which no single token of the vocabulary has here.
    let stop: String = characters[9..12].iter().collect();
    let options = GenerateOptions::greedy()
        .with_max_tokens(40)
        .with_stop("never there")
        .with_stop(stop.clone());
    let events = events(&lm, &prompt(), &options);
    let (reason, usage) = end(&events);
    assert_eq!(*reason, FinishReason::Stop(stop.clone()));
    assert_eq!(text(&events), whole[..whole.find(&stop).unwrap()]);
    assert!(usage.completion_tokens < 40);
}

#[test]
fn what_could_have_become_a_stop_string_is_given_out_at_the_end() {
    let lm = tiny();
    let whole = greedy(&lm, PROMPT, 12);
    let stop = format!("{}#never#", whole.chars().next_back().unwrap());
    let options = GenerateOptions::greedy()
        .with_max_tokens(12)
        .with_stop(stop);
    assert_eq!(
        lm.generate(&prompt(), &options)
            .unwrap()
            .complete()
            .unwrap()
            .text,
        whole
    );
}

#[test]
fn an_end_of_generation_token_ends_the_text_and_is_no_part_of_it() {
    let lm = tiny();
    let end_of_turn = lm.tokenizer().token_id("<|im_end|>").unwrap();
    let sampler = SamplerConfig {
        logit_bias: vec![(end_of_turn, 1000.0)],
        ..SamplerConfig::greedy()
    };
    let options = GenerateOptions::default()
        .with_sampler(sampler)
        .with_max_tokens(5);
    let completion = lm
        .generate(&prompt(), &options)
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(completion.finish_reason, FinishReason::EndOfText);
    assert_eq!(
        (
            completion.text.as_str(),
            completion.tokens.len(),
            completion.usage.completion_tokens
        ),
        ("", 0, 0)
    );

    let mut on = options;
    on.ignore_end_of_text = true;
    let completion = lm.generate(&prompt(), &on).unwrap().complete().unwrap();
    assert_eq!(completion.finish_reason, FinishReason::Length);
    assert_eq!(completion.tokens, [end_of_turn; 5]);
}

#[test]
fn padding_of_the_vocabulary_is_never_chosen() {
    let lm = tiny();
    let last = lm.tokenizer().encode(PROMPT, false).unwrap();
    let row = lm.logits(&last, &[last.len() - 1]).unwrap().remove(0);
    let vocab_size = lm.tokenizer().vocab_size();
    let likeliest = (0..row.len())
        .max_by(|&a, &b| row[a].total_cmp(&row[b]))
        .unwrap();
    assert!(likeliest >= vocab_size, "the fixture no longer tests this");
    let completion = lm
        .generate(&prompt(), &GenerateOptions::greedy().with_max_tokens(50))
        .unwrap()
        .complete()
        .unwrap();
    assert!(
        completion
            .tokens
            .iter()
            .all(|&token| (token as usize) < vocab_size)
    );
}

#[test]
fn cancelling_ends_the_generation_and_leaves_the_model_usable() {
    let lm = tiny();
    let expected = greedy(&lm, PROMPT, 30);
    let cancel = CancelToken::new();
    let options = GenerateOptions::greedy()
        .with_max_tokens(30)
        .with_cancel(cancel.clone());
    let mut generation = lm.generate(&prompt(), &options).unwrap();
    let mut begun = String::new();
    for _ in 0..3 {
        if let Some(Ok(Event::Text(piece))) = generation.next() {
            begun.push_str(&piece);
        }
    }
    cancel.cancel();
    let rest: Vec<_> = generation.map(Result::unwrap).collect();
    assert_eq!(*end(&rest).0, FinishReason::Cancelled);
    assert!(expected.starts_with(&(begun + &text(&rest))));
    assert_eq!(greedy(&lm, PROMPT, 30), expected);
}

#[test]
fn a_prompt_can_be_cancelled_between_its_batches() {
    let lm = tiny();
    let cancel = CancelToken::new();
    cancel.cancel();
    let options = GenerateOptions::greedy().with_cancel(cancel.clone());
    let long = Prompt::from("word ".repeat(100));
    let events = events(&lm, &long, &options);
    assert_eq!(
        (events.len(), end(&events).0),
        (1, &FinishReason::Cancelled)
    );
    assert_eq!(lm.cached_tokens(), 0);
    cancel.reset();
    assert!(
        !lm.generate(&long, &options.with_max_tokens(3))
            .unwrap()
            .complete()
            .unwrap()
            .text
            .is_empty()
    );
}

#[test]
fn a_generation_dropped_midway_leaves_the_model_usable() {
    let lm = tiny();
    let expected = greedy(&lm, PROMPT, 30);
    let mut generation = lm.generate(&prompt(), &GenerateOptions::greedy()).unwrap();
    for _ in 0..7 {
        generation.next().unwrap().unwrap();
    }
    drop(generation);
    assert_eq!(greedy(&lm, PROMPT, 30), expected);
}

#[test]
fn a_prompt_that_continues_the_last_one_computes_only_what_is_new() {
    let lm = tiny();
    let options = GenerateOptions::greedy().with_max_tokens(20);
    let first = lm
        .generate(&prompt(), &options)
        .unwrap()
        .complete()
        .unwrap();
    let longer = format!("{PROMPT}{}, and then", first.text);
    let second = lm
        .generate(&Prompt::from(longer.as_str()), &options)
        .unwrap()
        .complete()
        .unwrap();
    // The last token of the first answer was chosen but never fed.
    let kept = first.usage.prompt_tokens + 19;
    assert_eq!(second.usage.cached_prompt_tokens, kept);
    assert_eq!(
        second.usage.prompt_tokens,
        lm.tokenizer().encode(&longer, false).unwrap().len()
    );

    lm.clear_cache();
    assert_eq!(lm.cached_tokens(), 0);
    let fresh = lm
        .generate(&Prompt::from(longer), &options)
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(fresh.usage.cached_prompt_tokens, 0);
    assert_eq!(fresh.tokens, second.tokens);
}

#[test]
fn the_same_prompt_again_computes_its_last_token_only() {
    let lm = tiny();
    let options = GenerateOptions::greedy().with_max_tokens(10);
    let first = lm
        .generate(&prompt(), &options)
        .unwrap()
        .complete()
        .unwrap();
    let again = lm
        .generate(&prompt(), &options)
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(
        again.usage.cached_prompt_tokens,
        first.usage.prompt_tokens - 1
    );
    assert_eq!(again.tokens, first.tokens);
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_both_numbers() {
    let lm = tiny();
    let ids = vec![40; 641];
    let error = lm
        .generate(&Prompt::Tokens(ids), &GenerateOptions::greedy())
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::PromptTooLong {
                prompt_tokens: 641,
                context_length: 640
            }
        ),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("641") && error.to_string().contains("640"),
        "{error}"
    );
}

#[test]
fn a_full_context_ends_the_answer() {
    let lm = tiny();
    let run = |tokens: usize| {
        let ids = (0..tokens as u32).map(|at| 32 + at * 7 % 60).collect();
        lm.generate(&Prompt::Tokens(ids), &GenerateOptions::greedy())
            .unwrap()
            .complete()
            .unwrap()
    };
    for (prompt, answer) in [(640, 1), (639, 2), (630, 11)] {
        let completion = run(prompt);
        assert_eq!(
            completion.finish_reason,
            FinishReason::ContextFull,
            "{prompt}"
        );
        assert_eq!(completion.usage.completion_tokens, answer, "{prompt}");
        assert_eq!(completion.finish_reason.as_str(), "length");
    }
}

#[test]
fn no_tokens_asked_for_give_none() {
    let lm = tiny();
    let completion = lm
        .generate(&prompt(), &GenerateOptions::greedy().with_max_tokens(0))
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(
        (completion.text.as_str(), completion.finish_reason),
        ("", FinishReason::Length)
    );
}

#[test]
fn an_empty_prompt_and_bad_settings_are_refused() {
    let lm = tiny();
    let start = |prompt: &str, options: &GenerateOptions| {
        lm.generate(&Prompt::from(prompt), options).map(|_| ())
    };
    assert!(matches!(
        start("", &GenerateOptions::greedy()),
        Err(Error::EmptyPrompt)
    ));
    assert!(matches!(
        start("a", &GenerateOptions::greedy().with_stop("")),
        Err(Error::Engine(_))
    ));
    assert!(matches!(
        start("a", &GenerateOptions::greedy().with_temperature(-1.0)),
        Err(Error::Engine(_))
    ));
    let unknown = Prompt::Tokens(vec![5, 100_000]);
    let error = lm
        .generate(&unknown, &GenerateOptions::greedy())
        .unwrap()
        .next()
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Engine(dunlin::EngineError::TokenOutOfRange { token: 100_000, .. })
        ),
        "{error:?}"
    );
    assert!(!greedy(&lm, PROMPT, 5).is_empty());
}

#[test]
fn a_second_generation_waits_for_the_first() {
    let lm = tiny();
    let expected = [greedy(&lm, "One", 40), greedy(&lm, "Two", 40)];
    let answers: Vec<String> = std::thread::scope(|scope| {
        let run = |text: &'static str| {
            let lm = lm.clone();
            scope.spawn(move || greedy(&lm, text, 40))
        };
        let threads: Vec<_> = (0..6).map(|index| run(["One", "Two"][index % 2])).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, expected[index % 2]);
    }
}
