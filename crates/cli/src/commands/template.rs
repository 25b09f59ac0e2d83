//! `dunlin template`: the prompt of a conversation, byte for byte.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use dunlin::{ChatTemplate, DateTime, TemplateInput};
use serde_json::{Map, Value};

use crate::args::Global;
use crate::exit::Usage;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin template smollm2:135m messages.json
  echo '[{\"role\":\"user\",\"content\":\"Hi\"}]' | dunlin template smollm2:135m -
  dunlin template qwen2.5-coder:0.5b messages.json --tools tools.json
  dunlin template model.gguf messages.json --set enable_thinking=false --no-generation-prompt
  dunlin template --file chat.jinja --bos \"<s>\" --eos \"</s>\" messages.json --now 2026-01-15T09:30:00

MESSAGES.json holds a list of objects with role and content. The prompt goes to stdout byte for byte, without a line \
end of its own.";

#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "dunlin template [OPTIONS] <MODEL> <MESSAGES.json>\n       dunlin template [OPTIONS] --file <T.jinja> <MESSAGES.json>"
)]
pub(crate) struct TemplateArgs {
    /// Model (not with --file), then the file with the messages; `-` is stdin
    #[arg(required = true, num_args = 1..=2, value_names = ["MODEL", "MESSAGES.json"])]
    inputs: Vec<String>,
    /// Template file to use instead of a model's
    #[arg(long, value_name = "T.jinja")]
    file: Option<String>,
    /// Text of the bos_token, with --file
    #[arg(long, value_name = "TEXT", requires = "file")]
    bos: Option<String>,
    /// Text of the eos_token, with --file
    #[arg(long, value_name = "TEXT", requires = "file")]
    eos: Option<String>,
    /// JSON file with the list of tools on offer
    #[arg(long, value_name = "FILE")]
    tools: Option<String>,
    /// Template variable, such as enable_thinking=false; may be given several times
    #[arg(long = "set", value_name = "KEY=JSON", value_parser = variable)]
    variables: Vec<(String, Value)>,
    /// Do not open the assistant's turn at the end
    #[arg(long)]
    no_generation_prompt: bool,
    /// What the template sees as today [default: now, in UTC]
    #[arg(long, value_name = "ISO")]
    now: Option<String>,
}

pub(crate) fn execute(args: &TemplateArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let (model, messages) = match (args.inputs.as_slice(), &args.file) {
        ([messages], Some(_)) => (None, messages),
        ([model, messages], None) => (Some(model), messages),
        ([_], None) => {
            return Err(Usage(
                "a model (or --file T.jinja) and a file with messages are needed".to_owned(),
            )
            .into());
        }
        _ => {
            return Err(Usage(
                "--file stands instead of MODEL: name only the file with the messages".to_owned(),
            )
            .into());
        }
    };
    let input = TemplateInput {
        messages: read_messages(messages)?,
        tools: args.tools.as_deref().map(tools).transpose()?.flatten(),
        add_generation_prompt: !args.no_generation_prompt,
        extra: args.variables.iter().cloned().collect::<Map<_, _>>(),
        now: Some(match &args.now {
            Some(now) => now.parse().with_context(|| format!("--now {now:?}"))?,
            None => now(),
        }),
    };
    let text = match (model, &args.file) {
        (Some(model), _) => super::open_text(model, global, terminal)?.render(&input)?,
        (None, Some(file)) => {
            let source = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
            ChatTemplate::new(&source, args.bos.as_deref(), args.eos.as_deref())?.render(&input)?
        }
        (None, None) => bail!("neither a model nor a template"),
    };
    terminal.answer(&text)?;
    Ok(())
}

fn read_messages(path: &str) -> Result<Vec<Value>> {
    match read_json(path)? {
        Value::Array(messages) => Ok(messages),
        _ => bail!(
            "{path} is no list of messages; it should look like [{{\"role\":\"user\",\"content\":\"Hi\"}}]"
        ),
    }
}

/// The list of tools; `null` stands for none.
///
/// # Errors
/// The file cannot be read, or holds something else.
fn tools(path: &str) -> Result<Option<Value>> {
    match read_json(path)? {
        Value::Null => Ok(None),
        list @ Value::Array(_) => Ok(Some(list)),
        _ => {
            bail!("{path} is no list of tools; it should look like [{{\"type\":\"function\",..}}]")
        }
    }
}

fn read_json(path: &str) -> Result<Value> {
    let text = match path {
        "-" => super::read_stdin()?,
        _ => fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
    };
    serde_json::from_str(&text).with_context(|| format!("{path} is not valid JSON"))
}

fn variable(text: &str) -> Result<(String, Value), String> {
    let (key, json) = text
        .split_once('=')
        .ok_or("it should look like enable_thinking=false")?;
    let value = serde_json::from_str(json).map_err(|error| {
        format!("{json:?} is not valid JSON ({error}); a text needs its quotes: {key}='\"{json}\"'")
    })?;
    Ok((key.to_owned(), value))
}

fn now() -> DateTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    DateTime::from_unix_seconds(since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }))
}

#[cfg(test)]
mod tests {
    use super::variable;

    #[test]
    fn a_variable_is_json() {
        assert_eq!(
            variable("enable_thinking=false").unwrap(),
            ("enable_thinking".to_owned(), false.into())
        );
        assert_eq!(
            variable("a=\"x=y\"").unwrap(),
            ("a".to_owned(), "x=y".into())
        );
        assert!(variable("a=x").unwrap_err().contains("quotes"));
        assert!(variable("a").is_err());
    }
}
