//! Log-probabilities of an answer, and the settings that a model recommends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use common::{fixture, log_probabilities, options, tiny};
use dunlin::{
    DraftLength, Error, GenerateOptions, Lm, ModelRef, Prompt, SamplerConfig, SamplerStep,
    Speculation,
};
use dunlin_format::{Gguf, GgufWriter, Metadata, Value};

const REPEATING: &str = "one two three one two three one two three one two";

/// Against the softmax of the scores that the engine gives for the same tokens, computed here.
#[test]
fn logprobs_are_the_softmax_of_the_models_scores_whatever_the_sampler_does() {
    let lm = tiny();
    let vocab_size = lm.tokenizer().vocab_size();
    let prompt = Prompt::from(REPEATING);
    let sampler = SamplerConfig {
        temperature: 1.5,
        top_k: 5,
        repetition_penalty: 1.3,
        dry_multiplier: 0.8,
        ..SamplerConfig::default()
    };
    let mut options = GenerateOptions::new()
        .with_sampler(sampler)
        .with_max_tokens(20)
        .with_seed(9)
        .with_logprobs(4);
    for speculation in [
        Speculation::Off,
        Speculation::PromptLookup {
            length: DraftLength::Fixed(6),
        },
    ] {
        options.speculation = speculation;
        let answer = lm.generate(&prompt, &options).unwrap().complete().unwrap();
        let logprobs = answer.logprobs.unwrap();
        assert_eq!(logprobs.len(), answer.tokens.len());
        let mut text = lm.encode_prompt(&prompt, &options).unwrap();
        for (entry, token) in logprobs.iter().zip(&answer.tokens) {
            let row = log_probabilities(&lm, &text);
            let logprob = |token: u32| row[token as usize];
            assert_eq!(entry.token, *token);
            assert_eq!(entry.bytes, lm.tokenizer().piece_bytes(*token).unwrap());
            assert!((f64::from(entry.logprob) - logprob(*token)).abs() < 1e-4);
            let mut order: Vec<u32> = (0..vocab_size as u32).collect();
            order.sort_by(|a, b| logprob(*b).total_cmp(&logprob(*a)));
            let top: Vec<u32> = entry.top.iter().map(|other| other.token).collect();
            assert_eq!(top, order[..4]);
            for other in &entry.top {
                assert!((f64::from(other.logprob) - logprob(other.token)).abs() < 1e-4);
            }
            text.push(*token);
        }
    }
}

#[test]
fn logprobs_are_there_only_where_they_are_asked_for_and_change_no_token() {
    let lm = tiny();
    let prompt = Prompt::from(REPEATING);
    let options = GenerateOptions::new().with_max_tokens(12).with_seed(5);
    let without = lm.generate(&prompt, &options).unwrap().complete().unwrap();
    assert_eq!(without.logprobs, None);
    let options = options.with_logprobs(0);
    let with = lm.generate(&prompt, &options).unwrap().complete().unwrap();
    assert_eq!(with.tokens, without.tokens);
    let logprobs = with.logprobs.unwrap();
    assert!(logprobs.iter().all(|entry| entry.top.is_empty()));
}

/// The tiny model with further metadata.
fn recommending(name: &str, keys: &[(&str, Value)]) -> Lm {
    let folder = std::env::temp_dir().join("dunlin-sdk-tests");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}-{}.gguf", std::process::id()));
    let tiny = Gguf::open(&fixture("tiny.gguf")).unwrap();
    let mut metadata: Metadata = tiny.metadata().clone();
    for (key, value) in keys {
        metadata.insert(format!("general.sampling.{key}"), value.clone());
    }
    let mut writer = GgufWriter::new(metadata);
    for tensor in tiny.tensors() {
        let bytes = tiny.data(tensor).to_vec();
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.dtype, bytes);
    }
    writer.write_to(&path).unwrap();
    let lm = Lm::load(ModelRef::Path(path.clone()), options()).unwrap();
    std::fs::remove_file(path).unwrap();
    lm
}

#[test]
fn a_model_that_recommends_nothing_has_the_default() {
    let lm = tiny();
    assert!(lm.info().sampling.is_empty());
    assert_eq!(lm.default_sampler().unwrap(), SamplerConfig::default());
}

