//! Attention over the cache.
//!
//! Keys and values are read once for a tile of query rows (the heads that share them, times some tokens), with the
//! softmax computed on the way (Milakov and Gimelshein 2018; Dao et al. 2022). Positions that a row cannot see are not read
//! but for the rest of their block.

use crate::kv::{Data, Element, KvLayout, KvSlab, POSITIONS_PER_BLOCK};
use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd, each, exp, tanh};
use crate::tier::Tier;

/// Query rows that share one pass over the keys and values.
const TILE: usize = 16;

/// Attention of one layer for the tokens of a step, over a cache that already holds their own keys and values.
pub struct Attention<'a> {
    /// The layer's cache.
    pub slab: &'a KvSlab,
    /// The blocks of all jobs.
    pub blocks: &'a [u32],
    /// The tokens, in the order of the rows of `q` and `out`.
    pub jobs: &'a [AttentionJob],
    /// Query heads; a multiple of the slab's heads.
    pub heads: usize,
    /// Which positions a token sees.
    pub sight: Sight,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// `cap * tanh(score / cap)` on the scaled scores (Gemma 2).
    pub softcap: Option<f32>,
    /// Queries `[tokens, heads * head_dim_k]`.
    pub q: &'a [f32],
    /// Output `[tokens, heads * head_dim_v]`, overwritten.
    pub out: &'a mut [f32],
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionJob {
    /// How many they are.
    pub tokens: usize,
    /// Position of the first one in its sequence.
    pub first_position: usize,
    /// Where the sequence's blocks begin in [`Attention::blocks`]; they follow one another, as many as its positions need.
    pub first_block: usize,
}

impl AttentionJob {
    /// Positions of the sequence up to the last token.
    fn length(&self) -> usize {
        self.first_position + self.tokens
    }
}

/// Which positions a token at position `p` sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Itself and those before it: all of them, or the `window - 1` nearest.
    Causal {
        /// Positions seen at most, its own included.
        window: Option<usize>,
    },
    /// Those on both sides up to the end of the job's tokens: all of them, or `window / 2` to each side.
    Both {
        /// Twice the distance of the farthest position seen.
        window: Option<usize>,
    },
}

impl Sight {
    /// The positions seen from `position` in a sequence of `length` positions, `from..to`.
    #[inline(always)]
    fn from(self, position: usize, length: usize) -> (usize, usize) {
        match self {
            Sight::Causal { window: None } => (0, position + 1),
            Sight::Causal {
                window: Some(window),
            } => ((position + 1).saturating_sub(window), position + 1),
            Sight::Both { window: None } => (0, length),
            Sight::Both {
                window: Some(window),
            } => (
                position.saturating_sub(window / 2),
                (position + window / 2 + 1).min(length),
            ),
        }
    }
}

