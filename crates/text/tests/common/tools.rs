//! The recorded tool calls (`data/tool_calls.json`).
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::LazyLock;

use dunlin_text::{Tool, ToolCall, ToolFormat};
use serde_json::Value as Json;

/// A text and the calls that it makes.
pub(crate) struct Case {
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
}

/// What is recorded of one notation.
pub(crate) struct Notation {
    pub(crate) format: ToolFormat,
    /// As a template or a model card writes calls.
    pub(crate) cases: Vec<Case>,
    /// Other texts that mean calls.
    pub(crate) variants: Vec<Case>,
}

static DATA: LazyLock<Json> =
    LazyLock::new(|| serde_json::from_str(include_str!("../data/tool_calls.json")).unwrap());

static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let tool = |tool: &Json| {
        let text = |key: &str| tool[key].as_str().unwrap();
        Tool::new(
            text("name"),
            text("description"),
            tool["parameters"].clone(),
        )
        .unwrap()
    };
    DATA["tools"].as_array().unwrap().iter().map(tool).collect()
});

pub(crate) fn tools() -> &'static [Tool] {
    &TOOLS
}

pub(crate) fn notations() -> Vec<Notation> {
    let notation = |format: ToolFormat| {
        let recorded = &DATA["notations"][format!("{format:?}")];
        Notation {
            format,
            cases: cases(&recorded["cases"]),
            variants: cases(&recorded["variants"]),
        }
    };
    ToolFormat::ALL.into_iter().map(notation).collect()
}

fn cases(cases: &Json) -> Vec<Case> {
    let case = |case: &Json| Case {
        text: case["text"].as_str().unwrap().to_owned(),
        calls: case["calls"].as_array().unwrap().iter().map(call).collect(),
    };
    cases.as_array().unwrap().iter().map(case).collect()
}

fn call(call: &Json) -> ToolCall {
    let made = ToolCall::new(call["name"].as_str().unwrap(), call["arguments"].clone());
    match call["id"].as_str() {
        Some(id) => made.with_id(id),
        None => made,
    }
}
