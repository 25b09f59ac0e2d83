//! The tokenizer of a model: text to ids, ids to text.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use dunlin_format::Metadata;

use crate::{
    DecodeStream, TextError, TokenId, TokenizerFiles,
    bpe::{self, Bpe},
    end_of_generation,
    frame::{Frame, Style},
    grammar::GrammarTokens,
    pre_tokenizer,
    special::{Part, Special},
    spm::{self, Spm},
    tokenizer_metadata,
    unigram::Unigram,
    vocabulary::{self, TokenKind, Vocabulary},
    word_piece::WordPiece,
};

/// The tokenizer of a model, built from its GGUF metadata. Clones share one vocabulary.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    vocabulary: Vocabulary,
    encoder: Encoder,
    special: Special,
    frame: Frame,
    clean_up_spaces: bool,
    end_of_generation: Vec<TokenId>,
    /// Made when the first grammar is compiled.
    grammar_tokens: OnceLock<Arc<GrammarTokens>>,
}

enum Encoder {
    Spm(Box<Spm>),
    Bpe(Box<Bpe>),
    WordPiece(Box<WordPiece>),
    Unigram(Box<Unigram>),
}

impl Encoder {
    /// Whether a space stands before every text that is encoded.
    fn adds_space_prefix(&self) -> bool {
        match self {
            Self::Spm(spm) => spm.add_space_prefix,
            Self::Unigram(unigram) => unigram.add_space_prefix,
            Self::Bpe(_) | Self::WordPiece(_) => false,
        }
    }
}

impl Tokenizer {
    /// Builds the tokenizer of a model from its metadata (the `tokenizer.ggml.*` keys).
    ///
    /// # Errors
    ///
    /// [`TextError::UnsupportedTokenizer`] and [`TextError::UnsupportedPreTokenizer`] for kinds
    /// that are not built in, [`TextError::Format`] and [`TextError::Vocabulary`] for metadata that
    /// are incomplete or contradict themselves.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let model = metadata.require_str("tokenizer.ggml.model")?;
        let vocabulary = Vocabulary::from_gguf(metadata)?;
        let mut clean_up_spaces = false;
        let (encoder, style) = match model {
            "llama" => {
                let spm = Spm::from_gguf(metadata, &vocabulary)?;
                (Encoder::Spm(Box::new(spm)), Style::Spm)
            }
            "gemma4" => {
                clean_up_spaces = true;
                let spm = Spm::with_merges(metadata, &vocabulary)?;
                (Encoder::Spm(Box::new(spm)), Style::GEMMA4)
            }
            "gpt2" => {
                let name = metadata.str("tokenizer.ggml.pre")?;
                let name = name.ok_or(TextError::MissingPreTokenizer)?;
                let family = pre_tokenizer::find(name)?;
                clean_up_spaces = family.clean_up_spaces;
                let bpe = Bpe::from_gguf(metadata, &vocabulary, family)?;
                (Encoder::Bpe(Box::new(bpe)), Style::byte_level(name, family))
            }
            "bert" => {
                clean_up_spaces = true;
                let word_piece = WordPiece::from_gguf(metadata, &vocabulary)?;
                (Encoder::WordPiece(Box::new(word_piece)), Style::WordPiece)
            }
            "t5" => {
                let unigram = Unigram::from_gguf(metadata, &vocabulary)?;
                (Encoder::Unigram(Box::new(unigram)), Style::Unigram)
            }
            _ => {
                return Err(TextError::UnsupportedTokenizer {
                    model: model.to_owned(),
                });
            }
        };
        let frame = Frame::from_gguf(metadata, &vocabulary, style)?;
        let end_of_generation = end_of_generation::ids(metadata, &vocabulary, frame.eos)?;
        let mask = match style {
            Style::Bpe { .. } | Style::Unigram if model != "gemma4" => {
                vocabulary.id_at(metadata, "tokenizer.ggml.mask_token_id")?
            }
            _ => None,
        };
        let inner = Inner {
            vocabulary,
            encoder,
            special: Special::new(mask),
            frame,
            clean_up_spaces,
            end_of_generation,
            grammar_tokens: OnceLock::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Builds the tokenizer of a Hugging Face folder: [`Self::from_gguf`] of
    /// [`tokenizer_metadata`](crate::tokenizer_metadata).
    ///
    /// # Errors
    ///
    /// Those of the two.
    pub fn from_files(files: &TokenizerFiles, architecture: &str) -> Result<Self, TextError> {
        Self::from_gguf(&tokenizer_metadata(files, architecture)?)
    }

    /// The token ids of a text, without BOS and EOS ([`Self::add_special`] adds them).
    ///
    /// Without `parse_special` no text leads to a control token: `<|im_end|>` becomes the tokens of
    /// its characters. Use that for everything a user wrote. With `parse_special` the texts of
    /// control tokens become these tokens, as the output of a chat template needs.
    ///
    /// # Errors
    ///
    /// [`TextError::MissingByte`] where the vocabulary has no token for a byte of the text.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<TokenId>, TextError> {
        self.encode_after(text, parse_special, true)
    }

