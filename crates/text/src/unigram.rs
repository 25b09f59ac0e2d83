//! Unigram, the tokenizer of XLM-RoBERTa and T5: of all ways to write a text in tokens the one with
//! the highest sum of scores (SentencePiece, `unigram_model.cc`), found with one pass over the text
//! that remembers the best way to each place.

use dunlin_format::{Array, FormatError, Metadata, Value};

use crate::{
    TextError, TokenId,
    charsmap::Charsmap,
    spm::SPACE,
    vocabulary::{TokenKind, Vocabulary},
};

/// How much worse than the worst token an unknown character is (SentencePiece's `kUnkPenalty`).
const UNKNOWN_PENALTY: f64 = 10.0;
/// Time grows with the longest token times the length of a text. SentencePiece trains tokens of 16
/// characters.
const MAX_TOKEN_BYTES: usize = 1024;

pub(crate) struct Unigram {
    scores: Vec<f32>,
    tokens: SortedTokens,
    charsmap: Option<Charsmap>,
    unknown: TokenId,
    unknown_score: f64,
    pub(crate) add_space_prefix: bool,
    merge_spaces: bool,
}

impl Unigram {
    pub(crate) fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
    ) -> Result<Self, TextError> {
        let scores = vocabulary.scores(metadata)?;
        let unknown = vocabulary.id_at(metadata, "tokenizer.ggml.unknown_token_id")?;
        let mut unknowns = vocabulary.of_kind(TokenKind::Unknown);
        let unknown = unknown.or_else(|| Some(unknowns.next()?.0));
        let unknown = unknown.ok_or_else(|| TextError::Vocabulary {
            reason: "it has no token for unknown characters".to_owned(),
        })?;
        let normal = vocabulary.of_kind(TokenKind::Normal);
        let worst = normal.fold(0.0_f64, |worst, (id, _)| {
            worst.min(f64::from(scores[id as usize]))
        });
        let flag = |name: &str| metadata.bool(&format!("tokenizer.ggml.{name}"));
        Ok(Self {
            tokens: SortedTokens::of(vocabulary)?,
            scores,
            charsmap: charsmap(metadata)?,
            unknown,
            unknown_score: worst - UNKNOWN_PENALTY,
            add_space_prefix: flag("add_space_prefix")?.unwrap_or(true),
            merge_spaces: flag("remove_extra_whitespaces")?.unwrap_or(true),
        })
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<TokenId>) {
        let text = self.normalize(text);
        let mut best: Vec<Option<Step>> = vec![None; text.len() + 1];
        best[0] = Some(Step {
            score: 0.0,
            start: 0,
            id: self.unknown,
        });
        for (start, c) in text.char_indices() {
            let Some(before) = best[start].map(|step| step.score) else {
                continue;
            };
            let single = start + c.len_utf8();
            let mut knows_single = false;
            self.tokens
                .prefixes(vocabulary, &text[start..], |id, length| {
                    knows_single |= start + length == single;
                    let score = before + f64::from(self.scores[id as usize]);
                    improve(&mut best[start + length], Step { score, start, id });
                });
            if !knows_single {
                let (score, id) = (before + self.unknown_score, self.unknown);
                improve(&mut best[single], Step { score, start, id });
            }
        }
        self.push_best(&best, out);
    }

    /// Walks the best way back. Unknown characters in a row are one token.
    fn push_best(&self, best: &[Option<Step>], out: &mut Vec<TokenId>) {
        let first = out.len();
        let mut end = best.len() - 1;
        while end > 0 {
            let Some(step) = best[end] else {
                break;
            };
            let is_repeated = step.id == self.unknown && out[first..].last() == Some(&step.id);
            if !is_repeated {
                out.push(step.id);
            }
            end = step.start;
        }
        out[first..].reverse();
    }

    /// The text as the vocabulary writes it: characters replaced by the model's own map, spaces
    /// merged and written `▁`, one in front.
    fn normalize(&self, text: &str) -> String {
        let mut mapped = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let map = self.charsmap.as_ref();
            let length = match map.and_then(|map| map.longest_prefix(rest)) {
                Some((replacement, length)) => {
                    mapped.push_str(replacement);
                    length
                }
                None => {
                    mapped.push(c);
                    c.len_utf8()
                }
            };
            rest = &rest[length..];
        }
        let mut normalized = String::with_capacity(mapped.len() + SPACE.len_utf8());
        if self.merge_spaces {
            for word in mapped.split(' ').filter(|word| !word.is_empty()) {
                if self.add_space_prefix || !normalized.is_empty() {
                    normalized.push(SPACE);
                }
                normalized.push_str(word);
            }
        } else {
            if self.add_space_prefix && !mapped.is_empty() {
                normalized.push(SPACE);
            }
            normalized.extend(mapped.chars().map(|c| if c == ' ' { SPACE } else { c }));
        }
        normalized
    }
}

