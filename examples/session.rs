//! A conversation that goes on where the last run left it:
//! `cargo run --release --example session -- [FILE] [MESSAGE] [MODEL]`.

use std::io::Write as _;
use std::path::Path;

use dunlin::{ContextPolicy, Conversation, GenerateOptions, Lm, SaveOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let file = argument("example.session");
    let message = argument("Tell me one more fact about France.");
    let model = argument("smollm2:135m");
    let lm = Lm::load_from_model_id(&model)?;
    let mut out = std::io::stdout().lock();
    let conversation = if Path::new(&file).exists() {
        // Fails with a typed error where the file is of another model, or damaged.
        let (conversation, restored) = Conversation::restore(&lm, &file)?;
        writeln!(
            out,
            "[restored {} tokens, {} of them need not be computed again]",
            restored.tokens, restored.kv_tokens
        )?;
        conversation
    } else {
        Conversation::new(&lm).with_system("Answer in one sentence.")
    };
    let mut conversation = conversation
        .with_options(GenerateOptions::greedy().with_max_tokens(100))
        .with_policy(ContextPolicy::DropOldestTurns);

    let reply = conversation.ask(message)?;
    writeln!(out, "{}", reply.text)?;
    if let Some(dropped) = &reply.dropped {
        writeln!(out, "[dropped {} messages]", dropped.messages.len())?;
    }
    writeln!(
        out,
        "[{} prompt tokens, {} of them kept]",
        reply.usage.prompt_tokens, reply.usage.cached_prompt_tokens
    )?;
    let saved = conversation.save(&file, &SaveOptions::new())?;
    writeln!(out, "[saved {} bytes]", saved.bytes)?;
    Ok(())
}
