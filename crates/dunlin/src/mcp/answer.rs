//! What a call answers, as text for a model.

use rmcp::model::{CallToolResult, ContentBlock, Resource, ResourceContents};

/// Stands for content of later versions of the protocol.
const UNKNOWN: &str = "[content of an unknown kind, left out: only text can be read]";

/// The text of a result, or one that is an error: the tool's own, because there is nothing that a model of text could read, or because
/// the text is longer than `limit` bytes.
pub(super) fn outcome(result: CallToolResult, limit: usize) -> Result<String, String> {
    let is_error = result.is_error == Some(true);
    let mut has_text = false;
    let mut lines = Vec::with_capacity(result.content.len());
    for block in &result.content {
        let (line, is_text) = line(block);
        has_text |= is_text;
        lines.push(line);
    }
    // Servers repeat a value of a structured result as text; where one does not, the value is the text.
    if let (false, Some(value)) = (has_text, &result.structured_content) {
        has_text = true;
        lines.push(value.to_string());
    }
    let text = lines.join("\n");
    if text.len() > limit {
        return Err(format!(
            "the result has {} bytes of text, and {limit} are allowed: ask for less",
            text.len()
        ));
    }
    match is_error || !(has_text || lines.is_empty()) {
        true => Err(text),
        false => Ok(text),
    }
}

/// A part of a result as text, and whether it is one that can be read.
fn line(block: &ContentBlock) -> (String, bool) {
    match block {
        ContentBlock::Text(text) => (text.text.clone(), true),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { text, .. } => (text.clone(), true),
            ResourceContents::BlobResourceContents {
                uri,
                mime_type,
                blob,
                ..
            } => {
                let kind = mime_type.as_deref().unwrap_or("binary data");
                (unreadable(&format!("{kind} ({uri})"), blob), false)
            }
            _ => (UNKNOWN.to_owned(), false),
        },
        ContentBlock::ResourceLink(resource) => (link(resource), true),
        ContentBlock::Image(image) => (unreadable(&image.mime_type, &image.data), false),
        ContentBlock::Audio(audio) => (unreadable(&audio.mime_type, &audio.data), false),
        _ => (UNKNOWN.to_owned(), false),
    }
}

fn unreadable(what: &str, base64: &str) -> String {
    format!(
        "[{what}, {} bytes in base64, left out: only text can be read]",
        base64.len()
    )
}

fn link(resource: &Resource) -> String {
    let description = resource.description.as_deref().unwrap_or_default();
    let mut link = format!("{}: {}", resource.name, resource.uri);
    if !description.is_empty() {
        link.push_str(&format!(" ({description})"));
    }
    link
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Of a result as it stands in the protocol.
    fn outcome_of(result: Value) -> Result<String, String> {
        outcome(serde_json::from_value(result).unwrap(), 100)
    }

    #[test]
    fn texts_are_joined_line_by_line() {
        let result = json!({"content": [
            {"type": "text", "text": "one"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "two"}},
            {"type": "resource_link", "uri": "file:///b", "name": "b", "description": "third"},
        ]});
        assert_eq!(
            outcome_of(result).unwrap(),
            "one\ntwo\nb: file:///b (third)"
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_and_alone_is_an_error() {
        let image = json!({"type": "image", "data": "QUJD", "mimeType": "image/png"});
        let text = json!({"type": "text", "text": "a picture"});
        let both = outcome_of(json!({"content": [text, image]})).unwrap();
        let left_out = "[image/png, 4 bytes in base64, left out: only text can be read]";
        assert_eq!(both, format!("a picture\n{left_out}"));
        let alone = outcome_of(json!({"content": [image]}));
        assert_eq!(alone.unwrap_err(), left_out);
    }

    #[test]
    fn errors_of_tools_stay_errors() {
        let result =
            json!({"content": [{"type": "text", "text": "no such city"}], "isError": true});
        assert_eq!(outcome_of(result).unwrap_err(), "no such city");
    }

    #[test]
    fn a_value_without_text_is_its_json() {
        let value = json!({"content": [], "structuredContent": {"degrees": 21}});
        assert_eq!(outcome_of(value).unwrap(), r#"{"degrees":21}"#);
        let text = json!({"type": "text", "text": "21 degrees"});
        let both = json!({"content": [text], "structuredContent": {"degrees": 21}});
        assert_eq!(outcome_of(both).unwrap(), "21 degrees");
        assert_eq!(outcome_of(json!({"content": []})).unwrap(), "");
    }

    #[test]
    fn a_text_that_is_too_long_is_an_error_with_the_numbers() {
        let text = json!({"type": "text", "text": "a".repeat(101)});
        let error = outcome_of(json!({"content": [text]})).unwrap_err();
        assert!(error.contains("101") && error.contains("100"), "{error}");
    }
}
