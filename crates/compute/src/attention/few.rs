//! A few rows against a segment: the cache is converted in registers on its way from memory.

use super::kernel::{BLOCKS, Open, Part, by_rows_of_tier, group, keys_of, values_of};
use super::softmax::Weights;
use super::tile::{Ahead, SEGMENT, score, weigh};
use crate::kv::element::{Element, Side, by_element};
use crate::kv::{LINE, POSITIONS_PER_BLOCK};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::marker::PhantomData;
use std::ops::Range;

/// Vectors of a block's positions.
const VECTORS: usize = POSITIONS_PER_BLOCK / 16;

/// # Safety
/// The tile and its memory are as [`super::kernel::attend`] wants them.
pub(super) unsafe fn attend(tier: Tier, part: &Part<'_>) {
    let parts = part.tile.parts;
    by_element!(parts.keys.element, E => {
        let keys = &open::<E>(tier, part, parts.keys);
        tier.run(Score { part, keys });
    });
    tier.run(Weights {
        part,
        granule: POSITIONS_PER_BLOCK,
        ahead: first_keys_ahead(part),
    });
    by_element!(parts.values.element, E => {
        let values = &open::<E>(tier, part, parts.values);
        tier.run(Weigh { part, values });
    });
}

fn open<E: Element>(tier: Tier, part: &Part<'_>, side: Side) -> [E; BLOCKS] {
    let tile = part.tile;
    tier.run(Open {
        part,
        side,
        blocks: blocks(tile.sees_in(part.segment, 0, tile.rows())),
        element: PhantomData,
    })
}

/// The blocks of a segment with the positions `from..to`.
#[inline(always)]
fn blocks((from, to): (usize, usize)) -> Range<usize> {
    match from < to {
        true => from / POSITIONS_PER_BLOCK..to.div_ceil(POSITIONS_PER_BLOCK),
        false => 0..0,
    }
}

/// The values of a segment, from its first block on.
#[inline(always)]
fn values_ahead(part: &Part<'_>) -> Ahead {
    ahead(|index| values_of(part, index))
}

/// The keys of the segment behind it, of each block as many bytes as the softmax asks for.
#[inline(always)]
fn first_keys_ahead(part: &Part<'_>) -> Ahead {
    ahead(|index| {
        let (start, len) = keys_of(part, BLOCKS + index);
        (start, len.min(asked_in_softmax(part)))
    })
}

/// Its other keys.
#[inline(always)]
fn more_keys_ahead(part: &Part<'_>) -> Ahead {
    ahead(|index| {
        let (start, len) = keys_of(part, BLOCKS + index);
        let asked = len.min(asked_in_softmax(part));
        (start.wrapping_add(asked), len - asked)
    })
}

/// Bytes of each block that the softmax asks for: a line with each vector of its scores.
#[inline(always)]
fn asked_in_softmax(part: &Part<'_>) -> usize {
    part.tile.rows() * VECTORS * LINE
}

/// What each block of a segment has, the first one in place of those that are not there.
#[inline(always)]
fn ahead(of: impl Fn(usize) -> (*const u8, usize)) -> Ahead {
    let (first, len) = of(0);
    if len == 0 {
        return Ahead::NONE;
    }
    let mut blocks = [first; BLOCKS];
    for index in 1..BLOCKS {
        if let (block, 1..) = of(index) {
            blocks[index] = block;
        }
    }
    Ahead::new(blocks, len)
}

/// Whether the registers hold the tile of `rows` rows and two vectors.
#[inline(always)]
fn two_vectors<S: Simd>(rows: usize) -> bool {
    S::ROWS == 12 || rows <= 3
}

/// Scores of all rows with the blocks that they see. The values of the segment are asked for meanwhile; where only some of its blocks are
/// seen, as large a part of them.
struct Score<'a, E: Element> {
    part: &'a Part<'a>,
    keys: &'a [E; BLOCKS],
}

