//! The register tile of prefill on AVX2: two unpacked panels (16 rows) times 4 tokens.
//!
//! Written in assembly because the compiler, given the same intrinsics, moves loads and products ahead of their use until
//! the 16 registers overflow: it reached about two thirds of what these loops do. A broadcast activation serves both panels, which
//! keeps the two loads a cycle below the four vector operations. The sums of the tile stay in memory, where each block (or half block
//! with a scale of its own) reads and writes them once; the 8 registers of a tile hold products in 16 or 32 bits.
//!
//! The operations on each sum and their order are those of the kernel for few tokens (`matmul/quantized.rs`), so that results are
//! equal to the last bit.

use std::arch::asm;
use std::mem::MaybeUninit;

use super::assembly::op;
use super::{Tile, UNPACKED};

/// The activations of step `$step` for token `$t`, in every lane of `$to`.
macro_rules! broadcast {
    ($to:literal, 0, $step:literal) => {
        concat!(op!(
            "vpbroadcastd",
            $to,
            concat!("dword ptr [{a} + 4*", $step, "]")
        ),)
    };
    ($to:literal, 1, $step:literal) => {
        concat!(op!(
            "vpbroadcastd",
            $to,
            concat!("dword ptr [{a} + {a1} + 4*", $step, "]")
        ),)
    };
    ($to:literal, 2, $step:literal) => {
        concat!(op!(
            "vpbroadcastd",
            $to,
            concat!("dword ptr [{a} + 2*{a1} + 4*", $step, "]")
        ),)
    };
    ($to:literal, 3, $step:literal) => {
        concat!(op!(
            "vpbroadcastd",
            $to,
            concat!("dword ptr [{a} + {a3} + 4*", $step, "]")
        ),)
    };
}

/// Number `$i` of the scales and sums of token `$t` in this block, in every lane of `$to`.
macro_rules! scale {
    ($to:literal, 0, $i:literal) => {
        concat!(op!(
            "vbroadcastss",
            $to,
            concat!("dword ptr [{s} + 4*", $i, "]")
        ),)
    };
    ($to:literal, 1, $i:literal) => {
        concat!(op!(
            "vbroadcastss",
            $to,
            concat!("dword ptr [{s} + {s1} + 4*", $i, "]")
        ),)
    };
    ($to:literal, 2, $i:literal) => {
        concat!(op!(
            "vbroadcastss",
            $to,
            concat!("dword ptr [{s} + 2*{s1} + 4*", $i, "]")
        ),)
    };
    ($to:literal, 3, $i:literal) => {
        concat!(op!(
            "vbroadcastss",
            $to,
            concat!("dword ptr [{s} + {s3} + 4*", $i, "]")
        ),)
    };
}

/// The 32 bytes of each panel at offset `$at` of its own.
macro_rules! weights {
    ($first:literal, $second:literal, $at:literal) => {
        concat!(
            op!("vmovdqa", $first, concat!("[{w} + 2*", $at, "]")),
            op!("vmovdqa", $second, concat!("[{w} + 32 + 2*", $at, "]")),
        )
    };
}

/// One block further; again while there are some.
macro_rules! next_block {
    () => {
        "add {w}, {pair}
         add {a}, 64
         add {s}, 64
         dec {n}
         jnz 2b"
    };
}

/// Runs a loop over the blocks of a tile, which may use all 16 registers. `ones` holds 16-bit ones.
macro_rules! tile_loop {
    ($tile:ident, $($body:expr),+ $(,)?) => {
        let mut half = MaybeUninit::<Half>::uninit();
        // SAFETY: the caller's tile: every address is inside its unpacked panels, its rows or its sums, or in `half`.
        unsafe {
            asm!(
                "/* not every loop keeps first halves: {half} */",
                "2:",
                $($body,)+
                next_block!(),
                w = inout(reg) $tile.weights => _,
                a = inout(reg) $tile.codes => _,
                a1 = in(reg) $tile.code_stride,
                a3 = in(reg) 3 * $tile.code_stride,
                s = inout(reg) $tile.scales => _,
                s1 = in(reg) $tile.scale_stride,
                s3 = in(reg) 3 * $tile.scale_stride,
                sums = in(reg) $tile.sums,
                half = in(reg) half.as_mut_ptr(),
                ones = in(reg) &raw const ONES,
                n = inout(reg) $tile.blocks => _,
                pair = const 2 * UNPACKED,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nostack),
            )
        }
    };
}

