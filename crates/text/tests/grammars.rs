//! Grammars over the vocabularies of real models: what they let through is compared with readers that know nothing of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::{Duration, Instant};

use dunlin_text::{Constraint, Grammar, TextError, TokenKind, Tokenizer};
use serde_json::{Value as Json, json};

/// The vocabularies of the shared data, small and large.
fn vocabularies() -> Vec<(String, Tokenizer)> {
    let Some(shared) = common::shared() else {
        return Vec::new();
    };
    let folder = shared.join("conformance");
    ["smollm2", "llama", "gemma3", "qwen2"]
        .into_iter()
        .map(|family| {
            let path = folder.join(family).join("model.gguf");
            (family.to_owned(), common::tokenizer(&path))
        })
        .collect()
}

/// Whether a text passes, cut into the tokens of the tokenizer, and is complete then.
fn accepts(grammar: &Grammar, text: &str) -> bool {
    let mut constraint = grammar.constraint();
    for id in grammar.tokenizer().encode(text, false).unwrap() {
        match constraint.commit(id) {
            Ok(()) => {}
            Err(TextError::GrammarRefuses { .. }) => return false,
            Err(error) => panic!("{error}"),
        }
    }
    constraint.is_complete().unwrap()
}

fn smollm2() -> Option<Tokenizer> {
    let shared = common::shared()?;
    let path = shared.join("conformance/smollm2/model.gguf");
    Some(common::tokenizer(&path))
}

#[test]
fn each_kind_of_grammar_accepts_its_texts_and_no_others() {
    let Some(tokenizer) = smollm2() else { return };
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false});
    let gbnf = "root ::= \"[\" (item (\",\" item)*)? \"]\"\nitem ::= root | [0-9]+";
    let grammars = [
        (
            Grammar::from_json_schema(&tokenizer, &schema).unwrap(),
            vec!["{\"a\":1}", "{ \"a\": -20 }", "{\n  \"a\": 0\n}"],
            vec![
                "{}",
                "{\"a\":1.5}",
                "{\"a\":1,\"b\":2}",
                "{\"a\":01}",
                "{\"a\":   1}",
            ],
        ),
        (
            Grammar::from_regex(&tokenizer, "[a-c]{2,3}/\\d?").unwrap(),
            vec!["ab/", "abc/7"],
            vec!["a/", "abcd/", "ab/77"],
        ),
        (
            Grammar::from_regex(&tokenizer, "^(a|b)\\$$").unwrap(),
            vec!["a$", "b$"],
            vec!["a", "ab$", "$"],
        ),
        (
            Grammar::from_choices(&tokenizer, ["a", "ab", "say \"é\"\n"]).unwrap(),
            vec!["a", "ab", "say \"é\"\n"],
            vec!["", "b", "aba", "say \"e\""],
        ),
        (
            Grammar::from_lark(&tokenizer, "start: \"x\" y\ny: /[0-9]/ | \"(\" y \")\"").unwrap(),
            vec!["x1", "x((2))"],
            vec!["x", "x(1", "x12"],
        ),
        (
            Grammar::from_gbnf(&tokenizer, gbnf).unwrap(),
            vec!["[]", "[12,[3,[]],4]"],
            vec!["[", "[1,]", "[1 ,2]", "1"],
        ),
        (
            Grammar::json(&tokenizer).unwrap(),
            vec!["{}", "{\"a\": [1, null, {\"b\": \"\\n\"}]}"],
            vec!["[]", "1", "{a:1}"],
        ),
    ];
    for (grammar, good, bad) in grammars {
        for text in good {
            assert!(accepts(&grammar, text), "{grammar:?} refuses {text:?}");
        }
        for text in bad {
            assert!(!accepts(&grammar, text), "{grammar:?} accepts {text:?}");
        }
    }
}

