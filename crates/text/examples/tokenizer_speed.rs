//! How long it takes to build a model's tokenizer, and how fast it encodes and decodes:
//! `cargo run --release -p dunlin-text --example tokenizer_speed -- MODEL.gguf TEXT.txt`

#![allow(clippy::print_stdout)]

use std::{error::Error, fs, path::Path, time::Instant};

use dunlin_format::Gguf;
use dunlin_text::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(text)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tokenizer_speed MODEL.gguf TEXT.txt".into());
    };
    let text = fs::read_to_string(text)?;
    let gguf = Gguf::open(Path::new(&model))?;

    let start = Instant::now();
    let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
    let built = start.elapsed();

    let start = Instant::now();
    tokenizer.encode("The capital of France is", true)?;
    let first = start.elapsed();

    let start = Instant::now();
    let ids = tokenizer.encode(&text, false)?;
    let encoded = start.elapsed();

    let start = Instant::now();
    let decoded = tokenizer.decode(&ids, true);
    let decode = start.elapsed();

    println!(
        "{model}: {} tokens in the vocabulary",
        tokenizer.vocab_size()
    );
    println!("  build         {:8.1} ms", built.as_secs_f64() * 1e3);
    println!("  first prompt  {:8.1} ms", first.as_secs_f64() * 1e3);
    let megabytes = |bytes: usize, seconds: f64| bytes as f64 / 1e6 / seconds;
    println!(
        "  encode        {:8.1} MB/s ({} bytes, {} tokens)",
        megabytes(text.len(), encoded.as_secs_f64()),
        text.len(),
        ids.len()
    );
    println!(
        "  decode        {:8.1} MB/s",
        megabytes(decoded.len(), decode.as_secs_f64())
    );
    Ok(())
}
