//! What a model keeps of its sequences: keys and values in slabs of blocks, and the states of recurrent layers.
//!
//! A state cannot be cut back like a list of keys. So that a prefix can be used again, the states after the last few prompts
//! and pieces of prompts are kept as checkpoints, and a sequence is cut back to one of them.

use crate::EngineError;
use crate::spec::ModelSpec;
use dunlin_compute::{KvElement, KvLayout, KvSlab, POSITIONS_PER_BLOCK};

/// A sequence of tokens whose keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId(u32);

/// Checkpoints that a sequence keeps, the latest ones.
pub(crate) const CHECKPOINTS: usize = 3;

/// Short texts that a model that sees both sides computes at once.
const SHORT_TEXTS: usize = 32;

/// The blocks of all sequences. A block number stands for the same block in every slab.
pub(crate) struct KvCache {
    pub slabs: Vec<KvSlab>,
    /// The slab of each layer that attends; 0 for others.
    pub slab_of_layer: Vec<usize>,
    /// Where each layer's state begins in a sequence's state.
    pub state_of_layer: Vec<usize>,
    state_len: usize,
    free: Vec<u32>,
    sequences: Vec<Option<Sequence>>,
    capacity: usize,
}

/// What is kept of a sequence.
#[derive(Default)]
pub(crate) struct Sequence {
    pub blocks: Vec<u32>,
    /// Positions that hold keys and values.
    pub length: usize,
    /// The states of recurrent layers after `length` tokens.
    pub state: Vec<f32>,
    checkpoints: Vec<(usize, Vec<f32>)>,
    /// Its tokens, where the rotation depends on the length and so the past may have to be computed again.
    pub tokens: Vec<u32>,
    /// Tokens that the caller said it will have at least.
    pub expected: usize,
    /// Computed with the rotation for long sequences.
    pub long: bool,
}

impl KvCache {
    /// Room for `tokens` positions in all, rounded up to whole blocks.
    pub(crate) fn new(spec: &ModelSpec, element: KvElement, tokens: usize) -> Self {
        let blocks = block_count(spec, tokens);
        let (layouts, slab_of_layer) = slabs(spec);
        let mut state_len = 0;
        let state_of_layer = spec.layers.iter().map(|layer| {
            let at = state_len;
            state_len += layer.mixer.state_len();
            at
        });
        let state_of_layer = state_of_layer.collect();
        KvCache {
            slabs: layouts
                .into_iter()
                .map(|layout| KvSlab::new(layout, element, blocks))
                .collect(),
            slab_of_layer,
            state_of_layer,
            state_len,
            free: (0..blocks as u32).rev().collect(),
            sequences: Vec::new(),
            capacity: tokens,
        }
    }

    /// Makes room for more tokens. What the slabs hold is lost, so no sequence may hold anything.
    pub(crate) fn grow(&mut self, spec: &ModelSpec, element: KvElement, tokens: usize) {
        let bigger = KvCache::new(spec, element, tokens);
        self.slabs = bigger.slabs;
        self.free = bigger.free;
        self.capacity = bigger.capacity;
    }

