//! Attention over the blocked cache against the definition in `f64`.

#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

mod batch;
mod coded;

use batch::{Batch, Case};
use dunlin_compute::{AttentionJob, KvElement, KvElements, KvLayout, Pool, Sight, Tier, store_kv};

/// All types, and keys and values of two.
const ELEMENTS: [KvElements; 6] = [
    same(KvElement::F16),
    same(KvElement::F32),
    same(KvElement::Q8_0),
    same(KvElement::Q4_0),
    KvElements {
        keys: KvElement::Q8_0,
        values: KvElement::Q4_0,
    },
    KvElements {
        keys: KvElement::Q4_0,
        values: KvElement::F32,
    },
];

const fn same(element: KvElement) -> KvElements {
    KvElements {
        keys: element,
        values: element,
    }
}

/// The bounds are those of the cache's numbers: keys and values are at most 1.5, scores a sum over `head_dim_k` of them.
fn check(tier: Tier, element: KvElement, bound: f64, case: &Case) {
    let batch = Batch::new(tier, element.into(), case, &[(case.past, case.tokens)]);
    let want = batch.definition(&batch.texts[0]);
    for threads in [1, 2, 5] {
        let out = batch.attend(tier, threads, &batch.jobs, &batch.all_queries());
        for (i, (got, want)) in out.iter().zip(&want).enumerate() {
            let width = case.layout.head_dim_v;
            assert!(
                (f64::from(*got) - want).abs() < bound,
                "{} {element:?} token {} head {} dim {}: {got}, not {want}",
                tier.name(),
                i / width / case.heads,
                i / width % case.heads,
                i % width,
            );
        }
    }
}

/// A row is computed by the same operations in the same order whatever is computed with it: cutting a text into pieces, as
/// batches do, and sharing its positions out to threads change no bit.
#[test]
fn a_row_is_the_same_to_the_last_bit_in_any_batch_and_on_any_number_of_threads() {
    let layout = |heads, head_dim| KvLayout {
        heads,
        head_dim_k: head_dim,
        head_dim_v: head_dim,
    };
    for (layout, heads, sight) in [
        (layout(2, 64), 14, Sight::Causal { window: None }),
        (layout(1, 256), 4, Sight::Causal { window: Some(200) }),
        (layout(3, 64), 9, Sight::Causal { window: None }),
        (layout(4, 80), 4, Sight::Causal { window: Some(96) }),
    ] {
        let case = Case {
            layout,
            heads,
            past: 0,
            tokens: 0,
            sight,
            softcap: None,
        };
        for tier in Tier::available() {
            for elements in ELEMENTS {
                let batch = Batch::new(tier, elements, &case, &[(0, 700)]);
                let q = batch.all_queries();
                let whole = batch.attend(tier, 1, &batch.jobs, &q);
                let (q_len, out_len) = (heads * layout.head_dim_k, heads * layout.head_dim_v);
                for (threads, pieces) in [
                    (1, &[256, 256, 188][..]),
                    (2, &[699, 1]),
                    (3, &[1, 2, 3, 4, 5, 100, 300, 280, 1, 1, 1, 2]),
                ] {
                    let mut past = 0;
                    for &tokens in pieces {
                        let job = AttentionJob {
                            tokens,
                            first_position: past,
                            first_block: 0,
                        };
                        let q = &q[past * q_len..][..tokens * q_len];
                        let piece = batch.attend(tier, threads, &[job], q);
                        let want = &whole[past * out_len..][..tokens * out_len];
                        let same = piece
                            .iter()
                            .zip(want)
                            .all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{} {elements} {layout:?} {job:?}", tier.name());
                        past += tokens;
                    }
                }
            }
        }
    }
}

/// After many positions threads leave results of runs of segments, after fewer or with more threads of single segments, and one
/// thread leaves none. All of them are the definition, and the same to the last bit, alone and among other tokens, and where a
/// window begins within a run.
#[test]
fn many_positions_are_put_together_the_same_way_by_any_number_of_threads() {
    const PAST: usize = 4480;
    const TOKENS: usize = 20;
    let layout = KvLayout {
        heads: 4,
        head_dim_k: 32,
        head_dim_v: 16,
    };
    for window in [None, Some(3000)] {
        let case = Case {
            layout,
            heads: 12,
            past: PAST,
            tokens: TOKENS,
            sight: Sight::Causal { window },
            softcap: None,
        };
        for tier in Tier::available() {
            let batch = Batch::new(tier, KvElement::F16.into(), &case, &[(PAST, TOKENS)]);
            let q = batch.all_queries();
            let whole = batch.attend(tier, 1, &batch.jobs, &q);
            for (got, want) in whole.iter().zip(batch.definition(&batch.texts[0])) {
                assert!((f64::from(*got) - want).abs() < 2e-3, "{got}, not {want}");
            }
            for threads in [1, 2, 3, 16] {
                for tokens in [1, 2, 5, TOKENS] {
                    let first = TOKENS - tokens;
                    let job = AttentionJob {
                        tokens,
                        first_position: PAST + first,
                        first_block: 0,
                    };
                    let q = &q[first * case.heads * layout.head_dim_k..];
                    let got = batch.attend(tier, threads, &[job], q);
                    let want = &whole[first * case.heads * layout.head_dim_v..];
                    let same = got
                        .iter()
                        .zip(want)
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(
                        same,
                        "{} {threads} threads, {job:?}, {window:?}",
                        tier.name()
                    );
                }
            }
        }
    }
}

