//! The rules of Jinja that chat templates stand on, against Jinja itself (`data/templates.json`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dunlin_text::{ChatTemplate, TemplateInput, TextError};
use serde_json::{Value as Json, json};

fn data() -> Json {
    serde_json::from_str(include_str!("data/templates.json")).unwrap()
}

fn render(source: &str, input: &TemplateInput) -> Result<String, TextError> {
    ChatTemplate::new(source, Some("<s>"), Some("</s>"))?.render(input)
}

fn user(text: &str) -> TemplateInput {
    TemplateInput {
        messages: vec![json!({"role": "user", "content": text})],
        ..TemplateInput::default()
    }
}

#[test]
fn prints_what_jinja_prints() {
    let data = data();
    let input = TemplateInput {
        messages: data["messages"].as_array().unwrap().clone(),
        extra: data["extra"].as_object().unwrap().clone(),
        now: Some(data["now"].as_str().unwrap().parse().unwrap()),
        ..TemplateInput::default()
    };
    let mut wrong = Vec::new();
    for case in data["cases"].as_array().unwrap() {
        let source = case["template"].as_str().unwrap();
        let rendered = render(source, &input);
        let right = match (&rendered, case["expected"].as_str(), case["error"].as_str()) {
            (Ok(text), Some(expected), _) => text == expected,
            (Err(TextError::TemplateRaised { message }), _, Some(error)) => {
                error.strip_prefix("TemplateError: ") == Some(message)
            }
            (Err(_), None, Some(error)) => !error.starts_with("TemplateError: "),
            _ => false,
        };
        if !right {
            let expected = case["expected"].as_str().or(case["error"].as_str());
            wrong.push(format!(
                "{source:?}\n  gives {rendered:?}\n  not   {expected:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_hostile_template_gets_an_error() {
    let doubled = "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}\
                   {% set ns.s = [ns.s, ns.s] %}{% endfor %}";
    for source in [
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}\
         {% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
         {% endfor %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 99999999999 }}",
        "{{ [1] | tojson(indent=-1, sort_keys=1, nonsense=2) }}",
        "{% set ns = namespace() %}{% set ns.own = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.own = ns %}{{ ns | tojson }}",
        &format!("{doubled}{{{{ ns.s | tojson }}}}"),
        &format!("{doubled}{{{{ ns.s }}}}"),
        &format!("{doubled}{{{{ '{{}}'.format(ns.s) }}}}"),
        &format!("{doubled}{{{{ ''.join([ns.s]) }}}}"),
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ '{:.99999999999999999999f}'.format(1.5) }}",
        "{{ ('{0}' * 9999).format('x' * 99999) }}",
        "{{ ('x' * 999999).replace('x', 'x' * 999999) }}",
        "{{ ('x' * 999999).join('x' * 999999) }}",
        "{{ ''.join(['x' * 999999] * 99999) }}",
    ] {
        let error = render(source, &user("x")).unwrap_err();
        assert!(
            matches!(
                error,
                TextError::TemplateFuel { .. } | TextError::TemplateFailed { .. }
            ),
            "{source}: {error}"
        );
    }
}

#[test]
fn lists_that_double_end_with_an_error() {
    let doubled = "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}\
                   {% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | length }}";
    let error = render(doubled, &user("x")).unwrap_err();
    assert!(matches!(error, TextError::TemplateTime { .. }), "{error}");
}

#[test]
fn long_chains_of_operators_do_not_overflow_the_stack() {
    for (before, link, after) in [
        ("", "-", "1"),
        ("", "not ", "1"),
        ("1", "|e", ""),
        ("1", "[0]", ""),
        ("1", ".a", ""),
        ("a", "()", ""),
        ("1", "+1", ""),
        ("1", "~1", ""),
        ("1", "**1", ""),
        ("1", " if 1 else 1", ""),
        ("1", " or 1", ""),
        ("1", " is a", ""),
    ] {
        let links = link.repeat(65_000 / link.len());
        // Whether it can be read does not matter here, only that there is an answer.
        let _ = render(&format!("{{{{ {before}{links}{after} }}}}"), &user("x"));
    }
    let long = "x".repeat(70_000);
    assert!(matches!(
        ChatTemplate::new(&long, None, None),
        Err(TextError::TemplateSyntax { .. })
    ));
}

#[test]
fn lists_nested_by_a_loop_do_not_overflow_the_stack() {
    let nested = "{% set ns = namespace(s=[1]) %}{% for i in range(90000) %}\
                  {% set ns.s = [ns.s] %}{% endfor %}";
    for end in [
        "",
        "{{ ns.s }}",
        "{{ ns.s | tojson }}",
        "{{ (ns.s ~ '') | length }}",
    ] {
        // Whether the fuel lasts does not matter here.
        let _ = render(&format!("{nested}{end}"), &user("x"));
    }
}

#[test]
fn deep_nesting_gets_an_error() {
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    assert!(ChatTemplate::new(&format!("{{{{ {deep} }}}}"), None, None).is_err());
    let open = "{% if 1 %}".repeat(5000) + &"{% endif %}".repeat(5000);
    assert!(ChatTemplate::new(&open, None, None).is_err());
    let value = (0..500).fold(json!(1), |inner, _| json!([inner]));
    let mut input = user("x");
    input.extra.insert("deep".to_owned(), value);
    assert!(matches!(
        render("{{ deep }}", &input),
        Err(TextError::InputTooDeep { .. })
    ));
}

#[test]
fn a_long_conversation_renders() {
    let source = "{% for m in messages %}{% set c = m.content | trim %}<{{ m.role }}>\
                  {{ c.split('</think>')[-1].lstrip('\n') }}{% endfor %}";
    let message = json!({"role": "user", "content": "word ".repeat(20_000)});
    let input = TemplateInput {
        messages: vec![message; 200],
        ..TemplateInput::default()
    };
    assert_eq!(render(source, &input).unwrap().len(), 200 * (6 + 99_999));
}

#[test]
fn errors_say_the_line() {
    let failed = render("a\n{{ messages[0].x.y }}", &user("x")).unwrap_err();
    assert!(
        matches!(failed, TextError::TemplateFailed { line: Some(2), .. }),
        "{failed:?}"
    );
    let syntax = ChatTemplate::new("a\n\n{% nonsense %}", None, None).unwrap_err();
    assert!(
        matches!(syntax, TextError::TemplateSyntax { line: Some(3), .. }),
        "{syntax:?}"
    );
}

#[test]
fn without_a_clock_templates_use_their_own_date() {
    let source = "{{ strftime_now('%Y') if strftime_now is defined else '26 Jul 2024' }}";
    assert_eq!(render(source, &user("x")).unwrap(), "26 Jul 2024");
}

#[test]
fn reasoning_stands_under_the_names_that_templates_read() {
    let mut input = user("x");
    input.messages = vec![json!({"role": "assistant", "reasoning": "why"})];
    let source = "{{ messages[0] | tojson }}";
    assert_eq!(
        render(source, &input).unwrap(),
        r#"{"thinking": "why", "role": "assistant", "reasoning": "why", "reasoning_content": "why"}"#
    );
}

#[test]
fn a_message_that_is_no_object_is_refused() {
    let mut input = user("x");
    input.messages.push(json!("hello"));
    assert!(matches!(
        render("", &input),
        Err(TextError::InvalidMessage { index: 1 })
    ));
}
