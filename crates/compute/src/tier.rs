//! Which instruction sets the processor has, found once at start-up.

use crate::simd::{Kernel, Portable, VectorKernel};

/// A level of processor support that kernels are built for.
///
/// A tier above [`Tier::PORTABLE`] can only be had from [`Tier::detect`] or [`Tier::available`], so holding one is
/// the permission to run its instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDotprod,
}

impl Tier {
    /// Plain Rust: correct everywhere, and the twin that the other tiers are tested against.
    pub const PORTABLE: Tier = Tier(Level::Portable);

    /// The best tier of this processor.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::PORTABLE)
    }

    /// All tiers that this processor can run, slowest first.
    pub fn available() -> Vec<Self> {
        let mut tiers = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                tiers.push(Tier(Level::Avx2));
                if has!("avxvnni") {
                    tiers.push(Tier(Level::AvxVnni));
                }
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
                    tiers.push(Tier(Level::Avx512Vnni));
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            tiers.push(Tier(Level::Neon));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                tiers.push(Tier(Level::NeonDotprod));
            }
        }
        tiers
    }

    /// Whether one instruction multiplies bytes and adds the products without loss: there it takes half as many
    /// instructions for rows in 8 bits as for those in 16, elsewhere as many.
    pub fn has_dot_product(self) -> bool {
        match self.0 {
            Level::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => false,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni | Level::Avx512Vnni => true,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => false,
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => true,
        }
    }

    /// The name that `dunlin bench` and `--tier` use.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => "neon-dotprod",
        }
    }

    /// Runs `kernel` compiled for this tier.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Level::Portable => kernel.run(Portable),
            // SAFETY: this level exists only where `available` found the features.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { crate::simd::avx2::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => unsafe { crate::simd::avx_vnni::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => unsafe { crate::simd::vnni::run(kernel) },
            #[cfg(target_arch = "aarch64")]
            Level::Neon => crate::simd::neon::run(kernel),
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => unsafe { crate::simd::neon::run_with_dotprod(kernel) },
        }
    }

    /// Runs `kernel` over vectors that hold the rows of two panels, so many bytes apart, where the tier has such; else hands it
    /// back.
    #[inline]
    pub(crate) fn run_on_two_panels<K: VectorKernel>(
        self,
        distance: usize,
        kernel: K,
    ) -> Result<K::Output, K> {
        match self.0 {
            // SAFETY: this level exists only where `available` found the features.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => Ok(unsafe { crate::simd::two_panels::run(distance, kernel) }),
            _ => {
                #[cfg(not(target_arch = "x86_64"))]
                let _ = distance;
                Err(kernel)
            }
        }
    }
}
