//! Attention over the blocked cache against the definition in `f64`.

#![allow(clippy::unwrap_used, missing_docs)]

use dunlin_compute::{
    Attention, AttentionJob, AttentionScratch, KvElement, KvLayout, KvSlabs, POSITIONS_PER_BLOCK,
    Pool, Sight, Tier, attend, store_kv,
};

fn wave(i: usize, phase: f32) -> f32 {
    ((i as f32) * 0.37 + phase).sin() * 1.5
}

struct Case {
    layout: KvLayout,
    heads: usize,
    past: usize,
    tokens: usize,
    sight: Sight,
    softcap: Option<f32>,
}

/// A sequence whose keys and values are in the cache: `[positions, heads * head_dim]` each.
struct Text {
    past: usize,
    tokens: usize,
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
}

/// Sequences of so many tokens, those before them included, in one cache.
struct Batch {
    layout: KvLayout,
    heads: usize,
    sight: Sight,
    softcap: Option<f32>,
    texts: Vec<Text>,
    slabs: KvSlabs,
    blocks: Vec<u32>,
    jobs: Vec<AttentionJob>,
}

impl Batch {
    fn new(tier: Tier, element: KvElement, case: &Case, texts: &[(usize, usize)]) -> Self {
        let Case { layout, heads, .. } = *case;
        let pool = Pool::new(1).unwrap();
        let (k_len, v_len) = (
            layout.heads * layout.head_dim_k,
            layout.heads * layout.head_dim_v,
        );
        let counts = texts
            .iter()
            .map(|(past, tokens)| (past + tokens).div_ceil(POSITIONS_PER_BLOCK));
        let count: usize = counts.sum();
        // Blocks in reverse order with a gap, so that a wrong block shows.
        let blocks: Vec<u32> = (0..count as u32).rev().map(|b| b + 1).collect();
        // The slab of another layer lies before it.
        let other = KvLayout {
            heads: layout.heads + 1,
            ..layout
        };
        let mut slabs = KvSlabs::new(&[other, layout], element, count + 2);
        let (mut jobs, mut first_block) = (Vec::new(), 0);
        let texts = texts.iter().enumerate().map(|(index, &(past, tokens))| {
            let (total, phase) = (past + tokens, 0.1 * index as f32);
            let text = Text {
                past,
                tokens,
                k: (0..total * k_len).map(|i| wave(i, phase)).collect(),
                v: (0..total * v_len).map(|i| wave(i, phase + 1.0)).collect(),
                q: (0..tokens * heads * layout.head_dim_k)
                    .map(|i| wave(i, phase + 2.0))
                    .collect(),
            };
            let places: Vec<(u32, u32)> = (0..total)
                .map(|p| {
                    (
                        blocks[first_block + p / POSITIONS_PER_BLOCK],
                        (p % POSITIONS_PER_BLOCK) as u32,
                    )
                })
                .collect();
            store_kv(&pool, tier, &mut slabs, 1, &places, &text.k, &text.v);
            jobs.push(AttentionJob {
                tokens,
                first_position: past,
                first_block,
            });
            first_block += total.div_ceil(POSITIONS_PER_BLOCK);
            text
        });
        let texts = texts.collect();
        Batch {
            layout,
            heads,
            sight: case.sight,
            softcap: case.softcap,
            texts,
            slabs,
            blocks,
            jobs,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.layout.head_dim_k as f32).sqrt()
    }

    /// What the kernel computes for some of the sequences' tokens, with so many threads.
    fn attend(&self, tier: Tier, threads: usize, jobs: &[AttentionJob], q: &[f32]) -> Vec<f32> {
        let pool = Pool::new(threads).unwrap();
        let tokens: usize = jobs.iter().map(|job| job.tokens).sum();
        let mut out = vec![f32::NAN; tokens * self.heads * self.layout.head_dim_v];
        let layer = Attention {
            slabs: &self.slabs,
            slab: 1,
            blocks: &self.blocks,
            jobs,
            heads: self.heads,
            sight: self.sight,
            scale: self.scale(),
            softcap: self.softcap,
            q,
            out: &mut out,
        };
        let positions = self.blocks.len() * POSITIONS_PER_BLOCK;
        let layers = [(self.heads, self.layout)];
        let mut scratch = AttentionScratch::new(threads, tokens, positions, layers);
        attend(&pool, tier, &mut scratch, layer);
        out
    }

