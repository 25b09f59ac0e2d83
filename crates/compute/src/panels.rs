//! Packed weights: panels of 8 rows, so that one vector holds 4 columns of 8 rows and no sum crosses lanes.
//!
//! A panel is a run of *units* along its columns: 32 columns for the types with one scale per 32 weights, 256 for
//! the K-quants. A unit holds the scales of its 8 rows, then the codes of 32 columns at a time as 8 *steps* of 4 columns:
//! byte `4 r + k` of a step belongs to row `r`, column `4 step + k`. Codes stay raw and unsigned:
//!
//! * 4 bits: 4 vectors; the low nibbles of vector `i` are step `i`, the high ones step `i + 4`;
//! * a 5th bit: one vector, bit `j` of each byte for step `j`;
//! * 2 bits (alone, or the upper ones of 6): 2 vectors, field `f` of vector `p` for step `4 p + f`;
//! * 8 bits: 8 vectors of signed codes.
//!
//! A weight is `s * code + m`, with `s` and `m` per row and per 32 or 16 columns. The bits per weight of the file are
//! kept, except that the 4-bit scales of Q2_K and the 6-bit ones of Q3_K, Q4_K and Q5_K take 8 bits here (0.5 and 0.125
//! bits per weight more).

use crate::memory::Memory;
use crate::pack::SharedRows;
use crate::simd::{Vector, ZERO, each};
use std::ops::Range;

use dunlin_format::{DType, can_decode};

/// Rows in a panel.
pub(crate) const ROWS: usize = 8;
/// Columns in a block, the grain of the kernels.
pub(crate) const BLOCK: usize = 32;

/// How a matrix lies in memory: in panels that a kernel reads, or as the file's blocks.
#[allow(non_camel_case_types, missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PanelFormat {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    IQ4_NL,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_XS,
    /// Rows of blocks as they stand in the file, decoded to floats whenever they are multiplied.
    Blocks(DType),
}

/// Whether products with weights of this type run on a kernel made for it. Other types of weights are decoded to floats on
/// the way, several times slower and with exact activations.
pub fn has_fast_kernel(dtype: DType) -> bool {
    !matches!(PanelFormat::of(dtype), None | Some(PanelFormat::Blocks(_)))
}

impl PanelFormat {
    /// How weights of a file type are held; `None` for types that no weights have.
    pub fn of(dtype: DType) -> Option<Self> {
        Some(match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::BF16 => Self::BF16,
            DType::Q4_0 => Self::Q4_0,
            DType::Q4_1 => Self::Q4_1,
            DType::Q5_0 => Self::Q5_0,
            DType::Q5_1 => Self::Q5_1,
            DType::Q8_0 => Self::Q8_0,
            DType::IQ4_NL => Self::IQ4_NL,
            DType::Q2_K => Self::Q2_K,
            DType::Q3_K => Self::Q3_K,
            DType::Q4_K => Self::Q4_K,
            DType::Q5_K => Self::Q5_K,
            DType::Q6_K => Self::Q6_K,
            DType::IQ4_XS => Self::IQ4_XS,
            _ if can_decode(dtype) => Self::Blocks(dtype),
            _ => return None,
        })
    }

    /// Whether activations are quantized for this format: all but the plain floats, and what is decoded to them.
    pub fn is_quantized(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::BF16 | Self::Blocks(_))
    }

    /// Columns and bytes of a unit.
    pub(crate) fn unit(self) -> (usize, usize) {
        fn of<F: Unit>() -> (usize, usize) {
            (F::BLOCKS * BLOCK, F::BYTES)
        }
        match self {
            Self::F32 => (1, 4 * ROWS),
            Self::F16 | Self::BF16 => (1, 2 * ROWS),
            Self::Q4_0 => of::<Q4_0>(),
            Self::Q4_1 => of::<Q4_1>(),
            Self::Q5_0 => of::<Q5_0>(),
            Self::Q5_1 => of::<Q5_1>(),
            Self::Q8_0 => of::<Q8_0>(),
            Self::IQ4_NL => of::<IQ4_NL>(),
            Self::Q2_K => of::<Q2_K>(),
            Self::Q3_K => of::<Q3_K>(),
            Self::Q4_K => of::<Q4_K>(),
            Self::Q5_K => of::<Q5_K>(),
            Self::Q6_K => of::<Q6_K>(),
            Self::IQ4_XS => of::<IQ4_XS>(),
            Self::Blocks(dtype) => (dtype.block_len(), ROWS * dtype.block_bytes()),
        }
    }
}

