//! Everything that can be wrong between text and tokens.

use dunlin_format::FormatError;

use crate::{TokenId, pre_tokenizer};

/// What is wrong with a vocabulary, a text or a chat template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are what the message above them says"
)]
pub enum TextError {
    /// The metadata lack something or hold it in another type.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// `tokenizer.ggml.model` names a kind of tokenizer that is not built in.
    #[error(
        "the tokenizer kind `{model}` (metadata key `tokenizer.ggml.model`) is not supported; \
         `gpt2`, `llama`, `gemma4`, `bert` and `t5` are. Choose a model of a supported family"
    )]
    UnsupportedTokenizer { model: String },
    /// `tokenizer.ggml.pre` names a way to split text that is not built in. Guessing another one
    /// would give wrong tokens without any sign.
    #[error(
        "the pre-tokenizer `{name}` (metadata key `tokenizer.ggml.pre`) is not supported; {} are. \
         Choose a model of a supported family",
        pre_tokenizer::supported()
    )]
    UnsupportedPreTokenizer { name: String },
    /// A byte-level tokenizer that does not say how it splits text.
    #[error(
        "the file does not say how its tokenizer splits text (metadata key `tokenizer.ggml.pre` is \
         missing), as files converted before May 2024 do. Get a newer conversion of the model"
    )]
    MissingPreTokenizer,
    /// The vocabulary contradicts itself.
    #[error("the vocabulary is damaged or badly converted: {reason}")]
    Vocabulary { reason: String },
    /// The vocabulary has no token for a byte of the text, and none for unknown text.
    #[error(
        "the vocabulary has no token for the byte 0x{byte:02X}, so this text cannot be encoded; \
         it is damaged or badly converted"
    )]
    MissingByte { byte: u8 },
    /// The text could not be split into words.
    #[error("the text could not be split into words by the pre-tokenizer: {reason}")]
    Split { reason: String },

    /// Two texts for a tokenizer that encodes one at a time.
    #[error(
        "this model's tokenizer has no form for a pair of texts, as those of rerankers and other \
         encoders have. Encode the texts one by one"
    )]
    NoPairForm,
    /// A folder without any file that describes a tokenizer.
    #[error(
        "there is no tokenizer: none of `tokenizer.json`, `tokenizer.model`, \
         `sentencepiece.bpe.model`, `spiece.model` and `vocab.txt` is here. Get the complete folder \
         of the model"
    )]
    NoTokenizer,
    /// A tokenizer file that cannot be used.
    #[error("the tokenizer file `{file}` cannot be used: {reason}")]
    TokenizerFile { file: String, reason: String },
    /// `tokenizer.json` cuts text into words in a way that has no name. Taking another one would
    /// give wrong tokens without any sign.
    #[error(
        "`tokenizer.json` splits text in a way that is not known here: {found}. Known are the ways \
         of {}",
        pre_tokenizer::supported()
    )]
    UnknownSplit { found: String },

    /// The file has no chat template.
    #[error(
        "this model has no chat template: it is a base model, which continues text instead of \
         answering messages. Use plain completion, or choose its chat (\"instruct\") variant"
    )]
    NoChatTemplate,
    /// The template is not valid Jinja.
    #[error(
        "the chat template cannot be read: {message}{}. It may use a feature of Jinja that is not \
         supported here; give another template", at_line(*line)
    )]
    TemplateSyntax {
        message: String,
        line: Option<usize>,
    },
    /// The template itself refused the conversation (`raise_exception`), in its own words.
    #[error("the chat template refuses this conversation: {message}")]
    TemplateRaised { message: String },
    /// The template failed on this conversation.
    #[error("the chat template failed on this conversation: {message}{}", at_line(*line))]
    TemplateFailed {
        message: String,
        line: Option<usize>,
    },
    /// The template did more work than any honest one needs.
    #[error(
        "the chat template was stopped: it used up its budget of {fuel} steps. \
         It is faulty or hostile; give another template"
    )]
    TemplateFuel { fuel: u64 },
    /// The template took longer than any honest one needs.
    #[error(
        "the chat template was stopped: it was not done after {seconds} seconds. \
         It is faulty or hostile; give another template"
    )]
    TemplateTime { seconds: u64 },
    /// A message or tool is nested too deeply.
    #[error("messages, tools or template variables are nested deeper than {limit} levels")]
    InputTooDeep { limit: usize },
    /// A message that is not a JSON object.
    #[error("message {index} is not a JSON object with `role` and `content`")]
    InvalidMessage { index: usize },
    /// A tool that cannot be offered to a model.
    #[error("the tool `{name}` cannot be offered: {reason}")]
    InvalidTool { name: String, reason: String },
    /// The template has no place for tools, or calls in a notation that is not known here.
    #[error(
        "this model's chat template does not offer tools in a notation that is known here. Choose a \
         model of a family that calls tools, such as Qwen 2.5 or later, Llama 3.1 or later, \
         Gemma 4, Phi-4 Mini, LFM 2, Mistral or Granite"
    )]
    NoToolFormat,
    /// A tool choice that no tool fulfils.
    #[error("the tool choice asks for {wanted}, and the tools on offer are: {offered}")]
    NoSuchTool { wanted: String, offered: String },
    /// A schema that the notation of the family cannot be held to.
    #[error(
        "the arguments of the tool `{tool}` cannot be constrained in this model's notation: {reason} \
         (at `{place}` of its parameters). Write the schema without it, or call without a grammar"
    )]
    ToolSchema {
        tool: String,
        place: String,
        reason: String,
    },
    /// A call that the notation of the family cannot write.
    #[error("the call of the tool `{name}` cannot be written in this model's notation: {reason}")]
    ToolCallNotWritable { name: String, reason: String },
    /// A call in the text of an answer that cannot be read.
    #[error("tool call {index} of the answer cannot be read: {reason}. It is: {raw}")]
    ToolCallMalformed {
        index: usize,
        reason: String,
        raw: String,
    },
    /// An answer that ends inside a call.
    #[error(
        "the answer ends inside tool call {index}; allow more tokens, or ask again. It is: {raw}"
    )]
    ToolCallIncomplete { index: usize, raw: String },
    /// Text that is not a date.
    #[error("`{text}` is not a date and time such as 2026-01-15T09:30:00")]
    InvalidDateTime { text: String },
    /// A token id beyond the vocabulary.
    #[error("the token id {id} does not exist; the vocabulary has {vocab_size} tokens")]
    UnknownToken { id: TokenId, vocab_size: usize },

    /// A JSON Schema that asks for something that cannot be kept.
    #[error("the JSON Schema cannot be honoured at `{pointer}`: {reason}")]
    Schema { pointer: String, reason: String },
    /// A grammar that cannot be compiled.
    #[error("the {kind} cannot be used: {reason}")]
    Grammar { kind: &'static str, reason: String },
    /// A GBNF grammar with a mistake.
    #[error("line {line}, column {column} of the GBNF grammar: {reason}")]
    Gbnf {
        line: usize,
        column: usize,
        reason: String,
    },
    /// A grammar beyond what is compiled.
    #[error("the {kind} is too large: it has {found} {what}, and at most {limit} are taken")]
    GrammarTooLarge {
        kind: &'static str,
        what: &'static str,
        found: usize,
        limit: usize,
    },
    /// A vocabulary that no grammar can be compiled for.
    #[error("answers of this model cannot be held to a grammar: {reason}")]
    GrammarVocabulary { reason: String },
    /// A token that the grammar does not allow here.
    #[error("the token {id} ({text:?}) does not fit the grammar here")]
    GrammarRefuses { id: TokenId, text: String },
    /// A grammar that takes too much work at some place of the answer, or that led into nothing.
    #[error(
        "the grammar cannot be followed any further: {reason}. Make it simpler: fewer ambiguous rules, shorter repetitions"
    )]
    GrammarStopped { reason: String },
    /// The thread that compiles a grammar could not be started.
    #[error("the operating system could not start a thread to compile the grammar: {reason}")]
    GrammarThread { reason: String },
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(" (line {line} of the template)"))
        .unwrap_or_default()
}
