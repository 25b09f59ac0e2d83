//! The register tile of prefill on AVX-512 VNNI: four unpacked panels (32 rows) times 4 tokens.
//!
//! A vector holds a step of two panels. The activations of a token, repeated, serve both vectors of a step, which keeps the two loads a
//! cycle below the two vector operations. 16 registers hold the products of both halves of a block, so many chains that none waits
//! for itself, and 8 the sums of the tile. Products begin at [`SHIFT`](super::SHIFT) and are floats as they stand.
//!
//! The operations on each sum and their order are those of the kernel for few tokens (`matmul/quantized.rs`), so that results are
//! equal to the last bit.

use std::arch::asm;

use super::assembly::op;
use super::{SHIFT, Tile, UNPACKED};

/// Applies a row macro to the 4 tokens: where their blocks begin, a register to use on the way, their products with both vectors of
/// the first half of a block, of the second, and their sums.
macro_rules! tokens {
    ($row:ident $(, $argument:tt)*) => {
        concat!(
            $row!("{a}", "zmm28", "zmm0", "zmm4", "zmm8", "zmm12", "zmm16", "zmm20" $(, $argument)*),
            $row!("{a} + {a1}", "zmm29", "zmm1", "zmm5", "zmm9", "zmm13", "zmm17", "zmm21" $(, $argument)*),
            $row!("{a} + 2*{a1}", "zmm30", "zmm2", "zmm6", "zmm10", "zmm14", "zmm18", "zmm22" $(, $argument)*),
            $row!("{a} + {a3}", "zmm28", "zmm3", "zmm7", "zmm11", "zmm15", "zmm19", "zmm23" $(, $argument)*),
        )
    };
}

/// Number `$i` of the 32-bit words of a block, in every lane; its codes are the first 8 words.
macro_rules! word {
    ($block:literal, $i:literal) => {
        concat!("dword ptr [", $block, " + 4*", $i, "]")
    };
}

/// The products of step `$step` in the first half of a block.
macro_rules! first_step {
    ($block:literal, $free:literal, $p:literal, $q:literal, $r:literal, $s:literal, $sum:literal, $other:literal, $step:literal) => {
        concat!(
            op!("vpbroadcastd", $free, word!($block, $step)),
            op!("vpdpbusd", $p, "zmm24", $free),
            op!("vpdpbusd", $q, "zmm25", $free),
        )
    };
}

/// The products of step `$step` in the second half.
macro_rules! second_step {
    ($block:literal, $free:literal, $p:literal, $q:literal, $r:literal, $s:literal, $sum:literal, $other:literal, $step:literal) => {
        concat!(
            op!("vpbroadcastd", $free, word!($block, $step)),
            op!("vpdpbusd", $r, "zmm26", $free),
            op!("vpdpbusd", $s, "zmm27", $free),
        )
    };
}

/// Both vectors of weights number `$i` of a block.
macro_rules! weights {
    ($name:literal, $first:literal, $second:literal, $i:literal) => {
        concat!(
            op!($name, $first, concat!("[{w} + 128*", $i, "]")),
            op!($name, $second, concat!("[{w} + 64 + 128*", $i, "]")),
        )
    };
}

macro_rules! steps {
    ($step:literal, $second:literal) => {
        concat!(
            weights!("vmovdqa64", "zmm24", "zmm25", $step),
            tokens!(first_step, $step),
            weights!("vmovdqa64", "zmm26", "zmm27", $second),
            tokens!(second_step, $second),
        )
    };
}

macro_rules! begin {
    ($block:literal, $free:literal, $p:literal, $q:literal, $r:literal, $s:literal, $sum:literal, $other:literal) => {
        concat!(
            op!("vmovdqa64", $p, "zmm31"),
            op!("vmovdqa64", $q, "zmm31"),
            op!("vmovdqa64", $r, "zmm31"),
            op!("vmovdqa64", $s, "zmm31"),
        )
    };
}

/// `first = scale * first + shift` in both vectors.
macro_rules! first_half {
    ($block:literal, $free:literal, $p:literal, $q:literal, $r:literal, $s:literal, $sum:literal, $other:literal) => {
        concat!(
            op!("vbroadcastss", $free, word!($block, "15")),
            op!(
                "vfmadd132ps",
                $p,
                $free,
                concat!(word!($block, "8"), "{{1to16}}")
            ),
            op!(
                "vfmadd132ps",
                $q,
                $free,
                concat!(word!($block, "8"), "{{1to16}}")
            ),
        )
    };
}

/// `sum += scale of weights (zmm24, zmm25) * (first + scale * second)`.
macro_rules! second_half {
    ($block:literal, $free:literal, $p:literal, $q:literal, $r:literal, $s:literal, $sum:literal, $other:literal) => {
        concat!(
            op!("vbroadcastss", $free, word!($block, "9")),
            op!("vfmadd231ps", $p, $r, $free),
            op!("vfmadd231ps", $q, $s, $free),
            op!("vfmadd231ps", $sum, "zmm24", $p),
            op!("vfmadd231ps", $other, "zmm25", $q),
        )
    };
}

/// `sum += offset of weights (zmm26, zmm27) * sum of activations`, word `$i` of the block.
macro_rules! offset {
    ($block:literal, $free:literal, $p:literal, $q:literal, $r:literal, $s:literal, $sum:literal, $other:literal, $i:literal) => {
        concat!(
            op!("vbroadcastss", $free, word!($block, $i)),
            op!("vfmadd231ps", $sum, "zmm26", $free),
            op!("vfmadd231ps", $other, "zmm27", $free),
        )
    };
}

