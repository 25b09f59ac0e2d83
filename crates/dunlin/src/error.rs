//! The one error type of the SDK.

use std::path::PathBuf;

use dunlin_engine::EngineError;
use dunlin_format::FormatError;
use dunlin_hub::HubError;
use dunlin_text::TextError;

/// Everything that can go wrong between a model's name and its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be found or fetched.
    #[error(transparent)]
    Hub(#[from] HubError),

    /// The file is not a sound model file.
    #[error(transparent)]
    Format(#[from] FormatError),

    /// The tokenizer or the chat template failed.
    #[error(transparent)]
    Text(#[from] TextError),

    /// The model could not be loaded or computed.
    #[error(transparent)]
    Engine(#[from] EngineError),

    /// The reference leads to a folder, and models are loaded from GGUF files.
    #[error(
        "{} is a folder, and models are loaded from GGUF files: name the file, or a GGUF conversion of the model",
        .path.display()
    )]
    Folder {
        /// The folder.
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
        "a context of {requested} tokens was asked for, and this model takes 1 to {limit}: ask for a length in this range"
    )]
    ContextLength {
        /// Tokens asked for.
        requested: usize,
        /// Tokens that the model was trained for.
        limit: usize,
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

    /// The loading was cancelled by its callback.
    #[error("cancelled")]
    Cancelled,

    /// A thread could not be started.
    #[error(
        "the operating system could not start a thread: {0}; end other programs or ask for fewer threads"
    )]
    Thread(#[source] std::io::Error),
}