    /// Positions that one sequence can have.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn create(&mut self) -> SequenceId {
        let slot = self
            .sequences
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.sequences.len());
        if slot == self.sequences.len() {
            self.sequences.push(None);
        }
        self.sequences[slot] = Some(Sequence {
            state: vec![0.0; self.state_len],
            ..Sequence::default()
        });
        SequenceId(slot as u32)
    }

    pub(crate) fn get(&self, id: SequenceId) -> Result<&Sequence, EngineError> {
        self.sequences
            .get(id.0 as usize)
            .and_then(Option::as_ref)
            .ok_or(EngineError::UnknownSequence)
    }

    pub(crate) fn get_mut(&mut self, id: SequenceId) -> Result<&mut Sequence, EngineError> {
        self.sequences
            .get_mut(id.0 as usize)
            .and_then(Option::as_mut)
            .ok_or(EngineError::UnknownSequence)
    }

    /// Blocks that no sequence has.
    pub(crate) fn free_blocks(&self) -> usize {
        self.free.len()
    }

    /// Checks that all sequences can take their new tokens together.
    pub(crate) fn check_room(
        &self,
        wanted: impl Iterator<Item = (SequenceId, usize)>,
    ) -> Result<(), EngineError> {
        let mut free = self.free.len();
        for (id, tokens) in wanted {
            let sequence = self.get(id)?;
            let room = (sequence.blocks.len() + free) * POSITIONS_PER_BLOCK;
            let available = room.min(self.capacity);
            let needed = sequence.length + tokens;
            if needed > available {
                return Err(EngineError::CacheFull { needed, available });
            }
            let blocks = needed.div_ceil(POSITIONS_PER_BLOCK);
            free -= blocks.saturating_sub(sequence.blocks.len());
        }
        Ok(())
    }

    /// Gives a sequence blocks for more tokens, and counts them in. There must be room for them.
    pub(crate) fn extend(&mut self, id: SequenceId, tokens: usize) -> Result<(), EngineError> {
        self.check_room([(id, tokens)].into_iter())?;
        let sequence = self.get(id)?;
        let wanted = (sequence.length + tokens).div_ceil(POSITIONS_PER_BLOCK);
        let missing = wanted.saturating_sub(sequence.blocks.len());
        let taken = self.free.split_off(self.free.len() - missing);
        let sequence = self.get_mut(id)?;
        sequence.blocks.extend(taken.into_iter().rev());
        sequence.length += tokens;
        Ok(())
    }

    /// Keeps the states as they are now, where there are any.
    pub(crate) fn save_checkpoint(&mut self, id: SequenceId) -> Result<(), EngineError> {
        let sequence = self.get_mut(id)?;
        if sequence.state.is_empty() {
            return Ok(());
        }
        // The memory of the oldest is used again.
        let mut state = match sequence.checkpoints.len() < CHECKPOINTS {
            true => Vec::with_capacity(sequence.state.len()),
            false => sequence.checkpoints.remove(0).1,
        };
        state.clear();
        state.extend_from_slice(&sequence.state);
        sequence.checkpoints.push((sequence.length, state));
        Ok(())
    }

    /// Forgets all positions from `length` on; with recurrent layers, those behind the last checkpoint up to there. Returns
    /// the length that is left.
    pub(crate) fn truncate(&mut self, id: SequenceId, length: usize) -> Result<usize, EngineError> {
        let sequence = self.get_mut(id)?;
        if length >= sequence.length {
            return Ok(sequence.length);
        }
        sequence.length = length;
        if !sequence.state.is_empty() {
            sequence.checkpoints.retain(|(at, _)| *at <= length);
            match sequence.checkpoints.last() {
                Some((at, state)) => {
                    sequence.length = *at;
                    sequence.state.copy_from_slice(state);
                }
                None => {
                    sequence.length = 0;
                    sequence.state.fill(0.0);
                }
            }
        }
        let left = sequence.length;
        sequence.tokens.truncate(left);
        let freed = sequence
            .blocks
            .split_off(left.div_ceil(POSITIONS_PER_BLOCK));
        self.free.extend(freed.into_iter().rev());
        Ok(left)
    }

    pub(crate) fn remove(&mut self, id: SequenceId) -> Result<(), EngineError> {
        self.truncate(id, 0)?;
        self.sequences[id.0 as usize] = None;
        Ok(())
    }
}

/// Blocks for `tokens` positions. A model that embeds is given many short texts at once, each of which takes a whole block
/// for its last tokens.
fn block_count(spec: &ModelSpec, tokens: usize) -> usize {
    let blocks = tokens.div_ceil(POSITIONS_PER_BLOCK);
    if spec.causal {
        blocks
    } else {
        blocks + SHORT_TEXTS
    }
}

/// The distinct slabs of a model, and the slab of each layer.
///
/// Layers that keep no keys share the slab of those they read. A model that sees whole sequences keeps nothing from step to
/// step: layers of one shape share a slab.
fn slabs(spec: &ModelSpec) -> (Vec<KvLayout>, Vec<usize>) {
    let mut layouts = Vec::new();
    let mut slab_of_layer: Vec<usize> = Vec::with_capacity(spec.layers.len());
    for layer in &spec.layers {
        let Some(attention) = layer.attention() else {
            slab_of_layer.push(0);
            continue;
        };
        let layout = KvLayout {
            heads: attention.head_count_kv,
            head_dim_k: attention.head_dim_k,
            head_dim_v: attention.head_dim_v,
        };
        let same = layouts.iter().position(|other| *other == layout);
        let slab = match (attention.shares_kv_of, same) {
            (Some(other), _) => slab_of_layer[other],
            (None, Some(same)) if !spec.causal => same,
            _ => {
                layouts.push(layout);
                layouts.len() - 1
            }
        };
        slab_of_layer.push(slab);
    }
    (layouts, slab_of_layer)
}

/// Bytes of the slabs of a model whose cache has room for so many tokens.
pub(crate) fn slab_bytes(spec: &ModelSpec, element: KvElement, tokens: usize) -> u64 {
    let blocks = block_count(spec, tokens);
    let (layouts, _) = slabs(spec);
    let lengths = layouts.iter().map(|layout| layout.block_len() as u64);
    let block = lengths.sum::<u64>() * element.bytes() as u64;
    block.saturating_mul(blocks as u64)
}
