//! Converts a Hugging Face folder: `convert FOLDER OUT.gguf [source|f32|f16|bf16|q8_0]`.
#![allow(clippy::print_stderr, reason = "an example talks to its user")]

use std::{env, error::Error, ops::ControlFlow, path::Path};

use dunlin_convert::{ConvertOptions, Folder, convert};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, out, rest @ ..] = arguments.as_slice() else {
        return Err("usage: convert FOLDER OUT.gguf [source|f32|f16|bf16|q8_0]".into());
    };
    let mut options = ConvertOptions::default();
    if let [dtype, ..] = rest {
        options.dtype = dtype.parse()?;
    }
    let folder = Folder::open(Path::new(folder))?;
    let report = convert(&folder, &options, Path::new(out), &mut |_done, _total| {
        ControlFlow::Continue(())
    })?;
    for note in &report.notes {
        eprintln!("{note}");
    }
    eprintln!(
        "{out}: {} tensors, {} parameters, {} bytes, mostly {}",
        report.tensors, report.parameters, report.bytes, report.dtype
    );
    Ok(())
}
