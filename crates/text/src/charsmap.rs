//! The normalization that a SentencePiece model brings along (`precompiled_charsmap`): a map from
//! strings to strings, as a double-array trie of the strings and a list of what replaces them.
//!
//! Layout (SentencePiece, `normalizer.cc`; darts-clone): 4 bytes with the size of the trie in bytes,
//! the units of the trie (32 bits each, little endian), then the replacements, each ended by a zero
//! byte. It comes from a file, so every place in it is checked.

use crate::TextError;

/// Longer strings are looked up by their beginning (Unicode's longest compositions have 30 bytes), so
/// that a map cannot make this slow.
const MAX_KEY_BYTES: usize = 128;
/// Unicode's longest compatibility decomposition has 33 bytes. A longer replacement would let a short
/// text ask for much memory.
const MAX_REPLACEMENT_BYTES: usize = 256;

pub(crate) struct Charsmap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl Charsmap {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        let damaged = || TextError::Vocabulary {
            reason: "its `precompiled_charsmap` is cut short".to_owned(),
        };
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let size = usize::try_from(u32::from_le_bytes(*size)).map_err(|_| damaged())?;
        if size > rest.len() || !size.is_multiple_of(4) {
            return Err(damaged());
        }
        let (trie, replacements) = rest.split_at(size);
        let (units, _) = trie.as_chunks::<4>();
        // Every replacement ends before the end of the list.
        if replacements.last().is_some_and(|&byte| byte != 0) {
            return Err(damaged());
        }
        let mut all = replacements.split(|&byte| byte == 0);
        if let Some(long) = all.find(|replacement| replacement.len() > MAX_REPLACEMENT_BYTES) {
            let reason = format!(
                "its `precompiled_charsmap` replaces by {} bytes",
                long.len()
            );
            return Err(TextError::Vocabulary { reason });
        }
        Ok(Self {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            replacements: replacements.to_vec(),
        })
    }

    /// What replaces the longest beginning of `text` that is in the map, and how many bytes of
    /// `text` that is.
    pub(crate) fn longest_prefix(&self, text: &str) -> Option<(&str, usize)> {
        let mut found = None;
        let mut at = offset(*self.units.first()?);
        for (index, &byte) in text.as_bytes().iter().enumerate().take(MAX_KEY_BYTES) {
            at ^= usize::from(byte);
            let unit = self.units.get(at).copied().unwrap_or_default();
            if byte == 0 || label(unit) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if let Some(&leaf) = self.units.get(at).filter(|_| has_leaf(unit)) {
                found = Some((value(leaf), index + 1));
            }
        }
        let (start, length) = found?;
        // A beginning in the middle of a character would leave half of it.
        if !text.is_char_boundary(length) {
            return None;
        }
        let replacement = self.replacements.get(start..)?;
        let end = replacement.iter().position(|&byte| byte == 0)?;
        Some((std::str::from_utf8(&replacement[..end]).ok()?, length))
    }
}

/// Where the children of a node stand, relative to it.
fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

/// The byte that leads to a node. A leaf has none: bit 31 is set.
fn label(unit: u32) -> u32 {
    unit & ((1 << 31) | 0xFF)
}

fn has_leaf(unit: u32) -> bool {
    unit & (1 << 8) != 0
}

fn value(leaf: u32) -> usize {
    (leaf & ((1 << 31) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_maps_are_refused_or_find_nothing() {
        for bytes in [
            &[][..],
            &[1, 0, 0],
            &[8, 0, 0, 0, 1, 2, 3, 4],
            &[3, 0, 0, 0, 1, 2, 3, 0],
        ] {
            assert!(Charsmap::parse(bytes).is_err(), "{bytes:?}");
        }
        assert!(Charsmap::parse(&[0, 0, 0, 0, 65]).is_err());
        let empty = Charsmap::parse(&[0, 0, 0, 0]).unwrap();
        assert_eq!(empty.longest_prefix("a"), None);
        for unit in [0, u32::MAX, 1 << 9, 0x1234_5678, (1 << 10) | (1 << 8) | 97] {
            let mut bytes = 16_u32.to_le_bytes().to_vec();
            bytes.extend([unit; 4].iter().flat_map(|unit| unit.to_le_bytes()));
            bytes.extend([0xFF, 0]);
            let map = Charsmap::parse(&bytes).unwrap();
            for text in ["a", "aaaa", "é", "\0", ""] {
                assert_eq!(map.longest_prefix(text), None);
            }
        }
    }
}
