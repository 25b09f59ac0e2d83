//! What the file will hold: finds for each tensor of the folder its place in the file.

use std::collections::{HashMap, HashSet};

use dunlin_format::{DType, SafeTensor, encoding_for_width};

use crate::{
    ConvertError, Folder,
    family::{Bias, Change, Length, Tensor},
    keys::padding_rows,
    model::Model,
    recipe::{Apply, Output, Recipe, Rows, Source, grouped_to_tiled, halves_to_pairs},
    supported_architectures,
};

/// The tensors of a file, in order, and what there is to say about them.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) outputs: Vec<Output>,
    pub(crate) notes: Vec<String>,
}

/// Plans the file that `folder` becomes. `dtype` is for the tensors that hold most weights;
/// `tokens` counts the vocabulary, `answers` are the tokens of a reranker's yes and no.
pub(crate) fn plan(
    folder: &Folder,
    dtype: DType,
    tokens: usize,
    answers: Option<[u32; 2]>,
) -> Result<Plan, ConvertError> {
    let mut planner = Planner {
        folder,
        model: &folder.model,
        dtype,
        tokens: tokens as u64,
        answers,
        found: HashSet::new(),
        prefix: String::new(),
        notes: Vec::new(),
    };
    let mut outputs = planner.factors()?;
    outputs.extend(planner.dense()?);
    let rules = rules(folder.model.family().tensors());
    let dense = folder.model.modules.dense.len();
    let mut left_out = 0usize;
    for file in 0..folder.weights.len() - dense {
        for tensor in folder.weights[file].tensors() {
            match planner.place(&rules, tensor)? {
                Placed::LeftOut => left_out += 1,
                Placed::Skipped => {}
                Placed::At(rule, part, layer) => {
                    outputs.extend(planner.outputs(file, tensor, rule, part, layer)?);
                }
            }
        }
    }
    planner.check_nothing_is_missing()?;
    if left_out > 0 {
        planner.notes.push(format!(
            "{left_out} tensors of the parts for images and sound were left out: this is the text model"
        ));
    }
    Ok(Plan {
        outputs,
        notes: planner.notes,
    })
}

/// What follows the name of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Exact,
    Weight,
    Bias,
}

impl Part {
    fn suffix(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::Weight => ".weight",
            Self::Bias => ".bias",
        }
    }
}