#[test]
fn what_the_file_recommends_is_the_default_of_the_model() {
    let lm = recommending(
        "recommends",
        &[
            ("temp", Value::F32(0.6)),
            ("top_k", Value::I32(20)),
            ("top_p", Value::F32(0.9)),
            ("min_p", Value::F32(0.0)),
            ("penalty_repeat", Value::F32(1.05)),
            ("penalty_last_n", Value::I32(128)),
            ("xtc_probability", Value::F32(0.25)),
            ("sequence", Value::String("temperature;top_k;xtc".into())),
        ],
    );
    let expected = SamplerConfig {
        temperature: 0.6,
        top_k: 20,
        top_p: 0.9,
        min_p: 0.0,
        repetition_penalty: 1.05,
        repetition_window: 128,
        xtc_probability: 0.25,
        chain: vec![
            SamplerStep::Temperature,
            SamplerStep::TopK,
            SamplerStep::Xtc,
        ],
        ..SamplerConfig::default()
    };
    assert_eq!(lm.default_sampler().unwrap(), expected);
    let options = GenerateOptions::for_model(&lm).unwrap();
    assert_eq!(options.sampler, expected);
    let explicit = options.with_temperature(0.1).sampler;
    assert_eq!((explicit.temperature, explicit.top_k), (0.1, 20));
    // Nothing changes for who does not ask.
    assert_eq!(GenerateOptions::new().sampler, SamplerConfig::default());
    let entries = lm.info().sampling.entries();
    assert!(
        entries.contains(&("temperature", "0.6".to_owned())),
        "{entries:?}"
    );
}

#[test]
fn a_recommendation_that_cannot_be_followed_is_named() {
    for (name, key, value) in [
        ("range", "temp", Value::F32(-1.0)),
        ("type", "top_p", Value::String("much".into())),
        ("version", "mirostat", Value::I32(1)),
        ("step", "sequence", Value::String("top_k;infill".into())),
    ] {
        let lm = recommending(name, &[(key, value)]);
        let error = lm.default_sampler().unwrap_err();
        assert!(matches!(error, Error::SamplingMetadata { .. }), "{error}");
        assert!(error.to_string().contains("general.sampling"), "{error}");
    }
}

#[test]
fn mirostat_leaves_the_chain_aside() {
    let keys = [
        ("mirostat", Value::I32(2)),
        ("mirostat_tau", Value::F32(4.0)),
        ("penalty_repeat", Value::F32(1.1)),
    ];
    let config = recommending("mirostat", &keys).default_sampler().unwrap();
    let mirostat = config.mirostat.unwrap();
    assert_eq!((mirostat.tau, mirostat.eta), (4.0, 0.1));
    assert_eq!(config.repetition_penalty, 1.0);
}

#[test]
fn dry_takes_its_breakers_from_texts() {
    let lm = tiny();
    let prompt = Prompt::from("abc: abc: abc: abc: abc: abc:");
    let sampler = SamplerConfig {
        dry_multiplier: 2.0,
        ..SamplerConfig::greedy()
    };
    let options = GenerateOptions::new()
        .with_sampler(sampler)
        .with_max_tokens(6);
    let run = |options: &GenerateOptions| {
        let answer = lm.generate(&prompt, options).unwrap().complete().unwrap();
        answer.tokens
    };
    // Whether a breaker is given as a text or as the tokens with that text is the same.
    let as_text = options.clone().with_dry_breakers([":"]);
    let mut as_tokens = options.with_dry_breakers(Vec::<String>::new());
    let vocabulary = 0..lm.tokenizer().vocab_size() as u32;
    as_tokens.sampler.dry_breakers = vocabulary
        .filter(|token| lm.tokenizer().piece(*token).unwrap().contains(':'))
        .map(|token| vec![token])
        .collect();
    assert_eq!(run(&as_text), run(&as_tokens));
    let empty = as_text.with_dry_breakers([""]);
    assert!(matches!(
        lm.generate(&prompt, &empty),
        Err(Error::Engine(_))
    ));
}
