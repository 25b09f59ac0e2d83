//! How much memory an engine takes, told from a file's header.

use crate::buffers::Buffers;
use crate::kv::{CHECKPOINTS, KvTypes, slab_bytes};
use crate::prefix;
use crate::spec::{Head, ModelSpec, names};
use crate::weights::WeightTypes;
use crate::{EngineConfig, EngineError, MAX_BATCH};
use dunlin_compute::{POSITIONS_PER_BLOCK, packed_bytes};
use dunlin_format::{DType, TensorInfo};

/// Threads of a plan. Each has a few hundred kilobytes.
const PLANNED_THREADS: usize = 4;

/// What [`Engine::load`](crate::Engine::load) takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Packed weights.
    pub weights: u64,
    /// Keys and values of a full context.
    pub kv_cache: u64,
    /// Those of them that a decoder's layers with a sliding window keep.
    pub window_kv_cache: u64,
    /// States of recurrent layers: of one sequence and its checkpoints, and of texts that ended.
    pub states: u64,
    /// Work buffers.
    pub buffers: u64,
}

impl MemoryPlan {
    /// The plan for a model whose weights take `weights` bytes ([`weight_bytes`]), with a cache of `context_length`
    /// positions.
    #[must_use]
    pub fn of(
        spec: &ModelSpec,
        weights: u64,
        context_length: usize,
        kv_types: impl Into<KvTypes>,
    ) -> Self {
        let kv_types = kv_types.into();
        let largest_step = match spec.causal {
            true => MAX_BATCH.min(context_length),
            // A text is computed whole.
            false => context_length,
        };
        MemoryPlan {
            weights,
            kv_cache: slab_bytes(spec, kv_types, context_length),
            window_kv_cache: spec
                .window_kv_bytes_per_token(kv_types)
                .saturating_mul(context_length.next_multiple_of(POSITIONS_PER_BLOCK) as u64),
            states: spec.state_bytes() * (1 + CHECKPOINTS + prefix::STATES) as u64,
            buffers: Buffers::bytes(spec, largest_step, context_length, PLANNED_THREADS),
        }
    }
}

/// Bytes that the weights of a file take once they are packed and bound, some of them as other types.
#[must_use]
pub fn weight_bytes(spec: &ModelSpec, tensors: &[TensorInfo], types: &WeightTypes) -> u64 {
    tensors
        .iter()
        .map(|tensor| {
            let dtype = types.get(&tensor.name).copied();
            resident(spec, tensor, dtype.unwrap_or(tensor.dtype))
        })
        .sum()
}

/// Asks the system once for all that keys, values and buffers take, so that a context beyond its memory is an error: a size
/// comes from the file, and an allocation that fails ends the program.
///
/// # Errors
/// [`EngineError::NoMemory`].
pub(crate) fn check_available(
    spec: &ModelSpec,
    config: &EngineConfig,
    tokens: usize,
    largest_step: usize,
) -> Result<(), EngineError> {
    let bytes = slab_bytes(spec, config.kv_types, tokens).saturating_add(Buffers::bytes(
        spec,
        largest_step,
        tokens,
        config.threads,
    ));
    let all = usize::try_from(bytes).unwrap_or(usize::MAX);
    match Vec::<u8>::new().try_reserve_exact(all) {
        Ok(()) => Ok(()),
        Err(_) => Err(EngineError::NoMemory { tokens, bytes }),
    }
}

/// Bytes of a file that are computed from where the matrices stay in it ([`Engine::load_mapped`](crate::Engine::load_mapped)).
#[must_use]
pub fn mapped_weight_bytes(spec: &ModelSpec, tensors: &[TensorInfo]) -> u64 {
    let matrices = tensors.iter().filter(|tensor| is_matrix(spec, tensor));
    matrices.map(TensorInfo::byte_len).sum()
}

/// Bytes of memory that the other weights of such a file take.
#[must_use]
pub fn weight_bytes_beside_mapped(spec: &ModelSpec, tensors: &[TensorInfo]) -> u64 {
    let others = tensors.iter().filter(|tensor| !is_matrix(spec, tensor));
    others
        .map(|tensor| resident(spec, tensor, tensor.dtype))
        .sum()
}

/// The tensors of a file that a model multiplies with, those that can be loaded as another type
/// ([`Engine::load_converted`](crate::Engine::load_converted)): no tables of rows, no norms and biases, no convolutions.
pub fn matrices<'a>(
    spec: &'a ModelSpec,
    tensors: &'a [TensorInfo],
) -> impl Iterator<Item = &'a TensorInfo> {
    tensors.iter().filter(|tensor| is_matrix(spec, tensor))
}

/// Whether a tensor is multiplied with: a table of rows or a vector is not.
fn is_matrix(spec: &ModelSpec, tensor: &TensorInfo) -> bool {
    match tensor.name.as_str() {
        names::TOKEN_EMBEDDING => spec.head == Head::Tied,
        names::PER_LAYER_EMBEDDING | names::POSITION_EMBEDDING | names::TOKEN_TYPES => false,
        name => spec.is_used(name) && tensor.rows() > 1 && !is_convolution(name),
    }
}

/// Whether a tensor holds the taps of a convolution, which are floats in memory.
fn is_convolution(name: &str) -> bool {
    let suffix = name.splitn(3, '.').nth(2);
    suffix.is_some_and(|suffix| [names::SSM_CONV, names::CONV].contains(&suffix))
}

/// Bytes that a tensor of the file takes once it is bound as `dtype`.
fn resident(spec: &ModelSpec, tensor: &TensorInfo, dtype: DType) -> u64 {
    let floats = tensor.elements() * 4;
    match tensor.name.as_str() {
        // Rows are read from the mapped file; a tied head is the same matrix packed.
        names::TOKEN_EMBEDDING if spec.head != Head::Tied => 0,
        names::PER_LAYER_EMBEDDING => 0,
        names::POSITION_EMBEDDING | names::TOKEN_TYPES => floats,
        name if !spec.is_used(name) => 0,
        name if tensor.rows() == 1 || is_convolution(name) => floats,
        _ => packed_bytes(dtype, tensor.rows(), tensor.cols()).map_or(floats, |bytes| bytes as u64),
    }
}
