//! Rows quantized to 16 bits, for models whose results are compared and kept.
//!
//! 32 columns become `code * scale` with `scale = largest magnitude / 32767`. A product of such a code with one of 8 bits,
//! summed over 32 columns, fits 32 bits: kernels need one conversion to floats a block.

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

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let blocks = self.codes.iter_mut().zip(self.scales).zip(self.sums);
        let (whole, rest) = self.row.as_chunks::<BLOCK>();
        let mut padded = [0.0; BLOCK];
        padded[..rest.len()].copy_from_slice(rest);
        let rows = whole.iter().chain([&padded]);
        for (((codes, scale), sums), x) in blocks.zip(rows) {
            (*scale, *sums) = quantize(s, x, codes);
        }
    }
}

/// Quantizes 32 numbers; returns their scale and sums.
#[inline(always)]
fn quantize<S: Simd>(s: S, x: &[f32; BLOCK], codes: &mut [i16; BLOCK]) -> (f32, [f32; 3]) {
    // SAFETY: `x` has 32 elements.
    let v: [S::F; 4] = each!(4; i => unsafe { s.load(x.as_ptr().add(8 * i)) });
    let sizes: [S::F; 4] = each!(4; i => s.abs(v[i]));
    let largest = s.largest(s.max(s.max(sizes[0], sizes[1]), s.max(sizes[2], sizes[3])));
    let check = s.sum(s.add(s.add(v[0], v[1]), s.add(v[2], v[3])));
    let inverse = if largest > 0.0 { STEPS / largest } else { 0.0 };
    let finite = check.is_finite() && largest.is_finite();
    if !finite || !inverse.is_finite() {
        // What is not finite must show in every product.
        let scale = if finite { 0.0 } else { f32::NAN };
        codes.fill(0);
        return (scale, [scale; 3]);
    }
    let (scale, factor) = (largest / STEPS, s.splat(inverse));
    let parts: [i32; 4] = each!(4; i => {
        // SAFETY: `codes` has 32 elements.
        unsafe { s.store_i16(codes.as_mut_ptr().add(8 * i), s.mul(v[i], factor)) }
    });
    let first = scale * (parts[0] + parts[1]) as f32;
    let second = scale * (parts[2] + parts[3]) as f32;
    (scale, [first, second, first + second])
}