/// A weight matrix `[rows, cols]` packed into panels. The last panel is padded with zero rows, except that blocks of the
/// file ([`PanelFormat::Blocks`]) stay as they are.
///
/// Or one that is left where it is, in the file's layout ([`map()`](crate::map)): then a panel is packed whenever it is
/// multiplied.
pub struct PackedMatrix {
    pub(crate) format: PanelFormat,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: Data,
}

/// Where the weights of a matrix are.
pub(crate) enum Data {
    /// In memory of their own, as panels.
    Packed(Memory),
    /// In somebody else's, as rows of the file.
    Shared(SharedRows),
}

impl PackedMatrix {
    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The layout of the weights when they are multiplied.
    pub fn format(&self) -> PanelFormat {
        self.format
    }

    /// Bytes of memory that the weights take; none where they are shared.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::Packed(data) => data.len(),
            Data::Shared(_) => 0,
        }
    }

    /// Bytes of somebody else's memory that the weights lie in.
    pub fn shared_bytes(&self) -> usize {
        match &self.data {
            Data::Packed(_) => 0,
            Data::Shared(rows) => rows.bytes().len(),
        }
    }

    /// Keeps the system from swapping packed weights out. Shared ones are their owner's to lock, and little
    /// matrices with memory of their own are left alone.
    ///
    /// # Errors
    /// The process may not lock so much, or the system has no such call.
    pub fn lock(&self) -> std::io::Result<()> {
        match &self.data {
            Data::Packed(data) => data.lock(),
            Data::Shared(_) => Ok(()),
        }
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    pub(crate) fn panel_bytes(&self) -> usize {
        let (cols, bytes) = self.format.unit();
        self.cols / cols * bytes
    }

    /// Panels that are best asked for at once, where they are many: those that have to be packed shall stay in the cache.
    pub(crate) fn panels_at_once(&self) -> usize {
        match &self.data {
            Data::Packed(_) => usize::MAX,
            Data::Shared(_) => 4,
        }
    }

    /// Calls `f` with neighbouring panels.
    #[inline]
    pub(crate) fn with_panels(&self, panels: Range<usize>, f: impl FnOnce(&[u8])) {
        let bytes = self.panel_bytes();
        match &self.data {
            Data::Packed(data) => {
                f(&data[panels.start * bytes..data.len().min(panels.end * bytes)]);
            }
            Data::Shared(rows) => rows.with_panels(self.format, panels, bytes, f),
        }
    }
}

/// 32 columns of 8 rows, ready to multiply: `weight = s * code + m`, or where [`Vector::BIASED`] `s * (code - ZERO) + m`.
pub(crate) struct Block<S: Vector> {
    pub codes: [S::B; 8],
    /// Scale and offset of the first and the second 16 columns; equal where the format has one per 32.
    pub s: [S::F; 2],
    pub m: [S::F; 2],
}

/// What the product of unpacked codes depends on.
pub(crate) trait Shape: 'static {
    /// Whether scales change every 16 columns.
    const HALVES: bool = false;
    /// Whether codes are signed bytes without an offset (else unsigned, and `m` takes the offset off).
    const SIGNED: bool = false;
    /// Whether weights have an offset of their own, not only a code that stands for zero.
    const OFFSET: bool = false;
    /// How many steps of codes times activations fit in 16 bits: 4 for 5 bits, 2 for 6 bits.
    const DEPTH: usize = 4;
}

/// Whether a product adds `m` times the sum of the activations.
#[inline(always)]
pub(crate) fn adds_offset<S: Vector, H: Shape>() -> bool {
    if S::BIASED { H::OFFSET } else { !H::SIGNED }
}