    /// The token ids of text that stands within a text: without control tokens, and without the space that a
    /// SentencePiece-style tokenizer puts before a text.
    ///
    /// # Errors
    ///
    /// As [`Self::encode`].
    pub fn encode_within(&self, text: &str) -> Result<Vec<TokenId>, TextError> {
        self.encode_after(text, false, false)
    }

    fn encode_after(
        &self,
        text: &str,
        parse_special: bool,
        mut starts: bool,
    ) -> Result<Vec<TokenId>, TextError> {
        let inner = &*self.inner;
        let mut ids = Vec::with_capacity(text.len() / 3 + 4);
        for part in inner
            .special
            .split(&inner.vocabulary, text, parse_special)?
        {
            match (part, &inner.encoder) {
                (Part::Token(id), _) => ids.push(id),
                (Part::Text(text), Encoder::Spm(spm)) => {
                    spm.encode(&inner.vocabulary, text, starts, &mut ids)?;
                }
                (Part::Text(text), Encoder::Bpe(bpe)) => {
                    bpe.encode(&inner.vocabulary, text, &mut ids)?;
                }
                (Part::Text(text), Encoder::WordPiece(word_piece)) => {
                    word_piece.encode(&inner.vocabulary, text, &mut ids)?;
                }
                (Part::Text(text), Encoder::Unigram(unigram)) => {
                    unigram.encode(&inner.vocabulary, text, &mut ids);
                }
            }
            // Text stands between two tokens or at an end, so the next text follows a token.
            starts = true;
        }
        Ok(ids)
    }

    /// The ids with BOS in front and EOS behind where the model wants them (`add_bos_token`,
    /// `add_eos_token`, or the rule of its family). Not for the output of a chat template, which
    /// brings its own BOS.
    #[must_use]
    pub fn add_special(&self, ids: Vec<TokenId>) -> Vec<TokenId> {
        self.inner.frame.around(ids)
    }

    /// The ids of two texts as one input with all special tokens, for models that compare texts, and
    /// the token type of each id: what Hugging Face's `tokenizer(first, second)` gives. No text leads
    /// to a control token.
    ///
    /// # Errors
    ///
    /// [`TextError::NoPairForm`] where the tokenizer has no form for two texts, else as
    /// [`Self::encode`].
    pub fn encode_pair(
        &self,
        first: &str,
        second: &str,
    ) -> Result<(Vec<TokenId>, Vec<u32>), TextError> {
        self.join_pair(self.encode(first, false)?, &self.encode(second, false)?)
    }

    /// As [`Self::encode_pair`], for two texts that are encoded already, without special tokens.
    ///
    /// # Errors
    ///
    /// [`TextError::NoPairForm`] where the tokenizer has no form for two texts.
    pub fn join_pair(
        &self,
        first: Vec<TokenId>,
        second: &[TokenId],
    ) -> Result<(Vec<TokenId>, Vec<u32>), TextError> {
        self.inner.frame.join(first, second)
    }

    /// The text of tokens; bytes that are no UTF-8 become U+FFFD, ids beyond the vocabulary become
    /// nothing. Control tokens show only with `render_special`. The space that a SentencePiece-style
    /// tokenizer puts before a text is removed again.
    #[must_use]
    pub fn decode(&self, ids: &[TokenId], render_special: bool) -> String {
        String::from_utf8_lossy(&self.decode_bytes(ids, render_special)).into_owned()
    }

