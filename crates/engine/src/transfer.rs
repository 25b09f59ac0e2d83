//! Computed sequences leave the engine as bytes and come back, in this process or another.
//!
//! The bytes are a head of 64 bytes, the states of recurrent layers, and the blocks in order, each as it lies in the cache. The
//! head says what the rest depends on; who keeps the bytes says of which model they are and whether they are whole.

use std::io::{Read, Write};

use crate::kv::{KvTypes, SequenceId, slabs};
use crate::lora::AdapterSet;
use crate::{Engine, EngineError};
use dunlin_compute::{KvElement, KvElements, POSITIONS_PER_BLOCK, store_kv};

/// The first bytes; the last one is the version of the layout.
const MAGIC: [u8; 8] = *b"dunlinK\x01";
/// Bytes before the states: the magic, the names of the number types, and five numbers.
const HEAD: usize = 64;
/// Bytes of the names of the number types ([`type_names`]).
const NAMES: usize = 4 * NAME;
/// Longest name of a number type.
const NAME: usize = 4;

/// The numbers of the head, in order.
const NUMBERS: [&str; 5] = [
    "a byte order of",
    "positions and bytes of a block of",
    "numbers of recurrent states of",
    "a rotation of",
    "a length in tokens of",
];

impl Engine {
    /// Bytes that [`Engine::export_sequence`] writes for a sequence of so many tokens.
    pub fn export_bytes(&self, tokens: usize) -> u64 {
        let blocks = tokens.div_ceil(POSITIONS_PER_BLOCK) as u64;
        let states = self.cache.state_len() as u64 * 4;
        let blocks = blocks.saturating_mul(self.cache.slabs.block_bytes() as u64);
        (HEAD as u64 + states).saturating_add(blocks)
    }

    /// Writes what was computed of a sequence: keys and values of all layers, and the states of recurrent ones, but not its
    /// tokens. Positions of its last block that it does not have are written as zeros.
    ///
    /// # Errors
    /// [`EngineError::UnknownSequence`]; [`EngineError::Transfer`] where `out` fails; [`EngineError::CacheFull`] where the
    /// last block is shared and there is no room for a copy; [`EngineError::WrongSequence`] for one that is computed with adapters,
    /// which the bytes would not tell.
    pub fn export_sequence(
        &mut self,
        id: SequenceId,
        out: &mut impl Write,
    ) -> Result<(), EngineError> {
        if self.cache.get(id)?.computation.adapters != AdapterSet::default() {
            return Err(EngineError::WrongSequence {
                what: "the adapters",
                found: "some".to_owned(),
                expected: "none".to_owned(),
            });
        }
        self.clear_rest(id)?;
        let sequence = self.cache.get(id)?;
        let head = self.head(sequence.computation.long, sequence.length);
        out.write_all(&head).map_err(EngineError::Transfer)?;
        for number in &sequence.state {
            out.write_all(&number.to_le_bytes())
                .map_err(EngineError::Transfer)?;
        }
        for block in &sequence.blocks {
            out.write_all(self.cache.slabs.block(*block))
                .map_err(EngineError::Transfer)?;
        }
        Ok(())
    }

