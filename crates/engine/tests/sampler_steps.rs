//! The further steps of the sampler, against llama.cpp's own (`fixtures/llama_samplers.py`) and by their properties.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use dunlin_engine::{EngineError, Mirostat, Sampler, SamplerConfig, SamplerStep};
use proptest::prelude::*;
use serde_json::Value;

fn plain() -> SamplerConfig {
    SamplerConfig {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        ..SamplerConfig::default()
    }
}

fn distribution(config: SamplerConfig, logits: &[f32], history: &[u32]) -> BTreeMap<u32, f64> {
    let mut sampler = Sampler::new(config).unwrap();
    let found = sampler.distribution(&mut logits.to_vec(), history).unwrap();
    found.into_iter().collect()
}

fn numbers(value: &Value) -> Vec<u32> {
    let numbers = value.as_array().unwrap().iter();
    numbers
        .map(|number| number.as_u64().unwrap() as u32)
        .collect()
}

fn config_of(case: &Value) -> SamplerConfig {
    let float = |name: &str| case["settings"][name].as_f64().unwrap() as f32;
    let whole = |name: &str| case["settings"][name].as_u64().unwrap() as usize;
    let chain = case["chain"].as_array().unwrap().iter();
    SamplerConfig {
        temperature: float("temperature"),
        dynatemp_range: float("dynatemp_range"),
        dynatemp_exponent: float("dynatemp_exponent"),
        top_k: whole("top_k"),
        top_p: float("top_p"),
        min_p: float("min_p"),
        typical_p: float("typical_p"),
        top_n_sigma: float("top_n_sigma"),
        xtc_probability: float("xtc_probability"),
        xtc_threshold: float("xtc_threshold"),
        repetition_penalty: float("repetition_penalty"),
        repetition_window: whole("repetition_window"),
        frequency_penalty: float("frequency_penalty"),
        presence_penalty: float("presence_penalty"),
        dry_multiplier: float("dry_multiplier"),
        dry_base: float("dry_base"),
        dry_allowed_length: whole("dry_allowed_length"),
        dry_window: whole("dry_window"),
        chain: chain
            .map(|name| name.as_str().unwrap().parse().unwrap())
            .collect(),
        ..SamplerConfig::default()
    }
}

/// llama.cpp computes in f32 and the file has six digits.
#[test]
fn every_setting_and_order_keeps_what_llama_cpp_keeps() {
    let fixture: Value =
        serde_json::from_str(include_str!("fixtures/llama_samplers.json")).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() > 80);
    for case in cases {
        let levels = case["levels"].as_array().unwrap().iter();
        let logits: Vec<f32> = levels
            .map(|level| level.as_f64().unwrap() as f32 / 64.0)
            .collect();
        let found = distribution(config_of(case), &logits, &numbers(&case["history"]));
        let expected: BTreeMap<u32, f64> = case["kept"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_u64().unwrap() as u32, pair[1].as_f64().unwrap()))
            .collect();
        let about = format!("{} {} {found:?}", case["settings"], case["chain"]);
        for (token, probability) in &expected {
            let found = found.get(token).copied().unwrap_or(0.0);
            assert!(
                (found - probability).abs() < 5e-6,
                "{token} {found} {about}"
            );
        }
        // What is too unlikely for f32 is not in the file.
        let tokens = |kept: &BTreeMap<u32, f64>| {
            let likely = kept.iter().filter(|(_, probability)| **probability > 1e-30);
            Vec::from_iter(likely.map(|(token, _)| *token))
        };
        assert_eq!(tokens(&found), tokens(&expected), "{about}");
    }
}

#[test]
fn typical_p_keeps_what_is_nearest_to_the_entropy() {
    // Probabilities 1/2, 1/4, 1/8, 1/8: surprises of 1, 2, 3 and 3 bits, 1.75 to be expected. Distances 0.75, 0.25, 1.25.
    let logits = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln);
    let kept = |typical_p| {
        let config = SamplerConfig {
            typical_p,
            ..plain()
        };
        Vec::from_iter(distribution(config, &logits, &[]).into_keys())
    };
    assert_eq!(kept(0.2), [1]);
    assert_eq!(kept(0.3), [0, 1]);
    assert_eq!(kept(0.7), [0, 1]);
    assert_eq!(kept(0.8), [0, 1, 2]);
    assert_eq!(kept(1.0), [0, 1, 2, 3]);
}

