//! The grammars of tool calls, compiled and followed by llguidance.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/tools.rs"]
mod recorded;

use std::{fmt, sync::Arc};

use dunlin_text::{TextError, Tool, ToolCall, ToolChoice, ToolEvent, ToolFormat};
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie},
};
use recorded::{notations, tools};
use serde_json::{Value as Json, json};

/// One token for each byte, and one for each marker of a format where these are control tokens.
struct Vocabulary {
    factory: ParserFactory,
    markers: Vec<(&'static str, u32)>,
    end: u32,
}

impl Vocabulary {
    fn new(format: ToolFormat, with_markers: bool) -> Self {
        let mut words: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![byte]).collect();
        let mut markers = Vec::new();
        for &marker in format.marker_tokens().iter().filter(|_| with_markers) {
            markers.push((marker, words.len() as u32));
            words.push([b"\xFF", marker.as_bytes()].concat());
        }
        let end = words.len() as u32;
        words.push(b"\xFF<|end|>".to_vec());
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        let mut factory =
            ParserFactory::new_simple(&(Arc::new(ApproximateTokEnv::new(trie)) as Arc<_>)).unwrap();
        factory.quiet();
        Self {
            factory,
            markers,
            end,
        }
    }

    fn compile(&self, text: String) -> Grammar<'_> {
        let parser = self
            .factory
            .create_parser(TopLevelGrammar::from_lark(text.clone()));
        let parser = parser.unwrap_or_else(|error| panic!("{error:#}\n{text}"));
        Grammar {
            vocabulary: self,
            matcher: Matcher::new(Ok(parser)),
            text,
        }
    }

    fn tokens(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            match self
                .markers
                .iter()
                .find(|(marker, _)| rest.starts_with(marker))
            {
                Some((marker, id)) => {
                    tokens.push(*id);
                    rest = &rest[marker.len()..];
                }
                None => {
                    let (head, tail) = rest.split_at(first.len_utf8());
                    tokens.extend(head.bytes().map(u32::from));
                    rest = tail;
                }
            }
        }
        tokens
    }
}

/// A compiled grammar.
struct Grammar<'v> {
    vocabulary: &'v Vocabulary,
    matcher: Matcher,
    text: String,
}

impl Grammar<'_> {
    fn accepts(&self, text: &str) -> bool {
        let mut matcher = self.matcher.deep_clone();
        let tokens = self.vocabulary.tokens(text);
        let taken = matcher.try_consume_tokens(&tokens).unwrap_or(0);
        taken == tokens.len() && matcher.is_accepting().unwrap_or(false)
    }
}

impl fmt::Display for Grammar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn grammar<'v>(
    format: ToolFormat,
    vocabulary: &'v Vocabulary,
    tools: &[Tool],
    choice: &ToolChoice,
) -> Grammar<'v> {
    let text = format.grammar(tools, choice, true, &vocabulary.markers);
    vocabulary.compile(text.unwrap())
}

/// Every notation with markers as text, and as control tokens.
fn each(mut check: impl FnMut(&recorded::Notation, &Vocabulary)) {
    for mut notation in notations() {
        for with_markers in [false, true] {
            if with_markers && notation.format.marker_tokens().contains(&"</tool_call>") {
                // Inside a text, this would be a control token, which no text of JSON has.
                notation
                    .cases
                    .retain(|case| !case.text.contains("</tool_call> [/x]"));
            }
            check(&notation, &Vocabulary::new(notation.format, with_markers));
        }
    }
}

#[test]
fn recorded_calls_are_accepted() {
    each(|notation, vocabulary| {
        let format = notation.format;
        for choice in [ToolChoice::Auto, ToolChoice::Required] {
            let grammar = grammar(format, vocabulary, tools(), &choice);
            for case in &notation.cases {
                let text = &case.text;
                assert!(
                    grammar.accepts(text),
                    "{format:?} {choice:?} {text}\n{grammar}"
                );
            }
        }
    });
}

#[test]
fn text_is_accepted_where_the_choice_allows_it() {
    each(|notation, vocabulary| {
        let format = notation.format;
        let texts = [
            "It is 3 degrees.\n\nCold <b>& wet</b>; {\"name\": 1} [x]",
            "{\"a\": 1}",
            "x",
        ];
        for (choice, allowed) in [
            (ToolChoice::Auto, true),
            (ToolChoice::None, true),
            (ToolChoice::Required, false),
            (ToolChoice::Named("now".to_owned()), false),
        ] {
            let grammar = grammar(format, vocabulary, tools(), &choice);
            for text in texts {
                assert_eq!(
                    grammar.accepts(text),
                    allowed,
                    "{format:?} {choice:?}\n{grammar}"
                );
            }
        }
        let call = &notation.cases[0].text;
        let none = grammar(format, vocabulary, tools(), &ToolChoice::None);
        assert!(!none.accepts(call), "{format:?}\n{none}");
        if format != ToolFormat::Llama3 {
            let auto = grammar(format, vocabulary, tools(), &ToolChoice::Auto);
            assert!(
                auto.accepts(&format!("Let me look.\n{call}")),
                "{format:?}\n{auto}"
            );
        }
    });
}

