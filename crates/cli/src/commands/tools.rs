//! The flags of `dunlin run` for tools of MCP servers, and answers with them.

use anyhow::Result;
use clap::{Args, ValueEnum};
use dunlin::{
    CancelToken, Conversation, ToolChoice, ToolOptions, ToolResult, ToolRound, ToolRun, Toolbox,
};
use serde_json::{Value, json};

use super::talk::{TalkArgs, View};
use crate::args::{Global, at_least_one};
use crate::exit::Usage;
use crate::interrupt;
use crate::terminal::Terminal;

/// Which tools there are and how they may be called.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tools")]
pub(super) struct ToolArgs {
    /// Offer the tools of an MCP server: a command line, or an address (http:// or https://); `NAME=` before it begins the names of its
    /// tools with NAME_. May be given several times
    #[arg(
        long, value_name = "[NAME=]COMMAND|ADDRESS", hide = cfg!(not(feature = "mcp")),
        conflicts_with_all = ["raw", "ids", "FormatArgs"]
    )]
    mcp: Vec<String>,
    /// Whether the first answer has to call a tool
    #[arg(
        long, value_enum, value_name = "HOW", default_value_t = Choice::Auto, requires = "mcp",
        hide = cfg!(not(feature = "mcp"))
    )]
    tool_choice: Choice,
    /// Most answers with a call before one without
    #[arg(
        long, value_name = "N", default_value_t = 8, value_parser = at_least_one, requires = "mcp",
        hide = cfg!(not(feature = "mcp"))
    )]
    tool_rounds: usize,
}

/// Whether the first answer has to call a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// The model decides
    Auto,
    /// It has to
    Required,
}

impl From<Choice> for ToolChoice {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Auto => ToolChoice::Auto,
            Choice::Required => ToolChoice::Required,
        }
    }
}

/// Tools that are ready to be called.
pub(super) struct Tools {
    toolbox: Toolbox,
    options: ToolOptions,
    rounds: usize,
}

impl ToolArgs {
    /// Connects the servers; `None` where there are none. `cancel` also ends calls at work.
    ///
    /// # Errors
    /// A server cannot be used, or may not be with --offline.
    pub(super) fn connect(&self, cancel: &CancelToken, global: Global) -> Result<Option<Tools>> {
        if self.mcp.is_empty() {
            return Ok(None);
        }
        let switch = cancel.clone();
        let _work = interrupt::begin(move || switch.cancel());
        let mut toolbox = Toolbox::new();
        for server in &self.mcp {
            toolbox = server::add(toolbox, server, cancel, global)?;
        }
        Ok(Some(Tools {
            toolbox,
            // One call an answer, and as many answers as are needed: small models that may go on calling often do so without end.
            options: ToolOptions::new()
                .with_choice(self.tool_choice.into())
                .with_parallel(false),
            rounds: self.tool_rounds,
        }))
    }
}

impl Tools {
    /// # Errors
    /// The model cannot be offered these tools.
    pub(super) fn offer(&self, conversation: &mut Conversation) -> Result<()> {
        conversation.set_tools(self.toolbox.tools(), self.options.clone())?;
        Ok(())
    }

    /// Says something and answers it, calling tools; shows it piece by piece where `show` says so, until the end or Ctrl-C. Calls and
    /// their results go to stderr.
    ///
    /// # Errors
    /// The answer cannot be started or breaks off, or stdout is closed.
    pub(super) fn answer(
        &self,
        conversation: &mut Conversation,
        args: &TalkArgs,
        show: bool,
        terminal: &Terminal,
        text: &str,
    ) -> Result<ToolRun> {
        let cancel = conversation.options().cancel.clone();
        cancel.reset();
        let switch = cancel.clone();
        let _work = interrupt::begin(move || switch.cancel());
        let mut view = View::new(args, show, terminal);
        let mut failed = None;
        let run = conversation.run_tools_with(&self.toolbox, text, self.rounds, |event| {
            if let (None, Err(error)) = (&failed, view.show(event)) {
                failed = Some(error);
                cancel.cancel();
            }
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(run),
        }
    }
}

/// The calls that were run, with their results.
pub(super) fn calls_as_json(rounds: &[ToolRound]) -> Value {
    let results = rounds.iter().flat_map(|round| &round.results);
    results.map(call_as_json).collect()
}

fn call_as_json(result: &ToolResult) -> Value {
    json!({
        "name": result.call.name,
        "arguments": result.call.arguments,
        "result": result.content,
        "is_error": result.is_error,
    })
}

#[cfg(not(feature = "mcp"))]
mod server {
    use super::{CancelToken, Global, Result, Toolbox, Usage};

