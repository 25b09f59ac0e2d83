//! The one error type of the SDK.

use std::path::PathBuf;

use dunlin_convert::ConvertError;
use dunlin_engine::EngineError;
use dunlin_format::{DType, FormatError};
use dunlin_hub::HubError;
use dunlin_text::TextError;

use crate::FinishReason;
use crate::search::SearchError;
use crate::tasks::TaskError;

/// Everything that can go wrong between a model's name and its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be found or fetched.
    #[error(transparent)]
    Hub(HubError),

    /// The file is not a sound model file.
    #[error(transparent)]
    Format(#[from] FormatError),

    /// The tokenizer or the chat template failed.
    #[error(transparent)]
    Text(#[from] TextError),

    /// The model could not be loaded or computed.
    #[error(transparent)]
    Engine(#[from] EngineError),

    /// A model folder could not be converted to GGUF.
    #[error(transparent)]
    Convert(#[from] ConvertError),

    /// The reference leads to a folder that is none of a model.
    #[error("{} is a folder and no model: {reason}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },

    /// A folder was to be converted, and the reference leads to a file.
    #[error(
        "{} is a file, and GGUF files are made out of model folders: name a folder with config.json and safetensors, or the repository that has it",
        .path.display()
    )]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },

    /// Layers were to be computed on a GPU.
    #[error(
        "{gpu_layers} layers were to run on a GPU, but this build of Dunlin computes on the processor only: ask for 0 GPU layers"
    )]
    GpuNotInBuild {
        /// Layers asked for.
        gpu_layers: u32,
    },

    /// The context asked for is none, or more than the model was trained for.
    #[error(
        "a context of {requested} tokens was asked for, and this model takes 1 to {limit}: ask for a length in this range, or stretch it by YaRN where the model's card says so (--yarn)"
    )]
    ContextLength {
        /// Tokens asked for.
        requested: usize,
        /// Tokens that the model was trained for.
        limit: usize,
    },

    /// A pattern for types of weights is no regular expression.
    #[error("the pattern {pattern:?} for types of weights is no regular expression: {source}")]
    TensorPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },

    /// A pattern for types of weights decides nothing.
    #[error("the pattern {pattern:?} for types of weights decides nothing: {reason}")]
    TensorPatternUnused {
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },

    /// A matrix cannot have the type that it was asked to have.
    #[error(
        "tensor {tensor} has rows of {columns} weights, which are no whole blocks of {dtype} ({} weights each): ask for another type for it, or let such matrices become {wider} (`TypeFallback::Wider`, on the command line `--type-fallback`)", .dtype.block_len()
    )]
    TensorWidth {
        /// The tensor.
        tensor: String,
        /// Weights in a row.
        columns: usize,
        /// The type that was asked for.
        dtype: DType,
        /// The next type that it can have.
        wider: DType,
    },

    /// Weights were to stay in the file and to have other types.
    #[error(
        "weights that are left in the file have the types of the file: load them into memory to give them other types, or leave out the types"
    )]
    MappedConversion,

    /// A model does not fit into the memory that it was given, in any way.
    #[error(
        "with a context of {context_length} tokens this model takes at least {needed} bytes, and {budget} are there: give it more memory, a shorter context or a cache of a smaller type, or choose a smaller model (`dunlin catalog --fits`)"
    )]
    DoesNotFit {
        /// Bytes that it takes at least.
        needed: u64,
        /// Bytes that are there.
        budget: u64,
        /// Tokens of the shortest context that is of use.
        context_length: usize,
    },

    /// The prompt does not fit.
    #[error(
        "the prompt has {prompt_tokens} tokens and the context holds {context_length}: shorten the prompt, or load the model with a longer context"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens that the context holds.
        context_length: usize,
    },

    /// There is nothing to continue.
    #[error(
        "the prompt is empty and the model has no token that begins a text: give at least one character"
    )]
    EmptyPrompt,

    /// A conversation was given to a model that has no chat template.
    #[error(
        "this model has no chat template: it is a base model, which continues text instead of answering messages. Use plain completion (`Prompt::Text`), or choose its chat (\"instruct\") variant"
    )]
    NoChatTemplate,

    /// The model reads texts and writes none.
    #[error(
        "a model of architecture {architecture} reads texts and does not write: use it for embeddings (`dunlin embed`) or reranking (`dunlin rerank`), or choose a model that chats"
    )]
    CannotGenerate {
        /// The architecture of the file.
        architecture: String,
    },

    /// The family has no tokens for filling in.
    #[error(
        "a model of architecture {architecture} with this vocabulary has no tokens for filling in the middle of a text: let it continue the text instead (`dunlin run MODEL --raw`), or choose a model that has them, such as qwen2.5-coder:0.5b (`dunlin show` says \"code infill\")"
    )]
    CannotInfill {
        /// The architecture of the file.
        architecture: String,
    },

    /// Other files of a repository were given to a family that cannot tell them apart.
    #[error(
        "this model has no tokens that keep the files of a repository apart: leave out the other files and the repository's name, or choose a model that has them, such as qwen2.5-coder:0.5b"
    )]
    NoFileTokens,

    /// What stands around a gap does not fit.
    #[error(
        "what stands around the gap has {prompt_tokens} tokens, and beside the answer there is room for {room}: shorten it, load the model with a longer context, ask for fewer tokens of answer, or let what is far from the gap be left out (`InfillOverflow::KeepNearest`, on the command line `--cut`)"
    )]
    InfillTooLong {
        /// Tokens of files, prefix and suffix.
        prompt_tokens: usize,
        /// Tokens that the context holds beside the most tokens of the answer.
        room: usize,
    },

    /// Guesses cannot be taken back.
    #[error(
        "a model of architecture {architecture} keeps a state that cannot go back behind a wrong guess: generate without speculation (`Speculation::Auto` or `Off`, on the command line `--speculate off`)"
    )]
    CannotSpeculate {
        /// The architecture of the file.
        architecture: String,
    },

    /// The draft model has other tokens.
    #[error(
        "the draft model has another vocabulary: token {id} is {draft_token:?} of its {draft_size} tokens, and {token:?} of the {size} tokens of the model that it was to guess for. Choose a small model of the same family, or generate without one"
    )]
    DraftVocabulary {
        /// Tokens of the draft model.
        draft_size: usize,
        /// Tokens of the model.
        size: usize,
        /// The first token that differs.
        id: u32,
        /// Its text in the draft model; empty where there is none.
        draft_token: String,
        /// Its text in the model.
        token: String,
    },

    /// An answer that was to be a value was cut short.
    #[error(
        "the answer is incomplete ({}): allow more tokens, or ask for less. So far it is {text:?}", .reason.as_str()
    )]
    Incomplete {
        /// What there is of it.
        text: String,
        /// Why it ended.
        reason: FinishReason,
    },

    /// An answer validates against the schema of a type that does not take it.
    #[error(
        "the answer has the form of the type's schema, but the type refuses it: {source}. The answer is {text:?}"
    )]
    Unreadable {
        /// The answer.
        text: String,
        /// What the type says.
        source: serde_json::Error,
    },

    /// A grammar was compiled for another vocabulary.
    #[error(
        "the grammar was compiled for the tokenizer of another model: compile it with this one's (`lm.tokenizer()`)"
    )]
    ForeignGrammar,

    /// The model does not say how it embeds.
    #[error(
        "this model of architecture {architecture} was made for writing and does not say how its states become one vector: name a pooling (mean, cls or last) to embed with it all the same, or choose an embedding model (`dunlin catalog --capability embeddings`)"
    )]
    NoPooling {
        /// The architecture of the file.
        architecture: String,
    },

    /// A text to embed or score does not fit.
    #[error(
        "text {index} (counted from 0) has {tokens} tokens, special ones included, and the model takes {limit}: shorten it, split it, or name what becomes of it (`TooLong`; on the command line `--truncate`)"
    )]
    TextTooLong {
        /// Index of the text or document.
        index: usize,
        /// Its tokens, the special ones (and the query's) included.
        tokens: usize,
        /// Tokens that the model takes, or that it was loaded for.
        limit: usize,
    },

    /// Vectors were to be cut to a length that they do not have.
    #[error(
        "vectors of {requested} numbers were asked for, and this model gives {limit}: ask for 1 to {limit}"
    )]
    Dimensions {
        /// Numbers asked for.
        requested: usize,
        /// Numbers of a whole vector.
        limit: usize,
    },

    /// An index could not be built, read, written or asked.
    #[error(transparent)]
    Search(#[from] SearchError),

    /// A task was set up in a way that cannot work, or its answer did not end.
    #[error(transparent)]
    Task(#[from] TaskError),

    /// Something went wrong with an MCP server.
    #[cfg(feature = "mcp")]
    #[error(transparent)]
    Mcp(#[from] crate::mcp::McpError),

    /// A vector or score is NaN or infinite.
    #[error(
        "the model gives {found} instead of a number: its file is damaged, or the computation overflowed; get the file again or choose another type of weights"
    )]
    NotANumber {
        /// The first such value.
        found: f32,
    },

    /// The model sorts texts into classes.
    #[error(
        "the model gives {labels} scores a text, one a class, and none says how well a text answers a query: choose a reranker"
    )]
    ManyLabels {
        /// Number of classes.
        labels: usize,
    },

    /// A setting of a search for answers is outside its range.
    #[error("{setting} is {found}, allowed is {allowed}")]
    SearchSetting {
        /// The setting's name.
        setting: &'static str,
        /// The value given.
        found: String,
        /// The range allowed.
        allowed: String,
    },

    /// The metadata of the model recommend a way to choose tokens that cannot be followed.
    #[error(
        "the model's file says {key} = {found}, and {allowed}: choose the settings yourself, without the model's defaults (on the command line `--no-model-defaults`)"
    )]
    SamplingMetadata {
        /// The key of the metadata.
        key: &'static str,
        /// Its value.
        found: String,
        /// What would be understood.
        allowed: String,
    },

    /// Perplexity needs whole windows.
    #[error(
        "perplexity is measured on windows of {window} tokens: the text has {tokens} tokens and the context holds {context_length}. Give a longer text, or load the model with a longer context"
    )]
    TextTooShort {
        /// Tokens of the text, BOS included.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
        /// Tokens that the context holds.
        context_length: usize,
    },

    /// The text leaves no character with which its control tokens could be marked.
    #[error(
        "the messages contain texts of control tokens and every character of the private use areas, so that the texts cannot be made harmless: remove either"
    )]
    UnsafeText,

    /// A conversation and the room for its answer do not fit the context, and the policy may drop no more.
    #[error(
        "the conversation has {prompt_tokens} tokens, {answer_room} are to be kept free for the answer, and the context holds {context_length}: choose a context policy that drops old turns, shorten the conversation, keep less free, or load the model with a longer context"
    )]
    ConversationTooLong {
        /// Tokens of the conversation, as far as the policy can shorten it.
        prompt_tokens: usize,
        /// Tokens for the answer.
        answer_room: usize,
        /// Tokens that the context holds.
        context_length: usize,
    },

    /// No message of a conversation waits for an answer.
    #[error("the conversation has no message that could be answered: say something first")]
    NothingToAnswer,

    /// The last message of a conversation is not the model's.
    #[error(
        "the conversation does not end with a message of the assistant, so there is none to go on with: get an answer first, or push its beginning"
    )]
    NothingToContinue,
    /// An answer with a form is made in one piece.
    #[error(
        "an answer with a form cannot be continued: let it be given once more, or take the form out of the options"
    )]
    ContinueForm,

    /// Reasoning was asked of a model that does not reason.
    #[error(
        "this model's chat template has no marks for reasoning, so it cannot be told to reason: choose a reasoning model, or leave reasoning to the template (`Reasoning::Auto`)"
    )]
    CannotReason,

    /// A form of the answer, and tools that it might call instead.
    #[error(
        "an answer that may call tools cannot have a form of its own, too: take the form out of the options, or set the tool choice to none"
    )]
    FormWithTools,

    /// A message does not exist.
    #[error("there is no message {index} (counted from 0): the conversation has {messages}")]
    NoSuchMessage {
        /// The index asked for.
        index: usize,
        /// Messages of the conversation.
        messages: usize,
    },

    /// A session file cannot be read or written.
    #[error("the session file {} cannot be used: {source}", .path.display())]
    SessionFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },

    /// A file is no session, or a damaged one.
    #[error(
        "{} is no session file, or a damaged one: {reason}; nothing of it was used. Save the conversation again, or begin a new one",
        .path.display()
    )]
    SessionDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// A session file has another layout.
    #[error(
        "the session file {} has layout {found}, and this version of Dunlin reads layout {supported}: restore it with the version that saved it",
        .path.display()
    )]
    SessionVersion {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
        /// The layout that is read.
        supported: u32,
    },

    /// A session belongs to another model or other settings.
    #[error(
        "the session {} was saved with {what} {session}, and loaded is {loaded}: load the model as it was, or begin a new session",
        .path.display()
    )]
    SessionMismatch {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As it was when the session was saved.
        session: String,
        /// As it is.
        loaded: String,
    },

    /// A conversation is too long for a session file.
    #[error(
        "the messages and tokens of the conversation take {bytes} bytes, and a session file holds {limit}: drop old messages first"
    )]
    SessionTooLarge {
        /// Bytes of messages and tokens.
        bytes: u64,
        /// The most that a file holds.
        limit: u64,
    },

    /// The loading was cancelled by its callback, or the summary of a conversation by its [`CancelToken`](crate::CancelToken).
    #[error("cancelled")]
    Cancelled,

    /// The memory of the model could not be locked.
    #[error(
        "the memory of the model cannot be locked: {0}; allow this process to lock as much (`ulimit -l`, or memlock in limits.conf), or load without memory lock"
    )]
    MemoryLock(#[source] std::io::Error),

    /// A program whose start was to be timed failed.
    #[error("the start of {program} cannot be timed: {reason}")]
    ColdStart {
        /// The program.
        program: String,
        /// What it said, or the system.
        reason: String,
    },

    /// The thread behind a stream of events panicked.
    #[error(
        "the computation panicked: {message}; a panic is a fault of this library, or of a function that was given to it. The model can still be used"
    )]
    Panicked {
        /// What the panic said.
        message: String,
    },

    /// A thread could not be started.
    #[error(
        "the operating system could not start a thread: {0}; end other programs or ask for fewer threads"
    )]
    Thread(#[source] std::io::Error),
}

impl From<HubError> for Error {
    /// A cancelled pull is a cancelled loading.
    fn from(error: HubError) -> Self {
        match error {
            HubError::Cancelled => Error::Cancelled,
            other => Error::Hub(other),
        }
    }
}
