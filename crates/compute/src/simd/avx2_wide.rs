//! The register tile of products with rows in 16 bits on AVX2: two unpacked panels (16 rows) times 4 tokens.
//!
//! Written in assembly for the reason that `avx2_tile.rs` gives. 8 registers hold the products of a block in 32 bits, two the
//! weights of a pair of columns, and the other six take turns: each broadcast pair serves both panels. The sums of the tile
//! stay in memory, where each block reads and writes them once, in the order of the kernel for other tiers, so that results are
//! equal to the last bit.

use std::arch::asm;

use super::assembly::op;
use super::{Tile, WIDE_PAIR};

/// A pair of columns of one token times both panels, in `$sum` and `$other`; `$first` and `$second` are used on the way.
macro_rules! token {
    ($pair:tt, $row:literal, $first:literal, $second:literal, $sum:literal, $other:literal) => {
        concat!(
            op!(
                "vpbroadcastd",
                $first,
                concat!("dword ptr [", $row, " + 4*", $pair, "]")
            ),
            op!("vpmaddwd", $second, $first, "ymm8"),
            op!("vpmaddwd", $first, $first, "ymm9"),
            op!("vpaddd", $sum, $sum, $second),
            op!("vpaddd", $other, $other, $first),
        )
    };
}

/// A pair of columns of 4 tokens.
macro_rules! pair {
    ($pair:tt) => {
        concat!(
            op!("vmovdqa", "ymm8", concat!("[{w} + 64*", $pair, "]")),
            op!("vmovdqa", "ymm9", concat!("[{w} + 32 + 64*", $pair, "]")),
            token!($pair, "{a}", "ymm10", "ymm11", "ymm0", "ymm4"),
            token!($pair, "{a} + {a1}", "ymm12", "ymm13", "ymm1", "ymm5"),
            token!($pair, "{a} + 2*{a1}", "ymm14", "ymm15", "ymm2", "ymm6"),
            token!($pair, "{a} + {a3}", "ymm10", "ymm11", "ymm3", "ymm7"),
        )
    };
}

/// `sums += scale of weights (ymm8, ymm9) * scale of token * products`.
macro_rules! scaled {
    ($token:tt, $row:literal, $sum:literal, $other:literal) => {
        concat!(
            op!("vbroadcastss", "ymm10", concat!("dword ptr [", $row, "]")),
            "vmulps ymm11, ymm8, ymm10\n",
            "vmulps ymm12, ymm9, ymm10\n",
            op!("vcvtdq2ps", $sum, $sum),
            op!("vcvtdq2ps", $other, $other),
            op!(
                "vfmadd213ps",
                $sum,
                "ymm11",
                concat!("[{sums} + 64*", $token, "]")
            ),
            op!(
                "vfmadd213ps",
                $other,
                "ymm12",
                concat!("[{sums} + 64*", $token, " + 32]")
            ),
            op!("vmovups", concat!("[{sums} + 64*", $token, "]"), $sum),
            op!(
                "vmovups",
                concat!("[{sums} + 64*", $token, " + 32]"),
                $other
            ),
        )
    };
}

/// Adds the products of a tile of signed codes to its sums.
///
/// # Safety
/// What [`super::Simd::tile`] asks for, and the processor has AVX2 and FMA.
pub(super) unsafe fn signed(tile: &Tile) {
    // SAFETY: the caller's tile: every address is inside its unpacked panels, its rows or its sums.
    unsafe {
        asm!(
            "2:",
            "vpxor xmm0, xmm0, xmm0",
            "vpxor xmm1, xmm1, xmm1",
            "vpxor xmm2, xmm2, xmm2",
            "vpxor xmm3, xmm3, xmm3",
            "vpxor xmm4, xmm4, xmm4",
            "vpxor xmm5, xmm5, xmm5",
            "vpxor xmm6, xmm6, xmm6",
            "vpxor xmm7, xmm7, xmm7",
            pair!(0), pair!(1), pair!(2), pair!(3),
            pair!(4), pair!(5), pair!(6), pair!(7),
            pair!(8), pair!(9), pair!(10), pair!(11),
            pair!(12), pair!(13), pair!(14), pair!(15),
            "vmovaps ymm8, [{w} + 1024]",
            "vmovaps ymm9, [{w} + 1056]",
            scaled!(0, "{s}", "ymm0", "ymm4"),
            scaled!(1, "{s} + {s1}", "ymm1", "ymm5"),
            scaled!(2, "{s} + 2*{s1}", "ymm2", "ymm6"),
            scaled!(3, "{s} + {s3}", "ymm3", "ymm7"),
            "add {w}, {pair}",
            "add {a}, 64",
            "add {s}, 4",
            "dec {n}",
            "jnz 2b",
            w = inout(reg) tile.weights => _,
            a = inout(reg) tile.codes => _,
            a1 = in(reg) tile.code_stride,
            a3 = in(reg) 3 * tile.code_stride,
            s = inout(reg) tile.scales => _,
            s1 = in(reg) tile.scale_stride,
            s3 = in(reg) 3 * tile.scale_stride,
            sums = in(reg) tile.sums,
            n = inout(reg) tile.blocks => _,
            pair = const WIDE_PAIR,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack),
        )
    }
}