/// Up to 5 bits, one scale per 32 columns.
pub(crate) struct Whole;
impl Shape for Whole {}
/// The same with an offset per 32 columns.
pub(crate) struct WholeWithOffset;
impl Shape for WholeWithOffset {
    const OFFSET: bool = true;
}
/// Up to 6 bits, one scale per 16 columns.
pub(crate) struct Halves;
impl Shape for Halves {
    const HALVES: bool = true;
    const DEPTH: usize = 2;
}
/// The same with an offset per 16 columns.
pub(crate) struct HalvesWithOffset;
impl Shape for HalvesWithOffset {
    const HALVES: bool = true;
    const OFFSET: bool = true;
    const DEPTH: usize = 2;
}
/// Signed bytes, one scale per 32 columns.
pub(crate) struct Signed;
impl Shape for Signed {
    const SIGNED: bool = true;
}

/// One quantized unit layout.
pub(crate) trait Unit: 'static {
    /// Blocks of 32 columns in a unit.
    const BLOCKS: usize;
    const BYTES: usize;
    type Shape: Shape;

    /// Reads block `b` of the unit at `unit`.
    ///
    /// # Safety
    /// `unit` has `BYTES` bytes and `b < BLOCKS`.
    unsafe fn block<S: Vector>(s: S, unit: *const u8, b: usize) -> Block<S>;
}

/// 8 steps out of 4 vectors of nibbles.
#[inline(always)]
unsafe fn nibbles<S: Vector>(s: S, p: *const u8) -> [S::B; 8] {
    // SAFETY: the caller has 128 bytes at `p`.
    let v: [S::B; 4] = each!(4; i => unsafe { s.load_b(p.add(32 * i)) });
    each!(8; j => s.and_b(if j < 4 { v[j] } else { s.shr::<4>(v[j % 4]) }, 15))
}

/// Bit `j` of each byte at `p`, moved to bit `TO`, for step `j`.
#[inline(always)]
unsafe fn bits<S: Vector, const TO: u8>(s: S, p: *const u8) -> [S::B; 8] {
    // SAFETY: the caller has 32 bytes at `p`.
    let v = unsafe { s.load_b(p) };
    let at = |x: S::B| s.and_b(x, 1 << TO);
    if TO == 4 {
        [
            at(s.shl::<4>(v)),
            at(s.shl::<3>(v)),
            at(s.shl::<2>(v)),
            at(s.shl::<1>(v)),
            at(v),
            at(s.shr::<1>(v)),
            at(s.shr::<2>(v)),
            at(s.shr::<3>(v)),
        ]
    } else {
        [
            at(s.shl::<2>(v)),
            at(s.shl::<1>(v)),
            at(v),
            at(s.shr::<1>(v)),
            at(s.shr::<2>(v)),
            at(s.shr::<3>(v)),
            at(s.shr::<4>(v)),
            at(s.shr::<5>(v)),
        ]
    }
}

/// The 2-bit fields of 2 vectors at `p`, moved to bits `TO` (0 or 4) and up.
#[inline(always)]
unsafe fn pairs<S: Vector, const TO: u8>(s: S, p: *const u8) -> [S::B; 8] {
    // SAFETY: the caller has 64 bytes at `p`.
    let v: [S::B; 2] = each!(2; i => unsafe { s.load_b(p.add(32 * i)) });
    each!(8; j => {
        let v: S::B = v[j / 4];
        let shifted = match (TO, j % 4) {
            (0, 0) | (4, 2) => v,
            (0, 1) | (4, 3) => s.shr::<2>(v),
            (0, 2) => s.shr::<4>(v),
            (0, _) => s.shr::<6>(v),
            (_, 0) => s.shl::<4>(v),
            (_, _) => s.shl::<2>(v),
        };
        s.and_b(shifted, 3 << TO)
    })
}

#[inline(always)]
fn merge<S: Vector>(s: S, a: [S::B; 8], b: [S::B; 8]) -> [S::B; 8] {
    each!(8; j => s.or_b(a[j], b[j]))
}

/// Signed codes as the tier wants them.
#[inline(always)]
fn signed<S: Vector>(s: S, codes: [S::B; 8], scale: S::F) -> Block<S> {
    Block {
        codes: match S::BIASED {
            true => each!(8; j => s.xor_b(codes[j], ZERO)),
            false => codes,
        },
        s: [scale; 2],
        m: [s.splat(0.0); 2],
    }
}

