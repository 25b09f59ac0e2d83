//! The list of merges of a BPE vocabulary as a table from two tokens to their place in the list.
//!
//! Gemma 4 has 514,906 merges. The `tokenizers` crate builds its tables of them in most of a second;
//! this table holds two ids and a rank for each.

use std::hash::{BuildHasher, RandomState};

use dunlin_format::Metadata;
use hashbrown::HashTable;

use crate::{TextError, TokenId, bpe, vocabulary::Vocabulary};

/// As many as the priorities of merging tell apart (24 bits).
const MAX_MERGES: usize = 1 << 24;

pub(crate) struct PairRanks {
    table: HashTable<(TokenId, TokenId, u32)>,
    /// Seeded at random: the pairs come from the file, and ones chosen to collide must not make this
    /// slow.
    hasher: RandomState,
}

impl PairRanks {
    pub(crate) fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
    ) -> Result<Self, TextError> {
        let merges = metadata.require_strings("tokenizer.ggml.merges")?;
        if merges.len() > MAX_MERGES {
            let reason = format!("it has {} merges, {MAX_MERGES} are the most", merges.len());
            return Err(TextError::Vocabulary { reason });
        }
        let hasher = RandomState::new();
        let mut union = String::new();
        let mut table = HashTable::with_capacity(merges.len());
        for (rank, merge) in (0..).zip(merges.iter()) {
            let (left, right) = bpe::halves(merge).ok_or_else(|| damaged(merge))?;
            union.clear();
            union.extend([left, right]);
            let ids = (
                vocabulary.id(left),
                vocabulary.id(right),
                vocabulary.id(&union),
            );
            let (Some(left), Some(right), Some(_)) = ids else {
                return Err(damaged(merge));
            };
            let same = |&(l, r, _): &(TokenId, TokenId, u32)| (l, r) == (left, right);
            let rehash = |&(l, r, _): &(TokenId, TokenId, u32)| hasher.hash_one((l, r));
            // Of a merge that is listed twice the first counts.
            table
                .entry(hasher.hash_one((left, right)), same, rehash)
                .or_insert((left, right, rank));
        }
        Ok(Self { table, hasher })
    }

    /// The place of the merge of two tokens in the list.
    pub(crate) fn rank(&self, left: TokenId, right: TokenId) -> Option<u32> {
        let same = |&(l, r, _): &(TokenId, TokenId, u32)| (l, r) == (left, right);
        let found = self.table.find(self.hasher.hash_one((left, right)), same);
        found.map(|&(_, _, rank)| rank)
    }
}

fn damaged(merge: &str) -> TextError {
    TextError::Vocabulary {
        reason: format!(
            "the merge `{merge}` is not two tokens with a space between whose union is a token"
        ),
    }
}
