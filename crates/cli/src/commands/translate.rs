//! `dunlin translate`: texts in another language.

use anyhow::Result;
use clap::Args;
use dunlin::KvTypes;
use dunlin::tasks::Translator;
use serde_json::json;

use super::texts::{self, TextArgs};
use crate::args::{Global, LoadArgs, at_least_one};
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin translate gemma3:1b --to French letter.txt
  echo \"Guten Morgen\" | dunlin translate gemma3:1b --from de --to en
  dunlin translate gemma3:1b --to spanish notes.md --json

Languages are named in English or by their codes of ISO 639. Without --from the language is detected and the model told, where that \
is reliable. A long text is translated in pieces; what stands between them is kept.

With --json: {\"translations\":[{\"file\",\"translation\",\"from\",\"detected\":{\"code\",\"name\",\"confidence\"},\"pieces\",\
\"usage\"}..]}; from is null where no language was named or reliably detected.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TranslateArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    #[command(flatten)]
    texts: TextArgs,
    /// The language to translate into
    #[arg(long, value_name = "LANGUAGE")]
    to: String,
    /// The language of the texts [default: the one that is detected]
    #[arg(long, value_name = "LANGUAGE")]
    from: Option<String>,
    /// Tokens of a piece at most [default: 256, or what the context has room for]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    piece_tokens: Option<usize>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn execute(args: &TranslateArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let texts = args.texts.read()?;
    let lm = super::load(
        &args.model,
        &args.load,
        KvTypes::default(),
        global,
        terminal,
    )?;
    lm.check_writes()?;
    let mut translations = Vec::new();
    for text in &texts {
        let mut view = ProgressView::new(terminal);
        let (cancel, _work) = texts::cancel_at_interrupt();
        let mut translator = Translator::new(&lm, &args.to).with_cancel(cancel);
        if let Some(from) = &args.from {
            translator = translator.with_from(from);
        }
        if let Some(tokens) = args.piece_tokens {
            translator = translator.with_piece_tokens(tokens);
        }
        let found =
            translator.translate_with(&text.text, &mut |done, total| view.compute(done, total))?;
        drop(view);
        if !args.json {
            output::line(&terminal.shown(found.text.trim_end_matches('\n')))?;
            continue;
        }
        let detected = found.detected.map(|language| {
            json!({"code": language.code, "name": language.name, "confidence": language.confidence})
        });
        translations.push(json!({
            "file": text.name,
            "translation": found.text,
            "from": found.from,
            "detected": detected,
            "pieces": found.pieces,
            "usage": texts::usage_as_json(&found.usage),
        }));
    }
    match args.json {
        true => output::json(&json!({ "translations": translations })),
        false => Ok(()),
    }
}
