//! Unigram: from the SentencePiece file of XLM-RoBERTa and T5, or from `tokenizer.json`.

use dunlin_format::{Metadata, Value};
use serde_json::Value as Json;

use super::{
    TokenizerFiles,
    sentencepiece::SentencePiece,
    special,
    spm::prepends,
    tokenizer_json::{TokenizerJson, damaged, unsupported},
    vocabulary::{Tokens, added_tokens, named_special_tokens},
};
use crate::{TextError, TokenId, vocabulary::TokenKind};

/// The score of a place that no token takes.
const HOLE_SCORE: f32 = -10000.0;

/// What is done to a text before it is taken apart.
struct Normalization {
    charsmap: Vec<u8>,
    add_space_prefix: bool,
    merge_spaces: bool,
}

pub(super) fn write(
    files: &TokenizerFiles,
    model: &SentencePiece,
    json: Option<&TokenizerJson>,
    metadata: &mut Metadata,
) -> Result<(), TextError> {
    let size = files.vocab_size().unwrap_or(0).max(model.pieces.len());
    let mut tokens = Tokens::with_holes(size, HOLE_SCORE)?;
    let is_t5 = model
        .pieces
        .first()
        .is_some_and(|piece| piece.text == "<pad>");
    if is_t5 {
        for (id, piece) in (0..).zip(&model.pieces) {
            tokens.set(id, &piece.text, piece.kind, piece.score)?;
        }
    } else {
        // XLM-RoBERTa has four tokens where its file has `<unk>`, `<s>` and `</s>`, and a mask
        // behind all pieces.
        for (id, (text, kind)) in (0..).zip(XLM_ROBERTA) {
            tokens.set(id, text, kind, 0.0)?;
        }
        let pieces = model.pieces.iter().skip(3);
        for (id, piece) in (4..size as TokenId).zip(pieces) {
            tokens.set(id, &piece.text, piece.kind, piece.score)?;
        }
        let mask = model.pieces.len() + 1;
        if mask < size {
            tokens.set(mask as TokenId, "<mask>", TokenKind::Control, 0.0)?;
        }
    }
    let normalization = Normalization {
        charsmap: model.charsmap.clone(),
        add_space_prefix: model.add_dummy_prefix,
        merge_spaces: model.remove_extra_whitespaces,
    };
    finish(files, json, &tokens, normalization, metadata);
    Ok(())
}

const XLM_ROBERTA: [(&str, TokenKind); 4] = [
    ("<s>", TokenKind::Control),
    ("<pad>", TokenKind::Control),
    ("</s>", TokenKind::Control),
    ("<unk>", TokenKind::Unknown),
];

pub(super) fn write_json(
    files: &TokenizerFiles,
    json: &TokenizerJson,
    metadata: &mut Metadata,
) -> Result<(), TextError> {
    if json.model.byte_fallback == Some(true) {
        return Err(unsupported("Unigram models that fall back to bytes"));
    }
    let vocab = &json.model.vocab;
    let mut tokens = Tokens::with_holes(files.vocab_size().unwrap_or(0), HOLE_SCORE)?;
    for ((text, &id), &score) in vocab.texts.iter().zip(&vocab.ids).zip(&vocab.scores) {
        tokens.set(id, text, TokenKind::Normal, score as f32)?;
    }
    let named = named_special_tokens(files);
    for added in added_tokens(files, json) {
        tokens.set(added.id, &added.text, added.kind(&named), 0.0)?;
    }
    let unknown = json.model.unk_id;
    tokens.edit(|id, _, kind, _| {
        if Some(id) == unknown {
            *kind = TokenKind::Unknown;
        }
    });
    let normalization = Normalization {
        charsmap: charsmap(&json.normalizer)?,
        add_space_prefix: prepends(&json.pre_tokenizer),
        merge_spaces: merges_spaces(&json.normalizer) || merges_spaces(&json.pre_tokenizer),
    };
    finish(files, Some(json), &tokens, normalization, metadata);
    Ok(())
}

fn finish(
    files: &TokenizerFiles,
    json: Option<&TokenizerJson>,
    tokens: &Tokens,
    normalization: Normalization,
    metadata: &mut Metadata,
) {
    metadata.insert("tokenizer.ggml.model", Value::from("t5"));
    metadata.insert("tokenizer.ggml.pre", Value::from("default"));
    tokens.write(true, metadata);
    let mut flag = |name: &str, value| {
        metadata.insert(format!("tokenizer.ggml.{name}"), Value::Bool(value));
    };
    flag("add_space_prefix", normalization.add_space_prefix);
    flag("remove_extra_whitespaces", normalization.merge_spaces);
    special::write_type_count(files, metadata);
    if !normalization.charsmap.is_empty() {
        let key = "tokenizer.ggml.precompiled_charsmap";
        metadata.insert(key, Value::from(normalization.charsmap));
    }
    special::write(files, json, Some(tokens.len()), metadata);
}

/// The steps of a normalizer or pre-tokenizer: itself, or what it is made of.
fn steps(step: &Json) -> Vec<&Json> {
    let parts = ["normalizers", "pretokenizers"];
    let mut parts = parts.iter().filter_map(|name| step.get(name)?.as_array());
    match parts.next() {
        Some(parts) => parts.iter().flat_map(steps).collect(),
        None => vec![step],
    }
}

fn kind_of(step: &Json) -> &str {
    step.get("type").and_then(Json::as_str).unwrap_or_default()
}

fn merges_spaces(step: &Json) -> bool {
    let merges = |step: &Json| match kind_of(step) {
        "WhitespaceSplit" => true,
        "Replace" => step["pattern"]["Regex"] == " {2,}",
        _ => false,
    };
    steps(step).into_iter().any(merges)
}

/// The map of characters among the steps of the normalizer.
fn charsmap(normalizer: &Json) -> Result<Vec<u8>, TextError> {
    let mut charsmap = Vec::new();
    for step in steps(normalizer) {
        match kind_of(step) {
            "Precompiled" => {
                let text = step.get("precompiled_charsmap").and_then(Json::as_str);
                let bytes = text.and_then(from_base64);
                let reason = || damaged("its `precompiled_charsmap` is no base64".to_owned());
                charsmap = bytes.ok_or_else(reason)?;
            }
            "" | "Strip" | "Replace" => {}
            other => {
                let what = format!("Unigram models with the normalizer `{other}`");
                return Err(unsupported(&what));
            }
        }
    }
    Ok(charsmap)
}

/// Bytes from base64 (RFC 4648, section 4), with or without padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.chunks(4) {
        if group.len() == 1 {
            return None;
        }
        let mut bits = 0_u32;
        for index in 0..4 {
            let digit = match group.get(index) {
                None => 0,
                Some(c @ b'A'..=b'Z') => c - b'A',
                Some(c @ b'a'..=b'z') => c - b'a' + 26,
                Some(c @ b'0'..=b'9') => c - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
            };
            bits = (bits << 6) | u32::from(digit);
        }
        let [_, group_bytes @ ..] = bits.to_be_bytes();
        bytes.extend_from_slice(&group_bytes[..group.len() - 1]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::from_base64;

    // Expected: RFC 4648, section 10.
    #[test]
    fn decodes_base64() {
        for (text, expected) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(from_base64(text).unwrap(), expected.as_bytes());
        }
        assert_eq!(from_base64("+/8"), Some(vec![0xFB, 0xFF]));
        assert_eq!((from_base64("A"), from_base64("A*==")), (None, None));
    }
}