#[test]
fn the_json_grammar_of_llama_cpp_accepts_what_serde_does() {
    let Some(tokenizer) = smollm2() else { return };
    // The notation's usual example, written anew.
    let gbnf = r#"
root   ::= value
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"#;
    let grammar = Grammar::from_gbnf(&tokenizer, gbnf).unwrap();
    let good = json!({"a": [1, -2.5, "x\n\"", {}, [], {"b": null, "c": [true, false]}]});
    for text in [
        good.to_string(),
        serde_json::to_string_pretty(&good).unwrap(),
    ] {
        assert!(accepts(&grammar, &text), "{text}");
    }
    for text in ["{\"a\":}", "[1,]", "{\"a\" 1}", "\"a", "[1}", "tru"] {
        assert!(
            serde_json::from_str::<Json>(text).is_err() && !accepts(&grammar, text),
            "{text}"
        );
    }
}

#[test]
fn the_mask_and_the_single_question_agree() {
    for (family, tokenizer) in vocabularies() {
        let schema = json!({"type": "object", "properties": {"né": {"enum": ["x", "yy", 3]},
            "b": {"type": "array", "items": {"type": "number"}}}, "required": ["né", "b"]});
        let grammar = Grammar::from_json_schema(&tokenizer, &schema).unwrap();
        let mut constraint = grammar.constraint();
        let mut random = 11_u64;
        for _ in 0..30 {
            constraint.take_forced().unwrap();
            if constraint.is_finished() {
                break;
            }
            let mut scores = vec![0.0_f32; tokenizer.vocab_size()];
            constraint.mask(&mut scores).unwrap();
            let allowed: Vec<u32> = (0..)
                .zip(&scores)
                .filter(|(_, score)| **score == 0.0)
                .map(|(id, _)| id)
                .collect();
            assert!(!allowed.is_empty());
            // All of a small vocabulary, every 97th of a large one.
            let step = if scores.len() > 5000 { 97 } else { 1 };
            for id in (0..scores.len() as u32).step_by(step) {
                let is_in = scores[id as usize] == 0.0;
                let piece = tokenizer.piece(id);
                assert_eq!(
                    constraint.allows(id).unwrap(),
                    is_in,
                    "{family}: {id} {piece:?}"
                );
            }
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            constraint
                .commit(allowed[(random >> 33) as usize % allowed.len()])
                .unwrap();
            if constraint.is_finished() {
                break;
            }
        }
    }
}

#[test]
fn every_end_of_generation_token_ends_a_complete_answer_only() {
    let Some(tokenizer) = smollm2() else { return };
    let grammar = Grammar::from_regex(&tokenizer, "a+b?").unwrap();
    let mut constraint = grammar.constraint();
    let ends = tokenizer.end_of_generation();
    assert!(!ends.is_empty());
    let ends_allowed = |constraint: &mut Constraint| {
        let mut scores = vec![0.0; tokenizer.vocab_size()];
        constraint.mask(&mut scores).unwrap();
        ends.iter()
            .all(|end| scores[*end as usize] == 0.0 && constraint.allows(*end).unwrap())
    };
    assert!(!ends_allowed(&mut constraint) && !constraint.is_complete().unwrap());
    let a = tokenizer.token_id("a").unwrap();
    constraint.commit(a).unwrap();
    assert!(ends_allowed(&mut constraint) && constraint.is_complete().unwrap());
    assert!(!constraint.is_finished());
    constraint.commit(ends[0]).unwrap();
    assert!(constraint.is_finished());
    assert!(matches!(
        constraint.commit(a),
        Err(TextError::GrammarRefuses { .. })
    ));
    constraint.rollback(1).unwrap();
    constraint.commit(tokenizer.token_id("b").unwrap()).unwrap();
    assert!(constraint.is_finished() && constraint.is_complete().unwrap());
}

