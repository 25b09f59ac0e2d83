//! The list of merges of a BPE vocabulary as a table from two texts to their place in the list.
//!
//! Gemma 4 has 514,906 merges, and they are read whenever the model is loaded. So the table holds
//! nothing but places in the list, and looks a merge up by its own text.

use std::hash::{BuildHasher, RandomState};

use dunlin_format::{Metadata, StringArray};
use hashbrown::HashTable;

use crate::{TextError, bpe};

/// As many as the priorities of merging tell apart (24 bits).
const MAX_MERGES: usize = 1 << 24;

pub(crate) struct PairRanks {
    merges: StringArray,
    ranks: HashTable<u32>,
    /// Seeded at random: the merges come from the file, and ones chosen to collide must not make this
    /// slow.
    hasher: RandomState,
}

impl PairRanks {
    pub(crate) fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let merges = metadata.require_strings("tokenizer.ggml.merges")?.clone();
        if merges.len() > MAX_MERGES {
            let reason = format!("it has {} merges, {MAX_MERGES} are the most", merges.len());
            return Err(TextError::Vocabulary { reason });
        }
        let hasher = RandomState::new();
        let mut ranks = HashTable::with_capacity(merges.len());
        for (rank, merge) in (0..).zip(merges.iter()) {
            if bpe::halves(merge).is_none() {
                let reason = format!("the merge `{merge}` is not two tokens with a space between");
                return Err(TextError::Vocabulary { reason });
            }
            let same = |&other: &u32| merges.get(other as usize) == Some(merge);
            let rehash = |&other: &u32| hasher.hash_one(merges.get(other as usize).unwrap_or(""));
            // Of a merge that is listed twice the first counts.
            let entry = ranks.entry(hasher.hash_one(merge), same, rehash);
            entry.or_insert(rank);
        }
        Ok(Self {
            merges,
            ranks,
            hasher,
        })
    }

    /// The place of a merge in the list. `merge` is both halves with a space between; the halves
    /// themselves hold none.
    pub(crate) fn rank(&self, merge: &str) -> Option<u32> {
        let same = |&rank: &u32| self.merges.get(rank as usize) == Some(merge);
        self.ranks.find(self.hasher.hash_one(merge), same).copied()
    }
}
