//! Weights that have other types in memory than in the file: the plan, the estimate, the loading, sessions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use common::{conformance, fixture, greedy, log_probabilities, options, tiny, tiny_ref};
use dunlin::{
    Conversation, DType, Error, FitOptions, FormatError, GenerateOptions, Lm, LoadEvent,
    MemoryEstimate, ModelRef, SaveOptions, TensorTypes, TypeFallback, TypePlan, fit_with,
};

/// A tiny llama with a tied head, whose rows are whole blocks of 256.
fn wide() -> Option<PathBuf> {
    Some(conformance()?.join("quant/model-F32.gguf"))
}

fn partial() -> TensorTypes {
    TensorTypes::new()
        .with_tensor_type("attn_v", DType::Q8_0)
        .with_tensor_type(r"^output\.", DType::Q8_0)
        .with_weight_type(DType::Q4_K)
}

fn error_of(path: &Path, types: TensorTypes) -> Error {
    TypePlan::for_model(path, &types).unwrap_err()
}

#[test]
fn the_first_pattern_decides_and_the_rest_gets_the_weight_type() {
    let Some(path) = wide() else { return };
    let plan = TypePlan::for_model(&path, &partial()).unwrap();
    let to = |name: &str| {
        let tensor = plan.tensors.iter().find(|tensor| tensor.tensor == name);
        tensor.map(|tensor| tensor.to)
    };
    assert_eq!(to("blk.0.attn_v.weight"), Some(DType::Q8_0));
    // The tied head answers to the name that a head of its own would have.
    assert_eq!(to("token_embd.weight"), Some(DType::Q8_0));
    assert_eq!(to("blk.0.attn_output.weight"), Some(DType::Q4_K));
    assert_eq!(to("blk.0.attn_norm.weight"), None);
    assert_eq!(plan.tensors.len(), 8);
    assert!(plan.changes().all(|tensor| tensor.from == DType::F32));
    assert_eq!(
        plan.notes(),
        ["matrices that are converted while loading: 2 from F32 to Q8_0, 6 from F32 to Q4_K"]
    );

    let first = TensorTypes::new()
        .with_tensor_type(r"attn_[qk]\.", DType::Q5_0)
        .with_tensor_type("attn", DType::Q6_K);
    let plan = TypePlan::for_model(&path, &first).unwrap();
    let types = Vec::from_iter(plan.tensors.iter().map(|t| (&t.tensor[6..], t.to)));
    assert_eq!(
        types,
        [
            ("attn_k.weight", DType::Q5_0),
            ("attn_output.weight", DType::Q6_K),
            ("attn_q.weight", DType::Q5_0),
            ("attn_v.weight", DType::Q6_K),
        ]
    );
}

#[test]
fn patterns_that_decide_nothing_are_refused_with_the_reason() {
    let Some(path) = wide() else { return };
    for (types, says) in [
        (
            TensorTypes::new().with_tensor_type("attn_qkv", DType::Q8_0),
            "the matrices of this model are attn_k, attn_output, attn_q, attn_v, ffn_down, ffn_gate, ffn_up, token_embd",
        ),
        (
            TensorTypes::new().with_tensor_type("attn_norm", DType::Q8_0),
            "it matches blk.0.attn_norm.weight, and only matrices",
        ),
        (
            TensorTypes::new()
                .with_tensor_type("attn", DType::Q8_0)
                .with_tensor_type("attn_v", DType::Q4_0),
            "by an earlier pattern",
        ),
    ] {
        let error = error_of(&path, types);
        assert!(matches!(error, Error::TensorPatternUnused { .. }));
        assert!(error.to_string().contains(says), "{error}");
    }
    let error = error_of(
        &path,
        TensorTypes::new().with_tensor_type("attn_(v", DType::Q8_0),
    );
    assert!(matches!(&error, Error::TensorPattern { pattern, .. } if pattern == "attn_(v"));
    for types in [
        TensorTypes::new().with_weight_type(DType::IQ3_S),
        TensorTypes::new().with_tensor_type("attn", DType::IQ3_S),
    ] {
        let error = error_of(&path, types);
        let Error::Format(FormatError::UnsupportedEncoding { dtype }) = error else {
            panic!("{error}");
        };
        assert_eq!(dtype, DType::IQ3_S);
    }
}

#[test]
fn narrow_rows_are_refused_or_said() {
    // Rows of 64 and 96.
    let path = fixture("tiny.gguf");
    let types = TensorTypes::new().with_weight_type(DType::Q4_K);
    let error = error_of(&path, types.clone());
    assert!(
        matches!(
            error,
            Error::TensorWidth {
                columns: 64,
                dtype: DType::Q4_K,
                wider: DType::Q5_0,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("--type-fallback"), "{error}");
    let load = options().with_weight_type(DType::Q4_K);
    assert!(matches!(
        Lm::load(tiny_ref(), load),
        Err(Error::TensorWidth { .. })
    ));

    let types = types.with_fallback(TypeFallback::Wider);
    let mut told = Vec::new();
    let lm = {
        let load = options()
            .with_tensor_types(types.clone())
            .with_progress(|event| {
                if let LoadEvent::Converting(plan) = event {
                    told.push(plan);
                }
                ControlFlow::Continue(())
            });
        Lm::load(tiny_ref(), load).unwrap()
    };
    let plan = TypePlan::for_model(&path, &types).unwrap();
    assert_eq!(told, std::slice::from_ref(&plan));
    assert_eq!(lm.type_plan(), &plan);
    assert_eq!(plan.fallbacks().count(), plan.tensors.len());
    let notes = plan.notes();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("Q5_0 instead of Q4_K") && note.contains("rows of 64")),
        "{notes:?}"
    );
}

