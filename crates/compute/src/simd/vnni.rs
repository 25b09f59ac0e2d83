//! AVX-512 VNNI: one instruction multiplies 8 rows by 4 columns and adds in 32 bits. Kernels are written over 256-bit vectors; the
//! register tiles of products (`avx512_tile.rs`) and of attention ([`Simd::W`]) take 512.

use super::avx2::{
    avx2_fold_each, avx2_operations, avx2_vectors, broadcast4, max_bits, vnni_products,
};
use super::{Kernel, SHIFT, Simd, Tile, TileKind, Vector, avx512_tile, avx512_wide, each};
use std::arch::x86_64::*;

/// Permission to use AVX2, FMA, F16C and AVX-512 F, BW, VL and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vnni(());

/// Runs `kernel` with AVX-512 VNNI.
///
/// # Safety
/// The processor has these features.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512Vnni(()))
}

/// Operations on two vectors of 16 `f32`.
macro_rules! avx512_operations {
    ($($name:ident = $instruction:ident),+) => {
        $(#[inline(always)]
        fn $name(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: see `splat_16`.
            unsafe { $instruction(a, b) }
        })+
    };
}

#[allow(unsafe_op_in_unsafe_fn)]
impl Vector for Avx512Vnni {
    const BIASED: bool = true;
    avx2_vectors!();
    vnni_products!(bytes: _mm256_dpbusd_epi32);
}

#[allow(unsafe_op_in_unsafe_fn)]
impl Simd for Avx512Vnni {
    const TILES: bool = true;
    const TILE_PANELS: usize = 4;
    const WIDE_TILE: usize = 8;
    const ROWS: usize = 12;
    type W = __m512;
    avx2_operations!();

    #[inline(always)]
    fn splat_16(self, x: f32) -> __m512 {
        // SAFETY: `self` proves the features; so in every method below.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_16(self, p: *const f32) -> __m512 {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store_16(self, p: *mut f32, x: __m512) {
        _mm512_storeu_ps(p, x);
    }
    #[inline(always)]
    unsafe fn load_f16_16(self, p: *const u16) -> __m512 {
        // In this form the load is a part of the instruction.
        _mm512_cvt_roundph_ps::<_MM_FROUND_CUR_DIRECTION>(_mm256_loadu_si256(p.cast()))
    }
    #[inline(always)]
    unsafe fn load_i4(self, p: *const u8, half: usize) -> __m512 {
        let numbers = _mm512_setr_ps(
            -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
        );
        // An index is the lowest 4 bits.
        let index = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
        let index = _mm512_srl_epi32(index, _mm_cvtsi32_si128(4 * half as i32));
        _mm512_permutexvar_ps(index, numbers)
    }
    avx512_operations!(add_16 = _mm512_add_ps, sub_16 = _mm512_sub_ps);
    avx512_operations!(mul_16 = _mm512_mul_ps);
    /// A rough reciprocal, made exact in two steps: divisions of such vectors are slow.
    #[inline(always)]
    fn div_16(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat_16`.
        unsafe {
            let rough = _mm512_rcp14_ps(b);
            let error = _mm512_fnmadd_ps(b, rough, _mm512_set1_ps(1.0));
            let inverse = _mm512_fmadd_ps(rough, error, rough);
            let quotient = _mm512_mul_ps(a, inverse);
            let rest = _mm512_fnmadd_ps(quotient, b, a);
            _mm512_fmadd_ps(rest, inverse, quotient)
        }
    }
    avx512_operations!(max_16 = _mm512_max_ps, min_16 = _mm512_min_ps);
    #[inline(always)]
    fn to_exponent_16(self, a: __m512) -> __m512 {
        // SAFETY: see `splat_16`.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a))) }
    }
    #[inline(always)]
    fn join(self, halves: [__m256; 2]) -> __m512 {
        // SAFETY: see `splat_16`.
        unsafe {
            let first = _mm512_castps_pd(_mm512_castps256_ps512(halves[0]));
            let second = _mm256_castps_pd(halves[1]);
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(first, second))
        }
    }
    #[inline(always)]
    fn fma_16(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see `splat_16`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn halves(self, a: __m512) -> [__m256; 2] {
        // SAFETY: see `splat_16`.
        unsafe {
            let second = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a));
            [_mm512_castps512_ps256(a), _mm256_castpd_ps(second)]
        }
    }

    #[inline(always)]
    unsafe fn tile(self, kind: TileKind, tile: &Tile) {
        match kind {
            TileKind::Whole { offset: true } => avx512_tile::whole_with_offset(tile),
            TileKind::Whole { offset: false } | TileKind::Signed => avx512_tile::whole(tile),
            TileKind::Halves { offset: true } => avx512_tile::halves_with_offset(tile),
            TileKind::Halves { offset: false } => avx512_tile::halves(tile),
        }
    }

    #[inline(always)]
    unsafe fn wide_tile(self, tile: &Tile) {
        avx512_wide::signed(tile)
    }

    vnni_products!(words: _mm256_dpwssd_epi32);
}
