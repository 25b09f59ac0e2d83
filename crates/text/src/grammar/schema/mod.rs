//! JSON Schema, checked and rewritten before llguidance compiles it.
//!
//! llguidance passes over keywords that it does not know and takes some for more than it can do. Here every keyword of every
//! subschema is looked at: it is passed on, rewritten into what is understood, left out because it only annotates, or refused.
//! What comes out has the form of draft 2020-12 and nothing in it that llguidance would ignore.

mod formats;
mod keywords;
mod locate;
mod pattern;
mod values;

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use super::compile::within;
use crate::TextError;
use keywords::{ANNOTATIONS, DIALECTS, UNSUPPORTED};
use values::{array, check_instance, length, number, percent_decoded, required, string, types};

pub(super) use locate::locate;

const KIND: &str = "JSON Schema";
/// Subschemas, each counted once however often it is referred to.
const MAX_SUBSCHEMAS: usize = 20_000;
/// Subschemas within each other, references followed: llguidance goes through them by recursion.
const MAX_DEPTH: usize = 128;
/// Properties of an object, which llguidance goes through by recursion, too.
const MAX_PROPERTIES: usize = 2000;
/// Patterns for the names of properties of an object: each pair of them is compared.
const MAX_NAME_PATTERNS: usize = 16;
/// The largest integer that a double keeps exactly, 2⁵³ − 1.
const MAX_INTEGER: i64 = 9_007_199_254_740_991;
/// Between values: a space, or a line end with its indentation.
const WHITE_SPACE: &str = r"\x20|\r?\n(\x20{0,32}|\t{0,8})";
/// Characters after a backslash. Without `u` each text is written in one way only, so that a name cannot come up again in disguise.
const ESCAPES: &str = "nrbtf\\\"";

/// The schema in the form that llguidance compiles without loss.
///
/// # Errors
/// [`TextError::Schema`] for what cannot be honoured, [`TextError::GrammarTooLarge`].
pub(super) fn normalise(schema: &Json) -> Result<Json, TextError> {
    normalise_part(schema, "", schema)
}

/// As [`normalise`], for the subschema at a place of a schema.
fn normalise_part(root: &Json, pointer: &str, part: &Json) -> Result<Json, TextError> {
    let mut normaliser = Normaliser {
        root,
        definitions: HashMap::new(),
        finished: Map::new(),
        subschemas: 0,
    };
    let mut schema = match normaliser.subschema(part, &Place::root(pointer))? {
        Json::Bool(true) => Map::new(),
        Json::Object(schema) => schema,
        _ => return Err(refuse(pointer, "nothing validates against it")),
    };
    if !normaliser.finished.is_empty() {
        schema.insert("$defs".to_owned(), Json::Object(normaliser.finished));
    }
    let settings = json!({"whitespace_pattern": WHITE_SPACE, "json_allowed_escapes": ESCAPES});
    schema.insert("x-guidance".to_owned(), settings);
    Ok(Json::Object(schema))
}

struct Normaliser<'s> {
    root: &'s Json,
    /// The names of the subschemas that are referred to, by their pointer.
    definitions: HashMap<String, String>,
    finished: Map<String, Json>,
    subschemas: usize,
}

/// Where a subschema stands.
struct Place {
    pointer: String,
    depth: usize,
}

impl Place {
    fn root(pointer: &str) -> Self {
        Place {
            pointer: pointer.to_owned(),
            depth: 0,
        }
    }

    /// A keyword of it.
    fn keyword(&self, keyword: &str) -> Self {
        Place {
            pointer: format!("{}/{}", self.pointer, escape(keyword)),
            depth: self.depth,
        }
    }

    /// A subschema below a keyword of it.
    fn child(&self, key: &str) -> Self {
        Place {
            depth: self.depth + 1,
            ..self.keyword(key)
        }
    }

    fn refuse(&self, reason: impl Into<String>) -> TextError {
        refuse(&self.pointer, reason)
    }
}

fn refuse(pointer: &str, reason: impl Into<String>) -> TextError {
    TextError::Schema {
        pointer: format!("#{pointer}"),
        reason: reason.into(),
    }
}

