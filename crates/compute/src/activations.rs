//! The input of a matrix product: rows of `f32`, and the same quantized to 8 bits in blocks of 16, or to 16 bits.

mod wide;

pub(crate) use wide::{WideRow, WideRows};

use crate::panels::BLOCK;
use crate::pool::Pool;
use crate::simd::{Kernel, SHIFT, Simd, ZERO, each};
use crate::tier::Tier;

/// 32 quantized columns of a row: one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct CodedBlock {
    pub codes: [i8; BLOCK],
    /// The scale of each half.
    pub scales: [f32; 2],
    /// `scale * sum of codes` of each half, and of both.
    pub sums: [f32; 3],
    /// What makes products that begin at [`SHIFT`], of weight codes with [`ZERO`] for zero, those of the columns: `-scale * SHIFT -
    /// ZERO * sum` of each half, and of both.
    pub shifts: [f32; 3],
}
const _: () = assert!(size_of::<CodedBlock>() == 64);

impl CodedBlock {
    const EMPTY: Self = CodedBlock {
        codes: [0; BLOCK],
        scales: [0.0; 2],
        sums: [0.0; 3],
        shifts: [0.0; 3],
    };
}

/// Rows `[tokens, cols]` in `f32`, with room for their quantized twin.
///
/// 16 columns (half a block) become `code * scale` with `scale = largest magnitude / 127`; the sums of the codes let kernels
/// take the offsets of unsigned weight codes off. Columns that are not finite get a NaN scale, so that the fault shows in the output.
pub struct Activations {
    cols: usize,
    tokens: usize,
    values: Vec<f32>,
    /// `[tokens, blocks]`
    pub(crate) coded: Vec<CodedBlock>,
    /// The rows in 16 bits, where there is room for them.
    wide: Option<WideRows>,
    /// What rows are quantized to.
    precision: Precision,
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

    /// As [`Activations::new`], with a say in how exact the quantized rows are: there is room for those of this precision and of
    /// coarser ones.
    pub fn with_precision(tokens: usize, cols: usize, precision: Precision) -> Self {
        let blocks = cols.div_ceil(BLOCK);
        let wide = match precision {
            Precision::Bits8 => None,
            Precision::Bits16 => Some(WideRows::new(tokens, blocks)),
        };
        Activations {
            cols,
            tokens: 0,
            values: vec![0.0; tokens * cols],
            coded: vec![CodedBlock::EMPTY; tokens * blocks],
            wide,
            precision,
        }
    }

    /// How exact rows are from the next [`Activations::fill`] on.
    ///
    /// # Panics
    /// If there is no room for rows so exact.
    pub fn set_precision(&mut self, precision: Precision) {
        assert!(
            precision == Precision::Bits8 || self.wide.is_some(),
            "room for rows in 16 bits"
        );
        self.precision = precision;
    }

    /// The rows in 16 bits, where that is their precision.
    pub(crate) fn wide(&self) -> Option<&WideRows> {
        self.wide
            .as_ref()
            .filter(|_| self.precision == Precision::Bits16)
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
        let wide = match precision {
            Precision::Bits8 => 0,
            Precision::Bits16 => WideRows::bytes_for(blocks),
        };
        tokens * (4 * cols + blocks * size_of::<CodedBlock>() + wide)
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

    /// Sets the number of rows in use and gives their quantized twins to be written; those in `f32` are then left as they are.
    pub(crate) fn coded_mut(&mut self, tokens: usize) -> &mut [CodedBlock] {
        self.tokens = tokens;
        let used = tokens * self.blocks();
        &mut self.coded[..used]
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
        let wide = match self.precision {
            Precision::Bits8 => None,
            Precision::Bits16 => self.wide.as_mut().map(WideRows::writer),
        };
        let out = Out {
            values: self.values.as_mut_ptr(),
            coded: self.coded.as_mut_ptr(),
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
                    let coded = unsafe {
                        std::slice::from_raw_parts_mut(out.coded.add(token * blocks), blocks)
                    };
                    tier.run(Quantize { row, coded });
                }
            }
        });
    }
}

struct Out {
    values: *mut f32,
    coded: *mut CodedBlock,
    state: *mut f32,
}
// SAFETY: each token writes its own rows only.
unsafe impl Sync for Out {}

/// Columns that are quantized at a time: 8 halves of blocks, a vector of scales.
pub(crate) const GROUP: usize = 8 * BLOCK / 2;

