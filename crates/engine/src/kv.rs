//! What a model keeps of its sequences: keys and values in slabs of blocks, and the states of recurrent layers.
//!
//! A state cannot be cut back like a list of keys. So that a prefix can be used again, the states after the last few prompts
//! and pieces of prompts are kept as checkpoints, and a sequence is cut back to one of them.
//!
//! What a sequence leaves is found again by its tokens ([`Blocks`]).

mod types;

use crate::EngineError;
use crate::lora::AdapterId;
use crate::prefix::{Blocks, Computation, State};
use crate::spec::ModelSpec;
use dunlin_compute::{KvElements, KvLayout, KvSlabs, POSITIONS_PER_BLOCK};
use std::sync::Arc;
pub use types::KvTypes;

/// A sequence of tokens whose keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId(u32);

/// Checkpoints that a sequence keeps, the latest ones.
pub(crate) const CHECKPOINTS: usize = 3;

/// Short texts that a model that sees both sides computes at once.
const SHORT_TEXTS: usize = 32;

/// The blocks of all sequences. A block has a part in every slab.
pub(crate) struct KvCache {
    pub slabs: KvSlabs,
    /// The slab of each layer that attends; 0 for others.
    pub slab_of_layer: Vec<usize>,
    /// Where each layer's state begins in a sequence's state.
    pub state_of_layer: Vec<usize>,
    state_len: usize,
    blocks: Blocks,
    sequences: Vec<Option<Sequence>>,
    capacity: usize,
}

/// What is kept of a sequence.
#[derive(Default)]
pub(crate) struct Sequence {
    pub blocks: Vec<u32>,
    /// Blocks at the beginning that are a path of the trie.
    shared: usize,
    /// Positions that hold keys and values.
    pub length: usize,
    /// The states of recurrent layers after `length` tokens.
    pub state: Vec<f32>,
    checkpoints: Vec<(usize, State)>,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Tokens that the caller said it will have at least.
    pub expected: usize,
    /// How it is computed.
    pub computation: Computation,
}

impl KvCache {
    /// Room for `tokens` positions in all, rounded up to whole blocks.
    pub(crate) fn new(spec: &ModelSpec, types: KvTypes, tokens: usize) -> Self {
        let blocks = block_count(spec, tokens);
        let (slabs, slab_of_layer) = slabs(spec, types);
        let mut state_len = 0;
        let state_of_layer = spec.layers.iter().map(|layer| {
            let at = state_len;
            state_len += layer.mixer.state_len();
            at
        });
        let state_of_layer = state_of_layer.collect();
        KvCache {
            slabs: KvSlabs::new(&slabs, blocks),
            slab_of_layer,
            state_of_layer,
            state_len,
            blocks: Blocks::new(blocks),
            sequences: Vec::new(),
            capacity: tokens,
        }
    }

