//! Where the shared conformance data lie, and how they are read.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::print_stderr, reason = "says what was skipped")]

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use dunlin_format::Gguf;
use dunlin_text::Tokenizer;
use serde_json::Value as Json;

/// The folder of the shared data: `DUNLIN_SHARED`, else `shared` beside the workspace. `None`,
/// said on stderr, where there is none.
pub(crate) fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("DUNLIN_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    if folder.join("conformance").is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no shared conformance data (set DUNLIN_SHARED to their folder)");
    None
}

pub(crate) fn json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(crate) fn tokenizer(path: &Path) -> Tokenizer {
    Tokenizer::from_gguf(open(path).metadata()).unwrap()
}

/// A GGUF file, packed with gzip or not.
pub(crate) fn open(path: &Path) -> Gguf {
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut bytes = Vec::new();
        let packed = fs::File::open(path).unwrap();
        flate2::read::GzDecoder::new(packed)
            .read_to_end(&mut bytes)
            .unwrap();
        Gguf::from_bytes(bytes).unwrap()
    } else {
        Gguf::open(path).unwrap()
    }
}

pub(crate) fn ids(value: &Json) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}
