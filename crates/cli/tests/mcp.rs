//! `dunlin run --mcp`: tools of a server, on a tiny random model with the template of one that calls tools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

#[cfg(feature = "mcp")]
#[path = "../../dunlin/tests/mcp_server/mod.rs"]
#[allow(dead_code, reason = "the command starts it as a program only")]
mod mcp_server;

#[cfg(not(feature = "mcp"))]
#[test]
fn a_build_without_a_client_says_so() {
    let dunlin = common::Dunlin::new();
    let tiny = common::fixture("tiny.gguf");
    let ran = dunlin
        .run(&["run", &tiny, "--mcp", "server", "Hello"])
        .code(2);
    assert!(ran.stderr.contains("--features mcp"), "{}", ran.stderr);
    let help = dunlin.run(&["run", "--help"]).ok();
    assert!(!help.stdout.contains("--mcp"));
}

#[cfg(feature = "mcp")]
mod with_a_client {
    use std::{env, fs};

    use dunlin_format::{Gguf, GgufWriter};
    use serde_json::json;

    use super::common::{Dunlin, conformance, fixture};
    use super::mcp_server::{KIND, serve_stdio};

    /// The server that the other tests have started, in a process of its own.
    #[test]
    #[ignore = "not a test: the process that the tests of this file start as their server; alone it would wait for a client"]
    fn server() {
        serve_stdio(&env::var(KIND).unwrap());
    }

    /// The command line of the server.
    fn command() -> String {
        let program = env::current_exe().unwrap();
        let name = "with_a_client::server";
        format!(
            "'{}' --ignored --exact {name} --nocapture",
            program.display()
        )
    }

    /// A model that calls tools.
    fn model(dunlin: &Dunlin) -> Option<String> {
        let template = conformance()?.join("templates/jinja/qwen2.5.jinja");
        let gguf = Gguf::open(fixture("tiny.gguf").as_ref()).unwrap();
        let mut metadata = gguf.metadata().clone();
        let template = fs::read_to_string(template).unwrap();
        metadata.insert("tokenizer.chat_template", template);
        metadata.insert("llama.context_length", 4096_u32);
        let mut writer = GgufWriter::new(metadata);
        for tensor in gguf.tensors() {
            writer.add_tensor(&tensor.name, &tensor.shape, tensor.dtype, gguf.data(tensor));
        }
        let path = dunlin.folder.path().join("calls.gguf");
        writer.write_to(&path).unwrap();
        Some(path.to_str().unwrap().to_owned())
    }

    #[test]
    fn calls_and_results_stand_beside_the_answer() {
        let dunlin = Dunlin::new();
        let Some(model) = model(&dunlin) else { return };
        let server = format!("roof={}", command());
        let args = ["run", &model, "--mcp", &server, "--tool-choice", "required"];
        let more = [
            "--tool-rounds",
            "1",
            "--temperature",
            "0",
            "-n",
            "200",
            "How is it?",
        ];
        let args = [&args[..], &more].concat();
        let run = |more: &[&str]| {
            let args = [&args[..], more].concat();
            let output = dunlin.command(&args).env(KIND, "single").output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            let (out, errors) = (text(output.stdout), text(output.stderr));
            assert!(output.status.success(), "{errors}");
            (out, errors)
        };
        let (out, _) = run(&["--json"]);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        let call = &json["tool_calls"][0];
        assert_eq!(call["name"], "roof_weather");
        assert_eq!(call["is_error"], false);
        let (city, unit) = (&call["arguments"]["city"], &call["arguments"]["unit"]);
        let result = format!(
            "sunny in {}\n20 degrees {}",
            city.as_str().unwrap(),
            unit.as_str().unwrap()
        );
        assert_eq!(call["result"], json!(result));

        let (out, errors) = run(&[]);
        assert!(out.ends_with(&format!("{}\n", json["text"].as_str().unwrap())));
        assert!(errors.contains("[roof_weather {"), "{errors}");
        assert!(errors.contains("[-> sunny in "), "{errors}");
    }

    #[test]
    fn what_is_wrong_with_a_server_is_said_before_the_model_is_loaded() {
        let dunlin = Dunlin::new();
        let fails = |server: &str, code| {
            let args = ["run", "nowhere.gguf", "--mcp", server, "Hello"];
            dunlin.run(&args).code(code).stderr
        };
        assert!(fails("no-such-program-here", 1).contains("cannot be started"));
        assert!(fails("server 'a", 2).contains("not closed"));
        assert!(fails("", 2).contains("no command"));
        // The tests run with DUNLIN_OFFLINE=1.
        assert!(fails("https://example.com/mcp", 2).contains("--offline"));
    }
}
