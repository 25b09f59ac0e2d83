//! A schema out of an example.

use serde_json::{Map, Value as Json, json};

use crate::tasks::TaskError;

/// Arrays and objects within each other.
const MOST_LEVELS: usize = 64;

/// The schema of JSON like this example: objects with the same properties and no others, arrays of what the example's items have in
/// common, texts, whole numbers, other numbers, and truth values. A single value may also be null, so that a model need not invent
/// what a text does not say. Of an array's objects, all properties that one of them has are taken.
///
/// # Errors
/// [`TaskError::Example`] with the place: for an empty object or array and a null, which say nothing about what belongs there, for
/// items of different kinds, and for more than 64 levels.
pub fn schema_of_example(example: &Json) -> Result<Json, TaskError> {
    schema_of(&[example], &mut Vec::new())
}

/// The schema that all these values have in common.
fn schema_of(values: &[&Json], place: &mut Vec<String>) -> Result<Json, TaskError> {
    if place.len() > MOST_LEVELS {
        return Err(refuse(place, "it has more than 64 levels: make it flatter"));
    }
    let known: Vec<&Json> = values
        .iter()
        .copied()
        .filter(|value| !value.is_null())
        .collect();
    let all = |is: fn(&Json) -> bool| known.iter().all(|value| is(value));
    let single = |name: &str| Ok(json!({"type": [name, "null"]}));
    match known.first() {
        None => Err(refuse(
            place,
            "null says nothing about what belongs here: give a value",
        )),
        Some(Json::Object(_)) if all(Json::is_object) => schema_of_objects(&known, place),
        Some(Json::Array(_)) if all(Json::is_array) => {
            let items: Vec<&Json> = known
                .iter()
                .filter_map(|value| value.as_array())
                .flatten()
                .collect();
            if items.is_empty() {
                return Err(refuse(place, "the array is empty: give an item of it"));
            }
            place.push("0".to_owned());
            let items = schema_of(&items, place)?;
            place.pop();
            Ok(json!({"type": "array", "items": items}))
        }
        Some(Json::String(_)) if all(Json::is_string) => single("string"),
        Some(Json::Bool(_)) if all(Json::is_boolean) => single("boolean"),
        Some(Json::Number(_)) if all(|value| value.is_i64() || value.is_u64()) => single("integer"),
        Some(Json::Number(_)) if all(Json::is_number) => single("number"),
        Some(_) => Err(refuse(
            place,
            "the values here are of different kinds: give such of one kind",
        )),
    }
}

fn schema_of_objects(values: &[&Json], place: &mut Vec<String>) -> Result<Json, TaskError> {
    let objects: Vec<&Map<String, Json>> = values
        .iter()
        .filter_map(|value| value.as_object())
        .collect();
    let mut properties = Map::new();
    for key in objects.iter().flat_map(|object| object.keys()) {
        if properties.contains_key(key) {
            continue;
        }
        let values: Vec<&Json> = objects
            .iter()
            .filter_map(|object| object.get(key))
            .collect();
        place.push(key.clone());
        properties.insert(key.clone(), schema_of(&values, place)?);
        place.pop();
    }
    if properties.is_empty() {
        return Err(refuse(place, "the object is empty: give its properties"));
    }
    let required: Vec<&String> = properties.keys().collect();
    Ok(json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false
    }))
}

fn refuse(place: &[String], reason: &'static str) -> TaskError {
    let pointer = place
        .iter()
        .map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1")))
        .collect();
    TaskError::Example { pointer, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_the_examples_properties_and_types() {
        let example =
            json!({"name": "Anna", "age": 31, "size": 1.7, "member": true, "tags": ["a"]});
        let single = |name: &str| json!({"type": [name, "null"]});
        assert_eq!(
            schema_of_example(&example).unwrap(),
            json!({
                "type": "object",
                "required": ["name", "age", "size", "member", "tags"],
                "properties": {
                    "name": single("string"),
                    "age": single("integer"),
                    "size": single("number"),
                    "member": single("boolean"),
                    "tags": {"type": "array", "items": single("string")}
                },
                "additionalProperties": false
            })
        );
    }

    #[test]
    fn the_items_of_an_array_are_taken_together() {
        let schema =
            schema_of_example(&json!([{"a": 1}, {"a": 1.5, "b": "x"}, {"a": null}])).unwrap();
        assert_eq!(schema["items"]["required"], json!(["a", "b"]));
        assert_eq!(
            schema["items"]["properties"]["a"],
            json!({"type": ["number", "null"]})
        );
    }

    #[test]
    fn what_says_nothing_is_refused_with_its_place() {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        for (example, place) in [
            (json!({"a": {"b/c": []}}), "/a/b~1c"),
            (json!({"a": null}), "/a"),
            (json!({}), ""),
            (json!(["x", 1]), "/0"),
            (deep, &"/0".repeat(65)),
        ] {
            let error = schema_of_example(&example).unwrap_err();
            assert!(
                matches!(&error, TaskError::Example { pointer, .. } if pointer == place),
                "{error}"
            );
        }
    }
}
