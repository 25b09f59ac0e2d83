//! Schemas of varied shape from a seed, and the check of an answer by a validator that knows nothing of grammars.
#![allow(dead_code, reason = "each user takes its part")]

use serde_json::{Map, Value as Json, json};

/// A generator of schemas (Knuth's random numbers).
pub(crate) struct Schemas {
    random: u64,
    definitions: Map<String, Json>,
}

impl Schemas {
    pub(crate) fn new(seed: u64) -> Self {
        Schemas {
            random: seed.wrapping_mul(2_654_435_761).wrapping_add(99),
            definitions: Map::new(),
        }
    }

    /// The next schema of an object, three levels deep at most.
    pub(crate) fn schema(&mut self) -> Json {
        self.definitions.clear();
        let mut schema = self.object(3);
        if !self.definitions.is_empty() {
            schema["$defs"] = Json::Object(std::mem::take(&mut self.definitions));
        }
        schema
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % limit
    }

    fn any(&mut self, depth: usize) -> Json {
        match self.below(if depth == 0 { 6 } else { 12 }) {
            0 => json!({"type": "boolean"}),
            1 => self.number(),
            2 | 3 => self.string(),
            4 => json!({"enum": ["red", "green", 3, null, true, {"a": [1]}]}),
            5 => {
                let values = [json!("fixed"), json!(1.5), json!("é \"quoted\"\n")];
                json!({"const": values[self.below(3)]})
            }
            6 | 7 => self.object(depth - 1),
            8 => self.array(depth - 1),
            9 => self.choice(depth - 1),
            10 => self.reference(depth - 1),
            _ => self.intersection(),
        }
    }

    fn number(&mut self) -> Json {
        let least = self.below(200) as i64 - 100;
        let most = least + 1 + self.below(1000) as i64;
        match self.below(7) {
            0 => json!({"type": "integer"}),
            1 => json!({"type": "integer", "minimum": least, "maximum": most}),
            2 => json!({"type": "integer", "exclusiveMinimum": least, "maximum": most + 1}),
            3 => {
                json!({"type": "number", "minimum": least as f64 + 0.5, "maximum": most as f64 + 0.25})
            }
            4 => {
                json!({"type": "integer", "multipleOf": 1 + self.below(12), "minimum": 0, "maximum": 5000})
            }
            5 => json!({"type": ["integer", "null"], "format": "int32"}),
            _ => json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
        }
    }

    fn string(&mut self) -> Json {
        let least = self.below(4);
        const FORMATS: [&str; 10] = [
            "date",
            "time",
            "date-time",
            "email",
            "hostname",
            "ipv4",
            "ipv6",
            "uuid",
            "uri",
            "duration",
        ];
        const PATTERNS: [&str; 6] = [
            "^[A-Z]{2,4}-\\d{1,3}$",
            "^(on|off)$",
            "^\\w+( \\w+){0,3}$",
            "ab.c",
            "^[^a-z]{1,5}$",
            "^\\S{1,8}$",
        ];
        match self.below(5) {
            0 => json!({"type": "string", "maxLength": 20}),
            1 => json!({"type": "string", "minLength": least, "maxLength": least + self.below(12)}),
            2 => {
                json!({"type": "string", "pattern": PATTERNS[self.below(PATTERNS.len())], "maxLength": 30})
            }
            _ => json!({"type": "string", "format": FORMATS[self.below(FORMATS.len())]}),
        }
    }

    fn object(&mut self, depth: usize) -> Json {
        const NAMES: [&str; 8] = ["name", "id", "tags", "size", "größe", "a b", "x\"y", "note"];
        let mut properties = Map::new();
        let mut required = Vec::new();
        for _ in 0..1 + self.below(4) {
            let name = NAMES[self.below(NAMES.len())];
            if self.below(3) > 0 {
                required.push(name);
            }
            properties.insert(name.to_owned(), self.any(depth));
        }
        required.sort_unstable();
        required.dedup();
        let mut schema = json!({"type": "object", "properties": properties, "required": required});
        match self.below(4) {
            0 => schema["additionalProperties"] = self.any(0),
            1 => {
                schema["patternProperties"] = json!({"^z_": self.any(0)});
                schema["additionalProperties"] = json!(false);
            }
            _ => schema["additionalProperties"] = json!(false),
        }
        schema
    }

    fn array(&mut self, depth: usize) -> Json {
        let least = self.below(3);
        match self.below(3) {
            0 => {
                json!({"type": "array", "items": self.any(depth), "minItems": least, "maxItems": least + 2})
            }
            1 => {
                json!({"type": "array", "prefixItems": [self.any(depth), self.any(0)], "items": false,
                "minItems": 2})
            }
            _ => {
                json!({"type": "array", "prefixItems": [self.any(0)], "items": self.any(0), "maxItems": 3})
            }
        }
    }

    fn choice(&mut self, depth: usize) -> Json {
        match self.below(3) {
            0 => json!({"anyOf": [self.any(depth), self.any(0), {"type": "null"}]}),
            1 => json!({"oneOf": [self.string(), self.number(), {"type": "boolean"}]}),
            _ => {
                let variant = |kind: &str, rest: Json| {
                    json!({"type": "object", "properties": {"kind": {"const": kind}, "of": rest},
                        "required": ["kind", "of"], "additionalProperties": false})
                };
                json!({"oneOf": [variant("one", self.any(0)), variant("two", self.any(depth))]})
            }
        }
    }

    fn reference(&mut self, depth: usize) -> Json {
        let name = ["part", "a/b", "tree"][self.below(3)];
        if !self.definitions.contains_key(name) {
            let definition = match name {
                "tree" => json!({"type": "object", "properties": {"leaf": {"type": "boolean"},
                    "below": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}},
                    "required": ["leaf"], "additionalProperties": false}),
                _ => self.any(depth),
            };
            self.definitions.insert(name.to_owned(), definition);
        }
        json!({"$ref": format!("#/$defs/{}", name.replace('/', "~1"))})
    }

    fn intersection(&mut self) -> Json {
        match self.below(3) {
            0 => {
                json!({"allOf": [{"type": "integer", "minimum": self.below(10)}, {"maximum": 10 + self.below(90)}]})
            }
            1 => {
                json!({"allOf": [{"type": "string", "minLength": 2}, {"pattern": "^[a-f]+$"}], "maxLength": 6})
            }
            _ => json!({"type": "object", "allOf": [
                {"properties": {"a": self.string()}, "required": ["a"]},
                {"properties": {"b": self.number()}}]}),
        }
    }
}

/// What is wrong with an answer, by the `jsonschema` crate with formats asserted.
pub(crate) fn fault(schema: &Json, answer: &str) -> Option<String> {
    let value: Json = match serde_json::from_str(answer) {
        Ok(value) => value,
        Err(error) => return Some(format!("no JSON: {error}")),
    };
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema);
    match validator {
        Ok(validator) => validator
            .validate(&value)
            .err()
            .map(|error| error.to_string()),
        Err(error) => Some(format!("no schema: {error}")),
    }
}
