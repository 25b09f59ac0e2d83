//! The special tokens around a text, and between the two texts of a pair.

use dunlin_format::Metadata;

use crate::{TextError, TokenId, pre_tokenizer::Family, vocabulary::Vocabulary};

/// What kind of tokenizer a file has, as far as its special tokens go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// SentencePiece-style BPE (`llama`).
    Spm,
    /// Any BPE with a list of merges; `adds_bos` where its family does so without being told.
    Bpe {
        adds_bos: bool,
        is_modern_bert: bool,
    },
    /// BERT: `[CLS] a [SEP] b [SEP]`.
    WordPiece,
    /// XLM-RoBERTa: `<s> a </s> </s> b </s>`, or T5 without `<s>`: `a </s> b </s>`.
    Unigram,
}

impl Style {
    pub(crate) const GEMMA4: Self = Self::Bpe {
        adds_bos: false,
        is_modern_bert: false,
    };

    pub(crate) fn byte_level(name: &str, family: &Family) -> Self {
        Self::Bpe {
            adds_bos: family.add_bos,
            is_modern_bert: name == "modern-bert",
        }
    }
}

pub(crate) struct Frame {
    pub(crate) bos: Option<TokenId>,
    pub(crate) eos: Option<TokenId>,
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
    pair: Option<Pair>,
}

/// How two texts become one input.
struct Pair {
    /// Stands between the texts beside the token that ends the first.
    separator: Option<TokenId>,
    /// The token type of the second text.
    second: u32,
}

impl Frame {
    pub(crate) fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        style: Style,
    ) -> Result<Self, TextError> {
        let id =
            |name: &str| vocabulary.id_at(metadata, &format!("tokenizer.ggml.{name}_token_id"));
        let flag = |name: &str| metadata.bool(&format!("tokenizer.ggml.add_{name}_token"));
        // The key is spelt like this.
        let sep = id("seperator")?;
        let (bos, eos) = match style {
            // SentencePiece's own places for `<s>` and `</s>`, for files that do not say.
            Style::Spm => {
                let default = |id: TokenId| vocabulary.is_control(id).then_some(id);
                (id("bos")?.or(default(1)), id("eos")?.or(default(2)))
            }
            Style::WordPiece => {
                let cls = id("bos")?.or(id("cls")?).or(vocabulary.id("[CLS]"));
                (cls, id("eos")?.or(sep).or(vocabulary.id("[SEP]")))
            }
            _ => (id("bos")?, id("eos")?),
        };
        let (add_bos, add_eos) = match style {
            Style::Spm => (true, false),
            Style::Bpe { adds_bos, .. } => (adds_bos, false),
            Style::WordPiece | Style::Unigram => (true, true),
        };
        let mut frame = Self {
            bos,
            eos,
            add_bos: flag("bos")?.unwrap_or(add_bos),
            add_eos: flag("eos")?.unwrap_or(add_eos),
            pair: None,
        };
        let separator = sep.or(eos);
        frame.pair = match style {
            Style::WordPiece => Some(Pair {
                separator: None,
                second: 1,
            }),
            Style::Unigram if bos.is_none() => Some(Pair {
                separator: None,
                second: 0,
            }),
            Style::Unigram => Some(Pair {
                separator,
                second: 0,
            }),
            // Conversions say that it has a second separator, and it has not.
            Style::Bpe {
                is_modern_bert: true,
                ..
            } => Some(Pair {
                separator: None,
                second: 0,
            }),
            Style::Bpe { .. } if frame.adds_bos() && frame.adds_eos() => {
                let separator = separator.filter(|_| flag("sep").ok().flatten() == Some(true));
                Some(Pair {
                    separator,
                    second: 0,
                })
            }
            _ => None,
        };
        Ok(frame)
    }

    pub(crate) fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    pub(crate) fn adds_eos(&self) -> bool {
        self.add_eos && self.eos.is_some()
    }

    /// One text with BOS and EOS.
    pub(crate) fn around(&self, mut ids: Vec<TokenId>) -> Vec<TokenId> {
        if let Some(bos) = self.bos.filter(|_| self.add_bos) {
            ids.insert(0, bos);
        }
        ids.extend(self.eos.filter(|_| self.add_eos));
        ids
    }

    /// Two texts with all special tokens, and the token type of each place.
    pub(crate) fn join(
        &self,
        first: Vec<TokenId>,
        second: &[TokenId],
    ) -> Result<(Vec<TokenId>, Vec<u32>), TextError> {
        let pair = self.pair.as_ref().ok_or(TextError::NoPairForm)?;
        let mut ids = self.around(first);
        let mut types = vec![0; ids.len()];
        ids.extend(pair.separator);
        types.resize(ids.len(), 0);
        ids.extend_from_slice(second);
        ids.extend(self.eos.filter(|_| self.add_eos));
        types.resize(ids.len(), pair.second);
        Ok((ids, types))
    }
}
