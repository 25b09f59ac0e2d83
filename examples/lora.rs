//! One model, with an adapter and without: `cargo run --release --example lora -- MODEL ADAPTER [QUESTION]`, such as
//! `smollm2:135m` and a PEFT folder or GGUF file of an adapter trained on it.

use std::io::Write as _;
use std::time::Instant;

use dunlin::{GenerateOptions, Lm, LoraAdapter, Message, Prompt};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "name a model and an adapter (a GGUF file or a PEFT folder)";
    let model = arguments.next().ok_or(usage)?;
    let path = arguments.next().ok_or(usage)?;
    let question = arguments
        .next()
        .unwrap_or_else(|| "Describe the sea in one sentence.".to_owned());

    // What is wrong with the adapter is said before the model is loaded, what does not fit the model afterwards.
    let adapter = LoraAdapter::load(&path)?;
    let lm = Lm::load_from_model_id(&model)?;
    let started = Instant::now();
    let id = lm.add_adapter(&adapter)?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} matrices changed, {:.1} MB, added in {:.1} ms",
        adapter.matrices(),
        lm.adapter_bytes() as f64 / 1e6,
        started.elapsed().as_secs_f64() * 1e3,
    )?;

    // The model's weights are shared: each answer says itself which adapters it wants, and how strongly.
    let prompt = match lm.chat_template() {
        Ok(_) => Prompt::Chat(vec![Message::user(question)]),
        Err(_) => Prompt::Text(question),
    };
    for scale in [0.0, 0.5, 1.0] {
        let options = GenerateOptions::greedy()
            .with_max_tokens(60)
            .with_adapter(id, scale);
        let started = Instant::now();
        let generation = lm.generate(&prompt, &options)?;
        // The prompt is encoded and the adapters are at work; nothing is computed yet.
        let change = started.elapsed().as_secs_f64() * 1e3;
        let answer = generation.complete()?;
        writeln!(out, "\nat scale {scale}: {}", answer.text.trim())?;
        let usage = answer.usage;
        writeln!(
            out,
            "[changed in {change:.2} ms; {} tokens, {:.0} tokens/s]",
            usage.completion_tokens,
            usage.completion_tokens_per_second(),
        )?;
    }
    lm.remove_adapter(id)?;
    Ok(())
}
