//! Continuations by their probability, compared with the raw scores of the model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{conformance, log_probabilities, options, tiny, tiny_ref};
use dunlin::{Error, GenerateOptions, Lm, Message, ModelRef, Prompt, ScoreOptions};

const PROMPT: &str = "The weather is good and the sky is";

/// The sum of the log-probabilities by the softmax of [`Lm::logits`], computed here; with the end of the answer where it counts.
fn by_logits(lm: &Lm, prompt: &[u32], tokens: &[u32], whole: bool) -> f64 {
    let mut text = prompt.to_vec();
    let mut sum = 0.0;
    for token in tokens {
        sum += log_probabilities(lm, &text)[*token as usize];
        text.push(*token);
    }
    if whole {
        let row = log_probabilities(lm, &text);
        let ends = lm.tokenizer().end_of_generation().iter();
        sum += ends.map(|end| row[*end as usize].exp()).sum::<f64>().ln();
    }
    sum
}

fn assert_as_by_logits(lm: &Lm, prompt: &Prompt, texts: &[&str], whole: bool) {
    let mut options = ScoreOptions::new();
    options.whole = whole;
    let ids = lm.encode_prompt(prompt, &GenerateOptions::new()).unwrap();
    let scores = lm.score_with(prompt, texts, &options).unwrap();
    assert_eq!(scores.len(), texts.len());
    for (score, text) in scores.iter().zip(texts) {
        assert_eq!(
            lm.tokenizer().decode(&score.tokens, false).trim(),
            text.trim()
        );
        let expected = by_logits(lm, &ids, &score.tokens, whole);
        assert!(
            (score.logprob - expected).abs() < 1e-6 * expected.abs().max(1.0),
            "{text:?}: {} and {expected}",
            score.logprob
        );
        assert_eq!(score.choices, score.tokens.len() + usize::from(whole));
    }
}

#[test]
fn scores_are_those_of_the_models_logits() {
    let lm = tiny();
    let texts = [" blue", " a deep blue with some clouds", "", " blue", "x"];
    for whole in [false, true] {
        assert_as_by_logits(&lm, &Prompt::from(PROMPT), &texts, whole);
        let chat = Prompt::Chat(vec![Message::user("Is it good?")]);
        assert_as_by_logits(&lm, &chat, &["yes", "no", "it is not"], whole);
    }
}

#[test]
fn the_order_and_the_company_of_a_continuation_change_nothing() {
    let lm = tiny();
    let prompt = Prompt::from(PROMPT);
    let texts: Vec<String> = (0..40)
        .map(|index| format!(" number {index} of many words"))
        .collect();
    let together = lm.score(&prompt, &texts).unwrap();
    for (text, score) in texts.iter().zip(&together).rev() {
        assert_eq!(&lm.score(&prompt, &[text]).unwrap()[0], score);
    }
}

#[test]
fn long_continuations_and_a_full_context_are_computed_alone() {
    let long = " good and the sky is blue".repeat(60);
    let lm = tiny();
    assert_as_by_logits(&lm, &Prompt::from(PROMPT), &[&long[..300], " blue"], false);
    // Room for the prompt and one of them, but not for another copy of a block.
    let prompt = lm
        .encode_prompt(&Prompt::from(PROMPT), &GenerateOptions::new())
        .unwrap();
    let texts = [" blue and good", " good"];
    let longest = lm.score(&Prompt::from(PROMPT), &texts).unwrap()[0]
        .tokens
        .len();
    let small = options().with_context_length(prompt.len() + longest - 1);
    let small = Lm::load(tiny_ref(), small).unwrap();
    assert_as_by_logits(&small, &Prompt::from(PROMPT), &texts, false);
}

#[test]
fn the_prompt_state_serves_later_answers() {
    let lm = tiny();
    let prompt = Prompt::from(PROMPT);
    lm.score(&prompt, &[" blue"]).unwrap();
    let options = GenerateOptions::greedy().with_max_tokens(4);
    let answer = lm.generate(&prompt, &options).unwrap().complete().unwrap();
    assert_eq!(
        answer.usage.cached_prompt_tokens,
        answer.usage.prompt_tokens - 1
    );
    let fresh = tiny()
        .generate(&prompt, &options)
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(answer.tokens, fresh.tokens);
}

#[test]
fn what_cannot_be_scored_is_an_error() {
    let lm = Lm::load(tiny_ref(), options().with_context_length(40)).unwrap();
    let long = "word ".repeat(100);
    for (prompt, text) in [(long.as_str(), "x"), ("x", long.as_str())] {
        let refused = lm.score(&Prompt::from(prompt), &[text]);
        assert!(matches!(
            refused,
            Err(Error::PromptTooLong {
                context_length: 40,
                ..
            })
        ));
    }
    assert!(
        lm.score::<&str>(&Prompt::from("x"), &[])
            .unwrap()
            .is_empty()
    );
    assert!(matches!(
        lm.score(&Prompt::Tokens(Vec::new()), &["x"]),
        Err(Error::EmptyPrompt)
    ));
}

/// Families with other tokenizers, and one whose state cannot be cut back.
#[test]
fn models_of_other_families_are_scored_the_same_way() {
    let Some(folder) = conformance() else { return };
    for name in ["gemma3", "qwen2", "lfm2", "qwen3_5"] {
        let path = folder.join(name).join("model.gguf");
        let lm = Lm::load(ModelRef::Path(path), options()).unwrap();
        let prompt = Prompt::Tokens((10..50).collect());
        assert_as_by_logits(&lm, &prompt, &["a", "abc def", "b c"], true);
    }
}
