//! What the processor can do at most: reading memory, and multiplying in registers.

use std::hint::black_box;
use std::time::Instant;

use dunlin_compute::{Pool, Tier};
use memmap2::MmapMut;

/// Bytes of memory that are read: more than the third-level cache of any processor of two sockets or fewer.
const BYTES: usize = 768 << 20;
/// Bytes that a thread takes at a time: long enough to stream, short enough to share evenly.
const PIECE: usize = 1 << 20;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Memory to read, in large pages as weights are, every page of it touched.
pub(crate) fn memory() -> MmapMut {
    let mut memory = MmapMut::map_anon(BYTES).unwrap();
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    memory.fill(1);
    memory
}

/// Bytes per second of all threads that only read. A word of each line is enough: lines are what memory gives.
pub(crate) fn read(pool: &Pool, memory: &[u8]) -> f64 {
    let start = Instant::now();
    pool.for_each(memory.len() / PIECE, 1, |piece| {
        let (lines, _) = memory[piece * PIECE..][..PIECE].as_chunks::<LINE>();
        let sum: u32 = lines.iter().map(|line| u32::from(line[0])).sum();
        black_box(sum);
    });
    memory.len() as f64 / start.elapsed().as_secs_f64()
}

/// A loop of the instructions that a product of this kind cannot do without, with all operands in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// Unsigned codes below 16: the products of 8 `maddubs` are summed in 16 bits before they are widened.
    Maddubs8,
    /// Codes below 32: of 4.
    Maddubs4,
    /// Codes below 64: of 2.
    Maddubs2,
    /// Signed codes of 8 bits: the sign goes to the other operand, and each product is widened by itself.
    MaddubsSigned,
    /// Any codes: one instruction of AVX-512 VNNI multiplies 64 bytes and sums them in 32 bits.
    Dot,
    /// Floats, 8 at a time.
    Fma,
}

/// Rounds of a loop that one item of the pool runs.
const ROUNDS: usize = 100_000;
/// Items for each thread: enough to even out a busy neighbour.
const ITEMS: usize = 8;

impl Limit {
    /// The limit of kernels of this tier.
    pub(crate) fn on(self, tier: Tier) -> Self {
        match (self, tier.name()) {
            (Limit::Fma, _) => self,
            (_, "avx512-vnni") => Limit::Dot,
            _ => self,
        }
    }

    /// Multiply-accumulates per second of all threads; `None` on processors without the instructions.
    pub(crate) fn measure(self, pool: &Pool) -> Option<f64> {
        #[cfg(target_arch = "x86_64")]
        if self.can_run() {
            let items = pool.threads() * ITEMS;
            let start = Instant::now();
            // SAFETY: the processor has the instructions.
            pool.for_each(items, 1, |_| unsafe { self.run() });
            let seconds = start.elapsed().as_secs_f64();
            return Some((items * ROUNDS * self.work()) as f64 / seconds);
        }
        let _ = pool;
        None
    }

    #[cfg(target_arch = "x86_64")]
    fn can_run(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        match self {
            Limit::Dot => has!("avx512f") && has!("avx512vnni"),
            _ => has!("avx2") && has!("fma"),
        }
    }

    /// Multiply-accumulates of a round.
    #[cfg(target_arch = "x86_64")]
    fn work(self) -> usize {
        let of_codes = |deep: usize| 32 * deep * x86::CODE_SUMS;
        match self {
            Limit::Maddubs8 => of_codes(8),
            Limit::Maddubs4 => of_codes(4),
            Limit::Maddubs2 => of_codes(2),
            Limit::MaddubsSigned => of_codes(1),
            Limit::Dot => 64 * x86::DOT_SUMS,
            Limit::Fma => 8 * x86::FLOAT_SUMS,
        }
    }

    /// # Safety
    /// The processor has the instructions ([`Limit::can_run`]).
    #[cfg(target_arch = "x86_64")]
    unsafe fn run(self) {
        // SAFETY: promised by the caller.
        unsafe {
            match self {
                Limit::Maddubs8 => x86::maddubs::<8>(),
                Limit::Maddubs4 => x86::maddubs::<4>(),
                Limit::Maddubs2 => x86::maddubs::<2>(),
                Limit::MaddubsSigned => x86::maddubs_signed(),
                Limit::Dot => x86::dot(),
                Limit::Fma => x86::fma(),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ROUNDS, black_box};
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// Independent sums, enough to hide the latency of an instruction.
    pub(super) const CODE_SUMS: usize = 8;
    pub(super) const FLOAT_SUMS: usize = 12;
    pub(super) const DOT_SUMS: usize = 16;

    /// The same value, of which the compiler no longer knows that it is: nothing is computed once instead of often.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn unknown(mut value: __m256i) -> __m256i {
        // SAFETY: the text is a comment: nothing is read, written or changed.
        unsafe {
            asm!("/* {0} */", inout(ymm_reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn maddubs<const DEEP: usize>() {
        let mut codes = _mm256_set1_epi8(3);
        let (input, ones) = (_mm256_set1_epi8(2), _mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); CODE_SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                codes = unknown(codes);
                let mut words = _mm256_maddubs_epi16(codes, input);
                for _ in 1..DEEP {
                    codes = unknown(codes);
                    words = _mm256_add_epi16(words, _mm256_maddubs_epi16(codes, input));
                }
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(words, ones));
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn maddubs_signed() {
        let mut codes = _mm256_set1_epi8(3);
        let (input, ones) = (_mm256_set1_epi8(-2), _mm256_set1_epi16(1));
        let magnitudes = _mm256_abs_epi8(codes);
        let mut sums = [_mm256_setzero_si256(); CODE_SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                codes = unknown(codes);
                let signed = _mm256_sign_epi8(input, codes);
                let words = _mm256_maddubs_epi16(magnitudes, signed);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(words, ones));
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn dot() {
        let (codes, input) = (_mm512_set1_epi8(3), _mm512_set1_epi8(-2));
        let mut sums = [_mm512_setzero_si512(); DOT_SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, codes, input);
                // SAFETY: the text is a comment: the compiler only no longer knows the value.
                unsafe {
                    asm!(
                        "/* {0} */",
                        inout(zmm_reg) * sum,
                        options(nomem, nostack, preserves_flags)
                    );
                }
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fma() {
        let mut weights = _mm256_set1_epi32(0x3f80_0000);
        let input = _mm256_set1_ps(0.5);
        let mut sums = [_mm256_setzero_ps(); FLOAT_SUMS];
        for _ in 0..ROUNDS {
            weights = unknown(weights);
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(_mm256_castsi256_ps(weights), input, *sum);
            }
        }
        black_box(sums);
    }
}
