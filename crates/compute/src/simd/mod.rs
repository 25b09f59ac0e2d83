//! The small set of vector operations that every kernel is written over.
//!
//! A value of a type that implements [`Simd`] proves that the processor has the instructions: it is only made in
//! [`crate::Tier::run`]. All vectors hold 8 rows: 8 `f32`, 8 `i32`, or 8 groups of 4 bytes.

#[cfg(target_arch = "x86_64")]
mod assembly;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_tile;
#[cfg(target_arch = "x86_64")]
mod avx2_wide;
#[cfg(target_arch = "x86_64")]
mod avx512_tile;
#[cfg(target_arch = "x86_64")]
mod avx512_wide;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx_vnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
pub(crate) mod two_panels;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni;

pub(crate) use portable::Portable;

/// An array of 2, 4 or 8 values of an expression of its index.
///
/// `array::from_fn` and `array::map` call closures that the compiler may leave out of line, where they lose the instruction
/// set of their caller: a load becomes a function call. This writes the values out.
macro_rules! each {
    (2; $i:ident => $e:expr) => {
        [
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            },
        ]
    };
    (4; $i:ident => $e:expr) => {
        [
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            },
            {
                let $i = 2;
                $e
            },
            {
                let $i = 3;
                $e
            },
        ]
    };
    (8; $i:ident => $e:expr) => {
        [
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            },
            {
                let $i = 2;
                $e
            },
            {
                let $i = 3;
                $e
            },
            {
                let $i = 4;
                $e
            },
            {
                let $i = 5;
                $e
            },
            {
                let $i = 6;
                $e
            },
            {
                let $i = 7;
                $e
            },
        ]
    };
}
pub(crate) use each;

/// A computation that is compiled once per tier and width of vectors.
pub(crate) trait VectorKernel {
    type Output;
    /// The body, as [`Kernel::run`].
    fn run<V: Vector>(self, vector: V) -> Self::Output;
}

/// A computation that is compiled once per tier.
pub(crate) trait Kernel {
    type Output;
    /// The body. Implementations are `#[inline(always)]`, so that they take on the instruction set of their caller.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// What weight code stands for zero where [`Vector::BIASED`].
pub(crate) const ZERO: u8 = 128;
/// Where sums of products of codes begin, where [`Vector::BIASED`]: `2^23 + 2^22`. There the bits of a float count in ones, so that
/// products that are added to its bits as to a whole number need not be made a float. Half a block of products stays within 2^20.
pub(crate) const SHIFT: f32 = 12_582_912.0;

/// Bytes of an unpacked block of a panel, 8 rows and 32 columns: 8 steps of codes, then `s` and then `m` of both halves
/// (`panels.rs`). Of panels side by side each has 32 bytes, then the next.
pub(crate) const UNPACKED: usize = 256 + 4 * 32;
/// Blocks of a panel that are unpacked at a time.
pub(crate) const UNPACKED_BLOCKS: usize = 16;

/// How the products of codes are summed, for [`Simd::tile`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TileKind {
    /// Unsigned codes of up to 5 bits, one scale and offset a block; the offset takes a zero code off where there is no other.
    Whole { offset: bool },
    /// Unsigned codes of up to 6 bits, a scale and an offset each half block.
    Halves { offset: bool },
    /// Signed codes of 8 bits, one scale a block.
    Signed,
}

/// Unpacked panels times [`Simd::TILE`] tokens.
// Only tiers of x86 have register tiles of their own.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) struct Tile {
    /// Blocks of [`UNPACKED`] bytes a panel, or [`WIDE_PAIR`] bytes a pair, 64-byte aligned.
    pub weights: *const u8,
    /// Blocks to multiply, at least one.
    pub blocks: usize,
    /// The first token's codes, and bytes from one token to the next.
    pub codes: *const u8,
    pub code_stride: usize,
    /// The first token's scales (in 16 bits one a block, else in [`CodedBlock`](crate::activations::CodedBlock)), and bytes
    /// from one token to the next.
    pub scales: *const f32,
    pub scale_stride: usize,
    /// `[tokens, panels, 8 rows]`, added to.
    pub sums: *mut f32,
}

