//! What each sampling setting does, against the published formulas and against sets worked out by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dunlin_engine::{EngineError, Sampler, SamplerConfig};
use proptest::prelude::*;

/// Probabilities 0.5, 0.25, 0.125, 0.075, 0.05 of tokens 3, 0, 4, 1, 2.
fn five_tokens() -> Vec<f32> {
    [0.25f32, 0.075, 0.05, 0.5, 0.125]
        .iter()
        .map(|probability| probability.ln())
        .collect()
}

/// Nothing but the softmax.
fn plain() -> SamplerConfig {
    SamplerConfig {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        ..SamplerConfig::default()
    }
}

fn distribution(config: SamplerConfig, logits: &[f32], history: &[u32]) -> Vec<(u32, f64)> {
    let mut sampler = Sampler::new(config).unwrap();
    sampler.distribution(&mut logits.to_vec(), history).unwrap()
}

fn kept(config: SamplerConfig, logits: &[f32]) -> Vec<u32> {
    let mut tokens: Vec<u32> = distribution(config, logits, &[])
        .iter()
        .map(|(token, _)| *token)
        .collect();
    tokens.sort_unstable();
    tokens
}

/// The logits after bias and penalties.
fn adjusted(config: SamplerConfig, logits: &[f32], history: &[u32]) -> Vec<f32> {
    let mut logits = logits.to_vec();
    Sampler::new(config)
        .unwrap()
        .sample(&mut logits, history)
        .unwrap();
    logits
}

#[test]
fn temperature_zero_takes_the_largest_logit_and_the_lowest_id_of_equal_ones() {
    let mut sampler = Sampler::new(SamplerConfig::greedy()).unwrap();
    let mut logits = vec![-1.0f32; 1000];
    for token in [700, 40, 999] {
        logits[token] = 2.5;
    }
    assert_eq!(sampler.sample(&mut logits, &[]).unwrap(), 40);
}

#[test]
fn greedy_counts_bias_and_penalties() {
    let config = SamplerConfig {
        logit_bias: vec![(1, 5.0)],
        presence_penalty: 10.0,
        ..SamplerConfig::greedy()
    };
    let mut sampler = Sampler::new(config).unwrap();
    assert_eq!(sampler.sample(&mut [1.0, 0.0, 2.0], &[]).unwrap(), 1);
    assert_eq!(sampler.sample(&mut [1.0, 0.0, 2.0], &[1]).unwrap(), 2);
}

#[test]
fn top_k_keeps_the_k_largest() {
    let config = |top_k| SamplerConfig { top_k, ..plain() };
    assert_eq!(kept(config(1), &five_tokens()), [3]);
    assert_eq!(kept(config(3), &five_tokens()), [0, 3, 4]);
    assert_eq!(kept(config(5), &five_tokens()), [0, 1, 2, 3, 4]);
    assert_eq!(kept(config(99), &five_tokens()), [0, 1, 2, 3, 4]);
    assert_eq!(kept(config(0), &five_tokens()), [0, 1, 2, 3, 4]);
}

#[test]
fn top_k_keeps_the_lowest_ids_of_equal_logits() {
    let config = SamplerConfig {
        top_k: 3,
        ..plain()
    };
    let mut logits = vec![0.0f32; 300];
    logits[250] = 1.0;
    assert_eq!(kept(config, &logits), [0, 1, 250]);
}

#[test]
fn top_p_keeps_the_likeliest_up_to_and_with_the_one_that_reaches_p() {
    let config = |top_p| SamplerConfig { top_p, ..plain() };
    assert_eq!(kept(config(0.0), &five_tokens()), [3]);
    assert_eq!(kept(config(0.49), &five_tokens()), [3]);
    assert_eq!(kept(config(0.51), &five_tokens()), [0, 3]);
    assert_eq!(kept(config(0.74), &five_tokens()), [0, 3]);
    assert_eq!(kept(config(0.76), &five_tokens()), [0, 3, 4]);
    assert_eq!(kept(config(0.96), &five_tokens()), [0, 1, 2, 3, 4]);
    assert_eq!(kept(config(1.0), &five_tokens()), [0, 1, 2, 3, 4]);
}

#[test]
fn top_p_looks_at_what_top_k_has_left() {
    // Of 0.5 and 0.25 alone the first has two thirds.
    let config = |top_p| SamplerConfig {
        top_k: 2,
        top_p,
        ..plain()
    };
    assert_eq!(kept(config(0.6), &five_tokens()), [3]);
    assert_eq!(kept(config(0.7), &five_tokens()), [0, 3]);
}