#[test]
fn a_named_choice_allows_this_tool_alone() {
    each(|notation, vocabulary| {
        let choice = ToolChoice::Named("now".to_owned());
        let grammar = grammar(notation.format, vocabulary, tools(), &choice);
        for case in &notation.cases {
            let expected = case.calls.iter().all(|call| call.name == "now");
            assert_eq!(
                grammar.accepts(&case.text),
                expected,
                "{}\n{grammar}",
                case.text
            );
        }
    });
}

#[test]
fn one_call_is_the_most_unless_calls_are_parallel() {
    each(|notation, vocabulary| {
        let grammar = notation
            .format
            .grammar(tools(), &ToolChoice::Required, false, &vocabulary.markers)
            .unwrap();
        let grammar = vocabulary.compile(grammar);
        for case in &notation.cases {
            let expected = case.calls.len() == 1;
            assert_eq!(grammar.accepts(&case.text), expected, "{}", case.text);
        }
    });
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    each(|notation, vocabulary| {
        let format = notation.format;
        let grammar = grammar(format, vocabulary, tools(), &ToolChoice::Required);
        for call in [
            ToolCall::new("nothing", json!({})),
            ToolCall::new("get_weather", json!({})),
            ToolCall::new("get_weather", json!({"unit": "C"})),
            ToolCall::new("get_weather", json!({"city": "Oslo", "unit": "K"})),
            ToolCall::new("add", json!({"xs": ["a"]})),
            ToolCall::new("add", json!({"xs": 1})),
            ToolCall::new("add", json!({"xs": [1], "round": 1})),
            ToolCall::new("search", json!({"q": "a", "limit": 1.5})),
        ] {
            let text = format.render(&[call.with_id("call00000")]).unwrap();
            assert!(!grammar.accepts(&text), "{format:?} {text}\n{grammar}");
        }
    });
}

#[test]
fn calls_that_follow_the_grammar_can_be_read_and_fit_the_schemas() {
    let mut read = 0;
    each(|notation, vocabulary| {
        let format = notation.format;
        for (number, tool) in tools().iter().enumerate() {
            let choice = ToolChoice::Named(tool.name.clone());
            let grammar = grammar(format, vocabulary, tools(), &choice);
            for seed in 0..4 {
                let text = followed(&grammar, seed * 7919 + number as u64, format);
                let mut parser = format.parser(tools());
                let mut events = parser.push(&text);
                events.extend(parser.finish().unwrap_or_else(|error| panic!("{error}")));
                let calls = events.iter().filter_map(|event| match event {
                    ToolEvent::CallEnd { call, .. } => Some(call),
                    _ => None,
                });
                let fitting = calls.inspect(|call| check(call)).count();
                assert!(fitting > 0, "{text}");
                let is_space = |event: &ToolEvent| match event {
                    ToolEvent::Text(text) => text.trim().is_empty(),
                    _ => true,
                };
                assert!(events.iter().all(is_space), "{text}");
                read += fitting;
            }
        }
    });
    assert!(read >= 400, "{read} calls");
}

