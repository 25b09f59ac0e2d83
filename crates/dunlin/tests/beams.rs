//! Beam search and the best of several answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use common::{conformance, log_probabilities, options, tiny};
use dunlin::{
    BeamOptions, CancelToken, Error, FinishReason, GenerateOptions, KvElement, Lm, ModelRef,
    Prompt, ScoredCompletion,
};
use serde_json::Value;

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The sum of the log-probabilities of `answer` behind `prompt`.
fn log_probability(lm: &Lm, prompt: &[u32], answer: &[u32]) -> f64 {
    let all = [prompt, answer].concat();
    let at = |(index, token): (usize, &u32)| {
        log_probabilities(lm, &all[..prompt.len() + index])[*token as usize]
    };
    answer.iter().enumerate().map(at).sum()
}

/// The answers of `generate(num_beams=..)` of transformers, made by `fixtures/make_beams.py`.
#[test]
fn beams_end_where_those_of_transformers_end() {
    let Some(folder) = conformance() else { return };
    let cases: Value = serde_json::from_str(include_str!("fixtures/beams.json")).unwrap();
    let cases = cases.as_array().unwrap();
    let mut ended = 0;
    for name in ["llama", "qwen3"] {
        let path = folder.join(name).join("model.gguf");
        let exact = options().with_kv_element(KvElement::F32);
        let lm = Lm::load(ModelRef::Path(path), exact).unwrap();
        for case in cases.iter().filter(|case| case["model"] == name) {
            assert_eq!(lm.tokenizer().end_of_generation(), ids(&case["end"]));
            let power = case["length_penalty"].as_f64().unwrap();
            let mut options = BeamOptions::new()
                .with_max_tokens(case["max_tokens"].as_u64().unwrap() as usize)
                .with_length_penalty(power as f32);
            options.early_stopping = case["early_stopping"].as_bool().unwrap();
            let beams = case["beams"].as_u64().unwrap() as usize;
            let prompt = Prompt::Tokens(ids(&case["prompt"]));
            let found = lm.beam_search(&prompt, beams, &options).unwrap();
            let expected = case["answers"].as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{case}");
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!(found.completion.tokens, ids(&expected["tokens"]), "{case}");
                let is_ended = found.completion.finish_reason == FinishReason::EndOfText;
                assert_eq!(is_ended, expected["ended"].as_bool().unwrap());
                ended += usize::from(is_ended);
                if let Some(score) = expected["score"].as_f64() {
                    // The conformance set allows 2e-3 for each logit; the score adds those of all tokens.
                    let length = found.completion.tokens.len() as f64;
                    let tolerance = 2e-3 * length.powf(1.0 - power);
                    let error = (found.score - score).abs();
                    assert!(error < tolerance, "{error} of {tolerance}: {case}");
                }
            }
        }
    }
    assert!(ended > 0, "some search has an answer that ends");
}

/// With as many beams as matter, nothing better is passed over: compared with all continuations of two tokens.
#[test]
fn the_best_of_all_continuations_is_found() {
    let lm = tiny();
    let prompt = lm.tokenizer().encode("The quick brown fox", false).unwrap();
    let mut best = (f64::NEG_INFINITY, [0; 2]);
    let mut extended = prompt.clone();
    for (first, one) in (0u32..).zip(log_probabilities(&lm, &prompt)) {
        if lm.tokenizer().is_end_of_generation(first) {
            continue;
        }
        extended.truncate(prompt.len());
        extended.push(first);
        for (second, two) in (0u32..).zip(log_probabilities(&lm, &extended)) {
            if one + two > best.0 && !lm.tokenizer().is_end_of_generation(second) {
                best = (one + two, [first, second]);
            }
        }
    }
    let options = BeamOptions::new()
        .with_max_tokens(2)
        .with_length_penalty(0.0);
    let found = lm
        .beam_search(&Prompt::Tokens(prompt), 16, &options)
        .unwrap();
    let complete = found
        .iter()
        .find(|answer| answer.completion.finish_reason == FinishReason::Length);
    let complete = complete.unwrap();
    assert_eq!(complete.completion.tokens, best.1);
    assert!((complete.score - best.0).abs() < 1e-3);
}

