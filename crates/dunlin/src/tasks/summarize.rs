//! Summaries of texts of any length.

use std::ops::ControlFlow;

use super::ask::{schema_of_text, text_in};
use super::{TaskError, TaskUsage, ask, pieces};
use crate::{CancelToken, Error, GenerateOptions, Lm, OutputFormat, Prompt};

/// What the model is told before a text, or a piece of one.
const INSTRUCTION: &str = "Summarize the text in about {words} words. Keep to what the text says.";
/// What it is told before the summaries of pieces.
const REDUCE_INSTRUCTION: &str = "The texts are summaries of the parts of one document, in their order. Write one summary of the \
document in about {words} words. Keep to what the texts say.";
/// How the answer of a base model begins, and the name of the answer's only property.
const CUE: &str = "Summary";
const PROPERTY: &str = "summary";
/// Words of a summary where the caller names no number.
const DEFAULT_WORDS: usize = 100;
/// Tokens of a piece where the caller names no number: about what a small model can hold together.
const DEFAULT_PIECE_TOKENS: usize = 1500;
/// Tokens of an answer for each word asked for: 1.5 or so a word in English, up to 3 in other languages, and some more words.
const TOKENS_PER_WORD: usize = 4;
/// Tokens of any answer at least: the form takes some.
const LEAST_TOKENS: usize = 48;

/// Summarizes texts of any length.
///
/// A text that is too long for one prompt is cut into pieces between its paragraphs; each piece is summarized, then their summaries
/// together, and so on until one is left. The report says what was covered. Summaries of small models are rough: they keep to the
/// text's words and lose some of what matters.
pub struct Summarizer {
    lm: Lm,
    words: usize,
    piece_tokens: Option<usize>,
    options: GenerateOptions,
}

impl Summarizer {
    /// For summaries of about 100 words.
    #[must_use]
    pub fn new(lm: &Lm) -> Self {
        Summarizer {
            lm: lm.clone(),
            words: DEFAULT_WORDS,
            piece_tokens: None,
            options: ask::fluent(),
        }
    }

    /// With about this many words. The model is asked for it, and an answer ends at four tokens a word.
    #[must_use]
    pub fn with_words(mut self, words: usize) -> Self {
        self.words = words;
        self
    }

    /// With pieces of at most this many tokens [default: 1500, or what the context has room for].
    #[must_use]
    pub fn with_piece_tokens(mut self, tokens: usize) -> Self {
        self.piece_tokens = Some(tokens);
        self
    }

    /// With these options; the form of the answer and its greatest length are replaced.
    #[must_use]
    pub fn with_options(mut self, options: GenerateOptions) -> Self {
        self.options = options;
        self
    }

