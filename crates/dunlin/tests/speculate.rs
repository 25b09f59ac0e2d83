//! Speculation changes the speed of an answer and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::path::{Path, PathBuf};

use common::{conformance, fixture, options, tiny};
use dunlin::{
    Completion, DraftLength, DraftModel, Error, GenerateOptions, Lm, ModelRef, Prompt,
    SamplerConfig, Speculation,
};
use dunlin_format::{Gguf, GgufWriter, StringArray};

const FIXED: [usize; 4] = [1, 3, 7, 100];

fn lookup(length: DraftLength) -> Speculation {
    Speculation::PromptLookup { length }
}

/// A text with much that repeats and some that does not.
fn repetitive() -> Prompt {
    Prompt::from("let a = b + c; let d = b + e; let a = b + c; let d = b + ".repeat(3))
}

/// Settings whose choices depend on random numbers, or on the tokens before.
fn samplers() -> Vec<SamplerConfig> {
    let greedy = SamplerConfig::greedy();
    let default = SamplerConfig::default();
    vec![
        greedy.clone(),
        SamplerConfig {
            repetition_penalty: 1.3,
            ..greedy.clone()
        },
        SamplerConfig {
            frequency_penalty: 0.4,
            presence_penalty: 0.2,
            repetition_window: 9,
            ..greedy
        },
        default.clone(),
        SamplerConfig {
            temperature: 0.3,
            ..default.clone()
        },
        SamplerConfig {
            temperature: 1.5,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.1,
            ..default
        },
    ]
}

fn complete(lm: &Lm, prompt: &Prompt, options: &GenerateOptions) -> Completion {
    lm.clear_cache();
    let completion = lm.generate(prompt, options).unwrap().complete().unwrap();
    let usage = completion.usage;
    assert!(usage.accepted_tokens <= usage.drafted_tokens);
    completion
}

/// Generates with and without and compares what can be seen; returns drafted and accepted tokens.
fn compare(lm: &Lm, prompt: &Prompt, options: &GenerateOptions) -> (usize, usize) {
    let off = options.clone().with_speculation(Speculation::Off);
    let plain = complete(lm, prompt, &off);
    assert_eq!(plain.usage.drafted_tokens, 0);
    let mut counts = (0, 0);
    let lengths = FIXED.map(DraftLength::Fixed);
    for length in lengths.into_iter().chain([DraftLength::Adaptive]) {
        let options = options.clone().with_speculation(lookup(length));
        let found = complete(lm, prompt, &options);
        assert_eq!(found.tokens, plain.tokens, "{length:?} {options:?}");
        assert_eq!(found.text, plain.text);
        assert_eq!(found.finish_reason, plain.finish_reason);
        let usage = found.usage;
        assert_eq!(
            usage.completion_tokens, plain.usage.completion_tokens,
            "{length:?}"
        );
        assert!(usage.completion_steps <= plain.usage.completion_steps);
        counts.0 += usage.drafted_tokens;
        counts.1 += usage.accepted_tokens;
    }
    counts
}

#[test]
fn every_sampler_gives_the_same_answer_with_and_without() {
    let lm = tiny();
    let (mut drafted, mut accepted) = (0, 0);
    for sampler in samplers() {
        for seed in 1..4 {
            let options = GenerateOptions::new()
                .with_sampler(sampler.clone())
                .with_seed(seed)
                .with_max_tokens(60);
            let counts = compare(&lm, &repetitive(), &options);
            drafted += counts.0;
            accepted += counts.1;
        }
    }
    println!("{accepted} of {drafted} guesses were right");
    assert!(accepted > 0 && accepted < drafted);
}

#[test]
fn every_family_gives_the_same_answer_with_and_without() {
    let Some(folder) = conformance() else { return };
    for name in [
        "llama",
        "mistral_swa",
        "qwen2",
        "qwen3",
        "gemma2",
        "gemma3",
        "gemma4",
        "phi4_mini",
        "smollm3",
        "granite",
        "olmo2",
    ] {
        let path = folder.join(name).join("model.gguf");
        let lm = Lm::load(ModelRef::Path(path), options()).unwrap();
        let ids = Vec::from_iter((0..40).map(|at| 300 + at % 13));
        for options in [GenerateOptions::greedy(), GenerateOptions::new()] {
            let options = options.with_seed(5).with_max_tokens(40);
            compare(&lm, &Prompt::Tokens(ids.clone()), &options);
        }
    }
}

