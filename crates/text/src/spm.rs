//! SentencePiece-style BPE: no words, no list of merges. Of all neighbouring pieces whose union is
//! a token, the union with the best score is merged first, the leftmost among equals
//! (SentencePiece, `bpe_model.cc`); what is no token in the end becomes bytes.
//!
//! This works straight on the scores. The `tokenizers` crate needs the list of merges that the
//! scores imply; rebuilding it for Gemma (513,511 merges) and building the crate's tables of it
//! takes 0.8 s, this construction less than a tenth of that.

use std::{cmp::Ordering, collections::BinaryHeap};

use dunlin_format::Metadata;

use crate::{
    TextError, TokenId,
    vocabulary::{self, TokenKind, Vocabulary},
};

/// SentencePiece's stand-in for the space, U+2581.
pub(crate) const SPACE: char = '\u{2581}';

pub(crate) struct Spm {
    scores: Vec<f32>,
    /// The token of each byte.
    bytes: Box<[Option<TokenId>; 256]>,
    unknown: Option<TokenId>,
    /// Whether text that starts a text, or follows a special token, gets a space in front.
    pub(crate) add_space_prefix: bool,
}

impl Spm {
    pub(crate) fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
    ) -> Result<Self, TextError> {
        let key = "tokenizer.ggml.scores";
        let scores = metadata.require_f32s(key)?.to_vec();
        vocabulary::check_length(key, scores.len(), vocabulary.len())?;
        let mut bytes = Box::new([None; 256]);
        for (id, text) in vocabulary.of_kind(TokenKind::Byte) {
            let byte = vocabulary::byte_of(text).ok_or_else(|| TextError::Vocabulary {
                reason: format!("the byte token {id} has the text `{text}`, not one like <0x0A>"),
            })?;
            bytes[usize::from(byte)].get_or_insert(id);
        }
        let unknown = match vocabulary.id_at(metadata, "tokenizer.ggml.unknown_token_id")? {
            Some(id) => Some(id),
            None => vocabulary
                .of_kind(TokenKind::Unknown)
                .next()
                .map(|(id, _)| id),
        };
        let add_space_prefix = metadata
            .bool("tokenizer.ggml.add_space_prefix")?
            .unwrap_or(true);
        Ok(Self {
            scores,
            bytes,
            unknown,
            add_space_prefix,
        })
    }

    /// Appends the tokens of `text`; `starts` says that nothing or a special token stands before.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        starts: bool,
        out: &mut Vec<TokenId>,
    ) -> Result<(), TextError> {
        let mut escaped = String::with_capacity(text.len() + 16);
        if starts && self.add_space_prefix {
            escaped.push(SPACE);
        }
        escaped.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        let mut merge = Merge::new(vocabulary, &self.scores, &escaped);
        merge.run();
        for (start, end) in merge.pieces() {
            self.push_piece(vocabulary, &merge, (start, end), out)?;
        }
        Ok(())
    }

    /// A piece is a token, or two pieces where it is an unused token, or bytes.
    fn push_piece(
        &self,
        vocabulary: &Vocabulary,
        merge: &Merge<'_>,
        piece: (usize, usize),
        out: &mut Vec<TokenId>,
    ) -> Result<(), TextError> {
        let mut waiting = vec![piece];
        while let Some((start, end)) = waiting.pop() {
            let text = &merge.text[start..end];
            match vocabulary.text_id(text) {
                Some((_, TokenKind::Unused)) if merge.middle(start, end).is_some() => {
                    let middle = merge.middle(start, end).unwrap_or(end);
                    waiting.push((middle, end));
                    waiting.push((start, middle));
                }
                Some((id, kind)) if kind != TokenKind::Unused => out.push(id),
                _ => self.push_bytes(text, out)?,
            }
        }
        Ok(())
    }

    fn push_bytes(&self, text: &str, out: &mut Vec<TokenId>) -> Result<(), TextError> {
        let bytes: Option<Vec<TokenId>> = text
            .bytes()
            .map(|byte| self.bytes[usize::from(byte)])
            .collect();
        match (bytes, self.unknown) {
            (Some(bytes), _) => out.extend(bytes),
            (None, Some(unknown)) => out.push(unknown),
            (None, None) => {
                let missing = text
                    .bytes()
                    .find(|&byte| self.bytes[usize::from(byte)].is_none());
                return Err(TextError::MissingByte {
                    byte: missing.unwrap_or_default(),
                });
            }
        }
        Ok(())
    }
}

