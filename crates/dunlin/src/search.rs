//! Search by meaning and by words: an index of texts with their vectors, exact, on this machine.
//!
//! ```no_run
//! use dunlin::Embedder;
//! use dunlin::search::{Document, SearchOptions, SemanticIndex};
//!
//! let embedder = Embedder::load_from_model_id("all-minilm:l6-v2")?;
//! let mut index = SemanticIndex::for_embedder(&embedder)?;
//! index.add(&embedder, vec![
//!     Document::new("cats", "A cat sleeps sixteen hours a day."),
//!     Document::new("shares", "Shares of the company fell."),
//! ])?;
//! let hits = index.search(&embedder, "How long do pets rest?", &SearchOptions::new())?;
//! assert_eq!(hits[0].id, "cats");
//! index.save("pets.index".as_ref())?;
//! # Ok::<(), dunlin::Error>(())
//! ```
//!
//! Scope: [`SemanticIndex`] finds the nearest of up to some millions of vectors by comparing with each of them (no
//! approximation: an answer is never missed), words by BM25, or both ([`SearchMode`]); [`Filter`] restricts to documents by
//! their metadata; [`Chunker`] cuts texts into pieces that a model reads at once; [`FolderIndex`] keeps the text files of
//! a folder indexed; [`cluster`] sorts vectors into groups. An index lies in memory as a whole.

pub mod cluster;

mod chunk;
mod error;
mod file;
mod filter;
mod folder;
mod fusion;
mod identity;
mod index;
mod keyword;
mod nearest;
mod options;
mod walk;

pub use chunk::{Chunk, ChunkOptions, Chunker, TextFormat};
pub use error::SearchError;
pub use filter::{Bound, Filter};
pub use folder::{FolderChanges, FolderEvent, FolderIndex};
pub use identity::ModelIdentity;
pub use index::{Document, Hit, SemanticIndex};
pub use options::{SearchMode, SearchOptions};
pub use walk::{SkippedFile, SkippedReason};
