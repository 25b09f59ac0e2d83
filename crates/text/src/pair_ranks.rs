//! The list of merges of a BPE vocabulary as a table from two texts to their place in the list.
//!
//! Gemma 4 has 514,906 merges, and they are read whenever the model is loaded. So the table holds
//! nothing but places in the list, and looks a merge up by its own text.

use std::hash::BuildHasher;

use dunlin_format::{Metadata, StringArray};
use foldhash::quality::RandomState;

use crate::{
    TextError, bpe,
    index::{Index, MAX_PLACES},
};

pub(crate) struct PairRanks {
    merges: StringArray,
    ranks: Index,
    /// Seeded at random: the merges come from the file, and ones chosen to collide must not make this
    /// slow.
    hasher: RandomState,
}

impl PairRanks {
    pub(crate) fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let merges = metadata.require_strings("tokenizer.ggml.merges")?.clone();
        // The priorities of merging tell as many apart (24 bits).
        if merges.len() > MAX_PLACES {
            let reason = format!("it has {} merges, {MAX_PLACES} are the most", merges.len());
            return Err(TextError::Vocabulary { reason });
        }
        if let Some(merge) = merges.iter().find(|merge| bpe::halves(merge).is_none()) {
            let reason = format!("the merge `{merge}` is not two tokens with a space between");
            return Err(TextError::Vocabulary { reason });
        }
        let hasher = RandomState::default();
        let ranks = Index::of(merges.iter().map(|merge| hasher.hash_one(merge)));
        Ok(Self {
            merges,
            ranks,
            hasher,
        })
    }

    /// The place of a merge in the list; of one that is listed twice the first. `merge` is both halves with a space
    /// between; the halves themselves hold none.
    pub(crate) fn rank(&self, merge: &str) -> Option<u32> {
        let mut places = self.ranks.places(self.hasher.hash_one(merge));
        places.find(|&rank| self.merges.get(rank as usize) == Some(merge))
    }
}
