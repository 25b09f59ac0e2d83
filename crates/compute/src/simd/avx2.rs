//! AVX2, FMA and F16C: 256-bit vectors, exact int8 products through `vpmaddubsw`.

use super::{Kernel, Simd, Tile, TileKind, Vector, avx2_tile, avx2_wide, each};
use std::arch::x86_64::*;

/// Permission to use AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Runs `kernel` with AVX2, FMA and F16C.
///
/// # Safety
/// The processor has these features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// The vector operations that AVX2 and every tier above it share, spelled once.
macro_rules! avx2_vectors {
    () => {
        type F = __m256;
        type B = __m256i;

        #[inline(always)]
        fn splat(self, x: f32) -> __m256 {
            // SAFETY: `self` proves the features; so in every method below.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32, x: __m256) {
            _mm256_storeu_ps(p, x);
        }
        #[inline(always)]
        unsafe fn load_f16(self, p: *const u16) -> __m256 {
            _mm256_cvtph_ps(_mm_loadu_si128(p.cast()))
        }
        #[inline(always)]
        unsafe fn load_u8(self, p: *const u8) -> __m256 {
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())))
        }
        #[inline(always)]
        unsafe fn load_i8(self, p: *const u8) -> __m256 {
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())))
        }
        #[inline(always)]
        fn sub(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn prefetch(self, p: *const u8) {
            // SAFETY: a prefetch reads nothing that the program sees, from whatever address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        fn prefetch_far(self, p: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn load_b(self, p: *const u8) -> __m256i {
            _mm256_loadu_si256(p.cast())
        }
        #[inline(always)]
        fn and_b(self, a: __m256i, mask: u8) -> __m256i {
            // SAFETY: see `splat`.
            unsafe { _mm256_and_si256(a, _mm256_set1_epi8(mask as i8)) }
        }
        #[inline(always)]
        fn or_b(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: see `splat`.
            unsafe { _mm256_or_si256(a, b) }
        }
        #[inline(always)]
        fn xor_b(self, a: __m256i, mask: u8) -> __m256i {
            // SAFETY: see `splat`.
            unsafe { _mm256_xor_si256(a, _mm256_set1_epi8(mask as i8)) }
        }
        #[inline(always)]
        fn add_b(self, a: __m256i, x: u8) -> __m256i {
            // SAFETY: see `splat`.
            unsafe { _mm256_add_epi8(a, _mm256_set1_epi8(x as i8)) }
        }
        #[inline(always)]
        fn shl<const N: i32>(self, a: __m256i) -> __m256i {
            // SAFETY: see `splat`.
            unsafe { _mm256_slli_epi16::<N>(a) }
        }
        #[inline(always)]
        fn shr<const N: i32>(self, a: __m256i) -> __m256i {
            // SAFETY: see `splat`.
            unsafe { _mm256_srli_epi16::<N>(a) }
        }
        #[inline(always)]
        fn lookup(self, table: &[i8; 16], a: __m256i) -> __m256i {
            // SAFETY: see `splat`; the table has the 16 bytes that are read.
            unsafe {
                _mm256_shuffle_epi8(
                    _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())),
                    a,
                )
            }
        }
    };
}
pub(super) use avx2_vectors;