/// Computes the attention of all jobs, spread over the pool in one parallel region.
///
/// # Panics
/// If sizes do not agree, or the blocks of a job do not reach its last token.
pub fn attend(pool: &Pool, tier: Tier, attention: Attention<'_>) {
    let Attention {
        slab,
        blocks,
        jobs,
        heads,
        ..
    } = attention;
    let layout = slab.layout;
    let (q_len, out_len) = (heads * layout.head_dim_k, heads * layout.head_dim_v);
    let tokens: usize = jobs.iter().map(|job| job.tokens).sum();
    assert!(
        heads.is_multiple_of(layout.heads)
            && attention.q.len() >= tokens * q_len
            && attention.out.len() >= tokens * out_len,
        "sizes of queries and output"
    );
    for job in jobs {
        let count = job.length().div_ceil(POSITIONS_PER_BLOCK);
        assert!(
            blocks[job.first_block..][..count]
                .iter()
                .all(|&block| (block as usize) < slab.blocks),
            "blocks of the slab for every token"
        );
    }
    let group = heads / layout.heads;
    // A tile is some tokens times some heads of a group. In decode the heads are split where threads would idle.
    let tile_heads = if tokens == 1 && layout.heads < pool.threads() {
        group.div_ceil(pool.threads())
    } else {
        group.min(TILE)
    };
    let head_tiles = layout.heads * group.div_ceil(tile_heads);
    let tile_tokens = TILE / tile_heads;
    let tiles = |job: &AttentionJob| job.tokens.div_ceil(tile_tokens);
    let out = SendPtr(attention.out.as_mut_ptr());
    let items = head_tiles * jobs.iter().map(tiles).sum::<usize>();
    pool.for_each(items, 1, |index| {
        let (mut token_tile, mut first_row) = (index / head_tiles, 0);
        let mut jobs = jobs.iter();
        let job = loop {
            let Some(job) = jobs.next() else { return };
            match token_tile.checked_sub(tiles(job)) {
                Some(later) => (token_tile, first_row) = (later, first_row + job.tokens),
                None => break job,
            }
        };
        // The last tokens see the most: they go first, so that no long item is left for the end.
        let first_token = (tiles(job) - 1 - token_tile) * tile_tokens;
        let head_tile = index % head_tiles;
        let (kv_head, head_tile) = (
            head_tile / group.div_ceil(tile_heads),
            head_tile % group.div_ceil(tile_heads),
        );
        let first_head = head_tile * tile_heads;
        let count = job.length().div_ceil(POSITIONS_PER_BLOCK);
        let tile = Tile {
            job: Shared {
                blocks: &blocks[job.first_block..][..count],
                q: &attention.q[first_row * q_len..][..job.tokens * q_len],
                // SAFETY: the output has a row for every token of every job.
                out: unsafe { out.get().add(first_row * out_len) },
                sight: attention.sight,
                length: job.length(),
                scale: attention.scale,
                softcap: attention.softcap,
                q_len,
                out_len,
            },
            layout,
            kv_head,
            first_head: kv_head * group + first_head,
            heads: tile_heads.min(group - first_head),
            first_token,
            tokens: tile_tokens.min(job.tokens - first_token),
            first_position: job.first_position,
        };
        match &slab.data {
            Data::F16(data) => tier.run(Attend { data, tile }),
            Data::F32(data) => tier.run(Attend { data, tile }),
        }
    });
}

struct Shared<'a> {
    blocks: &'a [u32],
    q: &'a [f32],
    out: *mut f32,
    sight: Sight,
    length: usize,
    scale: f32,
    softcap: Option<f32>,
    q_len: usize,
    out_len: usize,
}

struct Tile<'a> {
    job: Shared<'a>,
    layout: KvLayout,
    kv_head: usize,
    first_head: usize,
    heads: usize,
    first_token: usize,
    tokens: usize,
    first_position: usize,
}

impl Tile<'_> {
    /// The token (counted in the job) and the query head of row `r`.
    #[inline(always)]
    fn row(&self, r: usize) -> (usize, usize) {
        (
            self.first_token + r / self.heads,
            self.first_head + r % self.heads,
        )
    }

    /// The positions that row `r` sees, `from..to`.
    #[inline(always)]
    fn sees(&self, r: usize) -> (usize, usize) {
        let position = self.first_position + self.row(r).0;
        self.job.sight.from(position, self.job.length)
    }

    #[inline(always)]
    fn q(&self, r: usize) -> *const f32 {
        let (token, head) = self.row(r);
        self.job.q[token * self.job.q_len + head * self.layout.head_dim_k..].as_ptr()
    }

    #[inline(always)]
    fn out(&self, r: usize) -> *mut f32 {
        let (token, head) = self.row(r);
        // SAFETY: `attend` checked the size of the output.
        unsafe {
            self.job
                .out
                .add(token * self.job.out_len + head * self.layout.head_dim_v)
        }
    }
}

struct Attend<'a, E> {
    data: &'a [E],
    tile: Tile<'a>,
}

