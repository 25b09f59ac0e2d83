//! Values in Python's syntax (LFM 2) and in Gemma 4's, held to a schema.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use super::{
    json_rule,
    lark::{Lark, quoted, without},
    schema::{Place, detached, list, properties},
};
use crate::{
    TextError,
    tools::{Tool, format::GEMMA_QUOTE, render},
};

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Python,
    Gemma,
}

impl Dialect {
    fn separator(self) -> &'static str {
        match self {
            Self::Python => ", ",
            Self::Gemma => ",",
        }
    }
}

/// The arguments of a tool, without what stands around them: `key=value, ..` or `key:value,..`.
pub(super) fn arguments(
    lark: &mut Lark,
    tool: &Tool,
    dialect: Dialect,
    prefix: &str,
) -> Result<String, TextError> {
    let mut writer = ValueWriter {
        lark,
        tool,
        dialect,
        prefix,
        rules: 0,
        references: HashMap::new(),
    };
    let place = writer.place("");
    let Some(schema) = tool.parameters.as_object() else {
        return Err(place.refuse("the parameters are not a JSON object"));
    };
    place.check_keywords(
        schema,
        &["type", "properties", "required", "additionalProperties"],
    )?;
    let mut entries = Vec::new();
    for (name, schema, required) in properties(schema, place)? {
        let path = format!("/properties/{name}");
        let key = match dialect {
            Dialect::Python if render::is_identifier(name) => format!("{name}="),
            Dialect::Python => {
                return Err(writer
                    .place(&path)
                    .refuse("Python allows no argument of this name"));
            }
            Dialect::Gemma => writer.bare_key(name, &path)?,
        };
        let value = writer.value(schema, &path)?;
        entries.push(Entry {
            name,
            key,
            value,
            required,
        });
    }
    writer.entries(entries)
}

struct ValueWriter<'a, 'm> {
    lark: &'a mut Lark<'m>,
    tool: &'a Tool,
    dialect: Dialect,
    prefix: &'a str,
    rules: usize,
    /// The rules of schemas that references name.
    references: HashMap<String, String>,
}

struct Entry<'s> {
    name: &'s str,
    /// The key with what follows it.
    key: String,
    value: String,
    required: bool,
}