#[test]
fn min_p_keeps_what_reaches_its_part_of_the_largest_probability() {
    let config = |min_p| SamplerConfig { min_p, ..plain() };
    assert_eq!(kept(config(0.0), &five_tokens()), [0, 1, 2, 3, 4]);
    assert_eq!(kept(config(0.12), &five_tokens()), [0, 1, 3, 4]); // 0.06 or more
    assert_eq!(kept(config(0.24), &five_tokens()), [0, 3, 4]); // 0.12 or more
    assert_eq!(kept(config(0.6), &five_tokens()), [3]);
    assert_eq!(kept(config(1.0), &five_tokens()), [3]);
}

#[test]
fn cuts_are_made_at_temperature_one_and_probabilities_at_the_set_temperature() {
    let config = SamplerConfig {
        top_p: 0.51,
        temperature: 0.5,
        ..plain()
    };
    let found = distribution(config, &five_tokens(), &[]);
    // At temperature 1/2 probabilities are squared: 0.25 to 0.0625.
    let expected = [(3, 0.8), (0, 0.2)];
    assert_eq!(found.len(), 2);
    for ((token, probability), (expected_token, expected)) in found.iter().zip(expected) {
        assert_eq!(*token, expected_token);
        assert!(
            (probability - expected).abs() < 1e-6,
            "{probability} {expected}"
        );
    }
}

#[test]
fn repetition_penalty_divides_positive_and_multiplies_negative_logits_once() {
    // Keskar et al. 2019, section 4.1, with the usual reading for logits below zero.
    let config = SamplerConfig {
        repetition_penalty: 2.0,
        ..plain()
    };
    let found = adjusted(config, &[3.0, -3.0, 1.0, 0.0], &[0, 1, 1, 0, 3]);
    assert_eq!(found, [1.5, -6.0, 1.0, 0.0]);
}

#[test]
fn frequency_and_presence_penalties_are_those_of_the_openai_interface() {
    // mu[j] - c[j] * frequency - (c[j] > 0) * presence
    let config = SamplerConfig {
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        ..plain()
    };
    let found = adjusted(config, &[1.0, 1.0, 1.0], &[0, 2, 0, 0]);
    assert_eq!(found, [1.0 - 1.5 - 0.25, 1.0, 1.0 - 0.5 - 0.25]);
}

#[test]
fn penalties_reach_back_as_far_as_the_window() {
    let config = |repetition_window| SamplerConfig {
        presence_penalty: 1.0,
        repetition_window,
        ..plain()
    };
    let history = [0, 1, 2];
    assert_eq!(adjusted(config(0), &[0.0; 3], &history), [0.0, 0.0, 0.0]);
    assert_eq!(adjusted(config(2), &[0.0; 3], &history), [0.0, -1.0, -1.0]);
    assert_eq!(
        adjusted(config(99), &[0.0; 3], &history),
        [-1.0, -1.0, -1.0]
    );
}

