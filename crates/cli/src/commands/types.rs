//! The flags by which weights get other types than the file has.

use clap::Args;
use dunlin::{DType, TensorTypes, TypeFallback, TypePlan};

/// Types of weights.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Types of weights")]
pub(crate) struct TypeArgs {
    /// Load the matrices whose tensor names match this regular expression as TYPE (attn_v=q8_0; the head is "^output\."); may
    /// be given several times, the first match counts
    #[arg(long = "tensor-type", value_name = "PATTERN=TYPE", value_parser = tensor_type)]
    patterns: Vec<(String, DType)>,
    /// Load all other matrices as TYPE (q4_0, q4_1, q5_0, q5_1, q8_0, q2_k to q6_k, f16, bf16, f32), converted while loading
    #[arg(long, value_name = "TYPE", value_parser = dtype)]
    weight_type: Option<DType>,
    /// Where the rows of a matrix are no whole blocks of its TYPE, take the next type of a little more bits (q4_k: q5_0)
    #[arg(long)]
    type_fallback: bool,
}

impl TypeArgs {
    /// What they ask for.
    pub(crate) fn tensor_types(&self) -> TensorTypes {
        let mut types = TensorTypes::new();
        types.patterns.clone_from(&self.patterns);
        types.weight_type = self.weight_type;
        if self.type_fallback {
            types.fallback = TypeFallback::Wider;
        }
        types
    }

    /// The same flags for another process.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let name = |dtype: &DType| dtype.name().to_lowercase();
        let mut arguments = Vec::new();
        for (pattern, dtype) in &self.patterns {
            arguments.push(format!("--tensor-type={pattern}={}", name(dtype)));
        }
        arguments.extend(
            self.weight_type
                .iter()
                .map(|dtype| format!("--weight-type={}", name(dtype))),
        );
        if self.type_fallback {
            arguments.push("--type-fallback".to_owned());
        }
        arguments
    }
}

/// What becomes of the types of weights.
pub(crate) fn types_in_words(plan: &TypePlan) -> Vec<String> {
    match plan.notes() {
        notes if notes.is_empty() => vec!["all as they are in the file".to_owned()],
        notes => notes,
    }
}

/// A pattern and a type, with the last `=` between them.
fn tensor_type(text: &str) -> Result<(String, DType), String> {
    match text.rsplit_once('=') {
        Some((pattern, name)) if !pattern.is_empty() => Ok((pattern.to_owned(), dtype(name)?)),
        _ => Err("a pattern and a type are needed, as in attn_v=q8_0".to_owned()),
    }
}

/// A type that weights can be brought into.
fn dtype(name: &str) -> Result<DType, String> {
    let mut known = dunlin::encodable_types();
    known
        .find(|dtype| dtype.name().eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            let names = dunlin::encodable_types().map(|dtype| dtype.name().to_lowercase());
            format!("it is none of {}", names.collect::<Vec<_>>().join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_have_an_equals_sign() {
        assert_eq!(tensor_type("a=b=Q8_0"), Ok(("a=b".to_owned(), DType::Q8_0)));
        for text in [
            "",
            "q8_0",
            "=q8_0",
            "attn_v=",
            "attn_v=q9_0",
            "attn_v=iq4_nl",
        ] {
            assert!(tensor_type(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_for_another_process_are_the_same_flags() {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            types: TypeArgs,
        }
        use clap::Parser as _;
        let given = [
            "x",
            "--tensor-type=attn_v=q8_0",
            "--tensor-type=^output\\.=f16",
            "--weight-type=q4_k",
            "--type-fallback",
        ];
        let flags = Flags::parse_from(given);
        assert_eq!(flags.types.to_arguments(), given[1..]);
        assert_eq!(flags.types.tensor_types().patterns.len(), 2);
    }
}