/// No symbol.
const NONE: usize = usize::MAX;

/// A piece of the text in a chain of pieces; empty once it is merged into the one before it.
struct Symbol {
    start: usize,
    end: usize,
    previous: usize,
    next: usize,
}

/// Two neighbouring symbols whose union is a token.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of the union when it was found; another length later means that it is outdated.
    length: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

struct Merge<'a> {
    vocabulary: &'a Vocabulary,
    scores: &'a [f32],
    text: &'a str,
    symbols: Vec<Symbol>,
    candidates: BinaryHeap<Candidate>,
    /// Where unions that are unused tokens came together: (start, end, middle).
    unused: Vec<(usize, usize, usize)>,
}

impl<'a> Merge<'a> {
    fn new(vocabulary: &'a Vocabulary, scores: &'a [f32], text: &'a str) -> Self {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, c))| Symbol {
                start,
                end: start + c.len_utf8(),
                previous: if index == 0 { NONE } else { index - 1 },
                next: index + 1,
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let (candidates, unused) = (BinaryHeap::with_capacity(symbols.len()), Vec::new());
        Self {
            vocabulary,
            scores,
            text,
            symbols,
            candidates,
            unused,
        }
    }

    fn run(&mut self) {
        for right in 1..self.symbols.len() {
            self.consider(right - 1, right);
        }
        while let Some(Candidate {
            left,
            right,
            length,
            ..
        }) = self.candidates.pop()
        {
            let (start, middle) = (self.symbols[left].start, self.symbols[left].end);
            let end = self.symbols[right].end;
            let outdated = middle == start
                || self.symbols[right].start == end
                || self.symbols[right].start != middle
                || end - start != length;
            if outdated {
                continue;
            }
            if let Some((_, TokenKind::Unused)) = self.vocabulary.text_id(&self.text[start..end]) {
                self.unused.push((start, end, middle));
            }
            let next = self.symbols[right].next;
            self.symbols[left].end = end;
            self.symbols[left].next = next;
            self.symbols[right].start = end;
            if next != NONE {
                self.symbols[next].previous = left;
            }
            self.consider(self.symbols[left].previous, left);
            self.consider(left, next);
        }
        self.unused.sort_unstable();
    }

    fn consider(&mut self, left: usize, right: usize) {
        if left == NONE || right == NONE {
            return;
        }
        let (start, end) = (self.symbols[left].start, self.symbols[right].end);
        if let Some((id, _)) = self.vocabulary.text_id(&self.text[start..end]) {
            let score = self.scores[id as usize];
            self.candidates.push(Candidate {
                score,
                left,
                right,
                length: end - start,
            });
        }
    }

    /// Start and end of the pieces that are left.
    fn pieces(&self) -> impl Iterator<Item = (usize, usize)> {
        self.symbols
            .iter()
            .filter(|s| s.start < s.end)
            .map(|s| (s.start, s.end))
    }

    /// Where the two halves of an unused token met.
    fn middle(&self, start: usize, end: usize) -> Option<usize> {
        let at = self
            .unused
            .partition_point(|&(s, e, _)| (s, e) < (start, end));
        self.unused
            .get(at)
            .filter(|&&(s, e, _)| (s, e) == (start, end))
            .map(|&(_, _, m)| m)
    }
}
