//! The place of a mistake that llguidance finds, which names none.

use serde_json::Value as Json;

use super::{escape, normalise_part, refuse};
use crate::TextError;

/// Subschemas that are tried.
const MOST_TRIES: usize = 100;
/// What llguidance calls a schema that nothing validates against. Such parts are allowed where there are others to choose.
const UNSATISFIABLE: &str = "Unsatisfiable";

/// The error for a schema that cannot be compiled for this `reason`, with the smallest subschema that cannot be compiled by
/// itself as its place. `error` compiles a normalised schema and gives its error.
pub(crate) fn locate(
    root: &Json,
    reason: String,
    mut error: impl FnMut(Json) -> Option<String>,
) -> TextError {
    let (mut pointer, mut reason) = (String::new(), reason);
    let mut tries = 0;
    let mut part = root;
    while let Some((below, child, why)) = children(part).into_iter().find_map(|(below, child)| {
        tries += 1;
        if tries > MOST_TRIES {
            return None;
        }
        let schema = normalise_part(root, &format!("{pointer}{below}"), child).ok()?;
        let why = error(schema)?;
        let explains = !why.contains(UNSATISFIABLE) || reason.contains(UNSATISFIABLE);
        explains.then_some((below, child, why))
    }) {
        pointer.push_str(&below);
        (part, reason) = (child, why);
    }
    refuse(&pointer, reason)
}

/// The subschemas right below, with their pointers from here.
fn children(schema: &Json) -> Vec<(String, &Json)> {
    let Some(schema) = schema.as_object() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Json::Object(below)) => {
                found.extend(
                    below
                        .iter()
                        .map(|(name, child)| (format!("/{keyword}/{}", escape(name)), child)),
                );
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems" | "items", Json::Array(below)) => {
                let below = below.iter().enumerate();
                found.extend(below.map(|(index, child)| (format!("/{keyword}/{index}"), child)));
            }
            ("items" | "additionalItems" | "additionalProperties", Json::Object(_)) => {
                found.push((format!("/{keyword}"), value));
            }
            _ => {}
        }
    }
    found
}
