//! Many rows against a segment: 16 positions of keys, then 16 columns of values, are converted once into a panel in the
//! first-level cache, and multiplied with all rows.

use super::kernel::{
    BLOCKS, Open, Part, around, by_rows_of_tier, group, keys_of, prefetch, values_of,
};
use super::softmax::Weights;
use super::tile::{Ahead, SEGMENT};
use crate::kv::POSITIONS_PER_BLOCK;
use crate::kv::element::{Element, Side, by_element};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::marker::PhantomData;

/// Positions or columns of a panel: a vector.
pub(super) const PANEL: usize = 16;

/// # Safety
/// The tile and its memory are as [`super::kernel::attend`] wants them.
pub(super) unsafe fn attend(tier: Tier, part: &Part<'_>) {
    let parts = part.tile.parts;
    by_element!(parts.keys.element, E => score_all::<E>(tier, part));
    tier.run(Weights {
        part,
        granule: PANEL,
        ahead: Ahead::NONE,
    });
    by_element!(parts.values.element, E => weigh_all::<E>(tier, part));
}

/// Scores of all rows with the positions that they see.
fn score_all<E: Element>(tier: Tier, part: &Part<'_>) {
    let tile = part.tile;
    let seen = tile.sees_in(part.segment, 0, tile.rows());
    let keys = open::<E>(tier, part, tile.parts.keys, seen);
    let (low, high) = around(seen, PANEL);
    for at in (low..high).step_by(PANEL) {
        tier.run(ConvertKeys {
            keys: keys[at / POSITIONS_PER_BLOCK],
            vector: at % POSITIONS_PER_BLOCK / PANEL,
            dim: tile.layout.head_dim_k,
            panel: part.slot.panel,
        });
        if at % POSITIONS_PER_BLOCK == 0 || at == low {
            let block = at / POSITIONS_PER_BLOCK;
            prefetch(values_of(part, block), 0, 1);
            prefetch(keys_of(part, block + 1), 0, 1);
        }
        tier.run(Score { part, at });
    }
}

/// Weighted values of all rows.
fn weigh_all<E: Element>(tier: Tier, part: &Part<'_>) {
    let tile = part.tile;
    let seen = tile.sees_in(part.segment, 0, tile.rows());
    let values = open::<E>(tier, part, tile.parts.values, seen);
    for at in (0..tile.layout.padded_v()).step_by(PANEL) {
        tier.run(ConvertValues {
            values: &values,
            seen,
            vector: at / PANEL,
            panel: part.slot.panel,
        });
        tier.run(Weigh { part, at });
    }
}

fn open<E: Element>(
    tier: Tier,
    part: &Part<'_>,
    side: Side,
    (from, to): (usize, usize),
) -> [E; BLOCKS] {
    tier.run(Open {
        part,
        side,
        blocks: from / POSITIONS_PER_BLOCK..to.div_ceil(POSITIONS_PER_BLOCK),
        element: PhantomData,
    })
}

/// Writes 16 positions of keys as `[head_dim_k, 16]`.
struct ConvertKeys<E> {
    keys: E,
    /// Which positions of the block.
    vector: usize,
    dim: usize,
    panel: *mut f32,
}

impl<E: Element> Kernel for ConvertKeys<E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for d in 0..self.dim {
            // SAFETY: the block has these positions, the panel room for them.
            unsafe {
                let key = self.keys.key(s, d, self.vector);
                s.store_16(self.panel.add(d * PANEL), key);
            }
        }
    }
}

/// Writes columns of values of the positions seen as `[SEGMENT, 16]`.
struct ConvertValues<'a, E> {
    values: &'a [E; BLOCKS],
    seen: (usize, usize),
    /// Which columns.
    vector: usize,
    panel: *mut f32,
}

impl<E: Element> Kernel for ConvertValues<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (from, to) = self.seen;
        for p in from..to {
            let values = self.values[p / POSITIONS_PER_BLOCK];
            // SAFETY: the block has these columns, the panel room for them.
            unsafe {
                let value = values.value(s, p % POSITIONS_PER_BLOCK, self.vector);
                s.store_16(self.panel.add(p * PANEL), value);
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
}

impl Kernel for Weigh<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part {
            tile,
            slot,
            segment,
            acc: into,
        } = *self.part;
        let (rows, stride) = (tile.rows(), tile.layout.padded_v());
        for index in 0..rows.div_ceil(S::ROWS) {
            let (first, count) = group(rows, S::ROWS, index);
            let seen = tile.sees_in(segment, first, count);
            // SAFETY: the panel has the values, slot and sums the rows.
            unsafe {
                let weights = slot.scores.add(first * SEGMENT);
                by_rows_of_tier!(S, count, R => {
                    let acc = weigh::<S, R>(s, slot.panel, seen, weights);
                    into.fold(s, slot.factors, (first, stride), self.at, &acc);
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
) -> [[S::W; 1]; R] {
    let mut acc = [[s.splat_16(0.0)]; R];
    for p in from..to {
        // SAFETY: the caller's promise.
        unsafe {
            let value = s.load_16(values.add(p * PANEL));
            for r in 0..R {
                let weight = s.splat_16(*weights.add(r * SEGMENT + p));
                acc[r][0] = s.fma_16(weight, value, acc[r][0]);
            }
        }
    }
    acc
}
