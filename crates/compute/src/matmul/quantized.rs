//! One panel of quantized weights times quantized tokens.
//!
//! The kernels for many tokens see unpacked codes only, so that they are compiled per [`Shape`] and not per type.

use super::{FEW, TOKEN_BLOCK, Task, Write};
use crate::activations::Activations;
use crate::panels::{BLOCK, Block, ROWS, Shape, Unit};
use crate::simd::{Kernel, Simd, each};
use crate::tier::Tier;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Columns unpacked at a time: 8 KiB of codes and at most 4 KiB of scales, which with a tile of tokens fits 32 KiB.
const STRETCH: usize = 1024;

/// Multiplies and writes the results.
pub(super) fn multiply<U: Unit>(tier: Tier, task: &Task<'_>) {
    if task.count == 1 {
        return tier.run(Few::<U, 1> {
            task,
            unit: PhantomData,
        });
    }
    if task.count <= FEW {
        return tier.run(Few::<U, FEW> {
            task,
            unit: PhantomData,
        });
    }
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let mut sums = [[0.0; ROWS]; TOKEN_BLOCK];
    let sums = &mut sums[..task.count];
    let unit_columns = U::BLOCKS * BLOCK;
    for (stretch, units) in task
        .panel
        .chunks(STRETCH / unit_columns * U::BYTES)
        .enumerate()
    {
        let blocks = units.len() / U::BYTES * U::BLOCKS;
        tier.run(Unpack::<U> {
            units,
            scratch: scratch.as_mut_ptr(),
            unit: PhantomData,
        });
        tier.run(Tiles::<U::Shape> {
            scratch: scratch.as_ptr(),
            blocks,
            task,
            start: stretch * STRETCH / BLOCK,
            sums,
            shape: PhantomData,
        });
    }
    tier.run(Write { task, sums });
}

/// The three pointers of a token's quantized row, from some block on.
#[derive(Clone, Copy)]
struct Row {
    codes: *const i8,
    scales: *const f32,
    sums: *const f32,
}

#[inline(always)]
fn row(input: &Activations, token: usize, block: usize) -> Row {
    let at = token * input.blocks() + block;
    Row {
        codes: input.codes[at * BLOCK..].as_ptr(),
        scales: input.scales[at * 2..].as_ptr(),
        sums: input.sums[at * 3..].as_ptr(),
    }
}

/// `T` tokens straight from the packed panel. Where there are fewer, the last one fills up.
struct Few<'a, U, const T: usize> {
    task: &'a Task<'a>,
    unit: PhantomData<U>,
}

impl<U: Unit, const T: usize> Kernel for Few<'_, U, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let task = self.task;
        let mut rows = [row(task.input, task.first, 0); T];
        for t in 1..T {
            rows[t] = row(task.input, task.first + t.min(task.count - 1), 0);
        }
        let mut acc = [s.splat(0.0); T];
        let mut n = 0;
        for unit in task.panel.chunks_exact(U::BYTES) {
            for b in 0..U::BLOCKS {
                // SAFETY: the unit has `BYTES` bytes; the rows have as many blocks as the panel.
                unsafe {
                    let block = U::block(s, unit.as_ptr(), b);
                    for t in 0..T {
                        acc[t] = accumulate::<S, U::Shape>(s, &block, rows[t], n, acc[t]);
                    }
                }
                n += 1;
            }
        }
        for t in 0..T.min(task.count) {
            task.out.write(s, t, acc[t]);
        }
    }
}

/// `acc + block x activations`, for block `n` of a row.
///
/// # Safety
/// The row has more than `n` blocks.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn accumulate<S: Simd, H: Shape>(
    s: S,
    block: &Block<S>,
    row: Row,
    n: usize,
    mut acc: S::F,
) -> S::F {
    let halves: [[S::B; 4]; 2] = [
        each!(4; j => block.codes[j]),
        each!(4; j => block.codes[4 + j]),
    ];
    for h in 0..2 {
        let codes = row.codes.add(n * BLOCK + 16 * h);
        let dot = if H::SIGNED && !S::BIASED {
            s.dot_signed(&halves[h], codes)
        } else if H::DEPTH == 4 {
            s.dot_unsigned::<4>(&halves[h], codes)
        } else {
            s.dot_unsigned::<2>(&halves[h], codes)
        };
        let scale = s.splat(*row.scales.add(2 * n + h));
        acc = s.fma(s.mul(block.s[h], scale), s.to_f32(dot), acc);
        if H::HALVES {
            acc = s.fma(block.m[h], s.splat(*row.sums.add(3 * n + h)), acc);
        }
    }
    if !H::HALVES && (!H::SIGNED || S::BIASED) {
        acc = s.fma(block.m[0], s.splat(*row.sums.add(3 * n + 2)), acc);
    }
    acc
}

