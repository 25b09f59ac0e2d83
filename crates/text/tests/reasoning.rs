//! Reasoning told apart from the answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr, missing_docs)]

mod common;

use std::fs;

use dunlin_text::{ChatTemplate, ReasoningEvent, ReasoningFormat, TemplateInput};
use proptest::prelude::*;
use serde_json::json;

/// Reasoning and answer of a text in pieces, and whether it ends inside the reasoning.
fn split<'t>(
    format: ReasoningFormat,
    prompt: &str,
    pieces: impl IntoIterator<Item = &'t str>,
) -> (String, String, bool) {
    let mut splitter = format.splitter(prompt);
    let mut events = Vec::new();
    for piece in pieces {
        events.extend(splitter.push(piece));
    }
    let is_open = splitter.is_reasoning();
    events.extend(splitter.finish());
    let (mut reasoning, mut answer) = (String::new(), String::new());
    for event in events {
        match event {
            ReasoningEvent::Reasoning(text) => reasoning.push_str(&text),
            ReasoningEvent::Answer(text) => answer.push_str(&text),
            other => panic!("{other:?}"),
        }
    }
    (reasoning, answer, is_open)
}

#[test]
fn splits_wherever_the_text_is_cut() {
    use ReasoningFormat::{Brackets, Channel, Think};
    for (format, prompt, text, reasoning, answer, is_open) in [
        (
            Think,
            "",
            "<think>\nWhy?\n\nSo.\n</think>\n\nYes.\n",
            "Why?\n\nSo.",
            "Yes.\n",
            false,
        ),
        (
            Think,
            "<|im_start|>assistant\n<think>\n",
            "Why?\n</think>\n\nYes.",
            "Why?",
            "Yes.",
            false,
        ),
        (
            Think,
            "<think>\n\n</think>\n\n",
            "Yes, 1 < 2.",
            "",
            "Yes, 1 < 2.",
            false,
        ),
        (Think, "", "<think>\n\n</think>\n\nYes.", "", "Yes.", false),
        (Think, "<think>", "1 < 2 </thin", "1 < 2 </thin", "", true),
        (Think, "", "\n\nNo <thin", "", "\n\nNo <thin", false),
        (
            Think,
            "",
            "A<think>b</think>c<think>d</think>e",
            "bd",
            "Ace",
            false,
        ),
        (Think, "", "A</think>b", "", "A</think>b", false),
        (
            Channel,
            "<|turn>model\n",
            "<|channel>thought\nWhy\n<channel|>Yes",
            "Why",
            "Yes",
            false,
        ),
        (
            Channel,
            "<|channel>thought\n<channel|>",
            "Yes",
            "",
            "Yes",
            false,
        ),
        (
            Brackets,
            "",
            "[THINK]Why [x][/THINK]Yes [y]",
            "Why [x]",
            "Yes [y]",
            false,
        ),
        (Think, "", "<think>é🗼</think>ü", "é🗼", "ü", false),
    ] {
        let expected = (reasoning.to_owned(), answer.to_owned(), is_open);
        for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
            let (before, after) = text.split_at(cut);
            assert_eq!(split(format, prompt, [before, after]), expected, "{text}");
        }
        assert_eq!(
            split(format, prompt, text.split_inclusive(|_| true)),
            expected
        );
    }
}

#[test]
fn finds_the_format_and_where_the_prompt_leaves_it() {
    let Some(shared) = common::shared() else {
        return;
    };
    use ReasoningFormat::{Brackets, Channel, Think};
    for (name, format, is_open) in [
        ("qwen3", Some(Think), false),
        ("qwen3.5", Some(Think), true),
        ("smollm3", Some(Think), false),
        ("lfm2.5", Some(Think), false),
        ("minicpm5", Some(Think), true),
        ("deepseek-r1-distill-qwen", Some(Think), true),
        ("gemma4", Some(Channel), false),
        ("ministral-3", Some(Brackets), false),
        ("qwen2.5", None, false),
        ("llama-3.2", None, false),
        ("smollm2", None, false),
        ("lfm2", None, false),
    ] {
        let folder = shared.join("conformance/templates/jinja");
        let source = fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        assert_eq!(ReasoningFormat::detect(&source), format, "{name}");
        let Some(format) = format else { continue };
        let template = ChatTemplate::new(&source, Some("<s>"), Some("</s>")).unwrap();
        let mut input = TemplateInput {
            messages: vec![json!({"role": "user", "content": "Hi"})],
            add_generation_prompt: true,
            ..TemplateInput::default()
        };
        input
            .extra
            .insert("enable_thinking".to_owned(), json!(true));
        let prompt = template.render(&input).unwrap();
        assert_eq!(format.is_open_after(&prompt), is_open, "{name}");
        input
            .extra
            .insert("enable_thinking".to_owned(), json!(false));
        let prompt = template.render(&input).unwrap();
        assert!(!format.is_open_after(&prompt), "{name}");
    }
}

proptest! {
    #[test]
    fn splits_at_the_markers_whatever_stands_between_them(
        pieces in prop::collection::vec(
            prop::sample::select(vec!["<think>", "</think>", "<", "thi", "nk>", "/", "a", "é", " "]),
            0..20,
        ),
    ) {
        let text = pieces.concat();
        let whole = split(ReasoningFormat::Think, "", [text.as_str()]);
        let cut = split(ReasoningFormat::Think, "", text.split_inclusive(|_| true));
        prop_assert_eq!(&whole, &cut);
        prop_assert_eq!(whole, split_complete(&text));
    }
}

/// The same for a complete text without line breaks, by searching it.
fn split_complete(text: &str) -> (String, String, bool) {
    let (mut reasoning, mut answer) = (String::new(), String::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<think>") {
        answer.push_str(before);
        let Some((inside, after)) = after.split_once("</think>") else {
            reasoning.push_str(after);
            return (reasoning, answer, true);
        };
        reasoning.push_str(inside);
        rest = after;
    }
    answer.push_str(rest);
    (reasoning, answer, false)
}
