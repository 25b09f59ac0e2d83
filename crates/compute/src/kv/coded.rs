//! Keys and values as small codes: each 32 elements of a key or value share a scale, a half.

use super::POSITIONS_PER_BLOCK;
use super::element::Element;
use super::quantize::{quantize_4, quantize_8};
use super::rotation::{self, rotate};
use crate::simd::Simd;
use std::marker::PhantomData;

/// Elements of a key or value that share a scale.
pub(super) const GROUP: usize = 32;

/// How codes are made, and how a block has them.
pub(crate) trait Codes: Copy {
    /// Whether keys and values are rotated before they become codes ([`rotate`]).
    const ROTATED: bool;

    fn key_bytes(dim: usize) -> usize;

    /// Bytes from value to value.
    fn value_stride(dim: usize) -> usize;

    /// Codes of up to 32 numbers, zeros behind them, and their scale as a half.
    fn quantize<S: Simd>(s: S, x: &[f32]) -> ([i8; GROUP], u16);

    /// Code `d` of the keys of positions `16 * i..16 * i + 16`.
    ///
    /// # Safety
    /// There are such.
    unsafe fn key<S: Simd>(s: S, codes: *const u8, d: usize, i: usize) -> S::W;

    /// Codes `16 * i..16 * i + 16` of a value.
    ///
    /// # Safety
    /// There are such.
    unsafe fn value<S: Simd>(s: S, value: *const u8, i: usize) -> S::W;

    /// Writes the codes of a key from element `first` on, a multiple of 32.
    ///
    /// # Safety
    /// `keys` are of a block, and their elements so many.
    unsafe fn store_key(keys: *mut u8, offset: usize, first: usize, codes: &[i8]);

    /// Writes the codes of a value's group of which `count` elements are the value's.
    ///
    /// # Safety
    /// The value has such a group.
    unsafe fn store_value(value: *mut u8, group: usize, codes: &[i8; GROUP], count: usize);
}

/// Codes of one head in a block, and their scales `[groups of 32 elements, 32 positions]`.
#[derive(Clone, Copy)]
pub(crate) struct Coded<C> {
    codes: *const u8,
    /// Bytes from value to value.
    stride: usize,
    scales: *const f32,
    bits: PhantomData<C>,
}

impl<C: Codes> Element for Coded<C> {
    #[inline(always)]
    fn key_bytes(dim: usize) -> usize {
        C::key_bytes(dim)
    }

    #[inline(always)]
    fn value_bytes(dim: usize) -> usize {
        POSITIONS_PER_BLOCK * C::value_stride(dim)
    }

    #[inline(always)]
    fn scales(dim: usize) -> usize {
        dim.div_ceil(GROUP) * POSITIONS_PER_BLOCK
    }

