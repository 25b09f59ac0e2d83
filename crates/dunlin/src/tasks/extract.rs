//! Data out of texts, as JSON of a schema.

mod example;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::{TaskError, TaskUsage, ask};
use crate::{Error, FinishReason, GenerateOptions, Grammar, Lm, OutputFormat};

pub use example::schema_of_example;

/// What the model is told before the schema and the text.
const INSTRUCTION: &str = "Extract data from the text as JSON of the schema below. Take the values from the text; \
where it does not say something that may be null, write null.";
/// How the answer of a base model begins.
const CUE: &str = "JSON";

/// Takes data out of texts. What is looked for is said by a JSON Schema: of one's own, of a Rust type, or found from an example.
///
/// The answer always validates against the schema. Whether it is right is a matter of the model: descriptions in the schema help,
/// and properties that may be null keep a model from inventing them.
pub struct Extractor {
    lm: Lm,
    schema: Json,
    grammar: Grammar,
    options: GenerateOptions,
}

impl Extractor {
    /// For values of a type; its doc comments are shown to the model.
    ///
    /// # Errors
    /// As [`Extractor::for_schema`].
    pub fn for_type<T: JsonSchema>(lm: &Lm) -> Result<Self, Error> {
        Self::for_schema(lm, schemars::schema_for!(T).to_value())
    }

    /// For JSON like this example: the same properties with values of the same types ([`schema_of_example`]).
    ///
    /// # Errors
    /// [`TaskError::Example`]; as [`Extractor::for_schema`].
    pub fn for_example(lm: &Lm, example: &Json) -> Result<Self, Error> {
        Self::for_schema(lm, schema_of_example(example)?)
    }

    /// For JSON of this schema.
    ///
    /// # Errors
    /// [`Error::Text`] with the place of what the schema asks for and cannot be kept ([`Grammar::from_json_schema`]);
    /// [`Error::CannotGenerate`] for a model that only reads.
    pub fn for_schema(lm: &Lm, schema: Json) -> Result<Self, Error> {
        lm.check_writes()?;
        let grammar = Grammar::from_json_schema(lm.tokenizer(), &schema)?;
        Ok(Extractor {
            lm: lm.clone(),
            schema,
            grammar,
            options: ask::faithful(),
        })
    }

    super::ask::with_answer_options!();

    /// The schema.
    #[must_use]
    pub fn schema(&self) -> &Json {
        &self.schema
    }

    /// The data of a text.
    ///
    /// # Errors
    /// [`TaskError::EmptyText`]; [`Error::PromptTooLong`] for a text that does not fit the context beside the schema;
    /// [`Error::Incomplete`] where the answer did not end; [`Error::Cancelled`].
    pub fn extract(&self, text: &str) -> Result<Extraction, Error> {
        self.extract_as(text)
    }

    /// As [`Extractor::extract`], as a value of a type.
    ///
    /// # Errors
    /// As [`Extractor::extract`]; [`Error::Unreadable`] where the type refuses what the schema allows.
    pub fn extract_as<T: DeserializeOwned>(&self, text: &str) -> Result<Extraction<T>, Error> {
        if text.trim().is_empty() {
            return Err(TaskError::EmptyText {
                task: "extract from",
            }
            .into());
        }
        let body = format!("Schema: {}\n\nText: {text}", self.schema);
        let prompt = ask::prompt(&self.lm, INSTRUCTION, &body, CUE);
        let mut options = self.options.clone();
        options.format = OutputFormat::Grammar(self.grammar.clone());
        let mut usage = TaskUsage::default();
        let answer = ask::answer(&self.lm, &prompt, &options, &mut usage)?;
        if !answer.is_complete {
            return Err(Error::Incomplete {
                text: answer.text,
                reason: FinishReason::Length,
            });
        }
        let value = serde_json::from_str(&answer.text).map_err(|source| Error::Unreadable {
            text: answer.text.clone(),
            source,
        })?;
        Ok(Extraction { value, usage })
    }
}

/// What a text says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Extraction<T = Json> {
    /// The data.
    pub value: T,
    /// What it took.
    pub usage: TaskUsage,
}