/// A key as a part of a JSON Pointer (RFC 6901).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl Normaliser<'_> {
    fn subschema(&mut self, schema: &Json, place: &Place) -> Result<Json, TextError> {
        self.subschemas += 1;
        within(KIND, "subschemas", self.subschemas, MAX_SUBSCHEMAS)?;
        within(KIND, "subschemas within each other", place.depth, MAX_DEPTH)?;
        let schema = match schema {
            Json::Bool(_) => return Ok(schema.clone()),
            Json::Object(schema) => schema,
            _ => return Err(place.refuse("a schema is an object, true or false")),
        };
        let mut out = Map::new();
        for (keyword, value) in schema {
            self.keyword(schema, keyword, value, &place.keyword(keyword), &mut out)?;
        }
        check_property_counts(schema, place)?;
        bound_integers(&mut out);
        Ok(Json::Object(out))
    }

    fn keyword(
        &mut self,
        schema: &Map<String, Json>,
        keyword: &str,
        value: &Json,
        place: &Place,
        out: &mut Map<String, Json>,
    ) -> Result<(), TextError> {
        let normalised = match keyword {
            "type" => types(value, place)?,
            "const" => {
                check_instance(value, place)?;
                value.clone()
            }
            "enum" => {
                for instance in array(value, place)? {
                    check_instance(instance, place)?;
                }
                value.clone()
            }
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" => length(value, place)?,
            "minimum" | "maximum" | "multipleOf" => number(value, place)?,
            "exclusiveMinimum" | "exclusiveMaximum" => match value {
                // Draft 4 says with a flag that the bound itself is out.
                Json::Bool(_) => value.clone(),
                _ => number(value, place)?,
            },
            "required" => required(value, place)?,
            "pattern" => pattern::to_rust(string(value, place)?)
                .map_err(|reason| place.refuse(reason))?
                .into(),
            "format" => return formats::apply(schema, string(value, place)?, place, out),
            "properties" => self.map(value, place, false)?,
            "patternProperties" => self.map(value, place, true)?,
            "additionalProperties" => self.subschema(value, &place_below(place))?,
            "prefixItems" => {
                if is_older(self.root) {
                    return Err(
                        place.refuse("this draft writes the first items as an array of `items`")
                    );
                }
                self.list(value, place)?
            }
            "items" if value.is_array() => {
                out.insert("prefixItems".to_owned(), self.list(value, place)?);
                return Ok(());
            }
            "items" => self.subschema(value, &place_below(place))?,
            "additionalItems" => {
                if !schema.get("items").is_some_and(Json::is_array) {
                    return Err(place.refuse("it has a meaning beside an array of `items` only"));
                }
                let rest = self.subschema(value, &place_below(place))?;
                out.insert("items".to_owned(), rest);
                return Ok(());
            }
            "anyOf" | "oneOf" => self.list(value, place)?,
            "allOf" => {
                let Json::Array(parts) = self.list(value, place)? else {
                    return Ok(());
                };
                parts.into_iter().for_each(|part| formats::add(out, part));
                return Ok(());
            }
            "$ref" => self.reference(string(value, place)?, place)?,
            "$schema" => return check_dialect(value, place),
            "$id" | "id" if place.depth == 0 => return Ok(()),
            "$defs" | "definitions" => return Ok(()),
            "uniqueItems" if *value == Json::Bool(false) => return Ok(()),
            _ if ANNOTATIONS.contains(&keyword) => return Ok(()),
            _ if keyword.starts_with("x-") && keyword != "x-guidance" => return Ok(()),
            _ => {
                let known = UNSUPPORTED.iter().find(|(name, _)| *name == keyword);
                return Err(place.refuse(match known {
                    Some((_, reason)) => (*reason).to_owned(),
                    None => "there is no such keyword; annotations of one's own begin with `x-`"
                        .to_owned(),
                }));
            }
        };
        out.insert(keyword.to_owned(), normalised);
        Ok(())
    }

    fn list(&mut self, value: &Json, place: &Place) -> Result<Json, TextError> {
        let schemas = array(value, place)?.iter().enumerate();
        schemas
            .map(|(index, schema)| self.subschema(schema, &place.child(&index.to_string())))
            .collect()
    }

    fn map(&mut self, value: &Json, place: &Place, has_patterns: bool) -> Result<Json, TextError> {
        let schemas = value
            .as_object()
            .ok_or_else(|| place.refuse("an object of schemas is needed"))?;
        match has_patterns {
            true => within(
                KIND,
                "patterns for names in an object",
                schemas.len(),
                MAX_NAME_PATTERNS,
            )?,
            false => within(
                KIND,
                "properties in an object",
                schemas.len(),
                MAX_PROPERTIES,
            )?,
        }
        let mut out = Map::new();
        for (name, schema) in schemas {
            let place = place.child(name);
            let schema = self.subschema(schema, &place)?;
            let name = match has_patterns {
                true => pattern::to_rust(name).map_err(|reason| place.refuse(reason))?,
                false => name.clone(),
            };
            out.insert(name, schema);
        }
        Ok(Json::Object(out))
    }

    /// The name under which the subschema that is meant stands among the definitions.
    fn reference(&mut self, reference: &str, place: &Place) -> Result<Json, TextError> {
        let pointer = reference.strip_prefix('#').ok_or_else(|| {
            place.refuse(format!(
                "{reference:?} is not in this schema, and nothing is fetched: put it under `$defs` and refer to `#/$defs/...`"
            ))
        })?;
        let pointer = percent_decoded(pointer)
            .filter(|pointer| pointer.is_empty() || pointer.starts_with('/'))
            .ok_or_else(|| {
                place.refuse(format!(
                    "{reference:?} is no JSON Pointer such as `#/$defs/name`"
                ))
            })?;
        let root = self.root;
        let target = root
            .pointer(&pointer)
            .ok_or_else(|| place.refuse(format!("there is nothing at {reference:?}")))?;
        if self.only_refers_to_itself(&pointer, target) {
            return Err(place.refuse(format!(
                "{reference:?} refers to itself and says nothing else: no text ends its reading"
            )));
        }
        if let Some(name) = self.definitions.get(&pointer) {
            return Ok(format!("#/$defs/{name}").into());
        }
        let name = format!("d{}", self.definitions.len());
        self.definitions.insert(pointer.clone(), name.clone());
        let target_place = Place {
            pointer,
            depth: place.depth + 1,
        };
        let schema = self.subschema(target, &target_place)?;
        let reference = format!("#/$defs/{name}").into();
        self.finished.insert(name, schema);
        Ok(reference)
    }

    /// Whether references alone lead from a subschema back to one of them.
    fn only_refers_to_itself(&self, pointer: &str, target: &Json) -> bool {
        let mut seen = vec![pointer.to_owned()];
        let mut schema = target;
        while seen.len() <= MAX_DEPTH {
            let reference = schema.get("$ref").and_then(Json::as_str);
            let next = reference.and_then(|text| percent_decoded(text.strip_prefix('#')?));
            let Some((next, found)) =
                next.and_then(|next| Some((next.clone(), self.root.pointer(&next)?)))
            else {
                return false;
            };
            if seen.contains(&next) {
                return true;
            }
            seen.push(next);
            schema = found;
        }
        false
    }
}

