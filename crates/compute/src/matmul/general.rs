//! One panel of blocks that have no kernel of their own times `f32` tokens: the rows are decoded a stretch at a time to codes
//! and scales, as `dunlin-format` decodes them, and multiplied as floats.
//!
//! A stretch is decoded once for all tokens of the call: for one token straight into the sums, for several into floats first.
//! Either way the product of a row and a token is rounded and summed alike, however many tokens there are.

use super::{TOKEN_BLOCK, Task};
use crate::panels::ROWS;
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use dunlin_format::{CODES_PER_SCALE, DType, decode_codes};

/// Columns decoded at a time, a multiple of every block length: 16 KiB of floats, which with a tile of tokens fit 32 KiB.
const STRETCH: usize = 512;

/// Multiplies and writes the results.
pub(super) fn multiply(tier: Tier, dtype: DType, task: &Task<'_>) {
    let mut coded = Coded {
        codes: [[0; STRETCH]; ROWS],
        scales: [[0.0; STRETCH / CODES_PER_SCALE]; ROWS],
    };
    let mut sums = [[0.0; ROWS]; TOKEN_BLOCK];
    let sums = &mut sums[..task.count];
    if let [sums] = sums {
        stretches(dtype, task, &mut coded, |coded, start, count| {
            let token = &task.input.rows()[task.first * task.input.cols()..][start..][..count];
            tier.run(One { coded, token, sums });
        });
    } else {
        let mut weights = Weights([[0.0; STRETCH]; ROWS]);
        stretches(dtype, task, &mut coded, |coded, start, count| {
            let weights = &mut weights;
            tier.run(Expand {
                coded,
                count,
                weights,
            });
            tier.run(Tiles {
                weights,
                task,
                start,
                count,
                sums,
            });
        });
    }
    tier.run(Write { task, sums });
}

/// Writes the sums of all tokens to the output.
struct Write<'a> {
    task: &'a Task<'a>,
    sums: &'a [[f32; ROWS]],
}

impl Kernel for Write<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (t, sum) in self.sums.iter().enumerate() {
            // SAFETY: a sum has 8 elements.
            self.task
                .out
                .write(s, t, 0, unsafe { s.load(sum.as_ptr()) });
        }
    }
}

/// A stretch of 8 rows: weight = scale x code.
#[repr(align(64))]
struct Coded {
    codes: [[i8; STRETCH]; ROWS],
    scales: [[f32; STRETCH / CODES_PER_SCALE]; ROWS],
}

/// The weights of a stretch of 8 rows.
#[repr(align(64))]
struct Weights([[f32; STRETCH]; ROWS]);

/// Calls `multiply(stretch, first column, columns)` for each stretch of a panel. Rows that the matrix does not have are
/// zero.
fn stretches(
    dtype: DType,
    task: &Task<'_>,
    coded: &mut Coded,
    mut multiply: impl FnMut(&Coded, usize, usize),
) {
    let cols = task.input.cols();
    let bytes_of = |cols: usize| cols / dtype.block_len() * dtype.block_bytes();
    for start in (0..cols).step_by(STRETCH) {
        let count = STRETCH.min(cols - start);
        let rows = task.panels.chunks_exact(bytes_of(cols));
        for (row, bytes) in rows.enumerate() {
            let bytes = &bytes[bytes_of(start)..][..bytes_of(count)];
            let codes = &mut coded.codes[row][..count];
            let scales = &mut coded.scales[row][..count / CODES_PER_SCALE];
            if decode_codes(dtype, bytes, codes, scales).is_err() {
                // `pack` takes whole blocks of types that decode like this; if it did not, the fault shows.
                scales.fill(f32::NAN);
            }
        }
        multiply(coded, start, count);
    }
}

/// Adds the product of a stretch with one token to its sums.
struct One<'a> {
    coded: &'a Coded,
    token: &'a [f32],
    sums: &'a mut [f32; ROWS],
}

impl Kernel for One<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut acc = [s.splat(0.0); ROWS];
        let (groups, _) = self.token.as_chunks::<CODES_PER_SCALE>();
        for (group, x) in groups.iter().enumerate() {
            // SAFETY: a group has 16 columns, here and in the token; there are at most `STRETCH / 16` of them.
            unsafe {
                let x = [s.load(x.as_ptr()), s.load(x.as_ptr().add(8))];
                for r in 0..ROWS {
                    let weights = weights(s, self.coded, r, group);
                    acc[r] = s.fma(weights[0], x[0], acc[r]);
                    acc[r] = s.fma(weights[1], x[1], acc[r]);
                }
            }
        }
        for r in 0..ROWS {
            self.sums[r] += s.sum(acc[r]);
        }
    }
}

/// The 16 weights of a group of columns.
///
/// # Safety
/// `row < ROWS` and `group < STRETCH / 16`.
#[inline(always)]
unsafe fn weights<S: Simd>(s: S, coded: &Coded, row: usize, group: usize) -> [S::F; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let scale = s.splat(*coded.scales.get_unchecked(row).get_unchecked(group));
        let codes = coded.codes.get_unchecked(row).as_ptr().cast::<u8>();
        let codes = codes.add(group * CODES_PER_SCALE);
        [
            s.mul(scale, s.load_i8(codes)),
            s.mul(scale, s.load_i8(codes.add(8))),
        ]
    }
}

/// Multiplies the first `count` columns of a stretch out.
struct Expand<'a> {
    coded: &'a Coded,
    count: usize,
    weights: &'a mut Weights,
}

impl Kernel for Expand<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, out) in self.weights.0.iter_mut().enumerate() {
            let (out, _) = out[..self.count].as_chunks_mut::<CODES_PER_SCALE>();
            for (group, out) in out.iter_mut().enumerate() {
                // SAFETY: the group lies in the stretch, and `out` has its 16 columns.
                unsafe {
                    let [first, second] = weights(s, self.coded, row, group);
                    s.store(out.as_mut_ptr(), first);
                    s.store(out.as_mut_ptr().add(8), second);
                }
            }
        }
    }
}

/// Adds the product of a stretch with each token to its sums.
struct Tiles<'a> {
    weights: &'a Weights,
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
        if S::TILE == 8 {
            self.by::<S, 4, 4>(s)
        } else {
            self.by::<S, 4, 2>(s)
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
