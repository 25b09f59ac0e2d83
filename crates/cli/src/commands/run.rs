//! `dunlin run`: one answer, or a chat.

mod format;

use std::mem::ManuallyDrop;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use dunlin::{
    CancelToken, DraftLength, Error, Event, FinishReason, GenerateOptions, Lm, Message,
    OutputFormat, Prompt, Reasoning, Speculation, TokenLogprob, Usage,
};
use serde_json::{Value, json};

use super::chat;
use super::lora::{self, LoraArg};
use super::sampling::SamplingArgs;
use super::several::SeveralArgs;
use super::talk::{self, TalkArgs};
use super::tools::{self, ToolArgs};
use crate::args::{Global, LoadArgs, at_least_one};
use crate::exit::{self, Finished};
use crate::kv::KvArgs;
use crate::terminal::Terminal;
use crate::{interrupt, lists, output};
use format::FormatArgs;

/// Tokens of a plain completion that nobody limited: a base model knows no end.
const RAW_MAX_TOKENS: usize = 256;

const EXAMPLES: &str = "\
Examples:
  dunlin run smollm2:135m \"What is the capital of Japan?\"
  dunlin run smollm2:135m --system \"Answer in one word.\" --temperature 0 \"Largest planet?\"
  git diff | dunlin run qwen2.5-coder:0.5b --system \"Write a commit message for this diff.\"
  dunlin run gemma3:270m --raw --max-tokens 64 \"Once upon a time\"
  dunlin run smollm2:135m --json --seed 7 \"Say hello\"
  dunlin run smollm2:135m --temperature 1 --top-k 0 --typical-p 0.9 --dry-multiplier 0.8 \"Tell a story\"
  dunlin run smollm2:135m --json --logprobs 3 --max-tokens 8 \"Largest planet?\"
  dunlin run smollm2:135m --beams 4 --max-tokens 32 \"Translate to French: good morning\"
  dunlin run smollm2:135m --json-schema person.json \"Invent a person\"
  dunlin run smollm2:135m --choices yes,no \"Is the sky blue?\"
  dunlin run smollm2:135m --regex '[0-9]{4}' --raw \"The year was \"
  dunlin run smollm2:135m --grammar list.gbnf \"Three colours\"
  dunlin run qwen2.5-coder:0.5b --verbose --draft ./draft.gguf \"Write quicksort in Python\"
  dunlin run smollm2:135m --lora ./pirate-lora:0.8 \"Describe the sea\"
  dunlin run smollm2:135m                       chat; /help shows its commands
  dunlin run smollm2:135m --session notes.session --context-policy drop-oldest-turns
  dunlin run smollm2:135m --session notes.session \"And what did I ask before?\"
  dunlin run qwen3:0.6b --reasoning-budget 200 \"How many days have three weeks?\"

The prompt is the argument, else stdin (its last line end left out), else typed in a chat. Ctrl-C stops an answer; in \
a chat the program goes on.

An answer with a form is held to it token by token; the model is not told, so say in the prompt what you ask for. Where it is \
cut short by --max-tokens or the context, it is the beginning of one. What a schema or grammar asks for and cannot be kept is an error.

With --json: {\"text\",\"finish_reason\",\"usage\":{\"prompt_tokens\",\"completion_tokens\",\"prompt_tokens_per_second\", \
\"completion_tokens_per_second\",\"cached_prompt_tokens\",\"drafted_tokens\",\"accepted_tokens\",\"forced_tokens\"}}; finish_reason is \
stop, length or cancelled. Of a model that reasons there is \"reasoning\", too. With --logprobs there is \"logprobs\", one {\"token\",\"text\",\"bytes\",\"logprob\",\"top\"} a token, of the model's \
probabilities before all steps of the sampler; with --beams or --best-of \"answers\", the best first, each {\"text\",\"finish_reason\",\"score\"}. Without --json the answer streams to stdout as it is made, and a line end follows where it has none.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    pub(super) model: String,
    /// What to ask; `-` reads stdin
    prompt: Option<String>,
    /// How the model shall behave
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["raw", "ids"])]
    pub(super) system: Option<String>,
    /// Continue the text itself, without chat template: the way of base models
    #[arg(long)]
    pub(super) raw: bool,
    /// With --raw: read texts of control tokens in the prompt, such as <|fim_prefix|>, as these tokens
    #[arg(long, requires = "raw")]
    parse_special: bool,
    /// Continue these token ids exactly as they are (1,2,3 or a file)
    #[arg(long, value_name = "LIST|FILE", conflicts_with_all = ["prompt", "raw"])]
    ids: Option<String>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    /// Say tokens, speed and seed on stderr
    #[arg(long, short)]
    pub(super) verbose: bool,
    #[command(flatten)]
    pub(super) generate: GenerateArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    pub(super) talk: TalkArgs,
    #[command(flatten)]
    tools: ToolArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    kv: KvArgs,
}

