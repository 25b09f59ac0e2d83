//! Tokens per second of a model file: prefill of 512 tokens and decode of 128, as llama-bench measures them.
//!
//! `cargo bench -p dunlin-engine --bench speed -- MODEL.gguf [THREADS] [RUNS] [TIER]`
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use dunlin_compute::{KvElement, Tier};
use dunlin_engine::{Chunk, Engine, EngineConfig, Logits};
use dunlin_format::Gguf;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const PREFILL: usize = 512;
const DECODE: usize = 128;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let Some(model) = arguments.first() else {
        println!("no model file given: nothing measured");
        return;
    };
    let number = |index: usize, default: usize| {
        arguments
            .get(index)
            .map_or(default, |text| text.parse().unwrap())
    };
    let (threads, runs) = (number(1, 2), number(2, 5));
    let tier = arguments.get(3).map_or(Tier::detect(), |name| {
        let mut tiers = Tier::available().into_iter();
        tiers.find(|tier| tier.name() == name).unwrap()
    });
    let gguf = Arc::new(Gguf::open(Path::new(model)).unwrap());
    let config = EngineConfig {
        threads,
        tier,
        context_length: PREFILL + DECODE,
        kv_element: KvElement::F16,
        yarn_factor: None,
    };
    let start = Instant::now();
    let mut engine = Engine::load(gguf, config, &mut |_, _| ControlFlow::Continue(())).unwrap();
    println!(
        "load: {:.2} s, {} threads, {}",
        start.elapsed().as_secs_f64(),
        threads,
        tier.name()
    );
    let vocabulary = engine.spec().vocab_size;
    let tokens: Vec<u32> = (0..PREFILL)
        .map(|i| (i * 7919 % vocabulary) as u32)
        .collect();
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        prefill.push(PREFILL as f64 / seconds(&mut engine, &tokens, 256));
        decode.push(DECODE as f64 / seconds(&mut engine, &tokens[..DECODE], 1));
    }
    print("pp512", prefill);
    print("tg128", decode);
}

/// Time to take a text in pieces, the scores of each piece's last token included.
fn seconds(engine: &mut Engine, tokens: &[u32], piece: usize) -> f64 {
    let sequence = engine.create_sequence();
    let start = Instant::now();
    for tokens in tokens.chunks(piece) {
        let chunk = Chunk {
            sequence,
            tokens,
            logits: Logits::Last,
        };
        engine.step(&[chunk], |_| {}).unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    engine.remove_sequence(sequence).unwrap();
    seconds
}

fn print(test: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    println!(
        "{test}: {:.1} tokens per second ({least:.1} to {most:.1})",
        values[values.len() / 2]
    );
}
