//! AVX-512 VNNI on two panels at once, for products of several tokens: there arithmetic decides, not memory, and a vector of 512
//! bits takes the rows of two panels through each instruction.

use super::{SHIFT, Vector, VectorKernel};
use std::arch::x86_64::*;

/// Permission as [`Avx512Vnni`](super::vnni::Avx512Vnni)'s, and the distance of two panels in bytes.
#[derive(Clone, Copy)]
pub(crate) struct TwoPanels {
    distance: usize,
}

/// Runs `kernel` with AVX-512 VNNI on pairs of panels so many bytes apart.
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn run<K: VectorKernel>(distance: usize, kernel: K) -> K::Output {
    kernel.run(TwoPanels { distance })
}

impl TwoPanels {
    /// 8 bytes of each panel.
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn)]
    unsafe fn load_bytes(self, p: *const u8) -> __m128i {
        let first = _mm_loadl_epi64(p.cast());
        _mm_unpacklo_epi64(first, _mm_loadl_epi64(p.add(self.distance).cast()))
    }
}

#[allow(unsafe_op_in_unsafe_fn)]
impl Vector for TwoPanels {
    type F = __m512;
    type B = __m512i;
    const PANELS: usize = 2;
    const BIASED: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves the features; so in every method below.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: __m512) {
        _mm512_storeu_ps(p, x);
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m512 {
        let first = _mm256_castsi128_si256(_mm_loadu_si128(p.cast()));
        let second = _mm_loadu_si128(p.byte_add(self.distance).cast());
        _mm512_cvtph_ps(_mm256_inserti128_si256::<1>(first, second))
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(self.load_bytes(p)))
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const u8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(self.load_bytes(p)))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch reads nothing that the program sees, from whatever address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(p.cast());
            _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(self.distance).cast());
        }
    }
    #[inline(always)]
    fn prefetch_far(self, p: *const u8) {
        // SAFETY: as above.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(p.cast());
            _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(self.distance).cast());
        }
    }
    #[inline(always)]
    unsafe fn load_b(self, p: *const u8) -> __m512i {
        let first = _mm512_castsi256_si512(_mm256_loadu_si256(p.cast()));
        _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(p.add(self.distance).cast()))
    }
    #[inline(always)]
    fn and_b(self, a: __m512i, mask: u8) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_and_si512(a, _mm512_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    fn or_b(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn xor_b(self, a: __m512i, mask: u8) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_xor_si512(a, _mm512_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    fn add_b(self, a: __m512i, x: u8) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_add_epi8(a, _mm512_set1_epi8(x as i8)) }
    }
    #[inline(always)]
    fn shl<const N: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: see `splat`. The width of a shift has another type here than in the narrower vectors.
        unsafe { _mm512_sll_epi16(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    fn shr<const N: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_srl_epi16(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    fn lookup(self, table: &[i8; 16], a: __m512i) -> __m512i {
        // SAFETY: see `splat`; the table has the 16 bytes that are read.
        unsafe {
            let table = _mm_loadu_si128(table.as_ptr().cast());
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), a)
        }
    }

    #[inline(always)]
    unsafe fn dot<const SIGNED: bool, const DEPTH: usize>(
        self,
        w: &[__m512i; 4],
        a: *const i8,
    ) -> __m512 {
        let mut sum = _mm512_castps_si512(_mm512_set1_ps(SHIFT));
        for (step, &w) in w.iter().enumerate() {
            let a = a.add(4 * step).cast::<i32>().read_unaligned();
            sum = _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(a));
        }
        _mm512_castsi512_ps(sum)
    }
}
