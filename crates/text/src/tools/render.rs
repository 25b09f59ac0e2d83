//! Calls as the text that a model of a family writes.

use std::io;

use serde::Serialize as _;
use serde_json::{Map, Value as Json, ser::Formatter};

use super::{ToolCall, ToolFormat, format};
use crate::{TextError, template::python_float};

impl ToolFormat {
    /// The text that a model of this family writes for these calls, as its chat template renders
    /// them where it does. Empty for no calls.
    ///
    /// # Errors
    ///
    /// [`TextError::ToolCallNotWritable`] for arguments that are no object or contain a marker of
    /// the notation, for a missing identifier, and for more calls than the family can make at once.
    pub fn render(self, calls: &[ToolCall]) -> Result<String, TextError> {
        for call in calls {
            check(self, call)?;
        }
        let each = |write: fn(&ToolCall) -> Result<String, TextError>, separator: &str| {
            let calls: Result<Vec<String>, TextError> = calls.iter().map(write).collect();
            calls.map(|calls| calls.join(separator))
        };
        if calls.is_empty() {
            return Ok(String::new());
        }
        match self {
            Self::Hermes => each(hermes, "\n"),
            Self::QwenXml => each(qwen_xml, "\n"),
            Self::Gemma4 => each(gemma, ""),
            Self::MistralCallId | Self::MistralArguments => {
                let with_id = self == Self::MistralCallId;
                let calls = calls.iter().map(|call| mistral(call, with_id));
                calls.collect()
            }
            Self::Llama3 => match calls {
                [call] => Ok(json_call(call, "parameters")),
                [_, second, ..] => Err(not_writable(
                    second,
                    "models of the Llama 3 family make one call an answer".to_owned(),
                )),
                [] => Ok(String::new()),
            },
            Self::MistralList => {
                let calls = each(|call| Ok(json_call_with_id(call)), ", ")?;
                Ok(format!("{}[{calls}]", self.trigger()))
            }
            Self::Phi4Mini | Self::Granite3 => {
                let calls = each(|call| Ok(json_call(call, "arguments")), ", ")?;
                Ok(format!("{}[{calls}]{}", self.trigger(), self.close()))
            }
            Self::Lfm2 => {
                let calls = each(python, ", ")?;
                Ok(format!("{}[{calls}]{}", self.trigger(), self.close()))
            }
        }
    }
}

/// What no notation can hold: arguments that are no object, and texts that would be read as the end
/// of a value.
fn check(format: ToolFormat, call: &ToolCall) -> Result<(), TextError> {
    let Some(arguments) = call.arguments.as_object() else {
        return Err(not_writable(
            call,
            "its arguments are not an object".to_owned(),
        ));
    };
    let end = match format {
        ToolFormat::QwenXml => "</parameter>",
        ToolFormat::Gemma4 => format::GEMMA_QUOTE,
        _ => return Ok(()),
    };
    match arguments.values().any(|value| contains(value, end)) {
        true => Err(not_writable(
            call,
            format!("an argument contains `{end}`, which ends a value in this notation"),
        )),
        false => Ok(()),
    }
}

fn contains(value: &Json, text: &str) -> bool {
    match value {
        Json::String(value) => value.contains(text),
        Json::Array(values) => values.iter().any(|value| contains(value, text)),
        Json::Object(map) => map
            .iter()
            .any(|(key, value)| key.contains(text) || contains(value, text)),
        _ => false,
    }
}

fn not_writable(call: &ToolCall, reason: String) -> TextError {
    TextError::ToolCallNotWritable {
        name: call.name.clone(),
        reason,
    }
}

fn hermes(call: &ToolCall) -> Result<String, TextError> {
    Ok(format!(
        "<tool_call>\n{}\n</tool_call>",
        json_call(call, "arguments")
    ))
}

/// `{"name": .., "arguments": .., "id": ..}`, the identifier where there is one.
fn json_call_with_id(call: &ToolCall) -> String {
    let json = json_call(call, "arguments");
    match (&call.id, json.strip_suffix('}')) {
        (Some(id), Some(open)) => {
            let id = python_json(&Json::from(id.as_str()));
            format!("{open}, \"id\": {id}}}")
        }
        _ => json,
    }
}

/// `{"name": .., "arguments": ..}`.
fn json_call(call: &ToolCall, arguments: &str) -> String {
    let mut object = Map::new();
    object.insert("name".to_owned(), Json::String(call.name.clone()));
    object.insert(arguments.to_owned(), call.arguments.clone());
    python_json(&Json::Object(object))
}

