//! What a model can do, read from its template, its vocabulary and its pooling.

use dunlin_format::Metadata;
use dunlin_hub::Capability;

use crate::Error;
use crate::code::names_infill_token;

/// What the metadata show of a model's abilities; `pooling` as the file says it.
pub(super) fn capabilities(
    metadata: &Metadata,
    pooling: Option<&str>,
) -> Result<Vec<Capability>, Error> {
    let mut capabilities = Vec::new();
    if let Some(template) = metadata.str("tokenizer.chat_template")? {
        capabilities.push(Capability::Chat);
        if uses_variable(template, "tools") || metadata.contains("tokenizer.chat_template.tool_use")
        {
            capabilities.push(Capability::Tools);
        }
        // Some templates write the tags, some only read a switch or the field of a message.
        let signs = ["<think>", "[THINK]", "<|think|>"];
        let switches = ["enable_thinking", "thinking", "reasoning_content"];
        if signs.iter().any(|sign| template.contains(sign))
            || switches
                .iter()
                .any(|switch| uses_variable(template, switch))
        {
            capabilities.push(Capability::Reasoning);
        }
    }
    let tagged = metadata
        .strings("general.tags")?
        .is_some_and(|tags| tags.iter().any(|tag| tag == "code"));
    if tagged || names_infill_token(metadata) {
        capabilities.push(Capability::Code);
    }
    match pooling {
        Some("rank") => capabilities.push(Capability::Rerank),
        Some(_) => capabilities.push(Capability::Embeddings),
        None => {}
    }
    Ok(capabilities)
}

/// Whether a Jinja template names this variable or field in its code; its text between the code does not count.
fn uses_variable(template: &str, name: &str) -> bool {
    let mut rest = template;
    while let Some(start) = rest.find("{%").into_iter().chain(rest.find("{{")).min() {
        let close = if rest[start..].starts_with("{%") {
            "%}"
        } else {
            "}}"
        };
        let code = &rest[start + 2..];
        let end = code.find(close).unwrap_or(code.len());
        if has_word(&code[..end], name) {
            return true;
        }
        rest = &code[end..];
    }
    false
}

fn has_word(code: &str, word: &str) -> bool {
    let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    code.match_indices(word).any(|(at, _)| {
        is_edge(code[..at].chars().next_back()) && is_edge(code[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::uses_variable;

    #[test]
    fn a_variable_counts_in_code_and_not_in_text() {
        assert!(uses_variable("a {%- if tools is not none %} b", "tools"));
        assert!(uses_variable("{{ x }} {{ tools | tojson }}", "tools"));
        assert!(uses_variable(
            "{% if message.reasoning_content %}",
            "reasoning_content"
        ));
        assert!(!uses_variable("You have tools. {{ messages }}", "tools"));
        assert!(!uses_variable("{% set builtin_tools = 1 %}", "tools"));
        assert!(!uses_variable("no code at all: tools", "tools"));
        assert!(uses_variable("{% never closed tools", "tools"));
    }
}
