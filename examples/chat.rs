//! A conversation in two turns: `cargo run --release --example chat -- [MODEL] [QUESTION]`.

use std::io::Write as _;

use dunlin::{Event, GenerateOptions, Lm, Message, Prompt};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "smollm2:135m".to_owned());
    let question = arguments
        .next()
        .unwrap_or_else(|| "What is the capital of France?".to_owned());
    let lm = Lm::load_from_model_id(&model)?;
    let mut messages = vec![Message::system("You are a helpful assistant.")];
    let mut out = std::io::stdout().lock();
    for turn in [question.as_str(), "Say that in one short sentence."] {
        writeln!(out, "> {turn}")?;
        messages.push(Message::user(turn));
        let options = GenerateOptions::default()
            .with_temperature(0.0)
            .with_max_tokens(200);
        let mut answer = String::new();
        // Of the second turn's prompt, the first turn is kept and not computed again.
        for event in lm.generate(&Prompt::Chat(messages.clone()), &options)? {
            match event? {
                Event::Text(piece) => {
                    write!(out, "{piece}")?;
                    out.flush()?;
                    answer.push_str(&piece);
                }
                Event::End { reason, usage } => writeln!(
                    out,
                    "\n[{}; {} prompt tokens, {} of them kept, {:.0} tokens/s; {} tokens, {:.0} tokens/s]\n",
                    reason.as_str(),
                    usage.prompt_tokens,
                    usage.cached_prompt_tokens,
                    usage.prompt_tokens_per_second(),
                    usage.completion_tokens,
                    usage.completion_tokens_per_second(),
                )?,
            }
        }
        messages.push(Message::assistant(answer));
    }
    Ok(())
}
