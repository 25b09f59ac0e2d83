//! Tools, calls and results in the prompts of the families.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr, missing_docs)]

mod common;
#[path = "common/tools.rs"]
mod recorded;

use std::{fs, path::Path};

use dunlin_text::{ChatTemplate, TemplateInput, TextError, Tool, ToolCall, ToolFormat, ToolPrompt};
use serde_json::{Value as Json, json};

fn template(shared: &Path, name: &str) -> ChatTemplate {
    let path = shared.join(format!("conformance/templates/jinja/{name}.jinja"));
    let source = fs::read_to_string(path).unwrap();
    ChatTemplate::new(&source, Some("<s>"), Some("</s>")).unwrap()
}

fn prompt(template: &ChatTemplate) -> Option<ToolPrompt> {
    // LFM 2 alone is known by its vocabulary.
    ToolPrompt::of(template, |token| token == "<|tool_call_start|>").unwrap()
}

#[test]
fn finds_the_notation_of_each_template() {
    let Some(shared) = common::shared() else {
        return;
    };
    for (name, format) in [
        ("qwen2.5", Some(ToolFormat::Hermes)),
        ("qwen3", Some(ToolFormat::Hermes)),
        ("granite-4.0", Some(ToolFormat::Hermes)),
        ("qwen3.5", Some(ToolFormat::QwenXml)),
        ("llama-3.1", Some(ToolFormat::Llama3)),
        ("llama-3.2", Some(ToolFormat::Llama3)),
        ("mistral-nemo", Some(ToolFormat::MistralList)),
        ("mistral-small-3.2", Some(ToolFormat::MistralCallId)),
        ("ministral-3", Some(ToolFormat::MistralArguments)),
        ("phi-4-mini", Some(ToolFormat::Phi4Mini)),
        ("gemma4", Some(ToolFormat::Gemma4)),
        ("gemma4-interleaved", Some(ToolFormat::Gemma4)),
        ("lfm2", Some(ToolFormat::Lfm2)),
        ("lfm2.5", Some(ToolFormat::Lfm2)),
        ("granite-3.3", Some(ToolFormat::Granite3)),
        ("smollm2", None),
        ("smollm3", None),
        ("gemma2", None),
        ("gemma3n", None),
        ("phi-3.5-mini", None),
        ("minicpm5", None),
        ("deepseek-r1-distill-qwen", None),
    ] {
        let found = prompt(&template(&shared, name)).map(|prompt| prompt.format());
        assert_eq!(found, format, "{name}");
    }
    let lfm2 = template(&shared, "lfm2");
    assert_eq!(ToolPrompt::of(&lfm2, |_| false).unwrap(), None);
}

/// The shared cases that have tools and a call, built again from the tools and calls themselves.
#[test]
fn conversations_render_as_the_recorded_ones() {
    let Some(shared) = common::shared() else {
        return;
    };
    let mut compared = 0;
    for name in [
        "qwen2.5",
        "qwen3",
        "qwen3.5",
        "granite-4.0",
        "llama-3.2",
        "mistral-nemo",
        "mistral-small-3.2",
        "ministral-3",
        "gemma4",
    ] {
        let template = template(&shared, name);
        let file = common::json(&shared.join(format!("conformance/templates/{name}.json")));
        let template = ChatTemplate::new(
            template.source(),
            file["bos_token"].as_str(),
            file["eos_token"].as_str(),
        )
        .unwrap();
        let prompt = prompt(&template).unwrap();
        for case in file["cases"].as_array().unwrap() {
            let messages = case["messages"].as_array().unwrap();
            let has_calls = messages
                .iter()
                .any(|message| message.get("tool_calls").is_some());
            let Some(expected) = case["expected"].as_str().filter(|_| has_calls) else {
                continue;
            };
            let mut input = TemplateInput {
                messages: rebuilt(&prompt, messages),
                add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
                extra: case["kwargs"].as_object().cloned().unwrap_or_default(),
                now: Some(file["now"].as_str().unwrap().parse().unwrap()),
                ..TemplateInput::default()
            };
            prompt.offer(&mut input, &tools_of(&case["tools"])).unwrap();
            assert_eq!(
                template.render(&input).unwrap(),
                expected,
                "{name}: {}",
                case["name"]
            );
            compared += 1;
        }
    }
    assert!(compared >= 20, "{compared} cases");
}

fn tools_of(tools: &Json) -> Vec<Tool> {
    let tools = tools.as_array().into_iter().flatten();
    tools
        .map(|tool| {
            let function = &tool["function"];
            let text = |key: &str| function[key].as_str().unwrap();
            Tool::new(
                text("name"),
                text("description"),
                function["parameters"].clone(),
            )
            .unwrap()
        })
        .collect()
}

fn rebuilt(prompt: &ToolPrompt, messages: &[Json]) -> Vec<Json> {
    let mut out: Vec<Json> = Vec::new();
    let mut calls: Vec<ToolCall> = Vec::new();
    for message in messages {
        let content = message["content"].as_str().unwrap_or_default();
        if let Some(made) = message["tool_calls"].as_array() {
            let call = |call: &Json| {
                let function = &call["function"];
                ToolCall::new(
                    function["name"].as_str().unwrap(),
                    function["arguments"].clone(),
                )
                .with_id(call["id"].as_str().unwrap())
            };
            calls = made.iter().map(call).collect();
            out.push(prompt.assistant(content, &calls).unwrap());
        } else if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str();
            let call = calls.iter().find(|call| call.id.as_deref() == id).unwrap();
            prompt.push_result(&mut out, call, content);
        } else {
            out.push(message.clone());
        }
    }
    out
}

