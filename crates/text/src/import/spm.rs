//! SentencePiece-style BPE: from `tokenizer.model`, or from a `tokenizer.json` that was made of one.

use std::collections::HashMap;

use dunlin_format::{Metadata, Value};
use serde_json::Value as Json;

use super::{
    TokenizerFiles,
    sentencepiece::SentencePiece,
    special,
    tokenizer_json::{TokenizerJson, damaged},
    vocabulary::{ADDED_SCORE, Tokens, added_tokens, added_tokens_decoder, named_special_tokens},
};
use crate::{
    TextError, TokenId,
    bpe::halves,
    vocabulary::{TokenKind, byte_of},
};

/// The score of a place that no token takes.
const HOLE_SCORE: f32 = -10000.0;

/// The families whose texts get no space in front, whatever the file says.
const WITHOUT_PREFIX: [&str; 6] = [
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gemma-embedding",
];

/// Writes the vocabulary of a model file with what other files add to it.
pub(super) fn write(
    files: &TokenizerFiles,
    model: &SentencePiece,
    json: Option<&TokenizerJson>,
    architecture: &str,
    metadata: &mut Metadata,
) -> Result<(), TextError> {
    let size = files.setting("vocab_size_per_layer_input");
    let size = size.and_then(|size| usize::try_from(size.as_u64()?).ok());
    let size = size.or_else(|| files.vocab_size());
    let mut tokens = Tokens::with_holes(size.unwrap_or(0), HOLE_SCORE)?;
    let fits = |id: TokenId| size.is_none_or(|size| (id as usize) < size);
    for (id, piece) in (0..).zip(&model.pieces) {
        if fits(id) {
            // A piece that the user defined is a piece of text in GGUF.
            let kind = match piece.kind {
                TokenKind::UserDefined => TokenKind::Normal,
                kind => kind,
            };
            tokens.set(id, &piece.text, kind, piece.score)?;
        }
    }
    let added = files
        .added_tokens
        .as_ref()
        .and_then(|added| added.as_object());
    for (text, id) in added.into_iter().flatten() {
        let id = id.as_u64().and_then(|id| TokenId::try_from(id).ok());
        if let Some(id) = id.filter(|&id| fits(id)) {
            tokens.set(id, text, TokenKind::UserDefined, ADDED_SCORE)?;
        }
    }
    // Phi-3 names its control tokens only in `tokenizer.json`.
    let in_json = json.filter(|_| architecture == "phi3");
    let in_json = in_json.map_or(Vec::new(), |json| added_tokens(files, json));
    for token in added_tokens_decoder(files).into_iter().chain(in_json) {
        if fits(token.id) {
            let kind = token.kind(&[]);
            tokens.set(token.id, &kind_text(&token.text, kind), kind, ADDED_SCORE)?;
        }
    }
    metadata.insert("tokenizer.ggml.model", Value::from("llama"));
    metadata.insert("tokenizer.ggml.pre", Value::from("default"));
    tokens.write(true, metadata);
    special::write(files, json, Some(tokens.len()), metadata);
    write_space_prefix(files, architecture, metadata);
    Ok(())
}

/// GGUF writes the spaces of user-defined tokens as they are.
fn kind_text(text: &str, kind: TokenKind) -> String {
    match kind {
        TokenKind::UserDefined => text.replace('\u{2581}', " "),
        _ => text.to_owned(),
    }
}

fn write_space_prefix(files: &TokenizerFiles, architecture: &str, metadata: &mut Metadata) {
    let setting = files.tokenizer_setting("add_prefix_space");
    let setting = setting.and_then(|setting| setting.as_bool());
    let add = match WITHOUT_PREFIX.contains(&architecture) {
        true => Some(false),
        false => setting,
    };
    if let Some(add) = add {
        metadata.insert("tokenizer.ggml.add_space_prefix", Value::Bool(add));
    }
}

