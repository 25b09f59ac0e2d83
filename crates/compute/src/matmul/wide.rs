//! Panels of quantized weights times tokens in 16 bits.
//!
//! Codes are widened to 16 bits when a stretch is unpacked into the first-level cache. One instruction then multiplies two
//! columns of 8 rows and adds each pair in 32 bits: as many products a cycle as exact products of bytes reach, of activations
//! that are 256 times finer. Two panels share what is read of a token.

use super::{Sums, Task, Write};
use crate::activations::{WideRow, WideRows};
use crate::panels::{BLOCK, ROWS, Shape, Unit, adds_offset};
use crate::simd::{Kernel, Simd, Tile, WIDE_BLOCKS, WIDE_PAIR, ZERO};
use crate::tier::Tier;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Tokens in a register tile of tiers that bring none: with two panels 12 sums, two vectors of weights and one of activations.
const TILE: usize = 6;
/// Panels side by side.
const PAIR: usize = 2;
/// Tokens in the tiles of what is left.
const REST: usize = 2;

/// Multiplies one or two panels with tokens in 16 bits and writes the results.
pub(super) fn multiply<U: Unit>(tier: Tier, task: &Task<'_>, rows: &WideRows) {
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let scratch = scratch.as_mut_ptr().cast::<u8>();
    let mut sums = Sums::new();
    let sums = sums.zeros(PAIR * task.count);
    let panel_bytes = task.input.blocks() / U::BLOCKS * U::BYTES;
    let panels = task.panels.len() / panel_bytes;
    let stretch_bytes = WIDE_BLOCKS / U::BLOCKS * U::BYTES;
    for start in (0..panel_bytes).step_by(stretch_bytes) {
        let bytes = stretch_bytes.min(panel_bytes - start);
        for (index, panel) in task.panels.chunks_exact(panel_bytes).enumerate() {
            tier.run(Unpack::<U> {
                units: &panel[start..][..bytes],
                panel: scratch.wrapping_add(32 * index),
                unit: PhantomData,
            });
        }
        tier.run(Tiles::<U::Shape> {
            scratch,
            panels,
            blocks: bytes / U::BYTES * U::BLOCKS,
            task,
            rows,
            start: start / U::BYTES * U::BLOCKS,
            sums,
            shape: PhantomData,
        });
    }
    tier.run(Write {
        task,
        panels,
        side_by_side: PAIR,
        sums,
    });
}

/// A stretch of two panels, unpacked: 20 KiB, which with a tile of tokens fit a first-level cache of 32 KiB.
#[repr(align(64))]
struct Scratch {
    _pairs: [u8; WIDE_BLOCKS * WIDE_PAIR],
}

/// Unpacks a stretch of a panel.
struct Unpack<'a, U> {
    units: &'a [u8],
    panel: *mut u8,
    unit: PhantomData<U>,
}

impl<U: Unit> Kernel for Unpack<'_, U> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut n = 0;
        for unit in self.units.chunks_exact(U::BYTES) {
            for b in 0..U::BLOCKS {
                // SAFETY: at most `WIDE_BLOCKS` blocks are unpacked, which a panel of the scratch has room for.
                unsafe {
                    let block = U::block(s, unit.as_ptr(), b);
                    let codes = self.panel.add(n * WIDE_PAIR);
                    for j in 0..8 {
                        // In 16 bits no tier needs a bias.
                        let [first, second] = match (S::BIASED, U::Shape::SIGNED) {
                            (true, _) => s.widen::<true>(s.xor_b(block.codes[j], ZERO)),
                            (false, true) => s.widen::<true>(block.codes[j]),
                            (false, false) => s.widen::<false>(block.codes[j]),
                        };
                        s.store_b(codes.add(128 * j), first);
                        s.store_b(codes.add(128 * j + 64), second);
                    }
                    for h in 0..2 {
                        s.store(codes.add(1024 + 128 * h).cast(), block.s[h]);
                        s.store(codes.add(1088 + 128 * h).cast(), block.m[h]);
                    }
                }
                n += 1;
            }
        }
    }
}

/// Adds the products of an unpacked stretch of one or two panels with each token to its sums.
struct Tiles<'a, H> {
    scratch: *const u8,
    panels: usize,
    blocks: usize,
    task: &'a Task<'a>,
    rows: &'a WideRows,
    /// The stretch's first block in a row.
    start: usize,
    sums: &'a mut [[f32; ROWS]],
    shape: PhantomData<H>,
}

impl<H: Shape> Kernel for Tiles<'_, H> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        match self.panels {
            1 => self.by::<S, 1>(s),
            _ => self.by::<S, 2>(s),
        }
    }
}

