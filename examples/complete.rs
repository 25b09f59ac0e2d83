//! A text continued, with the way a model is loaded spelled out:
//! `cargo run --release --example complete -- [MODEL] [TEXT]`.

use std::io::Write as _;
use std::ops::ControlFlow;

use dunlin::{
    DeviceConfiguration, GenerateOptions, Lm, LoadEvent, LoadOptions, Prompt, SamplerConfig,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "smollm2:135m".to_owned());
    let text = arguments
        .next()
        .unwrap_or_else(|| "Once upon a time".to_owned());
    let mut errors = std::io::stderr();
    let mut shown = u64::MAX;
    let load = LoadOptions::default()
        .with_device(DeviceConfiguration::cpu().with_threads(2))
        .with_context_length(1024)
        .with_progress(|event| {
            if let LoadEvent::Loading { done, total } = event
                && done >> 20 != shown
            {
                shown = done >> 20;
                // Progress that cannot be shown is no reason not to load.
                let _ = write!(errors, "\rloading {} of {} MiB", done >> 20, total >> 20);
            }
            ControlFlow::Continue(())
        });
    let lm = Lm::load(model.parse()?, load)?;
    let sampler = SamplerConfig {
        temperature: 0.7,
        repetition_penalty: 1.1,
        ..SamplerConfig::default()
    };
    let options = GenerateOptions::default()
        .with_sampler(sampler)
        .with_max_tokens(100)
        .with_stop("\n\n");
    let completion = lm
        .generate(&Prompt::Text(text.clone()), &options)?
        .complete()?;
    let mut out = std::io::stdout();
    writeln!(out, "\n{text}{}", completion.text)?;
    writeln!(
        out,
        "[seed {} gives this text again]",
        completion.usage.seed
    )?;
    Ok(())
}
