//! Rows quantized to 16 bits, for models whose results are compared and kept.
//!
//! 32 columns become `code * scale` with `scale = largest magnitude / 32767`. A product of such a code with one of 8 bits,
//! summed over 32 columns, fits 32 bits: kernels need one conversion to floats a block.

use super::Scales;
use crate::panels::BLOCK;
use crate::simd::{Kernel, Simd, each};
use crate::tier::Tier;

/// The largest code.
const STEPS: f32 = 32767.0;

/// Room for quantized rows.
pub(crate) struct WideRows {
    codes: Vec<i16>,
    /// Of each block: `[tokens, blocks]`.
    scales: Vec<f32>,
    /// `scale * sum of codes` of each half block, and of each block: `[tokens, blocks, 3]`.
    sums: Vec<f32>,
}

impl WideRows {
    pub(super) fn new(tokens: usize, blocks: usize) -> Self {
        WideRows {
            codes: vec![0; tokens * blocks * BLOCK],
            scales: vec![0.0; tokens * blocks],
            sums: vec![0.0; tokens * blocks * 3],
        }
    }

    /// Bytes of a row of so many blocks.
    pub(super) fn bytes_for(blocks: usize) -> usize {
        blocks * (2 * BLOCK + 4 * 4)
    }

    /// The three pointers of a row of `blocks` blocks, from some block on.
    pub(crate) fn row(&self, token: usize, blocks: usize, from: usize) -> WideRow {
        let at = token * blocks + from;
        WideRow {
            codes: self.codes[at * BLOCK..].as_ptr(),
            scales: self.scales[at..].as_ptr(),
            sums: self.sums[at * 3..].as_ptr(),
        }
    }

    pub(super) fn writer(&mut self) -> WideWriter {
        WideWriter {
            codes: self.codes.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            sums: self.sums.as_mut_ptr(),
        }
    }
}

/// Where the codes, scales and sums of a row begin.
#[derive(Clone, Copy)]
pub(crate) struct WideRow {
    pub codes: *const i16,
    pub scales: *const f32,
    pub sums: *const f32,
}

/// [`WideRows`] for threads that write a row each.
pub(super) struct WideWriter {
    codes: *mut i16,
    scales: *mut f32,
    sums: *mut f32,
}
// SAFETY: each token writes its own row only.
unsafe impl Sync for WideWriter {}

impl WideWriter {
    /// Quantizes a row.
    ///
    /// # Safety
    /// There is room for the token, and nobody else has its row.
    pub(super) unsafe fn quantize(&self, tier: Tier, token: usize, row: &[f32]) {
        let blocks = row.len().div_ceil(BLOCK);
        let at = token * blocks;
        // SAFETY: the caller's promise.
        let (codes, scales, sums) = unsafe {
            (
                std::slice::from_raw_parts_mut(self.codes.add(at * BLOCK), blocks * BLOCK),
                std::slice::from_raw_parts_mut(self.scales.add(at), blocks),
                std::slice::from_raw_parts_mut(self.sums.add(at * 3), blocks * 3),
            )
        };
        tier.run(Quantize {
            row,
            codes: codes.as_chunks_mut().0,
            scales,
            sums: sums.as_chunks_mut().0,
        });
    }
}

struct Quantize<'a> {
    row: &'a [f32],
    codes: &'a mut [[i16; BLOCK]],
    scales: &'a mut [f32],
    sums: &'a mut [[f32; 3]],
}

/// Columns that are quantized at a time: 8 blocks, a vector of scales.
const GROUP: usize = 8 * BLOCK;

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (groups, rest) = self.row.as_chunks::<GROUP>();
        for (group, x) in groups.iter().enumerate() {
            self.quantize(s, 8 * group, x, 8);
        }
        if !rest.is_empty() {
            let mut padded = [0.0; GROUP];
            padded[..rest.len()].copy_from_slice(rest);
            self.quantize(s, 8 * groups.len(), &padded, rest.len().div_ceil(BLOCK));
        }
    }
}

impl Quantize<'_> {
    /// Quantizes `blocks` blocks from block `first` on.
    #[inline(always)]
    fn quantize<S: Simd>(&mut self, s: S, first: usize, x: &[f32; GROUP], blocks: usize) {
        let codes = &mut self.codes[first..][..blocks];
        // SAFETY: `x` has 32 vectors.
        let load = |i: usize| unsafe { s.load(x.as_ptr().add(8 * i)) };
        let size = |i: usize| s.abs(load(i));
        let largest: [S::F; 8] = each!(8; b => s.max_bits(
            s.max_bits(size(4 * b), size(4 * b + 1)),
            s.max_bits(size(4 * b + 2), size(4 * b + 3)),
        ));
        let Scales { scales, factors } = Scales::of(s, s.largest_each(&largest), STEPS);
        let mut halves = [[s.splat(0.0); 8]; 2];
        for (b, codes) in codes.iter_mut().enumerate() {
            let factor = s.splat(factors[b]);
            for h in 0..2 {
                let v: [S::F; 2] = each!(2; i => s.mul(load(4 * b + 2 * h + i), factor));
                // SAFETY: `codes` has 32 elements.
                halves[h][b] = unsafe { s.store_i16(codes.as_mut_ptr().add(16 * h), &v) };
            }
        }
        let mut sums = [[0.0; 8]; 2];
        for h in 0..2 {
            // SAFETY: both arrays have 8 elements.
            unsafe {
                let sum = s.mul(s.sum_each(&halves[h]), s.load(scales.as_ptr()));
                s.store(sums[h].as_mut_ptr(), sum);
            }
        }
        self.scales[first..][..blocks].copy_from_slice(&scales[..blocks]);
        for (b, out) in self.sums[first..][..blocks].iter_mut().enumerate() {
            *out = [sums[0][b], sums[1][b], sums[0][b] + sums[1][b]];
        }
    }
}