/// Unsigned codes of which `zero` stands for zero, with the scales of both halves.
#[inline(always)]
fn around_zero<S: Vector>(s: S, codes: [S::B; 8], zero: u8, scales: [S::F; 2]) -> Block<S> {
    if S::BIASED {
        Block {
            codes: each!(8; j => s.add_b(codes[j], ZERO - zero)),
            s: scales,
            m: [s.splat(0.0); 2],
        }
    } else {
        Block {
            codes,
            s: scales,
            m: each!(2; h => s.mul(scales[h], s.splat(-f32::from(zero)))),
        }
    }
}

/// Unsigned codes with the scales and offsets of both halves.
#[inline(always)]
fn with_offset<S: Vector>(s: S, codes: [S::B; 8], scales: [S::F; 2], m: [S::F; 2]) -> Block<S> {
    Block {
        codes,
        s: scales,
        m: match S::BIASED {
            true => each!(2; h => s.fma(scales[h], s.splat(f32::from(ZERO)), m[h])),
            false => m,
        },
    }
}

/// The values of IQ4_NL and IQ4_XS codes (ggml's `kvalues_iq4nl`).
pub(crate) const IQ4_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

macro_rules! legacy_unit {
    ($name:ident, bytes: $bytes:expr, $shape:ident, $doc:literal, |$s:ident, $p:ident, $scale:ident| $block:expr) => {
        #[doc = $doc]
        #[allow(non_camel_case_types)]
        pub(crate) struct $name;
        impl Unit for $name {
            const BLOCKS: usize = 1;
            const BYTES: usize = $bytes;
            type Shape = $shape;
            #[inline(always)]
            #[allow(unsafe_op_in_unsafe_fn)]
            unsafe fn block<S: Vector>($s: S, $p: *const u8, _: usize) -> Block<S> {
                let $scale = [$s.load_f16($p.cast()); 2];
                $block
            }
        }
    };
}

legacy_unit!(Q4_0, bytes: 16 + 128, Whole, "`d` f16 x 8, nibbles; 8 is zero.",
    |s, p, d| around_zero(s, nibbles(s, p.add(16)), 8, d));
legacy_unit!(Q4_1, bytes: 32 + 128, WholeWithOffset, "`d`, `m` f16 x 8, nibbles.",
    |s, p, d| with_offset(s, nibbles(s, p.add(32)), d, [s.load_f16(p.add(16).cast()); 2]));
legacy_unit!(Q5_0, bytes: 16 + 32 + 128, Whole, "`d` f16 x 8, fifth bits, nibbles; 16 is zero.",
    |s, p, d| around_zero(s, merge(s, nibbles(s, p.add(48)), bits::<S, 4>(s, p.add(16))), 16, d));
legacy_unit!(Q5_1, bytes: 32 + 32 + 128, WholeWithOffset, "`d`, `m` f16 x 8, fifth bits, nibbles.",
|s, p, d| with_offset(
    s,
    merge(s, nibbles(s, p.add(64)), bits::<S, 4>(s, p.add(32))),
    d,
    [s.load_f16(p.add(16).cast()); 2],
));

/// `d` f16 x 8, signed codes.
pub(crate) struct Q8_0;
impl Unit for Q8_0 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 16 + 256;
    type Shape = Signed;
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn block<S: Vector>(s: S, p: *const u8, _: usize) -> Block<S> {
        signed(
            s,
            each!(8; j => s.load_b(p.add(16 + 32 * j))),
            s.load_f16(p.cast()),
        )
    }
}

/// `d` f16 x 8, nibbles that index [`IQ4_VALUES`].
#[allow(non_camel_case_types)]
pub(crate) struct IQ4_NL;
impl Unit for IQ4_NL {
    const BLOCKS: usize = 1;
    const BYTES: usize = 16 + 128;
    type Shape = Signed;
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn block<S: Vector>(s: S, p: *const u8, _: usize) -> Block<S> {
        let codes = nibbles(s, p.add(16));
        let codes = each!(8; j => s.lookup(&IQ4_VALUES, codes[j]));
        signed(s, codes, s.load_f16(p.cast()))
    }
}

/// `d`, `dmin` f16 x 8; per block 16 bytes `scale | min << 4` (half by half), 2-bit codes.
#[allow(non_camel_case_types)]
pub(crate) struct Q2_K;
impl Unit for Q2_K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 32 + 8 * 96;
    type Shape = HalvesWithOffset;
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn block<S: Vector>(s: S, p: *const u8, b: usize) -> Block<S> {
        let (d, dmin) = (s.load_f16(p.cast()), s.load_f16(p.add(16).cast()));
        let minus = s.sub(s.splat(0.0), dmin);
        let q = p.add(32 + 96 * b);
        let scales = each!(2; h => s.mul(d, s.load_u8(q.add(8 * h))));
        let m = each!(2; h => s.mul(minus, s.load_u8(q.add(16 + 8 * h))));
        with_offset(s, pairs::<S, 0>(s, q.add(32)), scales, m)
    }
}

