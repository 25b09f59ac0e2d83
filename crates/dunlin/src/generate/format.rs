//! What form an answer has.

use dunlin_text::{Constraint, Grammar, Tokenizer};
use serde_json::Value as Json;

use crate::Error;

/// The form of an answer. All but [`OutputFormat::Text`] hold the model to it token by token: an answer that is not cut short
/// has the form, whatever the model. The model is not told: what the answer shall contain belongs into the prompt.
///
/// Composes with [`Speculation`](crate::Speculation), which does not change answers here, either.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum OutputFormat {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// JSON that validates against this schema. [`Grammar::from_json_schema`] says what is understood; all else is refused.
    JsonSchema(Json),
    /// Text that matches this regular expression as a whole ([`Grammar::from_regex`]).
    Regex(String),
    /// One of these texts.
    Choices(Vec<String>),
    /// Text of this Lark grammar ([`Grammar::from_lark`]).
    Lark(String),
    /// Text of this GBNF grammar ([`Grammar::from_gbnf`]).
    Gbnf(String),
    /// Text of a grammar that was compiled before, for the tokenizer of this model: saves the time of compiling where many
    /// answers have the same form.
    Grammar(Grammar),
}

impl OutputFormat {
    /// The grammar for a tokenizer; `None` for any text.
    ///
    /// # Errors
    /// [`Error::Text`] with the place of what cannot be kept.
    pub fn compile(&self, tokenizer: &Tokenizer) -> Result<Option<Grammar>, Error> {
        Ok(Some(match self {
            OutputFormat::Text => return Ok(None),
            OutputFormat::Json => Grammar::json(tokenizer)?,
            OutputFormat::JsonSchema(schema) => Grammar::from_json_schema(tokenizer, schema)?,
            OutputFormat::Regex(regex) => Grammar::from_regex(tokenizer, regex)?,
            OutputFormat::Choices(choices) => Grammar::from_choices(tokenizer, choices)?,
            OutputFormat::Lark(text) => Grammar::from_lark(tokenizer, text)?,
            OutputFormat::Gbnf(text) => Grammar::from_gbnf(tokenizer, text)?,
            OutputFormat::Grammar(grammar) => grammar.clone(),
        }))
    }

    pub(super) fn constraint(
        &self,
        after: Option<&str>,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Constraint>, Error> {
        let Some(grammar) = self.compile(tokenizer)? else {
            return Ok(None);
        };
        // Token numbers of another vocabulary would mean other texts.
        if !grammar.tokenizer().is_same(tokenizer) {
            return Err(Error::ForeignGrammar);
        }
        Ok(Some(match after {
            Some(text) => grammar.constraint_after(text),
            None => grammar.constraint(),
        }))
    }
}

/// How far an answer has got with its form ([`OutputFormat`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatState {
    /// No form was asked for.
    #[default]
    Free,
    /// The text after which the form begins has not come up.
    Waiting,
    /// The answer is the beginning of one that has the form.
    Open,
    /// The answer has the form.
    Complete,
}
