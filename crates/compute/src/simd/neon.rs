//! NEON, which every aarch64 processor has: 8 rows are two 128-bit vectors. Where the processor also has the dot product
//! instructions (ARMv8.2 `dotprod`), one of them multiplies 4 rows by 4 columns and adds in 32 bits.
//!
//! Both multiply signed by signed bytes. That serves all codes: unsigned ones have at most 6 bits.
//!
//! This has run in an emulator (QEMU) only, never on a processor. So nothing here is tuned: there are no register tiles and no
//! prefetches.

use super::{Kernel, Simd, Vector, each};
use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

/// Permission to use NEON and what `P` needs.
#[derive(Clone, Copy)]
pub(crate) struct Neon<P>(PhantomData<P>);

/// Runs `kernel` with NEON.
#[inline]
pub(crate) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(PhantomData::<Widening>))
}

/// Runs `kernel` with NEON and the dot product instructions.
///
/// # Safety
/// The processor has these features.
#[target_feature(enable = "neon,dotprod")]
pub(crate) unsafe fn run_with_dotprod<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(PhantomData::<DotProduct>))
}

/// How codes are multiplied.
pub(crate) trait Products: Copy + Send + Sync + 'static {
    /// For 4 rows the sum over 4 steps of signed codes times 16 activations in -127..=127.
    ///
    /// # Safety
    /// The processor has what the implementation needs.
    unsafe fn dot(w: [int8x16_t; 4], a: int8x16_t) -> int32x4_t;
}

/// By products in 16 bits, which are added there as long as they fit, two at a time.
#[derive(Clone, Copy)]
pub(crate) struct Widening;

#[allow(unsafe_op_in_unsafe_fn)]
impl Products for Widening {
    #[inline(always)]
    unsafe fn dot(w: [int8x16_t; 4], a: int8x16_t) -> int32x4_t {
        // 4 activations, repeated for each row.
        let a = vreinterpretq_s32_s8(a);
        let a = [
            vreinterpretq_s8_s32(vdupq_laneq_s32::<0>(a)),
            vreinterpretq_s8_s32(vdupq_laneq_s32::<1>(a)),
            vreinterpretq_s8_s32(vdupq_laneq_s32::<2>(a)),
            vreinterpretq_s8_s32(vdupq_laneq_s32::<3>(a)),
        ];
        let first = two_steps([w[0], w[1]], [a[0], a[1]]);
        let second = two_steps([w[2], w[3]], [a[2], a[3]]);
        let sums: [int32x4_t; 2] = each!(2; i => vpadalq_s16(vpaddlq_s16(first[i]), second[i]));
        vpaddq_s32(sums[0], sums[1])
    }
}

/// The products of two steps, added in 16 bits: of the first two rows, then of the other two.
///
/// `|w| <= 128` and `|a| <= 127`, so that a sum is at most 32512.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn two_steps(w: [int8x16_t; 2], a: [int8x16_t; 2]) -> [int16x8_t; 2] {
    [
        vmlal_s8(
            vmull_s8(vget_low_s8(w[0]), vget_low_s8(a[0])),
            vget_low_s8(w[1]),
            vget_low_s8(a[1]),
        ),
        vmlal_high_s8(vmull_high_s8(w[0], a[0]), w[1], a[1]),
    ]
}

/// By the dot product instructions.
#[derive(Clone, Copy)]
pub(crate) struct DotProduct;

#[allow(unsafe_op_in_unsafe_fn)]
impl Products for DotProduct {
    #[inline(always)]
    unsafe fn dot(w: [int8x16_t; 4], a: int8x16_t) -> int32x4_t {
        let sum = add_dot::<0>(vdupq_n_s32(0), w[0], a);
        let sum = add_dot::<1>(sum, w[1], a);
        let sum = add_dot::<2>(sum, w[2], a);
        add_dot::<3>(sum, w[3], a)
    }
}

/// For 4 rows `sum` and the products of 4 codes with the `STEP`th 4 activations of 16.
///
/// The standard library does not have the instruction in its stable part (Rust 1.95).
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn add_dot<const STEP: u32>(mut sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    asm!(
        "sdot {sum:v}.4s, {w:v}.16b, {a:v}.4b[{step}]",
        sum = inout(vreg) sum,
        w = in(vreg) w,
        a = in(vreg) a,
        step = const STEP,
        options(pure, nomem, nostack, preserves_flags),
    );
    sum
}

/// 8 `f32`.
type Floats = [float32x4_t; 2];
/// 32 bytes.
type Bytes = [uint8x16_t; 2];