impl<'a> ValueWriter<'a, '_> {
    fn place<'p>(&self, path: &'p str) -> Place<'a, 'p> {
        Place {
            tool: self.tool,
            path,
        }
    }

    fn new_rule(&mut self) -> String {
        self.rules += 1;
        format!("{}_v{}", self.prefix, self.rules)
    }

    fn value(&mut self, schema: &Json, path: &str) -> Result<String, TextError> {
        let place = self.place(path);
        let schema = match schema {
            Json::Bool(true) => return Ok(self.any()),
            Json::Object(schema) => schema,
            _ => return Err(place.refuse("no value fits this schema")),
        };
        if let Some(reference) = schema.get("$ref") {
            place.check_keywords(schema, &["$ref"])?;
            return self.reference(reference, path);
        }
        if schema.contains_key("const") {
            place.check_keywords(schema, &["const", "type"])?;
            return self.literals(&[schema["const"].clone()], path);
        }
        if schema.contains_key("enum") {
            place.check_keywords(schema, &["enum", "type"])?;
            return self.literals(list(schema, "enum"), path);
        }
        for union in ["anyOf", "oneOf", "allOf"] {
            if schema.contains_key(union) {
                place.check_keywords(schema, &[union])?;
                return self.union(union, list(schema, union), path);
            }
        }
        match schema.get("type") {
            None => {
                place.check_keywords(schema, &[])?;
                Ok(self.any())
            }
            Some(Json::String(kind)) => self.typed(kind, schema, path),
            Some(Json::Array(kinds)) => {
                let mut alternatives = Vec::with_capacity(kinds.len());
                for kind in kinds {
                    let kind = kind.as_str().unwrap_or_default();
                    // Keywords of one type do not concern the others.
                    alternatives.push(self.typed(kind, &of_type(schema, kind), path)?);
                }
                self.choice(alternatives, path)
            }
            Some(_) => Err(place.refuse("`type` is neither a text nor a list")),
        }
    }

    fn reference(&mut self, reference: &Json, path: &str) -> Result<String, TextError> {
        let reference = reference.as_str().unwrap_or_default();
        if let Some(rule) = self.references.get(reference) {
            return Ok(rule.clone());
        }
        let target = self.place(path).resolve(reference)?.clone();
        let rule = self.new_rule();
        self.references.insert(reference.to_owned(), rule.clone());
        let body = self.value(&target, reference)?;
        if body == rule {
            return Err(self.place(path).refuse("the reference leads to itself"));
        }
        self.lark.rule(&rule, &body);
        Ok(rule)
    }

    fn union(&mut self, union: &str, schemas: &[Json], path: &str) -> Result<String, TextError> {
        let is_constant = |schema: &Json| schema.get("const").is_some();
        let exclusive = union == "anyOf" || schemas.iter().all(is_constant);
        if schemas.len() != 1 && !exclusive {
            let reason = format!("the keyword `{union}` is supported there for constants alone");
            return Err(self.place(path).refuse(reason));
        }
        let mut alternatives = Vec::with_capacity(schemas.len());
        for (index, schema) in schemas.iter().enumerate() {
            alternatives.push(self.value(schema, &format!("{path}/{union}/{index}"))?);
        }
        self.choice(alternatives, path)
    }

    fn choice(&mut self, alternatives: Vec<String>, path: &str) -> Result<String, TextError> {
        match alternatives.is_empty() {
            true => Err(self.place(path).refuse("there is no alternative to choose")),
            false => Ok(format!("({})", alternatives.join(" | "))),
        }
    }

    fn literals(&mut self, values: &[Json], path: &str) -> Result<String, TextError> {
        let alternatives = values.iter().map(|value| self.literal(value, path));
        let alternatives: Vec<String> = alternatives.collect::<Result<_, _>>()?;
        self.choice(alternatives, path)
    }

    fn literal(&self, value: &Json, path: &str) -> Result<String, TextError> {
        Ok(match (self.dialect, value) {
            (_, Json::Array(_) | Json::Object(_)) => {
                return Err(self.place(path).refuse("a constant is a list or an object"));
            }
            (Dialect::Gemma, Json::String(text)) if text.contains(GEMMA_QUOTE) => {
                let reason = format!("a constant contains `{GEMMA_QUOTE}`");
                return Err(self.place(path).refuse(reason));
            }
            (Dialect::Gemma, Json::String(text)) => {
                let quote = self.lark.marker(GEMMA_QUOTE);
                match text.is_empty() {
                    true => format!("{quote} {quote}"),
                    false => format!("{quote} {} {quote}", quoted(text)),
                }
            }
            (Dialect::Gemma, Json::Bool(value)) => quoted(&value.to_string()),
            _ => quoted(&render::python_literal(value)),
        })
    }

    fn typed(
        &mut self,
        kind: &str,
        schema: &Map<String, Json>,
        path: &str,
    ) -> Result<String, TextError> {
        let place = self.place(path);
        match kind {
            "string" => self.text(schema, path),
            "number" | "integer" => {
                const BOUNDS: [&str; 5] = [
                    "minimum",
                    "maximum",
                    "exclusiveMinimum",
                    "exclusiveMaximum",
                    "multipleOf",
                ];
                // The format of a number (`uint32`) is an annotation.
                place.check_keywords(schema, &[&BOUNDS[..], &["type", "format"]].concat())?;
                let mut number = json!({"type": kind});
                for key in BOUNDS {
                    if let Some(bound) = schema.get(key) {
                        number[key] = bound.clone();
                    }
                }
                Ok(json_rule(number))
            }
            "boolean" => {
                place.check_keywords(schema, &["type"])?;
                self.literals(&[Json::Bool(true), Json::Bool(false)], path)
            }
            "null" => {
                place.check_keywords(schema, &["type"])?;
                self.literal(&Json::Null, path)
            }
            "array" => self.array(schema, path),
            "object" => self.object(schema, path),
            _ => Err(place.refuse(format!("there is no type `{kind}`"))),
        }
    }

    fn text(&mut self, schema: &Map<String, Json>, path: &str) -> Result<String, TextError> {
        if self.dialect == Dialect::Python {
            // Python reads JSON's texts as JSON does.
            let mut schema = schema.clone();
            schema.insert("type".to_owned(), Json::from("string"));
            return Ok(json_rule(detached(&schema, self.tool)));
        }
        self.place(path)
            .check_keywords(schema, &["type", "minLength", "maxLength"])?;
        let length = |key: &str| schema.get(key).and_then(Json::as_u64);
        let (shortest, longest) = (length("minLength").unwrap_or(0), length("maxLength"));
        let longest = longest.map_or(String::new(), |length| length.to_string());
        let body = format!("/(?s:.{{{shortest},{longest}}})/");
        let name = format!("{}_TEXT{}_{longest}", self.prefix.to_uppercase(), shortest);
        let quote = self.lark.marker(GEMMA_QUOTE);
        if self.lark.is_control(GEMMA_QUOTE) {
            return Ok(format!("{quote} {body} {quote}"));
        }
        if !self.lark.has(&name) {
            let text = format!("({body}{}) {quote}", without(GEMMA_QUOTE));
            self.lark.terminal(&name, &text);
        }
        Ok(format!("{quote} {name}"))
    }

    fn array(&mut self, schema: &Map<String, Json>, path: &str) -> Result<String, TextError> {
        let known = ["type", "items", "minItems", "maxItems"];
        self.place(path).check_keywords(schema, &known)?;
        let item = match schema.get("items") {
            None => self.any(),
            Some(items) => self.value(items, &format!("{path}/items"))?,
        };
        let bound = |key: &str| schema.get(key).and_then(Json::as_u64);
        let (fewest, most) = (bound("minItems").unwrap_or(0), bound("maxItems"));
        if most.is_some_and(|most| most < fewest) {
            return Err(self
                .place(path)
                .refuse("`maxItems` is less than `minItems`"));
        }
        Ok(match most {
            Some(0) => quoted("[]"),
            _ => {
                let separator = quoted(self.dialect.separator());
                let more = most.map_or(String::new(), |most| (most - 1).to_string());
                let least = fewest.saturating_sub(1);
                let times = match (least, more.as_str()) {
                    (0, "") => "*".to_owned(),
                    _ => format!("{{{least},{more}}}"),
                };
                let items = format!("{item} ({separator} {item}){times}");
                match fewest {
                    0 => format!("\"[\" ({items})? \"]\""),
                    _ => format!("\"[\" {items} \"]\""),
                }
            }
        })
    }

    fn object(&mut self, schema: &Map<String, Json>, path: &str) -> Result<String, TextError> {
        let place = self.place(path);
        let known = ["type", "properties", "required", "additionalProperties"];
        place.check_keywords(schema, &known)?;
        let described = properties(schema, place)?;
        if described.is_empty() {
            return match schema.get("additionalProperties") {
                Some(Json::Bool(false)) => Ok(quoted("{}")),
                None | Some(Json::Bool(true)) => Ok(self.map(&Json::Bool(true), path)?),
                Some(values) => self.map(values, &format!("{path}/additionalProperties")),
            };
        }
        let mut entries = Vec::with_capacity(described.len());
        for (name, schema, required) in described {
            let path = format!("{path}/properties/{name}");
            let key = match self.dialect {
                Dialect::Python => format!("{}: ", render::python_json(&Json::from(name))),
                Dialect::Gemma => self.bare_key(name, &path)?,
            };
            let value = self.value(schema, &path)?;
            entries.push(Entry {
                name,
                key,
                value,
                required,
            });
        }
        Ok(format!("\"{{\" {} \"}}\"", self.entries(entries)?))
    }

    /// An object with any keys.
    fn map(&mut self, values: &Json, path: &str) -> Result<String, TextError> {
        let value = self.value(values, path)?;
        let rule = self.new_rule();
        let entry = match self.dialect {
            Dialect::Python => format!("{} \": \" {value}", json_rule(json!({"type": "string"}))),
            Dialect::Gemma => format!("/[A-Za-z_][A-Za-z0-9_]*/ \":\" {value}"),
        };
        let separator = quoted(self.dialect.separator());
        self.lark.rule(&rule, &entry);
        Ok(format!("\"{{\" ({rule} ({separator} {rule})*)? \"}}\""))
    }

    /// A key of Gemma's with its colon.
    fn bare_key(&self, name: &str, path: &str) -> Result<String, TextError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
        match !name.is_empty() && name.chars().all(allowed) {
            true => Ok(format!("{name}:")),
            false => Err(self
                .place(path)
                .refuse("this name cannot be a key, which stands without quotes")),
        }
    }

    /// Entries with separators between those that are there: two rules for each place, one before
    /// and one after the first entry.
    fn entries(&mut self, mut entries: Vec<Entry<'_>>) -> Result<String, TextError> {
        if self.dialect == Dialect::Gemma {
            entries.sort_by_key(|entry| entry.name.to_lowercase());
        }
        let base = self.new_rule();
        let separator = quoted(self.dialect.separator());
        let name = |place: usize, begun: bool| {
            let state = if begun { "more" } else { "first" };
            format!("{base}_{place}_{state}")
        };
        for (place, entry) in entries.iter().enumerate() {
            let key = quoted(&entry.key);
            for begun in [false, true] {
                // Nothing can have begun before the first entry, nor be missing after a required one.
                let reachable = match begun {
                    true => place > 0,
                    false => !entries[..place].iter().any(|entry| entry.required),
                };
                if !reachable {
                    continue;
                }
                let comma = if begun {
                    format!("{separator} ")
                } else {
                    String::new()
                };
                let mut body = format!("{comma}{key} {} {}", entry.value, name(place + 1, true));
                if !entry.required {
                    body.push_str(&format!(" | {}", name(place + 1, begun)));
                }
                self.lark.rule(&name(place, begun), &body);
            }
        }
        let is_empty = entries.iter().all(|entry| !entry.required);
        if !entries.is_empty() {
            self.lark.rule(&name(entries.len(), true), "");
        }
        if is_empty {
            self.lark.rule(&name(entries.len(), false), "");
        }
        Ok(name(0, false))
    }

    /// A value of any type.
    fn any(&mut self) -> String {
        let rule = format!("{}_any", self.prefix);
        if self.lark.has(&rule) {
            return rule;
        }
        let separator = quoted(self.dialect.separator());
        let number = json_rule(json!({"type": "number"}));
        // With no keyword given, there is nothing to refuse.
        let text = self.text(&Map::new(), "").unwrap_or_default();
        let (words, key) = match self.dialect {
            Dialect::Python => ("\"True\" | \"False\" | \"None\"", format!("{text} \": \"")),
            Dialect::Gemma => (
                "\"true\" | \"false\" | \"None\"",
                "/[A-Za-z_][A-Za-z0-9_]*/ \":\"".to_owned(),
            ),
        };
        let list = format!("\"[\" ({rule} ({separator} {rule})*)? \"]\"");
        let object = format!("\"{{\" ({key} {rule} ({separator} {key} {rule})*)? \"}}\"");
        let body = format!("{text} | {number} | {words} | {list} | {object}");
        self.lark.rule(&rule, &body);
        rule
    }
}

/// Those keywords of a schema for several types that concern one of them.
fn of_type(schema: &Map<String, Json>, kind: &str) -> Map<String, Json> {
    let concerns = |key: &str| match key {
        "minLength" | "maxLength" | "pattern" => kind == "string",
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => {
            matches!(kind, "number" | "integer")
        }
        "format" => matches!(kind, "number" | "integer" | "string"),
        "items" | "minItems" | "maxItems" | "prefixItems" | "uniqueItems" | "contains" => {
            kind == "array"
        }
        "properties" | "required" | "additionalProperties" | "patternProperties" => {
            kind == "object"
        }
        _ => true,
    };
    let entries = schema.iter().filter(|(key, _)| concerns(key));
    entries
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
