use serde_json::json;

use super::*;

fn refusal(schema: Json) -> (String, String) {
    match normalise(&schema) {
        Err(TextError::Schema { pointer, reason }) => (pointer, reason),
        other => panic!("{schema} gave {other:?}"),
    }
}

#[test]
fn keywords_that_cannot_be_kept_are_refused_with_their_place() {
    for (keyword, _) in UNSUPPORTED {
        let schema = json!({"properties": {"a/b": {"items": {keyword: {}}}}});
        let (pointer, _) = refusal(schema);
        assert_eq!(pointer, format!("#/properties/a~1b/items/{keyword}"));
    }
    let (pointer, reason) = refusal(json!({"anyOf": [{}, {"requried": ["a"]}]}));
    assert_eq!(pointer, "#/anyOf/1/requried");
    assert!(reason.contains("no such keyword"), "{reason}");
}

#[test]
fn annotations_and_unused_definitions_are_left_out() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a",
        "title": "t", "description": "d", "x-mine": 1, "type": "string", "uniqueItems": false,
        "$defs": {"unused": {"not": {}}},
    });
    let Json::Object(mut out) = normalise(&schema).unwrap() else {
        panic!("no object");
    };
    out.remove("x-guidance");
    assert_eq!(Json::Object(out), json!({"type": "string"}));
}

#[test]
fn references_lead_to_definitions_and_may_go_round() {
    let schema = json!({
        "properties": {"next": {"$ref": "#"}, "other": {"$ref": "#/$defs/a~1b%20c"}},
        "$defs": {"a/b c": {"type": "null"}},
    });
    let out = normalise(&schema).unwrap();
    let pointer = |reference: &Json| reference.as_str().unwrap()[1..].to_owned();
    let next = pointer(&out["properties"]["next"]["$ref"]);
    let target = out.pointer(&next).unwrap();
    assert_eq!(pointer(&target["properties"]["next"]["$ref"]), next);
    let other = pointer(&out["properties"]["other"]["$ref"]);
    assert_eq!(out.pointer(&other), Some(&json!({"type": "null"})));
}

#[test]
fn references_that_lead_nowhere_are_refused() {
    for reference in [
        "#/$defs/none",
        "https://example.com/schema",
        "#anchor",
        "other.json",
    ] {
        let (pointer, _) = refusal(json!({"items": {"$ref": reference}}));
        assert_eq!(pointer, "#/items/$ref");
    }
}

#[test]
fn integers_get_the_bounds_that_they_lack() {
    let bounds = |schema: Json| {
        let out = normalise(&schema).unwrap();
        (out["minimum"].clone(), out["maximum"].clone())
    };
    assert_eq!(
        bounds(json!({"type": "integer"})),
        (json!(-MAX_INTEGER), json!(MAX_INTEGER))
    );
    assert_eq!(
        bounds(json!({"type": "integer", "minimum": 3})),
        (json!(3), json!(MAX_INTEGER))
    );
    assert_eq!(bounds(json!({"type": "number"})), (Json::Null, Json::Null));
}

#[test]
fn free_names_cannot_be_counted() {
    let (pointer, _) = refusal(json!({"type": "object", "minProperties": 2}));
    assert_eq!(pointer, "#/minProperties");
    let schema = json!({"type": "object", "required": ["a", "b"], "minProperties": 3});
    assert!(normalise(&schema).is_ok());
}

#[test]
fn depth_and_size_are_bounded() {
    let mut deep = json!({});
    for _ in 0..200 {
        deep = json!({"items": deep});
    }
    let mut chain = Map::new();
    for link in 0..1000 {
        chain.insert(
            link.to_string(),
            json!({"$ref": format!("#/$defs/{}", link + 1)}),
        );
    }
    chain.insert("1000".to_owned(), json!({}));
    let chain = json!({"$ref": "#/$defs/0", "$defs": chain});
    let wide = json!({"anyOf": vec![json!({}); 30_000]});
    for schema in [deep, chain, wide] {
        assert!(matches!(
            normalise(&schema),
            Err(TextError::GrammarTooLarge { .. })
        ));
    }
}

#[test]
fn references_that_lead_round_in_a_circle_are_refused() {
    for defs in [
        json!({"a": {"$ref": "#/$defs/a"}}),
        json!({"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}),
    ] {
        let schema = json!({"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": defs});
        let (pointer, reason) = refusal(schema);
        assert_eq!(pointer, "#/properties/x/$ref");
        assert!(reason.contains("refers to itself"), "{reason}");
    }
}

#[test]
fn what_is_no_schema_is_refused() {
    for schema in [
        json!(1),
        json!({"type": "text"}),
        json!({"type": []}),
        json!({"minLength": -1}),
        json!({"maxItems": 1e9}),
        json!({"maximum": 1e300}),
        json!({"const": 1e300}),
        json!({"const": "\u{1}"}),
        json!({"enum": []}),
        json!({"required": [1]}),
        json!({"properties": []}),
        json!({"$schema": "https://example.com/mine"}),
        json!({"format": "json-pointer"}),
        json!(false),
    ] {
        refusal(schema);
    }
}