/// Operations on two vectors, of which each half has an instruction.
macro_rules! by_halves {
    ($($name:ident = $instruction:expr),+) => {
        $(#[inline(always)]
        fn $name(self, a: Floats, b: Floats) -> Floats {
            // SAFETY: see `splat`.
            unsafe { each!(2; i => $instruction(a[i], b[i])) }
        })+
    };
}

/// Operations on 16 `f32`, of which each half has an operation.
macro_rules! by_vectors {
    ($($name:ident = $half:ident),+) => {
        $(#[inline(always)]
        fn $name(self, a: [Floats; 2], b: [Floats; 2]) -> [Floats; 2] {
            [self.$half(a[0], b[0]), self.$half(a[1], b[1])]
        })+
    };
}

#[allow(unsafe_op_in_unsafe_fn)]
impl<P: Products> Vector for Neon<P> {
    type F = Floats;
    type B = Bytes;
    const BIASED: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Floats {
        // SAFETY: `self` proves the features; so in every method below.
        unsafe { [vdupq_n_f32(x); 2] }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Floats) {
        vst1q_f32(p, x[0]);
        vst1q_f32(p.add(4), x[1]);
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Floats {
        each!(2; i => vcvt_f32_f16(p.add(4 * i).cast::<float16x4_t>().read_unaligned()))
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> Floats {
        let wide = vmovl_u8(vld1_u8(p));
        [
            vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))),
            vcvtq_f32_u32(vmovl_high_u16(wide)),
        ]
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const u8) -> Floats {
        let wide = vmovl_s8(vld1_s8(p.cast()));
        [
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))),
            vcvtq_f32_s32(vmovl_high_s16(wide)),
        ]
    }
    by_halves!(sub = vsubq_f32, mul = vmulq_f32);
    #[inline(always)]
    fn fma(self, a: Floats, b: Floats, c: Floats) -> Floats {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => vfmaq_f32(c[i], a[i], b[i])) }
    }

    #[inline(always)]
    unsafe fn load_b(self, p: *const u8) -> Bytes {
        [vld1q_u8(p), vld1q_u8(p.add(16))]
    }
    #[inline(always)]
    fn and_b(self, a: Bytes, mask: u8) -> Bytes {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => vandq_u8(a[i], vdupq_n_u8(mask))) }
    }
    #[inline(always)]
    fn or_b(self, a: Bytes, b: Bytes) -> Bytes {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => vorrq_u8(a[i], b[i])) }
    }
    #[inline(always)]
    fn xor_b(self, a: Bytes, mask: u8) -> Bytes {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => veorq_u8(a[i], vdupq_n_u8(mask))) }
    }
    #[inline(always)]
    fn add_b(self, a: Bytes, x: u8) -> Bytes {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => vaddq_u8(a[i], vdupq_n_u8(x))) }
    }
    #[inline(always)]
    fn shl<const N: i32>(self, a: Bytes) -> Bytes {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => vreinterpretq_u8_u16(vshlq_n_u16::<N>(vreinterpretq_u16_u8(a[i])))) }
    }
    #[inline(always)]
    fn shr<const N: i32>(self, a: Bytes) -> Bytes {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => vreinterpretq_u8_u16(vshrq_n_u16::<N>(vreinterpretq_u16_u8(a[i])))) }
    }
    #[inline(always)]
    fn lookup(self, table: &[i8; 16], a: Bytes) -> Bytes {
        // SAFETY: see `splat`; the table has the 16 bytes that are read.
        unsafe {
            let table = vld1q_u8(table.as_ptr().cast());
            each!(2; i => vqtbl1q_u8(table, a[i]))
        }
    }

    #[inline(always)]
    unsafe fn dot<const SIGNED: bool, const DEPTH: usize>(
        self,
        w: &[Bytes; 4],
        a: *const i8,
    ) -> Floats {
        // Unsigned codes have to be the same when they are read as signed: those that may be summed in 16 bits are below 128.
        const { assert!(SIGNED || DEPTH >= 2) };
        let a = vld1q_s8(a);
        let sums: [int32x4_t; 2] =
            each!(2; i => P::dot(each!(4; step => vreinterpretq_s8_u8(w[step][i])), a));
        self.to_f32(sums)
    }
}

