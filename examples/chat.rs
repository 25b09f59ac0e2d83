//! A conversation in two turns: `cargo run --release --example chat -- [MODEL] [QUESTION]`.

use std::io::Write as _;

use dunlin::{AnswerEvent, Conversation, GenerateOptions, Lm};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "smollm2:135m".to_owned());
    let question = arguments
        .next()
        .unwrap_or_else(|| "What is the capital of France?".to_owned());
    let lm = Lm::load_from_model_id(&model)?;
    let options = GenerateOptions::default()
        .with_temperature(0.0)
        .with_max_tokens(200);
    let mut conversation = Conversation::new(&lm)
        .with_system("You are a helpful assistant.")
        .with_options(options);
    let mut out = std::io::stdout().lock();
    for turn in [question.as_str(), "Say that in one short sentence."] {
        writeln!(out, "> {turn}")?;
        // Of the second turn's prompt, the first turn is kept and not computed again.
        for event in conversation.send(turn)? {
            match event? {
                AnswerEvent::Text(piece) => {
                    write!(out, "{piece}")?;
                    out.flush()?;
                }
                AnswerEvent::End(reply) => writeln!(
                    out,
                    "\n[{}; {} prompt tokens, {} of them kept, {:.0} tokens/s; {} tokens, {:.0} tokens/s]\n",
                    reply.finish_reason.as_str(),
                    reply.usage.prompt_tokens,
                    reply.usage.cached_prompt_tokens,
                    reply.usage.prompt_tokens_per_second(),
                    reply.usage.completion_tokens,
                    reply.usage.completion_tokens_per_second(),
                )?,
                _ => {}
            }
        }
    }
    Ok(())
}
