//! Calls of Qwen 3.5, with arguments held to a schema.

use serde_json::{Map, Value as Json};

use super::{
    json_rule,
    lark::{Lark, quoted, without},
    schema::{Place, detached, list, properties},
};
use crate::{TextError, tools::Tool};

const END: &str = "\n</parameter>\n";
const TAG: &str = "</parameter>";

/// `\n<function=name>\n`, the arguments in the order of the schema, `</function>\n`.
pub(super) fn call(lark: &mut Lark, tool: &Tool, prefix: &str) -> Result<String, TextError> {
    let place = Place { tool, path: "" };
    let Some(schema) = tool.parameters.as_object() else {
        return Err(place.refuse("the parameters are not a JSON object"));
    };
    let known = ["type", "properties", "required", "additionalProperties"];
    place.check_keywords(schema, &known)?;
    let mut call = quoted(&format!("\n<function={}>\n", tool.name));
    for (index, (name, schema, required)) in properties(schema, place)?.into_iter().enumerate() {
        let path = format!("/properties/{name}");
        let place = Place { tool, path: &path };
        if name.contains(['>', '<', '\n']) || name.trim() != name || name.is_empty() {
            return Err(place.refuse("this name would end its tag"));
        }
        let text = format!("{}_TEXT{index}", prefix.to_uppercase());
        let value = value(lark, schema, place, &text)?;
        let open = quoted(&format!("<parameter={name}>\n"));
        let rule = format!("{prefix}_p{index}");
        lark.rule(&rule, &format!("{open} {value}"));
        call.push_str(&format!(" {rule}{}", if required { "" } else { "?" }));
    }
    Ok(format!("{call} {}", quoted("</function>\n")))
}

/// A value with the end of its argument. `text` names the terminal of text, if one is needed.
fn value<'t>(
    lark: &mut Lark,
    schema: &'t Json,
    place: Place<'t, '_>,
    text: &str,
) -> Result<String, TextError> {
    let mut schema = schema;
    while let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        let target = place.resolve(reference)?;
        if target.get("$ref").is_some() {
            return Err(place.refuse("a reference leads to another reference"));
        }
        schema = target;
    }
    let none = Map::new();
    let schema = match schema {
        Json::Bool(true) => &none,
        Json::Object(schema) => schema,
        _ => return Err(place.refuse("no value fits this schema")),
    };
    if let Some(constants) = constants(schema) {
        place.check_keywords(schema, &["const", "enum", "type"])?;
        return constants_of(&constants, place);
    }
    let kinds = kinds(schema, place)?;
    let end = quoted(END);
    if kinds.contains(&"string") {
        return free_text(lark, schema, &kinds, place, text);
    }
    let mut alternatives = vec![json_rule(detached(schema, place.tool))];
    // As the template shows them in earlier calls.
    if kinds.contains(&"boolean") {
        alternatives.push("\"True\" | \"False\"".to_owned());
    }
    if kinds.contains(&"null") {
        alternatives.push("\"None\"".to_owned());
    }
    Ok(format!("({}) {end}", alternatives.join(" | ")))
}

fn constants(schema: &Map<String, Json>) -> Option<Vec<Json>> {
    let one = schema.get("const").map(|value| vec![value.clone()]);
    one.or_else(|| schema.get("enum")?.as_array().cloned())
}

/// Texts as they stand, or other constants as JSON. Both together could be read in two ways.
fn constants_of(values: &[Json], place: Place<'_, '_>) -> Result<String, TextError> {
    let texts = values.iter().filter(|value| value.is_string()).count();
    if values.is_empty() || texts != 0 && texts != values.len() {
        return Err(place.refuse("the constants are none, or text and other values together"));
    }
    let mut alternatives = Vec::with_capacity(values.len());
    for value in values {
        alternatives.push(match value {
            Json::String(text) if text.contains(TAG) => {
                return Err(place.refuse(format!("a constant contains `{TAG}`")));
            }
            Json::String(text) => quoted(&format!("{text}{END}")),
            Json::Array(_) | Json::Object(_) => {
                return Err(place.refuse("a constant is a list or an object"));
            }
            other => quoted(&format!("{other}{END}")),
        });
    }
    Ok(format!("({})", alternatives.join(" | ")))
}

/// The types that a schema allows; all but text where it does not say.
fn kinds<'s>(
    schema: &'s Map<String, Json>,
    place: Place<'_, '_>,
) -> Result<Vec<&'s str>, TextError> {
    match schema.get("type") {
        Some(Json::String(kind)) => return Ok(vec![kind]),
        Some(Json::Array(kinds)) => return Ok(kinds.iter().filter_map(Json::as_str).collect()),
        _ => {}
    }
    let mut all = Vec::new();
    for schema in list(schema, "anyOf") {
        let resolved = match schema.get("$ref").and_then(Json::as_str) {
            Some(reference) => {
                let target = place.resolve(reference)?;
                // Only the type counts: the value itself is checked through the reference.
                match target.get("type").and_then(Json::as_str) {
                    Some("string") | None => return Err(unclear(place)),
                    Some(_) => "object",
                }
            }
            None => match schema.get("type").and_then(Json::as_str) {
                Some(kind) => kind,
                None => return Err(unclear(place)),
            },
        };
        all.push(resolved);
    }
    match all.is_empty() {
        true => Err(unclear(place)),
        false => Ok(all),
    }
}

fn unclear(place: Place<'_, '_>) -> TextError {
    place.refuse("the schema does not say at once whether the value is text, which has no quotes")
}

/// Text as it stands. Beside it only types are allowed whose words need no further check.
fn free_text(
    lark: &mut Lark,
    schema: &Map<String, Json>,
    kinds: &[&str],
    place: Place<'_, '_>,
    name: &str,
) -> Result<String, TextError> {
    let simple =
        |kind: &&str| matches!(*kind, "string" | "null" | "boolean" | "number" | "integer");
    if !kinds.iter().all(simple) {
        return Err(place.refuse("text and lists or objects together could be read in two ways"));
    }
    let mut lengths = (0, String::new());
    if kinds == ["string"] {
        place.check_keywords(schema, &["type", "minLength", "maxLength"])?;
        let length = |key: &str| schema.get(key).and_then(Json::as_u64);
        lengths.0 = length("minLength").unwrap_or(0);
        lengths.1 = length("maxLength").map_or(String::new(), |length| length.to_string());
    } else {
        place.check_keywords(schema, &["type", "anyOf"])?;
        for alternative in list(schema, "anyOf").iter().filter_map(Json::as_object) {
            place.check_keywords(alternative, &["type", "format"])?;
            let is_text = alternative.get("type") == Some(&Json::from("string"));
            if is_text && alternative.contains_key("format") {
                return Err(place.refuse("the keyword `format` is not supported there"));
            }
        }
    }
    let (shortest, longest) = lengths;
    let body = format!("/(?s:.{{{shortest},{longest}}})/");
    lark.terminal(name, &format!("({body}{}) {}", without(TAG), quoted(END)));
    Ok(name.to_owned())
}
