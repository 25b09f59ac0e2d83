//! Each folder of the conformance suite, converted, against the GGUF file that llama.cpp's converter
//! made of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::print_stderr,
    reason = "says that there was no data, and what was compared"
)]

use std::{collections::BTreeSet, env, ops::ControlFlow, path::PathBuf};

use dunlin_convert::{ConvertOptions, Folder, OutputType, convert};
use dunlin_format::Gguf;

/// The folders, with the metadata keys that differ on purpose.
///
/// `gemma4`: tokenizer.json calls `<|turn>` and `<turn|>` special, tokenizer_config.json does not name
/// them. llama.cpp's converter goes by the latter and makes them plain text; here they stay special,
/// so that no text of a user becomes them.
const FOLDERS: &[(&str, &[&str])] = &[
    ("bert", &[]),
    ("bert_reranker", &[]),
    ("gemma2", &[]),
    ("gemma3", &[]),
    ("gemma3_linear", &[]),
    ("gemma4", &["tokenizer.ggml.token_type"]),
    ("gemma_embedding", &[]),
    ("gemma_embedding_dense", &[]),
    ("granite", &[]),
    ("lfm2", &[]),
    ("llama", &[]),
    ("mistral", &[]),
    ("mistral_swa", &[]),
    ("modernbert", &[]),
    ("nomic_bert", &[]),
    ("olmo2", &[]),
    ("phi4_mini", &[]),
    ("qwen2", &[]),
    ("qwen3", &[]),
    ("qwen3_5", &[]),
    ("qwen3_embedding", &[]),
    ("smollm2", &[]),
    ("smollm3", &[]),
    ("xlmr_reranker", &[]),
];

/// Differs everywhere: the name is made from that of the folder, in another spelling.
const EVERYWHERE: &[&str] = &["general.name"];

#[test]
fn every_folder_becomes_the_file_that_llama_cpp_makes() {
    let Some(shared) = shared_folder() else {
        eprintln!("skipped: no conformance data (set DUNLIN_SHARED to its folder)");
        return;
    };
    let mut differences = Vec::new();
    for &(name, exceptions) in FOLDERS {
        let folder = shared.join("conformance").join(name);
        match compare(&folder, exceptions) {
            Ok(found) => {
                differences.extend(found.into_iter().map(|line| format!("{name}: {line}")))
            }
            Err(error) => differences.push(format!("{name}: {error}")),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_table_lists_every_folder() {
    let Some(shared) = shared_folder() else {
        eprintln!("skipped: no conformance data (set DUNLIN_SHARED to its folder)");
        return;
    };
    let entries = shared.join("conformance").read_dir().unwrap();
    let folders: BTreeSet<String> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("model.safetensors").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let listed: BTreeSet<String> = FOLDERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, listed);
}

fn compare(
    path: &std::path::Path,
    exceptions: &[&str],
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let work = tempfile::tempdir()?;
    let out = work.path().join("model.gguf");
    let folder = Folder::open(path)?;
    let options = ConvertOptions {
        dtype: OutputType::F32,
        name: None,
    };
    let report = convert(&folder, &options, &out, &mut |_, _| {
        ControlFlow::Continue(())
    })?;
    let ours = Gguf::open(&out)?;
    let theirs = Gguf::open(&path.join("model.gguf"))?;
    assert_eq!(report.bytes, ours.file_bytes());
    assert_eq!(report.tensors, ours.tensors().len());

    let mut differences = Vec::new();
    for expected in theirs.tensors() {
        let Some(found) = ours.tensor(&expected.name) else {
            differences.push(format!("no tensor {}", expected.name));
            continue;
        };
        if (&found.shape, found.dtype) != (&expected.shape, expected.dtype) {
            differences.push(format!(
                "{} is {:?} {} instead of {:?} {}",
                found.name, found.shape, found.dtype, expected.shape, expected.dtype
            ));
        } else if ours.data(found) != theirs.data(expected) {
            differences.push(format!("the numbers of {} differ", found.name));
        }
    }
    let extra = ours
        .tensors()
        .iter()
        .filter(|tensor| theirs.tensor(&tensor.name).is_none());
    differences.extend(extra.map(|tensor| format!("extra tensor {}", tensor.name)));

    let excepted = |key: &str| EVERYWHERE.contains(&key) || exceptions.contains(&key);
    for (key, expected) in theirs.metadata().iter().filter(|(key, _)| !excepted(key)) {
        match ours.metadata().get(key) {
            None => differences.push(format!("no key {key} ({})", short(expected))),
            Some(found) if found != expected => differences.push(format!(
                "{key} is {} instead of {}",
                short(found),
                short(expected)
            )),
            Some(_) => {}
        }
    }
    let extra = ours
        .metadata()
        .iter()
        .filter(|(key, _)| theirs.metadata().get(key).is_none() && !excepted(key));
    differences.extend(extra.map(|(key, value)| format!("extra key {key} ({})", short(value))));
    Ok(differences)
}

fn short(value: &dunlin_format::Value) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The folder of shared conformance data, where there is one.
fn shared_folder() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let folder = env::var_os("DUNLIN_SHARED").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    folder.join("conformance").is_dir().then_some(folder)
}
