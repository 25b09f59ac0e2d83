//! What fits into so much memory, against the estimates themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{conformance, fixture, greedy, options};
use dunlin::{
    Error, FitOptions, KvElement, KvTypes, Lm, LoadOptions, MemoryEstimate, ModelInfo, fit,
    fit_with,
};

#[test]
fn the_longest_context_is_found_and_one_block_more_does_not_fit() {
    let path = fixture("tiny.gguf");
    let trained = ModelInfo::open(&path).unwrap().context_length.unwrap();
    let total = |tokens| MemoryEstimate::for_model(&path, tokens).unwrap().total();
    let roomy = fit(&path, u64::MAX).unwrap();
    assert_eq!((roomy.context_length, roomy.gpu_layers), (trained, 0));
    assert!(!roomy.mapped_weights);

    let shortest = FitOptions::new().with_shortest_context(1);
    for budget in [
        total(1),
        total(40),
        total(64),
        total(trained) - 1,
        total(trained),
    ] {
        let fit = fit_with(&path, budget, &shortest).unwrap();
        let tokens = fit.context_length;
        assert!(
            fit.memory.total() <= budget
                && fit.memory == MemoryEstimate::for_model(&path, tokens).unwrap()
        );
        assert!(
            tokens == trained || total((tokens / 32 + 1) * 32) > budget,
            "{budget}: {tokens}"
        );
    }
}

#[test]
fn what_does_not_fit_says_what_it_takes() {
    let path = fixture("tiny.gguf");
    let Err(Error::DoesNotFit { needed, budget, .. }) = fit(&path, 1000) else {
        panic!("it fits into 1000 bytes");
    };
    assert!(needed > 1_000_000 && budget == 1000);
    let mapped = FitOptions::new().with_mapped_weights(true);
    let least = fit_with(&path, needed, &mapped).unwrap();
    assert!(least.mapped_weights && least.memory.mapped_weights > 0);
    // Packed weights do not fit, so they are left in the file.
    assert_eq!(fit(&path, needed).unwrap(), least);
    assert!(matches!(
        fit_with(
            &path,
            u64::MAX,
            &FitOptions::new().with_shortest_context(1 << 30)
        ),
        Err(Error::ContextLength { .. })
    ));
    assert!(matches!(
        MemoryEstimate::for_model(&path, 0),
        Err(Error::ContextLength { requested: 0, .. })
    ));
    assert!(MemoryEstimate::for_model(&fixture("make_tiny.py"), 64).is_err());
}

#[test]
fn a_fit_is_applied_to_the_loading() {
    let path = fixture("tiny.gguf");
    let options_32 = FitOptions::new()
        .with_kv_element(KvElement::Q8_0)
        .with_longest_context(64);
    let fit = fit_with(&path, 1 << 40, &options_32).unwrap();
    let lm = Lm::load(dunlin::ModelRef::Path(path), fit.apply(options())).unwrap();
    assert_eq!(lm.context_length(), 64);
    let memory = lm.memory();
    assert_eq!(
        (memory.kv_types, memory.kv_cache),
        (KvElement::Q8_0.into(), fit.memory.kv_cache)
    );
    assert_eq!(memory.context_length, fit.context_length);
}

#[test]
fn a_smaller_cache_leaves_room_for_a_longer_context() {
    let path = fixture("tiny.gguf");
    let longest = |budget: u64, types: KvTypes| {
        let options = FitOptions::new()
            .with_kv_types(types)
            .with_shortest_context(1);
        let fit = fit_with(&path, budget, &options).unwrap();
        assert_eq!(fit.memory.kv_types, types);
        fit.context_length
    };
    // All of the context in each type leaves room for less of it in the one before.
    let from_large_to_small = [
        KvElement::F32.into(),
        KvElement::F16.into(),
        KvTypes::default().with_values(KvElement::Q4_0),
        KvElement::Q8_0.into(),
    ];
    for pair in from_large_to_small.windows(2) {
        let options = FitOptions::new().with_kv_types(pair[1]);
        let estimate = MemoryEstimate::with_options(&path, 64, &options).unwrap();
        assert_eq!(longest(estimate.total(), pair[1]), 64);
        assert!(longest(estimate.total(), pair[0]) < 64, "{pair:?}");
    }
}

#[test]
fn estimates_say_what_layers_with_a_window_take() {
    let Some(conformance) = conformance() else {
        return;
    };
    let path = conformance.join("gemma3/model.gguf");
    let types = KvTypes::from(KvElement::F16).with_window(KvElement::Q4_0);
    let estimate = |types: KvTypes| {
        let options = FitOptions::new().with_kv_types(types);
        MemoryEstimate::with_options(&path, 100, &options).unwrap()
    };
    let (all, mixed) = (estimate(KvElement::F16.into()), estimate(types));
    let lm = Lm::load(
        dunlin::ModelRef::Path(path.clone()),
        options().with_kv_types(types).with_context_length(100),
    );
    assert_eq!(lm.unwrap().memory().window_kv_cache, mixed.window_kv_cache);
    // The others take what they did.
    assert_eq!(
        all.kv_cache - all.window_kv_cache,
        mixed.kv_cache - mixed.window_kv_cache
    );
    assert!(0 < mixed.window_kv_cache && 2 * mixed.window_kv_cache < all.window_kv_cache);
    let json = serde_json::to_value(mixed).unwrap();
    assert_eq!(json["kv_type"], "F16, windows Q4_0");
}

#[test]
fn a_warmed_up_model_in_locked_memory_answers_the_same() {
    let load = || dunlin::ModelRef::Path(fixture("tiny.gguf"));
    let plain = Lm::load(load(), options()).unwrap();
    let prepared: LoadOptions<'_> = options().with_warm_up(true).with_memory_lock(true);
    match Lm::load(load(), prepared) {
        Ok(lm) => {
            assert_eq!(lm.cached_tokens(), 0);
            assert_eq!(greedy(&lm, "Hi", 8), greedy(&plain, "Hi", 8));
        }
        // Where the test may not lock so much.
        Err(Error::MemoryLock(_)) => {}
        Err(error) => panic!("{error}"),
    }
}
