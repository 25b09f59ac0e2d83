//! Summaries of dropped turns, written by the model itself.

use crate::{Error, FinishReason, GenerateOptions, Lm, Message, Prompt, Usage};

/// What the model is asked for; the conversation follows.
pub const SUMMARY_INSTRUCTION: &str = "\
Summarize the conversation below in a few sentences, for somebody who goes on with it. Keep names, numbers, decisions, wishes \
of the user and open questions. Write the summary only.";

/// What stands before a summary in the conversation.
const HEADING: &str = "Summary of the conversation so far:";

/// Most tokens of a summary.
const MOST_TOKENS: usize = 256;

/// Tokens for the heading and what the template may change around it.
const FRAME: usize = 32;

/// A summary of dropped messages.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The text.
    pub text: String,
    /// Why it ended; [`FinishReason::Length`] where it was cut at its limit (an eighth of the context, 256 tokens at most).
    pub finish_reason: FinishReason,
    /// What it took; where the messages had to be read in several parts, of all parts together.
    pub usage: Usage,
}

/// Tokens of the context to keep free for a summary.
pub(super) fn reserve(lm: &Lm) -> usize {
    limit(lm) + FRAME
}

fn limit(lm: &Lm) -> usize {
    (lm.context_length() / 8).clamp(1, MOST_TOKENS)
}

/// The messages with a summary before the first one of the user. (Not all templates take a system prompt.)
pub(super) fn with_summary(messages: &[Message], summary: &str) -> Vec<Message> {
    let mut messages = messages.to_vec();
    if let Some(first) = messages.iter_mut().find(|message| message.role == "user") {
        first.content = format!("{HEADING}\n{summary}\n\n{}", first.content);
    }
    messages
}

/// Has the model summarise messages, after an earlier summary where there is one. What does not fit at once is read in parts,
/// each with the summary of those before.
///
/// # Errors
/// [`Error::ConversationTooLong`] where a single message does not fit; [`Error::Cancelled`]; as [`Lm::generate`].
pub(super) fn summarize(
    lm: &Lm,
    options: &GenerateOptions,
    previous: Option<&str>,
    messages: &[Message],
) -> Result<Summary, Error> {
    let mut greedy = GenerateOptions::greedy().with_max_tokens(limit(lm));
    greedy.cancel = options.cancel.clone();
    greedy.speculation = options.speculation.clone();
    greedy.adapters.clone_from(&options.adapters);
    let mut summary = Summary {
        text: previous.unwrap_or_default().to_owned(),
        finish_reason: FinishReason::EndOfText,
        usage: Usage::default(),
    };
    let mut rest = messages;
    while !rest.is_empty() {
        let (count, ids) = part(lm, &greedy, &summary.text, rest)?;
        let stream = lm.tokenizer().stream();
        let written = lm.generate_after(ids, stream, &greedy)?.complete()?;
        if written.finish_reason == FinishReason::Cancelled {
            return Err(Error::Cancelled);
        }
        summary.text = written.text.trim().to_owned();
        summary.finish_reason = written.finish_reason;
        summary.usage = sum(summary.usage, written.usage);
        rest = &rest[count..];
    }
    Ok(summary)
}

/// As many of the messages as fit a prompt, and its tokens.
fn part(
    lm: &Lm,
    options: &GenerateOptions,
    previous: &str,
    messages: &[Message],
) -> Result<(usize, Vec<u32>), Error> {
    let mut count = messages.len();
    loop {
        let text = instruction(previous, &messages[..count]);
        let prompt = Prompt::Chat(vec![Message::user(text)]);
        let ids = lm.encode_prompt(&prompt, options)?;
        if ids.len() + limit(lm) <= lm.context_length() {
            return Ok((count, ids));
        }
        if count == 1 {
            return Err(Error::ConversationTooLong {
                prompt_tokens: ids.len(),
                answer_room: limit(lm),
                context_length: lm.context_length(),
            });
        }
        count = count.div_ceil(2);
    }
}

fn instruction(previous: &str, messages: &[Message]) -> String {
    let mut text = format!("{SUMMARY_INSTRUCTION}\n");
    if !previous.is_empty() {
        text.push_str(&format!("\n{HEADING}\n{previous}\n"));
    }
    for message in messages {
        text.push_str(&format!("\n{}: {}\n", message.role, message.content));
        if let Some(calls) = message.extra.get("tool_calls") {
            text.push_str(&format!("{calls}\n"));
        }
    }
    text
}

fn sum(a: Usage, b: Usage) -> Usage {
    Usage {
        prompt_tokens: a.prompt_tokens + b.prompt_tokens,
        cached_prompt_tokens: a.cached_prompt_tokens + b.cached_prompt_tokens,
        completion_tokens: a.completion_tokens + b.completion_tokens,
        completion_steps: a.completion_steps + b.completion_steps,
        drafted_tokens: a.drafted_tokens + b.drafted_tokens,
        accepted_tokens: a.accepted_tokens + b.accepted_tokens,
        forced_tokens: a.forced_tokens + b.forced_tokens,
        prompt_seconds: a.prompt_seconds + b.prompt_seconds,
        completion_seconds: a.completion_seconds + b.completion_seconds,
        ..b
    }
}
