//! Texts sorted by labels of one's own: `cargo run --release --example classify -- [MODEL] [TEXT]`.

use std::io::Write as _;

use dunlin::Lm;
use dunlin::tasks::{Classifier, Label};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "qwen2.5-coder:0.5b".to_owned());
    let text = arguments
        .next()
        .unwrap_or_else(|| "The app closes by itself whenever I open the settings.".to_owned());
    let lm = Lm::load_from_model_id(&model)?;
    let classifier = Classifier::new(
        &lm,
        [
            Label::new("bug").with_description("something does not work as it should"),
            Label::new("question").with_description("somebody wants to know how to do something"),
            Label::new("praise").with_description("somebody likes the product"),
        ],
    )?
    .with_example("How do I change my password?", "question")?
    .with_none_of_these(0.4)?;
    let found = classifier.classify(&text)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", found.label.as_deref().unwrap_or("none of these"))?;
    for score in &found.scores {
        writeln!(out, "{:>6.1} %  {}", 100.0 * score.probability, score.label)?;
    }
    Ok(())
}
