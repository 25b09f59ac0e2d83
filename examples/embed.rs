//! Texts sorted by how near they are to a question:
//! `cargo run --release --example embed -- [MODEL] [QUESTION]`.

use std::io::Write as _;

use dunlin::Embedder;

const TEXTS: [&str; 4] = [
    "Tokyo is the capital of Japan.",
    "A cat sleeps on the sofa.",
    "Bread rises because yeast makes gas.",
    "The Tokaido line connects Tokyo and Osaka.",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "all-minilm:l6-v2".to_owned());
    let question = arguments
        .next()
        .unwrap_or_else(|| "Which city governs Japan?".to_owned());
    let embedder = Embedder::load_from_model_id(&model)?;
    let asked = embedder.embed(&[question])?.remove(0);
    let vectors = embedder.embed(&TEXTS)?;

    // Vectors have length 1: their dot product is the cosine of the angle between them.
    let nearness = |vector: &[f32]| asked.iter().zip(vector).map(|(a, b)| a * b).sum::<f32>();
    let mut sorted: Vec<(f32, &str)> = vectors.iter().map(|v| nearness(v)).zip(TEXTS).collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut out = std::io::stdout();
    for (cosine, text) in sorted {
        writeln!(out, "{cosine:+.3}  {text}")?;
    }
    Ok(())
}
