//! From a folder to a file, tensor by tensor.

use std::{
    cell::RefCell,
    io::{self, Write},
    ops::ControlFlow,
    path::Path,
    str::FromStr,
};

use dunlin_format::{
    Array, DType, FormatError, GgufWriter, Metadata, SafeTensors, StringArray, decode,
    encodable_types, encode,
};
use dunlin_text::tokenizer_metadata;

use crate::{
    ConvertError, Folder,
    keys::{self, General},
    plan::plan,
    recipe::{Apply, Output, Recipe, Rows, Source},
};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// The type that most weights are written in. Vectors, norms and a few small tensors stay F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputType {
    /// The type that the folder has (the first matrix decides): nothing is lost.
    #[default]
    Source,
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754.
    F16,
    /// 16-bit floats with the range of F32.
    BF16,
    /// 8 bits and a scale for each 32 weights.
    Q8_0,
    /// Another type that weights can be brought into ([`encodable_types`]), for every matrix, embeddings and head included.
    Quantized(DType),
}

impl FromStr for OutputType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |dtype: &DType| dtype.name().eq_ignore_ascii_case(text);
        Ok(match encodable_types().find(named) {
            Some(DType::F32) => Self::F32,
            Some(DType::F16) => Self::F16,
            Some(DType::BF16) => Self::BF16,
            Some(DType::Q8_0) => Self::Q8_0,
            Some(dtype) => Self::Quantized(dtype),
            None if ["source", "auto"].contains(&text.to_ascii_lowercase().as_str()) => {
                Self::Source
            }
            None => {
                let names = encodable_types().map(|dtype| dtype.name().to_lowercase());
                let names = names.collect::<Vec<_>>().join(", ");
                return Err(format!("`{text}` is none of source, {names}"));
            }
        })
    }
}

/// What to make.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// The type of the weights.
    pub dtype: OutputType,
    /// The model's name in the file; the folder's where it is `None`.
    pub name: Option<String>,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Report {
    /// Length of the file.
    pub bytes: u64,
    /// Tensors in it.
    pub tensors: usize,
    /// Numbers in these tensors.
    pub parameters: u64,
    /// The type of most weights.
    pub dtype: DType,
    /// What somebody who knows the folder would not expect, a sentence each.
    pub notes: Vec<String>,
}

/// Converts `folder` to a GGUF file at `out`, whose metadata, names and layouts are those of
/// llama.cpp's converter. The file appears when it is complete; until then a hidden one lies beside
/// it. `progress` hears how many bytes of weights are written out of how many, and can stop it.
///
/// Memory holds the metadata and a few MiB of weights.
///
/// # Errors
/// [`ConvertError::MissingTensor`], [`ConvertError::UnknownTensor`], [`ConvertError::WrongShape`]
/// and [`ConvertError::UnsupportedType`] where the weights are not the model's that config.json
/// describes, [`ConvertError::Text`] for the tokenizer, [`ConvertError::TooLarge`] for weights
/// beyond the type asked for, [`ConvertError::NoSpace`] and [`ConvertError::Cancelled`]. Nothing is
/// left behind.
pub fn convert(
    folder: &Folder,
    options: &ConvertOptions,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Report, ConvertError> {
    let mut tokenizer = tokenizer_metadata(&folder.tokenizer_files()?, folder.architecture())?;
    let dtype = output_dtype(folder, options.dtype);
    let tokens = tokenizer.strings("tokenizer.ggml.tokens")?;
    let answers = answers(folder, tokens)?;
    let tokens = tokens.map_or(0, StringArray::len);
    let plan = plan(folder, dtype, tokens, answers)?;

    let parameters = plan
        .outputs
        .iter()
        .map(|output| output.shape.iter().product::<u64>())
        .sum();
    let generation = folder.generation_config()?;
    let general = General {
        name: &name(folder, options),
        parameters,
        dtype,
        generation: generation.as_ref(),
    };
    let mut metadata = keys::metadata(&folder.model, &general)?;
    if answers.is_some() {
        describe_reranker(folder.architecture(), &mut metadata, &mut tokenizer);
    }
    for (key, value) in tokenizer.iter() {
        metadata.insert(key, value.clone());
    }

    let mut notes = plan.notes;
    notes.extend(fallbacks(&plan.outputs, dtype));
    let tensors = plan.outputs.len();
    let bytes = write(folder, metadata, plan.outputs, out, progress)?;
    Ok(Report {
        bytes,
        tensors,
        parameters,
        dtype,
        notes,
    })
}

fn output_dtype(folder: &Folder, asked: OutputType) -> DType {
    match asked {
        OutputType::F32 => DType::F32,
        OutputType::F16 => DType::F16,
        OutputType::BF16 => DType::BF16,
        OutputType::Q8_0 => DType::Q8_0,
        OutputType::Quantized(dtype) => dtype,
        OutputType::Source => {
            let tensors = folder.weights.iter().flat_map(SafeTensors::tensors);
            let mut matrices = tensors.filter(|tensor| tensor.shape.len() > 1);
            match matrices.next().and_then(|tensor| tensor.dtype) {
                Some(dtype @ (DType::F16 | DType::BF16)) => dtype,
                _ => DType::F32,
            }
        }
    }
}

fn name(folder: &Folder, options: &ConvertOptions) -> String {
    let of_folder = || {
        let path = folder.path().canonicalize();
        let path = path.as_deref().unwrap_or(folder.path());
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| folder.architecture().to_owned())
    };
    options.name.clone().unwrap_or_else(of_folder)
}

