//! What the hand-written grammars ask of a JSON Schema.

use serde_json::{Map, Value as Json};

use crate::{TextError, tools::Tool};

/// Keywords that say nothing about which values are valid.
const ANNOTATIONS: [&str; 13] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "nullable",
];

/// Where in a tool's parameters a schema stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'t, 'p> {
    pub(super) tool: &'t Tool,
    pub(super) path: &'p str,
}

impl<'t> Place<'t, '_> {
    pub(super) fn refuse(self, reason: impl Into<String>) -> TextError {
        TextError::ToolSchema {
            tool: self.tool.name.clone(),
            place: match self.path {
                "" => "/".to_owned(),
                path => path.to_owned(),
            },
            reason: reason.into(),
        }
    }

    /// Refuses a schema with keywords other than annotations and those that are `known`.
    pub(super) fn check_keywords(
        self,
        schema: &Map<String, Json>,
        known: &[&str],
    ) -> Result<(), TextError> {
        let other = schema.keys().find(|key| {
            let key = key.as_str();
            !ANNOTATIONS.contains(&key) && !known.contains(&key)
        });
        match other {
            Some(key) => Err(self.refuse(format!("the keyword `{key}` is not supported there"))),
            None if schema.get("nullable") == Some(&Json::Bool(true)) => {
                Err(self.refuse("the keyword `nullable` is not supported there"))
            }
            None => Ok(()),
        }
    }

    /// The schema that `$ref` names, in the same document.
    pub(super) fn resolve(self, reference: &str) -> Result<&'t Json, TextError> {
        let target = reference
            .strip_prefix('#')
            .and_then(|path| self.tool.parameters.pointer(path));
        target.ok_or_else(|| self.refuse(format!("the reference `{reference}` leads nowhere")))
    }
}

/// A part of a tool's schema as a document of its own, which brings the definitions along that
/// references in it may name.
pub(super) fn detached(schema: &Map<String, Json>, tool: &Tool) -> Json {
    let mut schema = schema.clone();
    for key in ["$defs", "definitions"] {
        if let Some(definitions) = tool.parameters.get(key) {
            schema.insert(key.to_owned(), definitions.clone());
        }
    }
    Json::Object(schema)
}

/// The members of a list in a schema, empty where it is absent.
pub(super) fn list<'s>(schema: &'s Map<String, Json>, key: &str) -> &'s [Json] {
    schema
        .get(key)
        .and_then(Json::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The properties of an object's schema: name, schema, and whether it is required.
///
/// # Errors
///
/// Where a property is required and not described.
pub(super) fn properties<'s>(
    schema: &'s Map<String, Json>,
    place: Place<'_, '_>,
) -> Result<Vec<(&'s str, &'s Json, bool)>, TextError> {
    let none = Map::new();
    let described = match schema.get("properties") {
        None => &none,
        Some(Json::Object(properties)) => properties,
        Some(_) => return Err(place.refuse("`properties` is not an object")),
    };
    let required = list(schema, "required");
    for name in required {
        if !name
            .as_str()
            .is_some_and(|name| described.contains_key(name))
        {
            return Err(place.refuse(format!("{name} is required and not described")));
        }
    }
    let Some(Json::Object(properties)) = schema.get("properties") else {
        return Ok(Vec::new());
    };
    let is_required = |name: &str| required.iter().any(|other| other.as_str() == Some(name));
    let entry = |(name, schema): (&'s String, &'s Json)| (name.as_str(), schema, is_required(name));
    Ok(properties.iter().map(entry).collect())
}
