//! Many rows against a segment: 16 positions of keys, then 16 columns of values, are converted once into a panel in the
//! first-level cache, and multiplied with all rows.

use super::kernel::{BLOCKS, Open, Part, Weights, around, group, next_bytes, prefetch};
use super::tile::SEGMENT;
use crate::kv::POSITIONS_PER_BLOCK;
use crate::kv::element::{Element, Keys, Values};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::marker::PhantomData;

/// Positions or columns of a panel: 2 vectors.
pub(super) const PANEL: usize = 16;

/// Calls with the rows of a group as a constant, up to those of the tier's register tile.
macro_rules! by_rows_of_tier {
    ($tier:ident, $count:expr, $rows:ident => $call:expr) => {
        by_rows_of_tier!(@ $tier, $count, $rows => $call, 1 2 3 4 5 6, 7 8 9 10 11 12)
    };
    (@ $tier:ident, $count:expr, $rows:ident => $call:expr, $($few:literal)+, $($many:literal)+) => {
        match $count {
            $($few => {
                const $rows: usize = $few;
                $call
            })+
            $($many if $tier::ROWS == 12 => {
                const $rows: usize = $many;
                $call
            })+
            _ => {}
        }
    };
}

/// # Safety
/// The tile and its memory are as [`super::kernel::attend`] wants them.
pub(super) unsafe fn attend<E: Element>(tier: Tier, part: &Part<'_>) {
    let tile = part.tile;
    let (from, to) = tile.sees_in(part.segment, 0, tile.rows());
    let heads = tier.run(Open::<E> {
        part,
        blocks: from / POSITIONS_PER_BLOCK..to.div_ceil(POSITIONS_PER_BLOCK),
        element: PhantomData,
    });
    let (low, high) = around((from, to), PANEL);
    for at in (low..high).step_by(PANEL) {
        tier.run(ConvertKeys {
            head: heads[at / POSITIONS_PER_BLOCK],
            first: at % POSITIONS_PER_BLOCK / 8,
            dim: tile.layout.head_dim_k,
            panel: part.slot.panel,
        });
        if at % POSITIONS_PER_BLOCK == 0 || at == low {
            for bytes in next_bytes::<E>(part, at / POSITIONS_PER_BLOCK) {
                prefetch(bytes, 0, 1);
            }
        }
        tier.run(Score { part, at });
    }
    tier.run(Weights::<true> {
        part,
        granule: PANEL,
    });
    for at in (0..tile.layout.padded_v()).step_by(PANEL) {
        let vectors = ((tile.layout.padded_v() - at) / 8).min(PANEL / 8);
        tier.run(ConvertValues {
            heads: &heads,
            seen: (from, to),
            first: at / 8,
            vectors,
            panel: part.slot.panel,
        });
        tier.run(Weigh { part, at, vectors });
    }
}

/// Writes 16 positions of keys as `[head_dim_k, 16]`.
struct ConvertKeys<H> {
    head: H,
    /// Vector of the block with the first position.
    first: usize,
    dim: usize,
    panel: *mut f32,
}

impl<H: Keys> Kernel for ConvertKeys<H> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for d in 0..self.dim {
            for i in 0..PANEL / 8 {
                // SAFETY: the block has these positions, the panel room for them.
                unsafe {
                    let key = self.head.key(s, d, self.first + i);
                    s.store(self.panel.add(d * PANEL + 8 * i), key);
                }
            }
        }
    }
}

/// Writes columns of values of the positions seen as `[SEGMENT, 16]`.
struct ConvertValues<'a, H> {
    heads: &'a [H; BLOCKS],
    seen: (usize, usize),
    first: usize,
    vectors: usize,
    panel: *mut f32,
}

impl<H: Values> Kernel for ConvertValues<'_, H> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (from, to) = self.seen;
        for p in from..to {
            let head = self.heads[p / POSITIONS_PER_BLOCK];
            for i in 0..self.vectors {
                // SAFETY: the block has these columns, the panel room for them.
                unsafe {
                    let value = head.value(s, p % POSITIONS_PER_BLOCK, self.first + i);
                    s.store(self.panel.add(p * PANEL + 8 * i), value);
                }
            }
        }
    }
}

