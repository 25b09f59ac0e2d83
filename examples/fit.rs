//! What a model takes, what fits into so much memory, and which models of the catalog suit this machine, without reading a
//! weight: `cargo run --release --example fit -- MODEL.gguf [GB]`.

use std::io::Write as _;
use std::path::PathBuf;

use dunlin::{Device, MemoryEstimate, Task, fit, recommend};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    let mut arguments = std::env::args().skip(1);
    let device = Device::cpu();
    let Some(path) = arguments.next().map(PathBuf::from) else {
        // No file: what the catalog has for a chat here.
        for found in recommend(Task::Chat, &device) {
            let rating = found.rating;
            writeln!(
                out,
                "{:20} about {} MB, {:.0} tokens/s, score {:.2}",
                found.card.id,
                rating.memory / 1_000_000,
                rating.tokens_per_second,
                rating.score
            )?;
        }
        return Ok(());
    };
    let budget = match arguments.next() {
        Some(gigabytes) => (gigabytes.parse::<f64>()? * 1e9) as u64,
        None => device
            .memory_available
            .ok_or("this system does not tell its memory: give a number of GB")?,
    };
    let memory = MemoryEstimate::for_model(&path, 1024)?;
    let megabytes = |bytes: u64| bytes / 1_000_000;
    writeln!(
        out,
        "with 1024 tokens: weights {} MB, KV cache {}, buffers {}, tokenizer {}, process {}: {} MB",
        megabytes(memory.weights),
        megabytes(memory.kv_cache),
        megabytes(memory.buffers),
        megabytes(memory.tokenizer),
        megabytes(memory.process),
        megabytes(memory.total())
    )?;
    let fit = fit(&path, budget)?;
    writeln!(
        out,
        "into {} MB fits a context of {} tokens ({} MB), weights {}",
        megabytes(budget),
        fit.context_length,
        megabytes(fit.memory.total()),
        if fit.mapped_weights {
            "left in the file"
        } else {
            "packed"
        }
    )?;
    Ok(())
}
