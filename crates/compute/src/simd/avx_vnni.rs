//! AVX-VNNI: as AVX2, and one instruction multiplies 8 rows by 4 columns and adds in 32 bits. For processors that have it
//! without AVX-512 (Alder Lake and later).

use super::avx2::{avx2_fold_each, avx2_operations, avx2_pairs, broadcast4, max_bits};
use super::{Kernel, Simd, each};
use std::arch::x86_64::*;

/// Permission to use AVX2, FMA, F16C and AVX-VNNI.
#[derive(Clone, Copy)]
pub(crate) struct AvxVnni(());

/// Runs `kernel` with AVX-VNNI.
///
/// # Safety
/// The processor has these features.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(AvxVnni(()))
}

#[allow(unsafe_op_in_unsafe_fn)]
impl Simd for AvxVnni {
    const BIASED: bool = true;
    const TILE: usize = 4;
    avx2_operations!();
    avx2_pairs!();

    #[inline(always)]
    fn add_pair(self, acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_dpwssd_avx_epi32(acc, w, a) }
    }

    #[inline(always)]
    unsafe fn dot_unsigned<const DEPTH: usize>(self, w: &[__m256i; 4], a: *const i8) -> __m256i {
        let mut sum = _mm256_setzero_si256();
        for (step, &w) in w.iter().enumerate() {
            sum = _mm256_dpbusd_avx_epi32(sum, w, broadcast4(a, step));
        }
        sum
    }

    #[inline(always)]
    unsafe fn dot_signed(self, w: &[__m256i; 4], a: *const i8) -> __m256i {
        // Signed codes arrive biased on this tier; this stays correct for any caller.
        let mut sum = _mm256_setzero_si256();
        for (step, &w) in w.iter().enumerate() {
            let a = broadcast4(a, step);
            sum = _mm256_dpbusd_avx_epi32(sum, _mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
        }
        sum
    }
}
