//! The number types of a cache: how a head of a block is laid out, written and read.

use super::{KvLayout, POSITIONS_PER_BLOCK};
use crate::simd::{Simd, each};

/// Elements of a key or value that share a scale.
const SCALED: usize = 32;

/// Keys of consecutive positions.
pub(crate) trait Keys: Copy {
    /// Element `d` of the keys of positions `16 * i..16 * i + 16`.
    ///
    /// # Safety
    /// Both lie within the keys.
    unsafe fn key<S: Simd>(self, s: S, d: usize, i: usize) -> S::W;
}

/// Values of consecutive positions.
pub(crate) trait Values: Copy {
    /// Elements `16 * i..16 * i + 16` of the value of position `p`.
    ///
    /// # Safety
    /// Both lie within the values.
    unsafe fn value<S: Simd>(self, s: S, p: usize, i: usize) -> S::W;
}

/// A number type that a cache can have.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// A head of a block, ready to be read.
    type Head: Keys + Values;

    /// Bytes of a head of a block.
    fn head_bytes(layout: KvLayout) -> usize;

    /// Bytes of its keys, which come first.
    fn key_bytes(layout: KvLayout) -> usize;

    /// Floats that [`Element::open`] writes.
    fn scales(layout: KvLayout) -> usize;

    /// Makes a head readable.
    ///
    /// # Safety
    /// `head` has [`Element::head_bytes`], and outlives the result; so has `scales` its floats.
    unsafe fn open<S: Simd>(
        s: S,
        head: *const u8,
        layout: KvLayout,
        scales: *mut f32,
    ) -> Self::Head;

    /// Writes the key and value of the position `offset` of a block.
    ///
    /// # Safety
    /// `head` has [`Element::head_bytes`], `offset` is below [`POSITIONS_PER_BLOCK`].
    unsafe fn store<S: Simd>(
        s: S,
        head: *mut u8,
        layout: KvLayout,
        offset: usize,
        k: &[f32],
        v: &[f32],
    );
}

/// Plain numbers: keys `[head_dim_k, 32]`, then values `[32, padded_v]`.
#[derive(Clone, Copy)]
pub(crate) struct Plain<T> {
    keys: *const T,
    values: *const T,
    padded_v: usize,
}

/// IEEE halves.
#[derive(Clone, Copy)]
pub(crate) struct F16;

/// Single precision.
#[derive(Clone, Copy)]
pub(crate) struct F32;

/// A row's next 8 elements, zeros behind its end.
#[inline(always)]
fn eight(x: &[f32]) -> [f32; 8] {
    let mut out = [0.0; 8];
    out[..x.len()].copy_from_slice(x);
    out
}

macro_rules! plain {
    ($element:ident, $number:ty, $load_16:ident, $store:ident) => {
        impl Keys for Plain<$number> {
            #[inline(always)]
            unsafe fn key<S: Simd>(self, s: S, d: usize, i: usize) -> S::W {
                // SAFETY: the caller's promise.
                unsafe { s.$load_16(self.keys.add(d * POSITIONS_PER_BLOCK + 16 * i)) }
            }
        }

        impl Values for Plain<$number> {
            #[inline(always)]
            unsafe fn value<S: Simd>(self, s: S, p: usize, i: usize) -> S::W {
                // SAFETY: the caller's promise.
                unsafe { s.$load_16(self.values.add(p * self.padded_v + 16 * i)) }
            }
        }

        impl Element for $element {
            type Head = Plain<$number>;

            #[inline(always)]
            fn head_bytes(layout: KvLayout) -> usize {
                POSITIONS_PER_BLOCK * (layout.head_dim_k + layout.padded_v()) * size_of::<$number>()
            }

            #[inline(always)]
            fn key_bytes(layout: KvLayout) -> usize {
                POSITIONS_PER_BLOCK * layout.head_dim_k * size_of::<$number>()
            }

            #[inline(always)]
            fn scales(_: KvLayout) -> usize {
                0
            }

            #[inline(always)]
            unsafe fn open<S: Simd>(
                _: S,
                head: *const u8,
                layout: KvLayout,
                _: *mut f32,
            ) -> Plain<$number> {
                let keys = head.cast::<$number>();
                Plain {
                    keys,
                    // SAFETY: the head holds the keys.
                    values: unsafe { keys.add(POSITIONS_PER_BLOCK * layout.head_dim_k) },
                    padded_v: layout.padded_v(),
                }
            }

            #[inline(always)]
            unsafe fn store<S: Simd>(
                s: S,
                head: *mut u8,
                layout: KvLayout,
                offset: usize,
                k: &[f32],
                v: &[f32],
            ) {
                let keys = head.cast::<$number>();
                // SAFETY: the caller's promise; a chunk of 8 has room for 8 in `converted` and in the padded values.
                unsafe {
                    let values = keys.add(POSITIONS_PER_BLOCK * layout.head_dim_k);
                    let mut converted = [<$number>::default(); 8];
                    for (at, x) in k.chunks(8).enumerate() {
                        s.$store(converted.as_mut_ptr(), s.load(eight(x).as_ptr()));
                        for (d, x) in converted.into_iter().take(x.len()).enumerate() {
                            *keys.add((8 * at + d) * POSITIONS_PER_BLOCK + offset) = x;
                        }
                    }
                    for (at, x) in v.chunks(8).enumerate() {
                        let target = values.add(offset * layout.padded_v() + 8 * at);
                        s.$store(target, s.load(eight(x).as_ptr()));
                    }
                }
            }
        }
    };
}
plain!(F16, u16, load_f16_16, store_f16);
plain!(F32, f32, load_16, store);

