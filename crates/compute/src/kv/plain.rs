//! Keys and values as plain numbers: keys `[dim, 32]`, values `[32, padded]`.

use super::element::Element;
use super::{POSITIONS_PER_BLOCK, padded};
use crate::simd::Simd;

/// Numbers of one head in a block.
#[derive(Clone, Copy)]
pub(crate) struct Plain<T> {
    numbers: *const T,
    /// Numbers from value to value.
    stride: usize,
}

/// A row's next 8 elements, zeros behind its end.
#[inline(always)]
fn eight(x: &[f32]) -> [f32; 8] {
    let mut out = [0.0; 8];
    out[..x.len()].copy_from_slice(x);
    out
}

macro_rules! plain {
    ($number:ty, $load_16:ident, $store:ident) => {
        impl Element for Plain<$number> {
            #[inline(always)]
            fn key_bytes(dim: usize) -> usize {
                POSITIONS_PER_BLOCK * dim * size_of::<$number>()
            }

            #[inline(always)]
            fn value_bytes(dim: usize) -> usize {
                POSITIONS_PER_BLOCK * padded(dim) * size_of::<$number>()
            }

            #[inline(always)]
            fn scales(_: usize) -> usize {
                0
            }

            #[inline(always)]
            unsafe fn open<S: Simd>(
                _: S,
                numbers: *const u8,
                _: *const u8,
                dim: usize,
                _: *mut f32,
            ) -> Self {
                Plain {
                    numbers: numbers.cast(),
                    stride: padded(dim),
                }
            }

            #[inline(always)]
            unsafe fn key<S: Simd>(self, s: S, d: usize, i: usize) -> S::W {
                // SAFETY: the caller's promise.
                unsafe { s.$load_16(self.numbers.add(d * POSITIONS_PER_BLOCK + 16 * i)) }
            }

            #[inline(always)]
            unsafe fn value<S: Simd>(self, s: S, p: usize, i: usize) -> S::W {
                // SAFETY: the caller's promise.
                unsafe { s.$load_16(self.numbers.add(p * self.stride + 16 * i)) }
            }

            #[inline(always)]
            unsafe fn store_key<S: Simd>(
                s: S,
                numbers: *mut u8,
                _: *mut u8,
                offset: usize,
                key: &[f32],
            ) {
                let numbers = numbers.cast::<$number>();
                let mut converted = [<$number>::default(); 8];
                for (at, x) in key.chunks(8).enumerate() {
                    // SAFETY: a vector is 8 numbers; the caller's promise.
                    unsafe {
                        s.$store(converted.as_mut_ptr(), s.load(eight(x).as_ptr()));
                        for (d, x) in converted.into_iter().take(x.len()).enumerate() {
                            *numbers.add((8 * at + d) * POSITIONS_PER_BLOCK + offset) = x;
                        }
                    }
                }
            }

            #[inline(always)]
            unsafe fn store_value<S: Simd>(
                s: S,
                numbers: *mut u8,
                _: *mut u8,
                offset: usize,
                value: &[f32],
            ) {
                let stride = padded(value.len());
                for (at, x) in value.chunks(8).enumerate() {
                    // SAFETY: the caller's promise; a chunk of 8 has room in the padded value.
                    unsafe {
                        let target = numbers.cast::<$number>().add(offset * stride + 8 * at);
                        s.$store(target, s.load(eight(x).as_ptr()));
                    }
                }
            }
        }
    };
}
plain!(u16, load_f16_16, store_f16);
plain!(f32, load_16, store);
