//! The chat of `dunlin run` in a terminal.

use std::path::Path;

use anyhow::Result;
use dunlin::{Answer, Conversation, Error, GenerateOptions, Lm, Prompt, Reply};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use super::run::{self, RunArgs, explain_end, say_usage};
use super::talk;
use super::tools::Tools;
use crate::terminal::Terminal;

const HELP: &str = "\
  /help           this list
  /regenerate     answer the last message once more
  /continue       go on with an answer that was cut
  /undo           take the last message and its answer back
  /clear          forget the conversation
  /system TEXT    say how the model shall behave; without TEXT show it
  /save FILE      save the conversation; without FILE where --session says
  /exit           leave (also Ctrl-D)
Ctrl-C stops an answer. The arrow keys bring earlier lines back.";

/// What a typed line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Empty,
    Help,
    Regenerate,
    Continue,
    Undo,
    Clear,
    ShowSystem,
    SetSystem(&'a str),
    Save(Option<&'a str>),
    Exit,
    Unknown(&'a str),
    Say(&'a str),
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let trimmed = line.trim();
        let (command, rest) = trimmed
            .split_once(char::is_whitespace)
            .unwrap_or((trimmed, ""));
        match (command, rest.trim()) {
            ("", _) => Line::Empty,
            ("/help" | "/?", "") => Line::Help,
            ("/regenerate" | "/retry", "") => Line::Regenerate,
            ("/continue", "") => Line::Continue,
            ("/undo", "") => Line::Undo,
            ("/clear", "") => Line::Clear,
            ("/exit" | "/quit" | "/bye", "") => Line::Exit,
            ("/system", "") => Line::ShowSystem,
            ("/system", text) => Line::SetSystem(text),
            ("/save", "") => Line::Save(None),
            ("/save", file) => Line::Save(Some(file)),
            // A path such as /etc/hosts begins a question, not a command.
            (command, _) if command.starts_with('/') && !command[1..].contains('/') => {
                Line::Unknown(command)
            }
            _ => Line::Say(trimmed),
        }
    }
}

/// Reads lines and answers them until the user leaves.
///
/// # Errors
/// The terminal or the engine fails, or the session cannot be restored or saved; what concerns one message only is said, and
/// the chat goes on.
pub(super) fn execute(
    lm: &Lm,
    args: &RunArgs,
    options: &GenerateOptions,
    tools: Option<&Tools>,
    terminal: &Terminal,
) -> Result<()> {
    let mut conversation = talk::open(lm, args, options, terminal)?;
    if let Some(tools) = tools {
        tools.offer(&mut conversation)?;
    }
    let ended = converse(&mut conversation, args, tools, terminal);
    // What was said is saved, too, where the terminal or the engine failed.
    if let Some(session) = &args.talk.session {
        talk::save(&conversation, session, terminal)?;
    }
    ended
}

fn converse(
    conversation: &mut Conversation,
    args: &RunArgs,
    tools: Option<&Tools>,
    terminal: &Terminal,
) -> Result<()> {
    let config = Config::builder().auto_add_history(true).build();
    let mut editor = DefaultEditor::with_config(config)?;
    let what = if args.raw {
        "Type the beginning of a text to be continued"
    } else {
        "Type a message"
    };
    terminal.note(format_args!(
        "{}. {what}; /help shows commands, /exit or Ctrl-D leaves.",
        args.model
    ));
    loop {
        let line = match editor.readline(">>> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                terminal.note("(/exit or Ctrl-D leaves)");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match Line::parse(&line) {
            Line::Empty => {}
            Line::Help => terminal.say(HELP),
            Line::Exit => return Ok(()),
            Line::Clear => {
                conversation.clear();
                terminal.note("(the conversation is forgotten)");
            }
            Line::Undo => {
                let count = conversation.undo().len();
                terminal.note(format_args!("({count} messages taken back)"));
            }
            Line::ShowSystem => match conversation.system() {
                Some(text) => terminal.say(text),
                None => terminal.say("(nothing set)"),
            },
            Line::SetSystem(text) => {
                conversation.set_system(Some(text.to_owned()));
                terminal.note("(set; the conversation so far is kept, /clear forgets it)");
            }
            Line::Save(file) => save(conversation, file.map(Path::new), args, terminal),
            Line::Regenerate => match tools {
                Some(tools) => {
                    let question = conversation.undo().first().map(|said| said.content.clone());
                    match question {
                        Some(question) => say(conversation, args, tools, terminal, &question)?,
                        None => terminal.say(Error::NothingToAnswer),
                    }
                }
                None => answer(conversation, args, terminal, Conversation::regenerate)?,
            },
            Line::Continue => answer(conversation, args, terminal, Conversation::continue_answer)?,
            Line::Unknown(command) => {
                terminal.say(format_args!("{command} is no command; /help shows them"))
            }
            Line::Say(_) if args.raw => {
                // Spaces at the ends are part of a text to be continued.
                complete(conversation, args, &Prompt::Text(line), terminal)?;
            }
            Line::Say(text) => match tools {
                Some(tools) => say(conversation, args, tools, terminal, text)?,
                None => answer(conversation, args, terminal, |talk| talk.send(text))?,
            },
        }
    }
}

/// One message that is answered with tools.
///
/// # Errors
/// What concerns more than this message.
fn say(
    conversation: &mut Conversation,
    args: &RunArgs,
    tools: &Tools,
    terminal: &Terminal,
    text: &str,
) -> Result<()> {
    let run = tools.answer(conversation, &args.talk, true, terminal, text);
    conclude(conversation, args, run.map(|run| run.reply), terminal)
}

/// One answer of the conversation.
///
/// # Errors
/// What concerns more than this message.
fn answer(
    conversation: &mut Conversation,
    args: &RunArgs,
    terminal: &Terminal,
    start: impl for<'c> FnOnce(&'c mut Conversation) -> Result<Answer<'c>, Error>,
) -> Result<()> {
    let reply = talk::answer(conversation, &args.talk, true, terminal, start);
    conclude(conversation, args, reply, terminal)
}

/// Says how an answer of the conversation ended.
///
/// # Errors
/// What concerns more than this message.
fn conclude(
    conversation: &Conversation,
    args: &RunArgs,
    reply: Result<Reply>,
    terminal: &Terminal,
) -> Result<()> {
    match reply {
        Ok(reply) => {
            talk::explain_dropped(&reply, terminal);
            explain_end(
                &reply.finish_reason,
                conversation.lm(),
                &reply.usage,
                terminal,
            );
            if args.verbose {
                say_usage(&reply.usage, terminal);
            }
            Ok(())
        }
        Err(error) => say_error(error, terminal),
    }
}

/// One text continued without a conversation.
///
/// # Errors
/// What concerns more than this text.
fn complete(
    conversation: &Conversation,
    args: &RunArgs,
    prompt: &Prompt,
    terminal: &Terminal,
) -> Result<()> {
    let lm = conversation.lm();
    match run::answer(lm, prompt, conversation.options(), true, terminal) {
        Ok(answer) => {
            explain_end(&answer.reason, lm, &answer.usage, terminal);
            if args.verbose {
                say_usage(&answer.usage, terminal);
            }
            Ok(())
        }
        Err(error) => say_error(error, terminal),
    }
}

/// Says what concerns one message only.
///
/// # Errors
/// Any other error.
fn say_error(error: anyhow::Error, terminal: &Terminal) -> Result<()> {
    let advice = match error.downcast_ref() {
        Some(Error::PromptTooLong { .. } | Error::ConversationTooLong { .. }) => {
            "; /undo takes the last turn back, /clear forgets the conversation"
        }
        Some(
            Error::Text(_)
            | Error::UnsafeText
            | Error::EmptyPrompt
            | Error::Cancelled
            | Error::NothingToAnswer
            | Error::NothingToContinue
            | Error::ContinueForm
            | Error::CannotReason,
        ) => "",
        _ => return Err(error),
    };
    terminal.say(format_args!("error: {error}{advice}"));
    Ok(())
}

fn save(conversation: &Conversation, file: Option<&Path>, args: &RunArgs, terminal: &Terminal) {
    let Some(path) = file.or(args.talk.session.as_deref()) else {
        return terminal.say("name a file: /save FILE");
    };
    if let Err(error) = talk::save(conversation, path, terminal) {
        terminal.say(format_args!("error: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn commands_begin_with_a_slash() {
        assert_eq!(Line::parse(" /help "), Line::Help);
        assert_eq!(
            Line::parse("/system  Be brief. "),
            Line::SetSystem("Be brief.")
        );
        assert_eq!(Line::parse("/system"), Line::ShowSystem);
        assert_eq!(Line::parse("/clear"), Line::Clear);
        assert_eq!(Line::parse("/regenerate"), Line::Regenerate);
        assert_eq!(Line::parse("/continue"), Line::Continue);
        assert_eq!(Line::parse("/undo"), Line::Undo);
        assert_eq!(Line::parse("/save"), Line::Save(None));
        assert_eq!(Line::parse("/save a b"), Line::Save(Some("a b")));
        assert_eq!(Line::parse("/exit"), Line::Exit);
        assert_eq!(Line::parse("/sytem x"), Line::Unknown("/sytem"));
    }

    #[test]
    fn everything_else_is_said_to_the_model() {
        assert_eq!(Line::parse("   "), Line::Empty);
        assert_eq!(Line::parse(" Hi there "), Line::Say("Hi there"));
        assert_eq!(
            Line::parse("/etc/hosts: what is it?"),
            Line::Say("/etc/hosts: what is it?")
        );
    }
}