/// 8-bit codes: keys `[head_dim_k, 32]`, values `[32, padded_v]`, then the scales of the keys as halves
/// `[groups of 32 dimensions, 32]`, and those of the values likewise.
#[derive(Clone, Copy)]
pub(crate) struct Q8;

/// A head of [`Q8`] with its scales as floats.
#[derive(Clone, Copy)]
pub(crate) struct Q8Head {
    keys: *const u8,
    values: *const u8,
    padded_v: usize,
    key_scales: *const f32,
    value_scales: *const f32,
}

/// 16 codes as numbers.
///
/// # Safety
/// `codes` has so many.
#[inline(always)]
unsafe fn load_codes<S: Simd>(s: S, codes: *const u8) -> S::W {
    // SAFETY: the caller's promise.
    unsafe { s.join([s.load_i8(codes), s.load_i8(codes.add(8))]) }
}

impl Keys for Q8Head {
    #[inline(always)]
    unsafe fn key<S: Simd>(self, s: S, d: usize, i: usize) -> S::W {
        // SAFETY: the caller's promise.
        unsafe {
            let scales = self
                .key_scales
                .add(d / SCALED * POSITIONS_PER_BLOCK + 16 * i);
            let codes = self.keys.add(d * POSITIONS_PER_BLOCK + 16 * i);
            s.mul_16(load_codes(s, codes), s.load_16(scales))
        }
    }
}

impl Values for Q8Head {
    #[inline(always)]
    unsafe fn value<S: Simd>(self, s: S, p: usize, i: usize) -> S::W {
        // SAFETY: the caller's promise.
        unsafe {
            let scale = *self
                .value_scales
                .add(16 * i / SCALED * POSITIONS_PER_BLOCK + p);
            let codes = self.values.add(p * self.padded_v + 16 * i);
            s.mul_16(load_codes(s, codes), s.splat_16(scale))
        }
    }
}

impl Element for Q8 {
    type Head = Q8Head;

    #[inline(always)]
    fn head_bytes(layout: KvLayout) -> usize {
        POSITIONS_PER_BLOCK * (layout.head_dim_k + layout.padded_v())
            + Self::scales(layout) * size_of::<u16>()
    }

    #[inline(always)]
    fn key_bytes(layout: KvLayout) -> usize {
        POSITIONS_PER_BLOCK * layout.head_dim_k
    }

    #[inline(always)]
    fn scales(layout: KvLayout) -> usize {
        let groups = layout.head_dim_k.div_ceil(SCALED) + layout.head_dim_v.div_ceil(SCALED);
        groups * POSITIONS_PER_BLOCK
    }

