//! Register tiles of attention: a few query rows against a few vectors of positions or of dimensions.
//!
//! Each score is one chain of multiply-adds over the dimensions, and each weighted value one over the positions of a segment,
//! in every tile. So a row comes out the same to the last bit whatever rows it is computed with.

use crate::kv::POSITIONS_PER_BLOCK;
use crate::kv::element::Element;
use crate::simd::Simd;

/// Positions whose weights are relative to one largest score. Segments begin at multiples of this, whatever a step holds.
///
/// Long enough that sums are seldom rescaled; 16 columns of values and 6 rows of weights lie in the first-level cache.
pub(super) const SEGMENT: usize = 128;

/// Blocks that are asked for side by side: those of a segment. A processor finds out by itself that the lines of a page are read
/// one after the other, and asks for the next ones, in each of some pages.
const STREAMS: usize = SEGMENT / POSITIONS_PER_BLOCK;

/// Bytes of the blocks of a segment that are asked for on the way into the second-level cache, a line each turn of a loop: many at
/// once would hold up the loads behind them.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    blocks: [*const u8; STREAMS],
    len: usize,
    next: usize,
    step: usize,
}

impl Ahead {
    /// Nothing.
    pub(super) const NONE: Ahead = {
        /// What is asked for where there is nothing.
        static HERE: u8 = 0;
        Ahead {
            blocks: [&raw const HERE; STREAMS],
            len: 0,
            next: 0,
            step: 0,
        }
    };

    /// `len` bytes of each block.
    #[inline(always)]
    pub(super) fn new(blocks: [*const u8; STREAMS], len: usize) -> Self {
        Ahead {
            blocks,
            len,
            ..Ahead::NONE
        }
    }

    /// The `part`th of `parts` parts of the bytes of each block, in so many turns.
    #[inline(always)]
    pub(super) fn part(self, (part, parts): (usize, usize), turns: usize) -> Self {
        Ahead {
            next: part * self.len / parts,
            step: STREAMS * self.len / parts / turns,
            ..self
        }
    }

    /// Asks for a line of one of the blocks, which take turns.
    #[inline(always)]
    pub(super) fn ask<S: Simd>(&mut self, s: S, turn: usize) {
        let stream = turn % STREAMS;
        s.prefetch_far(self.blocks[stream].wrapping_add(self.next));
        if stream == STREAMS - 1 {
            self.next += self.step;
        }
    }
}

/// Scores of `R` rows with the positions of `N` vectors from vector `first` on.
///
/// # Safety
/// `keys` has `dim` elements of those positions; `q` is `[R, dim]`; `scores` has `R` rows of stride [`SEGMENT`] with room for
/// `16 * N`.
#[inline(always)]
pub(super) unsafe fn score<S: Simd, E: Element, const R: usize, const N: usize>(
    s: S,
    keys: E,
    first: usize,
    dim: usize,
    q: *const f32,
    scores: *mut f32,
    mut ahead: Ahead,
) {
    let mut acc = [[s.splat_16(0.0); N]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for turn in (0..dim).step_by(STREAMS) {
            for stream in 0..STREAMS {
                let d = turn + stream;
                if d == dim {
                    break;
                }
                ahead.ask(s, stream);
                let mut k = [s.splat_16(0.0); N];
                for i in 0..N {
                    k[i] = keys.key(s, d, first + i);
                }
                for r in 0..R {
                    let q = s.splat_16(*q.add(r * dim + d));
                    for i in 0..N {
                        acc[r][i] = s.fma_16(q, k[i], acc[r][i]);
                    }
                }
            }
        }
        for r in 0..R {
            for i in 0..N {
                s.store_16(scores.add(r * SEGMENT + 16 * i), acc[r][i]);
            }
        }
    }
}

/// Adds the weighted values of the positions `from..to` to `R` rows of `N` vectors of dimensions from vector `first` on.
///
/// # Safety
/// `values` has those positions and dimensions; `weights` has `R` rows of stride [`SEGMENT`] with `to` elements.
#[inline(always)]
pub(super) unsafe fn weigh<S: Simd, E: Element, const R: usize, const N: usize>(
    s: S,
    values: E,
    first: usize,
    from: usize,
    to: usize,
    weights: *const f32,
    acc: &mut [[S::W; N]; R],
    mut ahead: Ahead,
) {
    for turn in (from..to).step_by(STREAMS) {
        for stream in 0..STREAMS {
            let p = turn + stream;
            if p == to {
                break;
            }
            ahead.ask(s, stream);
            let mut v = [s.splat_16(0.0); N];
            for i in 0..N {
                // SAFETY: the caller's promise.
                v[i] = unsafe { values.value(s, p, first + i) };
            }
            for r in 0..R {
                // SAFETY: the caller's promise.
                let weight = s.splat_16(unsafe { *weights.add(r * SEGMENT + p) });
                for i in 0..N {
                    acc[r][i] = s.fma_16(weight, v[i], acc[r][i]);
                }
            }
        }
    }
}