#[test]
fn xtc_leaves_out_all_top_choices_but_the_last_as_often_as_it_says() {
    let logits = [0.5f32, 0.25, 0.15, 0.1].map(f32::ln);
    let config = SamplerConfig {
        xtc_probability: 0.4,
        xtc_threshold: 0.2,
        ..plain()
    };
    // Without: as they are. With: 0.25, 0.15, 0.1 of 0.5.
    let found = distribution(config.clone(), &logits, &[]);
    for (token, expected) in [(0, 0.3), (1, 0.35), (2, 0.21), (3, 0.14)] {
        assert!((found[&token] - expected).abs() < 1e-6, "{found:?}");
    }
    const DRAWS: u32 = 100_000;
    let mut sampler = Sampler::new(SamplerConfig { seed: 4, ..config }).unwrap();
    let mut counts = [0u32; 4];
    for _ in 0..DRAWS {
        counts[sampler.sample(&mut logits.clone(), &[]).unwrap() as usize] += 1;
    }
    let statistic: f64 = (counts.iter().zip(found.values()))
        .map(|(count, probability)| {
            let expected = probability * f64::from(DRAWS);
            (f64::from(*count) - expected).powi(2) / expected
        })
        .sum();
    // The 99.9 % point of chi-square with 3 degrees of freedom.
    assert!(statistic < 16.27, "{statistic} {counts:?}");
}

#[test]
fn dry_stops_at_a_breaker_and_leaves_breakers_alone() {
    let history = [1, 2, 3, 9, 1, 2, 3];
    let penalty = |breakers: &[&[u32]], token: u32| {
        let config = SamplerConfig {
            dry_multiplier: 1.0,
            dry_base: 2.0,
            dry_allowed_length: 2,
            dry_breakers: breakers.iter().map(|breaker| breaker.to_vec()).collect(),
            ..plain()
        };
        let mut logits = vec![0.0; 10];
        let mut sampler = Sampler::new(config).unwrap();
        sampler.sample(&mut logits, &history).unwrap();
        -logits[token as usize]
    };
    // Three tokens are repeated, and 9 followed: 2^(3 - 2).
    assert_eq!(penalty(&[], 9), 2.0);
    assert_eq!(penalty(&[], 1), 0.0);
    // 1 ends the repetition: two tokens stand behind it.
    assert_eq!(penalty(&[&[1]], 9), 1.0);
    assert_eq!(penalty(&[&[2]], 9), 0.0);
    // A run of two tokens is one breaker; a run that is not there is none.
    assert_eq!(penalty(&[&[1, 2]], 9), 0.0);
    assert_eq!(penalty(&[&[1, 5]], 9), 2.0);
    // The next token is a breaker itself.
    assert_eq!(penalty(&[&[9]], 9), 0.0);
    assert_eq!(penalty(&[&[9, 9]], 9), 2.0);
}

#[test]
fn a_step_that_is_not_in_the_chain_is_not_taken() {
    let logits = [2.0f32, 1.0, 0.0];
    let config = SamplerConfig {
        temperature: 0.0,
        top_k: 2,
        chain: vec![SamplerStep::TopK],
        ..plain()
    };
    let found = distribution(config, &logits, &[]);
    assert_eq!(Vec::from_iter(found.keys().copied()), [0, 1]);
    assert!((found[&0] / found[&1] - 1f64.exp()).abs() < 1e-6);
}

