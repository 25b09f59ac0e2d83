//! How long a search among many vectors takes: `cargo run --release --example search_speed -- [VECTORS] [WIDTH] [SEARCHES]`.
//!
//! Prints the seconds of each search for ten of a million vectors of width 384, and checks each answer against one computed
//! by loops of `f64` over the same vectors.

use std::io::Write as _;
use std::time::Instant;

use dunlin::search::{Document, SearchOptions, SemanticIndex};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (count, width, searches) = (number(1_000_000)?, number(384)?, number(5)?);
    let mut out = std::io::stdout();

    let mut random = Random(1);
    let mut index = SemanticIndex::for_vectors(width)?;
    let start = Instant::now();
    for id in 0..count {
        index.add_vector(Document::new(id.to_string(), ""), &random.vector(width))?;
    }
    writeln!(
        out,
        "{count} vectors of width {width} added in {:.2} s",
        start.elapsed().as_secs_f64()
    )?;
    let options = SearchOptions::new();
    for _ in 0..searches {
        let query = random.vector(width);
        let start = Instant::now();
        let hits = index.search_vector(&query, &options)?;
        let seconds = start.elapsed().as_secs_f64();
        let found: Vec<&str> = hits.iter().map(|hit| hit.id).collect();
        let brute_force = nearest(&index, &query, options.top_k);
        let right = found.iter().filter(|id| brute_force.contains(id)).count();
        writeln!(
            out,
            "{seconds:.3} s, {right} of {} right",
            brute_force.len()
        )?;
    }
    let file = std::env::temp_dir().join(format!("search-speed-{}.index", std::process::id()));
    let start = Instant::now();
    index.save(&file)?;
    let saved = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let again = SemanticIndex::load(&file)?;
    let loaded = start.elapsed().as_secs_f64();
    std::fs::remove_file(&file)?;
    let equal = index.iter().eq(again.iter());
    writeln!(
        out,
        "saved in {saved:.2} s, loaded in {loaded:.2} s, equal: {equal}"
    )?;
    Ok(())
}

/// The ids of the nearest, by a loop.
fn nearest<'a>(index: &'a SemanticIndex, query: &[f32], count: usize) -> Vec<&'a str> {
    let scored = index.iter().map(|(document, vector)| {
        let products = vector
            .iter()
            .zip(query)
            .map(|(a, b)| f64::from(*a) * f64::from(*b));
        (products.sum::<f64>(), &*document.id)
    });
    let mut scored: Vec<(f64, &str)> = scored.collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(count).map(|(_, id)| id).collect()
}

/// Numbers that look random and are the same each time (Knuth's generator).
struct Random(u64);

impl Random {
    fn vector(&mut self, width: usize) -> Vec<f32> {
        let mut number = || {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..width).map(|_| number()).collect()
    }
}
