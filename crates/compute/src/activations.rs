//! The input of a matrix product: rows of `f32`, and the same quantized to 8 bits in blocks of 16, or to 16 bits.

mod wide;

pub(crate) use wide::{WideRow, WideRows};

use crate::panels::BLOCK;
use crate::pool::Pool;
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;

/// Scales and sums of a block of 32 columns.
pub(crate) const SCALES: usize = 5;

/// Rows `[tokens, cols]` in `f32`, with room for their quantized twin.
///
/// 16 columns (half a block) become `code * scale` with `scale = largest magnitude / 127`; the sums of the codes let kernels
/// take the offsets of unsigned weight codes off. Columns that are not finite get a NaN scale, so that the fault shows in the output.
pub struct Activations {
    cols: usize,
    tokens: usize,
    values: Vec<f32>,
    pub(crate) codes: Vec<i8>,
    /// Of each block the scales of its halves, `scale * sum of codes` of its halves, and of the whole: `[tokens, blocks, 5]`.
    pub(crate) scales: Vec<f32>,
    /// The rows in 16 bits, where those are wanted: then there are none in 8.
    pub(crate) wide: Option<WideRows>,
}

/// How exact quantized rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 8-bit codes, one scale per 16 columns.
    Bits8,
    /// 16-bit codes, one scale per 32 columns.
    Bits16,
}

impl Activations {
    /// Room for `tokens` rows of `cols` columns; nothing grows later.
    pub fn new(tokens: usize, cols: usize) -> Self {
        Self::with_precision(tokens, cols, Precision::Bits8)
    }

    /// As [`Activations::new`], with a say in how exact the quantized rows are.
    pub fn with_precision(tokens: usize, cols: usize, precision: Precision) -> Self {
        let blocks = cols.div_ceil(BLOCK);
        let (narrow, wide) = match precision {
            Precision::Bits8 => (tokens, None),
            Precision::Bits16 => (0, Some(WideRows::new(tokens, blocks))),
        };
        Activations {
            cols,
            tokens: 0,
            values: vec![0.0; tokens * cols],
            codes: vec![0; narrow * blocks * BLOCK],
            scales: vec![0.0; narrow * blocks * SCALES],
            wide,
        }
    }

    /// Columns of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows in use.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes of memory that [`Activations::with_precision`] takes.
    pub fn bytes_for(tokens: usize, cols: usize, precision: Precision) -> usize {
        let blocks = cols.div_ceil(BLOCK);
        let coded = match precision {
            Precision::Bits8 => blocks * (4 * SCALES + BLOCK),
            Precision::Bits16 => WideRows::bytes_for(blocks),
        };
        tokens * (4 * cols + coded)
    }

    /// Sets the number of rows in use and gives them to be filled.
    ///
    /// # Panics
    /// If there is no room for `tokens` rows.
    pub fn rows_mut(&mut self, tokens: usize) -> &mut [f32] {
        let used = &mut self.values[..tokens * self.cols];
        self.tokens = tokens;
        used
    }

    /// The rows in use.
    pub fn rows(&self) -> &[f32] {
        &self.values[..self.tokens * self.cols]
    }