/// The first half of a block for each sum of a tile.
#[repr(align(32))]
struct Half {
    _dots: [f32; 64],
}

#[repr(align(32))]
#[allow(dead_code, reason = "read by assembly alone")]
struct Ones([i16; 16]);
static ONES: Ones = Ones([1; 16]);

/// Applies a row macro to the 4 tokens: dots of the first panel in `ymm0` to `ymm3`, of the second in `ymm4` to `ymm7`.
macro_rules! tokens {
    ($row:ident $(, $argument:tt)*) => {
        concat!(
            $row!(0, "ymm0", "ymm4" $(, $argument)*),
            $row!(1, "ymm1", "ymm5" $(, $argument)*),
            $row!(2, "ymm2", "ymm6" $(, $argument)*),
            $row!(3, "ymm3", "ymm7" $(, $argument)*),
        )
    };
}

/// The sums of token `$t` with the first panel, and with the second (`" + 32"`).
macro_rules! sum {
    ($t:tt $(, $second:literal)?) => {
        concat!("[{sums} + 64*", stringify!($t) $(, $second)?, "]")
    };
}

/// What is kept of the first half of a block for each sum.
macro_rules! half {
    ($t:tt $(, $second:literal)?) => {
        concat!("[{half} + 64*", stringify!($t) $(, $second)?, "]")
    };
}

macro_rules! to_floats {
    ($p:literal, $q:literal) => {
        concat!(op!("vcvtdq2ps", $p, $p), op!("vcvtdq2ps", $q, $q))
    };
}

/// The end of a half block: `sums += scale of weights (ymm8, ymm9) * scale of token * dot`.
macro_rules! scaled {
    ($t:tt, $p:literal, $q:literal, $half:literal) => {
        concat!(
            scale!("ymm10", $t, $half),
            "vmulps ymm11, ymm8, ymm10\n",
            "vmulps ymm13, ymm9, ymm10\n",
            to_floats!($p, $q),
            added!($t, $p, $q, "ymm11", "ymm13"),
        )
    };
}

/// `dot = factor * dot + sum`, with a factor for each panel.
macro_rules! added {
    ($t:tt, $p:literal, $q:literal, $first:literal, $second:literal) => {
        concat!(
            op!("vfmadd213ps", $p, $first, sum!($t)),
            op!("vfmadd213ps", $q, $second, sum!($t, " + 32")),
        )
    };
}

/// The first half of a block whose halves share a scale: `scale of token * dot` is kept in memory.
macro_rules! first_half {
    ($t:tt, $p:literal, $q:literal) => {
        concat!(
            scale!("ymm10", $t, "0"),
            to_floats!($p, $q),
            op!("vmulps", $p, $p, "ymm10"),
            op!("vmulps", $q, $q, "ymm10"),
            op!("vmovaps", half!($t), $p),
            op!("vmovaps", half!($t, " + 32"), $q),
        )
    };
}

/// The second half: `dot = sum + scale of weights (ymm8, ymm9) * (first half + scale of token * dot)`.
macro_rules! second_half {
    ($t:tt, $p:literal, $q:literal) => {
        concat!(
            scale!("ymm10", $t, "1"),
            to_floats!($p, $q),
            op!("vfmadd213ps", $p, "ymm10", half!($t)),
            op!("vfmadd213ps", $q, "ymm10", half!($t, " + 32")),
            added!($t, $p, $q, "ymm8", "ymm9"),
        )
    };
}

macro_rules! stored {
    ($t:tt, $p:literal, $q:literal) => {
        concat!(
            op!("vmovups", sum!($t), $p),
            op!("vmovups", sum!($t, " + 32"), $q),
        )
    };
}

/// A token of a block without an offset.
macro_rules! finished {
    ($t:tt, $p:literal, $q:literal) => {
        concat!(second_half!($t, $p, $q), stored!($t, $p, $q))
    };
}

/// `sum += offset of weights (ymm14, ymm15) * sum of the token's codes`, number `$i` of its scales and sums.
macro_rules! offset {
    ($t:tt, $p:literal, $q:literal, $i:literal) => {
        concat!(
            scale!("ymm10", $t, $i),
            op!("vfmadd231ps", $p, "ymm14", "ymm10"),
            op!("vfmadd231ps", $q, "ymm15", "ymm10"),
            stored!($t, $p, $q),
        )
    };
}

