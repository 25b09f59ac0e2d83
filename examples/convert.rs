//! A Hugging Face folder or repository as a GGUF file:
//! `cargo run --release --example convert -- FOLDER|hf:owner/repo FILE.gguf`.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use dunlin::{ConvertOptions, LoadEvent, LoadOptions, ModelInfo, OutputType, convert};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, out] = arguments.as_slice() else {
        return Err("name a folder (or hf:owner/repo) and the file to write".into());
    };
    let settings = ConvertOptions {
        dtype: OutputType::Q8_0,
        ..ConvertOptions::default()
    };
    let mut errors = std::io::stderr();
    let mut options = LoadOptions::default().with_progress(|event| {
        if let LoadEvent::Importing { done, total } = event {
            // Progress that cannot be shown is no reason not to convert.
            let _ = write!(errors, "\r{} of {} MiB", done >> 20, total >> 20);
        }
        ControlFlow::Continue(())
    });
    let report = convert(&model.parse()?, &settings, Path::new(out), &mut options)?;
    drop(options);

    let info = ModelInfo::open(Path::new(out))?;
    let mut stdout = std::io::stdout();
    writeln!(
        stdout,
        "\n{out}: {} tensors, {} bytes, architecture {}",
        report.tensors,
        report.bytes,
        info.architecture.unwrap_or_default()
    )?;
    Ok(())
}