    pub(super) fn add(_: Toolbox, _: &str, _: &CancelToken, _: Global) -> Result<Toolbox> {
        let message = "--mcp: this build of Dunlin has no client for MCP servers; build it with `cargo build --release -p dunlin-cli --features mcp`";
        Err(Usage(message.to_owned()).into())
    }
}

#[cfg(feature = "mcp")]
mod server {
    use dunlin::HubConfig;
    use dunlin::mcp::{McpOptions, McpServer};

    use super::{CancelToken, Global, Result, Toolbox, Usage};

    /// Connects a server and adds its tools.
    pub(super) fn add(
        toolbox: Toolbox,
        server: &str,
        cancel: &CancelToken,
        global: Global,
    ) -> Result<Toolbox> {
        let (name, place) = split_name(server);
        let mut options = McpOptions::new().with_cancel(cancel.clone());
        if let Some(name) = name {
            options = options.with_prefix(format!("{name}_"));
        }
        let server = if place.starts_with("http://") || place.starts_with("https://") {
            if global.offline || HubConfig::from_env()?.offline {
                let message = format!(
                    "--mcp {place} is an address, and nothing may leave the machine (--offline)"
                );
                return Err(Usage(message).into());
            }
            McpServer::connect(place, &options)?
        } else {
            let words = split_words(place).map_err(Usage)?;
            let Some((program, arguments)) = words.split_first() else {
                return Err(Usage("--mcp names no command".to_owned()).into());
            };
            McpServer::start(program, arguments, &options)?
        };
        Ok(toolbox.with_mcp(&server)?)
    }

    /// `NAME=` before a command or an address.
    fn split_name(server: &str) -> (Option<&str>, &str) {
        let is_name = |name: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            !name.is_empty() && name.chars().all(allowed)
        };
        match server.split_once('=').filter(|(name, _)| is_name(name)) {
            Some((name, place)) => (Some(name), place),
            None => (None, server),
        }
    }

    /// The words of a command line. As in a shell, quotation marks hold words together; nothing else has a meaning.
    fn split_words(line: &str) -> Result<Vec<String>, String> {
        let mut words: Vec<String> = Vec::new();
        let mut quote = None;
        let mut is_within = false;
        for c in line.chars() {
            match (quote, c) {
                (Some(mark), c) if c == mark => quote = None,
                (None, '"' | '\'') => quote = Some(c),
                (None, c) if c.is_whitespace() => {
                    is_within = false;
                    continue;
                }
                _ => {}
            }
            if !is_within {
                words.push(String::new());
                is_within = true;
            }
            let is_mark = quote == Some(c) || matches!((quote, c), (None, '"' | '\''));
            if let (Some(word), false) = (words.last_mut(), is_mark) {
                word.push(c);
            }
        }
        match quote {
            Some(mark) => Err(format!(
                "--mcp {line}: a quotation mark {mark} is not closed"
            )),
            None => Ok(words),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn names_stand_before_commands_and_addresses() {
            assert_eq!(
                split_name("files=mcp-files /srv"),
                (Some("files"), "mcp-files /srv")
            );
            assert_eq!(
                split_name("mcp-files --root=/srv"),
                (None, "mcp-files --root=/srv")
            );
            let address = "https://example.com/mcp?key=1";
            assert_eq!(split_name(address), (None, address));
        }

        #[test]
        fn quotation_marks_hold_words_together() {
            for (line, words) in [
                ("  a  b ", &["a", "b"][..]),
                ("a 'b c' \"d 'e'\"", &["a", "b c", "d 'e'"]),
                ("a'b c'd ''", &["ab cd", ""]),
                ("C:\\tools\\a.exe", &["C:\\tools\\a.exe"]),
                ("", &[]),
            ] {
                assert_eq!(split_words(line).unwrap(), words, "{line}");
            }
            assert!(split_words("a 'b").is_err());
        }
    }
}