/// The same with codes in 16 bits: 16 pairs of columns, then `s` and `m` of the first half and of the second.
pub(crate) const WIDE_PAIR: usize = 2 * (512 + 4 * 32);
/// Blocks of a panel that are unpacked to 16 bits at a time.
pub(crate) const WIDE_BLOCKS: usize = 16;

/// Vector operations on the 8 rows of a panel, or on those of several panels at once: what products of a few tokens with packed
/// panels are written over.
///
/// # Safety
/// The methods take raw pointers: each reads or writes exactly the number of elements that its line says, unaligned, of each panel.
pub(crate) trait Vector: Copy + Send + Sync + 'static {
    /// 8 `f32` a panel.
    type F: Copy;
    /// 32 bytes a panel: 4 consecutive columns of each of 8 rows.
    type B: Copy;

    /// Panels at once. Of what is read from a panel, the others' follows in the distance that the value knows.
    const PANELS: usize = 1;
    /// Whether weight codes are unsigned with [`ZERO`] for zero, and their products begin at [`SHIFT`]: where the dot product
    /// instruction wants unsigned times signed, does not saturate and adds to what is there.
    const BIASED: bool;

    fn splat(self, x: f32) -> Self::F;
    /// Writes 8 `f32` a panel, side by side.
    unsafe fn store(self, p: *mut f32, x: Self::F);
    /// Reads 8 IEEE halves.
    unsafe fn load_f16(self, p: *const u16) -> Self::F;
    /// Reads 8 unsigned bytes as `f32`.
    unsafe fn load_u8(self, p: *const u8) -> Self::F;
    /// Reads 8 signed bytes as `f32`.
    unsafe fn load_i8(self, p: *const u8) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the tier has it.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;

    /// Asks for the cache line at `p`, which may be any address.
    fn prefetch(self, _p: *const u8) {}
    /// Asks for the cache line at `p`, which may be any address, to be put into the second-level cache.
    fn prefetch_far(self, _p: *const u8) {}
    /// Reads 32 bytes.
    unsafe fn load_b(self, p: *const u8) -> Self::B;
    fn and_b(self, a: Self::B, mask: u8) -> Self::B;
    fn or_b(self, a: Self::B, b: Self::B) -> Self::B;
    fn xor_b(self, a: Self::B, mask: u8) -> Self::B;
    /// Adds `x` to each byte, modulo 256.
    fn add_b(self, a: Self::B, x: u8) -> Self::B;
    /// Shifts the 16-bit lanes left: bits cross from a byte to its neighbour, so mask before or after.
    fn shl<const N: i32>(self, a: Self::B) -> Self::B;
    /// Shifts the 16-bit lanes right, as [`Vector::shl`].
    fn shr<const N: i32>(self, a: Self::B) -> Self::B;
    /// `table[a]` for each byte in 0..16.
    fn lookup(self, table: &[i8; 16], a: Self::B) -> Self::B;

    /// For each row the sum over 4 steps of codes times the 16 signed activations at `a`; [`SHIFT`] more where [`Vector::BIASED`],
    /// whose codes are unsigned whatever `SIGNED` says. Of unsigned codes `DEPTH` steps may be summed in 16 bits:
    /// `DEPTH * 2 * largest code * 127 < 32768`.
    unsafe fn dot<const SIGNED: bool, const DEPTH: usize>(
        self,
        w: &[Self::B; 4],
        a: *const i8,
    ) -> Self::F;
}

/// Vector operations of one tier.
///
/// # Safety
/// The methods take raw pointers: each reads or writes exactly the number of elements that its line says, unaligned.
pub(crate) trait Simd: Vector {
    /// 8 `i32`.
    type A: Copy;
    /// 16 `f32`: two vectors, or one where the tier has such.
    type W: Copy;