    /// As [`Self::decode`], in bytes: tokens can end in the middle of a character.
    #[must_use]
    pub fn decode_bytes(&self, ids: &[TokenId], render_special: bool) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        let mut at_start = true;
        for &id in ids {
            // An id that does not exist stands for no text.
            let _ = self.append_bytes(id, render_special, &mut at_start, &mut bytes);
        }
        bytes
    }

    /// As [`Self::decode`], then without the spaces before punctuation and contractions where the
    /// model's family asks for that (`clean_up_tokenization_spaces`: GPT-2, Llama 3). This is what
    /// llama.cpp's detokenizer gives; it changes text that really has such spaces (`F# .NET`), so
    /// nothing else here does it.
    #[must_use]
    pub fn decode_clean(&self, ids: &[TokenId], render_special: bool) -> String {
        let text = self.decode(ids, render_special);
        if self.inner.clean_up_spaces {
            clean_up_spaces(&text)
        } else {
            text
        }
    }

    /// The text of one token on its own, control tokens included; bytes that are no UTF-8 become
    /// U+FFFD ([`Self::piece_bytes`] has them). `None` beyond the vocabulary.
    #[must_use]
    pub fn piece(&self, id: TokenId) -> Option<String> {
        Some(String::from_utf8_lossy(&self.piece_bytes(id)?).into_owned())
    }

    /// The bytes of one token on its own, control tokens included. `None` beyond the vocabulary.
    #[must_use]
    pub fn piece_bytes(&self, id: TokenId) -> Option<Vec<u8>> {
        let inner = &*self.inner;
        let text = inner.vocabulary.text(id)?;
        Some(match (inner.vocabulary.kind(id)?, &inner.encoder) {
            (TokenKind::Byte, _) => match vocabulary::byte_of(text) {
                Some(byte) => vec![byte],
                None => text.as_bytes().to_vec(),
            },
            (TokenKind::Normal, Encoder::Bpe(_)) => bpe::bytes_of(text),
            (TokenKind::Normal, _) => text.replace(spm::SPACE, " ").into_bytes(),
            _ => text.as_bytes().to_vec(),
        })
    }

    /// Appends what a token adds to a text.
    pub(crate) fn append_bytes(
        &self,
        id: TokenId,
        render_special: bool,
        at_start: &mut bool,
        bytes: &mut Vec<u8>,
    ) -> Result<(), TextError> {
        let vocab_size = self.vocab_size();
        let unknown = || TextError::UnknownToken { id, vocab_size };
        let kind = self.kind(id).ok_or_else(unknown)?;
        let hidden = matches!(
            kind,
            TokenKind::Control | TokenKind::Unknown | TokenKind::Unused
        );
        if hidden && !render_special {
            return Ok(());
        }
        let piece = self.piece_bytes(id).ok_or_else(unknown)?;
        let has_prefix = self.inner.encoder.adds_space_prefix();
        let starts = std::mem::replace(at_start, false);
        let piece = match piece.split_first() {
            Some((b' ', rest)) if starts && has_prefix => rest,
            _ => &piece[..],
        };
        bytes.extend_from_slice(piece);
        Ok(())
    }

    /// A stream that decodes the beginning of a text, such as the answer in a chat: control tokens
    /// are hidden, and the space that a SentencePiece-style tokenizer puts before a text is removed.
    #[must_use]
    pub fn stream(&self) -> DecodeStream {
        DecodeStream::new(self.clone(), false, true)
    }

    /// A stream that decodes the continuation of a text (plain completion): as [`Self::stream`],
    /// but a space before the first word is kept.
    #[must_use]
    pub fn stream_continuing(&self) -> DecodeStream {
        DecodeStream::new(self.clone(), false, false)
    }

    /// A stream as [`Self::stream`] that shows control tokens, too.
    #[must_use]
    pub fn stream_with_special(&self) -> DecodeStream {
        DecodeStream::new(self.clone(), true, true)
    }

    /// The vocabulary as grammars need it: made once, at the first call.
    pub(crate) fn grammar_tokens(&self) -> Result<Arc<GrammarTokens>, TextError> {
        if let Some(tokens) = self.inner.grammar_tokens.get() {
            return Ok(Arc::clone(tokens));
        }
        let tokens = Arc::new(GrammarTokens::new(self)?);
        Ok(Arc::clone(self.inner.grammar_tokens.get_or_init(|| tokens)))
    }

    /// Whether both are handles of one vocabulary.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// A reference that does not keep the vocabulary alive.
    pub(crate) fn downgrade(&self) -> WeakTokenizer {
        WeakTokenizer(Arc::downgrade(&self.inner))
    }

    /// Number of tokens.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.vocabulary.len()
    }

    /// The token with exactly this text, as the vocabulary writes it (`Ġthe`, `▁the`, `<|im_end|>`).
    #[must_use]
    pub fn token_id(&self, text: &str) -> Option<TokenId> {
        self.inner.vocabulary.id(text)
    }

    /// The text of a token as the vocabulary writes it.
    #[must_use]
    pub fn token_text(&self, id: TokenId) -> Option<&str> {
        self.inner.vocabulary.text(id)
    }

    /// What a token is for. `None` beyond the vocabulary.
    #[must_use]
    pub fn kind(&self, id: TokenId) -> Option<TokenKind> {
        self.inner.vocabulary.kind(id)
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos(&self) -> Option<TokenId> {
        self.inner.frame.bos
    }

    /// The token that ends a text.
    #[must_use]
    pub fn eos(&self) -> Option<TokenId> {
        self.inner.frame.eos
    }

    /// Whether [`Self::add_special`] puts BOS in front.
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.inner.frame.adds_bos()
    }

    /// Whether [`Self::add_special`] puts EOS behind.
    #[must_use]
    pub fn adds_eos(&self) -> bool {
        self.inner.frame.adds_eos()
    }

    /// The tokens after which generation stops, ascending.
    #[must_use]
    pub fn end_of_generation(&self) -> &[TokenId] {
        &self.inner.end_of_generation
    }

    /// Whether generation stops after this token.
    #[must_use]
    pub fn is_end_of_generation(&self, id: TokenId) -> bool {
        self.inner.end_of_generation.binary_search(&id).is_ok()
    }
}

