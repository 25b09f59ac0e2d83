//! What is looked at in a Lark grammar before llguidance reads it.

use serde_json::{Deserializer, Value as Json};

use super::compile::{check_repetitions, within};
use super::schema;
use crate::TextError;
use crate::tools::{SETTINGS, spacing};

const KIND: &str = "Lark grammar";
/// Rules and terminals of a grammar; each may lead to the next, and they are followed by recursion.
const MAX_RULES: usize = 4096;
/// Brackets within brackets.
const MAX_DEPTH: usize = 128;

/// A text as a string of the grammar.
pub(super) fn literal(text: &str) -> String {
    Json::from(text).to_string().replace('\x7f', "\\u007f")
}

/// The grammar with its JSON Schemas checked and spelled out.
///
/// # Errors
/// [`TextError::Schema`]; [`TextError::GrammarTooLarge`] for what would nest too deeply.
pub(super) fn check(text: &str) -> Result<String, TextError> {
    let mut checked = String::with_capacity(text.len());
    let (mut rules, mut depth) = (0, 0_usize);
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '"' => delimited(rest, '"'),
            '/' if rest.starts_with("//") => line(rest),
            '/' => delimited(rest, '/'),
            '#' => line(rest),
            '%' if rest.starts_with("%json") => {
                rest = &rest["%json".len()..];
                let (schema, length) = embedded(rest)?;
                checked.push_str("%json ");
                checked.push_str(&schema);
                rest = &rest[length..];
                continue;
            }
            _ => character.len_utf8(),
        };
        match character {
            '/' => check_repetitions(&rest[..length])?,
            ':' => rules += 1,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        within(KIND, "rules", rules, MAX_RULES)?;
        within(KIND, "brackets within each other", depth, MAX_DEPTH)?;
        checked.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Ok(checked)
}

/// The schema that `rest` begins with, checked, and its bytes in `rest`. It keeps its number of lines, so that llguidance's
/// errors name the right ones.
fn embedded(rest: &str) -> Result<(String, usize), TextError> {
    let mut values = Deserializer::from_str(rest).into_iter::<Json>();
    let mut schema = match values.next() {
        Some(Ok(schema)) => schema,
        Some(Err(error)) => return Err(not_json(&error.to_string())),
        None => return Err(not_json("nothing follows")),
    };
    let length = values.byte_offset();
    let lines = rest[..length].matches('\n').count();
    let is_spaced = take_spacing(&mut schema);
    let mut checked = schema::normalise(&schema)?;
    if is_spaced {
        space(&mut checked);
    }
    let checked = checked.to_string();
    let (bracket, inner) = checked.split_at(1);
    Ok((format!("{bracket}{}{inner}", "\n".repeat(lines)), length))
}

/// Takes the spacing of tool calls out of a schema, the only setting that a grammar may have in one; whether it was there.
fn take_spacing(schema: &mut Json) -> bool {
    let settings = schema.get(SETTINGS);
    let is_spaced = settings.is_some_and(|settings| *settings == spacing());
    if let Some(schema) = schema.as_object_mut().filter(|_| is_spaced) {
        schema.shift_remove(SETTINGS);
    }
    is_spaced
}

/// Gives a checked schema this spacing, in place of the usual one.
fn space(checked: &mut Json) {
    let settings = checked.get_mut(SETTINGS).and_then(Json::as_object_mut);
    if let (Some(settings), Json::Object(spacing)) = (settings, spacing()) {
        settings.retain(|name, _| !name.starts_with("whitespace"));
        settings.extend(spacing);
    }
}

fn not_json(reason: &str) -> TextError {
    TextError::Grammar {
        kind: KIND,
        reason: format!("no JSON Schema follows %json: {reason}"),
    }
}

/// Bytes of what stands between two of these marks, both included; an escaped one does not count.
fn delimited(text: &str, mark: char) -> usize {
    let mut is_escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            // Neither strings nor expressions go over lines.
            '\n' => return index,
            _ if character == mark => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes up to the end of the line.
fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_strings_expressions_and_comments_is_no_schema() {
        let text = "start: \"%json {\" /%json \\/ {/ // %json {\n# %json {\nother: \"a\"\n";
        assert_eq!(check(text).unwrap(), text);
    }

    #[test]
    fn a_schema_is_checked_and_keeps_its_lines() {
        let text = "start: %json {\n  \"type\": \"string\",\n  \"title\": \"t\"\n}\nother: \"a\"\n";
        let checked = check(text).unwrap();
        assert_eq!(checked.lines().count(), text.lines().count());
        assert!(!checked.contains("title"), "{checked}");
        let refused = check("start: %json {\"properties\": {\"a\": {\"not\": {}}}}").unwrap_err();
        assert!(
            matches!(&refused, TextError::Schema { pointer, .. } if pointer == "#/properties/a/not"),
            "{refused}"
        );
    }

    #[test]
    fn the_spacing_of_tool_calls_is_the_only_setting_of_a_schema() {
        let schema = |settings: Json| {
            let schema = serde_json::json!({"type": "object", SETTINGS: settings});
            check(&format!("start: %json {schema}"))
        };
        let spaced = schema(spacing()).unwrap();
        assert!(spaced.contains("\"item_separator\":\", \""), "{spaced}");
        assert!(!spaced.contains("whitespace_pattern"), "{spaced}");
        assert!(spaced.contains("json_allowed_escapes"), "{spaced}");
        assert!(schema(serde_json::json!({"coerce_one_of": true})).is_err());
    }

    #[test]
    fn nesting_and_rules_are_bounded() {
        let deep = format!("start: {}\"a\"{}", "(".repeat(1000), ")".repeat(1000));
        let many = "a: \"a\"\n".repeat(5000);
        for text in [deep, many] {
            assert!(matches!(
                check(&text),
                Err(TextError::GrammarTooLarge { .. })
            ));
        }
    }
}