/// `d` f16 x 8; per block signed scales (half by half), third bits, 2-bit codes; 4 is zero.
#[allow(non_camel_case_types)]
pub(crate) struct Q3_K;
impl Unit for Q3_K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 16 + 8 * 112;
    type Shape = Halves;
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn block<S: Vector>(s: S, p: *const u8, b: usize) -> Block<S> {
        let d = s.load_f16(p.cast());
        let q = p.add(16 + 112 * b);
        let scales = each!(2; h => s.mul(d, s.load_i8(q.add(8 * h))));
        let codes = merge(s, pairs::<S, 0>(s, q.add(48)), bits::<S, 2>(s, q.add(16)));
        around_zero(s, codes, 4, scales)
    }
}

/// `d`, `dmin` f16 x 8; per block scales and mins u8 x 8, nibbles.
#[allow(non_camel_case_types)]
pub(crate) struct Q4_K;
impl Unit for Q4_K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 32 + 8 * 144;
    type Shape = WholeWithOffset;
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn block<S: Vector>(s: S, p: *const u8, b: usize) -> Block<S> {
        let q = p.add(32 + 144 * b);
        let (scale, m) = scale_and_min(s, p, q);
        with_offset(s, nibbles(s, q.add(16)), [scale; 2], [m; 2])
    }
}

/// As [`Q4_K`] with fifth bits before the nibbles.
#[allow(non_camel_case_types)]
pub(crate) struct Q5_K;
impl Unit for Q5_K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 32 + 8 * 176;
    type Shape = WholeWithOffset;
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn block<S: Vector>(s: S, p: *const u8, b: usize) -> Block<S> {
        let q = p.add(32 + 176 * b);
        let (scale, m) = scale_and_min(s, p, q);
        let codes = merge(s, nibbles(s, q.add(48)), bits::<S, 4>(s, q.add(16)));
        with_offset(s, codes, [scale; 2], [m; 2])
    }
}

/// `d * scale` and `-dmin * min` of Q4_K and Q5_K.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn scale_and_min<S: Vector>(s: S, unit: *const u8, block: *const u8) -> (S::F, S::F) {
    let (d, dmin) = (s.load_f16(unit.cast()), s.load_f16(unit.add(16).cast()));
    let m = s.mul(dmin, s.load_u8(block.add(8)));
    (s.mul(d, s.load_u8(block)), s.sub(s.splat(0.0), m))
}

/// `d` f16 x 8; per block signed scales (half by half), upper 2 bits, nibbles; 32 is zero.
#[allow(non_camel_case_types)]
pub(crate) struct Q6_K;
impl Unit for Q6_K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 16 + 8 * 208;
    type Shape = Halves;
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn block<S: Vector>(s: S, p: *const u8, b: usize) -> Block<S> {
        let d = s.load_f16(p.cast());
        let q = p.add(16 + 208 * b);
        let scales = each!(2; h => s.mul(d, s.load_i8(q.add(8 * h))));
        let codes = merge(s, nibbles(s, q.add(80)), pairs::<S, 4>(s, q.add(16)));
        around_zero(s, codes, 32, scales)
    }
}

/// `d` f16 x 8; per block signed scales, nibbles that index [`IQ4_VALUES`].
#[allow(non_camel_case_types)]
pub(crate) struct IQ4_XS;
impl Unit for IQ4_XS {
    const BLOCKS: usize = 8;
    const BYTES: usize = 16 + 8 * 136;
    type Shape = Signed;
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn block<S: Vector>(s: S, p: *const u8, b: usize) -> Block<S> {
        let q = p.add(16 + 136 * b);
        let codes = nibbles(s, q.add(8));
        let codes = each!(8; j => s.lookup(&IQ4_VALUES, codes[j]));
        signed(s, codes, s.mul(s.load_f16(p.cast()), s.load_i8(q)))
    }
}