impl<E: Element> Kernel for Attend<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Attend { data, tile } = self;
        let layout = tile.layout;
        let rows = tile.tokens * tile.heads;
        let mut scores = [[0.0f32; POSITIONS_PER_BLOCK]; TILE];
        let mut largest = [f32::NEG_INFINITY; TILE];
        let mut total = [0.0f32; TILE];
        let mut rescale = [1.0f32; TILE];
        for r in 0..rows {
            // SAFETY: a row of the output has `head_dim_v` elements, and belongs to this tile alone.
            unsafe { std::slice::from_raw_parts_mut(tile.out(r), layout.head_dim_v) }.fill(0.0);
        }
        let (from, to) = (tile.sees(0).0, tile.sees(rows - 1).1);
        for block in from / POSITIONS_PER_BLOCK..to.div_ceil(POSITIONS_PER_BLOCK) {
            let start = block * POSITIONS_PER_BLOCK;
            let head = tile.job.blocks[block] as usize * layout.block_len()
                + tile.kv_head * layout.head_len();
            let (keys, values) = data[head..head + layout.head_len()]
                .split_at(POSITIONS_PER_BLOCK * layout.head_dim_k);
            let mut r = 0;
            while r + 2 <= rows {
                dots::<S, E, 2>(s, keys, &tile, r, &mut scores);
                r += 2;
            }
            if r < rows {
                dots::<S, E, 1>(s, keys, &tile, r, &mut scores);
            }
            for r in 0..rows {
                let (from, to) = tile.sees(r);
                let (from, to) = (
                    from.saturating_sub(start).min(POSITIONS_PER_BLOCK),
                    to.saturating_sub(start).min(POSITIONS_PER_BLOCK),
                );
                rescale[r] = softmax(s, &mut scores[r], from, to, &mut largest[r], &mut total[r]);
            }
            let count = POSITIONS_PER_BLOCK.min(to - start);
            let mut r = 0;
            while r + 2 <= rows {
                weigh::<S, E, 2>(s, values, count, &tile, r, &scores, &rescale);
                r += 2;
            }
            if r < rows {
                weigh::<S, E, 1>(s, values, count, &tile, r, &scores, &rescale);
            }
        }
        for (r, total) in total[..rows].iter().enumerate() {
            // SAFETY: as above.
            let out = unsafe { std::slice::from_raw_parts_mut(tile.out(r), layout.head_dim_v) };
            let inverse = 1.0 / total;
            out.iter_mut().for_each(|x| *x *= inverse);
        }
    }
}

/// Scores of `R` rows with the 32 positions of a block.
#[inline(always)]
fn dots<S: Simd, E: Element, const R: usize>(
    s: S,
    keys: &[E],
    tile: &Tile<'_>,
    first: usize,
    scores: &mut [[f32; POSITIONS_PER_BLOCK]; TILE],
) {
    let q: [*const f32; R] = std::array::from_fn(|r| tile.q(first + r));
    let mut acc = [[s.splat(0.0); 4]; R];
    for (d, keys) in keys.chunks_exact(POSITIONS_PER_BLOCK).enumerate() {
        // SAFETY: `keys` has 32 elements; a query has `head_dim_k`, as many as there are chunks.
        unsafe {
            let k: [S::F; 4] = each!(4; i => E::load(s, keys.as_ptr().add(8 * i)));
            for r in 0..R {
                let q = s.splat(*q[r].add(d));
                for i in 0..4 {
                    acc[r][i] = s.fma(q, k[i], acc[r][i]);
                }
            }
        }
    }
    let scale = s.splat(tile.job.scale);
    let cap = tile
        .job
        .softcap
        .map(|cap| (s.splat(cap), s.splat(1.0 / cap)));
    for (r, acc) in acc.into_iter().enumerate() {
        for (i, acc) in acc.into_iter().enumerate() {
            let mut score = s.mul(acc, scale);
            if let Some((cap, inverse)) = cap {
                score = s.mul(tanh(s, s.mul(score, inverse)), cap);
            }
            // SAFETY: a row of scores has 32 elements.
            unsafe { s.store(scores[first + r].as_mut_ptr().add(8 * i), score) };
        }
    }
}