type Rules = HashMap<String, (&'static Tensor, Part)>;

fn rules(tensors: impl Iterator<Item = &'static Tensor>) -> Rules {
    let mut rules = Rules::new();
    for tensor in tensors {
        let mut add =
            |part: Part| rules.insert(format!("{}{}", tensor.from, part.suffix()), (tensor, part));
        if tensor.exact {
            add(Part::Exact);
            continue;
        }
        add(Part::Weight);
        if tensor.bias != Bias::Never {
            add(Part::Bias);
        }
    }
    rules
}

enum Placed {
    At(&'static Tensor, Part, usize),
    /// Part of a model for images or sound.
    LeftOut,
    /// Of no use to inference.
    Skipped,
}

struct Planner<'a> {
    folder: &'a Folder,
    model: &'a Model,
    dtype: DType,
    tokens: u64,
    answers: Option<[u32; 2]>,
    found: HashSet<(&'static str, Part, usize)>,
    /// What stands before the family's own names, for errors.
    prefix: String,
    notes: Vec<String>,
}

impl Planner<'_> {
    /// Tensors that are computed: what angles are divided by.
    fn factors(&self) -> Result<Vec<Output>, ConvertError> {
        let (config, rope) = (&self.model.config, &self.model.rope);
        let width = self.model.global_layer().head_width;
        let values = |name: &str, values: Vec<f32>| Output {
            name: name.to_owned(),
            shape: vec![values.len() as u64],
            dtype: DType::F32,
            source: Source::Values(values),
        };
        Ok(match rope.kind() {
            "llama3" => {
                let factors = rope.llama3_factors(config, width)?;
                vec![values("rope_freqs.weight", factors)]
            }
            "proportional" => {
                let factors = rope.proportional_factors(config, width)?;
                vec![values("rope_freqs.weight", factors)]
            }
            "longrope" | "su" => {
                let rotated = f64::from(width) * f64::from(rope.partial.unwrap_or(1.0));
                match rope.long_factors(config, rotated as u32 / 2)? {
                    Some([long, short]) => vec![
                        values("rope_factors_long.weight", long),
                        values("rope_factors_short.weight", short),
                    ],
                    None => Vec::new(),
                }
            }
            _ => Vec::new(),
        })
    }

    fn dense(&mut self) -> Result<Vec<Output>, ConvertError> {
        let modules = &self.model.modules.dense;
        let first = self.folder.weights.len() - modules.len();
        let mut outputs = Vec::new();
        for (file, dense) in (first..).zip(modules) {
            for tensor in self.folder.weights[file].tensors() {
                if tensor.name != "linear.weight" {
                    return Err(self.unknown(&format!("{}/{}", dense.folder, tensor.name)));
                }
                check_shape(tensor, &[dense.outputs.into(), dense.inputs.into()])?;
                let name = format!("{}.weight", dense.name);
                let rows = Rows::Range(0..dense.outputs.into());
                outputs.push(self.output(name, file, tensor, rows, None, Apply::Nothing)?);
            }
            let name = format!("{}.weight", dense.name);
            if !outputs.iter().any(|output| output.name == name) {
                return Err(self.missing(format!("{}/linear.weight", dense.folder), name));
            }
        }
        Ok(outputs)
    }

    /// Finds the rule for a tensor of the folder.
    fn place(&mut self, rules: &Rules, tensor: &SafeTensor) -> Result<Placed, ConvertError> {
        const OTHER_PARTS: [&str; 6] = [
            "vision",
            "visual.",
            "audio",
            "projector.",
            "patch_merger.",
            "image_newline",
        ];
        const BUFFERS: [&str; 6] = [
            "position_ids",
            "token_type_ids",
            "inv_freq",
            ".masked_bias",
            ".attention.bias",
            "num_batches_tracked",
        ];
        if OTHER_PARTS.iter().any(|part| tensor.name.contains(part)) {
            return Ok(Placed::LeftOut);
        }
        if BUFFERS.iter().any(|end| tensor.name.ends_with(end)) {
            return Ok(Placed::Skipped);
        }
        let name = own_name(&tensor.name);
        let family = self.model.family();
        if family.skip.iter().any(|start| name.starts_with(start)) {
            return Ok(Placed::Skipped);
        }
        let (pattern, layer) = split_layer(&name);
        let rule = rules.get(&pattern);
        let Some((&(rule, part), layer)) = rule.zip(layer.or(Some(0))) else {
            return Err(self.unknown(&tensor.name));
        };
        if layer >= self.model.layers.len() {
            return Err(self.unknown(&tensor.name));
        }
        if let Some(prefix) = tensor
            .name
            .strip_suffix(name.as_str())
            .filter(|prefix| !prefix.is_empty())
        {
            self.prefix = prefix.to_owned();
        }
        self.found.insert((rule.from, part, layer));
        Ok(Placed::At(rule, part, layer))
    }

    /// The tensors of the file that one of the folder becomes: one, but for rerankers.
    fn outputs(
        &self,
        file: usize,
        tensor: &SafeTensor,
        rule: &Tensor,
        part: Part,
        layer: usize,
    ) -> Result<Vec<Output>, ConvertError> {
        let shape = match part {
            Part::Bias => &rule.shape[..1],
            Part::Exact | Part::Weight => rule.shape,
        };
        let lengths: Result<Vec<u64>, ConvertError> = shape
            .iter()
            .map(|&length| self.model.length(length, layer))
            .collect();
        let lengths = lengths?;
        check_shape(tensor, &lengths)?;

        let name = rule.to.replace("{}", &layer.to_string()) + part.suffix();
        let columns_move = rule.change == Change::ReorderValueColumns;
        let order = self.order(rule.change, layer);
        let all = 0..lengths[0];
        // A vector is one row, whose columns move.
        let (rows, column_order) = match (order, lengths.len()) {
            (Some(order), 1) => (Rows::Range(0..1), Some(order)),
            (Some(order), _) if columns_move => (Rows::Range(all), Some(order)),
            (Some(order), _) => (Rows::Listed(order), None),
            (None, 1) => (Rows::Range(0..1), None),
            (None, _) => (Rows::Range(self.kept_rows(rule.change, all)?), None),
        };
        let apply = match rule.change {
            Change::AddOne => Apply::AddOne,
            Change::DecayOfValueHeads => Apply::NegativeExponential,
            _ => Apply::Nothing,
        };
        let output = |rows| self.output(name.clone(), file, tensor, rows, column_order, apply);
        let Some(answers) = self.answers.filter(|_| part == Part::Weight) else {
            return Ok(vec![output(rows)?]);
        };
        let head = if self.model.untied {
            "output"
        } else {
            "token_embd"
        };
        if rule.to != head {
            return Ok(vec![output(rows)?]);
        }
        let picked = Rows::Listed(answers.to_vec());
        let answer = self.output(
            "cls.output.weight".to_owned(),
            file,
            tensor,
            picked,
            None,
            apply,
        )?;
        // Nothing else reads the head of a reranker.
        Ok(match self.model.untied {
            true => vec![answer],
            false => vec![answer, output(rows)?],
        })
    }

    fn output(
        &self,
        name: String,
        file: usize,
        tensor: &SafeTensor,
        rows: Rows,
        column_order: Option<Vec<u32>>,
        apply: Apply,
    ) -> Result<Output, ConvertError> {
        let number = matches!(tensor.dtype, Some(DType::F32 | DType::F16 | DType::BF16));
        if !number {
            return Err(ConvertError::UnsupportedType {
                tensor: tensor.name.clone(),
                dtype: tensor.dtype_name.clone(),
            });
        }
        let columns = tensor.shape.last().copied().unwrap_or(1);
        let mut shape = vec![columns];
        if tensor.shape.len() > 1 {
            shape.push(rows.len());
        }
        Ok(Output {
            dtype: self.dtype_of(&name, &shape),
            name,
            shape,
            source: Source::File(Recipe {
                file,
                tensor: tensor.clone(),
                columns: columns as usize,
                rows,
                column_order,
                apply,
            }),
        })
    }

    /// Vectors, norms, positions and small convolutions stay F32, as llama.cpp reads no other.
    fn dtype_of(&self, name: &str, shape: &[u64]) -> DType {
        const F32: [&str; 4] = [
            "position_embd.weight",
            "token_types.weight",
            ".ssm_conv1d.weight",
            ".shortconv.conv.weight",
        ];
        let vector =
            shape.len() < 2 || name.ends_with("_norm.weight") || !name.ends_with(".weight");
        if vector || F32.iter().any(|end| name.ends_with(end)) {
            return DType::F32;
        }
        encoding_for_width(self.dtype, shape[0] as usize)
    }

    fn kept_rows(
        &self,
        change: Change,
        all: std::ops::Range<u64>,
    ) -> Result<std::ops::Range<u64>, ConvertError> {
        Ok(match change {
            Change::CutToVocabulary => 0..all.end.min(self.tokens),
            Change::SkipPaddingRows => u64::from(padding_rows(self.model)?).min(all.end)..all.end,
            _ => all,
        })
    }

    /// The order in which rows (or columns) are taken, where it changes.
    fn order(&self, change: Change, layer: usize) -> Option<Vec<u32>> {
        let own = self.model.layers[layer];
        let delta = self.model.delta;
        let values = |width: u32| {
            let delta = delta.filter(|delta| delta.key_heads != delta.value_heads)?;
            Some(grouped_to_tiled(
                delta.key_heads,
                delta.value_heads / delta.key_heads,
                width,
            ))
        };
        match change {
            Change::PairQueryRows => Some(halves_to_pairs(own.heads, own.head_width)),
            Change::PairKeyRows => Some(halves_to_pairs(own.heads_kv, own.head_width)),
            Change::ReorderValueHeads | Change::DecayOfValueHeads => values(1),
            Change::ReorderValueRows | Change::ReorderValueColumns => values(delta?.value_width),
            Change::ReorderValueRowsAfterKeys => {
                let before = 2 * delta?.keys() as u32;
                let after = values(delta?.value_width)?;
                Some(
                    (0..before)
                        .chain(after.into_iter().map(|row| before + row))
                        .collect(),
                )
            }
            Change::Keep | Change::AddOne | Change::CutToVocabulary | Change::SkipPaddingRows => {
                None
            }
        }
    }

    fn check_nothing_is_missing(&self) -> Result<(), ConvertError> {
        for tensor in self.model.family().tensors() {
            let layers = if tensor.from.contains("{}") {
                self.model.layers.len()
            } else {
                1
            };
            for layer in 0..layers {
                let part = if tensor.exact {
                    Part::Exact
                } else {
                    Part::Weight
                };
                let needed = self.needs(tensor) && self.model.has(tensor.place, layer);
                let bias = (needed && tensor.bias == Bias::Required).then_some(Part::Bias);
                for part in needed.then_some(part).into_iter().chain(bias) {
                    if !self.found.contains(&(tensor.from, part, layer)) {
                        let full =
                            |name: &str| name.replace("{}", &layer.to_string()) + part.suffix();
                        let name = format!("{}{}", self.prefix, full(tensor.from));
                        return Err(self.missing(name, full(tensor.to)));
                    }
                }
            }
        }
        Ok(())
    }

    fn needs(&self, tensor: &Tensor) -> bool {
        // Without one of its own, a model's head is the token embedding. Embedders have none.
        let head = tensor.to == "output";
        let pooled = self.model.modules.pooling.is_some()
            || self.folder.hugging_face_architecture().ends_with("Model");
        let per_layer = tensor
            .shape
            .iter()
            .any(|length| matches!(length, Length::PerLayer | Length::AllPerLayer));
        if head {
            self.model.untied && !pooled
        } else if per_layer || tensor.to.ends_with(".post_norm") {
            let width = self.model.config.unsigned(&["hidden_size_per_layer_input"]);
            matches!(width, Ok(Some(1..)))
        } else {
            tensor.required
        }
    }

    fn missing(&self, tensor: String, gguf: String) -> ConvertError {
        ConvertError::MissingTensor {
            tensor,
            gguf,
            family: self.model.family().gguf,
            supported: supported_architectures(),
        }
    }

    fn unknown(&self, tensor: &str) -> ConvertError {
        ConvertError::UnknownTensor {
            tensor: tensor.to_owned(),
            family: self.model.family().gguf,
        }
    }
}

fn check_shape(tensor: &SafeTensor, expected: &[u64]) -> Result<(), ConvertError> {
    if tensor.shape == expected && !expected.contains(&0) {
        return Ok(());
    }
    Err(ConvertError::WrongShape {
        tensor: tensor.name.clone(),
        found: tensor.shape.clone(),
        expected: expected.to_vec(),
    })
}

/// A tensor's name without what the kind of checkpoint puts around it, and with today's endings.
pub(crate) fn own_name(name: &str) -> String {
    let mut name = name.replacen("language_model.", "", 1);
    for prefix in ["model.", "bert.", "roberta."] {
        if let Some(rest) = name.strip_prefix(prefix) {
            name = rest.to_owned();
        }
    }
    for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
        if let Some(rest) = name.strip_suffix(old) {
            name = format!("{rest}{new}");
        }
    }
    name
}

/// Takes the first number out of a name: `layers.3.x` is `layers.{}.x` and 3.
pub(crate) fn split_layer(name: &str) -> (String, Option<usize>) {
    let mut layer = None;
    let parts: Vec<&str> = name
        .split('.')
        .map(|part| match part.parse() {
            Ok(number) if layer.is_none() && part.bytes().all(|byte| byte.is_ascii_digit()) => {
                layer = Some(number);
                "{}"
            }
            _ => part,
        })
        .collect();
    (parts.join("."), layer)
}
