//! From the tokenizer files of a Hugging Face folder to GGUF metadata.
//!
//! [`tokenizer_metadata`] gives the `tokenizer.*` entries that llama.cpp's converter writes, so that
//! a folder and a GGUF file made from it go through the same tokenizer here, and files written with
//! them load elsewhere. Every file is untrusted.

mod bpe;
mod chat_template;
mod pre_tokenizer;
mod sentencepiece;
mod special;
mod spm;
mod tokenizer_json;
mod unigram;
mod vocabulary;
mod word_piece;

use dunlin_format::Metadata;
use serde_json::Value as Json;

use crate::TextError;
use sentencepiece::{Kind, SentencePiece};
use tokenizer_json::{ModelKind, TokenizerJson};

/// The files of a Hugging Face folder that describe its tokenizer; absent ones are `None`.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`, as it is.
    pub tokenizer_json: Option<Vec<u8>>,
    /// `tokenizer.model`, `sentencepiece.bpe.model` or `spiece.model`, as it is.
    pub sentencepiece: Option<Vec<u8>>,
    /// `vocab.txt`, as it is.
    pub vocab_txt: Option<Vec<u8>>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Json>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<Json>,
    /// `added_tokens.json`.
    pub added_tokens: Option<Json>,
    /// The text of `chat_template.jinja`, or the one in `chat_template.json`. Used where
    /// `tokenizer_config.json` has no template of its own.
    pub chat_template: Option<String>,
    /// `generation_config.json`.
    pub generation_config: Option<Json>,
    /// `config.json`, empty or `null` where there is none.
    pub config: Json,
}

impl TokenizerFiles {
    /// A field of `tokenizer_config.json`.
    fn tokenizer_setting(&self, name: &str) -> Option<&Json> {
        self.tokenizer_config.as_ref()?.get(name)
    }

    /// A field of `config.json`, or of its `text_config` where the whole has none.
    fn setting(&self, name: &str) -> Option<&Json> {
        let present = |value: &&Json| !value.is_null();
        let inner = || self.config.get("text_config")?.get(name);
        let outer = self.config.get(name).filter(present);
        outer.or_else(|| inner().filter(present))
    }

    /// `vocab_size` of `config.json`.
    fn vocab_size(&self) -> Option<usize> {
        usize::try_from(self.setting("vocab_size")?.as_u64()?).ok()
    }
}

/// The `tokenizer.ggml.*` entries and `tokenizer.chat_template` that llama.cpp's converter writes
/// for these files. `architecture` is the GGUF name of the model's family (`llama`, `gemma4`,
/// `bert`); it decides where several names stand for one way to split text, and where a family
/// prefers one of several files.
///
/// # Errors
///
/// [`TextError::NoTokenizer`] where no file describes a tokenizer, [`TextError::TokenizerFile`] for
/// files that are damaged, contradict each other or use what is not supported, and
/// [`TextError::UnknownSplit`] for a way to split text that has no name.
pub fn tokenizer_metadata(
    files: &TokenizerFiles,
    architecture: &str,
) -> Result<Metadata, TextError> {
    let json = match &files.tokenizer_json {
        Some(bytes) => Some(TokenizerJson::parse(bytes)?),
        None => None,
    };
    let model = match &files.sentencepiece {
        Some(bytes) if !prefers_json(files, architecture) => Some(SentencePiece::parse(bytes)?),
        _ => None,
    };
    let mut metadata = Metadata::new();
    write_vocabulary(
        files,
        model.as_ref(),
        json.as_ref(),
        architecture,
        &mut metadata,
    )?;
    chat_template::write(files, &mut metadata);
    Ok(metadata)
}

/// Where a folder has both files, the SentencePiece one is the original; some families have one
/// that they do not use.
fn prefers_json(files: &TokenizerFiles, architecture: &str) -> bool {
    let class = files
        .tokenizer_setting("tokenizer_class")
        .and_then(Json::as_str);
    files.tokenizer_json.is_some() && (architecture == "gemma4" || class == Some("GPT2Tokenizer"))
}

fn write_vocabulary(
    files: &TokenizerFiles,
    model: Option<&SentencePiece>,
    json: Option<&TokenizerJson>,
    architecture: &str,
    metadata: &mut Metadata,
) -> Result<(), TextError> {
    match (model, json, &files.vocab_txt) {
        (Some(model), json, _) => match model.kind {
            Kind::Bpe => spm::write(files, model, json, architecture, metadata),
            Kind::Unigram => unigram::write(files, model, json, metadata),
            Kind::Other => Err(TextError::TokenizerFile {
                file: "tokenizer.model".to_owned(),
                reason: "models of words or characters are not supported".to_owned(),
            }),
        },
        (None, Some(json), _) => match json.kind()? {
            ModelKind::Bpe if json.model.byte_fallback == Some(true) => {
                spm::write_json(files, json, architecture, metadata)
            }
            ModelKind::Bpe => bpe::write(files, json, architecture, metadata),
            ModelKind::WordPiece => word_piece::write_json(files, json, metadata),
            ModelKind::Unigram => unigram::write_json(files, json, metadata),
        },
        (None, None, Some(vocab)) => word_piece::write_vocab_txt(files, vocab, metadata),
        (None, None, None) => Err(TextError::NoTokenizer),
    }
}