impl<E: Element> Kernel for Score<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.part.tile.rows();
        let mut ahead = values_ahead(self.part);
        for index in 0..rows.div_ceil(S::ROWS) {
            let (first, count) = group(rows, S::ROWS, index);
            by_rows_of_tier!(S, count, R => {
                if two_vectors::<S>(R) {
                    self.rows::<S, R, 2>(s, first, ahead);
                } else {
                    self.rows::<S, R, 1>(s, first, ahead);
                }
            });
            ahead = Ahead::NONE;
        }
    }
}

impl<E: Element> Score<'_, E> {
    /// `R` rows from `first` on, `N` vectors of positions at a time.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const N: usize>(&self, s: S, first: usize, ahead: Ahead) {
        let Part {
            tile,
            slot,
            segment,
            ..
        } = *self.part;
        let dim = tile.layout.head_dim_k;
        for index in blocks(tile.sees_in(segment, first, R)) {
            let start = first * SEGMENT + index * POSITIONS_PER_BLOCK;
            for i in (0..VECTORS).step_by(N) {
                let passes = VECTORS / N;
                let part = (index * passes + i / N, BLOCKS * passes);
                let ahead = ahead.part(part, dim);
                // SAFETY: the block has the keys, the slot the rows.
                unsafe {
                    let q = slot.q.add(first * dim);
                    let scores = slot.scores.add(start + 16 * i);
                    score::<S, E, R, N>(s, self.keys[index], i, dim, q, scores, ahead);
                }
            }
        }
    }
}

/// Weighted values of all rows. Keys of the segment behind it are asked for meanwhile.
struct Weigh<'a, E: Element> {
    part: &'a Part<'a>,
    values: &'a [E; BLOCKS],
}

impl<E: Element> Kernel for Weigh<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.part.tile.rows();
        let vectors = self.part.tile.layout.padded_v() / 16;
        let mut ahead = more_keys_ahead(self.part);
        for index in 0..rows.div_ceil(S::ROWS) {
            let (first, count) = group(rows, S::ROWS, index);
            by_rows_of_tier!(S, count, R => {
                // SAFETY: the blocks have these columns, slot and sums the rows.
                unsafe {
                    let mut i = 0;
                    while two_vectors::<S>(R) && i + 2 <= vectors {
                        self.columns::<S, R, 2>(s, first, i, vectors, ahead);
                        i += 2;
                    }
                    while i < vectors {
                        self.columns::<S, R, 1>(s, first, i, vectors, ahead);
                        i += 1;
                    }
                }
            });
            ahead = Ahead::NONE;
        }
    }
}

impl<E: Element> Weigh<'_, E> {
    /// `R` rows from `first` on, `N` of their `vectors` vectors from vector `i` on.
    ///
    /// # Safety
    /// There are such rows and columns.
    #[inline(always)]
    unsafe fn columns<S: Simd, const R: usize, const N: usize>(
        &self,
        s: S,
        first: usize,
        i: usize,
        vectors: usize,
        ahead: Ahead,
    ) {
        let Part {
            tile,
            slot,
            segment,
            acc: into,
        } = *self.part;
        let stride = tile.layout.padded_v();
        let (from, to) = tile.sees_in(segment, first, R);
        let mut acc = [[s.splat_16(0.0); N]; R];
        // SAFETY: the caller's promise.
        unsafe {
            for index in blocks((from, to)) {
                let part = (i / N * BLOCKS + index, vectors.div_ceil(N) * BLOCKS);
                let ahead = ahead.part(part, POSITIONS_PER_BLOCK);
                let start = index * POSITIONS_PER_BLOCK;
                let weights = slot.scores.add(first * SEGMENT + start);
                let from = from.saturating_sub(start);
                let to = (to - start).min(POSITIONS_PER_BLOCK);
                weigh(s, self.values[index], i, from, to, weights, &mut acc, ahead);
            }
            into.fold(s, slot.factors, (first, stride), 16 * i, &acc);
        }
    }
}
