//! What can go wrong with an index.

use std::io;
use std::path::{Path, PathBuf};

use super::ModelIdentity;

/// Everything that can go wrong with an index, apart from the computation of vectors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// The file is no index.
    #[error("{} is no index of Dunlin: it does not begin with {expected:?}; name another file, or remove this one", .path.display())]
    NotAnIndex {
        /// The file.
        path: PathBuf,
        /// How an index begins.
        expected: &'static str,
    },

    /// The index was written by another version of Dunlin.
    #[error("{} is an index of version {found}, and this build reads version {supported}: build the index again", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is read.
        supported: u32,
    },

    /// The file is cut off or altered.
    #[error("{} is damaged: {reason}; remove it and build the index again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },

    /// The index is not one of this folder.
    #[error(
        "{} is {}, not that of {}: name another file for the index", .path.display(),
        .indexed.as_ref().map_or("an index of no folder".to_owned(), |folder| format!("the index of {}", folder.display())),
        .asked.display()
    )]
    OtherFolder {
        /// The file.
        path: PathBuf,
        /// The folder of the index; `None`: it was not made from a folder.
        indexed: Option<PathBuf>,
        /// The folder that was to be searched.
        asked: PathBuf,
    },

    /// The index holds vectors of another model.
    #[error(
        "the index holds vectors by {indexed}, and the query would be embedded by {asked}: such vectors cannot be compared. Ask with the model of the index, or build the index again"
    )]
    OtherModel {
        /// The model of the index.
        indexed: Box<ModelIdentity>,
        /// The model that was to be used.
        asked: Box<ModelIdentity>,
    },

    /// The index holds vectors of the caller.
    #[error(
        "the index was made for vectors of the caller, of no model that is known: add and search vectors, or make an index for an embedder"
    )]
    NoModel,

    /// A vector has another length than the index.
    #[error("a vector of {found} numbers was given, and the index holds vectors of {expected}")]
    Width {
        /// Numbers of the vector.
        found: usize,
        /// Numbers of the vectors of the index.
        expected: usize,
    },

    /// A vector has no direction.
    #[error(
        "the vector of {what} has no direction: it is all zeros, or holds what is not a number; it cannot be compared with others"
    )]
    NoDirection {
        /// Whose vector it is.
        what: String,
    },

    /// Two documents of one id.
    #[error(
        "there is already a document with the id {id:?}: update it, or give the new one another id"
    )]
    DuplicateId {
        /// The id.
        id: String,
    },

    /// There is no such document.
    #[error("there is no document with the id {id:?}")]
    UnknownId {
        /// The id.
        id: String,
    },

    /// The index is full.
    #[error("an index holds at most {limit} documents: split it")]
    Full {
        /// Documents that it can hold.
        limit: usize,
    },

    /// A part of a document is too long for the file.
    #[error("{what} of document {id:?} has {bytes} bytes, and an index holds at most {limit}")]
    TooLarge {
        /// The document.
        id: String,
        /// Its id, text or metadata.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
        /// Bytes that can be held.
        limit: usize,
    },

    /// A filter cannot be read.
    #[error("this is no filter: {reason}")]
    Filter {
        /// What is wrong, and where.
        reason: String,
    },

    /// Pieces of such a size cannot be made.
    #[error(
        "pieces of {max_tokens} tokens that share {overlap} with their neighbours cannot be made: the overlap must be less than the piece, and a piece at least 1 token and at most the {limit} that the model takes"
    )]
    ChunkSize {
        /// Tokens of a piece.
        max_tokens: usize,
        /// Tokens that neighbours share.
        overlap: usize,
        /// Tokens that a piece can have.
        limit: usize,
    },

    /// Such groups cannot be made.
    #[error("{0}")]
    Cluster(String),
}

impl SearchError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        SearchError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
