//! The fixtures, and the optional folder of shared conformance data.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};

use dunlin::{
    DeviceConfiguration, Event, GenerateOptions, HubConfig, Lm, LoadOptions, ModelRef, Prompt,
};

/// A file beside `make_tiny.py`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

pub(crate) fn tiny_ref() -> ModelRef {
    ModelRef::Path(fixture("tiny.gguf"))
}

/// Two threads, and a hub that reads no environment.
pub(crate) fn options<'a>() -> LoadOptions<'a> {
    LoadOptions::default()
        .with_device(DeviceConfiguration::cpu().with_threads(2))
        .with_hub(HubConfig::new(
            std::env::temp_dir().join("dunlin-sdk-tests"),
        ))
        .with_offline(true)
}

pub(crate) fn tiny() -> Lm {
    Lm::load(tiny_ref(), options()).unwrap()
}

/// The greedy continuation of a text.
pub(crate) fn greedy(lm: &Lm, text: &str, tokens: usize) -> String {
    let options = GenerateOptions::greedy().with_max_tokens(tokens);
    lm.generate(&Prompt::from(text), &options)
        .unwrap()
        .complete()
        .unwrap()
        .text
}

/// The natural logarithms of the softmax of the model's scores for the token behind these.
pub(crate) fn log_probabilities(lm: &Lm, tokens: &[u32]) -> Vec<f64> {
    let rows = lm.logits(tokens, &[tokens.len() - 1]).unwrap();
    let row = &rows[0][..lm.tokenizer().vocab_size()];
    let total: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
    row.iter()
        .map(|logit| f64::from(*logit) - total.ln())
        .collect()
}

pub(crate) fn events(lm: &Lm, prompt: &Prompt, options: &GenerateOptions) -> Vec<Event> {
    lm.generate(prompt, options)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// The conformance folder: that of `DUNLIN_SHARED`, else `shared` beside the workspace. `None`, said in the output, where
/// there is none.
pub(crate) fn conformance() -> Option<PathBuf> {
    let shared = std::env::var_os("DUNLIN_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let folder = shared.join("conformance");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no shared conformance data (set DUNLIN_SHARED to their folder)");
    None
}

/// A model of this machine's cache. `None`, said in the output, where it is not there.
pub(crate) fn pulled(id: &str) -> Option<Lm> {
    let options = LoadOptions::default()
        .with_device(DeviceConfiguration::cpu().with_threads(2))
        .with_offline(true);
    let lm = Lm::load(id.parse().unwrap(), options).ok();
    if lm.is_none() {
        println!("skipped: {id} is not in the cache of this machine (dunlin pull {id})");
    }
    lm
}

/// ChatML, each message as it is.
pub(crate) const CHATML: &str = "{% for m in messages %}\
    {{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
    {{ '<|im_start|>assistant\n' }}";

/// Writes a model with another chat template.
pub(crate) fn with_template(model: &Path, path: &Path, template: &str) {
    with_metadata(model, path, [("tokenizer.chat_template", template.into())]);
}

/// Writes a model with other metadata.
pub(crate) fn with_metadata<const N: usize>(
    model: &Path,
    path: &Path,
    changes: [(&str, dunlin::Value); N],
) {
    let gguf = dunlin_format::Gguf::open(model).unwrap();
    let mut metadata = gguf.metadata().clone();
    for (key, value) in changes {
        metadata.insert(key, value);
    }
    let mut writer = dunlin_format::GgufWriter::new(metadata);
    for tensor in gguf.tensors() {
        let bytes = gguf.data(tensor);
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.dtype, bytes);
    }
    writer.write_to(path).unwrap();
}

/// A tiny model that speaks with the template of a family.
pub(crate) fn family(name: &str) -> Option<Lm> {
    let path = conformance()?.join(format!("templates/jinja/{name}.jinja"));
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    let template = std::fs::read_to_string(path).unwrap();
    let context = ("llama.context_length", 4096_u32.into());
    let template = ("tokenizer.chat_template", template.into());
    with_metadata(&fixture("tiny.gguf"), &model, [context, template]);
    Some(Lm::load(ModelRef::Path(model), options()).unwrap())
}

/// A JSON file of the fixtures.
pub(crate) fn fixture_json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}