#[test]
fn scores_are_those_of_the_tokens_and_the_best_comes_first() {
    let lm = tiny();
    let prompt = lm
        .tokenizer()
        .encode("Once upon a time, there", false)
        .unwrap();
    let options = BeamOptions::new().with_max_tokens(40);
    let search = |lm: &Lm| {
        lm.beam_search(&Prompt::Tokens(prompt.clone()), 3, &options)
            .unwrap()
    };
    let found = search(&lm);
    // What an earlier search has left in the cache changes nothing.
    let again = search(&lm);
    assert!(again[0].completion.usage.cached_prompt_tokens > 0);
    let answers = |found: &[ScoredCompletion]| {
        let answers = found.iter();
        Vec::from_iter(answers.map(|one| (one.completion.tokens.clone(), one.score)))
    };
    assert_eq!(answers(&found), answers(&again));
    assert_eq!(found.len(), 3);
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
    for answer in &found {
        let tokens = &answer.completion.tokens;
        let mut all = tokens.clone();
        if answer.completion.finish_reason == FinishReason::EndOfText {
            all.push(lm.tokenizer().eos().unwrap());
        }
        let mean = log_probability(&lm, &prompt, &all) / all.len() as f64;
        assert!(
            (answer.score - mean).abs() < 1e-3,
            "{} {mean}",
            answer.score
        );
        let text = lm.tokenizer().decode(tokens, false);
        assert_eq!(answer.completion.text, text);
    }
}

#[test]
fn what_a_search_cannot_do_is_said_with_the_numbers() {
    let lm = tiny();
    let prompt = Prompt::from("The quick brown fox");
    let refuse = |beams, options: &BeamOptions| {
        let error = lm.beam_search(&prompt, beams, options).unwrap_err();
        assert!(matches!(error, Error::SearchSetting { .. }), "{error}");
        error.to_string()
    };
    let options = BeamOptions::new();
    assert!(refuse(0, &options).contains("0, allowed is 1 to "));
    assert!(refuse(100_000, &options).contains("100000"));
    assert!(refuse(2, &options.clone().with_length_penalty(f32::NAN)).contains("NaN"));
    // The context holds 640 tokens.
    assert!(refuse(4, &options.with_max_tokens(200)).contains("640"));
    let error = lm.best_of(&prompt, 0, &GenerateOptions::new()).unwrap_err();
    assert!(matches!(error, Error::SearchSetting { .. }), "{error}");
}

#[test]
fn as_much_as_there_is_said_to_be_room_for_fits() {
    let lm = tiny();
    let prompt = Prompt::Tokens(vec![5; 37]);
    // The longer an answer, the better its score.
    let options = BeamOptions::new().with_length_penalty(2.0);
    let found = lm.beam_search(&prompt, 5, &options).unwrap();
    let longest = found.iter().map(|one| one.completion.tokens.len()).max();
    // Of 20 blocks of 32 positions the prompt fills one; each beam has three, the first of which begins with 5 tokens of it.
    assert_eq!(longest, Some(3 * 32 - 5));
    // The model is as before.
    common::greedy(&lm, "Hello", 4);
}

#[test]
fn a_cancelled_search_gives_what_it_has() {
    let lm = tiny();
    let cancel = CancelToken::new();
    cancel.cancel();
    let options = BeamOptions::new().with_cancel(cancel);
    let found = lm.beam_search(&Prompt::from("Hello"), 2, &options).unwrap();
    assert!(
        found
            .iter()
            .any(|one| one.completion.finish_reason == FinishReason::Cancelled)
    );
}

#[test]
fn the_best_of_several_is_the_one_with_the_largest_mean() {
    let lm = tiny();
    let prompt = Prompt::from("The quick brown fox");
    let options = GenerateOptions::new().with_max_tokens(8).with_seed(3);
    let found = lm.best_of(&prompt, 5, &options).unwrap();
    assert_eq!(found.len(), 5);
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
    let mut seeds: Vec<u64> = found.iter().map(|one| one.completion.usage.seed).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [3, 4, 5, 6, 7]);
    let ids = lm.encode_prompt(&prompt, &options).unwrap();
    for answer in &found {
        assert_eq!(answer.completion.logprobs, None);
        let again = options.clone().with_seed(answer.completion.usage.seed);
        let again = lm.generate(&prompt, &again).unwrap().complete().unwrap();
        assert_eq!(again.tokens, answer.completion.tokens);
        let tokens = &answer.completion.tokens;
        if answer.completion.finish_reason == FinishReason::Length {
            let mean = log_probability(&lm, &ids, tokens) / tokens.len() as f64;
            assert!(
                (answer.score - mean).abs() < 1e-3,
                "{} {mean}",
                answer.score
            );
        }
    }
}
