//! The key-value cache: one slab a layer, and the sequences that own its blocks.

use crate::EngineError;
use crate::spec::ModelSpec;
use dunlin_compute::{KvElement, KvLayout, KvSlab, POSITIONS_PER_BLOCK};

/// A sequence of tokens whose keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId(u32);

/// The blocks of all sequences. A block number stands for the same block in every layer.
pub(crate) struct KvCache {
    pub slabs: Vec<KvSlab>,
    free: Vec<u32>,
    sequences: Vec<Option<Sequence>>,
    capacity: usize,
}

/// Where a sequence's positions lie.
#[derive(Default)]
pub(crate) struct Sequence {
    pub blocks: Vec<u32>,
    /// Positions that hold keys and values.
    pub length: usize,
}

impl KvCache {
    /// Room for `tokens` positions in all, rounded up to whole blocks.
    pub(crate) fn new(spec: &ModelSpec, element: KvElement, tokens: usize) -> Self {
        let blocks = tokens.div_ceil(POSITIONS_PER_BLOCK);
        let slabs = spec.layers.iter().map(|layer| {
            let layout = KvLayout {
                heads: layer.head_count_kv,
                head_dim_k: layer.head_dim_k,
                head_dim_v: layer.head_dim_v,
            };
            KvSlab::new(layout, element, blocks)
        });
        KvCache {
            slabs: slabs.collect(),
            free: (0..blocks as u32).rev().collect(),
            sequences: Vec::new(),
            capacity: tokens,
        }
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
        self.sequences[slot] = Some(Sequence::default());
        SequenceId(slot as u32)
    }

    pub(crate) fn get(&self, id: SequenceId) -> Result<&Sequence, EngineError> {
        self.sequences
            .get(id.0 as usize)
            .and_then(Option::as_ref)
            .ok_or(EngineError::UnknownSequence)
    }

    fn get_mut(&mut self, id: SequenceId) -> Result<&mut Sequence, EngineError> {
        self.sequences
            .get_mut(id.0 as usize)
            .and_then(Option::as_mut)
            .ok_or(EngineError::UnknownSequence)
    }

    /// Positions that a sequence of `length` can still take, with the blocks that are free now.
    pub(crate) fn room(&self, id: SequenceId) -> Result<usize, EngineError> {
        let sequence = self.get(id)?;
        let blocks = sequence.blocks.len() + self.free.len();
        Ok((blocks * POSITIONS_PER_BLOCK)
            .min(self.capacity)
            .saturating_sub(sequence.length))
    }

    /// Gives a sequence blocks for `tokens` more positions, and counts them in.
    pub(crate) fn extend(&mut self, id: SequenceId, tokens: usize) -> Result<(), EngineError> {
        let room = self.room(id)?;
        let length = self.get(id)?.length;
        if tokens > room {
            return Err(EngineError::CacheFull {
                needed: length + tokens,
                available: length + room,
            });
        }
        let wanted = (length + tokens).div_ceil(POSITIONS_PER_BLOCK);
        let missing = wanted.saturating_sub(self.get(id)?.blocks.len());
        let taken = self.free.split_off(self.free.len() - missing);
        let sequence = self.get_mut(id)?;
        sequence.blocks.extend(taken.into_iter().rev());
        sequence.length += tokens;
        Ok(())
    }

    /// Forgets all positions from `length` on.
    pub(crate) fn truncate(&mut self, id: SequenceId, length: usize) -> Result<(), EngineError> {
        let sequence = self.get_mut(id)?;
        sequence.length = sequence.length.min(length);
        let keep = sequence.length.div_ceil(POSITIONS_PER_BLOCK);
        let freed = sequence.blocks.split_off(keep);
        self.free.extend(freed.into_iter().rev());
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: SequenceId) -> Result<(), EngineError> {
        self.truncate(id, 0)?;
        self.sequences[id.0 as usize] = None;
        Ok(())
    }
}