#[test]
fn tokens_without_a_choice_are_given_as_the_tokenizer_writes_them() {
    for (family, tokenizer) in vocabularies() {
        let text = "{\"the name\":\"a value of some words\"}";
        let grammar = Grammar::from_choices(&tokenizer, [text]).unwrap();
        let mut constraint = grammar.constraint();
        let forced = constraint.take_forced().unwrap();
        let bytes: Vec<u8> = forced
            .iter()
            .flat_map(|id| tokenizer.piece_bytes(*id).unwrap())
            .collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text, "{family}");
        assert!(constraint.is_finished());
        constraint.rollback(forced.len()).unwrap();
        assert!(!constraint.is_complete().unwrap());
        assert_eq!(constraint.take_forced().unwrap(), forced);
    }
}

#[test]
fn a_grammar_can_begin_after_a_text() {
    let Some(tokenizer) = smollm2() else { return };
    let grammar = Grammar::from_choices(&tokenizer, ["yes", "no"]).unwrap();
    let mut constraint = grammar.constraint_after("</t>");
    let end = tokenizer.end_of_generation()[0];
    for id in tokenizer.encode("anything at all</t", false).unwrap() {
        constraint.commit(id).unwrap();
        assert!(!constraint.is_active() && constraint.take_forced().unwrap().is_empty());
        assert!(constraint.allows(end).unwrap() && !constraint.is_complete().unwrap());
    }
    let close = tokenizer.encode(">", false).unwrap()[0];
    constraint.commit(close).unwrap();
    assert!(constraint.is_active() && !constraint.allows(close).unwrap());
    constraint.rollback(1).unwrap();
    assert!(!constraint.is_active());
    constraint.commit(close).unwrap();
    for id in tokenizer.encode("no", false).unwrap() {
        constraint.commit(id).unwrap();
    }
    assert!(constraint.is_finished());
}

#[test]
fn tokens_can_be_named_in_lark_and_gbnf() {
    let Some(tokenizer) = smollm2() else { return };
    let (start, end) = ("<|im_start|>", "<|im_end|>");
    let id = tokenizer.token_id(start).unwrap();
    assert_eq!(tokenizer.kind(id), Some(TokenKind::Control));
    let written = Grammar::lark_token(&tokenizer, start).unwrap();
    let inner = "%json {\"type\": \"object\", \"properties\": {\"a\": {\"const\": 1}}, \"required\": [\"a\"], \"additionalProperties\": false}";
    for lark in [
        format!("start: {written} call\ncall: {inner}"),
        format!("start: {start} call\ncall: {inner}"),
    ] {
        let mut constraint = Grammar::from_lark(&tokenizer, &lark).unwrap().constraint();
        let forced = constraint.take_forced().unwrap();
        assert_eq!(forced.first(), Some(&id), "{lark}");
        for id in tokenizer.encode("{\"a\":1}", false).unwrap() {
            if !constraint.is_finished() {
                let _ = constraint.commit(id);
            }
        }
    }
    let gbnf = format!("root ::= \"a\" {start}");
    let mut constraint = Grammar::from_gbnf(&tokenizer, &gbnf).unwrap().constraint();
    let forced = constraint.take_forced().unwrap();
    assert_eq!(forced.last(), Some(&id));
    // The text of a control token is not the token.
    assert!(!accepts(
        &Grammar::from_gbnf(&tokenizer, &gbnf).unwrap(),
        &format!("a{start}")
    ));
    assert_ne!(Grammar::lark_token(&tokenizer, end), None);
    assert_eq!(Grammar::lark_token(&tokenizer, "<|none|>"), None);
}

