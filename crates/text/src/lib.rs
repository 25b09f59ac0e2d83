//! Text to token ids and back, and conversations to prompts.
//!
//! [`Tokenizer`] is built in memory from a model's GGUF metadata: byte-level BPE (`gpt2`),
//! SentencePiece-style BPE (`llama`, `gemma4`), WordPiece (`bert`) and Unigram (`t5`). For a Hugging
//! Face folder [`tokenizer_metadata`] makes these metadata first. [`ChatTemplate`] renders the model's Jinja chat template.
//! [`Grammar`] holds an answer to a form: JSON Schema, regular expression, choices, Lark or GBNF.
//! [`ToolFormat`] and [`ReasoningFormat`] read and write the tool calls and the reasoning of an answer.
//! All treat the file and the text as untrusted: user text never becomes a control token unless
//! the caller asks for it ([`Tokenizer::encode`]), and a template runs with a budget.
//!
//! This crate knows nothing of weights, files or the network, and reads no clock.

mod bpe;
mod charsmap;
mod end_of_generation;
mod error;
mod frame;
mod grammar;
mod import;
mod index;
mod merge;
mod pair_ranks;
mod pre_tokenizer;
mod reasoning;
mod special;
mod spm;
mod stream;
mod template;
mod tokenizer;
mod tools;
mod unigram;
mod vocabulary;
mod word_piece;

pub use error::TextError;
pub use grammar::{Constraint, Grammar};
pub use import::{TokenizerFiles, tokenizer_metadata};
pub use reasoning::{ReasoningEvent, ReasoningFormat, ReasoningSplitter};
pub use stream::DecodeStream;
pub use template::{ChatTemplate, DateTime, TemplateInput};
pub use tokenizer::Tokenizer;
pub use tools::{Tool, ToolCall, ToolChoice, ToolEvent, ToolFormat, ToolParser, ToolPrompt};
pub use vocabulary::TokenKind;

/// The number of a token in its vocabulary, counted from 0.
pub type TokenId = u32;