    /// Whether this tier has register tiles of its own.
    const TILES: bool = false;
    /// Tokens in a register tile of the prefill kernel, by the number of registers.
    const TILE: usize = 4;
    /// Panels in a register tile of the prefill kernel.
    const TILE_PANELS: usize = 2;
    /// Tokens in a register tile of activations in 16 bits, where the tier has one.
    const WIDE_TILE: usize = 4;
    /// Rows in a register tile of 16 `f32` each: with 16 more and a factor they fit the registers.
    const ROWS: usize;

    /// Reads 8 `f32`.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// Writes 8 IEEE halves, rounded to nearest even.
    unsafe fn store_f16(self, p: *mut u16, x: Self::F);
    /// Reads 8 bfloat16.
    unsafe fn load_bf16(self, p: *const u16) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// Rounded to the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;

    fn splat_16(self, x: f32) -> Self::W;
    /// Reads 16 `f32`.
    unsafe fn load_16(self, p: *const f32) -> Self::W;
    /// Writes 16 `f32`.
    unsafe fn store_16(self, p: *mut f32, x: Self::W);
    /// Reads 16 IEEE halves.
    unsafe fn load_f16_16(self, p: *const u16) -> Self::W;
    /// Reads the lower (`half` 0) or the upper (1) 4 bits of 16 bytes, less 8.
    unsafe fn load_i4(self, p: *const u8, half: usize) -> Self::W;
    fn add_16(self, a: Self::W, b: Self::W) -> Self::W;
    fn sub_16(self, a: Self::W, b: Self::W) -> Self::W;
    fn mul_16(self, a: Self::W, b: Self::W) -> Self::W;
    /// `a / b` within a unit in the last place, where `b` and its reciprocal are normal numbers.
    fn div_16(self, a: Self::W, b: Self::W) -> Self::W;
    fn max_16(self, a: Self::W, b: Self::W) -> Self::W;
    fn min_16(self, a: Self::W, b: Self::W) -> Self::W;
    /// As [`Simd::round`].
    /// The lower 9 bits become sign and exponent, the others zero.
    fn to_exponent_16(self, a: Self::W) -> Self::W;
    fn join(self, halves: [Self::F; 2]) -> Self::W;
    /// As [`Simd::fma`].
    fn fma_16(self, a: Self::W, b: Self::W, c: Self::W) -> Self::W;
    fn halves(self, a: Self::W) -> [Self::F; 2];

    fn sum(self, a: Self::F) -> f32;
    fn largest(self, a: Self::F) -> f32;
    /// The largest of each vector.
    fn max_each(self, v: &[Self::F; 8]) -> Self::F;
    /// The sum of each vector, in any order that is the same for all.
    fn sum_each(self, v: &[Self::F; 8]) -> Self::F;
    /// The larger of each two magnitudes by their bits, so that what is not a number counts as the largest.
    fn max_bits(self, a: Self::F, b: Self::F) -> Self::F;
    /// The largest of the magnitudes in each vector, by their bits as in [`Simd::max_bits`].
    fn largest_each(self, v: &[Self::F; 8]) -> Self::F;
    /// Writes 32 values as rounded signed bytes (they lie in -127..=127). Returns 8 sums of codes for each half.
    unsafe fn store_i8(self, p: *mut i8, v: &[Self::F; 4]) -> [Self::F; 2];

    /// Writes 32 bytes.
    unsafe fn store_b(self, p: *mut u8, x: Self::B);
    fn to_f32(self, a: Self::A) -> Self::F;
    /// Adds the products of a tile of [`Simd::TILE_PANELS`] panels and [`Simd::TILE`] tokens to its sums, with the operations of a
    /// single product in their order. Not called where [`Simd::TILES`] is false.
    ///
    /// # Safety
    /// The panels have `blocks` unpacked blocks, and so have the codes and the scales of each token.
    unsafe fn tile(self, _kind: TileKind, _tile: &Tile) {}

    /// The same for two panels of signed codes in 16 bits and [`Simd::WIDE_TILE`] tokens in 16 bits, one scale a block of both.
    ///
    /// # Safety
    /// As [`Simd::tile`].
    unsafe fn wide_tile(self, _tile: &Tile) {}