    pub(crate) fn blocks(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    /// Fills `tokens` rows, each by `fill(token, row)`, and quantizes them where a product with quantized weights follows.
    /// Rows are spread over the pool when there are several.
    ///
    /// # Panics
    /// If there is no room for `tokens` rows.
    pub fn fill(
        &mut self,
        pool: &Pool,
        tier: Tier,
        tokens: usize,
        quantize: bool,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.fill_from(pool, tier, tokens, quantize, &mut [], |token, _, row| {
            fill(token, row)
        });
    }

    /// As [`Activations::fill`], with a row of `state` (`[tokens, any]`) that `fill(token, state, row)` may change on the
    /// way: the residual stream, before a norm reads it.
    ///
    /// # Panics
    /// If there is no room for `tokens` rows.
    pub fn fill_from(
        &mut self,
        pool: &Pool,
        tier: Tier,
        tokens: usize,
        quantize: bool,
        state: &mut [f32],
        fill: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        assert!(
            tokens * self.cols <= self.values.len(),
            "no room for {tokens} rows"
        );
        self.tokens = tokens;
        let state_len = state.len() / tokens.max(1);
        let state = state.as_mut_ptr();
        let (cols, blocks) = (self.cols, self.blocks());
        let wide = self.wide.as_mut().map(WideRows::writer);
        let out = Out {
            values: self.values.as_mut_ptr(),
            codes: self.codes.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            state,
        };
        pool.for_each(tokens, 4, |token| {
            let out = &out;
            // SAFETY: the rows of a token are parts of their own, inside the buffers that `new` sized and inside `state`.
            let (state, row) = unsafe {
                (
                    std::slice::from_raw_parts_mut(out.state.add(token * state_len), state_len),
                    std::slice::from_raw_parts_mut(out.values.add(token * cols), cols),
                )
            };
            fill(token, state, row);
            match &wide {
                _ if !quantize => {}
                // SAFETY: as above.
                Some(wide) => unsafe { wide.quantize(tier, token, row) },
                None => {
                    // SAFETY: as above.
                    let coded = unsafe { out.coded(token, blocks) };
                    tier.run(Quantize { row, coded });
                }
            }
        });
    }
}

struct Out {
    values: *mut f32,
    codes: *mut i8,
    scales: *mut f32,
    state: *mut f32,
}
// SAFETY: each token writes its own rows only.
unsafe impl Sync for Out {}

impl Out {
    /// A quantized row.
    ///
    /// # Safety
    /// The row exists, and nobody else has it.
    unsafe fn coded<'a>(&self, row: usize, blocks: usize) -> Coded<'a> {
        // SAFETY: the caller's promise.
        unsafe {
            Coded {
                codes: std::slice::from_raw_parts_mut(
                    self.codes.add(row * blocks * BLOCK),
                    blocks * BLOCK,
                ),
                scales: std::slice::from_raw_parts_mut(
                    self.scales.add(row * blocks * SCALES),
                    blocks * SCALES,
                ),
            }
        }
    }
}

/// One quantized row.
struct Coded<'a> {
    codes: &'a mut [i8],
    scales: &'a mut [f32],
}

struct Quantize<'a> {
    row: &'a [f32],
    coded: Coded<'a>,
}

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Quantize { row, mut coded } = self;
        for (block, x) in row.chunks(BLOCK).enumerate() {
            let mut padded = [0.0; BLOCK];
            padded[..x.len()].copy_from_slice(x);
            coded.quantize(s, block, &padded);
        }
    }
}

impl Coded<'_> {
    #[inline(always)]
    fn quantize<S: Simd>(&mut self, s: S, block: usize, x: &[f32; BLOCK]) {
        let codes = &mut self.codes[block * BLOCK..][..BLOCK];
        let scales = &mut self.scales[block * SCALES..][..SCALES];
        for h in 0..2 {
            // SAFETY: `x` and `codes` have 32 elements, read and written 8 at a time.
            unsafe {
                let v = [
                    s.load(x.as_ptr().add(16 * h)),
                    s.load(x.as_ptr().add(16 * h + 8)),
                ];
                let codes = codes.as_mut_ptr().add(16 * h);
                (scales[h], scales[2 + h]) = quantize_half(s, v, codes);
            }
        }
        scales[4] = scales[2] + scales[3];
    }
}

/// Quantizes 16 numbers; returns their scale, and the scale times the sum of the codes.
///
/// # Safety
/// `codes` has room for 16.
#[inline(always)]
unsafe fn quantize_half<S: Simd>(s: S, v: [S::F; 2], codes: *mut i8) -> (f32, f32) {
    let largest = s.largest(s.max(s.abs(v[0]), s.abs(v[1])));
    // `max` drops NaN on some tiers: the sum keeps it, and shows infinities too.
    let check = s.sum(s.add(v[0], v[1]));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let finite = check.is_finite() && largest.is_finite();
    let usable = finite && inverse.is_finite();
    let (scale, factor) = match (finite, usable) {
        (false, _) => (f32::NAN, 0.0),
        (true, false) => (0.0, 0.0),
        (true, true) => (largest / 127.0, inverse),
    };
    // SAFETY: the caller's promise.
    let sum = unsafe {
        if usable {
            let factor = s.splat(factor);
            s.store_i8(codes, s.mul(v[0], factor)) + s.store_i8(codes.add(8), s.mul(v[1], factor))
        } else {
            codes.write_bytes(0, 16);
            0
        }
    };
    (scale, scale * sum as f32)
}