/// Of a keyword that holds one subschema.
fn place_below(place: &Place) -> Place {
    Place {
        pointer: place.pointer.clone(),
        depth: place.depth + 1,
    }
}

/// Names that nobody has chosen may come up twice, and would be counted twice.
fn check_property_counts(schema: &Map<String, Json>, place: &Place) -> Result<(), TextError> {
    let Some(least) = schema.get("minProperties").and_then(Json::as_u64) else {
        return Ok(());
    };
    let required = schema.get("required").and_then(Json::as_array);
    let mut names: Vec<&str> = required
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    names.sort_unstable();
    names.dedup();
    let is_closed = schema.get("additionalProperties") == Some(&Json::Bool(false))
        && !schema.contains_key("patternProperties");
    match is_closed || least <= names.len() as u64 + 1 {
        true => Ok(()),
        false => Err(place.keyword("minProperties").refuse(format!(
            "{least} properties are asked for and {} are required: a name that is free could come up twice. Require the others by name",
            names.len()
        ))),
    }
}

/// Integers without bounds stay where they are exact. Bounds of the schema are within.
fn bound_integers(schema: &mut Map<String, Json>) {
    let is_integer = match schema.get("type") {
        Some(Json::String(name)) => name == "integer",
        Some(Json::Array(names)) => {
            names.contains(&"integer".into()) && !names.contains(&"number".into())
        }
        _ => false,
    };
    if !is_integer {
        return;
    }
    for (bound, exclusive, most) in [
        ("minimum", "exclusiveMinimum", -MAX_INTEGER),
        ("maximum", "exclusiveMaximum", MAX_INTEGER),
    ] {
        if !schema.contains_key(bound) && !schema.contains_key(exclusive) {
            schema.insert(bound.to_owned(), most.into());
        }
    }
}

fn check_dialect(value: &Json, place: &Place) -> Result<(), TextError> {
    let name = string(value, place)?.trim_end_matches('#');
    match DIALECTS.iter().any(|(dialect, _)| *dialect == name) {
        true => Ok(()),
        false => Err(place.refuse(format!(
            "the dialect {value} is not known; drafts 4, 6, 7, 2019-09 and 2020-12 are"
        ))),
    }
}

/// Whether the schema says that it is of a draft before 2020-12.
fn is_older(root: &Json) -> bool {
    let name = root
        .get("$schema")
        .and_then(Json::as_str)
        .unwrap_or_default();
    let name = name.trim_end_matches('#');
    DIALECTS
        .iter()
        .any(|(dialect, is_older)| *dialect == name && *is_older)
}

#[cfg(test)]
mod tests;