/// The last token of the best way to a place.
#[derive(Clone, Copy)]
struct Step {
    score: f64,
    start: usize,
    id: TokenId,
}

fn improve(best: &mut Option<Step>, step: Step) {
    if best.is_none_or(|best| step.score > best.score) {
        *best = Some(step);
    }
}

/// The tokens in the order of their bytes, so that those which begin alike stand together.
struct SortedTokens {
    ids: Vec<TokenId>,
    /// Where the tokens with each first byte begin.
    first: Box<[usize; 257]>,
}

impl SortedTokens {
    fn of(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let mut ids = Vec::with_capacity(vocabulary.len());
        for (id, text, kind) in vocabulary.iter() {
            if !matches!(kind, TokenKind::Normal | TokenKind::UserDefined) || text.is_empty() {
                continue;
            }
            if text.len() > MAX_TOKEN_BYTES {
                let reason = format!("token {id} has {} bytes", text.len());
                return Err(TextError::Vocabulary { reason });
            }
            ids.push(id);
        }
        let text = |id: &TokenId| vocabulary.text(*id).unwrap_or_default();
        // Of tokens with the same text the first counts.
        ids.sort_by(|a, b| text(a).cmp(text(b)).then(a.cmp(b)));
        ids.dedup_by(|a, b| text(a) == text(b));
        let mut first = Box::new([ids.len(); 257]);
        for byte in (0..=u8::MAX).rev() {
            let at = ids.partition_point(|id| text(id).as_bytes() < &[byte][..]);
            first[usize::from(byte)] = at;
        }
        Ok(Self { ids, first })
    }

    /// Calls `found` with each token that `text` begins with and its length, the shortest first.
    fn prefixes(&self, vocabulary: &Vocabulary, text: &str, mut found: impl FnMut(TokenId, usize)) {
        let bytes = text.as_bytes();
        let Some(&byte) = bytes.first() else {
            return;
        };
        let bounds = self.first[usize::from(byte)]..self.first[usize::from(byte) + 1];
        let mut tokens = &self.ids[bounds];
        let token = |id: &TokenId| vocabulary.text(*id).unwrap_or_default().as_bytes();
        for length in 1..=bytes.len() {
            let Some(&shortest) = tokens.first() else {
                return;
            };
            if token(&shortest).len() == length {
                found(shortest, length);
                tokens = &tokens[1..];
            }
            // Only those go on that continue with the next byte.
            let Some(&next) = bytes.get(length) else {
                return;
            };
            let start = tokens.partition_point(|id| token(id)[length] < next);
            let end = start + tokens[start..].partition_point(|id| token(id)[length] == next);
            tokens = &tokens[start..end];
        }
    }
}

fn charsmap(metadata: &Metadata) -> Result<Option<Charsmap>, TextError> {
    let key = "tokenizer.ggml.precompiled_charsmap";
    match metadata.get(key) {
        None => Ok(None),
        Some(Value::Array(Array::U8(bytes))) if bytes.is_empty() => Ok(None),
        Some(Value::Array(Array::U8(bytes))) => Charsmap::parse(bytes).map(Some),
        Some(Value::Array(Array::I8(bytes))) => {
            let bytes: Vec<u8> = bytes.iter().map(|&byte| byte.cast_unsigned()).collect();
            Charsmap::parse(&bytes).map(Some)
        }
        Some(other) => Err(TextError::Format(FormatError::WrongType {
            key: key.to_owned(),
            expected: "an array of bytes",
            found: other.type_name(),
        })),
    }
}