/// `sum += scale of weights (zmm24, zmm25) * (scale * first + shift)`.
macro_rules! first_alone {
    ($block:literal, $free:literal, $p:literal, $q:literal, $r:literal, $s:literal, $sum:literal, $other:literal) => {
        scaled!($block, $free, $p, $q, $sum, $other, "8", "13")
    };
}

/// `sum += scale of weights (zmm24, zmm25) * (scale * second + shift)`.
macro_rules! second_alone {
    ($block:literal, $free:literal, $p:literal, $q:literal, $r:literal, $s:literal, $sum:literal, $other:literal) => {
        scaled!($block, $free, $r, $s, $sum, $other, "9", "14")
    };
}

macro_rules! scaled {
    ($block:literal, $free:literal, $p:literal, $q:literal, $sum:literal, $other:literal, $scale:literal, $shift:literal) => {
        concat!(
            op!("vbroadcastss", $free, word!($block, $shift)),
            op!(
                "vfmadd132ps",
                $p,
                $free,
                concat!(word!($block, $scale), "{{1to16}}")
            ),
            op!(
                "vfmadd132ps",
                $q,
                $free,
                concat!(word!($block, $scale), "{{1to16}}")
            ),
            op!("vfmadd231ps", $sum, "zmm24", $p),
            op!("vfmadd231ps", $other, "zmm25", $q),
        )
    };
}

/// Runs a loop over the blocks of a tile, with its sums in registers.
macro_rules! tile_loop {
    ($tile:ident, $($body:expr),+ $(,)?) => {
        // SAFETY: the caller's tile: every address is inside its unpacked panels, its rows or its sums.
        unsafe {
            asm!(
                "vbroadcastss zmm31, dword ptr [{shift}]",
                "vmovups zmm16, [{sums}]",
                "vmovups zmm20, [{sums} + 64]",
                "vmovups zmm17, [{sums} + 128]",
                "vmovups zmm21, [{sums} + 192]",
                "vmovups zmm18, [{sums} + 256]",
                "vmovups zmm22, [{sums} + 320]",
                "vmovups zmm19, [{sums} + 384]",
                "vmovups zmm23, [{sums} + 448]",
                "2:",
                tokens!(begin),
                steps!("0", "4"),
                steps!("1", "5"),
                steps!("2", "6"),
                steps!("3", "7"),
                $($body,)+
                "add {w}, {block}",
                "add {a}, 64",
                "dec {n}",
                "jnz 2b",
                "vmovups [{sums}], zmm16",
                "vmovups [{sums} + 64], zmm20",
                "vmovups [{sums} + 128], zmm17",
                "vmovups [{sums} + 192], zmm21",
                "vmovups [{sums} + 256], zmm18",
                "vmovups [{sums} + 320], zmm22",
                "vmovups [{sums} + 384], zmm19",
                "vmovups [{sums} + 448], zmm23",
                w = inout(reg) $tile.weights => _,
                a = inout(reg) $tile.codes => _,
                a1 = in(reg) $tile.code_stride,
                a3 = in(reg) 3 * $tile.code_stride,
                sums = in(reg) $tile.sums,
                shift = in(reg) &raw const START,
                n = inout(reg) $tile.blocks => _,
                block = const 4 * UNPACKED,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
                out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
                out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
                out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
                out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
                options(nostack),
            )
        }
    };
}

/// Where products begin.
static START: f32 = SHIFT;

/// One scale a block.
///
/// # Safety
/// As [`super::Simd::tile`].
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn whole(tile: &Tile) {
    tile_loop!(
        tile,
        tokens!(first_half),
        weights!("vmovaps", "zmm24", "zmm25", "8"),
        tokens!(second_half),
    );
}

/// One scale and offset a block.
///
/// # Safety
/// As [`super::Simd::tile`].
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn whole_with_offset(tile: &Tile) {
    tile_loop!(
        tile,
        tokens!(first_half),
        weights!("vmovaps", "zmm24", "zmm25", "8"),
        tokens!(second_half),
        weights!("vmovaps", "zmm26", "zmm27", "10"),
        tokens!(offset, "12"),
    );
}

/// A scale each half block.
///
/// # Safety
/// As [`super::Simd::tile`].
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn halves(tile: &Tile) {
    tile_loop!(
        tile,
        weights!("vmovaps", "zmm24", "zmm25", "8"),
        tokens!(first_alone),
        weights!("vmovaps", "zmm24", "zmm25", "9"),
        tokens!(second_alone),
    );
}

/// A scale and an offset each half block.
///
/// # Safety
/// As [`super::Simd::tile`].
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn halves_with_offset(tile: &Tile) {
    tile_loop!(
        tile,
        weights!("vmovaps", "zmm24", "zmm25", "8"),
        tokens!(first_alone),
        weights!("vmovaps", "zmm26", "zmm27", "10"),
        tokens!(offset, "10"),
        weights!("vmovaps", "zmm24", "zmm25", "9"),
        tokens!(second_alone),
        weights!("vmovaps", "zmm26", "zmm27", "11"),
        tokens!(offset, "11"),
    );
}