#[test]
fn chains_are_read_by_their_names() {
    let default = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature";
    assert_eq!(
        SamplerStep::parse_chain(default).unwrap(),
        SamplerStep::DEFAULT_CHAIN
    );
    assert_eq!(
        SamplerStep::parse_chain("top-k; temp;").unwrap(),
        [SamplerStep::TopK, SamplerStep::Temperature]
    );
    for (text, named) in [("top_k;top_q", "top_q"), ("min_p;min-p", "min_p twice")] {
        let error = SamplerStep::parse_chain(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn further_settings_outside_their_range_are_named() {
    let set = |change: fn(&mut SamplerConfig)| {
        let mut config = plain();
        change(&mut config);
        config
    };
    let refused = [
        ("dynatemp_range", set(|config| config.dynatemp_range = -1.0)),
        (
            "dynatemp_exponent",
            set(|config| config.dynatemp_exponent = f32::NAN),
        ),
        ("typical_p", set(|config| config.typical_p = 1.5)),
        (
            "top_n_sigma",
            set(|config| config.top_n_sigma = f32::INFINITY),
        ),
        (
            "xtc_probability",
            set(|config| config.xtc_probability = 2.0),
        ),
        ("xtc_threshold", set(|config| config.xtc_threshold = -0.1)),
        ("dry_multiplier", set(|config| config.dry_multiplier = -0.8)),
        ("dry_base", set(|config| config.dry_base = 0.5)),
        (
            "dry_breakers",
            set(|config| config.dry_breakers = vec![vec![]]),
        ),
        (
            "mirostat_tau",
            set(|config| {
                config.mirostat = Some(Mirostat {
                    tau: -1.0,
                    eta: 0.1,
                })
            }),
        ),
        (
            "mirostat_eta",
            set(|config| {
                config.mirostat = Some(Mirostat {
                    tau: 5.0,
                    eta: 11.0,
                })
            }),
        ),
        ("chain", set(|config| config.chain.push(SamplerStep::Dry))),
        (
            "mirostat",
            set(|config| {
                config.mirostat = Some(Mirostat::default());
                config.typical_p = 0.5;
            }),
        ),
    ];
    for (name, config) in refused {
        match Sampler::new(config) {
            Err(EngineError::InvalidSampling { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

fn settings() -> impl Strategy<Value = SamplerConfig> {
    let filters = (0usize..30, 0f32..=1.0, 0f32..0.3, 0f32..=1.0, 0f32..3.0);
    let others = (0f32..=1.0, 0f32..0.5, 0f32..2.0, 0f32..2.0, 0f32..2.0);
    let chain = Just(SamplerStep::DEFAULT_CHAIN.to_vec()).prop_shuffle();
    let length = 0..=SamplerStep::DEFAULT_CHAIN.len();
    (filters, others, chain, length, any::<u64>()).prop_map(
        |(filters, others, mut chain, length, seed)| {
            chain.truncate(length);
            let (top_k, top_p, min_p, typical_p, top_n_sigma) = filters;
            let (xtc_probability, xtc_threshold, temperature, dynatemp_range, dry_multiplier) =
                others;
            SamplerConfig {
                temperature,
                dynatemp_range,
                top_k,
                top_p,
                min_p,
                typical_p,
                top_n_sigma,
                xtc_probability,
                xtc_threshold,
                dry_multiplier,
                presence_penalty: 0.5,
                chain,
                seed,
                ..SamplerConfig::default()
            }
        },
    )
}

proptest! {
    /// Whatever the order: something is left, probabilities sum up to one, forbidden tokens stay away, and what is drawn is
    /// one of the tokens that are left.
    #[test]
    fn any_chain_gives_a_distribution_and_draws_from_it(
        config in settings(),
        levels in proptest::collection::vec(-400i32..400, 2..80),
        history in proptest::collection::vec(0u32..2, 0..60),
    ) {
        let mut logits: Vec<f32> = levels.iter().map(|level| *level as f32 / 64.0).collect();
        logits[1] = f32::NEG_INFINITY;
        let mut sampler = Sampler::new(config).unwrap();
        let found = sampler.distribution(&mut logits.clone(), &history).unwrap();
        let sum: f64 = found.iter().map(|(_, probability)| probability).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        prop_assert!(found.iter().all(|(token, _)| *token != 1));
        for _ in 0..5 {
            let drawn = sampler.sample(&mut logits.clone(), &history).unwrap();
            prop_assert!(found.iter().any(|(token, _)| *token == drawn));
        }
    }

    /// The repetition that DRY sees, found in the plainest way.
    #[test]
    fn dry_finds_the_longest_repetition_of_each_token(
        history in proptest::collection::vec(0u32..3, 0..60),
        allowed in 0usize..4,
        window in 1usize..80,
    ) {
        let config = SamplerConfig {
            dry_multiplier: 1.0,
            dry_base: 2.0,
            dry_allowed_length: allowed,
            dry_window: window,
            ..plain()
        };
        let mut logits = vec![0.0f32; 3];
        Sampler::new(config).unwrap().sample(&mut logits, &history).unwrap();
        let text = &history[history.len().saturating_sub(window)..];
        for token in 0..3u32 {
            // Before the first token there is nothing to be repeated.
            let places = (1..text.len()).filter(|place| text[*place] == token);
            let common = |place: usize| {
                let before = text[..place].iter().rev();
                before.zip(text.iter().rev()).take_while(|(a, b)| a == b).count()
            };
            let longest = places.map(common).max().filter(|_| text.len() > allowed);
            let expected = match longest {
                Some(length) if length >= allowed => 2f32.powi((length - allowed) as i32),
                _ => 0.0,
            };
            prop_assert_eq!(-logits[token as usize], expected, "{} in {:?}", token, text);
        }
    }
}