struct Quantize<'a> {
    row: &'a [f32],
    coded: &'a mut [CodedBlock],
}

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let blocks = GROUP / BLOCK;
        let (groups, rest) = self.row.as_chunks::<GROUP>();
        assert!(
            self.coded.len() == self.row.len().div_ceil(BLOCK),
            "a block for all columns"
        );
        let coded = self.coded.as_mut_ptr();
        // SAFETY: as many blocks as there are columns.
        unsafe {
            for i in 0..groups.len() {
                quantize(s, &groups[i], coded.add(i * blocks), 1, blocks);
            }
            if !rest.is_empty() {
                let mut padded = [0.0; GROUP];
                padded[..rest.len()].copy_from_slice(rest);
                let coded = coded.add(groups.len() * blocks);
                quantize(s, &padded, coded, 1, rest.len().div_ceil(BLOCK));
            }
        }
    }
}

/// Quantizes 4 blocks of 32 numbers, of which the first `count` are written, `stride` blocks from one to the next.
///
/// # Safety
/// Those blocks exist, and nobody else has them.
#[inline(always)]
pub(crate) unsafe fn quantize<S: Simd>(
    s: S,
    x: &[f32; GROUP],
    coded: *mut CodedBlock,
    stride: usize,
    count: usize,
) {
    // SAFETY: `x` has 16 vectors.
    let load = |i: usize| unsafe { s.load(x.as_ptr().add(8 * i)) };
    let largest: [S::F; 8] = each!(8; h => s.max_bits(s.abs(load(2 * h)), s.abs(load(2 * h + 1))));
    let Scales { scales, factors } = Scales::of(s, s.largest_each(&largest), 127.0);
    let (mut codes, mut sums) = ([0; GROUP], [s.splat(0.0); 8]);
    for b in 0..GROUP / BLOCK {
        let factors: [S::F; 2] = each!(2; h => s.splat(factors[2 * b + h]));
        let v: [S::F; 4] = each!(4; i => s.mul(load(4 * b + i), factors[i / 2]));
        // SAFETY: a block has 32 codes.
        [sums[2 * b], sums[2 * b + 1]] =
            unsafe { s.store_i8(codes.as_mut_ptr().add(BLOCK * b), &v) };
    }
    let (mut sum, mut shift) = ([0.0; 8], [0.0; 8]);
    // SAFETY: the arrays have 8 elements.
    unsafe {
        let scales = s.load(scales.as_ptr());
        let sums = s.mul(s.sum_each(&sums), scales);
        s.store(sum.as_mut_ptr(), sums);
        let shifts = s.fma(
            sums,
            s.splat(-f32::from(ZERO)),
            s.mul(scales, s.splat(-SHIFT)),
        );
        s.store(shift.as_mut_ptr(), shifts);
    }
    for b in 0..count {
        let (first, second) = (2 * b, 2 * b + 1);
        // SAFETY: the caller's promise; `codes` has 4 blocks.
        unsafe {
            let block = &mut *coded.add(b * stride);
            block.codes = codes.as_ptr().add(BLOCK * b).cast::<[i8; BLOCK]>().read();
            block.scales = [scales[first], scales[second]];
            block.sums = [sum[first], sum[second], sum[first] + sum[second]];
            block.shifts = [shift[first], shift[second], shift[first] + shift[second]];
        }
    }
}

/// The scales of 8 groups of numbers, and what those are multiplied with to become codes.
struct Scales {
    scales: [f32; 8],
    factors: [f32; 8],
}

impl Scales {
    /// For codes of up to `steps`, by the largest magnitude of each group. Where that is not finite the scale is not a number, so
    /// that the fault shows in every product; where it is too small to divide by, the scale is zero.
    #[inline(always)]
    fn of<S: Simd>(s: S, largest: S::F, steps: f32) -> Self {
        let (mut sizes, mut scales, mut factors) = ([0.0; 8], [0.0; 8], [0.0; 8]);
        let steps = s.splat(steps);
        // SAFETY: each array has 8 elements.
        unsafe {
            s.store(sizes.as_mut_ptr(), largest);
            s.store(scales.as_mut_ptr(), s.div(largest, steps));
            s.store(factors.as_mut_ptr(), s.div(steps, largest));
        }
        for i in 0..8 {
            if !sizes[i].is_finite() {
                (scales[i], factors[i]) = (f32::NAN, 0.0);
            } else if !factors[i].is_finite() {
                (scales[i], factors[i]) = (0.0, 0.0);
            }
        }
        Scales { scales, factors }
    }
}