/// How the answer is chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answer")]
pub(super) struct GenerateArgs {
    /// Most tokens of the answer [default: the context; 256 with --raw or --ids]
    #[arg(long, short = 'n', value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<usize>,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// How tokens are guessed to compute several at once; the answer does not depend on it
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Speculate::Auto)]
    speculate: Speculate,
    /// A small model with the same vocabulary that guesses tokens; the answer does not depend on it
    #[arg(long, value_name = "MODEL", conflicts_with = "speculate")]
    draft: Option<String>,
    /// With --json: the log-probability of each token, and of this many of the likeliest at its place
    #[arg(long, value_name = "N", requires = "json")]
    logprobs: Option<usize>,
    #[command(flatten)]
    several: SeveralArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// A LoRA adapter (GGUF file or PEFT folder) and how strongly it works [default: 1]; may be given several times
    #[arg(long, value_name = "FILE[:SCALE]", value_parser = lora::parse)]
    lora: Vec<LoraArg>,
}

/// How tokens are guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Speculate {
    /// From what followed the same words before, where the model allows it
    Auto,
    /// Not at all
    Off,
    /// As auto, and an error where the model does not allow it
    Lookup,
}

impl From<Speculate> for Speculation {
    fn from(how: Speculate) -> Self {
        match how {
            Speculate::Auto => Speculation::Auto,
            Speculate::Off => Speculation::Off,
            Speculate::Lookup => Speculation::PromptLookup {
                length: DraftLength::Adaptive,
            },
        }
    }
}

impl GenerateArgs {
    /// # Errors
    /// A setting is outside its range, or says nothing.
    fn options(&self) -> Result<GenerateOptions, exit::Usage> {
        if self.stop.iter().any(String::is_empty) {
            let message = "--stop is empty, and every answer would end before its first letter";
            return Err(exit::Usage(message.to_owned()));
        }
        let mut options = GenerateOptions::new();
        self.sampling.apply(&mut options)?;
        options.max_tokens = self.max_tokens;
        options.stop.clone_from(&self.stop);
        options.speculation = self.speculate.into();
        options.logprobs = self.logprobs;
        Ok(options)
    }
}

