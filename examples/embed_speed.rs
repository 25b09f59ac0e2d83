//! How many texts a second a model embeds, tokenization included:
//! `cargo run --release --example embed_speed -- [MODEL] [THREADS] [TOKENS] [BATCH] [RUNS]`.
//!
//! Prints the texts a second of every run, after one that is not counted.

use std::io::Write as _;
use std::time::Instant;

use dunlin::{DeviceConfiguration, EmbedOptions, Embedder, LoadOptions};

const WORDS: [&str; 16] = [
    "time", "water", "house", "river", "music", "small", "light", "paper", "green", "table",
    "north", "story", "horse", "seven", "bread", "world",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "all-minilm:l6-v2".to_owned());
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (threads, tokens, batch, runs) = (number(2)?, number(20)?, number(32)?, number(5)?);
    let load =
        LoadOptions::default().with_device(DeviceConfiguration::default().with_threads(threads));
    let embedder = Embedder::load(model.parse()?, load, EmbedOptions::default())?;

    let texts = (0..batch).map(|index| text_of(&embedder, tokens, index));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    // About a second a run, and so many batches that the clock does not matter.
    let start = Instant::now();
    embedder.embed(&texts)?;
    embedder.embed(&texts)?;
    let rounds = (2.0 / start.elapsed().as_secs_f64()).ceil() as usize;
    let mut out = std::io::stdout();
    for _ in 0..runs {
        let start = Instant::now();
        for _ in 0..rounds {
            embedder.embed(&texts)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        writeln!(out, "{:.1}", (rounds * batch) as f64 / seconds)?;
    }
    Ok(())
}

/// A text of so many tokens, special ones included.
fn text_of(embedder: &Embedder, tokens: usize, index: usize) -> Result<String, dunlin::Error> {
    let mut text = String::new();
    let mut at = index;
    while embedder.encode_text(&text)?.len() < tokens {
        text.push_str(WORDS[at % WORDS.len()]);
        text.push(' ');
        at = at * 5 + 3 + at / WORDS.len();
        at %= 1 << 20;
    }
    Ok(text)
}
