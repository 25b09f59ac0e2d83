//! Calls of Qwen 3.5: `<function=name>`, then each argument between `<parameter=key>` and
//! `</parameter>`.

use serde::de::IgnoredAny;
use serde_json::Value as Json;

use super::{
    Body, Sink, Step,
    json::unexpected,
    literal::{json_word, push_json_char},
    python::MAX_NAME,
    seek::{Expect, Seeker},
};
use crate::tools::Tool;

const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";
const FUNCTION_END: &str = "</function>";

/// Reads one call. An argument whose schema allows only text is text as it stands; any other is JSON
/// (or Python's `True`, `False`, `None`) where that is of a type that the schema allows, else text
/// where text is allowed. An argument without a schema allows all types.
#[derive(Debug)]
pub(super) struct XmlCall {
    tools: Vec<Tool>,
    /// The schema of the arguments of the tool that is called.
    schema: Json,
    keys: Vec<String>,
    state: State,
    end: &'static str,
}

#[derive(Debug)]
enum State {
    Open(Expect),
    Name(String),
    /// Between arguments: what has come of the next tag.
    Tag(String),
    Key(String),
    Value(Value),
    Close(Expect),
}

#[derive(Debug)]
struct Value {
    types: Types,
    end: Seeker,
    text: String,
    /// Whether the line break behind the opening tag has been passed.
    begun: bool,
    /// A line break that belongs to the closing tag if that comes next.
    line_break: bool,
}

impl XmlCall {
    pub(super) fn new(tools: &[Tool], end: &'static str) -> Self {
        Self {
            tools: tools.to_vec(),
            schema: Json::Null,
            keys: Vec::new(),
            state: State::Open(Expect::new("<function=")),
            end,
        }
    }

    fn parameter(&mut self, key: String, sink: &mut Sink) -> Result<(), String> {
        if self.keys.contains(&key) {
            return Err(format!("the argument `{key}` stands there twice"));
        }
        let mut json = String::new();
        if !self.keys.is_empty() {
            json.push_str(", ");
        }
        push_json_text(&key, &mut json);
        json.push_str(": ");
        let schema = self.schema.get("properties").and_then(|all| all.get(&key));
        let types = schema.map_or(Types::ALL, |schema| {
            Types::of(schema, &self.schema, &mut Vec::new())
        });
        if types.is_text() {
            json.push('"');
        }
        sink.delta(&json);
        self.keys.push(key);
        self.state = State::Value(Value {
            types,
            end: Seeker::new(PARAMETER_END),
            text: String::new(),
            begun: false,
            line_break: false,
        });
        Ok(())
    }
}

impl Body for XmlCall {
    fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, String> {
        match &mut self.state {
            State::Open(open) => {
                if open.push(c)? {
                    self.state = State::Name(String::new());
                }
            }
            State::Name(name) => match c {
                '>' => {
                    sink.start(name)?;
                    sink.delta("{");
                    let tool = self.tools.iter().find(|tool| tool.name == name.trim());
                    self.schema = tool.map_or(Json::Null, |tool| tool.parameters.clone());
                    self.state = State::Tag(String::new());
                }
                _ => push_tag(name, c)?,
            },
            State::Tag(tag) => {
                if tag.is_empty() && c.is_whitespace() {
                    return Ok(Step::More);
                }
                tag.push(c);
                if tag == PARAMETER {
                    self.state = State::Key(String::new());
                } else if tag == FUNCTION_END {
                    sink.delta("}");
                    self.state = State::Close(Expect::new(self.end));
                } else if !PARAMETER.starts_with(&*tag) && !FUNCTION_END.starts_with(&*tag) {
                    return Err(unexpected(c, "`<parameter=` or `</function>`"));
                }
            }
            State::Key(key) => match c {
                '>' => {
                    let key = key.trim().to_owned();
                    self.parameter(key, sink)?;
                }
                _ => push_tag(key, c)?,
            },
            State::Value(value) => {
                if value.push(c, sink)? {
                    self.state = State::Tag(String::new());
                }
            }
            State::Close(close) => {
                if close.push(c)? {
                    sink.end(None)?;
                    return Ok(Step::Done);
                }
            }
        }
        Ok(Step::More)
    }
}

fn push_tag(name: &mut String, c: char) -> Result<(), String> {
    if c == '<' || c == '\n' {
        return Err(unexpected(c, "a name or `>`"));
    }
    if name.len() >= MAX_NAME {
        return Err(format!("a name is longer than {MAX_NAME} characters"));
    }
    name.push(c);
    Ok(())
}