pub(crate) fn execute(args: &RunArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let is_raw = args.raw || args.ids.is_some();
    let text = match (&args.prompt, &args.ids) {
        (_, Some(_)) => None,
        (Some(prompt), None) if prompt != "-" => Some(prompt.clone()),
        (None, None) if terminal.stdin => None,
        _ => Some(without_line_end(super::read_stdin()?)),
    };
    // A list that cannot be read is said before a model is loaded.
    let ids = args.ids.as_deref().map(lists::parse_or_read).transpose()?;
    let is_chat = text.is_none() && ids.is_none();
    if is_chat && (args.json || !terminal.stdout) {
        let message = "there is no prompt: give it as argument or on stdin (a chat needs a terminal, without --json)";
        return Err(exit::Usage(message.to_owned()).into());
    }
    // What is wrong with the settings is said before a model is fetched and loaded.
    let mut options = args.generate.options()?;
    options.format = args.format.format()?;
    if is_chat && args.generate.several.is_asked() {
        let message =
            "--beams and --best-of search for one answer: give a prompt as argument or on stdin";
        return Err(exit::Usage(message.to_owned()).into());
    }
    if args.generate.several.is_beams() && !matches!(options.format, OutputFormat::Text) {
        let message = "--beams cannot keep a form of the answer: leave one of the two out";
        return Err(exit::Usage(message.to_owned()).into());
    }
    let reasoning = args.talk.reasoning()?;
    let is_several = args.generate.several.is_asked();
    if is_several && (reasoning != Reasoning::Auto || args.talk.session.is_some()) {
        let message = "--beams and --best-of give answers of no conversation: leave --session, --reasoning off and --reasoning-budget out";
        return Err(exit::Usage(message.to_owned()).into());
    }
    let adapters = lora::open(&args.generate.lora)?;
    let tools = args.tools.connect(&options.cancel, global)?;
    if is_several && tools.is_some() {
        let message = "--beams and --best-of give answers of no conversation: leave --mcp out";
        return Err(exit::Usage(message.to_owned()).into());
    }
    if is_raw {
        options.max_tokens.get_or_insert(RAW_MAX_TOKENS);
    }

    // The program ends after this: its memory need not be given back piece by piece before.
    let lm = ManuallyDrop::new(super::load(
        &args.model,
        &args.load,
        args.kv.types(),
        global,
        terminal,
    )?);
    lm.check_writes()?;
    args.generate.sampling.apply_for(&lm, &mut options)?;
    options = lora::add(&lm, &adapters, options)?;
    if let Some(draft) = &args.generate.draft {
        let model = super::load_draft(draft, &args.load, lm.context_length(), global, terminal)?;
        model.check_vocabulary(lm.tokenizer())?;
        options.speculation = Speculation::Draft {
            model,
            length: DraftLength::Adaptive,
        };
    }
    if !is_raw {
        require_template(&lm, &args.model)?;
    }
    let session = args.talk.session.as_deref();
    let reasons = lm.reasoning_format().is_some() || reasoning != Reasoning::Auto;
    let is_talk = !is_raw && !is_several && (reasons || session.is_some() || tools.is_some());
    if let (Some(text), true) = (&text, is_talk) {
        let mut conversation = talk::open(&lm, args, &options, terminal)?;
        if session.is_none() {
            // There is no further turn to keep room for.
            conversation = conversation.with_answer_room(1);
        }
        let show = !args.json;
        let (reply, rounds) = match &tools {
            Some(tools) => {
                tools.offer(&mut conversation)?;
                let run =
                    tools.answer(&mut conversation, &args.talk, show, terminal, text.as_str())?;
                (run.reply, Some(run.rounds))
            }
            None => {
                let reply = talk::answer(&mut conversation, &args.talk, show, terminal, |talk| {
                    talk.send(text.as_str())
                })?;
                (reply, None)
            }
        };
        if let Some(session) = session {
            talk::save(&conversation, session, terminal)?;
        }
        talk::explain_dropped(&reply, terminal);
        let answer = Answer {
            text: reply.text,
            reasoning: reply.reasoning,
            reason: reply.finish_reason,
            usage: reply.usage,
            logprobs: reply.logprobs,
        };
        if args.json {
            let mut json = answer_as_json(&answer);
            if let Some(rounds) = &rounds {
                json["tool_calls"] = tools::calls_as_json(rounds);
            }
            output::json(&json)?;
        }
        return finish(args, &lm, &answer.reason, &answer.usage, terminal);
    }
    let prompt = match (text, ids) {
        (_, Some(ids)) => Prompt::Tokens(ids),
        (Some(text), None) if args.parse_special => {
            Prompt::Tokens(with_control_tokens(&lm, &text)?)
        }
        (Some(text), None) if args.raw => Prompt::Text(text),
        (Some(text), None) => Prompt::Chat(messages(args.system.as_deref(), text)),
        (None, None) => return chat::execute(&lm, args, &options, tools.as_ref(), terminal),
    };
    let several = &args.generate.several;
    let (reason, usage) = if several.is_asked() {
        several.run(&lm, &prompt, &options, args.json, terminal)?
    } else {
        let answer = answer(&lm, &prompt, &options, !args.json, terminal)?;
        if args.json {
            output::json(&answer_as_json(&answer))?;
        }
        (answer.reason, answer.usage)
    };
    finish(args, &lm, &reason, &usage, terminal)
}

/// Says how an answer ended, in words where it was not shown as JSON.
fn finish(
    args: &RunArgs,
    lm: &Lm,
    reason: &FinishReason,
    usage: &Usage,
    terminal: &Terminal,
) -> Result<()> {
    if !args.json {
        explain_end(reason, lm, usage, terminal);
    }
    if args.verbose {
        say_usage(usage, terminal);
    }
    match reason {
        FinishReason::Cancelled => Err(Finished(interrupt::EXIT_CODE).into()),
        _ => Ok(()),
    }
}

/// # Errors
/// The model is a base model.
fn require_template(lm: &Lm, model: &str) -> Result<()> {
    match lm.chat_template() {
        Ok(_) => Ok(()),
        Err(Error::NoChatTemplate) => Err(anyhow!(
            "{model} has no chat template: it is a base model, which continues text instead of answering. \
             Let it continue yours with `dunlin run {model} --raw \"Once upon a time\"`, or choose its chat \
             (\"instruct\") variant"
        )),
        Err(error) => Err(error.into()),
    }
}

/// An answer, as far as the command shows it.
pub(super) struct Answer {
    pub(super) text: String,
    reasoning: Option<String>,
    pub(super) reason: FinishReason,
    pub(super) usage: Usage,
    logprobs: Option<Vec<TokenLogprob>>,
}

