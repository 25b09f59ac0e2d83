//! How tasks ask a model, and what that takes.

use dunlin_engine::SamplerConfig;

use crate::{Error, FinishReason, GenerateOptions, Lm, Message, Prompt, TokenId, Usage};

/// What a task took, over all its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TaskUsage {
    /// Answers that were generated.
    pub requests: usize,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens of them that were kept from before and not computed again.
    pub cached_prompt_tokens: usize,
    /// Tokens of all answers.
    pub completion_tokens: usize,
    /// Seconds of computing.
    pub seconds: f64,
}

impl TaskUsage {
    pub(super) fn count(&mut self, usage: &Usage) {
        self.requests += 1;
        self.prompt_tokens += usage.prompt_tokens;
        self.cached_prompt_tokens += usage.cached_prompt_tokens;
        self.completion_tokens += usage.completion_tokens;
        self.seconds += usage.prompt_seconds + usage.completion_seconds;
    }
}

/// The builder methods of tasks that generate answers.
macro_rules! with_answer_options {
    () => {
        /// With these options; the form of the answer is replaced.
        #[must_use]
        pub fn with_options(mut self, options: $crate::GenerateOptions) -> Self {
            self.options = options;
            self
        }

        /// With this token to cancel it; the work then ends with [`Error::Cancelled`].
        #[must_use]
        pub fn with_cancel(mut self, cancel: $crate::CancelToken) -> Self {
            self.options.cancel = cancel;
            self
        }
    };
}
pub(super) use with_answer_options;

/// An instruction and the text that it is about; `cue` is how the answer of a base model begins.
pub(super) fn prompt(lm: &Lm, instruction: &str, text: &str, cue: &str) -> Prompt {
    match lm.chat_template() {
        Ok(_) => Prompt::Chat(vec![Message::user(format!("{instruction}\n\n{text}"))]),
        Err(_) => Prompt::Text(format!("{instruction}\n\n{text}\n\n{cue}:")),
    }
}

/// The likeliest answer.
pub(super) fn faithful() -> GenerateOptions {
    GenerateOptions::greedy()
}

/// The likeliest answer that does not repeat itself: small models begin to go round in circles in longer texts of their own.
pub(super) fn fluent() -> GenerateOptions {
    GenerateOptions::new().with_sampler(SamplerConfig {
        dry_multiplier: 0.8,
        dry_allowed_length: 4,
        dry_window: 256,
        ..SamplerConfig::greedy()
    })
}

/// An answer of a task.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) tokens: Vec<TokenId>,
    /// It ended by itself and not for want of room.
    pub(super) is_complete: bool,
}

/// Generates an answer and counts what it took.
///
/// # Errors
/// As [`Lm::generate`]; [`Error::Cancelled`].
pub(super) fn answer(
    lm: &Lm,
    prompt: &Prompt,
    options: &GenerateOptions,
    usage: &mut TaskUsage,
) -> Result<Answer, Error> {
    let completion = lm.generate(prompt, options)?.complete()?;
    usage.count(&completion.usage);
    let is_complete = match completion.finish_reason {
        FinishReason::Cancelled => return Err(Error::Cancelled),
        FinishReason::Length | FinishReason::ContextFull => false,
        _ => true,
    };
    Ok(Answer {
        text: completion.text,
        tokens: completion.tokens,
        is_complete,
    })
}

/// The schema of an object with one text.
pub(super) fn schema_of_text(name: &str) -> serde_json::Value {
    serde_json::json!({
        "type": "object",
        "properties": {name: {"type": "string"}},
        "required": [name],
        "additionalProperties": false
    })
}

/// The text in an object of [`schema_of_text`], also where it breaks off.
pub(super) fn text_in(json: &str, name: &str) -> String {
    let key = format!("\"{name}\"");
    let behind = |text: &'_ str, mark: &str| text.find(mark).map(|at| at + mark.len());
    let Some(after_key) = behind(json, &key) else {
        return String::new();
    };
    let Some(start) = behind(&json[after_key..], "\"") else {
        return String::new();
    };
    let open = &json[after_key + start - 1..];
    // A whole string is followed by the end of the object; of one that breaks off the last escape may be incomplete.
    let mut values = serde_json::Deserializer::from_str(open).into_iter::<String>();
    if let Some(Ok(text)) = values.next() {
        return text;
    }
    let longest_escape = "\\ud83d\\ude00".len();
    (0..=longest_escape)
        .filter_map(|cut| open.get(..open.len().checked_sub(cut)?))
        .find_map(|beginning| serde_json::from_str(&format!("{beginning}\"")).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::text_in;

    #[test]
    fn the_text_of_an_object_is_read_also_where_it_breaks_off() {
        for (json, text) in [
            (r#"{"summary": "A \"b\"."}"#, "A \"b\"."),
            ("{\n  \"summary\":\"a\\nb", "a\nb"),
            (r#"{"summary": "a \u00e"#, "a "),
            (r#"{"summary": "a \ud83d\ude0"#, "a "),
            (r#"{"summary": "a\"#, "a"),
            (r#"{"summary": "#, ""),
            ("", ""),
        ] {
            assert_eq!(text_in(json, "summary"), text, "{json}");
        }
    }
}