/// The other operations that they share.
macro_rules! avx2_operations {
    () => {
        type A = __m256i;
        #[inline(always)]
        unsafe fn load(self, p: *const f32) -> __m256 {
            _mm256_loadu_ps(p)
        }
        #[inline(always)]
        unsafe fn store_f16(self, p: *mut u16, x: __m256) {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
        }
        #[inline(always)]
        unsafe fn load_bf16(self, p: *const u16) -> __m256 {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        fn max(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        fn min(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        fn abs(self, a: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        }
        #[inline(always)]
        fn round(self, a: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn sum(self, a: __m256) -> f32 {
            // SAFETY: see `splat`.
            unsafe {
                let x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
            }
        }
        #[inline(always)]
        fn largest(self, a: __m256) -> f32 {
            // SAFETY: see `splat`.
            unsafe {
                let x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
            }
        }
        #[inline(always)]
        fn max_each(self, v: &[__m256; 8]) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { avx2_fold_each!(v, _mm256_max_ps) }
        }
        #[inline(always)]
        fn sum_each(self, v: &[__m256; 8]) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { avx2_fold_each!(v, _mm256_add_ps) }
        }
        #[inline(always)]
        fn max_bits(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { max_bits(a, b) }
        }
        #[inline(always)]
        fn largest_each(self, v: &[__m256; 8]) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { avx2_fold_each!(v, max_bits) }
        }
        #[inline(always)]
        unsafe fn store_i8(self, p: *mut i8, v: &[__m256; 4]) -> [__m256; 2] {
            let wide: [__m256i; 4] = each!(4; i => _mm256_cvtps_epi32(v[i]));
            let first = _mm256_packs_epi32(wide[0], wide[1]);
            let second = _mm256_packs_epi32(wide[2], wide[3]);
            // Packing goes by 16-byte lanes: put the 4 columns of each in order.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let codes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), order);
            _mm256_storeu_si256(p.cast(), codes);
            [
                _mm256_cvtepi32_ps(_mm256_add_epi32(wide[0], wide[1])),
                _mm256_cvtepi32_ps(_mm256_add_epi32(wide[2], wide[3])),
            ]
        }
        #[inline(always)]
        unsafe fn store_b(self, p: *mut u8, x: __m256i) {
            _mm256_storeu_si256(p.cast(), x);
        }

        #[inline(always)]
        fn to_f32(self, a: __m256i) -> __m256 {
            // SAFETY: see `splat`.
            unsafe { _mm256_cvtepi32_ps(a) }
        }

        #[inline(always)]
        fn widen<const SIGNED: bool>(self, a: __m256i) -> [__m256i; 2] {
            // SAFETY: see `splat`.
            unsafe {
                // Each byte into the upper half of 16 bits, and from there down.
                let first = _mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13);
                let second =
                    _mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15);
                let first = _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(first));
                let second = _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(second));
                if SIGNED {
                    [
                        _mm256_srai_epi16::<8>(first),
                        _mm256_srai_epi16::<8>(second),
                    ]
                } else {
                    [
                        _mm256_srli_epi16::<8>(first),
                        _mm256_srli_epi16::<8>(second),
                    ]
                }
            }
        }
        #[inline(always)]
        unsafe fn pair(self, p: *const i16) -> __m256i {
            _mm256_set1_epi32(p.cast::<i32>().read_unaligned())
        }
        #[inline(always)]
        fn zero(self) -> __m256i {
            // SAFETY: see `splat`.
            unsafe { _mm256_setzero_si256() }
        }
        #[inline(always)]
        unsafe fn store_i16(self, p: *mut i16, v: &[__m256; 2]) -> __m256 {
            let wide = [_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1])];
            let codes = _mm256_packs_epi32(wide[0], wide[1]);
            _mm256_storeu_si256(p.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(codes));
            _mm256_cvtepi32_ps(_mm256_add_epi32(wide[0], wide[1]))
        }
    };
}
pub(super) use avx2_operations;

/// Operations on 16 `f32` as two vectors.
macro_rules! avx2_pairs {
    () => {
        type W = [__m256; 2];
        const ROWS: usize = 6;

        #[inline(always)]
        fn splat_16(self, x: f32) -> [__m256; 2] {
            [self.splat(x); 2]
        }
        #[inline(always)]
        unsafe fn load_16(self, p: *const f32) -> [__m256; 2] {
            [self.load(p), self.load(p.add(8))]
        }
        #[inline(always)]
        unsafe fn store_16(self, p: *mut f32, x: [__m256; 2]) {
            self.store(p, x[0]);
            self.store(p.add(8), x[1]);
        }
        #[inline(always)]
        unsafe fn load_f16_16(self, p: *const u16) -> [__m256; 2] {
            [self.load_f16(p), self.load_f16(p.add(8))]
        }
        #[inline(always)]
        unsafe fn load_i4(self, p: *const u8, half: usize) -> [__m256; 2] {
            let bytes = _mm_srl_epi16(
                _mm_loadu_si128(p.cast()),
                _mm_cvtsi32_si128(4 * half as i32),
            );
            let codes = _mm_and_si128(bytes, _mm_set1_epi8(15));
            let codes = _mm_sub_epi8(codes, _mm_set1_epi8(8));
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes))),
            ]
        }
        avx2_pairs!(add_16 = add, sub_16 = sub, mul_16 = mul);
        avx2_pairs!(div_16 = div, max_16 = max, min_16 = min);
        #[inline(always)]
        fn fma_16(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            [self.fma(a[0], b[0], c[0]), self.fma(a[1], b[1], c[1])]
        }
        #[inline(always)]
        fn to_exponent_16(self, a: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: see `splat`.
            unsafe {
                each!(2; h => _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a[h]))))
            }
        }
        #[inline(always)]
        fn join(self, halves: [__m256; 2]) -> [__m256; 2] {
            halves
        }
        #[inline(always)]
        fn halves(self, a: [__m256; 2]) -> [__m256; 2] {
            a
        }
    };
    ($($name:ident = $half:ident),+) => {
        $(#[inline(always)]
        fn $name(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [self.$half(a[0], b[0]), self.$half(a[1], b[1])]
        })+
    };
}
pub(super) use avx2_pairs;