    /// Starts a sequence of `tokens` with what [`Engine::export_sequence`] wrote of a sequence of the same tokens. They can be
    /// found by other sequences when it ends ([`Engine::remove_sequence`]).
    ///
    /// # Errors
    /// [`EngineError::WrongSequence`] for bytes of another set-up or length; [`EngineError::Transfer`] where `from` fails or
    /// ends early; [`EngineError::CacheFull`]; [`EngineError::TokenOutOfRange`]. There is no sequence then.
    pub fn import_sequence(
        &mut self,
        tokens: &[u32],
        from: &mut impl Read,
    ) -> Result<SequenceId, EngineError> {
        let vocab_size = self.spec.vocab_size;
        let outside = tokens.iter().find(|&&token| token as usize >= vocab_size);
        if let Some(&token) = outside {
            return Err(EngineError::TokenOutOfRange { token, vocab_size });
        }
        let mut head = [0; HEAD];
        from.read_exact(&mut head).map_err(EngineError::Transfer)?;
        let long = self.check_head(&head, tokens.len())?;
        let id = self.cache.create();
        match self.fill(id, tokens, long, from) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.cache.discard(id)?;
                Err(error)
            }
        }
    }

    /// Forgets what earlier sequences have left of the beginnings of `tokens`, as far as no sequence goes on from it, and gives
    /// the memory back to the cache. Returns how many tokens that are.
    pub fn forget_prefix(&mut self, tokens: &[u32]) -> usize {
        self.cache.forget(tokens)
    }

    fn head(&self, long: bool, length: usize) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&MAGIC);
        head[8..8 + NAMES].copy_from_slice(&type_names(self.config.kv_types));
        let yarn = self.config.yarn_factor.map_or(0, f32::to_bits);
        let numbers = [
            u64::from(cfg!(target_endian = "big")),
            ((self.cache.slabs.block_bytes() as u64) << 8) | POSITIONS_PER_BLOCK as u64,
            self.cache.state_len() as u64,
            (u64::from(yarn) << 1) | u64::from(long),
            length as u64,
        ];
        for (bytes, number) in head[8 + NAMES..].chunks_exact_mut(8).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        head
    }

    /// Checks that the bytes behind a head can be used for so many tokens. Returns whether they were computed with the
    /// rotation for long sequences.
    fn check_head(&self, found: &[u8; HEAD], length: usize) -> Result<bool, EngineError> {
        let long = self.original_context().is_some() && found[8 + NAMES + 24] & 1 == 1;
        let expected = self.head(long, length);
        let wrong = |what, found: String, expected: String| {
            Err(EngineError::WrongSequence {
                what,
                found,
                expected,
            })
        };
        let ((magic, names), (own_magic, own_names)) = (
            found[..8 + NAMES].split_at(8),
            expected[..8 + NAMES].split_at(8),
        );
        if magic != own_magic {
            return wrong("the mark", text(magic), text(own_magic));
        }
        if names != own_names {
            let found = types_named(names).map_or_else(|| text(names), |types| types.to_string());
            return wrong("the KV type", found, self.config.kv_types.to_string());
        }
        let numbers = |head: &[u8; HEAD]| {
            let mut numbers = [0; NUMBERS.len()];
            for (number, bytes) in numbers.iter_mut().zip(head[8 + NAMES..].chunks_exact(8)) {
                *number = bytes
                    .iter()
                    .rev()
                    .fold(0, |number, byte| (number << 8) | u64::from(*byte));
            }
            numbers
        };
        let pairs = numbers(found).into_iter().zip(numbers(&expected));
        match pairs
            .zip(NUMBERS)
            .find(|((found, expected), _)| found != expected)
        {
            None => Ok(long),
            Some(((found, expected), what)) => Err(EngineError::WrongSequence {
                what,
                found: found.to_string(),
                expected: expected.to_string(),
            }),
        }
    }

    fn fill(
        &mut self,
        id: SequenceId,
        tokens: &[u32],
        long: bool,
        from: &mut impl Read,
    ) -> Result<(), EngineError> {
        self.cache.extend(id, tokens.len())?;
        let mut state = vec![0.0; self.cache.state_len()];
        for number in &mut state {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes).map_err(EngineError::Transfer)?;
            *number = f32::from_le_bytes(bytes);
        }
        let blocks = self.cache.get(id)?.blocks.clone();
        for block in blocks {
            from.read_exact(self.cache.slabs.block_mut(block))
                .map_err(EngineError::Transfer)?;
        }
        let sequence = self.cache.get_mut(id)?;
        sequence.state = state;
        sequence.computation.long = long;
        sequence.tokens.extend_from_slice(tokens);
        self.cache.save_checkpoint(id)
    }

    /// Writes zeros to the positions of the last block that the sequence does not have: another text may have left its keys and
    /// values there.
    fn clear_rest(&mut self, id: SequenceId) -> Result<(), EngineError> {
        self.cache.own_tail(id)?;
        let sequence = self.cache.get(id)?;
        let first = sequence.length % POSITIONS_PER_BLOCK;
        let Some(&block) = sequence.blocks.last().filter(|_| first > 0) else {
            return Ok(());
        };
        let places: Vec<_> = (first..POSITIONS_PER_BLOCK)
            .map(|offset| (block, offset as u32))
            .collect();
        for (slab, (layout, _)) in slabs(&self.spec, self.config.kv_types)
            .0
            .into_iter()
            .enumerate()
        {
            let zeros = |dim| vec![0.0; places.len() * layout.heads * dim];
            store_kv(
                &self.pool,
                self.config.tier,
                &mut self.cache.slabs,
                slab,
                &places,
                &zeros(layout.head_dim_k),
                &zeros(layout.head_dim_v),
            );
        }
        Ok(())
    }
}

/// The names of the types of keys and values, then of those of layers with a window, each in 4 bytes. One that is the first, too, is left
/// out.
fn type_names(types: KvTypes) -> [u8; NAMES] {
    let KvTypes { full, window, .. } = types;
    let all = [full.keys, full.values, window.keys, window.values];
    let mut names = [0; NAMES];
    for (index, (bytes, element)) in names.chunks_exact_mut(NAME).zip(all).enumerate() {
        if index == 0 || element != all[0] {
            bytes
                .iter_mut()
                .zip(element.name().as_bytes())
                .for_each(|(to, from)| *to = *from);
        }
    }
    names
}

/// What [`type_names`] gave these names.
fn types_named(names: &[u8]) -> Option<KvTypes> {
    let element = |index: usize| {
        let bytes = names.get(NAME * index..)?.get(..NAME)?;
        let name = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
        KvElement::from_name(name)
    };
    let first = element(0)?;
    let left_out = |index: usize| {
        names[NAME * index..]
            .iter()
            .take(NAME)
            .all(|byte| *byte == 0)
    };
    let of = |index: usize| match left_out(index) {
        true => Some(first),
        false => element(index),
    };
    let elements = |index: usize| {
        Some(KvElements {
            keys: of(index)?,
            values: of(index + 1)?,
        })
    };
    Some(KvTypes::from(elements(0)?).with_window(elements(2)?))
}

/// Bytes that should be a text.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    format!("{:?}", text.trim_end_matches('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_types_has_names_of_its_own() {
        for full in combinations() {
            for window in combinations() {
                let types = KvTypes::from(full).with_window(window);
                assert_eq!(types_named(&type_names(types)), Some(types));
            }
        }
        // As it was when all were the same.
        assert_eq!(
            type_names(KvElement::Q8_0.into()),
            *b"Q8_0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
        assert_eq!(types_named(b"Q9_0\0\0\0\0\0\0\0\0\0\0\0\0"), None);
        assert_eq!(types_named(&[0; NAMES]), None);
    }

    fn combinations() -> impl Iterator<Item = KvElements> {
        KvElement::ALL.into_iter().flat_map(|keys| {
            let values = KvElement::ALL.into_iter();
            values.map(move |values| KvElements { keys, values })
        })
    }
}
