//! The one error type of the engine.

use dunlin_format::{DType, FormatError};

/// Everything that can go wrong between a model file and a sampled token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The file could not be read, or a value in it has the wrong type.
    #[error(transparent)]
    Format(#[from] FormatError),

    /// The file names an architecture that this engine does not compute.
    #[error(
        "the model's architecture {found:?} is not supported; supported are {}: choose a model of one of these families",
        .supported.join(", ")
    )]
    UnknownArchitecture {
        /// The value of `general.architecture`.
        found: String,
        /// The architectures that can be loaded.
        supported: Vec<&'static str>,
    },

    /// A metadata value is outside what a model can have, or contradicts another one.
    #[error(
        "metadata key {key} is {found}, expected {expected}: the file is damaged or was converted wrongly, get it again or convert it again"
    )]
    InvalidMetadata {
        /// The metadata key.
        key: String,
        /// The value found.
        found: String,
        /// What would have been accepted.
        expected: String,
    },

    /// The file asks for something that would change the answer and that the engine does not compute.
    #[error(
        "this model needs {feature}, which the engine does not compute yet: running it without would give wrong answers, choose another model or conversion"
    )]
    UnsupportedFeature {
        /// What the file asks for, with the key or tensor that says so.
        feature: String,
    },

    /// A tensor that the architecture needs is not in the file.
    #[error(
        "tensor {name} is missing: the file is incomplete or belongs to another architecture, get it again"
    )]
    MissingTensor {
        /// The tensor's name.
        name: String,
    },

    /// A tensor's shape is not the one that the metadata promise.
    #[error(
        "tensor {name} has shape {found:?}, expected {expected:?} (columns first): the metadata and the weights do not belong together, get the file again"
    )]
    WrongShape {
        /// The tensor's name.
        name: String,
        /// The shape that follows from the metadata, in GGUF order.
        expected: Vec<u64>,
        /// The shape in the file, in GGUF order.
        found: Vec<u64>,
    },

    /// The file holds a tensor that the architecture has no place for.
    #[error(
        "tensor {name} has no place in architecture {architecture}: leaving it out would give wrong answers, this variant of the model is not supported"
    )]
    UnexpectedTensor {
        /// The tensor's name.
        name: String,
        /// The architecture of the file.
        architecture: String,
    },

    /// A tensor holds a value with which nothing can be computed.
    #[error(
        "tensor {name} holds {found} at element {index}, expected {expected}: the file is damaged"
    )]
    InvalidTensorValue {
        /// The tensor's name.
        name: String,
        /// Index of the first bad element.
        index: usize,
        /// The value found.
        found: f32,
        /// What would have been accepted.
        expected: &'static str,
    },

    /// A token id is not in the vocabulary.
    #[error(
        "token id {token} is outside the vocabulary of {vocab_size} tokens: was the text encoded with another model's tokenizer?"
    )]
    TokenOutOfRange {
        /// The token id.
        token: u32,
        /// Number of tokens of the model.
        vocab_size: usize,
    },

    /// A position was asked for that the sequence does not have.
    #[error("position {position} does not exist in a sequence of {tokens} tokens")]
    PositionOutOfRange {
        /// The position, counted from 0.
        position: usize,
        /// Length of the sequence in tokens.
        tokens: usize,
    },

    /// A weight matrix has no kernel, or not the bytes of its shape.
    #[error("tensor {name} cannot be packed: {source}")]
    Pack {
        /// The tensor's name.
        name: String,
        /// Why.
        source: dunlin_compute::PackError,
    },

    /// A weight matrix cannot be loaded as another type.
    #[error("tensor {name} cannot be loaded as {dtype}: {reason}")]
    Convert {
        /// The tensor's name.
        name: String,
        /// The type that it should become.
        dtype: DType,
        /// Why, and what to do.
        reason: String,
    },

    /// The threads could not be started.
    #[error("the operating system could not start the threads: {0}; ask for fewer")]
    Threads(#[source] std::io::Error),

    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,

    /// The cache has no room for the tokens.
    #[error(
        "the sequence needs room for {needed} tokens, the context has {available}: shorten the prompt or load the model with a longer context"
    )]
    CacheFull {
        /// Tokens of the sequence, the new ones included.
        needed: usize,
        /// Tokens that it can hold.
        available: usize,
    },

    /// The system does not give the memory that a context takes.
    #[error(
        "a context of {tokens} tokens takes {bytes} bytes of memory beside the weights, which this machine does not give: load the model with a shorter context or give a shorter text"
    )]
    NoMemory {
        /// Tokens of the context, or of the text.
        tokens: usize,
        /// Bytes of its keys and values and of the work buffers.
        bytes: u64,
    },

    /// A step was given no tokens for a sequence, or more than fit.
    #[error("a step takes 1 to {limit} tokens and at least one for each sequence, not {tokens}")]
    WrongBatch {
        /// Tokens given.
        tokens: usize,
        /// The most that one step takes.
        limit: usize,
    },

    /// The bytes of an exported sequence cannot be read or written.
    #[error("the keys and values of a sequence could not be transferred: {0}")]
    Transfer(#[source] std::io::Error),

    /// An exported sequence is of another model or set-up, or its bytes are damaged.
    #[error(
        "the exported sequence has {what} {found}, expected {expected}: it was made with another model or other settings, or its bytes are damaged; compute the tokens again"
    )]
    WrongSequence {
        /// What does not fit.
        what: &'static str,
        /// What the bytes say.
        found: String,
        /// What the engine has.
        expected: String,
    },

    /// Two chunks of a step name the same sequence.
    #[error("a step names the same sequence twice: put its tokens into one chunk")]
    SequenceTwice,

    /// The sequence was never created, or was removed.
    #[error("the sequence does not exist in this engine")]
    UnknownSequence,

    /// The context cannot be made longer by YaRN.
    #[error("the context cannot be stretched {factor} times: {reason}")]
    CannotStretch {
        /// The factor asked for.
        factor: f32,
        /// Why not.
        reason: &'static str,
    },

    /// A file that should be an adapter is none.
    #[error(
        "the file is no LoRA adapter: {reason}. Give an adapter's GGUF file (as llama.cpp's convert_lora_to_gguf makes it) or a PEFT folder"
    )]
    NotAnAdapter {
        /// What it lacks.
        reason: String,
    },

    /// An adapter belongs to another family of models.
    #[error(
        "the adapter was made for models of architecture {adapter}, and this model's is {model}: use it with the model that it was trained on"
    )]
    AdapterArchitecture {
        /// The architecture that the adapter names.
        adapter: String,
        /// The model's.
        model: String,
    },

    /// An adapter has a matrix for a tensor that the model does not have.
    #[error(
        "the adapter changes {name}, which this model of architecture {architecture} does not have: use it with the model that it was trained on"
    )]
    AdapterUnknownTensor {
        /// The tensor.
        name: String,
        /// The model's architecture.
        architecture: String,
    },

    /// An adapter holds something that is not computed.
    #[error(
        "the adapter's {name} is not supported: {reason}. Leaving it out would give wrong answers; merge the adapter into its model, or train it without"
    )]
    AdapterUnsupported {
        /// The tensor or key.
        name: String,
        /// What stands against it.
        reason: String,
    },

    /// Half of a pair of matrices is missing.
    #[error(
        "the adapter has {name} and lacks {missing}: the file is incomplete, get it or convert it again"
    )]
    AdapterUnpaired {
        /// The half that is there.
        name: String,
        /// The other one.
        missing: String,
    },

    /// A rank that no pair of matrices can have.
    #[error("the adapter's {name} has rank {rank}, allowed is 1 to {limit}")]
    AdapterRank {
        /// The matrix.
        name: String,
        /// Its rank.
        rank: usize,
        /// The largest rank.
        limit: usize,
    },

    /// A matrix of an adapter does not fit the model, or not its other half.
    #[error(
        "the adapter's {name} has {} rows of {} numbers, needed are {} of {}: use the adapter with the model that it was trained on",
        .found.0, .found.1, .expected.0, .expected.1
    )]
    AdapterShape {
        /// The matrix.
        name: String,
        /// Its rows and columns.
        found: (usize, usize),
        /// Those that the model and the rank ask for.
        expected: (usize, usize),
    },

    /// A scale with which nothing can be computed.
    #[error("an adapter's scale is {found}, a finite number is needed")]
    AdapterScale {
        /// The scale.
        found: f32,
    },

    /// The adapter was never added, or was removed.
    #[error("the adapter does not exist in this model: add it first")]
    UnknownAdapter,

    /// The same adapter is named twice for a sequence.
    #[error("the same adapter is named twice: name it once, with the sum of its scales")]
    AdapterTwice,

    /// An adapter cannot be removed while it is at work.
    #[error("the adapter is in use by {sequences} sequences: end them first")]
    AdapterInUse {
        /// How many.
        sequences: usize,
    },

    /// The model gives no scores for a next token.
    #[error(
        "a model of architecture {architecture} reads whole texts and cannot write: use it for embeddings or reranking"
    )]
    NoLogits {
        /// The architecture of the file.
        architecture: String,
    },

    /// The model has no head that scores a sequence.
    #[error(
        "the model has no classification head (cls.output.weight), so it cannot score or rerank: use a reranker (cross-encoder)"
    )]
    NoClassifier,

    /// Scores are no embedding.
    #[error("a reranker's pooling gives scores, not an embedding: ask for mean, cls or last")]
    RankIsNoEmbedding,

    /// A token type is not in the model's table.
    #[error("token type {token_type} does not exist: the model has {types} of them")]
    TokenTypeOutOfRange {
        /// The type.
        token_type: u32,
        /// Number of types of the model.
        types: usize,
    },

    /// There is not one token type for each token.
    #[error("{types} token types were given for {tokens} tokens: one for each, or none")]
    WrongTokenTypes {
        /// Types given.
        types: usize,
        /// Tokens given.
        tokens: usize,
    },

    /// A sampling setting is outside its range.
    #[error("sampling setting {field} is {found}, allowed is {allowed}")]
    InvalidSampling {
        /// The setting's name.
        field: &'static str,
        /// The value given.
        found: String,
        /// The range allowed.
        allowed: &'static str,
    },

    /// A logit is not a number or plus infinity, so that no token can be chosen.
    #[error(
        "the logit of token {token} is {found}: the model file is damaged or the computation overflowed"
    )]
    InvalidLogit {
        /// The first token with such a logit.
        token: u32,
        /// Its logit.
        found: f32,
    },

    /// There is no token left to choose from.
    #[error("no token can be chosen: {reason}")]
    NoCandidate {
        /// Why none is left.
        reason: &'static str,
    },
}
