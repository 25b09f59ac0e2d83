//! Translation.

use std::ops::ControlFlow;

use super::ask::{schema_of_text, text_in};
use super::language::{DetectedLanguage, detect_language, language_name};
use super::{TaskError, TaskUsage, ask, pieces};
use crate::{Error, GenerateOptions, Lm, OutputFormat, Prompt};

/// What the model is told before the text; `{from}` is nothing where the language of the text is not known.
const INSTRUCTION: &str = "Translate the text{from} to {to}. Answer with the translation alone.";
/// How the answer of a base model begins, and the name of the answer's only property.
const CUE: &str = "Translation";
const PROPERTY: &str = "translation";
/// Tokens of a piece where the caller names no number: a few paragraphs, which a small model does not lose its way in.
const DEFAULT_PIECE_TOKENS: usize = 256;
/// Tokens of an answer for each of a piece: languages that a vocabulary was not made for take several times as many.
const GROWTH: usize = 4;
/// Tokens of any answer: the form takes some.
const LEAST_TOKENS: usize = 48;

/// Translates texts of any length, in pieces that are cut between paragraphs.
pub struct Translator {
    lm: Lm,
    to: String,
    from: Option<String>,
    piece_tokens: Option<usize>,
    options: GenerateOptions,
}

impl Translator {
    /// Into a language, named in English or by its code (ISO 639).
    #[must_use]
    pub fn new(lm: &Lm, to: &str) -> Self {
        Translator {
            lm: lm.clone(),
            to: language_name(to),
            from: None,
            piece_tokens: None,
            options: ask::faithful(),
        }
    }

    /// From this language. Without it the language is detected, and the model is told where that is reliable.
    #[must_use]
    pub fn with_from(mut self, from: &str) -> Self {
        self.from = Some(language_name(from));
        self
    }

    /// With pieces of at most this many tokens [default: 256, or what the context has room for].
    #[must_use]
    pub fn with_piece_tokens(mut self, tokens: usize) -> Self {
        self.piece_tokens = Some(tokens);
        self
    }

    super::ask::with_answer_options!();

    /// The translation of a text. What stands between its pieces (line ends, empty lines) is kept as it is.
    ///
    /// # Errors
    /// As [`Translator::translate_with`].
    pub fn translate(&self, text: &str) -> Result<Translation, Error> {
        self.translate_with(text, &mut |_, _| ControlFlow::Continue(()))
    }

    /// As [`Translator::translate`]; `progress` is told how many pieces of how many are done, and ends the work with
    /// [`Error::Cancelled`] by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// [`TaskError`] for an empty text, a context that is too short, pieces that do not fit it, and an answer that did not end;
    /// [`Error::Cancelled`]; as [`Lm::generate`].
    pub fn translate_with(
        &self,
        text: &str,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Translation, Error> {
        let detected = match self.from {
            Some(_) => None,
            None => detect_language::<&str>(text, &[])?,
        };
        let reliable = detected.filter(|language| language.is_reliable);
        let from = self
            .from
            .as_deref()
            .or(reliable.map(|language| language.name));
        let limit = pieces::limit(&self.lm, &self.prompt(from, ""), LEAST_TOKENS, GROWTH)?;
        let default = DEFAULT_PIECE_TOKENS;
        let parts = pieces::of(
            &self.lm,
            text,
            self.piece_tokens,
            default,
            limit,
            "translate",
        )?;
        let total = parts.len();
        let mut usage = TaskUsage::default();
        let mut translated = String::new();
        let mut end = 0;
        for (done, part) in parts.iter().enumerate() {
            if progress(done, total).is_break() {
                return Err(Error::Cancelled);
            }
            let tokens = self.lm.tokenizer().encode(part.text, false)?.len();
            let mut options = self.options.clone();
            options.max_tokens = Some(LEAST_TOKENS + GROWTH * tokens);
            options.format = OutputFormat::JsonSchema(schema_of_text(PROPERTY));
            let prompt = self.prompt(from, part.text);
            let answer = ask::answer(&self.lm, &prompt, &options, &mut usage)?;
            if !answer.is_complete {
                return Err(TaskError::PieceUnfinished {
                    piece: done + 1,
                    pieces: total,
                    tokens: answer.tokens.len(),
                    text: answer.text,
                }
                .into());
            }
            translated.push_str(&text[end..part.bytes.start]);
            translated.push_str(&text_in(&answer.text, PROPERTY));
            end = part.bytes.end;
        }
        translated.push_str(&text[end..]);
        let _ = progress(total, total);
        Ok(Translation {
            text: translated,
            from: self
                .from
                .clone()
                .or(reliable.map(|language| language.name.to_owned())),
            detected,
            pieces: total,
            usage,
        })
    }

    fn prompt(&self, from: Option<&str>, text: &str) -> Prompt {
        let from = from.map_or(String::new(), |from| format!(" from {from}"));
        let instruction = INSTRUCTION
            .replace("{from}", &from)
            .replace("{to}", &self.to);
        ask::prompt(&self.lm, &instruction, text, CUE)
    }
}

/// The translation of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Translation {
    /// The translation.
    pub text: String,
    /// The language that the model was told the text is in: the one that was named, or one that was detected reliably.
    pub from: Option<String>,
    /// The language that was detected, where none was named.
    pub detected: Option<DetectedLanguage>,
    /// Pieces that the text was worked on in.
    pub pieces: usize,
    /// What it took.
    pub usage: TaskUsage,
}