/// A token of a block with an offset.
macro_rules! finished_with_offset {
    ($t:tt, $p:literal, $q:literal) => {
        concat!(second_half!($t, $p, $q), offset!($t, $p, $q, "4"))
    };
}

/// A token of a half block with a scale and an offset of its own.
macro_rules! half_finished {
    ($t:tt, $p:literal, $q:literal, $half:literal, $i:literal) => {
        concat!(scaled!($t, $p, $q, $half), offset!($t, $p, $q, $i))
    };
}

/// A first step of unsigned codes, in 16 bits.
macro_rules! unsigned_first {
    ($t:tt, $p:literal, $q:literal, $step:literal) => {
        concat!(
            broadcast!("ymm10", $t, $step),
            op!("vpmaddubsw", $p, "ymm8", "ymm10"),
            op!("vpmaddubsw", $q, "ymm9", "ymm10"),
        )
    };
}

/// Another step, added in 16 bits.
macro_rules! unsigned_next {
    ($t:tt, $p:literal, $q:literal, $step:literal) => {
        concat!(
            broadcast!("ymm10", $t, $step),
            "vpmaddubsw ymm11, ymm8, ymm10\n",
            "vpmaddubsw ymm13, ymm9, ymm10\n",
            op!("vpaddw", $p, $p, "ymm11"),
            op!("vpaddw", $q, $q, "ymm13"),
        )
    };
}

/// 16-bit sums of pairs to 32-bit ones of fours.
macro_rules! widened {
    ($t:tt, $p:literal, $q:literal) => {
        concat!(
            op!("vpmaddwd", $p, $p, "ymm12"),
            op!("vpmaddwd", $q, $q, "ymm12"),
        )
    };
}

/// The dots of a half block of unsigned codes of up to 5 bits: 4 steps fit 16 bits.
macro_rules! four_steps {
    ($s0:literal, $s1:literal, $s2:literal, $s3:literal, $a0:literal, $a1:literal, $a2:literal, $a3:literal) => {
        concat!(
            weights!("ymm8", "ymm9", $a0),
            tokens!(unsigned_first, $s0),
            weights!("ymm8", "ymm9", $a1),
            tokens!(unsigned_next, $s1),
            weights!("ymm8", "ymm9", $a2),
            tokens!(unsigned_next, $s2),
            weights!("ymm8", "ymm9", $a3),
            tokens!(unsigned_next, $s3),
            "vmovdqa ymm12, [{ones}]\n",
            tokens!(widened),
        )
    };
}

/// Unsigned codes of up to 5 bits, one scale and offset a block.
///
/// # Safety
/// As [`super::Simd::tile`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn whole(tile: &Tile) {
    tile_loop!(
        tile,
        four_steps!("0", "1", "2", "3", "0", "32", "64", "96"),
        tokens!(first_half),
        four_steps!("4", "5", "6", "7", "128", "160", "192", "224"),
        weights!("ymm8", "ymm9", "256"),
        weights!("ymm14", "ymm15", "320"),
        tokens!(finished_with_offset),
    );
}

/// Two steps of unsigned codes in `ymm12` and `ymm10`, in 32 bits.
macro_rules! two_steps {
    ($t:tt, $s0:literal, $s1:literal) => {
        concat!(
            broadcast!("ymm10", $t, $s0),
            broadcast!("ymm11", $t, $s1),
            "vpmaddubsw ymm12, ymm8, ymm10\n",
            "vpmaddubsw ymm13, ymm14, ymm11\n",
            "vpmaddubsw ymm10, ymm9, ymm10\n",
            "vpmaddubsw ymm11, ymm15, ymm11\n",
            "vpaddw ymm12, ymm12, ymm13\n",
            "vpaddw ymm10, ymm10, ymm11\n",
        )
    };
}

macro_rules! two_steps_first {
    ($t:tt, $p:literal, $q:literal, $s0:literal, $s1:literal) => {
        concat!(
            two_steps!($t, $s0, $s1),
            op!("vpmaddwd", $p, "ymm12", "[{ones}]"),
            op!("vpmaddwd", $q, "ymm10", "[{ones}]"),
        )
    };
}

