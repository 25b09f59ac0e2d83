//! The conversation behind `dunlin run`: where it comes from, how it answers, and where it is saved.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use dunlin::{
    Answer, AnswerEvent, ContextPolicy, Conversation, Error, GenerateOptions, Lm, Reasoning, Reply,
    SaveOptions,
};

use super::run::RunArgs;
use crate::args::at_least_one;
use crate::terminal::Terminal;
use crate::{exit, interrupt};

/// How a conversation is kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Conversation")]
pub(super) struct TalkArgs {
    /// Go on with the conversation in this file, and save it there at the end with all that was computed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["raw", "ids"])]
    pub(super) session: Option<PathBuf>,
    /// What happens when the conversation does not fit the context any more
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Policy::Error, conflicts_with_all = ["raw", "ids"])]
    context_policy: Policy,
    /// What happens to the reasoning of models that reason before they answer
    #[arg(long, value_enum, value_name = "HOW", default_value_t = ShowReasoning::Show, conflicts_with_all = ["raw", "ids"])]
    reasoning: ShowReasoning,
    /// Let the model reason with at most this many tokens before it answers
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with_all = ["raw", "ids"])]
    reasoning_budget: Option<usize>,
}

impl TalkArgs {
    /// Whether and how long the model reasons.
    ///
    /// # Errors
    /// A limit for what is off.
    pub(super) fn reasoning(&self) -> Result<Reasoning> {
        match (self.reasoning, self.reasoning_budget) {
            (ShowReasoning::Off, Some(_)) => Err(exit::Usage(
                "--reasoning off and --reasoning-budget exclude each other: leave one of the two out".to_owned(),
            )
            .into()),
            (ShowReasoning::Off, None) => Ok(Reasoning::Off),
            (_, Some(tokens)) => Ok(Reasoning::Budget(tokens)),
            (_, None) => Ok(Reasoning::Auto),
        }
    }
}

/// Where reasoning goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ShowReasoning {
    /// To stderr, dimmed in a terminal
    Show,
    /// Nowhere: the model reasons, and only the answer is shown
    Hide,
    /// The model does not reason
    Off,
}

/// The names of context policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// An error
    Error,
    /// The oldest turns are dropped, as few as needed
    DropOldestTurns,
    /// As drop-oldest-turns, but the first turn stays
    SlidingWindow,
    /// The model writes a summary of the oldest turns, which stands for them
    Summarize,
}

impl From<Policy> for ContextPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Error => ContextPolicy::Error,
            Policy::DropOldestTurns => ContextPolicy::DropOldestTurns,
            Policy::SlidingWindow => ContextPolicy::SlidingWindow { keep_first: 1 },
            Policy::Summarize => ContextPolicy::Summarize,
        }
    }
}

/// The conversation of the session, or a new one.
///
/// # Errors
/// There is a session file, and it cannot be used with this model.
pub(super) fn open(
    lm: &Lm,
    args: &RunArgs,
    options: &GenerateOptions,
    terminal: &Terminal,
) -> Result<Conversation> {
    let session = args.talk.session.as_deref().filter(|path| path.exists());
    let mut conversation = match session {
        None => Conversation::new(lm),
        Some(path) => {
            let (conversation, restored) = Conversation::restore(lm, path)?;
            let again = match restored.tokens - restored.kv_tokens {
                0 | 1 => String::new(),
                tokens => format!(", {tokens} of them to be computed again"),
            };
            terminal.note(format_args!(
                "(restored {}: {} messages, {} tokens{again})",
                path.display(),
                conversation.messages().len(),
                restored.tokens,
            ));
            conversation
        }
    };
    if let Some(system) = &args.system {
        conversation.set_system(Some(system.clone()));
    }
    Ok(conversation
        .with_options(options.clone())
        .with_policy(args.talk.context_policy.into())
        .with_reasoning(args.talk.reasoning()?))
}

/// Starts an answer and shows it piece by piece where `show` says so, until its end or Ctrl-C. Reasoning before it goes to stderr.
///
/// # Errors
/// The answer cannot be started or breaks off, or stdout is closed.
pub(super) fn answer(
    conversation: &mut Conversation,
    args: &TalkArgs,
    show: bool,
    terminal: &Terminal,
    start: impl for<'c> FnOnce(&'c mut Conversation) -> Result<Answer<'c>, Error>,
) -> Result<Reply> {
    let cancel = conversation.options().cancel.clone();
    cancel.reset();
    let _work = interrupt::begin(move || cancel.cancel());
    let mut view = View::new(args, show, terminal);
    for event in start(conversation)? {
        let event = event?;
        view.show(&event)?;
        if let AnswerEvent::End(reply) = event {
            return Ok(*reply);
        }
    }
    Err(anyhow!("the answer broke off without an end"))
}

/// Shows the events of answers as they come.
pub(super) struct View<'t> {
    terminal: &'t Terminal,
    show: bool,
    shows_reasoning: bool,
    is_reasoning: bool,
    /// Whether the answer so far does not end a line.
    needs_line_end: bool,
}

impl<'t> View<'t> {
    pub(super) fn new(args: &TalkArgs, show: bool, terminal: &'t Terminal) -> Self {
        View {
            terminal,
            show,
            shows_reasoning: show && args.reasoning == ShowReasoning::Show,
            is_reasoning: false,
            needs_line_end: true,
        }
    }

    /// # Errors
    /// stdout is closed.
    pub(super) fn show(&mut self, event: &AnswerEvent) -> Result<()> {
        if self.is_reasoning && !matches!(event, AnswerEvent::Reasoning(_)) {
            self.is_reasoning = false;
            self.terminal.note("\n");
        }
        match event {
            AnswerEvent::Reasoning(piece) if self.shows_reasoning => {
                self.is_reasoning = true;
                self.terminal.dimmed(piece);
            }
            AnswerEvent::Text(piece) => {
                if self.show {
                    self.terminal.answer(piece)?;
                }
                self.needs_line_end = !piece.ends_with('\n');
            }
            AnswerEvent::ToolCall { call, .. } => {
                let line = format!("[{} {}]\n", call.name, call.arguments);
                self.terminal.dimmed(&line);
            }
            AnswerEvent::ToolResult(result) => {
                self.terminal.dimmed(&format!("[-> {}]\n", result.content));
                // The next answer begins.
                self.needs_line_end = true;
            }
            AnswerEvent::End(reply) => {
                let is_last = reply.tool_calls.is_empty() || !reply.text.is_empty();
                if self.show && self.needs_line_end && is_last {
                    self.terminal.answer("\n")?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Saves a conversation with what was computed of it.
///
/// # Errors
/// The file cannot be written.
pub(super) fn save(conversation: &Conversation, path: &Path, terminal: &Terminal) -> Result<()> {
    let saved = conversation.save(path, &SaveOptions::new())?;
    terminal.note(format_args!(
        "(saved {}: {} tokens, {:.1} MB)",
        path.display(),
        saved.tokens,
        saved.bytes as f64 / 1e6,
    ));
    Ok(())
}

/// Says what the context policy dropped.
pub(super) fn explain_dropped(reply: &Reply, terminal: &Terminal) {
    if let Some(dropped) = &reply.dropped {
        let instead = match &dropped.summary {
            Some(summary) => format!("; their summary: {}", summary.text),
            None => String::new(),
        };
        terminal.note(format_args!(
            "(the context was full: the {} oldest messages were dropped, {} tokens{instead})",
            dropped.messages.len(),
            dropped.tokens,
        ));
    }
}