    fn all_queries(&self) -> Vec<f32> {
        self.texts.iter().flat_map(|text| text.q.clone()).collect()
    }

    /// Attention of a text by its definition, in `f64`.
    fn definition(&self, text: &Text) -> Vec<f64> {
        let Batch { layout, heads, .. } = *self;
        let (k_len, v_len) = (
            layout.heads * layout.head_dim_k,
            layout.heads * layout.head_dim_v,
        );
        let (group, total) = (heads / layout.heads, text.past + text.tokens);
        let mut out = Vec::new();
        for t in 0..text.tokens {
            let position = text.past + t;
            let (first, last) = match self.sight {
                Sight::Causal { window } => (
                    window.map_or(0, |w| (position + 1).saturating_sub(w)),
                    position,
                ),
                Sight::Both { window } => (
                    window.map_or(0, |w| position.saturating_sub(w / 2)),
                    window.map_or(total - 1, |w| (position + w / 2).min(total - 1)),
                ),
            };
            for h in 0..heads {
                let q = &text.q[(t * heads + h) * layout.head_dim_k..][..layout.head_dim_k];
                let score = |p: usize| -> f64 {
                    let k =
                        &text.k[p * k_len + h / group * layout.head_dim_k..][..layout.head_dim_k];
                    let products = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b));
                    products.sum::<f64>() * f64::from(self.scale())
                };
                let capped = |x: f64| {
                    let cap = self.softcap.map(f64::from);
                    cap.map_or(x, |cap| cap * (x / cap).tanh())
                };
                let weights: Vec<f64> = (first..=last).map(|p| capped(score(p)).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..layout.head_dim_v).map(|d| {
                    let value =
                        |p: usize| f64::from(text.v[p * v_len + h / group * layout.head_dim_v + d]);
                    let weights = weights.iter().enumerate();
                    let terms = weights.map(|(i, w)| w / sum * value(first + i));
                    terms.sum::<f64>()
                }));
            }
        }
        out
    }
}

/// The bounds are those of the cache's numbers: keys and values are at most 1.5, scores a sum over `head_dim_k` of them.
fn check(tier: Tier, element: KvElement, bound: f64, case: &Case) {
    let batch = Batch::new(tier, element, case, &[(case.past, case.tokens)]);
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
            for element in [KvElement::F16, KvElement::F32, KvElement::Q8_0] {
                let batch = Batch::new(tier, element, &case, &[(0, 700)]);
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
                        assert!(same, "{} {element:?} {layout:?} {job:?}", tier.name());
                        past += tokens;
                    }
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
            let batch = Batch::new(tier, KvElement::F16, &case, &lengths);
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

/// Numbers of a group of 32 that a scale cannot hold are not made up.
#[test]
fn an_8_bit_cache_gives_no_number_where_one_was_not_finite() {
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
        for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e30] {
            let mut batch = Batch::new(tier, KvElement::Q8_0, &case, &[(0, 1)]);
            let pool = Pool::new(1).unwrap();
            let text = &mut batch.texts[0];
            text.v[40] = bad;
            let places = [(batch.blocks[0], 0)];
            store_kv(&pool, tier, &mut batch.slabs, 1, &places, &text.k, &text.v);
            let out = batch.attend(tier, 1, &batch.jobs, &batch.all_queries());
            assert!(out[..32].iter().all(|x| x.is_finite()), "{bad}");
            assert!(out[32..].iter().all(|x| x.is_nan()), "{bad}: {out:?}");
        }
    }
}
