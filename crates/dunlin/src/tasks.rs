//! Tasks: a model put to one use each, with typed answers.
//!
//! Each task is a small struct over a loaded [`Lm`](crate::Lm). Its words to the model stand in constants at the top of its file. Its
//! answer is held to a form, so that it can always be read, or chosen by probabilities without writing at all. What is too
//! long is worked on in pieces, and what was covered is said; nothing is cut in silence.
//!
//! ```no_run
//! use dunlin::Lm;
//! use dunlin::tasks::{Classifier, Summarizer};
//!
//! let lm = Lm::load_from_model_id("qwen2.5-coder:0.5b")?;
//! let mood = Classifier::sentiment(&lm)?.classify("I would buy it again.")?;
//! println!("{:?} {:?}", mood.label, mood.scores);
//! let summary = Summarizer::new(&lm).with_words(60).summarize(&std::fs::read_to_string("report.txt")?)?;
//! println!("{} (from {} pieces)", summary.text, summary.coverage.pieces);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A model with a chat template is asked in a conversation, a base model by a text to be continued.

mod ask;
mod classify;
mod error;
mod extract;
mod keywords;
mod language;
mod patterns;
mod personal;
mod pieces;
mod recognize;
mod rewrite;
mod sentiment;
mod spans;
mod summarize;
mod translate;

pub use ask::TaskUsage;
pub use classify::{Calibration, Classification, Classifier, Label, LabelScore};
pub use error::TaskError;
pub use extract::{Extraction, Extractor, schema_of_example};
pub use keywords::{KeywordExtractor, Keywords};
pub use language::{DetectedLanguage, detect_language, language_name};
pub use personal::{MaskedText, PersonalData, PersonalDataFinder};
pub use recognize::{Entities, EntityRecognizer};
pub use rewrite::{Change, Rewrite, RewriteStyle, Rewriter};
pub use spans::TextSpan;
pub use summarize::{Coverage, Summarizer, Summary, SummaryProgress};
pub use translate::{Translation, Translator};
