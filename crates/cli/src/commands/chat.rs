//! The chat of `dunlin run` in a terminal.

use anyhow::Result;
use dunlin::{Error, GenerateOptions, Lm, Message, Prompt};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use super::run::{RunArgs, answer, explain_end, say_usage};
use crate::terminal::Terminal;

const HELP: &str = "\
  /help           this list
  /clear          forget the conversation
  /system TEXT    say how the model shall behave; without TEXT show it
  /exit           leave (also Ctrl-D)
Ctrl-C stops an answer. The arrow keys bring earlier lines back.";

/// What a typed line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Empty,
    Help,
    Clear,
    ShowSystem,
    SetSystem(&'a str),
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
            ("/clear", "") => Line::Clear,
            ("/exit" | "/quit" | "/bye", "") => Line::Exit,
            ("/system", "") => Line::ShowSystem,
            ("/system", text) => Line::SetSystem(text),
            // A path such as /etc/hosts begins a question, not a command.
            (command, _) if command.starts_with('/') && !command[1..].contains('/') => {
                Line::Unknown(command)
            }
            _ => Line::Say(trimmed),
        }
    }
}

struct Conversation {
    system: Option<String>,
    turns: Vec<Message>,
}

impl Conversation {
    fn messages(&self) -> Vec<Message> {
        self.system
            .as_deref()
            .map(Message::system)
            .into_iter()
            .chain(self.turns.iter().cloned())
            .collect()
    }
}

/// Reads lines and answers them until the user leaves.
///
/// # Errors
/// The terminal or the engine fails; what concerns one message only is said, and the chat goes on.
pub(super) fn execute(
    lm: &Lm,
    args: &RunArgs,
    options: &GenerateOptions,
    terminal: &Terminal,
) -> Result<()> {
    let config = Config::builder().auto_add_history(true).build();
    let mut editor = DefaultEditor::with_config(config)?;
    let mut conversation = Conversation {
        system: args.system.clone(),
        turns: Vec::new(),
    };
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
                conversation.turns.clear();
                terminal.note("(the conversation is forgotten)");
            }
            Line::ShowSystem => match &conversation.system {
                Some(text) => terminal.say(text),
                None => terminal.say("(nothing set)"),
            },
            Line::SetSystem(text) => {
                conversation.system = Some(text.to_owned());
                terminal.note("(set; the conversation so far is kept, /clear forgets it)");
            }
            Line::Unknown(command) => {
                terminal.say(format_args!("{command} is no command; /help shows them"))
            }
            Line::Say(_) if args.raw => {
                // Spaces at the ends are part of a text to be continued.
                complete(lm, args, &Prompt::Text(line), options, terminal)?;
            }
            Line::Say(text) => {
                conversation.turns.push(Message::user(text));
                let prompt = Prompt::Chat(conversation.messages());
                match complete(lm, args, &prompt, options, terminal)? {
                    Some(text) => conversation.turns.push(Message::assistant(text)),
                    None => {
                        conversation.turns.pop();
                    }
                }
            }
        }
    }
}

/// One answer; `None` where there is none because of what was asked.
///
/// # Errors
/// What concerns more than this message.
fn complete(
    lm: &Lm,
    args: &RunArgs,
    prompt: &Prompt,
    options: &GenerateOptions,
    terminal: &Terminal,
) -> Result<Option<String>> {
    let answer = match answer(lm, prompt, options, true, terminal) {
        Ok(answer) => answer,
        Err(error) => {
            let advice = match error.downcast_ref() {
                Some(Error::PromptTooLong { .. }) => "; /clear forgets the conversation",
                Some(Error::Text(_) | Error::UnsafeText | Error::EmptyPrompt) => "",
                _ => return Err(error),
            };
            terminal.say(format_args!("error: {error}{advice}"));
            return Ok(None);
        }
    };
    explain_end(&answer.reason, lm, &answer.usage, terminal);
    if args.verbose {
        say_usage(&answer.usage, terminal);
    }
    Ok(Some(answer.text))
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
