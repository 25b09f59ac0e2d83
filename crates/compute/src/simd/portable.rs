//! Plain Rust: every operation spelled out on arrays.

use super::{Simd, Vector};
use half::{bf16, f16};

/// The tier that every processor has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn map<const N: usize>(a: [f32; N], f: impl Fn(f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i]))
}

#[inline(always)]
fn zip<const N: usize>(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// The second of the two where either is not a number.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn on_u16(a: [u8; 32], f: impl Fn(u16) -> u16) -> [u8; 32] {
    let mut out = [0; 32];
    for (o, i) in out.chunks_exact_mut(2).zip(a.chunks_exact(2)) {
        o.copy_from_slice(&f(u16::from_le_bytes([i[0], i[1]])).to_le_bytes());
    }
    out
}

#[allow(unsafe_op_in_unsafe_fn)]
impl Vector for Portable {
    type F = [f32; 8];
    type B = [u8; 32];
    const BIASED: bool = false;

    #[inline]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline]
    unsafe fn store(self, p: *mut f32, x: [f32; 8]) {
        p.cast::<[f32; 8]>().write_unaligned(x);
    }
    #[inline]
    unsafe fn load_f16(self, p: *const u16) -> [f32; 8] {
        p.cast::<[u16; 8]>()
            .read_unaligned()
            .map(|b| f16::from_bits(b).to_f32())
    }
    #[inline]
    unsafe fn load_u8(self, p: *const u8) -> [f32; 8] {
        p.cast::<[u8; 8]>().read_unaligned().map(f32::from)
    }
    #[inline]
    unsafe fn load_i8(self, p: *const u8) -> [f32; 8] {
        p.cast::<[i8; 8]>().read_unaligned().map(f32::from)
    }
    #[inline]
    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a - b)
    }
    #[inline]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a * b)
    }
    #[inline]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline]
    unsafe fn load_b(self, p: *const u8) -> [u8; 32] {
        p.cast::<[u8; 32]>().read_unaligned()
    }
    #[inline]
    fn and_b(self, a: [u8; 32], mask: u8) -> [u8; 32] {
        a.map(|x| x & mask)
    }
    #[inline]
    fn or_b(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline]
    fn xor_b(self, a: [u8; 32], mask: u8) -> [u8; 32] {
        a.map(|x| x ^ mask)
    }
    #[inline]
    fn add_b(self, a: [u8; 32], x: u8) -> [u8; 32] {
        a.map(|byte| byte.wrapping_add(x))
    }
    #[inline]
    fn shl<const N: i32>(self, a: [u8; 32]) -> [u8; 32] {
        on_u16(a, |x| x << N)
    }
    #[inline]
    fn shr<const N: i32>(self, a: [u8; 32]) -> [u8; 32] {
        on_u16(a, |x| x >> N)
    }
    #[inline]
    fn lookup(self, table: &[i8; 16], a: [u8; 32]) -> [u8; 32] {
        a.map(|x| table[usize::from(x & 15)] as u8)
    }
    #[inline]
    unsafe fn dot<const SIGNED: bool, const DEPTH: usize>(
        self,
        w: &[[u8; 32]; 4],
        a: *const i8,
    ) -> [f32; 8] {
        let mut out = [0; 8];
        for (step, w) in w.iter().enumerate() {
            let a = a.add(4 * step).cast::<[i8; 4]>().read_unaligned();
            for (row, out) in out.iter_mut().enumerate() {
                for k in 0..4 {
                    let w = w[4 * row + k];
                    let w = match SIGNED {
                        true => i32::from(w as i8),
                        false => i32::from(w),
                    };
                    *out += w * i32::from(a[k]);
                }
            }
        }
        self.to_f32(out)
    }
}

