//! The number types of the KV cache on the command line.

use clap::Args;
use dunlin::{KvElement, KvElements, KvTypes, ModelSpec};

/// Number types of the KV cache.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct KvArgs {
    /// Number type of the KV cache: f16, q8_0 (about half of it), q4_0 (over a quarter) or f32 (exact); two with a stroke are those of
    /// keys and of values: q8_0/q4_0
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = elements, help_heading = "Loading")]
    kv: KvElements,
    /// The same for layers that attend to a sliding window only [default: as --kv]
    #[arg(long, value_name = "TYPE", value_parser = elements, help_heading = "Loading")]
    kv_window: Option<KvElements>,
}

impl KvArgs {
    pub(crate) fn types(self) -> KvTypes {
        let types = KvTypes::from(self.kv);
        match self.kv_window {
            Some(window) => types.with_window(window),
            None => types,
        }
    }

    /// The arguments that say the same.
    pub(crate) fn arguments(self) -> Vec<String> {
        let mut arguments = vec!["--kv".to_owned(), self.kv.to_string()];
        if let Some(window) = self.kv_window {
            arguments.extend(["--kv-window".to_owned(), window.to_string()]);
        }
        arguments
    }
}

/// What is to be said of these types in a model: 4 bits do not hold keys that biases make large (docs/fit.md).
pub(crate) fn warning(spec: &ModelSpec, types: KvTypes) -> Option<&'static str> {
    let mut biased = spec.attentions().filter(|layer| layer.qkv_bias);
    let four_bits = biased.any(|layer| types.of(layer).keys == KvElement::Q4_0);
    four_bits.then_some(
        "this model adds biases to its keys, which 4 bits hold badly: its answers may be much worse; --kv q8_0/q4_0 keeps them",
    )
}

/// A type, or those of keys and values.
pub(crate) fn elements(text: &str) -> Result<KvElements, String> {
    let element = |name: &str| {
        KvElement::from_name(name).ok_or_else(|| {
            let names = KvElement::ALL.map(|element| element.name().to_lowercase());
            format!("there is no type {name:?}; there are {}", names.join(", "))
        })
    };
    match text.split_once('/') {
        None => element(text).map(KvElements::from),
        Some((keys, values)) => Ok(KvElements {
            keys: element(keys)?,
            values: element(values)?,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_they_are_written() {
        assert_eq!(elements("q4_0"), Ok(KvElement::Q4_0.into()));
        let both = elements("q8_0/Q4_0").unwrap();
        assert_eq!((both.keys, both.values), (KvElement::Q8_0, KvElement::Q4_0));
        assert_eq!(elements(&both.to_string()), Ok(both));
        for wrong in ["", "q4", "q8_0/", "/q8_0", "f16/f16/f16"] {
            assert!(
                elements(wrong)
                    .unwrap_err()
                    .contains("q4_0, q8_0, f16, f32")
            );
        }
    }
}
