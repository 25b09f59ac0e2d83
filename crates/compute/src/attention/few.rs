//! A few rows against a segment: the cache is converted in registers on its way from memory.

use super::kernel::{BLOCKS, Open, Part, Weights, group, next_bytes, prefetch};
use super::tile::{SEGMENT, score, weigh};
use crate::kv::POSITIONS_PER_BLOCK;
use crate::kv::element::Element;
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of a register tile.
pub(super) const TILE_ROWS: usize = 8;

/// Calls by the rows of a group.
macro_rules! by_rows {
    ($count:expr, $($rows:literal => $call:expr),+) => {
        match $count {
            $($rows => $call,)+
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
        blocks: blocks((from, to)),
        element: PhantomData,
    });
    let groups = tile.rows().div_ceil(TILE_ROWS);
    for index in 0..groups {
        let (first, count) = group(tile.rows(), TILE_ROWS, index);
        by_rows!(count,
            1 => tier.run(Score::<E, 1, 4> { part, first, heads: &heads }),
            2 => tier.run(Score::<E, 2, 4> { part, first, heads: &heads }),
            3 => tier.run(Score::<E, 3, 4> { part, first, heads: &heads }),
            4 => tier.run(Score::<E, 4, 2> { part, first, heads: &heads }),
            5 => tier.run(Score::<E, 5, 2> { part, first, heads: &heads }),
            6 => tier.run(Score::<E, 6, 2> { part, first, heads: &heads }),
            7 => tier.run(Score::<E, 7, 1> { part, first, heads: &heads }),
            8 => tier.run(Score::<E, 8, 1> { part, first, heads: &heads })
        );
    }
    tier.run(Weights::<false> {
        part,
        granule: POSITIONS_PER_BLOCK,
    });
    for index in 0..groups {
        let (first, count) = group(tile.rows(), TILE_ROWS, index);
        by_rows!(count,
            1 => tier.run(Weigh::<E, 1, 4> { part, first, heads: &heads }),
            2 => tier.run(Weigh::<E, 2, 4> { part, first, heads: &heads }),
            3 => tier.run(Weigh::<E, 3, 4> { part, first, heads: &heads }),
            4 => tier.run(Weigh::<E, 4, 2> { part, first, heads: &heads }),
            5 => tier.run(Weigh::<E, 5, 2> { part, first, heads: &heads }),
            6 => tier.run(Weigh::<E, 6, 2> { part, first, heads: &heads }),
            7 => tier.run(Weigh::<E, 7, 1> { part, first, heads: &heads }),
            8 => tier.run(Weigh::<E, 8, 1> { part, first, heads: &heads })
        );
    }
}

/// The blocks of a segment with the positions `from..to`.
#[inline(always)]
fn blocks((from, to): (usize, usize)) -> Range<usize> {
    match from < to {
        true => from / POSITIONS_PER_BLOCK..to.div_ceil(POSITIONS_PER_BLOCK),
        false => 0..0,
    }
}

/// Scores of `R` rows with the blocks that they see, `N` vectors of positions at a time.
struct Score<'a, E: Element, const R: usize, const N: usize> {
    part: &'a Part<'a>,
    first: usize,
    heads: &'a [E::Head; BLOCKS],
}

impl<E: Element, const R: usize, const N: usize> Kernel for Score<'_, E, R, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part {
            tile,
            slot,
            segment,
            ..
        } = *self.part;
        let dim = tile.layout.head_dim_k;
        for index in blocks(tile.sees_in(segment, self.first, R)) {
            let start = self.first * SEGMENT + index * POSITIONS_PER_BLOCK;
            let next = next_bytes::<E>(self.part, index);
            let passes = POSITIONS_PER_BLOCK / 8 / N;
            for i in (0..POSITIONS_PER_BLOCK / 8).step_by(N) {
                if self.first == 0 {
                    prefetch(next[0], i / N, passes);
                    prefetch(next[1], i / N, passes);
                }
                // SAFETY: the block has the keys, the slot the rows.
                unsafe {
                    let q = slot.q.add(self.first * dim);
                    let scores = slot.scores.add(start + 8 * i);
                    score::<S, E::Head, R, N>(s, self.heads[index], i, dim, q, scores);
                }
            }
        }
    }
}

/// Weighted values of `R` rows, `N` vectors of columns at a time.
struct Weigh<'a, E: Element, const R: usize, const N: usize> {
    part: &'a Part<'a>,
    first: usize,
    heads: &'a [E::Head; BLOCKS],
}

impl<E: Element, const R: usize, const N: usize> Kernel for Weigh<'_, E, R, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let vectors = self.part.tile.layout.padded_v() / 8;
        let whole = vectors / N * N;
        for i in (0..whole).step_by(N) {
            // SAFETY: the blocks have these columns, slot and sink the rows.
            unsafe { weigh_columns::<S, E, R, N>(s, self.part, self.heads, self.first, i) };
        }
        for i in whole..vectors {
            // SAFETY: as above.
            unsafe { weigh_columns::<S, E, R, 1>(s, self.part, self.heads, self.first, i) };
        }
    }
}

/// # Safety
/// The blocks that the rows see have `N` vectors of columns from vector `i` on.
#[inline(always)]
unsafe fn weigh_columns<S: Simd, E: Element, const R: usize, const N: usize>(
    s: S,
    part: &Part<'_>,
    heads: &[E::Head; BLOCKS],
    first: usize,
    i: usize,
) {
    let Part {
        tile,
        slot,
        segment,
        sink,
        ..
    } = *part;
    let stride = tile.layout.padded_v();
    let (from, to) = tile.sees_in(segment, first, R);
    let mut acc = [[s.splat(0.0); N]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for index in blocks((from, to)) {
            let start = index * POSITIONS_PER_BLOCK;
            let weights = slot.scores.add(first * SEGMENT + start);
            let from = from.saturating_sub(start);
            let to = (to - start).min(POSITIONS_PER_BLOCK);
            weigh(s, heads[index], i, from, to, weights, &mut acc);
        }
        let sink = sink.rows_from(first, stride);
        sink.put(s, stride, 8 * i, &acc);
    }
}
