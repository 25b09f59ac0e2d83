//! What guessing tokens brings, on a text that repeats, on a story, its tokens the most likely ones or drawn at temperature 1, and on one
//! whose tokens nobody guesses (drawn at temperature 2):
//! `cargo run --release --example speculate -- [MODEL] [RUNS]`.
//!
//! The answers are the same with and without; runs alternate, and medians are shown.

use std::io::Write as _;

use dunlin::{Completion, GenerateOptions, Lm, Message, Prompt, Speculation};

const FUNCTION: &str = r##"
def parse_config(path, defaults=None, strict=False):
    """Read a configuration file of `key = value` lines."""
    values = dict(defaults or {})
    section = "main"
    with open(path, encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            line = line.split("#", 1)[0].strip()
            if not line:
                continue
            if line.startswith("[") and line.endswith("]"):
                section = line[1:-1].strip().lower()
                continue
            if "=" not in line:
                if strict:
                    raise ValueError(f"{path}:{number}: no '=' in {line!r}")
                continue
            key, value = (part.strip() for part in line.split("=", 1))
            if value.startswith('"') and value.endswith('"'):
                value = value[1:-1]
            elif value.lower() in ("true", "yes", "on"):
                value = True
            elif value.lower() in ("false", "no", "off"):
                value = False
            else:
                try:
                    value = int(value)
                except ValueError:
                    pass
            values[f"{section}.{key}"] = value
    return values
"##;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "qwen2.5-coder:0.5b".to_owned());
    let runs: usize = arguments.next().map_or(Ok(5), |runs| runs.parse())?;
    let lm = Lm::load_from_model_id(&model)?;
    let edit = format!(
        "Rename the function parse_config to load_settings. Answer with the whole function and nothing else.\n```python{FUNCTION}```"
    );
    let story = "Tell a story about a fisherman who finds a door at the bottom of the sea.";
    // The most likely tokens alone soon go round in circles; drawn ones do not.
    let greedy = GenerateOptions::greedy().with_max_tokens(350);
    let mut drawn = greedy.clone().with_seed(1);
    drawn.sampler.temperature = 1.0;
    let mut wild = drawn.clone();
    wild.sampler.temperature = 2.0;
    let mut out = std::io::stdout();
    for (what, question, options) in [
        ("edit", edit.as_str(), &greedy),
        ("story, greedy", story, &greedy),
        ("story, drawn", story, &drawn),
        ("story, drawn at temperature 2", story, &wild),
    ] {
        let prompt = Prompt::Chat(vec![Message::user(question)]);
        let mut speeds = [Vec::new(), Vec::new()];
        let mut answers: Vec<Completion> = Vec::new();
        for _ in 0..runs {
            for (speeds, how) in speeds.iter_mut().zip([Speculation::Off, Speculation::Auto]) {
                let options = options.clone().with_speculation(how);
                let answer = lm.generate(&prompt, &options)?.complete()?;
                speeds.push(answer.usage.completion_tokens_per_second());
                answers.push(answer);
            }
        }
        let same = answers
            .windows(2)
            .all(|pair| pair[0].tokens == pair[1].tokens);
        let [off, on] = speeds.map(|mut speeds| {
            speeds.sort_by(f64::total_cmp);
            speeds[speeds.len() / 2]
        });
        let usage = answers.last().ok_or("no runs")?.usage;
        writeln!(
            out,
            "{what}: {} tokens, {off:.1} tokens/s without, {on:.1} with, {:.2} times; {} of {} guesses right; \
             answers are {}",
            usage.completion_tokens,
            on / off,
            usage.accepted_tokens,
            usage.drafted_tokens,
            if same { "the same" } else { "DIFFERENT" },
        )?;
    }
    Ok(())
}
