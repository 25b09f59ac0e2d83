//! Tool calls of every notation, read in pieces and written again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/tools.rs"]
mod recorded;

use dunlin_text::{TextError, Tool, ToolCall, ToolEvent, ToolFormat};
use proptest::prelude::*;
use recorded::{notations, tools};
use serde_json::{Value as Json, json};

/// The events of a text that comes in these pieces, with neighbouring texts and arguments as one.
fn events<'t>(
    format: ToolFormat,
    pieces: impl IntoIterator<Item = &'t str>,
) -> Result<Vec<ToolEvent>, TextError> {
    let mut parser = format.parser(tools());
    let mut events: Vec<ToolEvent> = Vec::new();
    for piece in pieces {
        events.extend(parser.push(piece));
    }
    events.extend(parser.finish()?);
    Ok(joined(events))
}

fn joined(events: Vec<ToolEvent>) -> Vec<ToolEvent> {
    let mut joined: Vec<ToolEvent> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(ToolEvent::Text(last)), ToolEvent::Text(text)) => last.push_str(&text),
            (
                Some(ToolEvent::ArgumentsDelta { index, text: last }),
                ToolEvent::ArgumentsDelta { index: other, text },
            ) if *index == other => last.push_str(&text),
            (_, event) => joined.push(event),
        }
    }
    joined
}

fn calls(events: &[ToolEvent]) -> Vec<ToolCall> {
    let call = |event: &ToolEvent| match event {
        ToolEvent::CallEnd { call, .. } => Some(call.clone()),
        _ => None,
    };
    events.iter().filter_map(call).collect()
}