/// The tokens by which a reranker answers, where the folder is of one.
fn answers(
    folder: &Folder,
    tokens: Option<&StringArray>,
) -> Result<Option<[u32; 2]>, ConvertError> {
    if !folder.answers_yes_or_no() {
        return Ok(None);
    }
    let find = |text: &str| tokens?.iter().position(|token| token == text);
    match (find("yes"), find("no")) {
        (Some(yes), Some(no)) => Ok(Some([yes as u32, no as u32])),
        _ => Err(ConvertError::Unsupported {
            family: folder.architecture(),
            what: "a reranker whose vocabulary has no `yes` or no `no`".to_owned(),
        }),
    }
}

/// The question that Qwen's rerankers were trained to answer (from their model cards).
const RERANK_TEMPLATE: &str = "<|im_start|>system\nJudge whether the Document meets the requirements \
    based on the Query and the Instruct provided. Note that the answer can only be \"yes\" or \"no\".\
    <|im_end|>\n<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages \
    that answer the query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n\
    <|im_start|>assistant\n<think>\n\n</think>\n\n";

fn describe_reranker(family: &str, metadata: &mut Metadata, tokenizer: &mut Metadata) {
    let labels: StringArray = ["yes", "no"].iter().collect();
    metadata.insert(
        format!("{family}.pooling_type"),
        crate::modules::Pooling::Rank as u32,
    );
    metadata.insert(format!("{family}.classifier.output_labels"), labels);
    let names: StringArray = ["rerank"].iter().collect();
    tokenizer.insert("tokenizer.chat_templates", Array::String(names));
    tokenizer.insert("tokenizer.chat_template.rerank", RERANK_TEMPLATE);
}

/// Says which matrices could not be brought into the type asked for.
fn fallbacks(outputs: &[Output], dtype: DType) -> Vec<String> {
    let others = encodable_types().filter(|other| ![dtype, DType::F32].contains(other));
    let note = |other: DType| {
        let fallen = || outputs.iter().filter(move |output| output.dtype == other);
        let first = fallen().next()?;
        Some(format!(
            "{} tensors were written as {other}, since their rows are not whole blocks of {dtype} \
             ({} each): {} has rows of {}, for example",
            fallen().count(),
            dtype.block_len(),
            first.name,
            first.shape[0]
        ))
    };
    others.filter_map(note).collect()
}

fn write(
    folder: &Folder,
    metadata: Metadata,
    outputs: Vec<Output>,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<u64, ConvertError> {
    let total = outputs.iter().map(byte_len).sum();
    let progress = RefCell::new(Progress {
        done: 0,
        total,
        tell: progress,
    });
    let mut writer = GgufWriter::new(metadata);
    for output in outputs {
        let progress = &progress;
        let (name, shape, dtype) = (output.name.clone(), output.shape.clone(), output.dtype);
        writer.add_tensor_with(name, &shape, dtype, move |sink| {
            let mut sink = Sink { sink, progress };
            let written = match &output.source {
                Source::Values(values) => sink.put(&output, values),
                Source::File(recipe) => {
                    copy(&folder.weights[recipe.file], &output, recipe, &mut sink)
                }
            };
            written.map_err(io::Error::other)
        });
    }
    check_is_no_source(folder, out)?;
    let needed = writer.byte_len()?;
    check_space(out, needed)?;
    writer.write_to(out).map_err(unwrap_own)
}

fn byte_len(output: &Output) -> u64 {
    let values: u64 = output.shape.iter().product();
    values / output.dtype.block_len() as u64 * output.dtype.block_bytes() as u64
}

/// A slip of the hand must not replace the weights that are read, or what stands beside them.
fn check_is_no_source(folder: &Folder, out: &Path) -> Result<(), ConvertError> {
    let (Ok(found), Ok(source)) = (out.canonicalize(), folder.path().canonicalize()) else {
        return Ok(());
    };
    let is_gguf = found
        .extension()
        .is_some_and(|extension| extension == "gguf");
    match found.starts_with(source) && !is_gguf {
        true => Err(ConvertError::OutIsSource {
            path: out.to_owned(),
        }),
        false => Ok(()),
    }
}

/// A file is only begun where it can be finished.
fn check_space(out: &Path, needed: u64) -> Result<(), ConvertError> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Where the system does not say how much is free, writing will tell.
    match fs4::available_space(folder.unwrap_or(Path::new("."))) {
        Ok(free) if free < needed => Err(ConvertError::NoSpace {
            path: out.to_owned(),
            needed,
            free,
        }),
        _ => Ok(()),
    }
}