/// The products of tiers with dot product instructions: `$words` multiplies 16-bit numbers, `$bytes` unsigned by signed bytes.
macro_rules! vnni_products {
    (words: $words:ident) => {
        #[inline(always)]
        fn add_pair(self, acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
            // SAFETY: `self` proves the features.
            unsafe { $words(acc, w, a) }
        }
    };
    (bytes: $bytes:ident) => {
        #[inline(always)]
        unsafe fn dot<const SIGNED: bool, const DEPTH: usize>(
            self,
            w: &[__m256i; 4],
            a: *const i8,
        ) -> __m256 {
            let mut sum = _mm256_castps_si256(_mm256_set1_ps(SHIFT));
            for (step, &w) in w.iter().enumerate() {
                sum = $bytes(sum, w, broadcast4(a, step));
            }
            _mm256_castsi256_ps(sum)
        }
    };
}
pub(super) use vnni_products;

/// The lanes of each of 8 vectors put together by `$fold`.
macro_rules! avx2_fold_each {
    ($v:ident, $fold:path) => {{
        let pairs: [__m256; 4] = each!(4; i => $fold(
            _mm256_unpacklo_ps($v[2 * i], $v[2 * i + 1]),
            _mm256_unpackhi_ps($v[2 * i], $v[2 * i + 1]),
        ));
        let fours: [__m256; 2] = each!(2; i => $fold(
            _mm256_shuffle_ps::<0b01_00_01_00>(pairs[2 * i], pairs[2 * i + 1]),
            _mm256_shuffle_ps::<0b11_10_11_10>(pairs[2 * i], pairs[2 * i + 1]),
        ));
        $fold(
            _mm256_permute2f128_ps::<0x20>(fours[0], fours[1]),
            _mm256_permute2f128_ps::<0x31>(fours[0], fours[1]),
        )
    }};
}
pub(super) use avx2_fold_each;

/// See [`Simd::max_bits`].
#[inline(always)]
pub(super) unsafe fn max_bits(a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
        _mm256_castsi256_ps(_mm256_max_epi32(a, b))
    }
}

/// 4 activations, repeated for each of the 8 rows.
#[inline(always)]
pub(super) unsafe fn broadcast4(a: *const i8, step: usize) -> __m256i {
    // SAFETY: the caller has 4 bytes there.
    unsafe { _mm256_set1_epi32(a.add(4 * step).cast::<i32>().read_unaligned()) }
}

#[allow(unsafe_op_in_unsafe_fn)]
impl Vector for Avx2 {
    const BIASED: bool = false;
    avx2_vectors!();

    #[inline(always)]
    unsafe fn dot<const SIGNED: bool, const DEPTH: usize>(
        self,
        w: &[__m256i; 4],
        a: *const i8,
    ) -> __m256 {
        self.to_f32(match SIGNED {
            true => dot_signed(w, a),
            false => dot_unsigned::<DEPTH>(w, a),
        })
    }
}

#[allow(unsafe_op_in_unsafe_fn)]
impl Simd for Avx2 {
    const TILES: bool = true;
    avx2_operations!();
    avx2_pairs!();

    #[inline(always)]
    unsafe fn tile(self, kind: TileKind, tile: &Tile) {
        match kind {
            TileKind::Whole { .. } => avx2_tile::whole(tile),
            TileKind::Halves { .. } => avx2_tile::halves(tile),
            TileKind::Signed => avx2_tile::signed(tile),
        }
    }

    #[inline(always)]
    unsafe fn wide_tile(self, tile: &Tile) {
        avx2_wide::signed(tile)
    }

    #[inline(always)]
    fn add_pair(self, acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // SAFETY: see `splat`.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(w, a)) }
    }
}

/// See [`Vector::dot`].
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn dot_unsigned<const DEPTH: usize>(w: &[__m256i; 4], a: *const i8) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_si256();
    let mut step = 0;
    while step < 4 {
        let mut pairs = _mm256_maddubs_epi16(w[step], broadcast4(a, step));
        let end = if step + DEPTH < 4 { step + DEPTH } else { 4 };
        let mut i = step + 1;
        while i < end {
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[i], broadcast4(a, i)));
            i += 1;
        }
        let quads = _mm256_madd_epi16(pairs, ones);
        sum = if step == 0 {
            quads
        } else {
            _mm256_add_epi32(sum, quads)
        };
        step = end;
    }
    sum
}

/// See [`Vector::dot`].
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn dot_signed(w: &[__m256i; 4], a: *const i8) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_si256();
    for (step, &w) in w.iter().enumerate() {
        // |w| <= 128 and |a| <= 127, so that a pair of products is at most 32512: no saturation.
        let pairs =
            _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(broadcast4(a, step), w));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    sum
}