macro_rules! two_steps_next {
    ($t:tt, $p:literal, $q:literal, $s0:literal, $s1:literal) => {
        concat!(
            two_steps!($t, $s0, $s1),
            "vpmaddwd ymm12, ymm12, [{ones}]\n",
            "vpmaddwd ymm10, ymm10, [{ones}]\n",
            op!("vpaddd", $p, $p, "ymm12"),
            op!("vpaddd", $q, $q, "ymm10"),
        )
    };
}

/// The dots of a half block of unsigned codes of up to 6 bits: 2 steps fit 16 bits.
macro_rules! two_by_two_steps {
    ($s0:literal, $s1:literal, $s2:literal, $s3:literal, $a0:literal, $a1:literal, $a2:literal, $a3:literal) => {
        concat!(
            weights!("ymm8", "ymm9", $a0),
            weights!("ymm14", "ymm15", $a1),
            tokens!(two_steps_first, $s0, $s1),
            weights!("ymm8", "ymm9", $a2),
            weights!("ymm14", "ymm15", $a3),
            tokens!(two_steps_next, $s2, $s3),
        )
    };
}

/// Unsigned codes of up to 6 bits, a scale and an offset each half block.
///
/// # Safety
/// As [`super::Simd::tile`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn halves(tile: &Tile) {
    tile_loop!(
        tile,
        two_by_two_steps!("0", "1", "2", "3", "0", "32", "64", "96"),
        weights!("ymm8", "ymm9", "256"),
        weights!("ymm14", "ymm15", "320"),
        tokens!(half_finished, "0", "2"),
        two_by_two_steps!("4", "5", "6", "7", "128", "160", "192", "224"),
        weights!("ymm8", "ymm9", "288"),
        weights!("ymm14", "ymm15", "352"),
        tokens!(half_finished, "1", "3"),
    );
}

/// A step of signed codes (magnitudes in `ymm14` and `ymm15`) in `ymm11` and `ymm13`: the sign goes to the activations.
macro_rules! signed_step {
    ($t:tt, $step:literal) => {
        concat!(
            broadcast!("ymm10", $t, $step),
            "vpsignb ymm11, ymm10, ymm8\n",
            "vpsignb ymm13, ymm10, ymm9\n",
            "vpmaddubsw ymm11, ymm14, ymm11\n",
            "vpmaddubsw ymm13, ymm15, ymm13\n",
        )
    };
}

macro_rules! signed_first {
    ($t:tt, $p:literal, $q:literal, $step:literal) => {
        concat!(
            signed_step!($t, $step),
            op!("vpmaddwd", $p, "ymm11", "ymm12"),
            op!("vpmaddwd", $q, "ymm13", "ymm12"),
        )
    };
}

macro_rules! signed_next {
    ($t:tt, $p:literal, $q:literal, $step:literal) => {
        concat!(
            signed_step!($t, $step),
            "vpmaddwd ymm11, ymm11, ymm12\n",
            "vpmaddwd ymm13, ymm13, ymm12\n",
            op!("vpaddd", $p, $p, "ymm11"),
            op!("vpaddd", $q, $q, "ymm13"),
        )
    };
}

macro_rules! signed_weights {
    ($at:literal) => {
        concat!(
            weights!("ymm8", "ymm9", $at),
            "vpabsb ymm14, ymm8\n",
            "vpabsb ymm15, ymm9\n",
        )
    };
}

/// The dots of a half block of signed codes: one step fits 16 bits.
macro_rules! single_steps {
    ($s0:literal, $s1:literal, $s2:literal, $s3:literal, $a0:literal, $a1:literal, $a2:literal, $a3:literal) => {
        concat!(
            signed_weights!($a0),
            tokens!(signed_first, $s0),
            signed_weights!($a1),
            tokens!(signed_next, $s1),
            signed_weights!($a2),
            tokens!(signed_next, $s2),
            signed_weights!($a3),
            tokens!(signed_next, $s3),
        )
    };
}

/// Signed codes of 8 bits, one scale a block.
///
/// # Safety
/// As [`super::Simd::tile`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn signed(tile: &Tile) {
    tile_loop!(
        tile,
        "vmovdqa ymm12, [{ones}]",
        single_steps!("0", "1", "2", "3", "0", "32", "64", "96"),
        tokens!(first_half),
        single_steps!("4", "5", "6", "7", "128", "160", "192", "224"),
        weights!("ymm8", "ymm9", "256"),
        tokens!(finished),
    );
}
