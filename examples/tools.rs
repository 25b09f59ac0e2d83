//! A model that calls a Rust function: `cargo run --release --example tools -- [MODEL] [TEXT]`.

use std::io::Write as _;

use dunlin::{AnswerEvent, Conversation, GenerateOptions, Lm, ToolChoice, ToolOptions, Toolbox};

/// What is computed.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Arithmetic {
    a: f64,
    operation: Operation,
    b: f64,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

fn calculate(args: Arithmetic) -> Result<f64, String> {
    match args.operation {
        Operation::Add => Ok(args.a + args.b),
        Operation::Subtract => Ok(args.a - args.b),
        Operation::Multiply => Ok(args.a * args.b),
        Operation::Divide if args.b == 0.0 => Err("nothing can be divided by zero".to_owned()),
        Operation::Divide => Ok(args.a / args.b),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "qwen2.5-coder:0.5b".to_owned());
    let text = arguments.next().unwrap_or_else(|| {
        "How much is 1234 times 5678? Then write one sentence with the result.".to_owned()
    });
    let lm = Lm::load_from_model_id(&model)?;
    let toolbox = Toolbox::new().with(
        "calculate",
        "Computes with two numbers. Use it for every calculation.",
        calculate,
    )?;
    // The first answer has to call: a model as small as this one does not always see that it should.
    let tools = ToolOptions::new()
        .with_choice(ToolChoice::Required)
        .with_parallel(false);
    let mut talk = Conversation::new(&lm)
        .with_options(GenerateOptions::greedy().with_max_tokens(300))
        .with_tools(toolbox.tools(), tools)?;
    let mut out = std::io::stdout();
    let run = talk.run_tools_with(&toolbox, text, 3, |event| {
        let _ = match event {
            AnswerEvent::ToolCall { call, .. } => {
                writeln!(out, "call:   {} {}", call.name, call.arguments)
            }
            AnswerEvent::ToolResult(result) => writeln!(out, "result: {}", result.content),
            _ => Ok(()),
        };
    })?;
    writeln!(out, "answer: {}", run.reply.text)?;
    Ok(())
}
