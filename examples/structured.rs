//! An answer as a value of a type: `cargo run --release --example structured -- [MODEL] [TEXT]`.

use std::io::Write as _;

use dunlin::{GenerateOptions, Lm, Message, Prompt};

/// What is taken from a text.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Event {
    /// What happens.
    title: String,
    place: Option<String>,
    kind: Kind,
    people: Vec<String>,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Meeting,
    Party,
    Travel,
    Other,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "qwen2.5-coder:0.5b".to_owned());
    let text = arguments.next().unwrap_or_else(|| {
        "Anna and Paul invite us to their garden party in Lyon on Saturday.".to_owned()
    });
    let lm = Lm::load_from_model_id(&model)?;
    let prompt = Prompt::Chat(vec![
        Message::system(
            "Answer with a JSON object with title, place, kind (meeting, party, travel or other) and people.",
        ),
        Message::user(text),
    ]);
    let options = GenerateOptions::greedy().with_max_tokens(200);
    let event: Event = lm.generate_as(&prompt, &options)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}: {:?}", event.title, event.kind)?;
    writeln!(out, "where: {}", event.place.as_deref().unwrap_or("-"))?;
    writeln!(out, "who: {}", event.people.join(", "))?;
    Ok(())
}