#[test]
fn an_answer_ends_where_it_would_have_ended() {
    let lm = tiny();
    let options = GenerateOptions::greedy();
    // Limits of every length, so that they fall before, into and behind guesses.
    for limit in 0..24 {
        compare(&lm, &repetitive(), &options.clone().with_max_tokens(limit));
    }
    let whole = complete(&lm, &repetitive(), &options.clone().with_max_tokens(60)).text;
    let characters = Vec::from_iter(whole.chars());
    for at in [3, 10, 31] {
        let stop = String::from_iter(&characters[at..at + 3]);
        let options = options.clone().with_max_tokens(60).with_stop(stop);
        compare(&lm, &repetitive(), &options);
    }
    // The context's end.
    for length in 620..=640 {
        let ids = Vec::from_iter((0..length).map(|at| 32 + at % 7));
        compare(&lm, &Prompt::Tokens(ids), &options);
    }
}

#[test]
fn an_end_of_generation_token_among_the_guesses_ends_the_answer() {
    let lm = tiny();
    let end = lm.tokenizer().token_id("<|im_end|>").unwrap();
    let run = [70, 71, 72, end, 73, 74];
    let ids = Vec::from_iter(run.iter().copied().cycle().take(6 * 6 + 1));
    // Each token is followed by the one that follows it in the run.
    for bias in [10.0, 1000.0] {
        let sampler = SamplerConfig {
            logit_bias: run.iter().map(|token| (*token, bias)).collect(),
            ..SamplerConfig::default()
        };
        for seed in 0..20 {
            let options = GenerateOptions::new()
                .with_sampler(sampler.clone())
                .with_seed(seed)
                .with_max_tokens(30);
            compare(&lm, &Prompt::Tokens(ids.clone()), &options);
            let mut on = options;
            on.ignore_end_of_text = true;
            compare(&lm, &Prompt::Tokens(ids.clone()), &on);
        }
    }
}

#[test]
fn a_conversation_goes_on_after_an_answer_that_was_dropped_among_guesses() {
    let lm = tiny();
    let options = GenerateOptions::greedy()
        .with_max_tokens(40)
        .with_speculation(lookup(DraftLength::Fixed(7)));
    let whole = complete(&lm, &repetitive(), &options);
    for taken in 1..12 {
        let mut generation = lm.generate(&repetitive(), &options).unwrap();
        for _ in 0..taken {
            generation.next().unwrap().unwrap();
        }
        drop(generation);
        let again = lm.generate(&repetitive(), &options).unwrap();
        assert_eq!(again.complete().unwrap().tokens, whole.tokens, "{taken}");
    }
}

#[test]
fn a_model_with_recurrent_layers_does_not_guess_and_says_so_when_told_to() {
    let Some(folder) = conformance() else { return };
    for name in ["qwen3_5", "lfm2"] {
        let path = folder.join(name).join("model.gguf");
        let lm = Lm::load(ModelRef::Path(path), options()).unwrap();
        let prompt = Prompt::Tokens(Vec::from_iter((0..40).map(|at| 300 + at % 5)));
        let options = GenerateOptions::greedy().with_max_tokens(20);
        assert_eq!(complete(&lm, &prompt, &options).usage.drafted_tokens, 0);
        let told = options.with_speculation(lookup(DraftLength::Adaptive));
        let error = lm.generate(&prompt, &told).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::CannotSpeculate { .. }), "{error:?}");
        assert!(error.to_string().contains("--speculate off"), "{error}");
    }
}

/// The real models of the folder that `DUNLIN_MODELS` names.
fn real_models() -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os("DUNLIN_MODELS").map(PathBuf::from) else {
        println!("skipped: no real models (set DUNLIN_MODELS to their folder)");
        return Vec::new();
    };
    let names = ["smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b"];
    let paths = names.map(|name| folder.join(format!("{name}.gguf")));
    paths.into_iter().filter(|path| path.is_file()).collect()
}

#[test]
fn real_models_give_the_same_answer_with_and_without() {
    let code = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    \
                return width * height * depth\n";
    let prompt = Prompt::from(format!("{code}\n# The same again:\n{code}\n# And again:\n"));
    for path in real_models() {
        let lm = Lm::load(ModelRef::Path(path.clone()), options()).unwrap();
        for options in [GenerateOptions::greedy(), GenerateOptions::new()] {
            let options = options.with_seed(11).with_max_tokens(60);
            let (drafted, accepted) = compare(&lm, &prompt, &options);
            println!("{}: {accepted} of {drafted} right", path.display());
            assert!(accepted > 0, "{}", path.display());
        }
    }
}

