//! CPU compute for small language models: a thread pool, packed weight panels and the kernels on them.
//!
//! The crate knows nothing of files, model families or tokens: it multiplies matrices, attends, normalizes and
//! rotates. Each kernel is written once over a small SIMD trait and instantiated per processor [`Tier`].
//!
//! Kernels do not allocate, and do not read clocks, environment variables or random sources.

#![allow(unsafe_code)]
// Kernels walk several arrays of a tile by one index; iterators over one of them would hide that.
#![allow(clippy::needless_range_loop)]

mod activations;
mod attention;
mod elementwise;
mod kv;
mod matmul;
mod memory;
mod pack;
mod panels;
mod pool;
mod recurrent;
mod simd;
mod similarity;
mod tier;

pub use activations::{Activations, Precision};
pub use attention::{Attention, AttentionJob, AttentionScratch, Sight, attend};
pub use elementwise::{
    Nonlinearity, activate_in_place, add_assign, add_sum_assign, gate, layer_norm,
    layer_norm_in_place, rms_norm, rms_norm_in_place, rope_in_place, rope_table, scale_in_place,
    sigmoid_gate,
};
pub use kv::{KvElement, KvElements, KvLayout, KvSlabs, POSITIONS_PER_BLOCK, store_kv};
pub use matmul::{
    Gated, LOW_RANK_PRODUCTS, LowRank, Matmul, add_low_rank, matmul, matmul_gated, matmul_rows,
};
pub use memory::WeightMemory;
pub use pack::{PackError, SharedBytes, map, pack, pack_with, pack_written, packed_bytes};
pub use panels::{PackedMatrix, PanelFormat, has_fast_kernel};
pub use pool::{Pool, for_each_rows};
pub use recurrent::{CONV_TAPS_MAX, Conv, DeltaNet, convolve, delta_net};
pub use similarity::{dot_rows, dot_rows_error};
pub use tier::Tier;
