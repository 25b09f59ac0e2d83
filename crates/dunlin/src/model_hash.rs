//! The hash that tells models apart.

use std::path::Path;

use dunlin_format::Gguf;
use dunlin_hub::{Hub, ModelRef};
use sha2::{Digest, Sha256};

use crate::Lm;

/// Bytes that are hashed before their pages of the file are let go.
const RELEASE_BYTES: usize = 32 << 20;

impl Lm {
    /// SHA-256 of the model's file, in lower-case hexadecimal; of a split model, of all its files one after the other.
    ///
    /// Of a file of the hub's cache that is unchanged since it was pulled, the hash from then is taken. Any other is read through
    /// at the first call.
    #[must_use]
    pub fn sha256(&self) -> &str {
        let is_mapped = self.memory().mapped_weights > 0;
        self.hash_cell()
            .get_or_init(|| hash(self.text().gguf(), is_mapped))
    }
}

/// What the hub noted of this file when it was pulled, if it is one of its cache and unchanged.
pub(crate) fn known_sha256(
    hub: &Hub,
    model: &ModelRef,
    path: &Path,
    gguf: &Gguf,
) -> Option<String> {
    if matches!(model, ModelRef::Path(_)) || gguf.parts() != 1 {
        return None;
    }
    let cached = hub.cache().find(model).ok().flatten()?;
    (cached.path == path && cached.sha256.len() == 64).then_some(cached.sha256)
}

fn hash(gguf: &Gguf, is_mapped: bool) -> String {
    let mut hasher = Sha256::new();
    for part in gguf.part_bytes() {
        for piece in part.chunks(RELEASE_BYTES) {
            hasher.update(piece);
            if !is_mapped {
                gguf.release_pages();
            }
        }
    }
    let digits = hasher.finalize();
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}
