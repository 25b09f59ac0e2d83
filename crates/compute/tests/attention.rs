//! Attention over the blocked cache against the definition in `f64`.

#![allow(clippy::unwrap_used, missing_docs)]

use dunlin_compute::{
    AttentionJob, KvElement, KvLayout, KvSlab, POSITIONS_PER_BLOCK, Pool, Sight, Tier, attend,
    store_kv,
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

fn check(tier: Tier, element: KvElement, bound: f64, case: &Case) {
    let Case {
        layout,
        heads,
        past,
        tokens,
        sight,
        softcap,
    } = *case;
    let pool = Pool::new(2).unwrap();
    let total = past + tokens;
    let (k_len, v_len) = (
        layout.heads * layout.head_dim_k,
        layout.heads * layout.head_dim_v,
    );
    let k: Vec<f32> = (0..total * k_len).map(|i| wave(i, 0.0)).collect();
    let v: Vec<f32> = (0..total * v_len).map(|i| wave(i, 1.0)).collect();
    let q: Vec<f32> = (0..tokens * heads * layout.head_dim_k)
        .map(|i| wave(i, 2.0))
        .collect();
    let scale = 1.0 / (layout.head_dim_k as f32).sqrt();

    // Blocks in reverse order with a gap, so that a wrong block shows.
    let count = total.div_ceil(POSITIONS_PER_BLOCK);
    let blocks: Vec<u32> = (0..count as u32).rev().map(|b| b + 1).collect();
    let mut slab = KvSlab::new(layout, element, count + 2);
    let places: Vec<(u32, u32)> = (0..total)
        .map(|p| {
            (
                blocks[p / POSITIONS_PER_BLOCK],
                (p % POSITIONS_PER_BLOCK) as u32,
            )
        })
        .collect();
    store_kv(&pool, tier, &mut slab, &places, &k, &v);
    let mut out = vec![f32::NAN; tokens * heads * layout.head_dim_v];
    attend(
        &pool,
        tier,
        AttentionJob {
            slab: &slab,
            blocks: &blocks,
            heads,
            first_position: past,
            sight,
            scale,
            softcap,
            q: &q,
            out: &mut out,
        },
    );

    let group = heads / layout.heads;
    for t in 0..tokens {
        let position = past + t;
        let (first, last) = match sight {
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
            let q = &q[(t * heads + h) * layout.head_dim_k..][..layout.head_dim_k];
            let score = |p: usize| -> f64 {
                let k = &k[p * k_len + h / group * layout.head_dim_k..][..layout.head_dim_k];
                q.iter()
                    .zip(k)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum::<f64>()
                    * f64::from(scale)
            };
            let capped =
                |x: f64| softcap.map_or(x, |cap| f64::from(cap) * (x / f64::from(cap)).tanh());
            let weights: Vec<f64> = (first..=last).map(|p| capped(score(p)).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for d in 0..layout.head_dim_v {
                let value = |p: usize| f64::from(v[p * v_len + h / group * layout.head_dim_v + d]);
                let want: f64 = weights
                    .iter()
                    .enumerate()
                    .map(|(i, w)| w / sum * value(first + i))
                    .sum();
                let got = f64::from(out[(t * heads + h) * layout.head_dim_v + d]);
                assert!(
                    (got - want).abs() < bound,
                    "{} {element:?} token {t} head {h} dim {d}: {got}, not {want}",
                    tier.name()
                );
            }
        }
    }
}

#[test]
fn equals_the_definition_for_groups_windows_and_odd_widths() {
    let layout = |heads, head_dim_k, head_dim_v| KvLayout {
        heads,
        head_dim_k,
        head_dim_v,
    };
    let cases = [
        Case {
            layout: layout(2, 24, 24),
            heads: 4,
            past: 0,
            tokens: 70,
            sight: Sight::Both { window: None },
            softcap: None,
        },
        Case {
            layout: layout(3, 16, 16),
            heads: 3,
            past: 0,
            tokens: 75,
            sight: Sight::Both { window: Some(16) },
            softcap: None,
        },
        Case {
            layout: layout(1, 16, 24),
            heads: 4,
            past: 0,
            tokens: 40,
            sight: Sight::Both { window: Some(7) },
            softcap: None,
        },
        Case {
            layout: layout(2, 32, 32),
            heads: 4,
            past: 40,
            tokens: 9,
            sight: Sight::Causal { window: None },
            softcap: Some(0.7),
        },
        Case {
            layout: layout(3, 64, 64),
            heads: 9,
            past: 0,
            tokens: 1,
            sight: Sight::Causal { window: None },
            softcap: None,
        },
        Case {
            layout: layout(1, 256, 256),
            heads: 4,
            past: 70,
            tokens: 1,
            sight: Sight::Causal { window: None },
            softcap: None,
        },
        Case {
            layout: layout(2, 64, 64),
            heads: 14,
            past: 31,
            tokens: 37,
            sight: Sight::Causal { window: None },
            softcap: None,
        },
        Case {
            layout: layout(1, 16, 16),
            heads: 4,
            past: 100,
            tokens: 50,
            sight: Sight::Causal { window: Some(33) },
            softcap: None,
        },
        Case {
            layout: layout(1, 16, 16),
            heads: 1,
            past: 200,
            tokens: 1,
            sight: Sight::Causal { window: Some(8) },
            softcap: None,
        },
        Case {
            layout: layout(2, 20, 44),
            heads: 2,
            past: 5,
            tokens: 40,
            sight: Sight::Causal { window: Some(1) },
            softcap: None,
        },
        Case {
            layout: layout(1, 8, 8),
            heads: 24,
            past: 3,
            tokens: 5,
            sight: Sight::Causal { window: None },
            softcap: None,
        },
    ];
    for tier in Tier::available() {
        for case in &cases {
            check(tier, KvElement::F32, 2e-5, case);
            check(tier, KvElement::F16, 4e-3, case);
        }
    }
}
