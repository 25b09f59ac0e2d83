//! Documents sorted by how well they answer a query, by a cross-encoder:
//! `cargo run --release --example rerank -- MODEL [QUERY]`, such as a folder of ms-marco-MiniLM-L6-v2.

use std::io::Write as _;

use dunlin::Reranker;

const DOCUMENTS: [&str; 3] = [
    "Bread rises because yeast makes gas.",
    "Osaka lies in the west of Honshu.",
    "Tokyo has been the seat of the emperor since 1868.",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .ok_or("name a reranker: a GGUF file, a folder or hf:owner/repo")?;
    let query = arguments
        .next()
        .unwrap_or_else(|| "What is the capital of Japan?".to_owned());
    let reranker = Reranker::load_from_model_id(&model)?;
    let scores = reranker.rerank(&query, &DOCUMENTS)?;
    let mut sorted: Vec<(f32, &str)> = scores.into_iter().zip(DOCUMENTS).collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut out = std::io::stdout();
    for (score, document) in sorted {
        writeln!(out, "{score:+.3}  {document}")?;
    }
    Ok(())
}