/// The tiny model with other weights in its first layer, and the text of one token changed where `token` says so.
fn relative(folder: &Path, token: Option<usize>) -> ModelRef {
    let gguf = Gguf::open(&fixture("tiny.gguf")).unwrap();
    let mut metadata = gguf.metadata().clone();
    if let Some(token) = token {
        let key = "tokenizer.ggml.tokens";
        let texts = metadata.require_strings(key).unwrap().iter().enumerate();
        let texts = texts.map(|(id, text)| if id == token { "other" } else { text });
        let texts = texts.collect::<StringArray>();
        metadata.insert(key, texts);
    }
    let mut writer = GgufWriter::new(metadata);
    for tensor in gguf.tensors() {
        let mut bytes = gguf.data(tensor).to_vec();
        if tensor.name == "blk.0.ffn_down.weight" {
            bytes.fill(0);
        }
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.dtype, bytes);
    }
    let path = folder.join("relative.gguf");
    let mut file = std::fs::File::create(&path).unwrap();
    writer.write(&mut file).unwrap();
    ModelRef::Path(path)
}

#[test]
fn a_draft_model_changes_nothing_whether_it_is_right_or_not() {
    let lm = tiny();
    let folder = tempfile::tempdir().unwrap();
    let itself = DraftModel::load(common::tiny_ref(), options()).unwrap();
    let other = DraftModel::load(relative(folder.path(), None), options()).unwrap();
    for (model, is_right) in [(itself, true), (other, false)] {
        for sampler in samplers() {
            let options = GenerateOptions::new()
                .with_sampler(sampler)
                .with_seed(3)
                .with_max_tokens(40);
            let off = options.clone().with_speculation(Speculation::Off);
            let prompt = Prompt::from("Once upon a time");
            let plain = complete(&lm, &prompt, &off);
            for length in [
                DraftLength::Fixed(1),
                DraftLength::Fixed(5),
                DraftLength::Adaptive,
            ] {
                let model = model.clone();
                let options = options
                    .clone()
                    .with_speculation(Speculation::Draft { model, length });
                let found = complete(&lm, &prompt, &options);
                assert_eq!(found.tokens, plain.tokens, "{length:?} {options:?}");
                assert_eq!(found.finish_reason, plain.finish_reason);
                let usage = found.usage;
                if length == DraftLength::Fixed(5) && options.sampler == SamplerConfig::greedy() {
                    let all = usage.accepted_tokens == usage.drafted_tokens;
                    assert_eq!(all, is_right, "{usage:?}");
                    assert!(usage.accepted_tokens > 0, "{usage:?}");
                }
            }
        }
    }
}

#[test]
fn a_draft_model_guesses_as_far_as_its_context_goes() {
    let lm = tiny();
    let short = options().with_context_length(40);
    let model = DraftModel::load(common::tiny_ref(), short).unwrap();
    let options = GenerateOptions::greedy().with_max_tokens(60);
    let prompt = Prompt::from("Once upon a time");
    let plain = complete(
        &lm,
        &prompt,
        &options.clone().with_speculation(Speculation::Off),
    );
    let length = DraftLength::Fixed(4);
    let options = options.with_speculation(Speculation::Draft { model, length });
    let found = complete(&lm, &prompt, &options);
    assert_eq!(found.tokens, plain.tokens);
    assert!(found.usage.drafted_tokens > 0 && found.usage.drafted_tokens < 40);
}

#[test]
fn a_draft_model_with_other_tokens_is_refused_with_the_first_that_differs() {
    let lm = tiny();
    let folder = tempfile::tempdir().unwrap();
    let model = DraftModel::load(relative(folder.path(), Some(97)), options()).unwrap();
    let length = DraftLength::Adaptive;
    let options = GenerateOptions::greedy().with_speculation(Speculation::Draft { model, length });
    let error = lm
        .generate(&repetitive(), &options)
        .map(|_| ())
        .unwrap_err();
    let Error::DraftVocabulary { id, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(id, 97);
    assert!(error.to_string().contains("\"other\""), "{error}");
}

#[test]
fn a_draft_model_must_be_able_to_take_a_guess_back() {
    let Some(folder) = conformance() else { return };
    let path = folder.join("lfm2").join("model.gguf");
    let error = DraftModel::load(ModelRef::Path(path), options()).unwrap_err();
    assert!(matches!(error, Error::CannotSpeculate { .. }), "{error:?}");
}
