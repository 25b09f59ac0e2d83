//! A model that calls the tools of an MCP server:
//! `cargo run --release --features mcp --example mcp -- TEXT ADDRESS|PROGRAM [ARGUMENT...]`.

use std::io::Write as _;

use dunlin::mcp::{McpOptions, McpServer};
use dunlin::{AnswerEvent, Conversation, GenerateOptions, Lm, ToolChoice, ToolOptions, Toolbox};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(text), Some(place)) = (arguments.next(), arguments.next()) else {
        return Err("give a text, and a server: its address, or its program with arguments".into());
    };
    let options = McpOptions::new();
    let server = match place.starts_with("http") {
        true => McpServer::connect(&place, &options)?,
        false => McpServer::start(&place, arguments, &options)?,
    };
    let mut out = std::io::stdout();
    let name = server.name().unwrap_or(&place);
    writeln!(out, "{name}, protocol {}", server.protocol_version())?;
    for tool in server.tools() {
        writeln!(out, "tool:   {} {}", tool.name, tool.parameters)?;
    }
    let toolbox = Toolbox::new().with_mcp(&server)?;
    let lm = Lm::load_from_model_id("qwen2.5-coder:0.5b")?;
    // The first answer has to call: a model as small as this one does not always see that it should.
    let tools = ToolOptions::new()
        .with_choice(ToolChoice::Required)
        .with_parallel(false);
    let mut talk = Conversation::new(&lm)
        .with_options(GenerateOptions::greedy().with_max_tokens(300))
        .with_tools(toolbox.tools(), tools)?;
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
