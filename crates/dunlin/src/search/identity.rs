//! Which model made the vectors of an index.

use std::fmt;

use dunlin_engine::Pooling;
use dunlin_format::Gguf;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Embedder, Error};

/// What must be equal for two vectors to be comparable: the model, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelIdentity {
    /// Name of the model, for people.
    pub name: String,
    /// SHA-256 of the weights and the vocabulary, in hexadecimal digits.
    pub sha256: String,
    /// How the vectors of tokens become one: `mean`, `cls` or `last`.
    pub pooling: String,
    /// Numbers of a vector.
    pub dimensions: usize,
    /// What is written before queries.
    pub query_prefix: String,
    /// What is written before documents.
    pub document_prefix: String,
}

impl ModelIdentity {
    /// That of an embedder.
    ///
    /// # Errors
    /// [`Error::Format`] where the model's file cannot be read again.
    pub(crate) fn of(embedder: &Embedder) -> Result<Self, Error> {
        let lm = embedder.lm();
        let path = lm.path();
        let own = lm.info().name.clone();
        let of_file = || {
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned())
        };
        let prefixes = embedder.prefixes();
        Ok(ModelIdentity {
            name: own.or_else(of_file).unwrap_or_default(),
            sha256: hash(&Gguf::open(path)?)?,
            pooling: match embedder.pooling() {
                Pooling::Mean => "mean",
                Pooling::Cls => "cls",
                Pooling::Last => "last",
                _ => "other",
            }
            .to_owned(),
            dimensions: embedder.dimensions(),
            query_prefix: prefixes.query.clone(),
            document_prefix: prefixes.document.clone(),
        })
    }

    /// Whether vectors of both can be compared. The name counts for nothing: files can be renamed.
    pub(super) fn agrees(&self, other: &ModelIdentity) -> bool {
        self.unnamed() == other.unnamed()
    }

    pub(super) fn unnamed(&self) -> ModelIdentity {
        ModelIdentity {
            name: String::new(),
            ..self.clone()
        }
    }
}

/// Two models of one name are told apart by their hash, which therefore is said, too.
impl fmt::Display for ModelIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.sha256.get(..12).unwrap_or(&self.sha256);
        write!(
            f,
            "{} (sha256 {start}, pooling {}, {} numbers",
            self.name, self.pooling, self.dimensions
        )?;
        for (what, prefix) in [
            ("queries", &self.query_prefix),
            ("documents", &self.document_prefix),
        ] {
            if !prefix.is_empty() {
                write!(f, ", {prefix:?} before {what}")?;
            }
        }
        f.write_str(")")
    }
}

/// The same for one file and for the parts that it was split into.
fn hash(gguf: &Gguf) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    let tokens = gguf.metadata().strings("tokenizer.ggml.tokens")?;
    for token in tokens.iter().flat_map(|tokens| tokens.iter()) {
        hasher.update((token.len() as u64).to_le_bytes());
        hasher.update(token.as_bytes());
    }
    for tensor in gguf.tensors() {
        hasher.update((tensor.name.len() as u64).to_le_bytes());
        hasher.update(tensor.name.as_bytes());
        hasher.update(gguf.data(tensor));
    }
    gguf.release_pages();
    Ok(hex(&hasher.finalize()))
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
