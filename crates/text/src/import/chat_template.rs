//! The chat template of a folder: one text, or a list of named ones.

use dunlin_format::{Metadata, StringArray, Value};
use serde_json::Value as Json;

use super::TokenizerFiles;

const KEY: &str = "tokenizer.chat_template";

/// Writes the template named `default` as the template, the others under their names.
pub(super) fn write(files: &TokenizerFiles, metadata: &mut Metadata) {
    let configured = files.tokenizer_setting("chat_template");
    match (configured, &files.chat_template) {
        (Some(Json::String(template)), _) => set(metadata, KEY, template),
        (Some(Json::Array(templates)), _) => write_named(templates, metadata),
        (_, Some(template)) => set(metadata, KEY, template),
        _ => {}
    }
}

fn write_named(templates: &[Json], metadata: &mut Metadata) {
    let mut names = StringArray::default();
    let mut default = None;
    for entry in templates {
        let text = |field| entry.get(field).and_then(Json::as_str);
        let (Some(name), Some(template)) = (text("name"), text("template")) else {
            continue;
        };
        let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        match name.chars().map(safe).collect::<String>().as_str() {
            "" => {}
            "default" => default = Some(template),
            name => {
                names.push(name);
                set(metadata, &format!("{KEY}.{name}"), template);
            }
        }
    }
    if !names.is_empty() {
        metadata.insert("tokenizer.chat_templates", Value::from(names));
    }
    if let Some(default) = default {
        set(metadata, KEY, default);
    }
}

fn set(metadata: &mut Metadata, key: &str, template: &str) {
    metadata.insert(key, Value::String(template.to_owned()));
}
