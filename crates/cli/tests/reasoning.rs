//! `dunlin run --reasoning`: where reasoning goes, on a tiny random model with the template of one that reasons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::path::Path;

use common::{Dunlin, fixture, keys};
use dunlin_format::{Gguf, GgufWriter};

const TEMPLATE: &str = "{% for m in messages %}\
    {{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
    {{ '<|im_start|>assistant\n' }}\
    {% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}";

fn model(dunlin: &Dunlin) -> String {
    let gguf = Gguf::open(Path::new(&fixture("tiny.gguf"))).unwrap();
    let mut metadata = gguf.metadata().clone();
    metadata.insert("tokenizer.chat_template", TEMPLATE);
    let mut writer = GgufWriter::new(metadata);
    for tensor in gguf.tensors() {
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.dtype, gguf.data(tensor));
    }
    let path = dunlin.folder.path().join("thinks.gguf");
    writer.write_to(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn args<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["run", model, "--temperature", "0", "-n", "40", "Hello"];
    [&args[..], more].concat()
}

#[test]
fn reasoning_goes_to_stderr_and_the_answer_to_stdout() {
    let dunlin = Dunlin::new();
    let model = model(&dunlin);
    let budget = ["--reasoning-budget", "5"];
    let json = dunlin.json(&args(&model, &[&budget[..], &["--json"]].concat()));
    assert_eq!(keys(&json), ["text", "finish_reason", "usage", "reasoning"]);
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    assert!(!text("reasoning").is_empty());

    let shown = dunlin.run(&args(&model, &budget)).ok();
    assert_eq!(shown.stdout, format!("{}\n", text("text")));
    assert!(
        shown.stderr.contains(&text("reasoning")),
        "{}",
        shown.stderr
    );
    for hidden in [&["--reasoning", "hide"][..], &["--quiet"]] {
        let hidden = dunlin
            .run(&args(&model, &[&budget[..], hidden].concat()))
            .ok();
        assert_eq!(hidden.stdout, shown.stdout);
        assert!(!hidden.stderr.contains(&text("reasoning")));
    }
}

#[test]
fn reasoning_can_be_off() {
    let dunlin = Dunlin::new();
    let model = model(&dunlin);
    let json = dunlin.json(&args(&model, &["--reasoning", "off", "--json"]));
    assert_eq!(keys(&json), ["text", "finish_reason", "usage"]);
    assert_ne!(json["text"], "");
}

#[test]
fn what_excludes_each_other_and_a_model_that_does_not_reason_are_errors() {
    let dunlin = Dunlin::new();
    let tiny = fixture("tiny.gguf");
    for wrong in [
        &["--reasoning", "off", "--reasoning-budget", "3"][..],
        &["--reasoning-budget", "3", "--best-of", "2"],
        &["--reasoning-budget", "0"],
        &["--reasoning", "off", "--raw"],
    ] {
        dunlin.run(&args(&tiny, wrong)).code(2);
    }
    let ran = dunlin
        .run(&args(&tiny, &["--reasoning-budget", "3"]))
        .code(1);
    assert!(
        ran.stderr.contains("cannot be told to reason"),
        "{}",
        ran.stderr
    );
}
