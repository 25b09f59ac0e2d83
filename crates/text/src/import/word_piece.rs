//! WordPiece: from `tokenizer.json` or the `vocab.txt` of BERT.

use dunlin_format::{Metadata, Value};
use serde_json::Value as Json;

use super::{
    TokenizerFiles, special,
    tokenizer_json::{TokenizerJson, unsupported},
    vocabulary::{ADDED_SCORE, Tokens, named_special_tokens},
};
use crate::{TextError, TokenId, spm::SPACE, vocabulary::TokenKind};

/// What marks a piece that does not begin a word.
const CONTINUES: &str = "##";

/// The special tokens of BERT, for folders that name none.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

pub(super) fn write_json(
    files: &TokenizerFiles,
    json: &TokenizerJson,
    metadata: &mut Metadata,
) -> Result<(), TextError> {
    let prefix = json.model.continuing_subword_prefix.as_deref();
    if prefix.is_some_and(|prefix| prefix != CONTINUES) {
        return Err(unsupported(
            "WordPiece models that mark pieces with anything but `##`",
        ));
    }
    check_steps(json)?;
    let tokens = Tokens::from_json(files, json)?;
    finish(files, tokens, metadata);
    special::write(files, Some(json), metadata_len(metadata), metadata);
    Ok(())
}

/// GGUF can say whether text is put in lower case and loses its accents, and nothing else.
fn check_steps(json: &TokenizerJson) -> Result<(), TextError> {
    let normalizer = &json.normalizer;
    let is_off = |name: &str| normalizer.get(name).and_then(Json::as_bool) == Some(false);
    let kind = |step: &Json| step.get("type").and_then(Json::as_str).map(str::to_owned);
    if kind(normalizer).as_deref() != Some("BertNormalizer")
        || is_off("clean_text")
        || is_off("handle_chinese_chars")
    {
        return Err(unsupported(
            "WordPiece models whose normalizer is not BERT's",
        ));
    }
    if kind(&json.pre_tokenizer).as_deref() != Some("BertPreTokenizer") {
        return Err(unsupported(
            "WordPiece models that split text in another way than BERT",
        ));
    }
    Ok(())
}

pub(super) fn write_vocab_txt(
    files: &TokenizerFiles,
    vocab: &[u8],
    metadata: &mut Metadata,
) -> Result<(), TextError> {
    let damaged = |reason: &str| TextError::TokenizerFile {
        file: "vocab.txt".to_owned(),
        reason: reason.to_owned(),
    };
    let vocab = std::str::from_utf8(vocab).map_err(|_| damaged("it is no UTF-8"))?;
    if vocab.trim().is_empty() {
        return Err(damaged("it is empty"));
    }
    let named = named_special_tokens(files);
    let mut tokens = Tokens::with_holes(files.vocab_size().unwrap_or(0), ADDED_SCORE)?;
    let mut ids = std::collections::HashMap::new();
    for (id, line) in (0..).zip(vocab.lines()) {
        let is_special = SPECIAL.contains(&line) || named.iter().any(|text| text == line);
        let kind = match is_special {
            true => TokenKind::Control,
            false => TokenKind::Normal,
        };
        tokens.set(id, line, kind, ADDED_SCORE)?;
        ids.entry(line).or_insert(id);
    }
    finish(files, tokens, metadata);
    special::write(files, None, metadata_len(metadata), metadata);
    for (text, key) in SPECIAL.into_iter().zip(special::BERT_KEYS) {
        if let Some(&id) = ids.get(text).filter(|_| !metadata.contains(key)) {
            metadata.insert(key, Value::U32(id as TokenId));
        }
    }
    let mut setting = |name: &str, key: &str| {
        let value = files.tokenizer_setting(name).and_then(Json::as_bool);
        if let Some(value) = value {
            metadata.insert(
                format!("tokenizer.ggml.normalizer.{key}"),
                Value::Bool(value),
            );
        }
    };
    setting("do_lower_case", "lowercase");
    setting("strip_accents", "strip_accents");
    Ok(())
}

/// Writes the tokens as GGUF has them: `▁` before those that begin a word, nothing before the others.
fn finish(files: &TokenizerFiles, mut tokens: Tokens, metadata: &mut Metadata) {
    tokens.edit(|_, text, kind, _| {
        if *kind != TokenKind::Control {
            match text.strip_prefix(CONTINUES) {
                Some(rest) => *text = rest.to_owned(),
                None => text.insert(0, SPACE),
            }
        }
    });
    special::write_type_count(files, metadata);
    metadata.insert("tokenizer.ggml.model", Value::from("bert"));
    metadata.insert("tokenizer.ggml.pre", Value::from("default"));
    tokens.write(false, metadata);
}

fn metadata_len(metadata: &Metadata) -> Option<usize> {
    let tokens = metadata.strings("tokenizer.ggml.tokens").ok().flatten();
    tokens.map(dunlin_format::StringArray::len)
}