    #[inline(always)]
    unsafe fn open<S: Simd>(s: S, head: *const u8, layout: KvLayout, scales: *mut f32) -> Q8Head {
        let key_groups = layout.head_dim_k.div_ceil(SCALED);
        // SAFETY: the caller's promise; scales are whole vectors.
        unsafe {
            let values = head.add(POSITIONS_PER_BLOCK * layout.head_dim_k);
            let halves = values.add(POSITIONS_PER_BLOCK * layout.padded_v());
            let halves = halves.cast::<u16>();
            for at in (0..Self::scales(layout)).step_by(8) {
                s.store(scales.add(at), s.load_f16(halves.add(at)));
            }
            Q8Head {
                keys: head,
                values,
                padded_v: layout.padded_v(),
                key_scales: scales,
                value_scales: scales.add(key_groups * POSITIONS_PER_BLOCK),
            }
        }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(
        s: S,
        head: *mut u8,
        layout: KvLayout,
        offset: usize,
        k: &[f32],
        v: &[f32],
    ) {
        // SAFETY: the caller's promise; the scales may lie at odd addresses.
        unsafe {
            let values = head.add(POSITIONS_PER_BLOCK * layout.head_dim_k);
            let key_scales = values
                .add(POSITIONS_PER_BLOCK * layout.padded_v())
                .cast::<u16>();
            for (group, x) in k.chunks(SCALED).enumerate() {
                let (codes, scale) = quantize(s, x);
                for (d, code) in codes.into_iter().take(x.len()).enumerate() {
                    let d = group * SCALED + d;
                    *head.add(d * POSITIONS_PER_BLOCK + offset) = code as u8;
                }
                let scale_at = key_scales.add(group * POSITIONS_PER_BLOCK + offset);
                scale_at.write_unaligned(scale);
            }
            let key_groups = layout.head_dim_k.div_ceil(SCALED);
            let value_scales = key_scales.add(key_groups * POSITIONS_PER_BLOCK);
            for (group, x) in v.chunks(SCALED).enumerate() {
                let (codes, scale) = quantize(s, x);
                let target = values.add(offset * layout.padded_v() + group * SCALED);
                std::ptr::copy_nonoverlapping(codes.as_ptr().cast(), target, x.len());
                let scale_at = value_scales.add(group * POSITIONS_PER_BLOCK + offset);
                scale_at.write_unaligned(scale);
            }
        }
    }
}

/// Up to 32 numbers as 8-bit codes, zeros behind them, and their scale as a half.
///
/// Where a number is not finite, or too large for the scale, all of them come out as not a number.
#[inline(always)]
fn quantize<S: Simd>(s: S, x: &[f32]) -> ([i8; SCALED], u16) {
    let mut padded = [0.0f32; SCALED];
    padded[..x.len()].copy_from_slice(x);
    // SAFETY: 4 vectors are 32 numbers.
    let v: [S::F; 4] = each!(4; i => unsafe { s.load(padded.as_ptr().add(8 * i)) });
    let (low, high) = (
        s.max(s.abs(v[0]), s.abs(v[1])),
        s.max(s.abs(v[2]), s.abs(v[3])),
    );
    let largest = s.largest(s.max(low, high));
    // Zero times what is not finite is not a number.
    let sum = s.add(s.add(v[0], v[1]), s.add(v[2], v[3]));
    let not_finite = s.sum(s.mul(sum, s.splat(0.0)));
    let (mut scale, mut rounded) = ([0u16; 8], [0.0f32; 8]);
    // SAFETY: each array has 8 elements.
    unsafe {
        s.store_f16(scale.as_mut_ptr(), s.splat(largest / 127.0 + not_finite));
        s.store(rounded.as_mut_ptr(), s.load_f16(scale.as_ptr()));
    }
    let inverse = match rounded[0] {
        scale if scale > 0.0 && scale.is_finite() => 1.0 / scale,
        _ => 0.0,
    };
    let mut codes = [0i8; SCALED];
    // A scale that was rounded down would give codes past the end.
    let (least, most, inverse) = (s.splat(-127.0), s.splat(127.0), s.splat(inverse));
    let v: [S::F; 4] = each!(4; i => s.max(s.min(s.mul(v[i], inverse), most), least));
    // SAFETY: there is room for 32 codes.
    unsafe { s.store_i8(codes.as_mut_ptr(), &v) };
    (codes, scale[0])
}