/// Errors of this crate travel through the writer as errors of its streams.
fn unwrap_own(error: FormatError) -> ConvertError {
    match error {
        FormatError::Write(error) => match error.downcast::<ConvertError>() {
            Ok(own) => own,
            Err(error) => FormatError::Write(error).into(),
        },
        error => error.into(),
    }
}

struct Progress<'a> {
    done: u64,
    total: u64,
    tell: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

/// Where the numbers of one tensor go.
struct Sink<'a, 'b> {
    sink: &'a mut dyn Write,
    progress: &'a RefCell<Progress<'b>>,
}

impl Sink<'_, '_> {
    /// Encodes and writes whole rows.
    fn put(&mut self, output: &Output, values: &[f32]) -> Result<(), ConvertError> {
        check_range(output, values)?;
        let mut bytes = Vec::new();
        encode(output.dtype, values, &mut bytes).map_err(|error| match error {
            FormatError::NotEncodable { value, .. } => too_large(output, value),
            error => error.into(),
        })?;
        let written = self.sink.write_all(&bytes);
        written.map_err(FormatError::Write)?;
        let mut progress = self.progress.borrow_mut();
        progress.done += bytes.len() as u64;
        let (done, total) = (progress.done, progress.total);
        match (progress.tell)(done, total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ConvertError::Cancelled),
        }
    }
}

/// F16 holds less than F32 and BF16. (Types with blocks check by themselves.)
fn check_range(output: &Output, values: &[f32]) -> Result<(), ConvertError> {
    // What is nearer to the next number (65536) than to the largest one becomes infinite.
    const LIMIT: f32 = 65520.0;
    let mut finite = values.iter().filter(|value| value.is_finite());
    match finite.find(|value| output.dtype == DType::F16 && value.abs() >= LIMIT) {
        None => Ok(()),
        Some(&value) => Err(too_large(output, value)),
    }
}

fn too_large(output: &Output, value: f32) -> ConvertError {
    ConvertError::TooLarge {
        tensor: output.name.clone(),
        value,
        dtype: output.dtype,
    }
}

/// Reads a tensor some rows at a time, changes them as the recipe says and writes them.
fn copy(
    file: &SafeTensors,
    output: &Output,
    recipe: &Recipe,
    sink: &mut Sink<'_, '_>,
) -> Result<(), ConvertError> {
    let dtype = recipe.tensor.dtype.unwrap_or(DType::F32);
    let row_bytes = recipe.columns * dtype.block_bytes();
    let chunk_rows = (CHUNK / row_bytes.max(1)).max(1) as u64;
    let mut bytes = Vec::new();
    let mut values = Vec::new();
    let mut moved = Vec::new();
    let mut next = 0;
    while next < recipe.rows.len() {
        let rows = next..recipe.rows.len().min(next + chunk_rows);
        let count = (rows.end - rows.start) as usize;
        bytes.resize(count * row_bytes, 0);
        read_rows(file, recipe, rows.clone(), row_bytes, &mut bytes)?;
        values.resize(count * recipe.columns, 0.0);
        decode(dtype, &bytes, &mut values)?;
        if let Some(order) = &recipe.column_order {
            moved.clear();
            for row in values.chunks_exact(recipe.columns) {
                moved.extend(order.iter().map(|&column| row[column as usize]));
            }
            std::mem::swap(&mut values, &mut moved);
        }
        match recipe.apply {
            Apply::Nothing => {}
            Apply::AddOne => values.iter_mut().for_each(|value| *value += 1.0),
            Apply::NegativeExponential => values.iter_mut().for_each(|value| *value = -value.exp()),
        }
        sink.put(output, &values)?;
        next = rows.end;
    }
    Ok(())
}

fn read_rows(
    file: &SafeTensors,
    recipe: &Recipe,
    rows: std::ops::Range<u64>,
    row_bytes: usize,
    bytes: &mut [u8],
) -> Result<(), ConvertError> {
    match &recipe.rows {
        Rows::Range(range) => {
            let at = (range.start + rows.start) * row_bytes as u64;
            file.read(&recipe.tensor, at, bytes)?;
        }
        Rows::Listed(listed) => {
            let listed = &listed[rows.start as usize..rows.end as usize];
            for (&row, bytes) in listed.iter().zip(bytes.chunks_exact_mut(row_bytes)) {
                file.read(&recipe.tensor, u64::from(row) * row_bytes as u64, bytes)?;
            }
        }
    }
    Ok(())
}