    /// Makes room for more tokens. What the slabs hold is lost, so no sequence may hold anything.
    pub(crate) fn grow(&mut self, spec: &ModelSpec, types: KvTypes, tokens: usize) {
        let bigger = KvCache::new(spec, types, tokens);
        self.slabs = bigger.slabs;
        self.blocks = bigger.blocks;
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

    /// Starts a sequence with what is known of the beginning of `tokens`, and returns how many tokens that are: at most all but
    /// the last.
    pub(crate) fn create_with_prefix(
        &mut self,
        tokens: &[u32],
        computation: Computation,
    ) -> (SequenceId, usize) {
        for slot in 0..self.sequences.len() {
            self.publish(SequenceId(slot as u32));
        }
        let id = self.create();
        let recurrent = self.state_len > 0;
        let known = &tokens[..tokens.len().saturating_sub(1)];
        let found = self.blocks.find(&computation, known, recurrent);
        let mut blocks = found.blocks;
        let shared = blocks.len();
        let mut length = shared * POSITIONS_PER_BLOCK;
        if let Some((block, count)) = found.part {
            let slabs = &mut self.slabs;
            let copy = |from, to| slabs.copy_block(from, to);
            if let Some(block) = self.blocks.take_part(block, count, copy) {
                blocks.push(block);
                length += count;
            }
        }
        let is_whole = found.part.is_none() || blocks.len() > shared;
        if let Some(sequence) = &mut self.sequences[id.0 as usize] {
            sequence.expected = tokens.len();
            sequence.computation = computation;
            if let Some(state) = found.state.filter(|_| is_whole) {
                sequence.state.copy_from_slice(&state);
                sequence.checkpoints.push((length, state));
            } else if recurrent {
                blocks
                    .drain(..)
                    .for_each(|block| self.blocks.release(block));
                length = 0;
            }
            sequence.shared = shared.min(blocks.len());
            sequence.blocks = blocks;
            sequence.length = length;
            sequence.tokens.extend_from_slice(&tokens[..length]);
        }
        (id, length)
    }

    /// Starts a sequence with all that another one has, whose full blocks are shared and whose last one is copied.
    pub(crate) fn fork(&mut self, id: SequenceId) -> Result<SequenceId, EngineError> {
        self.get(id)?;
        self.publish(id);
        let source = self.get(id)?;
        let (mut blocks, length) = (source.blocks.clone(), source.length);
        let copied = source.blocks.get(source.shared).copied();
        blocks.truncate(source.shared);
        let fork = Sequence {
            blocks: Vec::new(),
            shared: source.shared,
            length,
            state: source.state.clone(),
            checkpoints: source.checkpoints.clone(),
            tokens: source.tokens.clone(),
            expected: source.expected,
            computation: source.computation.clone(),
        };
        // The one thing that can fail comes first.
        let own = match copied {
            Some(_) => Some(self.blocks.take().ok_or(EngineError::CacheFull {
                needed: length,
                available: blocks.len() * POSITIONS_PER_BLOCK,
            })?),
            None => None,
        };
        blocks.iter().for_each(|block| self.blocks.hold(*block));
        if let (Some(from), Some(to)) = (copied, own) {
            self.slabs.copy_block(from, to);
            blocks.push(to);
        }
        let id = self.create();
        *self.get_mut(id)? = Sequence { blocks, ..fork };
        Ok(id)
    }

    /// Blocks that can be had.
    pub(crate) fn free_blocks(&self) -> usize {
        self.blocks.available()
    }

    /// Checks that all sequences can take their new tokens together.
    pub(crate) fn check_room(
        &self,
        wanted: impl Iterator<Item = (SequenceId, usize)>,
    ) -> Result<(), EngineError> {
        let mut free = self.blocks.available();
        for (id, tokens) in wanted {
            let sequence = self.get(id)?;
            // A last block that others read, too, is copied before it is written, and is not available then if they hold it.
            let tail = self.shared_tail(sequence);
            let copied = usize::from(tail.is_some_and(|tail| self.blocks.has_other_holders(tail)));
            let room = (sequence.blocks.len() + free).saturating_sub(copied) * POSITIONS_PER_BLOCK;
            let available = room.min(self.capacity);
            let needed = sequence.length + tokens;
            if needed > available {
                return Err(EngineError::CacheFull { needed, available });
            }
            let blocks = needed.div_ceil(POSITIONS_PER_BLOCK) + copied;
            free -= blocks.saturating_sub(sequence.blocks.len());
        }
        Ok(())
    }

    /// The block that a sequence would write to next where it is filled in part and others may read it.
    fn shared_tail(&self, sequence: &Sequence) -> Option<u32> {
        let in_part = !sequence.length.is_multiple_of(POSITIONS_PER_BLOCK);
        let last = sequence.blocks.last().filter(|_| in_part)?;
        self.blocks.is_shared(*last).then_some(*last)
    }

    /// Gives a sequence blocks for more tokens, and counts them in. There must be room for them.
    pub(crate) fn extend(&mut self, id: SequenceId, tokens: usize) -> Result<(), EngineError> {
        self.check_room([(id, tokens)].into_iter())?;
        self.own_tail(id)?;
        let sequence = self.get(id)?;
        let needed = sequence.length + tokens;
        let missing = needed.div_ceil(POSITIONS_PER_BLOCK) - sequence.blocks.len();
        for _ in 0..missing {
            let block = self.blocks.take().ok_or(EngineError::CacheFull {
                needed,
                available: needed - tokens,
            })?;
            self.get_mut(id)?.blocks.push(block);
        }
        self.get_mut(id)?.length = needed;
        Ok(())
    }

    /// Makes a last block that is filled in part the sequence's own, so that it can be written.
    pub(crate) fn own_tail(&mut self, id: SequenceId) -> Result<(), EngineError> {
        if let Some(block) = self.shared_tail(self.get(id)?) {
            let own = self.make_own(block)?;
            let blocks = &mut self.get_mut(id)?.blocks;
            blocks.pop();
            blocks.push(own);
        }
        Ok(())
    }

    /// A block that can be written, with what a shared one holds, which is given up for it.
    fn make_own(&mut self, block: u32) -> Result<u32, EngineError> {
        if !self.blocks.must_be_copied(block) {
            self.blocks.detach(block);
            return Ok(block);
        }
        let own = self.blocks.take().ok_or(EngineError::CacheFull {
            needed: 1,
            available: 0,
        })?;
        self.slabs.copy_block(block, own);
        self.blocks.release(block);
        Ok(own)
    }

    /// Keeps the states as they are now, where there are any.
    pub(crate) fn save_checkpoint(&mut self, id: SequenceId) -> Result<(), EngineError> {
        let sequence = self.get_mut(id)?;
        if sequence.state.is_empty() {
            return Ok(());
        }
        // The memory of the oldest is used again where nobody else has it.
        let oldest = match sequence.checkpoints.len() < CHECKPOINTS {
            true => None,
            false => Arc::into_inner(sequence.checkpoints.remove(0).1),
        };
        let mut state = oldest.unwrap_or_default();
        state.clear();
        state.extend_from_slice(&sequence.state);
        let checkpoint = (sequence.length, Arc::new(state));
        sequence.checkpoints.push(checkpoint);
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
        sequence.shared = sequence.shared.min(left / POSITIONS_PER_BLOCK);
        let freed = sequence
            .blocks
            .split_off(left.div_ceil(POSITIONS_PER_BLOCK));
        for block in freed.into_iter().rev() {
            self.blocks.release(block);
        }
        Ok(left)
    }

    /// Puts the full blocks of a sequence into the trie, and the states at its checkpoints.
    fn publish(&mut self, id: SequenceId) {
        let Some(Some(sequence)) = self.sequences.get_mut(id.0 as usize) else {
            return;
        };
        let Sequence {
            blocks,
            tokens,
            shared,
            computation,
            ..
        } = &mut *sequence;
        for (index, tokens) in tokens.chunks_exact(POSITIONS_PER_BLOCK).enumerate() {
            if index >= *shared {
                let parent = index.checked_sub(1).map(|before| blocks[before]);
                blocks[index] = self
                    .blocks
                    .insert(computation, parent, tokens, blocks[index]);
                *shared = index + 1;
            }
        }
        for (position, state) in &sequence.checkpoints {
            leave_state(&mut self.blocks, sequence, *position, state);
        }
    }

    /// Ends a sequence. Its tokens are found again until their memory is needed.
    pub(crate) fn remove(&mut self, id: SequenceId) -> Result<(), EngineError> {
        self.get(id)?;
        self.publish(id);
        let Some(mut sequence) = self.sequences[id.0 as usize].take() else {
            return Err(EngineError::UnknownSequence);
        };
        for block in &sequence.blocks[..sequence.shared] {
            self.blocks.touch(*block);
        }
        let whole = sequence.shared * POSITIONS_PER_BLOCK;
        let rest = sequence.tokens.get(whole..).unwrap_or_default();
        if let ([parent @ .., last], false) = (&mut sequence.blocks[..], rest.is_empty()) {
            let parent = parent.last().copied();
            *last = self
                .blocks
                .insert(&sequence.computation, parent, rest, *last);
        }
        // A state is left where a text may go on.
        if !sequence.state.is_empty() && sequence.length > 0 {
            let state = Arc::new(std::mem::take(&mut sequence.state));
            for (position, state) in &sequence.checkpoints {
                leave_state(&mut self.blocks, &sequence, *position, state);
            }
            leave_state(&mut self.blocks, &sequence, sequence.length, &state);
        }
        for block in sequence.blocks.iter().rev() {
            self.blocks.release(*block);
        }
        Ok(())
    }

    /// Ends a sequence of which nothing is to be found again.
    pub(crate) fn discard(&mut self, id: SequenceId) -> Result<(), EngineError> {
        self.truncate(id, 0)?;
        self.sequences[id.0 as usize] = None;
        Ok(())
    }

    /// Sequences that have this adapter.
    pub(crate) fn sequences_with(&self, adapter: AdapterId) -> usize {
        let sequences = self.sequences.iter().flatten();
        let with = sequences.filter(|sequence| sequence.computation.adapters.has(adapter));
        with.count()
    }

    /// Forgets what the beginnings of `tokens` have left without adapters, as far as no sequence and no other text needs it. Returns
    /// how many tokens that are.
    pub(crate) fn forget(&mut self, tokens: &[u32]) -> usize {
        let forget = |long| {
            let computation = Computation {
                long,
                ..Computation::default()
            };
            self.blocks.forget(&computation, tokens)
        };
        [false, true].map(forget).iter().sum()
    }

    /// Numbers of the states of all recurrent layers.
    pub(crate) fn state_len(&self) -> usize {
        self.state_len
    }

    /// Ends all sequences and forgets all tokens.
    pub(crate) fn clear(&mut self) {
        self.sequences.clear();
        self.blocks = Blocks::new(self.blocks.count());
    }
}

/// Leaves a state in the block that has the token before `position`, where that is in the trie.
fn leave_state(blocks: &mut Blocks, sequence: &Sequence, position: usize, state: &State) {
    let Some(before) = position
        .checked_sub(1)
        .filter(|_| position <= sequence.tokens.len())
    else {
        return;
    };
    let count = before % POSITIONS_PER_BLOCK + 1;
    if let Some(block) = sequence.blocks.get(before / POSITIONS_PER_BLOCK) {
        blocks.leave_state(*block, count, state);
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
/// step: layers of one shape and type share a slab.
pub(crate) fn slabs(spec: &ModelSpec, types: KvTypes) -> (Vec<(KvLayout, KvElements)>, Vec<usize>) {
    let mut slabs = Vec::new();
    let mut slab_of_layer: Vec<usize> = Vec::with_capacity(spec.layers.len());
    for layer in &spec.layers {
        let Some(attention) = layer.attention() else {
            slab_of_layer.push(0);
            continue;
        };
        let own = (attention.kv_layout(), types.of(attention));
        let same = slabs.iter().position(|other| *other == own);
        let slab = match (attention.shares_kv_of, same) {
            (Some(other), _) => slab_of_layer[other],
            (None, Some(same)) if !spec.causal => same,
            _ => {
                slabs.push(own);
                slabs.len() - 1
            }
        };
        slab_of_layer.push(slab);
    }
    (slabs, slab_of_layer)
}

/// Bytes of the slabs of a model whose cache has room for so many tokens.
pub(crate) fn slab_bytes(spec: &ModelSpec, types: KvTypes, tokens: usize) -> u64 {
    let blocks = block_count(spec, tokens);
    let (slabs, _) = slabs(spec, types);
    let bytes = slabs
        .iter()
        .map(|(layout, elements)| layout.block_bytes(*elements) as u64);
    bytes.sum::<u64>().saturating_mul(blocks as u64)
}

#[cfg(test)]
mod tests;
