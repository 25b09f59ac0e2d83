//! Many rows against a segment: 16 positions of keys, then 16 columns of values, are converted once into a panel in the
//! first-level cache, and multiplied with all rows.

use super::kernel::{BLOCKS, Open, Part, Weights, around, by_rows, group, next_bytes, prefetch};
use super::tile::{Panel, SEGMENT, Sink, score, weigh};
use crate::kv::POSITIONS_PER_BLOCK;
use crate::kv::element::{Element, Keys, Values};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::marker::PhantomData;

/// Positions or columns of a panel: 2 vectors.
pub(super) const PANEL: usize = 16;
/// Rows of a register tile: 6 of 2 vectors, the panel's 2 and a factor fill 15 of 16 registers.
const TILE_ROWS: usize = 6;

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
    tier.run(Weights {
        part,
        most: TILE_ROWS,
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
        let panel = Panel {
            start: slot.panel,
            stride: PANEL,
        };
        let (rows, dim) = (tile.rows(), tile.layout.head_dim_k);
        for index in 0..rows.div_ceil(TILE_ROWS) {
            let (first, count) = group(rows, TILE_ROWS, index);
            let (low, high) = around(tile.sees_in(segment, first, count), PANEL);
            if self.at < low || high <= self.at {
                continue;
            }
            // SAFETY: the panel has the keys, the slot the rows.
            unsafe {
                let q = slot.q.add(first * dim);
                let scores = slot.scores.add(first * SEGMENT + self.at);
                by_rows!(count,
                    6 => score::<S, Panel, 6, 2>(s, panel, 0, dim, q, scores),
                    5 => score::<S, Panel, 5, 2>(s, panel, 0, dim, q, scores),
                    4 => score::<S, Panel, 4, 2>(s, panel, 0, dim, q, scores),
                    3 => score::<S, Panel, 3, 2>(s, panel, 0, dim, q, scores),
                    2 => score::<S, Panel, 2, 2>(s, panel, 0, dim, q, scores),
                    1 => score::<S, Panel, 1, 2>(s, panel, 0, dim, q, scores)
                );
            }
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
        // SAFETY: the panel has the values, slot and sink the rows.
        unsafe {
            match self.vectors {
                2 => weigh_all::<S, 2>(s, self.part, self.at),
                _ => weigh_all::<S, 1>(s, self.part, self.at),
            }
        }
    }
}

/// # Safety
/// The panel has `8 * N` columns of the values that the tile sees.
#[inline(always)]
unsafe fn weigh_all<S: Simd, const N: usize>(s: S, part: &Part<'_>, at: usize) {
    let Part {
        tile,
        slot,
        segment,
        sink,
        ..
    } = *part;
    let (rows, stride) = (tile.rows(), tile.layout.padded_v());
    let panel = Panel {
        start: slot.panel,
        stride: PANEL,
    };
    for index in 0..rows.div_ceil(TILE_ROWS) {
        let (first, count) = group(rows, TILE_ROWS, index);
        let seen = tile.sees_in(segment, first, count);
        // SAFETY: the caller's promise.
        unsafe {
            let weights = slot.scores.add(first * SEGMENT);
            let sink = sink.rows_from(first, stride);
            by_rows!(count,
                6 => weigh_rows::<S, 6, N>(s, panel, seen, weights, sink, stride, at),
                5 => weigh_rows::<S, 5, N>(s, panel, seen, weights, sink, stride, at),
                4 => weigh_rows::<S, 4, N>(s, panel, seen, weights, sink, stride, at),
                3 => weigh_rows::<S, 3, N>(s, panel, seen, weights, sink, stride, at),
                2 => weigh_rows::<S, 2, N>(s, panel, seen, weights, sink, stride, at),
                1 => weigh_rows::<S, 1, N>(s, panel, seen, weights, sink, stride, at)
            );
        }
    }
}

/// # Safety
/// The panel, the weights and the sink have these rows and columns.
#[inline(always)]
unsafe fn weigh_rows<S: Simd, const R: usize, const N: usize>(
    s: S,
    panel: Panel,
    (from, to): (usize, usize),
    weights: *const f32,
    sink: Sink,
    stride: usize,
    at: usize,
) {
    let mut acc = [[s.splat(0.0); N]; R];
    // SAFETY: the caller's promise.
    unsafe {
        weigh(s, panel, 0, from, to, weights, &mut acc);
        sink.put(s, stride, at, &acc);
    }
}