    /// With this token to cancel it; the work then ends with [`Error::Cancelled`].
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.options.cancel = cancel;
        self
    }

    /// The summary of a text.
    ///
    /// # Errors
    /// As [`Summarizer::summarize_with`].
    pub fn summarize(&self, text: &str) -> Result<Summary, Error> {
        self.summarize_with(text, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`Summarizer::summarize`]; `progress` is told what is done before each request, and ends the work with
    /// [`Error::Cancelled`] by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// [`TaskError`] for an empty text, no words, a context that is too short, pieces that do not fit it; [`Error::Cancelled`]; as
    /// [`Lm::generate`].
    pub fn summarize_with(
        &self,
        text: &str,
        progress: &mut dyn FnMut(SummaryProgress) -> ControlFlow<()>,
    ) -> Result<Summary, Error> {
        let answer_tokens = self.answer_tokens()?;
        let limit = pieces::limit(&self.lm, &self.prompt(1, ""), answer_tokens, 0)?;
        // Two summaries must go into a piece with room to spare, or their number would not go down.
        let least = 3 * answer_tokens;
        let asked = self.piece_tokens.unwrap_or(DEFAULT_PIECE_TOKENS.min(limit));
        let mut summary = Summary {
            text: text.to_owned(),
            coverage: Coverage {
                bytes: text.len(),
                ..Coverage::default()
            },
            usage: TaskUsage::default(),
        };
        loop {
            let level = summary.coverage.levels;
            let parts = pieces::of(
                &self.lm,
                &summary.text,
                Some(asked),
                asked,
                limit,
                "summarize",
            )?;
            if parts.len() > 1 && asked < least {
                return Err(too_small(asked, least, limit));
            }
            if level == 0 {
                summary.coverage.pieces = parts.len();
                summary.coverage.covered_bytes = parts.iter().map(|part| part.text.len()).sum();
            }
            let total = parts.len();
            let mut texts = Vec::with_capacity(total);
            for (done, part) in parts.iter().enumerate() {
                if progress(SummaryProgress { level, done, total }).is_break() {
                    return Err(Error::Cancelled);
                }
                let prompt = self.prompt(level, part.text);
                let (text, is_complete) = self.ask(&prompt, answer_tokens, &mut summary.usage)?;
                summary.coverage.unfinished += usize::from(!is_complete);
                texts.push(text);
            }
            let _ = progress(SummaryProgress {
                level,
                done: total,
                total,
            });
            summary.coverage.levels += 1;
            summary.text = texts.join("\n\n");
            if total == 1 || summary.text.trim().is_empty() {
                return Ok(summary);
            }
        }
    }

    /// Tokens of an answer at most.
    fn answer_tokens(&self) -> Result<usize, TaskError> {
        match self.words {
            1..=100_000 => Ok((self.words * TOKENS_PER_WORD).max(LEAST_TOKENS)),
            words => Err(TaskError::Setting {
                setting: "the number of words of a summary",
                found: words.to_string(),
                allowed: "1 to 100000".to_owned(),
            }),
        }
    }

    fn prompt(&self, level: usize, text: &str) -> Prompt {
        let instruction = match level {
            0 => INSTRUCTION,
            _ => REDUCE_INSTRUCTION,
        };
        let instruction = instruction.replace("{words}", &self.words.to_string());
        ask::prompt(&self.lm, &instruction, text, CUE)
    }

    /// A summary, and whether it came to its end.
    fn ask(
        &self,
        prompt: &Prompt,
        tokens: usize,
        usage: &mut TaskUsage,
    ) -> Result<(String, bool), Error> {
        let mut options = self.options.clone();
        options.max_tokens = Some(tokens);
        options.format = OutputFormat::JsonSchema(schema_of_text(PROPERTY));
        let answer = ask::answer(&self.lm, prompt, &options, usage)?;
        let text = text_in(&answer.text, PROPERTY).trim().to_owned();
        Ok((text, answer.is_complete))
    }
}

fn too_small(found: usize, least: usize, limit: usize) -> Error {
    let allowed = match limit < least {
        true => format!(
            "{least} or more, and the context has room for {limit}: load the model with a longer context, or ask for fewer words"
        ),
        false => format!("{least} to {limit}, for the text does not fit one piece"),
    };
    TaskError::Setting {
        setting: "the number of tokens of a piece",
        found: found.to_string(),
        allowed,
    }
    .into()
}

/// What is done of a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SummaryProgress {
    /// 0 for the text's own pieces, 1 for their summaries, and so on.
    pub level: usize,
    /// Pieces of this level that are done.
    pub done: usize,
    /// Pieces of this level.
    pub total: usize,
}

/// The summary of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The summary.
    pub text: String,
    /// What of the text it was made from.
    pub coverage: Coverage,
    /// What it took.
    pub usage: TaskUsage,
}

/// What a summary was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coverage {
    /// Pieces of the text.
    pub pieces: usize,
    /// Bytes of the text.
    pub bytes: usize,
    /// Bytes of it that the model has read; all others are white space between pieces.
    pub covered_bytes: usize,
    /// Summaries upon summaries: 1 where the text was one piece, 2 where the summaries of its pieces were summarized, and so on.
    pub levels: usize,
    /// Answers that were ended at their greatest length, four tokens for each word asked for, before the model ended them.
    pub unfinished: usize,
}