/// Writes a `tokenizer.json` whose BPE falls back to bytes. Gemma 4 keeps the list of merges. The
/// others get scores: what is merged first has the higher one, as SentencePiece writes them.
/// (llama.cpp's converter gives every token the same score, and other ids come of that.)
pub(super) fn write_json(
    files: &TokenizerFiles,
    json: &TokenizerJson,
    architecture: &str,
    metadata: &mut Metadata,
) -> Result<(), TextError> {
    let is_gemma4 = architecture == "gemma4";
    let mut tokens = Tokens::with_holes(0, ADDED_SCORE)?;
    let vocab = &json.model.vocab;
    for (text, &id) in vocab.texts.iter().zip(&vocab.ids) {
        let kind = match byte_of(text) {
            Some(_) => TokenKind::Byte,
            None => TokenKind::Normal,
        };
        tokens.set(id, text, kind, ADDED_SCORE)?;
    }
    let named = named_special_tokens(files);
    for added in added_tokens(files, json) {
        if byte_of(&added.text).is_some() {
            continue;
        }
        let is_visible = is_gemma4 && VISIBLE.contains(&added.text.as_str());
        let kind = match is_visible {
            true => TokenKind::UserDefined,
            false => added.kind(&named),
        };
        tokens.set(added.id, &kind_text(&added.text, kind), kind, ADDED_SCORE)?;
    }
    if is_gemma4 {
        metadata.insert("tokenizer.ggml.model", Value::from("gemma4"));
        tokens.write(true, metadata);
        let merges = json.model.merges.pairs.clone();
        metadata.insert("tokenizer.ggml.merges", Value::from(merges));
    } else {
        let scores = merge_scores(json)?;
        // Characters are not merged, and what no merge leads to is merged last.
        let last = -(json.model.merges.pairs.len() as f32);
        tokens.edit(|_, text, kind, score| {
            if *kind == TokenKind::Normal {
                *score = scores.get(text.as_str()).copied().unwrap_or(last);
            }
        });
        metadata.insert("tokenizer.ggml.model", Value::from("llama"));
        metadata.insert("tokenizer.ggml.pre", Value::from("default"));
        tokens.write(true, metadata);
    }
    special::write(files, Some(json), Some(tokens.len()), metadata);
    match is_gemma4 {
        true => {
            metadata.insert("tokenizer.ggml.add_space_prefix", Value::Bool(false));
            metadata.insert("tokenizer.ggml.add_bos_token", Value::Bool(true));
        }
        false => write_json_prefix(files, json, architecture, metadata),
    }
    Ok(())
}

/// Tokens of Gemma 4 that a reader of its answers must see.
const VISIBLE: [&str; 7] = [
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|\"|>",
];

/// A score for each token that a merge leads to: the earlier the merge, the higher.
fn merge_scores(json: &TokenizerJson) -> Result<HashMap<String, f32>, TextError> {
    let merges = &json.model.merges.pairs;
    let mut scores = HashMap::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        let pair = halves(merge);
        let (left, right) =
            pair.ok_or_else(|| damaged(format!("the merge `{merge}` is no pair")))?;
        let union = format!("{left}{right}");
        scores.entry(union).or_insert(-(rank as f32));
    }
    Ok(scores)
}

/// A space in front where the file's own steps put one.
fn write_json_prefix(
    files: &TokenizerFiles,
    json: &TokenizerJson,
    architecture: &str,
    metadata: &mut Metadata,
) {
    let key = "tokenizer.ggml.add_space_prefix";
    write_space_prefix(files, architecture, metadata);
    if !metadata.contains(key) && !prepends(&json.normalizer) && !prepends(&json.pre_tokenizer) {
        metadata.insert(key, Value::Bool(false));
    }
}

/// Whether a step, or one of those it is made of, puts a space in front of a text.
pub(super) fn prepends(step: &Json) -> bool {
    let steps =
        ["normalizers", "pretokenizers"].map(|name| step.get(name).and_then(Json::as_array));
    if steps.into_iter().flatten().flatten().any(prepends) {
        return true;
    }
    match step.get("type").and_then(Json::as_str) {
        Some("Prepend") => true,
        Some("Metaspace") => match step.get("prepend_scheme").and_then(Json::as_str) {
            Some(scheme) => scheme != "never",
            None => step.get("add_prefix_space").and_then(Json::as_bool) != Some(false),
        },
        _ => false,
    }
}