/// A text that follows the grammar, chosen by a small generator of numbers. Where nearly everything
/// is allowed, the value at hand is closed now and then.
fn followed(grammar: &Grammar<'_>, seed: u64, format: ToolFormat) -> String {
    let vocabulary = grammar.vocabulary;
    let mut matcher = grammar.matcher.deep_clone();
    let mut state = seed;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    // Qwen's lists and objects are JSON.
    let closings: &[&str] = match format {
        ToolFormat::QwenXml => &["\n</parameter>\n", "\""],
        ToolFormat::Gemma4 => &["<|\"|>"],
        _ => &["\""],
    };
    let mut text: Vec<u8> = Vec::new();
    for _ in 0..3000 {
        let mask = matcher
            .compute_mask_or_eos()
            .unwrap_or_else(|error| panic!("{error}\n{grammar}"));
        let allowed: Vec<u32> = mask.iter().collect();
        if allowed.contains(&vocabulary.end) && (allowed.len() < 50 || random(3) == 0) {
            return String::from_utf8(text).unwrap();
        }
        let mut chosen = vec![allowed[random(allowed.len())]];
        if allowed.len() > 60 {
            // ASCII alone, so that characters are complete.
            let plain = "ab \\{}[]<,.:\n"[..]
                .bytes()
                .map(u32::from)
                .collect::<Vec<_>>();
            let plain: Vec<u32> = plain
                .into_iter()
                .filter(|id| allowed.contains(id))
                .collect();
            chosen = vec![plain[random(plain.len())]];
            if random(6) == 0 {
                let mut closings = closings.iter().map(|closing| vocabulary.tokens(closing));
                let closing = closings.find(|ids| {
                    let taken = matcher.deep_clone().try_consume_tokens(ids);
                    taken.is_ok_and(|taken| taken == ids.len())
                });
                chosen = closing.unwrap_or(chosen);
            }
        } else if let Some(id) = [93, 125, 41, 44].iter().find(|id| allowed.contains(id)) {
            // The end of a number or list rather than more of it, and no exponents: they reach
            // beyond the numbers that JSON readers hold.
            if allowed.contains(&101) || random(2) == 0 {
                chosen = vec![*id];
            }
        }
        for id in chosen {
            matcher.consume_token(id).unwrap();
            match vocabulary.markers.iter().find(|(_, marker)| *marker == id) {
                Some((marker, _)) => text.extend(marker.bytes()),
                None => text.push(id as u8),
            }
        }
        if matcher.is_stopped() {
            return String::from_utf8(text).unwrap();
        }
    }
    panic!(
        "{format:?} does not end: {:?}",
        String::from_utf8_lossy(&text[text.len() - 300..])
    );
}

/// Whether a call fits the schema of its tool, for the keywords that the recorded tools use.
fn check(call: &ToolCall) {
    let tool = tools().iter().find(|tool| tool.name == call.name).unwrap();
    assert!(fits(&call.arguments, &tool.parameters), "{call:?}");
}

fn fits(value: &Json, schema: &Json) -> bool {
    let is = |kind: &str| match kind {
        "string" => value.is_string(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|x| x.fract() == 0.0)
        }
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    };
    let kind = match &schema["type"] {
        Json::String(kind) => is(kind),
        Json::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
        _ => true,
    };
    let listed = schema["enum"]
        .as_array()
        .is_none_or(|values| values.contains(value));
    let mut items = value.as_array().into_iter().flatten();
    let items = schema
        .get("items")
        .is_none_or(|schema| items.all(|item| fits(item, schema)));
    let mut required = schema["required"].as_array().into_iter().flatten();
    let required = required.all(|key| value.get(key.as_str().unwrap()).is_some());
    let mut properties = schema["properties"].as_object().into_iter().flatten();
    let properties =
        properties.all(|(key, schema)| value.get(key).is_none_or(|value| fits(value, schema)));
    kind && listed && items && required && properties
}

/// A tool with one argument of this schema.
fn tool(schema: Json) -> Tool {
    let parameters = json!({
        "type": "object",
        "properties": {"x": schema},
        "required": ["x"],
        "$defs": {
            "level": {"type": "integer", "minimum": 0, "maximum": 9},
            "tree": {
                "type": "object",
                "properties": {"leaf": {"type": "boolean"}, "below": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                "required": ["leaf"],
            },
        },
    });
    Tool::new("t", "", parameters).unwrap()
}

#[test]
fn schemas_bind_the_notations_that_are_not_json() {
    let texts: [(Json, &[Json], &[Json]); 12] = [
        (
            json!({"type": "boolean"}),
            &[json!(true), json!(false)],
            &[json!(1), json!("true?")],
        ),
        (
            json!({"type": "integer", "minimum": 3, "maximum": 12}),
            &[json!(3), json!(12)],
            &[json!(2), json!(13)],
        ),
        (
            json!({"$ref": "#/$defs/level"}),
            &[json!(0), json!(9)],
            &[json!(10), json!(-1)],
        ),
        (
            json!({"enum": ["a", "b\"c"]}),
            &[json!("a"), json!("b\"c")],
            &[json!("b"), json!("")],
        ),
        (json!({"const": 7}), &[json!(7)], &[json!(8)]),
        (
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}),
            &[json!([1]), json!([1, 2])],
            &[json!([]), json!([1, 2, 3])],
        ),
        (
            json!({"type": "array", "items": {"type": "boolean"}, "maxItems": 3}),
            &[json!([]), json!([true, false, true])],
            &[json!([true, true, true, true]), json!([1])],
        ),
        (
            json!({"$ref": "#/$defs/tree"}),
            &[
                json!({"leaf": true}),
                json!({"leaf": false, "below": [{"leaf": true}]}),
            ],
            &[json!({"below": []}), json!({"leaf": false, "below": [1]})],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}}),
            &[
                json!({}),
                json!({"a": 1}),
                json!({"b": null}),
                json!({"a": 1, "b": null}),
            ],
            &[json!({"a": null})],
        ),
        (
            json!({"type": "string", "minLength": 2, "maxLength": 3}),
            &[json!("ab"), json!("äöü")],
            &[json!("a"), json!("abcd")],
        ),
        (
            json!({"type": ["boolean", "integer"], "minimum": 1}),
            &[json!(true), json!(5)],
            &[json!("x"), json!(0)],
        ),
        (
            json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
            &[json!(5), json!(null)],
            &[json!([5])],
        ),
    ];
    for format in [ToolFormat::Lfm2, ToolFormat::Gemma4, ToolFormat::QwenXml] {
        for with_markers in [false, true] {
            let vocabulary = Vocabulary::new(format, with_markers);
            for (schema, right, wrong) in &texts {
                let tool = tool(schema.clone());
                let grammar = grammar(format, &vocabulary, &[tool], &ToolChoice::Required);
                for (values, expected) in [(right, true), (wrong, false)] {
                    for value in *values {
                        let call = ToolCall::new("t", json!({"x": value}));
                        let text = format.render(&[call]).unwrap();
                        assert_eq!(grammar.accepts(&text), expected, "{text}\n{grammar}");
                    }
                }
            }
        }
    }
}