/// A [`Tokenizer`] as long as there is another handle of it.
pub(crate) struct WeakTokenizer(Weak<Inner>);

impl WeakTokenizer {
    pub(crate) fn upgrade(&self) -> Option<Tokenizer> {
        let inner = self.0.upgrade()?;
        Some(Tokenizer { inner })
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos())
            .field("eos", &self.eos())
            .finish_non_exhaustive()
    }
}

/// Removes the space before `.`, `?`, `!` and `,`, the spaces around a lonely apostrophe, and the
/// space before `'s`, `'m`, `'re` and `'ve`, in this order.
fn clean_up_spaces(text: &str) -> String {
    let before_punctuation = |rest: &str| rest.starts_with(['.', '?', '!', ',']);
    let text = without_spaces(text, before_punctuation);
    let text = text.replace(" ' ", "'");
    without_spaces(&text, |rest| {
        ["'s", "'m", "'re", "'ve"]
            .iter()
            .any(|ending| rest.starts_with(ending))
    })
}

/// The text without those spaces whose rest of the text is as `unwanted` says.
fn without_spaces(text: &str, unwanted: impl Fn(&str) -> bool) -> String {
    let keep = |&(at, c): &(usize, char)| c != ' ' || !unwanted(&text[at + 1..]);
    text.char_indices().filter(keep).map(|(_, c)| c).collect()
}

#[cfg(test)]
mod tests {
    use super::clean_up_spaces;

    #[test]
    fn cleans_up_as_the_gpt2_detokenizer_does() {
        for (text, expected) in [
            ("Hello , world !", "Hello, world!"),
            ("C# F# .NET", "C# F#.NET"),
            ("it 's I 'm we 've they 're", "it's I'm we've they're"),
            ("rock ' n ' roll", "rock'n'roll"),
            ("he 'll , she 'd", "he 'll, she 'd"),
            (" .", "."),
            ("  .", " ."),
        ] {
            assert_eq!(clean_up_spaces(text), expected);
        }
    }
}