/// Turns the scores `from..to` into weights relative to the largest score so far, the others into zero. Returns the factor
/// that brings what was summed before to the new largest score.
#[inline(always)]
fn softmax<S: Simd>(
    s: S,
    scores: &mut [f32; POSITIONS_PER_BLOCK],
    from: usize,
    to: usize,
    largest: &mut f32,
    total: &mut f32,
) -> f32 {
    if from >= to {
        scores.fill(0.0);
        return 1.0;
    }
    scores[..from].fill(f32::NEG_INFINITY);
    scores[to..].fill(f32::NEG_INFINITY);
    // SAFETY: there are 32 scores.
    let v: [S::F; 4] = each!(4; i => unsafe { s.load(scores.as_ptr().add(8 * i)) });
    let new = s
        .largest(s.max(s.max(v[0], v[1]), s.max(v[2], v[3])))
        .max(*largest);
    let rescale = if new == *largest {
        1.0
    } else {
        (*largest - new).exp()
    };
    let mut sum = s.splat(0.0);
    for (i, v) in v.into_iter().enumerate() {
        let weight = exp(s, s.sub(v, s.splat(new)));
        // SAFETY: as above.
        unsafe { s.store(scores.as_mut_ptr().add(8 * i), weight) };
        sum = s.add(sum, weight);
    }
    // `exp` of minus infinity is tiny, not zero: what is not seen must not count at all.
    let hidden = scores[..from].iter().chain(&scores[to..]).sum::<f32>();
    scores[..from].fill(0.0);
    scores[to..].fill(0.0);
    *total = *total * rescale + (s.sum(sum) - hidden);
    *largest = new;
    rescale
}

/// Adds the weighted values of a block to `R` rows of the output.
#[inline(always)]
fn weigh<S: Simd, E: Element, const R: usize>(
    s: S,
    values: &[E],
    count: usize,
    tile: &Tile<'_>,
    first: usize,
    scores: &[[f32; POSITIONS_PER_BLOCK]; TILE],
    rescale: &[f32; TILE],
) {
    let dim = tile.layout.head_dim_v;
    let out: [*mut f32; R] = std::array::from_fn(|r| tile.out(first + r));
    // SAFETY: `values` is `[32, dim]` and `count <= 32`; a row of the output has `dim` elements.
    unsafe {
        let mut d = 0;
        while d + 32 <= dim {
            weigh_part::<S, E, R, 4>(
                s,
                values.as_ptr().add(d),
                dim,
                count,
                out.map(|p| p.add(d)),
                first,
                scores,
                rescale,
            );
            d += 32;
        }
        while d + 8 <= dim {
            weigh_part::<S, E, R, 1>(
                s,
                values.as_ptr().add(d),
                dim,
                count,
                out.map(|p| p.add(d)),
                first,
                scores,
                rescale,
            );
            d += 8;
        }
        for d in d..dim {
            for r in 0..R {
                let sum: f32 = (0..count)
                    .map(|p| scores[first + r][p] * values[p * dim + d].to_f32())
                    .sum();
                *out[r].add(d) = *out[r].add(d) * rescale[first + r] + sum;
            }
        }
    }
}

/// `8 * N` dimensions of [`weigh`].
///
/// # Safety
/// `values` has `count` rows of stride `dim` with `8 * N` elements each, and so has each row of `out`.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn weigh_part<S: Simd, E: Element, const R: usize, const N: usize>(
    s: S,
    values: *const E,
    dim: usize,
    count: usize,
    out: [*mut f32; R],
    first: usize,
    scores: &[[f32; POSITIONS_PER_BLOCK]; TILE],
    rescale: &[f32; TILE],
) {
    let mut acc = [[s.splat(0.0); N]; R];
    for p in 0..count {
        let mut v = [s.splat(0.0); N];
        for i in 0..N {
            v[i] = E::load(s, values.add(p * dim + 8 * i));
        }
        for r in 0..R {
            let weight = s.splat(scores[first + r][p]);
            for i in 0..N {
                acc[r][i] = s.fma(weight, v[i], acc[r][i]);
            }
        }
    }
    for r in 0..R {
        let factor = s.splat(rescale[first + r]);
        for i in 0..N {
            let p = out[r].add(8 * i);
            s.store(p, s.fma(s.load(p), factor, acc[r][i]));
        }
    }
}
