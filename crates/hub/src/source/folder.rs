//! Which files of a repository make up a model folder: safetensors weights with all that describes them.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::files::check_relative;

/// Written in the place of a quantization (`hf:owner/repo:safetensors`), it asks for the folder where there is a GGUF file, too.
pub(super) const WISH: &str = "safetensors";
/// What every model folder has.
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Files beside the weights that an import may read, where the repository has them.
const SIDE_FILES: [&str; 19] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "params.json",
    "tekken.json",
    "README.md",
];
/// Any of these turns text into ids.
const TOKENIZERS: [&str; 7] = [
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "tekken.json",
];
/// An index is a line of 60 bytes a tensor; a hundred thousand tensors are more than any model here has.
const MAX_INDEX_BYTES: u64 = 16 << 20;
const MOST_SHARDS: usize = 1000;

/// The files of a model folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FolderFiles {
    /// In the order in which they are fetched: what is small and says the most comes first.
    pub(super) side_files: Vec<String>,
    pub(super) weights: Weights,
}

/// Where the names of the weight files stand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights {
    Files(Vec<String>),
    /// In this file, which lists the shards.
    Index(&'static str),
}

/// The files of the model folder that a repository is; `None` where it has no safetensors weights or no configuration.
pub(super) fn choose(names: &[String]) -> Option<FolderFiles> {
    let has = |name: &str| names.iter().any(|known| known == name);
    if !has(CONFIG) {
        return None;
    }
    let weights = if has(WEIGHTS) {
        Weights::Files(vec![WEIGHTS.to_owned()])
    } else if has(INDEX) {
        Weights::Index(INDEX)
    } else {
        let others: Vec<String> = names
            .iter()
            .filter(|name| is_plain_weight_file(name))
            .cloned()
            .collect();
        if others.is_empty() {
            return None;
        }
        Weights::Files(others)
    };
    let modules = names.iter().filter(|name| is_module_file(name)).cloned();
    let known = SIDE_FILES.iter().filter(|name| has(name));
    let side_files = std::iter::once(CONFIG)
        .chain(known.copied())
        .map(str::to_owned)
        .chain(modules)
        .collect();
    Some(FolderFiles {
        side_files,
        weights,
    })
}

/// The shards that an index lists, in the order of their names.
///
/// # Errors
/// In words: the index cannot be read, lists nothing, or names a file that would leave the folder.
pub(super) fn shards(index: &Path) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::HashMap<String, String>,
    }
    let length = std::fs::metadata(index)
        .map_err(|error| error.to_string())?
        .len();
    if length > MAX_INDEX_BYTES {
        return Err(format!(
            "an index of {length} bytes is longer than the {MAX_INDEX_BYTES} that are believed"
        ));
    }
    let bytes = std::fs::read(index).map_err(|error| error.to_string())?;
    let parsed: Index = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if shards.is_empty() || shards.len() > MOST_SHARDS {
        return Err(format!(
            "it lists {} files, and 1 to {MOST_SHARDS} are believed",
            shards.len()
        ));
    }
    for shard in &shards {
        check_relative(shard)?;
        if !shard.ends_with(".safetensors") {
            return Err(format!("it lists {shard:?}, which is no safetensors file"));
        }
    }
    Ok(shards.into_iter().collect())
}

/// Whether the names include what turns text into ids. Without it a folder in the shared cache is only a part of one.
pub(super) fn has_tokenizer(names: &[String]) -> bool {
    names.iter().any(|name| TOKENIZERS.contains(&name.as_str()))
}

/// What a repository without a usable model has, for the error: weights of every kind, not the pictures and the texts.
pub(super) fn weight_files(names: &[String]) -> Vec<String> {
    const KINDS: [&str; 10] = [
        ".gguf",
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".onnx",
        ".h5",
        ".msgpack",
        ".npz",
        ".ckpt",
    ];
    let is_weight = |name: &&String| {
        let lower = name.to_ascii_lowercase();
        KINDS.iter().any(|kind| lower.ends_with(kind)) || lower == CONFIG
    };
    names.iter().filter(is_weight).cloned().collect()
}

/// Safetensors at the top that the importer reads without an index: no adapter, and not the second copy that some makers
/// add in their own layout (consolidated.safetensors).
fn is_plain_weight_file(name: &str) -> bool {
    name.starts_with("model") && name.ends_with(".safetensors") && !name.contains('/')
}

/// Files of a sentence-transformers module: `1_Pooling/config.json`, `2_Dense/model.safetensors`.
fn is_module_file(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else {
        return false;
    };
    let is_module = folder.split_once('_').is_some_and(|(number, kind)| {
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    is_module && ["config.json", "model.safetensors"].contains(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_folder_is_its_weights_and_what_describes_them() {
        let chosen = choose(&names(&[
            ".gitattributes",
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "config.json",
            "model.safetensors",
            "modules.json",
            "onnx/model.onnx",
            "openvino/config.json",
            "pytorch_model.bin",
            "tokenizer.json",
            "train_script.py",
        ]))
        .unwrap();
        assert_eq!(
            chosen.side_files,
            [
                "config.json",
                "tokenizer.json",
                "modules.json",
                "1_Pooling/config.json",
                "2_Dense/model.safetensors"
            ]
        );
        assert_eq!(
            chosen.weights,
            Weights::Files(names(&["model.safetensors"]))
        );
    }

    #[test]
    fn sharded_weights_are_named_by_their_index() {
        let chosen = choose(&names(&[
            "config.json",
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
        ]));
        assert_eq!(chosen.unwrap().weights, Weights::Index(INDEX));
        let other = choose(&names(&["config.json", "model-f16.safetensors"]));
        assert_eq!(
            other.unwrap().weights,
            Weights::Files(names(&["model-f16.safetensors"]))
        );
    }

    #[test]
    fn what_is_no_model_folder_is_not_taken_for_one() {
        for list in [
            &["model.safetensors"][..],
            &["config.json", "pytorch_model.bin"],
            &["config.json", "adapter_model.safetensors"],
            &["config.json", "a.safetensors", "b.safetensors"],
        ] {
            assert!(choose(&names(list)).is_none(), "{list:?}");
        }
    }

    #[test]
    fn an_index_gives_each_shard_once_and_never_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.json");
        let shards_of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            shards(&path)
        };
        assert_eq!(
            shards_of(
                r#"{"metadata":{},"weight_map":{"a":"y.safetensors","b":"x.safetensors","c":"y.safetensors"}}"#
            ),
            Ok(names(&["x.safetensors", "y.safetensors"]))
        );
        for bad in [
            r#"{"weight_map":{}}"#,
            r#"{"weight_map":{"a":"../x.safetensors"}}"#,
            r#"{"weight_map":{"a":"x.bin"}}"#,
            r#"{"weight_map":[]}"#,
            "no json",
        ] {
            assert!(shards_of(bad).is_err(), "{bad}");
        }
    }
}
