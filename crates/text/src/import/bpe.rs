//! Byte-pair encoding in `tokenizer.json`: byte-level vocabularies (`gpt2`).

use dunlin_format::{Metadata, Value};

use super::{
    TokenizerFiles, pre_tokenizer, special,
    tokenizer_json::{TokenizerJson, unsupported},
    vocabulary::Tokens,
};
use crate::TextError;

pub(super) fn write(
    files: &TokenizerFiles,
    json: &TokenizerJson,
    architecture: &str,
    metadata: &mut Metadata,
) -> Result<(), TextError> {
    for affix in [
        &json.model.continuing_subword_prefix,
        &json.model.end_of_word_suffix,
    ] {
        if affix.as_ref().is_some_and(|affix| !affix.is_empty()) {
            return Err(unsupported(
                "merges with a prefix or suffix for parts of words",
            ));
        }
    }
    let name = pre_tokenizer::name(json, architecture)?;
    metadata.insert("tokenizer.ggml.model", Value::from("gpt2"));
    metadata.insert("tokenizer.ggml.pre", Value::from(name));
    Tokens::from_json(files, json)?.write(false, metadata);
    let merges = json.model.merges.pairs.clone();
    metadata.insert("tokenizer.ggml.merges", Value::from(merges));
    if architecture == "modern-bert" {
        // Where the file has no steps after encoding.
        for name in ["bos", "eos", "sep"] {
            metadata.insert(
                format!("tokenizer.ggml.add_{name}_token"),
                Value::Bool(true),
            );
        }
    }
    if ["bert", "jina-bert-v2"].contains(&architecture) {
        special::write_type_count(files, metadata);
    }
    special::write(files, Some(json), None, metadata);
    // SmolLM and the small Granite code models, whose files leave it open.
    if architecture == "llama" && files.vocab_size() == Some(49152) {
        metadata.insert("tokenizer.ggml.add_bos_token", Value::Bool(false));
    }
    Ok(())
}