fn text(events: &[ToolEvent]) -> String {
    let text = |event: &ToolEvent| match event {
        ToolEvent::Text(text) => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

#[test]
fn every_notation_has_ten_recorded_texts() {
    for notation in notations() {
        assert!(notation.cases.len() >= 10, "{:?}", notation.format);
    }
}

#[test]
fn writes_calls_as_the_templates_do() {
    for notation in notations() {
        for case in &notation.cases {
            let written = notation.format.render(&case.calls).unwrap();
            assert_eq!(written, case.text, "{:?}", notation.format);
        }
    }
}

#[test]
fn reads_recorded_calls_wherever_they_are_cut() {
    for notation in notations() {
        for case in notation.cases.iter().chain(&notation.variants) {
            let (format, whole) = (notation.format, case.text.as_str());
            let expected = events(format, [whole]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(calls(&expected), case.calls, "{whole}");
            assert_eq!(text(&expected), "", "{whole}");
            for cut in (0..=whole.len()).filter(|&cut| whole.is_char_boundary(cut)) {
                let (before, after) = whole.split_at(cut);
                assert_eq!(
                    events(format, [before, after]).unwrap(),
                    expected,
                    "{before}"
                );
            }
            let characters = whole.split_inclusive(|_| true);
            assert_eq!(events(format, characters).unwrap(), expected, "{whole}");
        }
    }
}

#[test]
fn the_pieces_of_the_arguments_are_the_arguments() {
    for notation in notations() {
        for case in notation.cases.iter().chain(&notation.variants) {
            let all = events(notation.format, case.text.split_inclusive(|_| true)).unwrap();
            let mut streamed = all.chunks(3).map(|events| match events {
                [
                    ToolEvent::CallStart { index, name },
                    ToolEvent::ArgumentsDelta { index: delta, text },
                    ToolEvent::CallEnd { index: end, call },
                ] if index == delta && index == end && *name == call.name => {
                    serde_json::from_str::<Json>(text).unwrap() == call.arguments
                }
                other => panic!("{other:?}"),
            });
            assert!(streamed.all(|is_same| is_same), "{}", case.text);
        }
    }
}

#[test]
fn arguments_come_before_the_call_ends() {
    for notation in notations() {
        let mut cases = notation.cases.iter();
        let case = cases.find(|case| case.text.contains("He said")).unwrap();
        let begin = case.text.find("He said").unwrap() + "He said".len();
        let mut parser = notation.format.parser(tools());
        let early = parser.push(&case.text[..begin]);
        assert!(parser.is_in_call());
        let streamed = early.iter().any(|event| match event {
            ToolEvent::ArgumentsDelta { text, .. } => text.ends_with("He said"),
            _ => false,
        });
        assert!(streamed, "{:?}: {early:?}", notation.format);
    }
}

#[test]
fn text_before_calls_is_text_and_space_between_them_is_none() {
    for notation in notations() {
        let (format, case) = (notation.format, &notation.cases[0]);
        if format != ToolFormat::Llama3 {
            let whole = format!("Let me <look>. [ \n{}\n", case.text);
            let read = events(format, [whole.as_str()]).unwrap();
            assert_eq!(text(&read), "Let me <look>. [ \n");
            assert_eq!(calls(&read), case.calls);
        }
    }
    let hermes = "<tool_call>{\"name\": \"now\"}</tool_call>";
    let whole = format!("{hermes}\n \n{hermes}\nThat is all.");
    let read = events(ToolFormat::Hermes, [whole.as_str()]).unwrap();
    assert_eq!(calls(&read).len(), 2);
    assert_eq!(text(&read), "\nThat is all.");
}

#[test]
fn json_that_is_no_call_of_llama_stays_text() {
    for whole in [
        r#"{"city": "Oslo"}"#,
        r#"{"name": "Ada", "parameters": {}}"#,
        r#"{"name": "get_weathers", "parameters": {}}"#,
        r#"Call {"name": "now", "parameters": {}}"#,
        "{\"name\"",
        "{",
        "",
    ] {
        let read = events(ToolFormat::Llama3, whole.split_inclusive(|_| true)).unwrap();
        assert_eq!(text(&read), whole);
        assert!(calls(&read).is_empty());
    }
    let tagged = "{\"a\": 1} <|python_tag|>{\"name\": \"now\"}";
    let read = events(ToolFormat::Llama3, [tagged]).unwrap();
    assert_eq!(text(&read), "{\"a\": 1} ");
    assert_eq!(calls(&read), [ToolCall::new("now", json!({}))]);
}

#[test]
fn without_tools_the_shape_decides_what_is_a_call_of_llama() {
    let mut parser = ToolFormat::Llama3.parser(&[]);
    parser.push("{\"name\": \"x\", \"parameters\": {\"a\": 1}}");
    assert!(parser.finish().is_ok());
    let mut parser = ToolFormat::Llama3.parser(&[]);
    let events = parser.push("{\"name\": \"x\", \"age\": 1}");
    assert_eq!(
        joined(events),
        [ToolEvent::Text("{\"name\": \"x\", \"age\": 1}".to_owned())]
    );
}

#[test]
fn the_beginning_of_a_call_is_incomplete() {
    for notation in notations() {
        let (format, case) = (notation.format, &notation.cases[1]);
        for (end, _) in case.text.char_indices().skip(1) {
            let beginning = &case.text[..end];
            match events(format, [beginning]) {
                Err(TextError::ToolCallIncomplete { raw, index }) => {
                    assert!(beginning.ends_with(&raw) && !raw.is_empty(), "{raw}");
                    assert!(index <= 2, "{raw}");
                }
                // Too short for a marker, or between two calls.
                Ok(read) => {
                    let complete = calls(&read);
                    assert!(complete.len() <= case.calls.len());
                    assert_eq!(complete, case.calls[..complete.len()]);
                    if complete.is_empty() {
                        assert_eq!(text(&read), beginning);
                    }
                }
                Err(error) => panic!("{beginning}: {error}"),
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_text() {
    use ToolFormat::{
        Gemma4, Granite3, Hermes, Lfm2, Llama3, MistralArguments, MistralCallId, Phi4Mini, QwenXml,
    };
    for (format, whole) in [
        (Hermes, "<tool_call>\nget_weather\n</tool_call>"),
        (Hermes, "<tool_call>\n{\"arguments\": {}}\n</tool_call>"),
        (
            Hermes,
            "<tool_call>{\"name\": \"now\", \"arguments\": [1]}</tool_call>",
        ),
        (Hermes, "<tool_call>{\"name\": 7}</tool_call>"),
        (
            Hermes,
            "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 01}}</tool_call>",
        ),
        (
            Hermes,
            "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": \"\\ud800\"}}</tool_call>",
        ),
        (
            Hermes,
            "<tool_call>{\"name\": \"now\", \"arguments\": {}, \"arguments\": {}}</tool_call>",
        ),
        (
            Hermes,
            "<tool_call>{\"name\": \"now\", \"arguments\": \"x\"}</tool_call>",
        ),
        (
            Hermes,
            "<tool_call>{\"name\": \"now\"} and more</tool_call>",
        ),
        (Hermes, "<tool_call>{\"name\": \"\"}</tool_call>"),
        (QwenXml, "<tool_call>\n<function=now>\n<param=x>"),
        (
            QwenXml,
            "<tool_call>\n<function=add>\n<parameter=xs>\n[1,\n</parameter>",
        ),
        (
            QwenXml,
            "<tool_call>\n<function=add>\n<parameter=round>\nyes\n</parameter>",
        ),
        (
            QwenXml,
            "<tool_call><function=write_note><parameter=text>a</parameter><parameter=text>b</parameter>",
        ),
        (Llama3, "<|python_tag|>print(1)"),
        (Llama3, "{\"name\": \"now\", \"parameters\": 7}"),
        (MistralArguments, "[TOOL_CALLS]now[ARGS][1]"),
        (MistralArguments, "[TOOL_CALLS]now[NAME]"),
        (MistralCallId, "[TOOL_CALLS]now[CALL_ID]a b[ARGS]{}"),
        (Phi4Mini, "<|tool_call|>{\"name\": \"now\"}<|/tool_call|>"),
        (Phi4Mini, "<|tool_call|>[{\"name\": \"now\"}]<|end|>"),
        (
            Granite3,
            "<|tool_call|>[{\"name\": \"now\"} {\"name\": \"now\"}]",
        ),
        (Gemma4, "<|tool_call>now{}<tool_call|>"),
        (Gemma4, "<|tool_call>call:now{a:\"x\"}<tool_call|>"),
        (Gemma4, "<|tool_call>call:now{a:yes}<tool_call|>"),
        (Gemma4, "<|tool_call>call:now{a:[1}]<tool_call|>"),
        (
            Lfm2,
            "<|tool_call_start|>[write_note(\"x\")]<|tool_call_end|>",
        ),
        (
            Lfm2,
            "<|tool_call_start|>[write_note(text=open(1))]<|tool_call_end|>",
        ),
        (
            Lfm2,
            "<|tool_call_start|>[write_note(text='a', text='b')]<|tool_call_end|>",
        ),
        (Lfm2, "<|tool_call_start|>now()<|tool_call_end|>"),
    ] {
        let before = match format {
            Llama3 => "",
            _ => "So:",
        };
        let text = format!("{before}{whole}");
        let mut parser = format.parser(tools());
        parser.push(&text);
        assert!(parser.fault().is_some(), "{whole}");
        assert!(parser.push(" more").is_empty());
        match parser.finish() {
            Err(TextError::ToolCallMalformed { raw, index, .. }) => {
                assert_eq!(raw, format!("{whole} more"));
                assert_eq!(
                    index,
                    usize::from(format == Granite3 || whole.contains("}]<|end|>"))
                );
            }
            other => panic!("{whole}: {other:?}"),
        }
    }
}

#[test]
fn deep_nesting_is_an_error() {
    let deep =
        |open: &str, close: &str, levels: usize| open.repeat(levels) + "1" + &close.repeat(levels);
    for levels in [90, 100_000] {
        for (format, before, open, close, after) in [
            (
                ToolFormat::Hermes,
                "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":",
                "[",
                "]",
                "}}</tool_call>",
            ),
            (
                ToolFormat::Hermes,
                "<tool_call>{\"name\":\"now\",\"arguments\":",
                "{\"a\":",
                "}",
                "}</tool_call>",
            ),
            (
                ToolFormat::Hermes,
                "<tool_call>{\"x\":",
                "[",
                "]",
                ",\"name\":\"now\"}</tool_call>",
            ),
            (
                ToolFormat::MistralArguments,
                "[TOOL_CALLS]now[ARGS]",
                "{\"a\":",
                "}",
                "",
            ),
            (
                ToolFormat::Gemma4,
                "<|tool_call>call:now",
                "{a:",
                "}",
                "<tool_call|>",
            ),
            (
                ToolFormat::Lfm2,
                "<|tool_call_start|>[now(a=",
                "[",
                "]",
                ")]<|tool_call_end|>",
            ),
            (
                ToolFormat::QwenXml,
                "<tool_call><function=add><parameter=xs>",
                "[",
                "]",
                "</parameter></function></tool_call>",
            ),
        ] {
            let whole = format!("{before}{}{after}", deep(open, close, levels));
            match events(format, [whole.as_str()]) {
                Ok(_) if levels == 90 => {}
                Err(TextError::ToolCallMalformed { .. }) if levels > 90 => {}
                other => panic!("{format:?}, {levels} levels: {:.200}", format!("{other:?}")),
            }
        }
    }
}

#[test]
fn qwens_values_have_the_types_of_the_schema() {
    let kinds = json!({
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "either": {"type": ["integer", "string"]},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "named": {"$ref": "#/$defs/kind"},
        "free": {},
        "circle": {"$ref": "#/$defs/circle"},
    });
    let schema = json!({"type": "object", "properties": kinds, "$defs": {
        "kind": {"enum": ["1", "x"]},
        "circle": {"anyOf": [{"$ref": "#/$defs/circle"}, {"type": "integer"}, {"$ref": "#/$defs/circle"}]},
    }});
    let tool = Tool::new("t", "", schema).unwrap();
    for (key, value, expected) in [
        ("text", "12", Some(json!("12"))),
        ("text", "null", Some(json!("null"))),
        ("text", "\"quoted\"", Some(json!("\"quoted\""))),
        ("text", "\n two\nlines \n", Some(json!("\n two\nlines \n"))),
        ("count", " 12 ", Some(json!(12))),
        ("count", "1.5", None),
        ("count", "twelve", None),
        ("either", "12", Some(json!(12))),
        ("either", "1.5", Some(json!("1.5"))),
        ("either", "[1]", Some(json!("[1]"))),
        ("maybe", "None", Some(json!(null))),
        ("maybe", "nobody", Some(json!("nobody"))),
        ("named", "1", Some(json!("1"))),
        ("free", "{\"a\": [true]}", Some(json!({"a": [true]}))),
        ("free", "{\"a\": tru", Some(json!("{\"a\": tru"))),
        ("unheard", "2", Some(json!(2))),
        ("circle", "3", Some(json!(3))),
        ("circle", "[]", None),
    ] {
        let whole = format!(
            "<tool_call>\n<function=t>\n<parameter={key}>\n{value}\n</parameter>\n</function>\n</tool_call>"
        );
        let mut parser = ToolFormat::QwenXml.parser(std::slice::from_ref(&tool));
        let events = parser.push(&whole);
        match expected {
            Some(expected) => {
                assert_eq!(calls(&events)[0].arguments, json!({key: expected}), "{key}")
            }
            None => assert!(parser.fault().is_some(), "{key}: {value}"),
        }
    }
}

#[test]
fn calls_that_a_notation_cannot_hold_are_refused() {
    let call = |arguments: Json| ToolCall::new("t", arguments);
    for (format, calls) in [
        (ToolFormat::Hermes, vec![call(json!([1]))]),
        (ToolFormat::Llama3, vec![call(json!({})), call(json!({}))]),
        (ToolFormat::MistralCallId, vec![call(json!({}))]),
        (
            ToolFormat::QwenXml,
            vec![call(json!({"a": "x</parameter>"}))],
        ),
        (ToolFormat::QwenXml, vec![call(json!({"a>b": "x"}))]),
        (ToolFormat::Gemma4, vec![call(json!({"a": ["<|\"|>"]}))]),
        (ToolFormat::Gemma4, vec![call(json!({"a": {"b:c": 1}}))]),
        (ToolFormat::Lfm2, vec![call(json!({"a-b": 1}))]),
    ] {
        let refused = format.render(&calls);
        assert!(
            matches!(refused, Err(TextError::ToolCallNotWritable { .. })),
            "{format:?}: {refused:?}"
        );
    }
    assert_eq!(ToolFormat::Hermes.render(&[]).unwrap(), "");
}

#[test]
fn tools_that_are_none_are_refused() {
    for (name, parameters) in [
        ("", json!({})),
        ("two words", json!({})),
        ("quote\"", json!({})),
        ("x", json!([])),
        ("x", json!({"type": "string"})),
    ] {
        let refused = Tool::new(name, "", parameters);
        assert!(
            matches!(refused, Err(TextError::InvalidTool { .. })),
            "{name}"
        );
    }
    assert!(Tool::new("x".repeat(65), "", json!({})).is_err());
    let deep = (0..200).fold(json!({}), |inner, _| json!({"items": inner}));
    assert!(Tool::new("x", "", deep).is_err());
}

fn any_format() -> impl Strategy<Value = ToolFormat> {
    prop::sample::select(ToolFormat::ALL.to_vec())
}

/// Pieces of the notations, so that the parsers get further than to the first character.
fn any_text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "<tool_call>",
        "</tool_call>",
        "<function=",
        "add",
        ">",
        "<parameter=",
        "xs",
        "</parameter>",
        "</function>",
        "\n",
        " ",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "<|python_tag|>",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "name",
        "arguments",
        "parameters",
        "\"name\"",
        "\"arguments\"",
        ":",
        ",",
        "1",
        "-",
        ".",
        "e",
        "true",
        "None",
        "\\",
        "\\u",
        "d800",
        "<|tool_call>",
        "call:",
        "<|\"|>",
        "<tool_call|>",
        "<|tool_call_start|>",
        "<|tool_call_end|>",
        "<|tool_call|>",
        "<|/tool_call|>",
        "(",
        ")",
        "=",
        "é🗼",
        "now",
        "<",
        "|",
        ".call",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat()),
        ".{0,60}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_gives_events_or_an_error(format in any_format(), text in any_text()) {
        let whole = events(format, [text.as_str()]);
        let cut = events(format, text.split_inclusive(|_| true));
        match (whole, cut) {
            (Ok(whole), Ok(cut)) => prop_assert_eq!(whole, cut),
            (Err(whole), Err(cut)) => prop_assert_eq!(whole.to_string(), cut.to_string()),
            (whole, cut) => prop_assert!(false, "{:?} and {:?}", whole, cut),
        }
    }

    #[test]
    fn text_without_calls_comes_out_as_it_went_in(format in any_format(), text in any_text()) {
        let has_marker = format.marker_tokens().iter().any(|marker| text.contains(marker));
        prop_assume!(!has_marker && !text.contains("\"name\""));
        let read = events(format, text.split_inclusive(|_| true)).unwrap();
        let expected = if text.is_empty() { vec![] } else { vec![ToolEvent::Text(text)] };
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn written_calls_are_read_again(
        format in any_format(),
        text in "[^<]{0,20}",
        numbers in prop::collection::vec(any::<i32>().prop_map(|x| f64::from(x) / 8.0), 0..4),
        round in any::<bool>(),
    ) {
        let mut calls = vec![
            ToolCall::new("write_note", json!({"text": text})),
            ToolCall::new("add", json!({"xs": numbers, "round": round})),
        ];
        match format {
            ToolFormat::Llama3 => { calls.pop(); }
            ToolFormat::MistralCallId => {
                for call in &mut calls {
                    *call = call.clone().with_id("abcdefghi");
                }
            }
            _ => {}
        }
        let written = format.render(&calls).unwrap();
        let read = events(format, [written.as_str()]).unwrap();
        prop_assert_eq!(self::calls(&read), calls);
    }
}
