//! Small language models as a library: load a model by name, chat, complete, embed, rerank.
//!
//! ```no_run
//! use dunlin::{Event, GenerateOptions, Lm, Message, Prompt};
//!
//! // Fetched at the first use, from the cache ever after.
//! let lm = Lm::load_from_model_id("smollm2:135m")?;
//! let prompt = Prompt::Chat(vec![Message::user("Why is the sky blue?")]);
//! for event in lm.generate(&prompt, &GenerateOptions::default())? {
//!     match event? {
//!         Event::Text(piece) => print!("{piece}"),
//!         Event::End { reason, usage } => println!(
//!             "\n({}, {:.1} tokens per second)",
//!             reason.as_str(),
//!             usage.completion_tokens_per_second()
//!         ),
//!     }
//! }
//! # Ok::<(), dunlin::Error>(())
//! ```
//!
//! Scope: names to models ([`Lm::load`], [`Hub`]), folders to files ([`convert`]; where a model is loaded, by themselves and
//! once), models to answers ([`Lm::generate`]), vectors ([`Embedder`]) and scores ([`Reranker`]), and windows for engineers
//! ([`TokenizerFile`], [`Lm::logits`], [`Lm::perplexity`], [`Lm::open_metadata`], [`Lm::validate_format`]). It is the only
//! crate on this way that reads clocks, random sources and the machine's number of cores; it knows no wire format and
//! writes nothing to the terminal.

mod bench;
mod code;
mod complete;
mod conversation;
mod device;
mod devices;
mod embed;
mod error;
mod evaluate;
mod fit;
mod generate;
#[cfg(doctest)]
mod guide;
mod import;
mod info;
mod lm;
mod load;
mod lora;
#[cfg(feature = "mcp")]
pub mod mcp;
mod model_hash;
mod prompt;
mod recommend;
mod rerank;
mod sampling;
mod score;
pub mod search;
mod speculate;
mod state;
mod stream;
mod structured;
pub mod tasks;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "only tests use it"
)]
mod test_data;
mod tokenizer_file;
mod toolbox;

pub use bench::{
    Bench, BenchKind, BenchOptions, BenchResult, BenchTest, NOISY, Spread, cold_start,
    peak_resident_bytes, processor_name, resident_bytes,
};
pub use code::{
    CodeCompleter, CodeCompletion, CodeEnd, CodeFile, CodeFinish, CodeOptions, CodeRequest,
    InfillDropped, InfillOrder, InfillOverflow, InfillPrompt,
};
pub use conversation::{
    Answer, AnswerEvent, ContextPolicy, Conversation, Dropped, Reasoning, ReasoningEnd, Reply,
    Restored, SUMMARY_INSTRUCTION, SaveOptions, Saved, Summary, ToolOptions, ToolRound, ToolRun,
};
pub use device::{DeviceConfiguration, physical_cores};
pub use devices::{Device, DeviceKind, devices};
pub use embed::{EmbedOptions, Embedder, Embeddings, LongText, Prefixes, TextRole, TooLong};
pub use error::Error;
pub use evaluate::Perplexity;
pub use fit::{Fit, FitOptions, fit, fit_with};
pub use generate::{
    BeamOptions, CancelToken, Completion, Event, FinishReason, FormatState, GenerateOptions,
    Generation, OutputFormat, ScoredCompletion, TokenLogprob, TopLogprob, Usage,
};
pub use import::{convert, imported_file};
pub use info::{AttentionLayout, LayerKind, LayerRun, MemoryEstimate, ModelInfo, TensorTypeUse};
pub use lm::Lm;
pub use load::{
    DEFAULT_CONTEXT_LENGTH, LoadEvent, LoadOptions, TensorConversion, TensorTypes, TypeFallback,
    TypePlan,
};
pub use lora::LoraAdapter;
pub use prompt::{Message, Prompt, TemplateOptions};
pub use recommend::{Rating, Recommendation, Task, fitting, performance_score, rate, recommend};
pub use rerank::{RerankOptions, Reranker};
pub use sampling::RecommendedSampling;
pub use score::{ContinuationScore, ScoreOptions};
pub use speculate::{DraftLength, DraftModel, Speculation};
pub use stream::{ConversationStream, EventStream};
pub use tokenizer_file::TokenizerFile;
pub use toolbox::{ToolResult, Toolbox};

pub use dunlin_compute::{KvElement, KvElements, Tier};
pub use dunlin_convert::{
    ConvertError, ConvertOptions, Folder, OutputType, Report as ConvertReport, is_model_folder,
};
pub use dunlin_engine::{
    AdapterId, AdapterUse, EngineError, KvTypes, Mirostat, ModelSpec, Pooling, SamplerConfig,
    SamplerStep,
};
pub use dunlin_format::{DType, DTypeUse, FormatError, Metadata, Report, Value, encodable_types};
pub use dunlin_hub::{
    Cache, CachedModel, Capability, Hub, HubConfig, HubError, Layout, Licence, ModelCard,
    ModelFile, ModelRef, Progress, PulledModel, Removed, Source, Timing, Verdict, catalog, find,
};
pub use dunlin_text::{
    ChatTemplate, Constraint, DateTime, DecodeStream, Grammar, ReasoningFormat, TemplateInput,
    TextError, TokenId, TokenKind, Tokenizer, Tool, ToolCall, ToolChoice, ToolFormat,
};
