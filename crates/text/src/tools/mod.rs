//! Tool calls: what a model may call, how its family writes a call, and how a call is read again.
//!
//! [`ToolFormat`] is the notation of a family, found from the chat template. It writes calls
//! ([`ToolFormat::render`]), reads them piece by piece as they are generated
//! ([`ToolFormat::parser`]) and gives the grammar of answers in which every call names one of the
//! tools and fits its schema ([`ToolFormat::grammar`]). [`ToolPrompt`] puts tools, calls and results
//! into a conversation in the way its template reads them.
//!
//! Nothing here runs a tool, and a parser does not check arguments against a schema: text that was
//! generated without the grammar can name any tool with any arguments.

mod format;
mod grammar;
mod parse;
mod prompt;
mod render;

use std::collections::HashSet;

use serde_json::{Value as Json, json};

pub use format::ToolFormat;
pub(crate) use format::control_tokens;
pub(crate) use grammar::{SETTINGS, spacing};
pub use parse::{ToolEvent, ToolParser};
pub use prompt::ToolPrompt;

use crate::TextError;

/// The longest name of a tool, in bytes, as common interfaces allow.
const MAX_NAME_BYTES: usize = 64;
/// How deep a schema may be nested. Templates are given up to 120 levels, the tool around it included.
const MAX_SCHEMA_DEPTH: usize = 100;
/// How deep arguments may be nested, the object of arguments included.
pub(crate) const MAX_ARGUMENT_DEPTH: usize = 100;

/// A function that a model may ask for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// The name by which the model calls it: letters, digits, `_`, `.` and `-`, at most 64 of them.
    pub name: String,
    /// What it does and when to use it, for the model to read.
    pub description: String,
    /// The JSON Schema of the arguments, a schema of an object.
    pub parameters: Json,
}

impl Tool {
    /// A tool.
    ///
    /// # Errors
    ///
    /// [`TextError::InvalidTool`] for a name that some family cannot write, for parameters that are
    /// not the schema of an object (`{"type": "object", ..}`, or without `type`), and for too deep ones.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        parameters: Json,
    ) -> Result<Self, TextError> {
        let tool = Self {
            name: name.into(),
            description: description.into(),
            parameters,
        };
        tool.check()?;
        Ok(tool)
    }

    /// The tool in the form that chat templates read, `{"type": "function", "function": {..}}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": self.parameters,
            },
        })
    }

    fn check(&self) -> Result<(), TextError> {
        let invalid = |reason: String| TextError::InvalidTool {
            name: self.name.clone(),
            reason,
        };
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return Err(invalid(format!(
                "its name has {} bytes; 1 to {MAX_NAME_BYTES} are allowed",
                self.name.len()
            )));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if let Some(other) = self.name.chars().find(|&c| !allowed(c)) {
            return Err(invalid(format!(
                "its name has the character {other:?}; letters, digits, `_`, `.` and `-` are allowed"
            )));
        }
        let Some(schema) = self.parameters.as_object() else {
            return Err(invalid("its parameters are not a JSON object".to_owned()));
        };
        if is_deeper(&self.parameters, MAX_SCHEMA_DEPTH) {
            return Err(invalid(format!(
                "its parameters are nested deeper than {MAX_SCHEMA_DEPTH} levels"
            )));
        }
        match schema.get("type") {
            None => Ok(()),
            Some(Json::String(kind)) if kind == "object" => Ok(()),
            Some(other) => Err(invalid(format!(
                "its parameters have the type {other}; arguments are an object"
            ))),
        }
    }
}

/// Whether a value has more than `levels` levels of lists and objects.
fn is_deeper(value: &Json, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return value.is_array() || value.is_object();
    };
    match value {
        Json::Array(items) => items.iter().any(|item| is_deeper(item, below)),
        Json::Object(map) => map.values().any(|item| is_deeper(item, below)),
        _ => false,
    }
}

/// One call of a tool.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolCall {
    /// The identifier that a result refers to, where the family writes one.
    pub id: Option<String>,
    /// The tool's name.
    pub name: String,
    /// The arguments, an object.
    pub arguments: Json,
}

impl ToolCall {
    /// A call without an identifier.
    #[must_use]
    pub fn new(name: impl Into<String>, arguments: Json) -> Self {
        Self {
            id: None,
            name: name.into(),
            arguments,
        }
    }

    /// The same call with an identifier.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}

/// Whether an answer has to call tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolChoice {
    /// The model decides between text and calls.
    #[default]
    Auto,
    /// No calls, only text.
    None,
    /// At least one call.
    Required,
    /// At least one call, and only of the tool with this name.
    Named(String),
}

/// Refuses tools that are no tools, and two of one name.
fn check_tools(tools: &[Tool]) -> Result<(), TextError> {
    let mut names = HashSet::new();
    for tool in tools {
        tool.check()?;
        if !names.insert(tool.name.as_str()) {
            return Err(TextError::InvalidTool {
                name: tool.name.clone(),
                reason: "two tools have this name".to_owned(),
            });
        }
    }
    Ok(())
}
