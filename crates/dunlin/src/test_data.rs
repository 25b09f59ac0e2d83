//! Vocabularies of real models for the tests, of the shared conformance data.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use dunlin_format::Gguf;

/// The file of a vocabulary; `None`, said on stderr, where the data are not here.
pub(crate) fn vocabulary(name: &str) -> Option<Gguf> {
    let shared = std::env::var_os("DUNLIN_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let folder = shared.join("conformance/vocab");
    if !folder.is_dir() {
        eprintln!("skipped: no shared conformance data (set DUNLIN_SHARED to their folder)");
        return None;
    }
    let packed = std::fs::File::open(folder.join(format!("{name}.gguf.gz"))).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .unwrap();
    Some(Gguf::from_bytes(bytes).unwrap())
}
