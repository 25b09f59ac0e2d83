//! One panel of blocks that have no kernel of their own times `f32` tokens: the rows are decoded a stretch at a time, as
//! `dunlin-format` decodes them, and multiplied as floats.
//!
//! A stretch is decoded once for all tokens of the call. Each product of a row and a token is summed in the same order
//! however many tokens there are.

use super::{TOKEN_BLOCK, Task, Write};
use crate::panels::ROWS;
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use dunlin_format::{DType, decode_inlined};

/// Columns decoded at a time: a multiple of every block length. 16 KiB of weights, which with a tile of tokens fits 32 KiB.
const STRETCH: usize = 512;

/// Multiplies and writes the results.
pub(super) fn multiply(tier: Tier, dtype: DType, task: &Task<'_>) {
    let mut weights = Scratch([[0.0; STRETCH]; ROWS]);
    let mut sums = [[0.0; ROWS]; TOKEN_BLOCK];
    let sums = &mut sums[..task.count];
    let cols = task.input.cols();
    for start in (0..cols).step_by(STRETCH) {
        let count = STRETCH.min(cols - start);
        tier.run(Decode {
            dtype,
            task,
            start,
            count,
            weights: &mut weights,
        });
        tier.run(Tiles {
            weights: &weights,
            task,
            start,
            count,
            sums,
        });
    }
    tier.run(Write { task, sums });
}

/// A stretch of 8 rows, decoded.
#[repr(align(64))]
struct Scratch([[f32; STRETCH]; ROWS]);

/// Decodes the `count` columns from `start` on of every row; rows that the matrix does not have stay zero.
struct Decode<'a> {
    dtype: DType,
    task: &'a Task<'a>,
    start: usize,
    count: usize,
    weights: &'a mut Scratch,
}

impl Kernel for Decode<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (block_len, block_bytes) = (self.dtype.block_len(), self.dtype.block_bytes());
        let row_bytes = self.task.input.cols() / block_len * block_bytes;
        let from = self.start / block_len * block_bytes;
        let bytes = self.count / block_len * block_bytes;
        let rows = self.task.panel.chunks_exact(row_bytes);
        for (row, weights) in rows.zip(&mut self.weights.0) {
            let weights = &mut weights[..self.count];
            if decode_inlined(self.dtype, &row[from..][..bytes], weights).is_err() {
                // `pack` took whole blocks of a type that can be decoded; if it did not, the fault shows.
                weights.fill(f32::NAN);
            }
        }
    }
}

/// Adds the product of a stretch with each token to its sums.
struct Tiles<'a> {
    weights: &'a Scratch,
    task: &'a Task<'a>,
    start: usize,
    count: usize,
    sums: &'a mut [[f32; ROWS]],
}

impl Kernel for Tiles<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // As many sums as fit the registers, at least the 8 that keep two multipliers of four cycles busy.
        match (self.sums.len(), S::TILE) {
            (1, _) => self.by::<S, 8, 1>(s),
            (_, 8) => self.by::<S, 4, 4>(s),
            _ => self.by::<S, 4, 2>(s),
        }
    }
}

impl Tiles<'_> {
    /// By `R` rows and `T` tokens; where fewer tokens are left, the last one fills up.
    #[inline(always)]
    fn by<S: Simd, const R: usize, const T: usize>(self, s: S) {
        let cols = self.task.input.cols();
        let inputs = self.task.input.rows();
        let mut first = self.task.first;
        for sums in self.sums.chunks_mut(T) {
            let mut tokens = [&inputs[..0]; T];
            for t in 0..T {
                let token = first + t.min(sums.len() - 1);
                tokens[t] = &inputs[token * cols + self.start..][..self.count];
            }
            for (group, rows) in self.weights.0.chunks_exact(R).enumerate() {
                let mut acc = [[s.splat(0.0); T]; R];
                for k in (0..self.count).step_by(8) {
                    // SAFETY: `count` is a multiple of 8 (every block length is) and at most `STRETCH`; `rows` has `R` rows.
                    unsafe {
                        let mut x = [s.splat(0.0); T];
                        for t in 0..T {
                            x[t] = s.load(tokens[t].as_ptr().add(k));
                        }
                        for r in 0..R {
                            let w = s.load(rows.get_unchecked(r).as_ptr().add(k));
                            for t in 0..T {
                                acc[r][t] = s.fma(w, x[t], acc[r][t]);
                            }
                        }
                    }
                }
                for (t, sums) in sums.iter_mut().enumerate() {
                    for r in 0..R {
                        sums[group * R + r] += s.sum(acc[r][t]);
                    }
                }
            }
            first += sums.len();
        }
    }
}