#[allow(unsafe_op_in_unsafe_fn)]
impl<P: Products> Simd for Neon<P> {
    type A = [int32x4_t; 2];
    type W = [Floats; 2];
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Floats {
        [vld1q_f32(p), vld1q_f32(p.add(4))]
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, x: Floats) {
        let halves: [float16x4_t; 2] = each!(2; i => vcvt_f16_f32(x[i]));
        p.cast::<[float16x4_t; 2]>().write_unaligned(halves);
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Floats {
        let halves = vld1q_u16(p);
        [
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(halves))),
            vreinterpretq_f32_u32(vshll_high_n_u16::<16>(halves)),
        ]
    }
    by_halves!(add = vaddq_f32, div = vdivq_f32);
    by_halves!(max = larger, min = smaller);
    #[inline(always)]
    fn abs(self, a: Floats) -> Floats {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => vabsq_f32(a[i])) }
    }
    #[inline(always)]
    fn round(self, a: Floats) -> Floats {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => vrndnq_f32(a[i])) }
    }
    #[inline(always)]
    fn splat_16(self, x: f32) -> [Floats; 2] {
        [self.splat(x); 2]
    }
    #[inline(always)]
    unsafe fn load_16(self, p: *const f32) -> [Floats; 2] {
        [self.load(p), self.load(p.add(8))]
    }
    #[inline(always)]
    unsafe fn store_16(self, p: *mut f32, x: [Floats; 2]) {
        self.store(p, x[0]);
        self.store(p.add(8), x[1]);
    }
    #[inline(always)]
    unsafe fn load_f16_16(self, p: *const u16) -> [Floats; 2] {
        [self.load_f16(p), self.load_f16(p.add(8))]
    }
    #[inline(always)]
    unsafe fn load_i4(self, p: *const u8, half: usize) -> [Floats; 2] {
        let bytes = vshlq_u8(vld1q_u8(p), vdupq_n_s8(-4 * half as i8));
        let codes = vsubq_u8(vandq_u8(bytes, vdupq_n_u8(15)), vdupq_n_u8(8));
        let codes = vreinterpretq_s8_u8(codes);
        let wide = [vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes)];
        each!(2; i => [
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide[i]))),
            vcvtq_f32_s32(vmovl_high_s16(wide[i])),
        ])
    }
    by_vectors!(add_16 = add, sub_16 = sub, mul_16 = mul);
    by_vectors!(div_16 = div, max_16 = max, min_16 = min);
    #[inline(always)]
    fn to_exponent_16(self, a: [Floats; 2]) -> [Floats; 2] {
        // SAFETY: see `splat`.
        unsafe {
            each!(2; h => each!(2; i =>
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(vreinterpretq_s32_f32(a[h][i])))))
        }
    }
    #[inline(always)]
    fn join(self, halves: [Floats; 2]) -> [Floats; 2] {
        halves
    }
    #[inline(always)]
    fn fma_16(self, a: [Floats; 2], b: [Floats; 2], c: [Floats; 2]) -> [Floats; 2] {
        [self.fma(a[0], b[0], c[0]), self.fma(a[1], b[1], c[1])]
    }
    #[inline(always)]
    fn halves(self, a: [Floats; 2]) -> [Floats; 2] {
        a
    }

    #[inline(always)]
    fn sum(self, a: Floats) -> f32 {
        // SAFETY: see `splat`.
        unsafe {
            let x = vaddq_f32(a[0], a[1]);
            vaddv_f32(vadd_f32(vget_low_f32(x), vget_high_f32(x)))
        }
    }
    #[inline(always)]
    fn largest(self, a: Floats) -> f32 {
        // SAFETY: see `splat`.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(a[0], a[1])) }
    }
    #[inline(always)]
    fn max_each(self, v: &[Floats; 8]) -> Floats {
        // SAFETY: see `splat`.
        unsafe {
            let largest: [float32x4_t; 8] = each!(8; i => vmaxq_f32(v[i][0], v[i][1]));
            let pairs: [float32x4_t; 4] =
                each!(4; i => vpmaxq_f32(largest[2 * i], largest[2 * i + 1]));
            each!(2; i => vpmaxq_f32(pairs[2 * i], pairs[2 * i + 1]))
        }
    }
    #[inline(always)]
    fn sum_each(self, v: &[Floats; 8]) -> Floats {
        // SAFETY: see `splat`.
        unsafe {
            let sums: [float32x4_t; 8] = each!(8; i => vaddq_f32(v[i][0], v[i][1]));
            let pairs: [float32x4_t; 4] = each!(4; i => vpaddq_f32(sums[2 * i], sums[2 * i + 1]));
            each!(2; i => vpaddq_f32(pairs[2 * i], pairs[2 * i + 1]))
        }
    }
    #[inline(always)]
    fn max_bits(self, a: Floats, b: Floats) -> Floats {
        // SAFETY: see `splat`.
        unsafe {
            each!(2; i => vreinterpretq_f32_u32(vmaxq_u32(
                vreinterpretq_u32_f32(a[i]),
                vreinterpretq_u32_f32(b[i]),
            )))
        }
    }
    #[inline(always)]
    fn largest_each(self, v: &[Floats; 8]) -> Floats {
        // SAFETY: see `splat`.
        unsafe {
            let largest: [uint32x4_t; 8] = each!(8; i => vmaxq_u32(
                vreinterpretq_u32_f32(v[i][0]),
                vreinterpretq_u32_f32(v[i][1]),
            ));
            let pairs: [uint32x4_t; 4] =
                each!(4; i => vpmaxq_u32(largest[2 * i], largest[2 * i + 1]));
            each!(2; i => vreinterpretq_f32_u32(vpmaxq_u32(pairs[2 * i], pairs[2 * i + 1])))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, v: &[Floats; 4]) -> [Floats; 2] {
        let wide: [[int32x4_t; 2]; 4] = each!(4; i => rounded(v[i]));
        for half in 0..2 {
            let [first, second] = [narrowed(wide[2 * half]), narrowed(wide[2 * half + 1])];
            vst1q_s8(p.add(16 * half), vqmovn_high_s16(vqmovn_s16(first), second));
        }
        each!(2; half => self.to_f32(
            each!(2; i => vaddq_s32(wide[2 * half][i], wide[2 * half + 1][i]))
        ))
    }

    #[inline(always)]
    unsafe fn store_b(self, p: *mut u8, x: Bytes) {
        vst1q_u8(p, x[0]);
        vst1q_u8(p.add(16), x[1]);
    }
    #[inline(always)]
    fn to_f32(self, a: [int32x4_t; 2]) -> Floats {
        // SAFETY: see `splat`.
        unsafe { each!(2; i => vcvtq_f32_s32(a[i])) }
    }

    #[inline(always)]
    fn widen<const SIGNED: bool>(self, a: Bytes) -> [Bytes; 2] {
        // SAFETY: see `splat`.
        unsafe {
            // Two rows in each vector: two columns are 32 bits of it.
            let rows: [[uint32x4_t; 2]; 2] = each!(2; i => if SIGNED {
                let a = vreinterpretq_s8_u8(a[i]);
                [
                    vreinterpretq_u32_s16(vmovl_s8(vget_low_s8(a))),
                    vreinterpretq_u32_s16(vmovl_high_s8(a)),
                ]
            } else {
                [
                    vreinterpretq_u32_u16(vmovl_u8(vget_low_u8(a[i]))),
                    vreinterpretq_u32_u16(vmovl_high_u8(a[i])),
                ]
            });
            [
                each!(2; i => vreinterpretq_u8_u32(vuzp1q_u32(rows[i][0], rows[i][1]))),
                each!(2; i => vreinterpretq_u8_u32(vuzp2q_u32(rows[i][0], rows[i][1]))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn pair(self, p: *const i16) -> Bytes {
        [vreinterpretq_u8_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned())); 2]
    }
    #[inline(always)]
    fn zero(self) -> [int32x4_t; 2] {
        // SAFETY: see `splat`.
        unsafe { [vdupq_n_s32(0); 2] }
    }
    #[inline(always)]
    fn add_pair(self, acc: [int32x4_t; 2], w: Bytes, a: Bytes) -> [int32x4_t; 2] {
        // SAFETY: see `splat`.
        unsafe {
            each!(2; i => {
                let (w, a) = (vreinterpretq_s16_u8(w[i]), vreinterpretq_s16_u8(a[i]));
                let first = vmull_s16(vget_low_s16(w), vget_low_s16(a));
                vaddq_s32(acc[i], vpaddq_s32(first, vmull_high_s16(w, a)))
            })
        }
    }
    #[inline(always)]
    unsafe fn store_i16(self, p: *mut i16, v: &[Floats; 2]) -> Floats {
        let wide: [[int32x4_t; 2]; 2] = each!(2; i => rounded(v[i]));
        for i in 0..2 {
            vst1q_s16(p.add(8 * i), narrowed(wide[i]));
        }
        self.to_f32(each!(2; i => vaddq_s32(wide[0][i], wide[1][i])))
    }
}

/// The second of the two where either is not a number, as in the other tiers.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(a, b), a, b)
}

#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn smaller(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcltq_f32(a, b), a, b)
}

/// The nearest integers, ties to even.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn rounded(a: Floats) -> [int32x4_t; 2] {
    each!(2; i => vcvtnq_s32_f32(a[i]))
}

/// In 16 bits.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn narrowed(a: [int32x4_t; 2]) -> int16x8_t {
    vqmovn_high_s32(vqmovn_s32(a[0]), a[1])
}
