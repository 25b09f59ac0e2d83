//! Loading, metadata and the engineer's windows, on tiny models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::ops::ControlFlow;

use common::{fixture, greedy, options, tiny, tiny_ref};
use dunlin::{
    Capability, DeviceConfiguration, EngineError, Error, GenerateOptions, KvElement, Lm, LoadEvent,
    Message, ModelRef, Prompt, Tier, TokenizerFile,
};
use dunlin_engine::reference::Oracle;
use dunlin_format::Gguf;

fn refusal(result: Result<Lm, Error>) -> Error {
    result.map(|_| ()).unwrap_err()
}

#[test]
fn loads_a_file_and_says_what_it_is() {
    let lm = tiny();
    assert_eq!(lm.context_length(), 640);
    assert_eq!(lm.threads(), 2);
    assert_eq!(lm.info().name.as_deref(), Some("Tiny"));
    assert_eq!(lm.path(), fixture("tiny.gguf"));
    assert!(lm.notes().is_empty() && lm.card().is_some());
}

#[test]
fn layers_on_a_gpu_are_refused_in_a_build_without_one() {
    let device = DeviceConfiguration::cpu().with_gpu_layers(12);
    let error = refusal(Lm::load(tiny_ref(), options().with_device(device)));
    assert!(
        matches!(error, Error::GpuNotInBuild { gpu_layers: 12 }),
        "{error:?}"
    );
}

#[test]
fn a_context_is_refused_that_the_model_was_not_trained_for() {
    for requested in [0, 641] {
        let error = refusal(Lm::load(
            tiny_ref(),
            options().with_context_length(requested),
        ));
        assert!(
            matches!(error, Error::ContextLength { limit: 640, .. }),
            "{error:?}"
        );
    }
    assert_eq!(
        Lm::load(tiny_ref(), options().with_context_length(33))
            .unwrap()
            .context_length(),
        33
    );
}

#[test]
fn loading_reports_bytes_up_to_the_total() {
    let mut seen = Vec::new();
    let report = |event| {
        if let LoadEvent::Loading { done, total } = event {
            seen.push((done, total));
        }
        ControlFlow::Continue(())
    };
    drop(Lm::load(tiny_ref(), options().with_progress(report)).unwrap());
    assert!(seen.is_sorted());
    let (done, total) = *seen.last().unwrap();
    assert_eq!(done, total);
}

#[test]
fn loading_can_be_cancelled() {
    let error = refusal(Lm::load(
        tiny_ref(),
        options().with_progress(|_| ControlFlow::Break(())),
    ));
    assert!(matches!(error, Error::Cancelled), "{error:?}");
}

#[test]
fn what_is_no_model_is_an_error() {
    let missing = refusal(Lm::load(ModelRef::Path("no/such.gguf".into()), options()));
    assert!(matches!(missing, Error::Hub(_)), "{missing:?}");
    let script = refusal(Lm::load(ModelRef::Path(fixture("make_tiny.py")), options()));
    assert!(matches!(script, Error::Format(_)), "{script:?}");
    let folder = refusal(Lm::load(ModelRef::Path(fixture("")), options()));
    assert!(matches!(folder, Error::Folder { .. }), "{folder:?}");
    assert!(matches!(
        Lm::load_from_model_id("no-such-model"),
        Err(Error::Hub(_))
    ));
}

#[test]
fn metadata_are_read_without_the_weights() {
    let info = Lm::open_metadata(&tiny_ref(), &mut options()).unwrap();
    assert_eq!(info.architecture.as_deref(), Some("llama"));
    assert_eq!(
        (info.context_length, info.layer_count, info.hidden_size),
        (Some(640), Some(2), Some(64))
    );
    assert_eq!(info.vocab_size, Some(263));
    assert_eq!(
        (info.tokenizer.as_deref(), info.pre_tokenizer.as_deref()),
        (Some("gpt2"), Some("smollm"))
    );
    assert!(info.has_chat_template && info.unsupported.is_none());
    assert_eq!(info.capabilities, [Capability::Chat, Capability::Tools]);
    let types: Vec<_> = info
        .tensor_types
        .iter()
        .map(|used| (used.name, used.tensors))
        .collect();
    assert_eq!(types, [("F16", 15), ("F32", 5)]);
    let elements: u64 = info.tensor_types.iter().map(|used| used.elements).sum();
    assert_eq!(info.parameters, elements);
}

#[test]
fn the_memory_is_known_before_loading() {
    let expected = Lm::open_metadata(&tiny_ref(), &mut options())
        .unwrap()
        .memory
        .unwrap();
    let measured = tiny().memory();
    assert_eq!(expected.context_length, measured.context_length);
    assert_eq!(expected.kv_cache, measured.kv_cache);
    // 2 layers, keys and values of 2 heads of 16 numbers, 2 bytes each.
    assert_eq!(expected.kv_cache_per_token, 2 * 2 * 2 * 16 * 2);
    let ratio = |a: u64, b: u64| a as f64 / b as f64;
    assert!(
        (0.9..1.1).contains(&ratio(expected.weights, measured.weights)),
        "{expected:?} {measured:?}"
    );
    assert!(
        (0.9..1.1).contains(&ratio(expected.buffers, measured.buffers)),
        "{expected:?} {measured:?}"
    );
}