#[test]
fn templates_without_calls_get_them_as_text() {
    let Some(shared) = common::shared() else {
        return;
    };
    let tool = Tool::new(
        "now",
        "The time",
        json!({"type": "object", "properties": {}}),
    )
    .unwrap();
    let call = ToolCall::new("now", json!({}));
    for (name, offered, written) in [
        (
            "lfm2",
            "<|tool_list_start|>[{\"type\": \"function\", ",
            "<|tool_call_start|>[now()]<|tool_call_end|>",
        ),
        (
            "lfm2.5",
            "List of tools: [{\"type\": \"function\", ",
            "<|tool_call_start|>[now()]<|tool_call_end|>",
        ),
        (
            "phi-4-mini",
            "<|system|>You are a helpful assistant with some tools.<|tool|>[{\"name\": \"now\", \
             \"description\": \"The time\", ",
            "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]<|/tool_call|>",
        ),
        (
            "granite-3.3",
            "<|start_of_role|>available_tools<|end_of_role|>[",
            "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]",
        ),
    ] {
        let template = template(&shared, name);
        let prompt = prompt(&template).unwrap();
        let mut messages = vec![json!({"role": "user", "content": "u"})];
        messages.push(prompt.assistant("", std::slice::from_ref(&call)).unwrap());
        prompt.push_result(&mut messages, &call, "12:00");
        let mut input = TemplateInput {
            messages,
            add_generation_prompt: true,
            now: "2026-01-15T09:30:00".parse().ok(),
            ..TemplateInput::default()
        };
        prompt
            .offer(&mut input, std::slice::from_ref(&tool))
            .unwrap();
        let rendered = template.render(&input).unwrap();
        for part in [offered, written, "12:00"] {
            assert!(rendered.contains(part), "{name}: no {part} in {rendered}");
        }
        prompt.offer(&mut input, &[]).unwrap();
        let rendered = template.render(&input).unwrap();
        assert!(!rendered.contains("The time"), "{name}: {rendered}");
    }
}

#[test]
fn early_templates_of_gemma_4_have_results_in_the_message_that_called() {
    let Some(shared) = common::shared() else {
        return;
    };
    let template = template(&shared, "gemma4-interleaved");
    let prompt = prompt(&template).unwrap();
    let call = ToolCall::new("now", json!({}));
    let mut messages = vec![json!({"role": "user", "content": "u"})];
    messages.push(prompt.assistant("", &[call.clone(), call.clone()]).unwrap());
    prompt.push_result(&mut messages, &call, "1");
    prompt.push_result(&mut messages, &call, "2");
    let input = TemplateInput {
        messages,
        ..TemplateInput::default()
    };
    let rendered = template.render(&input).unwrap();
    let expected = "<|tool_call>call:now{}<tool_call|><|tool_call>call:now{}<tool_call|>\
                    <|tool_response>response:now{value:<|\"|>1<|\"|>}<tool_response|>\
                    <|tool_response>response:now{value:<|\"|>2<|\"|>}<tool_response|>";
    assert!(rendered.ends_with(expected), "{rendered}");
}

#[test]
fn two_tools_of_one_name_are_refused() {
    let Some(shared) = common::shared() else {
        return;
    };
    let prompt = prompt(&template(&shared, "qwen3")).unwrap();
    let mut tools = recorded::tools().to_vec();
    tools.push(tools[0].clone());
    let refused = prompt.offer(&mut TemplateInput::default(), &tools);
    assert!(matches!(refused, Err(TextError::InvalidTool { .. })));
}

#[test]
fn markers_that_are_control_tokens_can_be_shown() {
    let Some(shared) = common::shared() else {
        return;
    };
    // Gemma 4's markers are ordinary tokens, and so they are in the text anyway.
    let gemma = common::tokenizer(&shared.join("conformance/vocab/gemma-4.gguf.gz"));
    assert_eq!(ToolFormat::Gemma4.control_markers(&gemma), []);
    let ids = gemma
        .encode("<|tool_call>call:now{}<tool_call|>", true)
        .unwrap();
    assert_eq!(
        gemma.decode(&ids, false),
        "<|tool_call>call:now{}<tool_call|>"
    );
    // Of Llama 3's vocabulary the end of a header is one, as a marker may be in other vocabularies.
    let llama = common::tokenizer(&shared.join("conformance/vocab/llama-bpe.gguf.gz"));
    let ids = llama.encode("a<|end_header_id|>b<|eot_id|>", true).unwrap();
    let shown = llama.token_id("<|end_header_id|>").unwrap();
    let read = |mut stream: dunlin_text::DecodeStream| {
        let text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        text + &stream.finish()
    };
    assert_eq!(read(llama.stream()), "ab");
    assert_eq!(
        read(llama.stream().showing(&[shown])),
        "a<|end_header_id|>b"
    );
}