    /// The bytes as 16-bit numbers, signed or unsigned: the first two columns of each row, then the last two.
    fn widen<const SIGNED: bool>(self, a: Self::B) -> [Self::B; 2];
    /// Reads two 16-bit numbers and repeats them for each row.
    unsafe fn pair(self, p: *const i16) -> Self::B;
    fn zero(self) -> Self::A;
    /// For each row `acc` and the products of two columns of 16-bit numbers.
    fn add_pair(self, acc: Self::A, w: Self::B, a: Self::B) -> Self::A;
    /// Writes 16 values as rounded 16-bit numbers (they lie in -32767..=32767). Returns 8 sums of codes.
    unsafe fn store_i16(self, p: *mut i16, v: &[Self::F; 2]) -> Self::F;
}

/// `e^x` for `x <= 88`, relative error below 2e-7; below -87 it is 0 or the smallest normal number.
///
/// Range reduction by ln 2 in two parts and a polynomial of degree 6 (Cephes `expf`).
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::W) -> S::W {
    let x = s.max_16(s.min_16(x, s.splat_16(88.0)), s.splat_16(-87.3));
    let biased = s.fma_16(
        x,
        s.splat_16(std::f32::consts::LOG2_E),
        s.splat_16(EXPONENT),
    );
    let (n, power) = whole_power(s, biased);
    let r = s.fma_16(n, s.splat_16(-0.693_359_4), x);
    let r = s.fma_16(n, s.splat_16(2.121_944_4e-4), r);
    let coefficients = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let p = polynomial(s, r, coefficients);
    let p = s.fma_16(p, s.mul_16(r, r), s.add_16(r, s.splat_16(1.0)));
    s.mul_16(p, power)
}

/// The polynomial of `x` with these coefficients, that of the highest power first (Horner).
#[inline(always)]
pub(crate) fn polynomial<S: Simd, const N: usize>(s: S, x: S::W, coefficients: [f32; N]) -> S::W {
    let mut sum = s.splat_16(coefficients[0]);
    for c in &coefficients[1..] {
        sum = s.fma_16(sum, x, s.splat_16(*c));
    }
    sum
}

/// Added to numbers in -127..=127, rounds them to whole ones (of two that are as near, the odd one) whose powers of 2 [`whole_power`]
/// tells: in floats of this size the last bit stands for 1, and 127 is the bias of exponents.
pub(crate) const EXPONENT: f32 = 12_582_912.0 + 127.0;

/// The whole number `n` of `n + EXPONENT`, and `2^n`; the power of -127 is 0.
#[inline(always)]
pub(crate) fn whole_power<S: Simd>(s: S, biased: S::W) -> (S::W, S::W) {
    let n = s.sub_16(biased, s.splat_16(EXPONENT));
    (n, s.to_exponent_16(biased))
}

/// `tanh(x)`, absolute error below 3e-7: `1 - 2 / (e^(2x) + 1)`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::W) -> S::W {
    // Past 15 it is 1 to the last bit.
    let x = s.max_16(s.min_16(x, s.splat_16(15.0)), s.splat_16(-15.0));
    let denominator = s.add_16(exp(s, s.add_16(x, x)), s.splat_16(1.0));
    s.sub_16(s.splat_16(1.0), s.div_16(s.splat_16(2.0), denominator))
}

/// The error function, absolute error below 5e-7, and exactly 1 from 4 on, where it is 1 to the last bit.
///
/// The rational function of degree 13 over 8 that Eigen and onnxruntime have, too.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::W) -> S::W {
    let x = s.max_16(s.min_16(x, s.splat_16(4.0)), s.splat_16(-4.0));
    let square = s.mul_16(x, x);
    let above = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_2e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    let below = [
        -1.456_607_15e-5,
        -2.133_740_5e-4,
        -1.682_827e-3,
        -7.373_329_2e-3,
        -1.426_473_9e-2,
    ];
    let (p, q) = (polynomial(s, square, above), polynomial(s, square, below));
    s.div_16(s.mul_16(x, p), q)
}