#[test]
fn loading_can_be_cancelled_before_the_first_weight_and_on_the_way() {
    let Some(path) = wide() else { return };
    for at in [1, 4] {
        let mut events = 0;
        let load = options()
            .with_tensor_types(partial())
            .with_progress(|event| {
                events += usize::from(!matches!(event, LoadEvent::Hub(_)));
                match events {
                    events if events >= at => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            });
        let result = Lm::load(ModelRef::Path(path.clone()), load);
        assert!(matches!(result, Err(Error::Cancelled)), "{at}");
    }
}

#[test]
fn types_of_weights_do_not_go_with_weights_left_in_the_file() {
    let load = options()
        .with_weight_type(DType::Q8_0)
        .with_mapped_weights(true);
    assert!(matches!(
        Lm::load(tiny_ref(), load),
        Err(Error::MappedConversion)
    ));
    let types = TensorTypes::new().with_weight_type(DType::Q8_0);
    let options = FitOptions::new()
        .with_mapped_weights(true)
        .with_tensor_types(types.clone());
    let path = fixture("tiny.gguf");
    let estimate = MemoryEstimate::with_options(&path, 64, &options);
    assert!(matches!(estimate, Err(Error::MappedConversion)));
    // A fit does not leave them in the file, either, where nothing else fits.
    let options = FitOptions::new().with_tensor_types(types);
    let mapped = fit_with(&path, 1, &FitOptions::new().with_mapped_weights(true));
    let (Err(Error::DoesNotFit { needed: least, .. }), Err(Error::DoesNotFit { needed, .. })) =
        (mapped, fit_with(&path, 1, &options))
    else {
        panic!("something fits into a byte");
    };
    assert!(needed > least);
}

#[test]
fn estimate_and_fit_are_what_is_loaded() {
    let Some(path) = wide() else { return };
    let plain = MemoryEstimate::for_model(&path, 512).unwrap();
    for types in [
        partial(),
        TensorTypes::new().with_weight_type(DType::Q2_K),
        TensorTypes::new().with_weight_type(DType::F16),
        TensorTypes::new().with_tensor_type("ffn", DType::Q6_K),
    ] {
        let options = FitOptions::new().with_tensor_types(types);
        let promised = MemoryEstimate::with_options(&path, 512, &options).unwrap();
        assert!(promised.weights < plain.weights);
        let fit = fit_with(
            &path,
            promised.total(),
            &options.clone().with_longest_context(512),
        );
        let fit = fit.unwrap();
        assert_eq!((fit.context_length, fit.memory), (512, promised));
        let lm = Lm::load(ModelRef::Path(path.clone()), fit.apply(common::options())).unwrap();
        // Norms are floats beside the packed matrices.
        let norms = 3 * 256 * 4;
        assert_eq!(lm.memory().weights + norms, promised.weights);
    }
}

#[test]
fn answers_with_eight_bits_are_those_of_the_file_and_fewer_bits_are_farther() {
    let Some(path) = wide() else { return };
    let load = |types: TensorTypes| {
        let load = options().with_tensor_types(types);
        Lm::load(ModelRef::Path(path.clone()), load).unwrap()
    };
    let exact = load(TensorTypes::new());
    assert!(exact.type_plan().tensors.is_empty());
    let ids = Vec::from_iter((0..40).map(|i| i * 37 % 480));
    let golden = log_probabilities(&exact, &ids);
    let divergence = |types: TensorTypes| -> f64 {
        let found = log_probabilities(&load(types), &ids);
        golden
            .iter()
            .zip(&found)
            .map(|(p, q)| p.exp() * (p - q))
            .sum()
    };
    let all = |dtype| TensorTypes::new().with_weight_type(dtype);
    let (q8, q4, q2) = (all(DType::Q8_0), all(DType::Q4_K), all(DType::Q2_K));
    let found = [q8, partial(), q4, q2].map(divergence);
    println!("Q8_0, partly, Q4_K, Q2_K: {found:?}");
    assert!(found.is_sorted() && found[0] < 1e-3, "{found:?}");
}

#[test]
fn a_session_of_other_types_of_weights_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session");
    let plain = tiny();
    let load = |dtype| Lm::load(tiny_ref(), options().with_weight_type(dtype)).unwrap();
    let converted = load(DType::Q8_0);
    // The same in another way.
    let same = options().with_tensor_type(".", DType::Q8_0);
    let same = Lm::load(tiny_ref(), same).unwrap();
    let mut talk =
        Conversation::new(&converted).with_options(GenerateOptions::greedy().with_max_tokens(8));
    talk.ask("Hello").unwrap();
    let saved = talk.save(&path, &SaveOptions::new()).unwrap();
    assert!(saved.kv_tokens > 0);
    Conversation::restore(&same, &path).unwrap();
    for other in [&plain, &load(DType::Q4_0)] {
        let error = Conversation::restore(other, &path).map(|_| ()).unwrap_err();
        let Error::SessionMismatch { what, session, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*what, "types of weights");
        assert!(session.contains("Q8_0"), "{error}");
    }
    // Tokens alone are the same for any weights.
    talk.save(&path, &SaveOptions::new().with_kv(false))
        .unwrap();
    Conversation::restore(&plain, &path).unwrap();
    assert!(!greedy(&plain, "Hi", 4).is_empty());
}