#[test]
fn values_of_any_type_are_free_in_python_and_gemma() {
    for format in [ToolFormat::Lfm2, ToolFormat::Gemma4] {
        let vocabulary = Vocabulary::new(format, true);
        for schema in [json!({}), json!(true)] {
            let grammar = grammar(format, &vocabulary, &[tool(schema)], &ToolChoice::Required);
            for value in [
                json!(1.5),
                json!("a"),
                json!(null),
                json!([1, "b", [true]]),
                json!({"k": {"l": []}}),
            ] {
                let text = format
                    .render(&[ToolCall::new("t", json!({"x": value}))])
                    .unwrap();
                assert!(grammar.accepts(&text), "{text}\n{grammar}");
            }
        }
    }
}

#[test]
fn schemas_that_cannot_be_held_to_are_refused_with_their_place() {
    use ToolFormat::{Gemma4, Lfm2, QwenXml};
    for (format, schema, place) in [
        (
            Gemma4,
            json!({"type": "string", "pattern": "a+"}),
            "/properties/x",
        ),
        (
            QwenXml,
            json!({"type": "string", "format": "date"}),
            "/properties/x",
        ),
        (QwenXml, json!({}), "/properties/x"),
        (
            QwenXml,
            json!({"type": ["string", "array"]}),
            "/properties/x",
        ),
        (QwenXml, json!({"enum": ["a", 1]}), "/properties/x"),
        (
            Lfm2,
            json!({"type": "array", "uniqueItems": true}),
            "/properties/x",
        ),
        (
            Lfm2,
            json!({"type": "array", "items": {"type": "object", "minProperties": 1}}),
            "/properties/x/items",
        ),
        (
            Lfm2,
            json!({"oneOf": [{"type": "string"}, {"type": "integer"}]}),
            "/properties/x",
        ),
        (Lfm2, json!({"$ref": "#/$defs/none"}), "/properties/x"),
        (Gemma4, json!(false), "/properties/x"),
    ] {
        match format.grammar(&[tool(schema.clone())], &ToolChoice::Auto, true, &[]) {
            Err(TextError::ToolSchema {
                tool, place: found, ..
            }) => {
                assert_eq!((tool.as_str(), found.as_str()), ("t", place), "{schema}");
            }
            other => panic!("{schema}: {other:?}"),
        }
    }
}

#[test]
fn a_choice_that_no_tool_fulfils_is_refused() {
    for (tools, choice) in [
        (vec![], ToolChoice::Required),
        (vec![], ToolChoice::Auto),
        (tools().to_vec(), ToolChoice::Named("nothing".to_owned())),
    ] {
        let refused = ToolFormat::Hermes.grammar(&tools, &choice, true, &[]);
        assert!(
            matches!(refused, Err(TextError::NoSuchTool { .. })),
            "{refused:?}"
        );
    }
    assert!(
        ToolFormat::Hermes
            .grammar(&[], &ToolChoice::None, true, &[])
            .is_ok()
    );
}