/// A stretch of a panel, unpacked.
#[repr(align(64))]
struct Scratch {
    codes: [u8; STRETCH * ROWS],
    /// `s` and `m` of each block, both halves.
    scales: [f32; STRETCH / BLOCK * 4 * ROWS],
}

/// Unpacks a stretch.
struct Unpack<'a, U> {
    units: &'a [u8],
    scratch: *mut Scratch,
    unit: PhantomData<U>,
}

impl<U: Unit> Kernel for Unpack<'_, U> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut n = 0;
        for unit in self.units.chunks_exact(U::BYTES) {
            for b in 0..U::BLOCKS {
                // SAFETY: at most `STRETCH` columns are unpacked, which the scratch has room for.
                unsafe {
                    let block = U::block(s, unit.as_ptr(), b);
                    let codes = (&raw mut (*self.scratch).codes)
                        .cast::<u8>()
                        .add(n * BLOCK * ROWS);
                    for j in 0..8 {
                        s.store_b(codes.add(32 * j), block.codes[j]);
                    }
                    let scales = (&raw mut (*self.scratch).scales)
                        .cast::<f32>()
                        .add(n * 4 * ROWS);
                    for h in 0..2 {
                        s.store(scales.add(2 * h * ROWS), block.s[h]);
                        s.store(scales.add((2 * h + 1) * ROWS), block.m[h]);
                    }
                }
                n += 1;
            }
        }
    }
}

/// Adds the product of an unpacked stretch with each token to its sums.
struct Tiles<'a, H> {
    scratch: *const Scratch,
    blocks: usize,
    task: &'a Task<'a>,
    /// The stretch's first block in a row.
    start: usize,
    sums: &'a mut [[f32; ROWS]],
    shape: PhantomData<H>,
}

impl<H: Shape> Kernel for Tiles<'_, H> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if S::TILE == 8 {
            self.by::<S, 8>(s)
        } else {
            self.by::<S, 4>(s)
        }
    }
}

impl<H: Shape> Tiles<'_, H> {
    /// `T` tokens at a time; where fewer are left, the last one fills up.
    #[inline(always)]
    fn by<S: Simd, const T: usize>(self, s: S) {
        let Tiles {
            scratch,
            blocks,
            task,
            start,
            sums,
            ..
        } = self;
        let mut first = task.first;
        for sums in sums.chunks_mut(T) {
            let count = sums.len();
            let mut rows = [row(task.input, first, start); T];
            let mut acc = [s.splat(0.0); T];
            for t in 0..T {
                rows[t] = row(task.input, first + t.min(count - 1), start);
                // SAFETY: a sum has 8 elements.
                acc[t] = unsafe { s.load(sums[t.min(count - 1)].as_ptr()) };
            }
            for n in 0..blocks {
                // SAFETY: the scratch holds `blocks` blocks; each row has them from its start on.
                unsafe {
                    let codes = (&raw const (*scratch).codes)
                        .cast::<u8>()
                        .add(n * BLOCK * ROWS);
                    let scales = (&raw const (*scratch).scales)
                        .cast::<f32>()
                        .add(n * 4 * ROWS);
                    let block = Block {
                        codes: each!(8; j => s.load_b(codes.add(32 * j))),
                        s: each!(2; h => s.load(scales.add(2 * h * ROWS))),
                        m: each!(2; h => s.load(scales.add((2 * h + 1) * ROWS))),
                    };
                    for t in 0..T {
                        acc[t] = accumulate::<S, H>(s, &block, rows[t], n, acc[t]);
                    }
                }
            }
            for t in 0..count {
                // SAFETY: as above.
                unsafe { s.store(sums[t].as_mut_ptr(), acc[t]) };
            }
            first += count;
        }
    }
}
