//! The register tile of products with rows in 16 bits on AVX-512 VNNI: two unpacked panels (16 rows) times 8 tokens.
//!
//! A vector holds a pair of columns of both panels, and one instruction multiplies it with the activations of a token, which it
//! repeats out of memory itself. 8 registers hold the products in 32 bits, 8 the sums of the tile. The operations on each sum
//! and their order are those of the kernel for other tiers, so that results are equal to the last bit.

use std::arch::asm;

use super::assembly::op;
use super::{Tile, WIDE_PAIR};

/// Applies a row macro to the 8 tokens: where their codes begin, where their scales begin, their products, their sums and a register
/// to use on the way.
macro_rules! tokens {
    ($row:ident $(, $argument:tt)*) => {
        concat!(
            $row!("{a}", "{s}", "zmm0", "zmm8", "zmm20" $(, $argument)*),
            $row!("{a} + {a1}", "{s} + {s1}", "zmm1", "zmm9", "zmm21" $(, $argument)*),
            $row!("{a} + 2*{a1}", "{s} + 2*{s1}", "zmm2", "zmm10", "zmm22" $(, $argument)*),
            $row!("{a} + {a3}", "{s} + {s3}", "zmm3", "zmm11", "zmm23" $(, $argument)*),
            $row!("{b}", "{t}", "zmm4", "zmm12", "zmm24" $(, $argument)*),
            $row!("{b} + {a1}", "{t} + {s1}", "zmm5", "zmm13", "zmm25" $(, $argument)*),
            $row!("{b} + 2*{a1}", "{t} + 2*{s1}", "zmm6", "zmm14", "zmm26" $(, $argument)*),
            $row!("{b} + {a3}", "{t} + {s3}", "zmm7", "zmm15", "zmm27" $(, $argument)*),
        )
    };
}

/// Number `$i` of the 32-bit words at `$start`, in every lane.
macro_rules! repeated {
    ($start:literal, $i:literal) => {
        concat!("dword ptr [", $start, " + 4*", $i, "]{{1to16}}")
    };
}

/// The weights of a step.
macro_rules! step {
    ($i:literal) => {
        concat!("[{w} + 64*", $i, "]")
    };
}

macro_rules! clear {
    ($codes:literal, $scales:literal, $dot:literal, $sum:literal, $free:literal) => {
        concat!(op!("vpxord", $dot, $dot, $dot),)
    };
}

/// The products of step `$step` of the weights: 4 columns of bytes (`vpdpbusd`) or 2 of 16 bits (`vpdpwssd`).
macro_rules! multiply {
    ($codes:literal, $scales:literal, $dot:literal, $sum:literal, $free:literal, $by:literal, $weights:literal, $step:literal) => {
        concat!(op!($by, $dot, $weights, repeated!($codes, $step)),)
    };
}

/// `sum += scale of weights (zmm28) * scale of token * dot`, number `$i` of the token's scales and sums.
macro_rules! scaled {
    ($codes:literal, $scales:literal, $dot:literal, $sum:literal, $free:literal, $i:literal) => {
        concat!(
            op!("vmulps", $free, "zmm28", repeated!($scales, $i)),
            op!("vcvtdq2ps", $dot, $dot),
            op!("vfmadd231ps", $sum, $free, $dot),
        )
    };
}

/// The products of 4 steps.
macro_rules! four_steps {
    ($by:literal, $s0:literal, $s1:literal, $s2:literal, $s3:literal) => {
        concat!(
            op!("vmovdqa64", "zmm16", step!($s0)),
            op!("vmovdqa64", "zmm17", step!($s1)),
            op!("vmovdqa64", "zmm18", step!($s2)),
            op!("vmovdqa64", "zmm19", step!($s3)),
            tokens!(multiply, $by, "zmm16", $s0),
            tokens!(multiply, $by, "zmm17", $s1),
            tokens!(multiply, $by, "zmm18", $s2),
            tokens!(multiply, $by, "zmm19", $s3),
        )
    };
}

/// Runs a loop over the blocks of a tile, with its sums in registers: `$pair` bytes of weights, `$codes` of codes and `$scales` of
/// scales further each time.
macro_rules! tile_loop {
    ($tile:ident, $pair:expr, $codes:literal, $scales:literal, $($body:expr),+ $(,)?) => {
        // SAFETY: the caller's tile: every address is inside its unpacked panels, its rows or its sums.
        unsafe {
            asm!(
                "vmovups zmm8, [{sums}]",
                "vmovups zmm9, [{sums} + 64]",
                "vmovups zmm10, [{sums} + 128]",
                "vmovups zmm11, [{sums} + 192]",
                "vmovups zmm12, [{sums} + 256]",
                "vmovups zmm13, [{sums} + 320]",
                "vmovups zmm14, [{sums} + 384]",
                "vmovups zmm15, [{sums} + 448]",
                "2:",
                $($body,)+
                "add {w}, {pair}",
                concat!("add {a}, ", $codes),
                concat!("add {b}, ", $codes),
                concat!("add {s}, ", $scales),
                concat!("add {t}, ", $scales),
                "dec {n}",
                "jnz 2b",
                "vmovups [{sums}], zmm8",
                "vmovups [{sums} + 64], zmm9",
                "vmovups [{sums} + 128], zmm10",
                "vmovups [{sums} + 192], zmm11",
                "vmovups [{sums} + 256], zmm12",
                "vmovups [{sums} + 320], zmm13",
                "vmovups [{sums} + 384], zmm14",
                "vmovups [{sums} + 448], zmm15",
                w = inout(reg) $tile.weights => _,
                a = inout(reg) $tile.codes => _,
                b = inout(reg) $tile.codes.wrapping_add(4 * $tile.code_stride) => _,
                a1 = in(reg) $tile.code_stride,
                a3 = in(reg) 3 * $tile.code_stride,
                s = inout(reg) $tile.scales => _,
                t = inout(reg) $tile.scales.wrapping_byte_add(4 * $tile.scale_stride) => _,
                s1 = in(reg) $tile.scale_stride,
                s3 = in(reg) 3 * $tile.scale_stride,
                sums = in(reg) $tile.sums,
                n = inout(reg) $tile.blocks => _,
                pair = const $pair,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
                out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
                out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
                out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
                out("zmm28") _, out("zmm29") _,
                options(nostack),
            )
        }
    };
}

/// Signed codes and tokens in 16 bits, one scale a block.
///
/// # Safety
/// As [`super::Simd::tile`].
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn signed(tile: &Tile) {
    tile_loop!(
        tile,
        WIDE_PAIR,
        "64",
        "4",
        tokens!(clear),
        four_steps!("vpdpwssd", "0", "1", "2", "3"),
        four_steps!("vpdpwssd", "4", "5", "6", "7"),
        four_steps!("vpdpwssd", "8", "9", "10", "11"),
        four_steps!("vpdpwssd", "12", "13", "14", "15"),
        "vmovaps zmm28, [{w} + 1024]",
        tokens!(scaled, "0"),
    );
}
