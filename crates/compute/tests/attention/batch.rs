//! Sequences in a cache, and their attention by its definition.

use dunlin_compute::{
    Attention, AttentionJob, AttentionScratch, KvElement, KvElements, KvLayout, KvSlabs,
    POSITIONS_PER_BLOCK, Pool, Sight, Tier, attend, store_kv,
};

pub(crate) fn wave(i: usize, phase: f32) -> f32 {
    ((i as f32) * 0.37 + phase).sin() * 1.5
}

pub(crate) struct Case {
    pub(crate) layout: KvLayout,
    pub(crate) heads: usize,
    pub(crate) past: usize,
    pub(crate) tokens: usize,
    pub(crate) sight: Sight,
    pub(crate) softcap: Option<f32>,
}

/// A sequence whose keys and values are in the cache: `[positions, heads * head_dim]` each.
pub(crate) struct Text {
    pub(crate) past: usize,
    pub(crate) tokens: usize,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) q: Vec<f32>,
}

/// Sequences of so many tokens, those before them included, in one cache.
pub(crate) struct Batch {
    pub(crate) layout: KvLayout,
    pub(crate) heads: usize,
    pub(crate) sight: Sight,
    pub(crate) softcap: Option<f32>,
    pub(crate) texts: Vec<Text>,
    pub(crate) slabs: KvSlabs,
    pub(crate) blocks: Vec<u32>,
    pub(crate) jobs: Vec<AttentionJob>,
}

impl Batch {
    pub(crate) fn new(
        tier: Tier,
        elements: KvElements,
        case: &Case,
        texts: &[(usize, usize)],
    ) -> Self {
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
        let mut slabs = KvSlabs::new(
            &[(other, KvElement::F16.into()), (layout, elements)],
            count + 2,
        );
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

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.layout.head_dim_k as f32).sqrt()
    }

    /// What the kernel computes for some of the sequences' tokens, with so many threads.
    pub(crate) fn attend(
        &self,
        tier: Tier,
        threads: usize,
        jobs: &[AttentionJob],
        q: &[f32],
    ) -> Vec<f32> {
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

    pub(crate) fn all_queries(&self) -> Vec<f32> {
        self.texts.iter().flat_map(|text| text.q.clone()).collect()
    }

    /// Attention of a text by its definition, in `f64`.
    pub(crate) fn definition(&self, text: &Text) -> Vec<f64> {
        let [q, k, v] = [&text.q, &text.k, &text.v]
            .map(|x| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        self.definition_over(text, &q, &k, &v)
    }

    /// The same for other queries, keys and values.
    pub(crate) fn definition_over(&self, text: &Text, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
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
                let q = &q[(t * heads + h) * layout.head_dim_k..][..layout.head_dim_k];
                let score = |p: usize| -> f64 {
                    let k = &k[p * k_len + h / group * layout.head_dim_k..][..layout.head_dim_k];
                    let products = q.iter().zip(k).map(|(a, b)| a * b);
                    products.sum::<f64>() * f64::from(self.scale())
                };
                let capped = |x: f64| {
                    let cap = self.softcap.map(f64::from);
                    cap.map_or(x, |cap| cap * (x / cap).tanh())
                };
                let weights: Vec<f64> = (first..=last).map(|p| capped(score(p)).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..layout.head_dim_v).map(|d| {
                    let value = |p: usize| v[p * v_len + h / group * layout.head_dim_v + d];
                    let weights = weights.iter().enumerate();
                    let terms = weights.map(|(i, w)| w / sum * value(first + i));
                    terms.sum::<f64>()
                }));
            }
        }
        out
    }
}