#[allow(unsafe_op_in_unsafe_fn)]
impl Simd for Portable {
    type A = [i32; 8];
    const ROWS: usize = 6;
    type W = [f32; 16];
    #[inline]
    unsafe fn load(self, p: *const f32) -> [f32; 8] {
        p.cast::<[f32; 8]>().read_unaligned()
    }
    #[inline]
    unsafe fn store_f16(self, p: *mut u16, x: [f32; 8]) {
        p.cast::<[u16; 8]>()
            .write_unaligned(x.map(|v| f16::from_f32(v).to_bits()));
    }
    #[inline]
    unsafe fn load_bf16(self, p: *const u16) -> [f32; 8] {
        p.cast::<[u16; 8]>()
            .read_unaligned()
            .map(|b| bf16::from_bits(b).to_f32())
    }
    #[inline]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a + b)
    }
    #[inline]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a / b)
    }
    #[inline]
    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, larger)
    }
    #[inline]
    fn min(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, smaller)
    }
    #[inline]
    fn abs(self, a: [f32; 8]) -> [f32; 8] {
        map(a, f32::abs)
    }
    #[inline]
    fn round(self, a: [f32; 8]) -> [f32; 8] {
        map(a, f32::round_ties_even)
    }
    #[inline]
    fn splat_16(self, x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline]
    unsafe fn load_16(self, p: *const f32) -> [f32; 16] {
        p.cast::<[f32; 16]>().read_unaligned()
    }
    #[inline]
    unsafe fn store_16(self, p: *mut f32, x: [f32; 16]) {
        p.cast::<[f32; 16]>().write_unaligned(x);
    }
    #[inline]
    unsafe fn load_f16_16(self, p: *const u16) -> [f32; 16] {
        self.join([self.load_f16(p), self.load_f16(p.add(8))])
    }
    #[inline]
    unsafe fn load_i4(self, p: *const u8, half: usize) -> [f32; 16] {
        let bytes = p.cast::<[u8; 16]>().read_unaligned();
        bytes.map(|byte| f32::from((byte >> (4 * half)) & 15) - 8.0)
    }
    #[inline]
    fn add_16(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a + b)
    }
    #[inline]
    fn sub_16(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a - b)
    }
    #[inline]
    fn mul_16(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a * b)
    }
    #[inline]
    fn div_16(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a / b)
    }
    #[inline]
    fn max_16(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, larger)
    }
    #[inline]
    fn min_16(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, smaller)
    }
    #[inline]
    fn to_exponent_16(self, a: [f32; 16]) -> [f32; 16] {
        map(a, |a| f32::from_bits(a.to_bits() << 23))
    }
    #[inline]
    fn join(self, halves: [[f32; 8]; 2]) -> [f32; 16] {
        std::array::from_fn(|i| halves[i / 8][i % 8])
    }
    #[inline]
    fn fma_16(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline]
    fn halves(self, a: [f32; 16]) -> [[f32; 8]; 2] {
        std::array::from_fn(|h| std::array::from_fn(|i| a[8 * h + i]))
    }
    #[inline]
    fn sum(self, a: [f32; 8]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline]
    fn largest(self, a: [f32; 8]) -> f32 {
        a.into_iter()
            .fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
    }
    #[inline]
    fn max_each(self, v: &[[f32; 8]; 8]) -> [f32; 8] {
        v.map(|v| v.into_iter().fold(f32::NEG_INFINITY, f32::max))
    }
    #[inline]
    fn sum_each(self, v: &[[f32; 8]; 8]) -> [f32; 8] {
        v.map(|v| self.sum(v))
    }
    #[inline]
    fn max_bits(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| f32::from_bits(a[i].to_bits().max(b[i].to_bits())))
    }
    #[inline]
    fn largest_each(self, v: &[[f32; 8]; 8]) -> [f32; 8] {
        v.map(|v| f32::from_bits(v.map(f32::to_bits).into_iter().fold(0, u32::max)))
    }
    #[inline]
    unsafe fn store_i8(self, p: *mut i8, v: &[[f32; 8]; 4]) -> [[f32; 8]; 2] {
        let codes = v.map(|v| v.map(|x| x.round_ties_even() as i8));
        p.cast::<[[i8; 8]; 4]>().write_unaligned(codes);
        let sum =
            |a: usize| std::array::from_fn(|i| f32::from(codes[a][i]) + f32::from(codes[a + 1][i]));
        [sum(0), sum(2)]
    }
    #[inline]
    unsafe fn store_b(self, p: *mut u8, x: [u8; 32]) {
        p.cast::<[u8; 32]>().write_unaligned(x);
    }

    #[inline]
    fn to_f32(self, a: [i32; 8]) -> [f32; 8] {
        a.map(|x| x as f32)
    }

    #[inline]
    fn widen<const SIGNED: bool>(self, a: [u8; 32]) -> [[u8; 32]; 2] {
        let wide = |byte: u8| match SIGNED {
            true => i16::from(byte as i8).to_le_bytes(),
            false => u16::from(byte).to_le_bytes(),
        };
        let mut out = [[0; 32]; 2];
        for (row, codes) in a.chunks_exact(4).enumerate() {
            for (k, &code) in codes.iter().enumerate() {
                let at = 4 * row + 2 * (k % 2);
                out[k / 2][at..at + 2].copy_from_slice(&wide(code));
            }
        }
        out
    }
    #[inline]
    unsafe fn pair(self, p: *const i16) -> [u8; 32] {
        let pair = p.cast::<[i16; 2]>().read_unaligned();
        let bytes = pair.map(i16::to_le_bytes);
        std::array::from_fn(|i| bytes[i % 4 / 2][i % 2])
    }
    #[inline]
    fn zero(self) -> [i32; 8] {
        [0; 8]
    }
    #[inline]
    fn add_pair(self, acc: [i32; 8], w: [u8; 32], a: [u8; 32]) -> [i32; 8] {
        let number = |v: &[u8; 32], at: usize| i32::from(i16::from_le_bytes([v[at], v[at + 1]]));
        std::array::from_fn(|row| {
            let products = [4 * row, 4 * row + 2].map(|at| number(&w, at) * number(&a, at));
            acc[row] + products[0] + products[1]
        })
    }
    #[inline]
    unsafe fn store_i16(self, p: *mut i16, v: &[[f32; 8]; 2]) -> [f32; 8] {
        let codes = v.map(|v| v.map(|x| x.round_ties_even() as i16));
        p.cast::<[[i16; 8]; 2]>().write_unaligned(codes);
        std::array::from_fn(|i| f32::from(codes[0][i]) + f32::from(codes[1][i]))
    }
}
