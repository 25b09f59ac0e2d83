//! Chat templates of the shared set, byte for byte what transformers renders.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod common;

use std::fs;

use dunlin_text::{ChatTemplate, TemplateInput, TextError};
use serde_json::Value as Json;

#[test]
fn renders_every_shared_case_as_transformers_does() {
    let Some(shared) = common::shared() else {
        return;
    };
    let folder = shared.join("conformance/templates");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    let (mut cases, mut wrong) = (0, Vec::new());
    for path in &files {
        let file = common::json(path);
        let name = path.file_stem().unwrap().to_str().unwrap();
        let source = fs::read_to_string(folder.join(file["template"].as_str().unwrap())).unwrap();
        let template = ChatTemplate::new(
            &source,
            file["bos_token"].as_str(),
            file["eos_token"].as_str(),
        )
        .unwrap();
        for case in file["cases"].as_array().unwrap() {
            cases += 1;
            let rendered = template.render(&input(case, &file["now"]));
            if let Err(difference) = compare(case, rendered) {
                wrong.push(format!("{name} / {}: {difference}", case["name"]));
            }
        }
    }
    println!(
        "{} templates, {cases} cases, {} wrong",
        files.len(),
        wrong.len()
    );
    assert!(cases > 0 && wrong.is_empty(), "{}", wrong.join("\n"));
}

fn input(case: &Json, now: &Json) -> TemplateInput {
    TemplateInput {
        messages: case["messages"].as_array().unwrap().clone(),
        tools: Some(case["tools"].clone()).filter(|tools| !tools.is_null()),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
        extra: case["kwargs"].as_object().cloned().unwrap_or_default(),
        now: Some(now.as_str().unwrap().parse().unwrap()),
    }
}

/// `expected` is a text, `error` Python's class and message: the message of `raise_exception`
/// arrives as it is, any other error is an error here as well.
fn compare(case: &Json, rendered: Result<String, TextError>) -> Result<(), String> {
    match (case["expected"].as_str(), case["error"].as_str(), rendered) {
        (Some(expected), _, Ok(rendered)) if rendered == expected => Ok(()),
        (Some(expected), _, Ok(rendered)) => {
            let same = expected
                .bytes()
                .zip(rendered.bytes())
                .take_while(|(a, b)| a == b)
                .count();
            let from = |text: &str| {
                let end = (same + 60).min(text.len());
                String::from_utf8_lossy(&text.as_bytes()[same.saturating_sub(30)..end]).into_owned()
            };
            Err(format!(
                "at byte {same}: {:?} instead of {:?}",
                from(&rendered),
                from(expected)
            ))
        }
        (None, Some(error), Err(TextError::TemplateRaised { message })) => {
            match error.strip_prefix("TemplateError: ") {
                Some(expected) if expected == message => Ok(()),
                _ => Err(format!("raised {message:?} instead of {error:?}")),
            }
        }
        (None, Some(error), Err(_)) if !error.starts_with("TemplateError: ") => Ok(()),
        (_, error, rendered) => Err(format!("{rendered:?}, expected error {error:?}")),
    }
}
