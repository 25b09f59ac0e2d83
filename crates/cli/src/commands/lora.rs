//! Adapters on the command line: `--lora FILE[:SCALE]`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use dunlin::{GenerateOptions, Lm, LoraAdapter};

/// An adapter and how strongly it works.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LoraArg {
    path: PathBuf,
    scale: f32,
}

/// A path, and behind a colon a number where there is one.
pub(super) fn parse(text: &str) -> Result<LoraArg, String> {
    let with_scale = text.rsplit_once(':').and_then(|(path, scale)| {
        let scale: f32 = scale.parse().ok()?;
        Some((path, scale))
    });
    let (path, scale) = with_scale.unwrap_or((text, 1.0));
    if path.is_empty() {
        return Err("an adapter's GGUF file or PEFT folder is needed".to_owned());
    }
    if !scale.is_finite() {
        return Err(format!("the scale is {scale}, a finite number is needed"));
    }
    Ok(LoraArg {
        path: path.into(),
        scale,
    })
}

/// Opens adapters, before a model is fetched and loaded.
///
/// # Errors
/// One is no adapter.
pub(super) fn open(args: &[LoraArg]) -> Result<Vec<(LoraAdapter, f32)>> {
    let open = |arg: &LoraArg| {
        let adapter = LoraAdapter::load(&arg.path)
            .with_context(|| format!("--lora {}", arg.path.display()))?;
        Ok((adapter, arg.scale))
    };
    args.iter().map(open).collect()
}

/// Adds adapters to the model and to the options of its answers.
///
/// # Errors
/// One does not fit the model.
pub(super) fn add(
    lm: &Lm,
    adapters: &[(LoraAdapter, f32)],
    mut options: GenerateOptions,
) -> Result<GenerateOptions> {
    for (adapter, scale) in adapters {
        let id = lm
            .add_adapter(adapter)
            .with_context(|| format!("--lora {}", adapter.path().display()))?;
        options = options.with_adapter(id, *scale);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_behind_a_colon_is_the_scale() {
        let of = |path: &str, scale| {
            Ok(LoraArg {
                path: path.into(),
                scale,
            })
        };
        assert_eq!(parse("pirate.gguf"), of("pirate.gguf", 1.0));
        assert_eq!(parse("./pirate:0.5"), of("./pirate", 0.5));
        assert_eq!(parse("./pirate:-1"), of("./pirate", -1.0));
        assert_eq!(parse(r"C:\loras\pirate"), of(r"C:\loras\pirate", 1.0));
        assert!(parse("").is_err());
        assert!(parse(":0.5").is_err());
        assert!(parse("pirate:nan").is_err());
    }
}