impl Value {
    /// True when the value has ended.
    fn push(&mut self, c: char, sink: &mut Sink) -> Result<bool, String> {
        let mut text = String::new();
        let ended = self.end.push(c, &mut text);
        let mut certain = String::new();
        for c in text.chars() {
            if !std::mem::replace(&mut self.begun, true) && c == '\n' {
                continue;
            }
            if std::mem::replace(&mut self.line_break, c == '\n') {
                certain.push('\n');
            }
            if c != '\n' {
                certain.push(c);
            }
        }
        if self.types.is_text() {
            let mut json = String::new();
            certain.chars().for_each(|c| push_json_char(c, &mut json));
            if ended {
                json.push('"');
            }
            sink.delta(&json);
            return Ok(ended);
        }
        self.text.push_str(&certain);
        if ended {
            sink.delta(&typed(&self.text, self.types)?);
        }
        Ok(ended)
    }
}

/// The JSON of a value that may be of several types.
fn typed(text: &str, types: Types) -> Result<String, String> {
    let trimmed = text.trim();
    let json = match json_word(trimmed) {
        Ok(word) => Some(word),
        Err(_) => serde_json::from_str::<IgnoredAny>(trimmed)
            .is_ok()
            .then_some(trimmed),
    };
    if let Some(json) = json
        && types.allow(json)
    {
        return Ok(json.to_owned());
    }
    if types.text {
        let mut json = String::new();
        push_json_text(text, &mut json);
        return Ok(json);
    }
    Err(format!(
        "the value `{text}` is not of a type that the schema allows"
    ))
}

fn push_json_text(text: &str, json: &mut String) {
    json.push('"');
    text.chars().for_each(|c| push_json_char(c, json));
    json.push('"');
}

/// The types that a schema allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Types {
    text: bool,
    number: bool,
    integer: bool,
    boolean: bool,
    null: bool,
    list: bool,
    object: bool,
}

impl Types {
    const ALL: Self = Self::each(true);
    const NONE: Self = Self::each(false);

    const fn each(allowed: bool) -> Self {
        Self {
            text: allowed,
            number: allowed,
            integer: allowed,
            boolean: allowed,
            null: allowed,
            list: allowed,
            object: allowed,
        }
    }

    /// The types that `schema` allows, which is a part of `root`. References that have been `seen` add
    /// none: each is followed once.
    fn of<'s>(schema: &'s Json, root: &'s Json, seen: &mut Vec<&'s str>) -> Self {
        if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            if seen.contains(&reference) {
                return Self::NONE;
            }
            seen.push(reference);
            let target = reference
                .strip_prefix('#')
                .and_then(|path| root.pointer(path));
            return target.map_or(Self::ALL, |target| Self::of(target, root, seen));
        }
        if let Some(value) = schema.get("const") {
            return Self::of_value(value);
        }
        if let Some(values) = schema.get("enum").and_then(Json::as_array) {
            return values.iter().map(Self::of_value).fold(Self::NONE, Self::or);
        }
        match schema.get("type") {
            Some(Json::String(name)) => return Self::named(name),
            Some(Json::Array(names)) => {
                let names = names.iter().filter_map(Json::as_str).map(Self::named);
                return names.fold(Self::NONE, Self::or);
            }
            _ => {}
        }
        let unions = ["anyOf", "oneOf"].iter().filter_map(|key| schema.get(*key));
        match unions.filter_map(Json::as_array).next() {
            Some(schemas) => schemas
                .iter()
                .map(|schema| Self::of(schema, root, seen))
                .fold(Self::NONE, Self::or),
            None => Self::ALL,
        }
    }

    fn named(name: &str) -> Self {
        let mut types = Self::NONE;
        match name {
            "string" => types.text = true,
            "number" => types.number = true,
            "integer" => types.integer = true,
            "boolean" => types.boolean = true,
            "null" => types.null = true,
            "array" => types.list = true,
            "object" => types.object = true,
            _ => return Self::ALL,
        }
        types
    }

    fn of_value(value: &Json) -> Self {
        Self::named(match value {
            Json::String(_) => "string",
            Json::Number(_) => "number",
            Json::Bool(_) => "boolean",
            Json::Null => "null",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        })
    }

    fn or(self, other: Self) -> Self {
        Self {
            text: self.text || other.text,
            number: self.number || other.number,
            integer: self.integer || other.integer,
            boolean: self.boolean || other.boolean,
            null: self.null || other.null,
            list: self.list || other.list,
            object: self.object || other.object,
        }
    }

    fn is_text(self) -> bool {
        self == Self::named("string")
    }

    /// Whether the type of a JSON value is allowed, by its first character.
    fn allow(self, json: &str) -> bool {
        match json.as_bytes().first() {
            // A text stands without quotes.
            Some(b'"') => false,
            Some(b't' | b'f') => self.boolean,
            Some(b'n') => self.null,
            Some(b'[') => self.list,
            Some(b'{') => self.object,
            _ => self.number || self.integer && !json.contains(['.', 'e', 'E']),
        }
    }
}