impl<H: Shape> Tiles<'_, H> {
    /// `R` panels.
    #[inline(always)]
    fn by<S: Simd, const R: usize>(&mut self, s: S) {
        let mut at = 0;
        while R == 2
            && !H::HALVES
            && !adds_offset::<S, H>()
            && S::TILES
            && at + S::WIDE_TILE <= self.task.count
        {
            self.own_tile(s, at);
            at += S::WIDE_TILE;
        }
        while at + TILE <= self.task.count {
            self.tile::<S, R, TILE>(s, at);
            at += TILE;
        }
        while at < self.task.count {
            self.tile::<S, R, REST>(s, at);
            at += REST;
        }
    }

    /// Both panels times [`Simd::WIDE_TILE`] tokens from `at` on, as the tier does it.
    #[inline(always)]
    fn own_tile<S: Simd>(&mut self, s: S, at: usize) {
        let blocks_in_row = self.task.input.blocks();
        let row = self
            .rows
            .row(self.task.first + at, blocks_in_row, self.start);
        let tile = Tile {
            weights: self.scratch,
            blocks: self.blocks,
            codes: row.codes.cast(),
            code_stride: blocks_in_row * BLOCK * size_of::<i16>(),
            scales: row.scales,
            scale_stride: blocks_in_row * size_of::<f32>(),
            sums: self.sums[PAIR * at..][..PAIR * S::WIDE_TILE]
                .as_mut_ptr()
                .cast(),
        };
        // SAFETY: the scratch holds `blocks` blocks of both panels, each row has them from its start on, and there is a sum for
        // each.
        unsafe { s.wide_tile(&tile) };
    }

    /// `R` panels times `T` tokens from `at` on; where fewer are left, the last one fills up.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const T: usize>(&mut self, s: S, at: usize) {
        let blocks_in_row = self.task.input.blocks();
        let count = T.min(self.task.count - at);
        let first = self.task.first + at;
        let mut rows = [self.rows.row(first, blocks_in_row, self.start); T];
        let mut sums = [[s.splat(0.0); T]; R];
        for t in 0..T {
            let t_or_last = t.min(count - 1);
            rows[t] = self.rows.row(first + t_or_last, blocks_in_row, self.start);
            for r in 0..R {
                // SAFETY: a sum has 8 elements.
                sums[r][t] = unsafe { s.load(self.sums[PAIR * (at + t_or_last) + r].as_ptr()) };
            }
        }
        for n in 0..self.blocks {
            // SAFETY: the scratch holds `blocks` blocks of `R` panels; each row has them from its start on.
            unsafe { self.block(s, n, &rows, &mut sums) };
        }
        for r in 0..R {
            for t in 0..count {
                // SAFETY: as above.
                unsafe { s.store(self.sums[PAIR * (at + t) + r].as_mut_ptr(), sums[r][t]) };
            }
        }
    }

    /// Adds the products of block `n`.
    ///
    /// # Safety
    /// The scratch and the rows have more than `n` blocks.
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn block<S: Simd, const R: usize, const T: usize>(
        &self,
        s: S,
        n: usize,
        rows: &[WideRow; T],
        sums: &mut [[S::F; T]; R],
    ) {
        let halves = if H::HALVES { 2 } else { 1 };
        let pairs = BLOCK / 2 / halves;
        for h in 0..halves {
            let mut dots = [[s.zero(); T]; R];
            for p in h * pairs..(h + 1) * pairs {
                let mut weights = [s.load_b(self.codes(0, n, p)); R];
                for r in 1..R {
                    weights[r] = s.load_b(self.codes(r, n, p));
                }
                for t in 0..T {
                    let pair = s.pair(rows[t].codes.add(n * BLOCK + 2 * p));
                    for r in 0..R {
                        dots[r][t] = s.add_pair(dots[r][t], weights[r], pair);
                    }
                }
            }
            for t in 0..T {
                let scale = s.splat(*rows[t].scales.add(n));
                for r in 0..R {
                    let scale = s.mul(s.load(self.scales(r, n, 2 * h)), scale);
                    sums[r][t] = s.fma(scale, s.to_f32(dots[r][t]), sums[r][t]);
                }
                if !adds_offset::<S, H>() {
                    continue;
                }
                let sum = s.splat(*rows[t].sums.add(3 * n + if H::HALVES { h } else { 2 }));
                for r in 0..R {
                    let offset = s.load(self.scales(r, n, 2 * h + 1));
                    sums[r][t] = s.fma(offset, sum, sums[r][t]);
                }
            }
        }
    }

    /// Pair `p` of the columns of block `n` of panel `r`.
    #[inline(always)]
    unsafe fn codes(&self, r: usize, n: usize, p: usize) -> *const u8 {
        // SAFETY: the caller has that block.
        unsafe { self.scratch.add(n * WIDE_PAIR + 64 * p + 32 * r) }
    }

    /// Scales (`s`, `m` of the first half, then of the second) of block `n` of panel `r`.
    #[inline(always)]
    unsafe fn scales(&self, r: usize, n: usize, which: usize) -> *const f32 {
        // SAFETY: the caller has that block.
        unsafe { self.codes(r, n, 16 + which).cast() }
    }
}