fn mistral(call: &ToolCall, with_id: bool) -> Result<String, TextError> {
    let id = match (with_id, &call.id) {
        (false, _) => String::new(),
        (true, Some(id)) => format!("{}{id}", format::MISTRAL_ID),
        (true, None) => {
            let reason = "this notation writes an identifier, and the call has none".to_owned();
            return Err(not_writable(call, reason));
        }
    };
    Ok(format!(
        "{}{}{id}{}{}",
        format::MISTRAL_CALLS,
        call.name,
        format::MISTRAL_ARGUMENTS,
        python_json(&call.arguments)
    ))
}

fn qwen_xml(call: &ToolCall) -> Result<String, TextError> {
    let mut text = format!("<tool_call>\n<function={}>\n", call.name);
    for (key, value) in call.arguments.as_object().into_iter().flatten() {
        if key.contains(['>', '\n']) {
            let reason = format!("the argument `{key}` has a name that would end its tag");
            return Err(not_writable(call, reason));
        }
        let value = match value {
            Json::String(value) => value.clone(),
            Json::Array(_) | Json::Object(_) => python_json(value),
            _ => python_word(value),
        };
        text.push_str(&format!("<parameter={key}>\n{value}\n</parameter>\n"));
    }
    text.push_str("</function>\n</tool_call>");
    Ok(text)
}

fn gemma(call: &ToolCall) -> Result<String, TextError> {
    let arguments = gemma_value(call, &call.arguments)?;
    Ok(format!(
        "<|tool_call>call:{}{arguments}<tool_call|>",
        call.name
    ))
}

/// Keys in the order of Jinja's `dictsort`, which does not tell capitals from small letters.
fn gemma_value(call: &ToolCall, value: &Json) -> Result<String, TextError> {
    Ok(match value {
        Json::String(text) => format!("{0}{text}{0}", format::GEMMA_QUOTE),
        Json::Bool(value) => value.to_string(),
        Json::Null | Json::Number(_) => python_word(value),
        Json::Array(items) => {
            let items: Result<Vec<String>, TextError> =
                items.iter().map(|item| gemma_value(call, item)).collect();
            format!("[{}]", items?.join(","))
        }
        Json::Object(map) => {
            let mut entries: Vec<(&String, &Json)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.to_lowercase());
            let mut parts = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                if key.is_empty() || key.contains([':', '{', '}', ',', '<']) {
                    let reason = format!("the key `{key}` cannot stand without quotes");
                    return Err(not_writable(call, reason));
                }
                parts.push(format!("{key}:{}", gemma_value(call, value)?));
            }
            format!("{{{}}}", parts.join(","))
        }
    })
}

fn python(call: &ToolCall) -> Result<String, TextError> {
    let mut arguments = Vec::new();
    for (key, value) in call.arguments.as_object().into_iter().flatten() {
        if !is_identifier(key) {
            let reason = format!("the argument `{key}` has no name that Python allows");
            return Err(not_writable(call, reason));
        }
        arguments.push(format!("{key}={}", python_literal(value)));
    }
    Ok(format!("{}({})", call.name, arguments.join(", ")))
}

/// Whether Python takes a text as the name of an argument (its keywords aside).
pub(super) fn is_identifier(text: &str) -> bool {
    let begins = |c: char| c.is_alphabetic() || c == '_';
    text.chars().next().is_some_and(begins) && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// A value in Python's syntax. Texts stand in double quotes, with JSON's escapes, which Python reads
/// in the same way.
pub(super) fn python_literal(value: &Json) -> String {
    match value {
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(python_literal).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(map) => {
            let entry = |(key, value): (&String, &Json)| {
                let key = python_json(&Json::String(key.clone()));
                format!("{key}: {}", python_literal(value))
            };
            let entries: Vec<String> = map.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Json::String(_) => python_json(value),
        Json::Null | Json::Bool(_) | Json::Number(_) => python_word(value),
    }
}

/// What Python's `str` gives for a value without parts.
fn python_word(value: &Json) -> String {
    match value {
        Json::Null => "None".to_owned(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        other => python_json(other),
    }
}

/// JSON as Python's `json.dumps` writes it, with a space after `,` and `:`.
pub(super) fn python_json(value: &Json) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter);
    // Values of JSON have text keys, and a vector takes all that is written.
    if value.serialize(&mut serializer).is_err() {
        return value.to_string();
    }
    String::from_utf8(bytes).unwrap_or_else(|_| value.to_string())
}

struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(python_float(value).as_bytes())
    }

    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

fn separate<W: io::Write + ?Sized>(writer: &mut W, first: bool) -> io::Result<()> {
    match first {
        true => Ok(()),
        false => writer.write_all(b", "),
    }
}
