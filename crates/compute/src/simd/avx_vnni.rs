//! AVX-VNNI: as AVX2, and one instruction multiplies 8 rows by 4 columns and adds in 32 bits. For processors that have it
//! without AVX-512 (Alder Lake and later).

use super::avx2::{
    avx2_fold_each, avx2_operations, avx2_pairs, avx2_vectors, broadcast4, max_bits, vnni_products,
};
use super::{Kernel, SHIFT, Simd, Vector, each};
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
impl Vector for AvxVnni {
    const BIASED: bool = true;
    avx2_vectors!();
    vnni_products!(bytes: _mm256_dpbusd_avx_epi32);
}

#[allow(unsafe_op_in_unsafe_fn)]
impl Simd for AvxVnni {
    avx2_operations!();
    avx2_pairs!();
    vnni_products!(words: _mm256_dpwssd_avx_epi32);
}