fn answer_as_json(answer: &Answer) -> Value {
    let mut json = json!({
        "text": answer.text,
        "finish_reason": answer.reason.as_str(),
        "usage": usage_as_json(&answer.usage),
    });
    if let Some(reasoning) = &answer.reasoning {
        json["reasoning"] = reasoning.as_str().into();
    }
    if let Some(logprobs) = &answer.logprobs {
        json["logprobs"] = logprobs.iter().map(logprob_as_json).collect();
    }
    json
}

pub(super) fn usage_as_json(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_per_second": usage.prompt_tokens_per_second(),
        "completion_tokens_per_second": usage.completion_tokens_per_second(),
        "cached_prompt_tokens": usage.cached_prompt_tokens,
        "drafted_tokens": usage.drafted_tokens,
        "accepted_tokens": usage.accepted_tokens,
        "forced_tokens": usage.forced_tokens,
    })
}

fn logprob_as_json(token: &TokenLogprob) -> Value {
    let top = token.top.iter().map(|other| {
        json!({"token": other.token, "text": other.text(), "bytes": other.bytes, "logprob": other.logprob})
    });
    json!({
        "token": token.token,
        "text": token.text(),
        "bytes": token.bytes,
        "logprob": token.logprob,
        "top": top.collect::<Vec<_>>(),
    })
}

/// Generates one answer, shown piece by piece where `show` says so, until its end or Ctrl-C.
///
/// # Errors
/// The prompt does not fit or cannot be used, or stdout is closed.
pub(super) fn answer(
    lm: &Lm,
    prompt: &Prompt,
    options: &GenerateOptions,
    show: bool,
    terminal: &Terminal,
) -> Result<Answer> {
    let cancel = CancelToken::new();
    let switch = cancel.clone();
    let _work = interrupt::begin(move || switch.cancel());
    let options = options.clone().with_cancel(cancel);
    let mut text = String::new();
    let mut generation = lm.generate(prompt, &options)?;
    while let Some(event) = generation.next() {
        match event? {
            Event::Text(piece) => {
                if show {
                    terminal.answer(&piece)?;
                }
                text.push_str(&piece);
            }
            Event::End { reason, usage } => {
                if show && !text.ends_with('\n') {
                    terminal.answer("\n")?;
                }
                let logprobs = options.logprobs.map(|_| generation.logprobs().to_vec());
                return Ok(Answer {
                    text,
                    reasoning: None,
                    reason,
                    usage,
                    logprobs,
                });
            }
        }
    }
    Err(anyhow!("the answer broke off without an end"))
}

/// Says where an answer ended for another reason than that it was complete.
pub(super) fn explain_end(reason: &FinishReason, lm: &Lm, usage: &Usage, terminal: &Terminal) {
    match reason {
        FinishReason::ContextFull => terminal.note(format_args!(
            "(the context of {} tokens is full; --context sets another length)",
            lm.context_length()
        )),
        FinishReason::Length => terminal.note(format_args!(
            "(stopped after {} tokens; --max-tokens sets another limit)",
            usage.completion_tokens
        )),
        FinishReason::Cancelled => terminal.note("(interrupted)"),
        _ => {}
    }
}

pub(super) fn say_usage(usage: &Usage, terminal: &Terminal) {
    let kept = match usage.cached_prompt_tokens {
        0 => String::new(),
        kept => format!(", {kept} of them kept from before"),
    };
    let guessed = match usage.drafted_tokens {
        0 => String::new(),
        guessed => format!(" ({} of {guessed} guesses right)", usage.accepted_tokens),
    };
    terminal.say(format_args!(
        "prompt: {} tokens{kept}, {:.1} tokens/s; answer: {} tokens, {:.1} tokens/s{guessed}; seed {}",
        usage.prompt_tokens,
        usage.prompt_tokens_per_second(),
        usage.completion_tokens,
        usage.completion_tokens_per_second(),
        usage.seed,
    ));
}

fn messages(system: Option<&str>, text: String) -> Vec<Message> {
    system
        .map(Message::system)
        .into_iter()
        .chain([Message::user(text)])
        .collect()
}

/// The ids of a completion's text with control tokens read, BOS in front where the model wants it and the text has none.
fn with_control_tokens(lm: &Lm, text: &str) -> Result<Vec<u32>> {
    let tokenizer = lm.tokenizer();
    let mut ids = tokenizer.encode(text, true)?;
    if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos())
        && ids.first() != Some(&bos)
    {
        ids.insert(0, bos);
    }
    Ok(ids)
}

/// `echo` and editors end a text with a line end that is not meant as part of it.
fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