#[test]
fn refusals_name_the_place() {
    let Some(tokenizer) = smollm2() else { return };
    for (schema, place) in [
        (
            json!({"properties": {"a": {"pattern": "(?=x)"}}}),
            "#/properties/a",
        ),
        (
            json!({"properties": {"a": {"oneOf": [{"type": "number"}, {"type": "integer"}]}}}),
            "#/properties/a",
        ),
        (
            json!({"items": {"type": "string", "minLength": 3, "maxLength": 2}, "minItems": 1, "type": "array"}),
            "#/items",
        ),
        (
            json!({"anyOf": [{"type": "null"}, {"uniqueItems": true}]}),
            "#/anyOf/1/uniqueItems",
        ),
        (json!({"patternProperties": {"^a": {}, "b$": {}}}), "#"),
    ] {
        match Grammar::from_json_schema(&tokenizer, &schema) {
            Err(TextError::Schema { pointer, reason }) => {
                assert_eq!(pointer, place, "{schema}: {reason}")
            }
            other => panic!("{schema} gave {other:?}"),
        }
    }
    for lark in [
        "start: \"a",
        "start: other",
        "begin: \"a\"",
        "start: <|none|>",
    ] {
        assert!(
            matches!(
                Grammar::from_lark(&tokenizer, lark),
                Err(TextError::Grammar { .. })
            ),
            "{lark}"
        );
    }
    assert!(matches!(
        Grammar::from_regex(&tokenizer, "a(b"),
        Err(TextError::Grammar { .. })
    ));
    let none: [&str; 0] = [];
    assert!(matches!(
        Grammar::from_choices(&tokenizer, none),
        Err(TextError::Grammar { .. })
    ));
}

#[test]
fn hostile_grammars_end_soon() {
    let Some(tokenizer) = smollm2() else { return };
    let nested = |times: usize| {
        (0..times).fold("a".to_owned(), |inner, _| {
            format!("({inner}{{1,1000}}){{1,1000}}")
        })
    };
    let regexes = [
        nested(4),
        format!(".*a.{{{}}}", 100_000),
        "(a*)*b".to_owned(),
        "(a?){30000}a{30000}".to_owned(),
        format!("({})", vec!["[a-z]*x"; 3000].join("|")),
        "(".repeat(100_000),
        (0..3000)
            .map(|number| format!("(a|b)*a(a|b){{{}}}", number % 50))
            .collect::<Vec<_>>()
            .join("|"),
    ];
    let started = Instant::now();
    for regex in &regexes {
        follow(Grammar::from_regex(&tokenizer, regex));
    }
    for lark in [
        "start: start",
        "start: \"a\" start",
        "start: start start | \"a\" | \"\"",
        "start: a*\na: b*\nb: \"x\"*",
    ] {
        follow(Grammar::from_lark(&tokenizer, lark));
    }
    let names = |count: usize| {
        (0..count)
            .map(|name| (name.to_string(), json!({})))
            .collect::<serde_json::Map<_, _>>()
    };
    for schema in [
        json!({"properties": names(1500)}),
        json!({"enum": (0..20_000).collect::<Vec<_>>()}),
        json!({"type": "array", "minItems": 100_000, "items": {"type": "array", "minItems": 100_000}}),
        json!({"type": "string", "pattern": "^(a|b)*a(a|b){200}$", "minLength": 50_000}),
        json!({"allOf": (0..12).map(|part| json!({"anyOf": [{"minLength": part}, {"minimum": part}, {"maxItems": part}]}))
            .collect::<Vec<_>>()}),
    ] {
        follow(Grammar::from_json_schema(&tokenizer, &schema));
    }
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(120), "{elapsed:?}");
}

/// A grammar that compiles can be followed for a while, or says why it cannot.
fn follow(grammar: Result<Grammar, TextError>) {
    let Ok(grammar) = grammar else { return };
    let mut constraint = grammar.constraint();
    for _ in 0..20 {
        let mut scores = vec![0.0_f32; grammar.tokenizer().vocab_size()];
        if constraint.take_forced().is_err() || constraint.mask(&mut scores).is_err() {
            return;
        }
        let Some(next) = scores.iter().position(|score| *score == 0.0) else {
            return;
        };
        if constraint.is_finished() || constraint.commit(next as u32).is_err() {
            return;
        }
    }
}