    #[inline(always)]
    unsafe fn open<S: Simd>(
        s: S,
        numbers: *const u8,
        scales: *const u8,
        dim: usize,
        opened: *mut f32,
    ) -> Self {
        let halves = scales.cast::<u16>();
        for at in (0..Self::scales(dim)).step_by(8) {
            // SAFETY: the caller's promise; the scales are whole vectors.
            unsafe { s.store(opened.add(at), s.load_f16(halves.add(at))) };
        }
        Coded {
            codes: numbers,
            stride: C::value_stride(dim),
            scales: opened,
            bits: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn key<S: Simd>(self, s: S, d: usize, i: usize) -> S::W {
        // SAFETY: the caller's promise.
        unsafe {
            let scales = self.scales.add(d / GROUP * POSITIONS_PER_BLOCK + 16 * i);
            s.mul_16(C::key(s, self.codes, d, i), s.load_16(scales))
        }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(self, s: S, p: usize, i: usize) -> S::W {
        // SAFETY: the caller's promise.
        unsafe {
            let scale = *self.scales.add(16 * i / GROUP * POSITIONS_PER_BLOCK + p);
            let codes = C::value(s, self.codes.add(p * self.stride), i);
            s.mul_16(codes, s.splat_16(scale))
        }
    }

    #[inline(always)]
    unsafe fn store_key<S: Simd>(
        s: S,
        numbers: *mut u8,
        scales: *mut u8,
        offset: usize,
        key: &[f32],
    ) {
        for_each_group::<C>(key, |group, x| {
            let (codes, scale) = C::quantize(s, x);
            // SAFETY: the caller's promise.
            unsafe {
                C::store_key(numbers, offset, group * GROUP, &codes[..x.len()]);
                store_scale(scales, group, offset, scale);
            }
        });
    }

    #[inline(always)]
    unsafe fn store_value<S: Simd>(
        s: S,
        numbers: *mut u8,
        scales: *mut u8,
        offset: usize,
        value: &[f32],
    ) {
        let stride = C::value_stride(value.len());
        for_each_group::<C>(value, |group, x| {
            let (codes, scale) = C::quantize(s, x);
            // SAFETY: the caller's promise.
            unsafe {
                C::store_value(numbers.add(offset * stride), group, &codes, x.len());
                store_scale(scales, group, offset, scale);
            }
        });
    }
}

/// Calls with each group of a key or value, rotated where the codes want it, and its number.
#[inline(always)]
fn for_each_group<C: Codes>(x: &[f32], mut call: impl FnMut(usize, &[f32])) {
    let mut piece = [0.0; rotation::LONGEST];
    for (at, x) in x.chunks(rotation::LONGEST).enumerate() {
        let piece = &mut piece[..x.len()];
        piece.copy_from_slice(x);
        if C::ROTATED {
            rotate(piece);
        }
        for (group, x) in piece.chunks(GROUP).enumerate() {
            call(at * (rotation::LONGEST / GROUP) + group, x);
        }
    }
}

/// # Safety
/// `scales` are those of a block with such a group; `offset` is below 32.
#[inline(always)]
unsafe fn store_scale(scales: *mut u8, group: usize, offset: usize, scale: u16) {
    // SAFETY: the caller's promise.
    unsafe {
        let scales = scales.cast::<u16>();
        *scales.add(group * POSITIONS_PER_BLOCK + offset) = scale;
    }
}

/// A byte each: keys `[dim, 32]`, values `[32, padded]`.
#[derive(Clone, Copy)]
pub(crate) struct Bits8;

impl Codes for Bits8 {
    const ROTATED: bool = false;

    #[inline(always)]
    fn key_bytes(dim: usize) -> usize {
        POSITIONS_PER_BLOCK * dim
    }

    #[inline(always)]
    fn value_stride(dim: usize) -> usize {
        super::padded(dim)
    }

    #[inline(always)]
    fn quantize<S: Simd>(s: S, x: &[f32]) -> ([i8; GROUP], u16) {
        quantize_8(s, x)
    }

    #[inline(always)]
    unsafe fn key<S: Simd>(s: S, codes: *const u8, d: usize, i: usize) -> S::W {
        // SAFETY: the caller's promise.
        unsafe { sixteen(s, codes.add(d * POSITIONS_PER_BLOCK + 16 * i)) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(s: S, value: *const u8, i: usize) -> S::W {
        // SAFETY: the caller's promise.
        unsafe { sixteen(s, value.add(16 * i)) }
    }

    #[inline(always)]
    unsafe fn store_key(keys: *mut u8, offset: usize, first: usize, codes: &[i8]) {
        for (d, &code) in codes.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *keys.add((first + d) * POSITIONS_PER_BLOCK + offset) = code as u8 };
        }
    }

    #[inline(always)]
    unsafe fn store_value(value: *mut u8, group: usize, codes: &[i8; GROUP], count: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let target = value.add(group * GROUP);
            std::ptr::copy_nonoverlapping(codes.as_ptr().cast(), target, count);
        }
    }
}

/// 16 codes of a byte as numbers.
///
/// # Safety
/// `codes` has so many.
#[inline(always)]
unsafe fn sixteen<S: Simd>(s: S, codes: *const u8) -> S::W {
    // SAFETY: the caller's promise.
    unsafe { s.join([s.load_i8(codes), s.load_i8(codes.add(8))]) }
}

/// Half a byte each, 8 more than the code. A byte has elements `2 * d` and `2 * d + 1` of a key, `[dim / 2, 32]`, so that no two positions
/// share one. In a group of a value byte `j` has elements `j` and `16 + j`, as in GGUF's Q4_0.
#[derive(Clone, Copy)]
pub(crate) struct Bits4;

/// What is added to a code to make it unsigned.
const ZERO: i8 = 8;

#[inline(always)]
fn pair(low: i8, high: i8) -> u8 {
    (low + ZERO) as u8 | ((high + ZERO) as u8) << 4
}

impl Codes for Bits4 {
    const ROTATED: bool = true;

    #[inline(always)]
    fn key_bytes(dim: usize) -> usize {
        POSITIONS_PER_BLOCK * dim.div_ceil(2)
    }

    #[inline(always)]
    fn value_stride(dim: usize) -> usize {
        dim.next_multiple_of(GROUP) / 2
    }

    #[inline(always)]
    fn quantize<S: Simd>(s: S, x: &[f32]) -> ([i8; GROUP], u16) {
        quantize_4(s, x)
    }

    #[inline(always)]
    unsafe fn key<S: Simd>(s: S, codes: *const u8, d: usize, i: usize) -> S::W {
        // SAFETY: the caller's promise.
        unsafe { s.load_i4(codes.add(d / 2 * POSITIONS_PER_BLOCK + 16 * i), d % 2) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(s: S, value: *const u8, i: usize) -> S::W {
        // SAFETY: the caller's promise.
        unsafe { s.load_i4(value.add(i / 2 * (GROUP / 2)), i % 2) }
    }

    #[inline(always)]
    unsafe fn store_key(keys: *mut u8, offset: usize, first: usize, codes: &[i8]) {
        for (at, codes) in codes.chunks(2).enumerate() {
            let byte = pair(codes[0], codes.get(1).copied().unwrap_or(0));
            // SAFETY: the caller's promise; `first` is even.
            unsafe { *keys.add((first / 2 + at) * POSITIONS_PER_BLOCK + offset) = byte };
        }
    }

    #[inline(always)]
    unsafe fn store_value(value: *mut u8, group: usize, codes: &[i8; GROUP], _: usize) {
        let (low, high) = codes.split_at(GROUP / 2);
        let mut bytes = [0u8; GROUP / 2];
        for (byte, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
            *byte = pair(*low, *high);
        }
        // SAFETY: the caller's promise; values are whole groups.
        unsafe {
            let target = value.add(group * bytes.len());
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }
}