#[test]
fn a_bias_of_minus_infinity_forbids_a_token() {
    let config = SamplerConfig {
        logit_bias: vec![(3, f32::NEG_INFINITY)],
        ..plain()
    };
    assert_eq!(kept(config, &five_tokens()), [0, 1, 2, 4]);
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_another_seed_gives_others() {
    let draw = |seed| {
        let mut sampler = Sampler::new(SamplerConfig { seed, ..plain() }).unwrap();
        Vec::from_iter((0..100).map(|_| sampler.sample(&mut five_tokens(), &[]).unwrap()))
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

/// Pearson's test over 200,000 draws; seeds are fixed, so it passes or fails for good.
#[test]
fn draws_follow_the_softmax() {
    let logits = [0.3f32, -1.2, 2.0, 0.0, 1.1, -0.4, 0.9, -3.0];
    for (temperature, seed) in [(0.5, 1), (1.0, 2), (2.0, 3)] {
        let config = SamplerConfig {
            temperature,
            seed,
            ..plain()
        };
        let weights: Vec<f64> = logits
            .iter()
            .map(|logit| (f64::from(*logit) / f64::from(temperature)).exp())
            .collect();
        let total: f64 = weights.iter().sum();

        const DRAWS: u32 = 200_000;
        let mut counts = [0u32; 8];
        let mut sampler = Sampler::new(config).unwrap();
        for _ in 0..DRAWS {
            counts[sampler.sample(&mut logits.clone(), &[]).unwrap() as usize] += 1;
        }
        let statistic: f64 = (counts.iter().zip(&weights))
            .map(|(count, weight)| {
                let expected = weight / total * f64::from(DRAWS);
                (f64::from(*count) - expected).powi(2) / expected
            })
            .sum();
        // The 99.9 % point of chi-square with 7 degrees of freedom.
        assert!(statistic < 24.32, "temperature {temperature}: {statistic}");
    }
}

#[test]
fn a_logit_that_is_no_number_or_infinite_is_an_error_that_names_the_token() {
    for bad in [f32::NAN, f32::INFINITY] {
        for config in [SamplerConfig::greedy(), SamplerConfig::default(), plain()] {
            let mut logits = vec![0.0; 100];
            logits[37] = bad;
            let error = Sampler::new(config)
                .unwrap()
                .sample(&mut logits, &[])
                .unwrap_err();
            assert!(
                matches!(error, EngineError::InvalidLogit { token: 37, .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn nothing_to_choose_from_is_an_error() {
    for config in [SamplerConfig::greedy(), SamplerConfig::default(), plain()] {
        let mut sampler = Sampler::new(config).unwrap();
        for mut logits in [vec![], vec![f32::NEG_INFINITY; 50]] {
            let error = sampler.sample(&mut logits, &[]).unwrap_err();
            assert!(matches!(error, EngineError::NoCandidate { .. }), "{error}");
        }
    }
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let bias = SamplerConfig {
        logit_bias: vec![(3, 1.0)],
        ..plain()
    };
    let error = Sampler::new(bias)
        .unwrap()
        .sample(&mut [0.0; 3], &[])
        .unwrap_err();
    assert!(
        matches!(
            error,
            EngineError::TokenOutOfRange {
                token: 3,
                vocab_size: 3
            }
        ),
        "{error}"
    );

    let penalty = SamplerConfig {
        presence_penalty: 1.0,
        ..plain()
    };
    let error = Sampler::new(penalty)
        .unwrap()
        .sample(&mut [0.0; 3], &[9])
        .unwrap_err();
    assert!(
        matches!(
            error,
            EngineError::TokenOutOfRange {
                token: 9,
                vocab_size: 3
            }
        ),
        "{error}"
    );
}

#[test]
fn settings_outside_their_range_are_named() {
    let refused = [
        (
            "temperature",
            SamplerConfig {
                temperature: -0.1,
                ..plain()
            },
        ),
        (
            "temperature",
            SamplerConfig {
                temperature: f32::NAN,
                ..plain()
            },
        ),
        (
            "temperature",
            SamplerConfig {
                temperature: f32::INFINITY,
                ..plain()
            },
        ),
        (
            "top_p",
            SamplerConfig {
                top_p: 1.1,
                ..plain()
            },
        ),
        (
            "min_p",
            SamplerConfig {
                min_p: -0.1,
                ..plain()
            },
        ),
        (
            "repetition_penalty",
            SamplerConfig {
                repetition_penalty: 0.0,
                ..plain()
            },
        ),
        (
            "frequency_penalty",
            SamplerConfig {
                frequency_penalty: 1000.0,
                ..plain()
            },
        ),
        (
            "presence_penalty",
            SamplerConfig {
                presence_penalty: f32::NAN,
                ..plain()
            },
        ),
        (
            "logit_bias",
            SamplerConfig {
                logit_bias: vec![(0, 1.0), (1, f32::NAN)],
                ..plain()
            },
        ),
        (
            "logit_bias",
            SamplerConfig {
                logit_bias: vec![(0, f32::INFINITY)],
                ..plain()
            },
        ),
    ];
    for (name, config) in refused {
        match Sampler::new(config) {
            Err(EngineError::InvalidSampling { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn the_error_of_a_setting_says_value_and_range() {
    let error = Sampler::new(SamplerConfig {
        top_p: 1.5,
        ..plain()
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "sampling setting top_p is 1.5, allowed is 0 to 1"
    );
}

/// What the settings mean, written in the plainest way: sort everything, then cut.
fn by_full_sort(logits: &[f32], top_k: usize, top_p: f32, min_p: f32) -> Vec<u32> {
    let mut order = Vec::from_iter(0..logits.len());
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    if top_k > 0 {
        order.truncate(top_k);
    }
    let weight = |token: &usize| (f64::from(logits[*token]) - f64::from(logits[order[0]])).exp();
    let weights: Vec<f64> = order.iter().map(weight).collect();
    let wanted = weights.iter().sum::<f64>() * f64::from(top_p);
    let mut sum = 0.0;
    let mut kept = Vec::new();
    for (token, weight) in order.iter().zip(weights) {
        if weight >= f64::from(min_p) {
            kept.push(*token as u32);
        }
        sum += weight;
        if top_p < 1.0 && sum >= wanted {
            break;
        }
    }
    kept.sort_unstable();
    kept
}

proptest! {
    /// Few distinct logits make many ties; many tokens make the partial orderings take several rounds.
    #[test]
    fn partial_selection_keeps_what_a_full_sort_keeps(
        levels in proptest::collection::vec(-40i32..40, 1..3000),
        spread in 1.0f32..16.0,
        top_k in 0usize..400,
        top_p in 0.0f32..1.0,
        min_p in 0.0f32..0.3,
    ) {
        let logits: Vec<f32> = levels.iter().map(|level| *level as f32 / spread).collect();
        let config = SamplerConfig { top_k, top_p, min_p, temperature: 1.0, ..SamplerConfig::default() };
        prop_assert_eq!(kept(config, &logits), by_full_sort(&logits, top_k, top_p, min_p));
    }
}