/// Scores of all rows that see something of a panel.
struct Score<'a> {
    part: &'a Part<'a>,
    at: usize,
}

impl Kernel for Score<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part {
            tile,
            slot,
            segment,
            ..
        } = *self.part;
        let (rows, dim) = (tile.rows(), tile.layout.head_dim_k);
        for index in 0..rows.div_ceil(S::ROWS) {
            let (first, count) = group(rows, S::ROWS, index);
            let (low, high) = around(tile.sees_in(segment, first, count), PANEL);
            if self.at < low || high <= self.at {
                continue;
            }
            // SAFETY: the panel has the keys, the slot the rows.
            unsafe {
                let q = slot.q.add(first * dim);
                let scores = slot.scores.add(first * SEGMENT + self.at);
                by_rows_of_tier!(S, count, R => score::<S, R>(s, slot.panel, dim, q, scores));
            }
        }
    }
}

/// Scores of `R` rows with the positions of a panel.
///
/// # Safety
/// `keys` is `[dim, 16]`, `q` is `[R, dim]`, and `scores` has `R` rows of stride [`SEGMENT`] with room for 16.
#[inline(always)]
unsafe fn score<S: Simd, const R: usize>(
    s: S,
    keys: *const f32,
    dim: usize,
    q: *const f32,
    scores: *mut f32,
) {
    let mut acc = [s.splat_16(0.0); R];
    // SAFETY: the caller's promise.
    unsafe {
        for d in 0..dim {
            let key = s.load_16(keys.add(d * PANEL));
            for r in 0..R {
                acc[r] = s.fma_16(s.splat_16(*q.add(r * dim + d)), key, acc[r]);
            }
        }
        for r in 0..R {
            s.store_16(scores.add(r * SEGMENT), acc[r]);
        }
    }
}

/// Weighted values of a panel of columns.
struct Weigh<'a> {
    part: &'a Part<'a>,
    at: usize,
    vectors: usize,
}

impl Kernel for Weigh<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part {
            tile,
            slot,
            segment,
            sink,
            ..
        } = *self.part;
        let (rows, stride) = (tile.rows(), tile.layout.padded_v());
        for index in 0..rows.div_ceil(S::ROWS) {
            let (first, count) = group(rows, S::ROWS, index);
            let seen = tile.sees_in(segment, first, count);
            // SAFETY: the panel has the values, slot and sink the rows.
            unsafe {
                let weights = slot.scores.add(first * SEGMENT);
                let sink = sink.rows_from(first, stride);
                by_rows_of_tier!(S, count, R => {
                    let acc = weigh::<S, R>(s, slot.panel, seen, weights);
                    if self.vectors == 2 {
                        sink.put(s, stride, self.at, &acc);
                    } else {
                        let mut first = [[acc[0][0]]; R];
                        for (first, halves) in first.iter_mut().zip(&acc) {
                            *first = [halves[0]];
                        }
                        sink.put(s, stride, self.at, &first);
                    }
                });
            }
        }
    }
}

/// The values of the positions `from..to` in a panel, weighted, for `R` rows.
///
/// # Safety
/// `values` is `[to, 16]`; `weights` has `R` rows of stride [`SEGMENT`] with `to` elements.
#[inline(always)]
unsafe fn weigh<S: Simd, const R: usize>(
    s: S,
    values: *const f32,
    (from, to): (usize, usize),
    weights: *const f32,
) -> [[S::F; 2]; R] {
    let mut acc = [s.splat_16(0.0); R];
    for p in from..to {
        // SAFETY: the caller's promise.
        unsafe {
            let value = s.load_16(values.add(p * PANEL));
            for r in 0..R {
                acc[r] = s.fma_16(s.splat_16(*weights.add(r * SEGMENT + p)), value, acc[r]);
            }
        }
    }
    let mut halves = [s.halves(acc[0]); R];
    for (halves, acc) in halves.iter_mut().zip(acc) {
        *halves = s.halves(acc);
    }
    halves
}
