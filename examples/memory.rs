//! What a model takes against what its header promises, as one line of JSON:
//! `cargo run --release --example memory -- MODEL.gguf CONTEXT [f16|f32|q8_0|q4_0] [mapped]`.
//!
//! The memory is that of the whole process, so that each figure needs a process of its own: `scripts/memory` runs it for
//! several models and contexts.

use std::io::Write as _;
use std::path::PathBuf;

use dunlin::{
    FitOptions, GenerateOptions, KvElement, Lm, LoadOptions, MemoryEstimate, ModelRef, Prompt,
    peak_resident_bytes, resident_bytes,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "MODEL.gguf CONTEXT [f16|f32|q8_0|q4_0] [mapped]";
    let path = PathBuf::from(arguments.next().ok_or(usage)?);
    let context: usize = arguments.next().ok_or(usage)?.parse()?;
    let mut options = FitOptions::default();
    for argument in arguments {
        match argument.as_str() {
            "mapped" => options.mapped_weights = true,
            name => options.kv_types = KvElement::from_name(name).ok_or(usage)?.into(),
        }
    }
    let promised = MemoryEstimate::with_options(&path, context, &options)?;
    let before = resident_bytes().ok_or("this system does not tell a process its memory")?;

    let load = LoadOptions::default()
        .with_context_length(context)
        .with_kv_types(options.kv_types)
        .with_mapped_weights(options.mapped_weights);
    let lm = Lm::load(ModelRef::Path(path), load)?;
    let loaded = resident_bytes();

    // All of the context but a few tokens, which the answer takes.
    let vocab_size = lm.tokenizer().vocab_size() as u32;
    let answer = 4.min(context / 2);
    let token = |at: usize| (at as u32 * 7919) % vocab_size;
    let prompt = Prompt::Tokens((0..context - answer).map(token).collect());
    let mut generate = GenerateOptions::greedy().with_max_tokens(answer);
    generate.ignore_end_of_text = true;
    let completion = lm.generate(&prompt, &generate)?.complete()?;

    let line = serde_json::json!({
        "promised": promised,
        "promised_loaded": promised.loaded(),
        "promised_total": promised.total(),
        "before": before,
        "loaded": loaded,
        "full": resident_bytes(),
        "peak": peak_resident_bytes(),
        "computed": completion.usage.prompt_tokens + completion.usage.completion_tokens,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