#[test]
fn weights_left_in_the_file_answer_the_same_and_take_no_memory() {
    let packed = tiny();
    let mapped = Lm::load(tiny_ref(), options().with_mapped_weights(true)).unwrap();
    let text = "The quick brown fox";
    assert_eq!(greedy(&mapped, text, 24), greedy(&packed, text, 24));
    let (packed, mapped) = (packed.memory(), mapped.memory());
    assert_eq!((packed.mapped_weights, mapped.weights), (0, 0));
    assert!(mapped.mapped_weights > 0 && mapped.total() < packed.total());
    assert_eq!(mapped.kv_cache, packed.kv_cache);
    let info = Lm::open_metadata(&tiny_ref(), &mut options()).unwrap();
    let promised = info
        .memory_mapped_with(640, dunlin::KvElement::F16)
        .unwrap();
    assert_eq!(promised.mapped_weights, mapped.mapped_weights);
    assert!(promised.total() < info.memory_for(640).unwrap().total());
}

#[test]
fn a_vocabulary_without_weights_is_enough_to_tokenize() {
    let file =
        TokenizerFile::open(&ModelRef::Path(fixture("tiny-base.gguf")), &mut options()).unwrap();
    let ids = file.tokenizer().encode("the winter", false).unwrap();
    assert_eq!(
        ids.iter()
            .filter_map(|&id| file.tokenizer().piece(id))
            .collect::<Vec<_>>(),
        ["the", " ", "w", "in", "t", "er"]
    );
    let error = refusal(Lm::load(
        ModelRef::Path(fixture("tiny-base.gguf")),
        options(),
    ));
    assert!(
        matches!(error, Error::Engine(EngineError::MissingTensor { .. })),
        "{error:?}"
    );
    let info =
        Lm::open_metadata(&ModelRef::Path(fixture("tiny-base.gguf")), &mut options()).unwrap();
    assert!(info.unsupported.is_some() && info.memory.is_none());
}

#[test]
fn validation_finds_a_sound_file_sound_and_a_cut_one_not() {
    assert!(Lm::validate_format(&fixture("tiny.gguf")).unwrap().is_ok());
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.gguf");
    let bytes = std::fs::read(fixture("tiny.gguf")).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 100]).unwrap();
    assert!(matches!(Lm::validate_format(&cut), Err(Error::Format(_))));
}

/// Scores of the slow, obvious forward pass.
fn oracle(ids: &[u32]) -> Vec<Vec<f32>> {
    let gguf = Gguf::open(&fixture("tiny.gguf")).unwrap();
    Oracle::new(&gguf).unwrap().logits(ids).unwrap()
}

fn exact() -> Lm {
    Lm::load(tiny_ref(), options().with_kv_element(KvElement::F32)).unwrap()
}

#[test]
fn logits_are_those_of_the_oracle_at_every_position_asked_for() {
    let ids: Vec<u32> = (0..300).map(|at| at * 37 % 263).collect();
    let expected = oracle(&ids);
    let positions = [299, 0, 255, 256, 7, 0];
    let lm = exact();
    let rows = lm.logits(&ids, &positions).unwrap();
    for (row, position) in rows.iter().zip(positions) {
        let largest = expected[position]
            .iter()
            .fold(0.0, |most: f32, logit| most.max(logit.abs()));
        let difference = row
            .iter()
            .zip(&expected[position])
            .fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
        assert!(
            difference < 2e-3 * largest,
            "position {position}: {difference} of {largest}"
        );
    }
    assert!(matches!(
        lm.logits(&ids, &[300]),
        Err(Error::Engine(EngineError::PositionOutOfRange { .. }))
    ));
    assert!(matches!(
        lm.logits(&[1; 641], &[]),
        Err(Error::PromptTooLong {
            prompt_tokens: 641,
            ..
        })
    ));
}

#[test]
fn perplexity_is_that_of_the_oracle_by_the_same_windows() {
    let text: String = (0..1100u32)
        .map(|at| char::from(b'a' + (at * at % 26) as u8))
        .collect();
    let lm = exact();
    let ids = lm.tokenizer().encode(&text, false).unwrap();
    let (mut surprise, mut tokens) = (0.0f64, 0);
    for window in ids.chunks_exact(512) {
        let logits = oracle(window);
        for at in 256..511 {
            let sum: f64 = logits[at].iter().map(|&logit| f64::from(logit).exp()).sum();
            surprise += sum.ln() - f64::from(logits[at][window[at + 1] as usize]);
            tokens += 1;
        }
    }
    let measured = lm.perplexity(&text).unwrap();
    assert_eq!(
        (measured.tokens, measured.windows),
        (tokens, ids.len() / 512)
    );
    assert_eq!(measured.running.len(), measured.windows);
    let expected = (surprise / tokens as f64).exp();
    assert!(
        (measured.perplexity / expected - 1.0).abs() < 1e-3,
        "{} {expected}",
        measured.perplexity
    );
    assert!(matches!(
        lm.perplexity("short"),
        Err(Error::TextTooShort { window: 512, .. })
    ));
}

#[test]
fn measuring_leaves_nothing_behind() {
    let lm = tiny();
    let before = common::greedy(&lm, "The", 20);
    lm.logits(&[1, 2, 3], &[2]).unwrap();
    assert_eq!(lm.cached_tokens(), 0);
    assert_eq!(common::greedy(&lm, "The", 20), before);
}

#[test]
fn every_tier_chats() {
    for tier in Tier::available() {
        let device = DeviceConfiguration::cpu().with_threads(1).with_tier(tier);
        let lm = Lm::load(tiny_ref(), options().with_device(device)).unwrap();
        let prompt = Prompt::Chat(vec![Message::system("Be brief."), Message::user("Hello")]);
        let completion = lm
            .generate(&prompt, &GenerateOptions::greedy().with_max_tokens(8))
            .unwrap()
            .complete()
            .unwrap();
        assert_eq!(completion.usage.completion_tokens, 8, "{}", tier.name());
    }
}