/// Sequences of one call do not touch one another: each gets what it gets alone, to the last bit.
#[test]
fn several_sequences_in_one_call_are_each_as_if_alone() {
    for (sight, lengths) in [
        (
            Sight::Causal { window: None },
            [(300, 1), (0, 40), (31, 1), (64, 5), (0, 1)],
        ),
        (
            Sight::Causal { window: Some(40) },
            [(300, 1), (0, 40), (31, 1), (64, 5), (0, 1)],
        ),
        (
            Sight::Both { window: None },
            [(0, 20), (0, 33), (0, 1), (0, 64), (0, 7)],
        ),
    ] {
        let layout = KvLayout {
            heads: 2,
            head_dim_k: 64,
            head_dim_v: 64,
        };
        let case = Case {
            layout,
            heads: 14,
            past: 0,
            tokens: 0,
            sight,
            softcap: None,
        };
        for tier in Tier::available() {
            let batch = Batch::new(tier, KvElement::F16.into(), &case, &lengths);
            let together = batch.attend(tier, 2, &batch.jobs, &batch.all_queries());
            let mut rest = &together[..];
            for (text, job) in batch.texts.iter().zip(&batch.jobs) {
                let alone = batch.attend(tier, 1, std::slice::from_ref(job), &text.q);
                let this;
                (this, rest) = rest.split_at(alone.len());
                assert_eq!(this, alone, "{} {sight:?} {job:?}", tier.name());
            }
        }
    }
}

#[test]
fn equals_the_definition_for_groups_windows_and_odd_widths() {
    let causal = Sight::Causal { window: None };
    let window = |window| Sight::Causal {
        window: Some(window),
    };
    let both = |window| Sight::Both { window };
    // Key-value heads, lengths of keys and values; query heads; tokens before and in the call; sight; softcap.
    let cases = [
        ((2, 24, 24), 4, (0, 70), both(None), None),
        ((3, 16, 16), 3, (0, 75), both(Some(16)), None),
        ((1, 16, 24), 4, (0, 40), both(Some(7)), None),
        ((2, 64, 64), 2, (0, 300), both(Some(260)), None),
        ((12, 32, 32), 12, (0, 20), both(None), None),
        ((2, 32, 32), 4, (40, 9), causal, Some(0.7)),
        ((2, 256, 256), 8, (150, 30), causal, Some(5.0)),
        ((3, 64, 64), 9, (0, 1), causal, None),
        ((3, 64, 64), 9, (1000, 1), causal, None),
        ((1, 256, 256), 4, (70, 1), causal, None),
        ((1, 256, 256), 4, (600, 1), window(512), None),
        ((1, 256, 256), 4, (500, 60), window(512), None),
        ((2, 64, 64), 14, (31, 37), causal, None),
        ((2, 64, 64), 14, (411, 1), causal, None),
        ((2, 64, 64), 14, (300, 2), causal, None),
        ((2, 64, 64), 14, (300, 5), causal, None),
        ((4, 96, 96), 32, (130, 3), causal, None),
        ((8, 128, 128), 16, (250, 12), causal, None),
        ((4, 80, 80), 4, (257, 20), causal, None),
        ((1, 16, 16), 4, (100, 50), window(33), None),
        ((1, 16, 16), 1, (200, 1), window(8), None),
        ((2, 20, 44), 2, (5, 40), window(1), None),
        ((2, 20, 44), 2, (200, 40), window(128), None),
        ((1, 8, 8), 24, (3, 5), causal, None),
        ((1, 8, 8), 150, (140, 2), causal, None),
    ];
    for tier in Tier::available() {
        for ((kv_heads, head_dim_k, head_dim_v), heads, (past, tokens), sight, softcap) in cases {
            let case = Case {
                layout: KvLayout {
                    heads: kv_heads,
                    head_dim_k,
                    head_dim_v,
                },
                heads,
                past,
                tokens,
                sight,
                softcap,
            };
            check(tier, KvElement::F32, 2e-5, &case);
            check(tier, KvElement::F16, 4e-3, &case);
            check(tier, KvElement::Q8_0, 4e-2, &case);
        }
    }
}

/// Numbers of a group of 32 that a scale cannot hold are not made up, nor those that are rotated with them.
#[test]
fn a_cache_of_codes_gives_no_number_where_one_was_not_finite() {
    let case = Case {
        layout: KvLayout {
            heads: 1,
            head_dim_k: 64,
            head_dim_v: 64,
        },
        heads: 1,
        past: 0,
        tokens: 1,
        sight: Sight::Causal { window: None },
        softcap: None,
    };
    for tier in Tier::available() {
        for (element, sound) in [(KvElement::Q8_0, 32), (KvElement::Q4_0, 0)] {
            for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e30] {
                let mut batch = Batch::new(tier, element.into(), &case, &[(0, 1)]);
                let pool = Pool::new(1).unwrap();
                let text = &mut batch.texts[0];
                text.v[40] = bad;
                let places = [(batch.blocks[0], 0)];
                store_kv(&pool, tier, &mut batch.slabs, 1, &places, &text.k, &text.v);
                let out = batch.attend(tier, 1, &batch.jobs, &batch.all_queries());
                assert!(
                    out[..sound].iter().all(|x| x.is_finite()),
                    "{element} {bad}"
                );
                assert!(
                    out[sound..].iter().all(|x| x.is_nan()),
                    "{element} {bad}: {out:?}"
                );
            }
        }
    }
}
