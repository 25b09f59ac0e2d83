//! Tools of MCP servers: over standard input and output and over HTTP, in conversations, and of servers that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
mod mcp_server;

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use common::family;
use dunlin::mcp::{McpError, McpOptions, McpServer};
use dunlin::{
    CancelToken, Conversation, Error, GenerateOptions, TextError, ToolCall, ToolChoice,
    ToolOptions, Toolbox,
};
use mcp_server::{KIND, NOTES, serve_http, serve_stdio};
use serde_json::{Value, json};

/// The server that the other tests start, in a process of its own.
#[test]
#[ignore = "not a test: the process that the tests of this file start as their server; alone it would wait for a client"]
fn server() {
    serve_stdio(&env::var(KIND).unwrap());
}

fn start_with(kind: &str, options: McpOptions) -> Result<McpServer, Error> {
    let program = env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "server", "--nocapture"];
    McpServer::start(program, arguments, &options.with_variable(KIND, kind))
}

fn start(kind: &str) -> McpServer {
    start_with(kind, McpOptions::new()).unwrap()
}

/// Why a server cannot be connected.
fn refused(kind: &str, options: McpOptions) -> McpError {
    mcp(start_with(kind, options).map(|_| ()))
}

fn mcp(result: Result<(), Error>) -> McpError {
    match result.unwrap_err() {
        Error::Mcp(error) => error,
        other => panic!("{other:?}"),
    }
}

fn call(server: &McpServer, name: &str, arguments: Value) -> Result<(String, bool), McpError> {
    match server.call(&ToolCall::new(name, arguments)) {
        Ok(result) => Ok((result.content, result.is_error)),
        Err(Error::Mcp(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    }
}

fn check_all(server: &McpServer) {
    assert_eq!(server.name(), Some("weather station"));
    assert_eq!(server.version(), Some("1.2.3"));
    assert_eq!(server.protocol_version(), "2025-06-18");
    assert_eq!(server.instructions(), Some("Ask for the weather."));
    // Both pages.
    assert_eq!(server.tools().len(), 8);
    let weather = &server.tools()[0];
    assert_eq!(weather.name, "weather");
    assert_eq!(weather.description, "The weather in a city.");
    assert_eq!(
        weather.parameters,
        json!({
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 6},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": false,
        })
    );

    let paris = json!({"city": "Paris", "unit": "celsius"});
    let (text, is_error) = call(server, "weather", paris.clone()).unwrap();
    assert_eq!(text, "sunny in Paris\n20 degrees celsius");
    assert!(!is_error);
    let (text, is_error) = call(server, "fail", json!({})).unwrap();
    assert_eq!(text, "error: the sensor is broken");
    assert!(is_error);
    let (text, is_error) = call(server, "picture", json!({})).unwrap();
    assert!(text.contains("image/png") && is_error, "{text}");
    let (text, is_error) = call(server, "long", json!({})).unwrap();
    assert!(text.contains("100000 bytes") && is_error, "{text}");
    let absent = call(server, "snow", json!({})).unwrap_err();
    assert!(matches!(absent, McpError::NoSuchTool { .. }), "{absent}");
    let no_object = call(server, "weather", json!([1])).unwrap_err();
    assert!(matches!(no_object, McpError::Arguments { .. }));

    // Several threads share the connection.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| call(server, "weather", paris.clone()).unwrap());
        }
    });
    assert_eq!(server.ended(), None);
}

#[test]
fn a_program_lists_its_tools_and_is_called() {
    let options = McpOptions::new().with_variable("STATION", "roof");
    let server = start_with("good", options).unwrap();
    check_all(&server);
    let station = call(&server, "variable", json!({})).unwrap();
    assert_eq!(station, ("roof".to_owned(), false));
}

#[test]
fn an_address_lists_its_tools_and_is_called() {
    for is_stream in [false, true] {
        let address = serve_http("good", is_stream);
        check_all(&McpServer::connect(&address, &McpOptions::new()).unwrap());
    }
}

#[test]
fn a_token_is_sent_to_an_address_that_asks_for_one() {
    let address = serve_http("guarded", false);
    let without = McpServer::connect(&address, &McpOptions::new());
    let without = mcp(without.map(|_| ()));
    assert!(without.to_string().contains("401"), "{without}");
    let options = McpOptions::new().with_bearer_token("sesame");
    assert!(!format!("{options:?}").contains("sesame"));
    let with = McpServer::connect(&address, &options).unwrap();
    assert_eq!(with.tools().len(), 8);
}

#[test]
fn prefixes_keep_two_servers_apart() {
    let first = start("good");
    let toolbox = Toolbox::new().with_mcp(&first).unwrap();
    let clash = mcp(toolbox.with_mcp(&first).map(|_| ()));
    assert!(
        matches!(&clash, McpError::InvalidTool { tool, .. } if tool == "weather"),
        "{clash}"
    );
    let options = McpOptions::new()
        .with_prefix("roof.")
        .with_only(["weather", "process"]);
    let second = start_with("good", options).unwrap();
    let toolbox = Toolbox::new()
        .with_mcp(&first)
        .unwrap()
        .with_mcp(&second)
        .unwrap();
    let names: Vec<_> = toolbox.tools().iter().map(|tool| &*tool.name).collect();
    assert_eq!(names.len(), 10);
    assert_eq!(names[8..], ["roof.weather", "roof.process"]);
    let process = |name: &str| toolbox.call(&ToolCall::new(name, json!({}))).content;
    assert_ne!(process("process"), process("roof.process"));

    let absent = McpOptions::new().with_only(["snow"]);
    let absent = refused("good", absent);
    assert!(
        matches!(&absent, McpError::NoSuchTool { tool, .. } if tool == "snow"),
        "{absent}"
    );
    let long = McpOptions::new().with_prefix("x".repeat(60));
    let long = refused("good", long);
    assert!(matches!(long, McpError::InvalidTool { .. }), "{long}");
}

#[test]
fn a_model_calls_the_tools_of_a_server() {
    let Some(lm) = family("qwen2.5") else { return };
    let server = start_with("good", McpOptions::new().with_only(["weather"])).unwrap();
    let toolbox = Toolbox::new().with_mcp(&server).unwrap();
    let required = ToolOptions::new()
        .with_choice(ToolChoice::Required)
        .with_parallel(false);
    let mut talk = Conversation::new(&lm)
        .with_options(GenerateOptions::greedy().with_max_tokens(200))
        .with_tools(toolbox.tools(), required)
        .unwrap();
    let run = talk.run_tools(&toolbox, "How is it?", 1).unwrap();
    let [round] = run.rounds.as_slice() else {
        panic!("{run:?}");
    };
    let result = &round.results[0];
    assert!(!result.is_error, "{result:?}");
    let city = result.call.arguments["city"].as_str().unwrap();
    assert!(
        result
            .content
            .starts_with(&format!("sunny in {city}\n20 degrees "))
    );
    // The toolbox holds the connection.
    drop(server);
    assert!(!toolbox.call(&result.call).is_error);
}

#[test]
fn a_schema_that_cannot_be_kept_is_refused_with_its_tool() {
    let Some(lm) = family("qwen2.5") else { return };
    let offer = |options: McpOptions| {
        let server = start_with("unkeepable", options).unwrap();
        Conversation::new(&lm).with_tools(server.tools(), ToolOptions::new())
    };
    match offer(McpOptions::new()) {
        Err(Error::Text(TextError::ToolSchema { tool, place, .. })) => {
            assert_eq!(tool, "odd");
            assert!(place.ends_with("/properties/city/not"), "{place}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    assert!(offer(McpOptions::new().with_only(["fine"])).is_ok());
}

#[test]
fn calls_end_with_their_time_and_the_server_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    let options = McpOptions::new()
        .with_call_timeout(Duration::from_millis(200))
        .with_variable(NOTES, notes.to_str().unwrap());
    let server = start_with("good", options).unwrap();
    let error = call(&server, "wait", json!({})).unwrap_err();
    assert!(matches!(error, McpError::Timeout { .. }), "{error}");
    wait_for(&notes);
    // The connection goes on.
    let paris = json!({"city": "Paris", "unit": "celsius"});
    assert!(call(&server, "weather", paris).is_ok());

    let address = serve_http("good", false);
    let options = McpOptions::new().with_call_timeout(Duration::from_millis(200));
    let server = McpServer::connect(&address, &options).unwrap();
    // The address answers that it has accepted the request, and no more.
    assert!(call(&server, "wait", json!({})).is_err());
}

#[test]
fn calls_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    let cancel = CancelToken::new();
    let options = McpOptions::new()
        .with_cancel(cancel.clone())
        .with_variable(NOTES, notes.to_str().unwrap());
    let server = start_with("good", options).unwrap();
    let started = Instant::now();
    thread::scope(|scope| {
        let call = scope.spawn(|| call(&server, "wait", json!({})));
        thread::sleep(Duration::from_millis(100));
        cancel.cancel();
        assert_eq!(call.join().unwrap(), Err(McpError::Cancelled));
    });
    wait_for(&notes);
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// Waits for a file that a server writes.
fn wait_for(path: &Path) {
    let started = Instant::now();
    while !fs::read_to_string(path).is_ok_and(|text| text.contains("requestId")) {
        assert!(started.elapsed() < Duration::from_secs(10), "no note");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_program_that_dies_is_an_error_that_says_how() {
    let server = start("good");
    let error = call(&server, "die", json!({})).unwrap_err();
    assert!(matches!(error, McpError::Ended { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("status: 9") && text.contains("lightning has struck"),
        "{text}"
    );
    assert_eq!(server.ended(), Some(error.clone()));
    assert_eq!(call(&server, "fail", json!({})), Err(error.clone()));
    // A model is told.
    let toolbox = Toolbox::new().with_mcp(&server).unwrap();
    let result = toolbox.call(&ToolCall::new("fail", json!({})));
    assert!(result.is_error);
    assert_eq!(result.content, format!("error: {error}"));
}

#[test]
fn nothing_of_a_program_is_left_behind() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for (kind, most) in [("good", 2), ("stubborn", 8)] {
        let server = start(kind);
        let (process, _) = call(&server, "process", json!({})).unwrap();
        let process = Path::new("/proc").join(process);
        assert!(process.is_dir());
        let toolbox = Toolbox::new().with_mcp(&server).unwrap();
        drop(server);
        assert!(process.is_dir());
        let started = Instant::now();
        drop(toolbox);
        // A process that has ended and was not waited for is still there.
        assert!(!process.exists(), "{kind}");
        assert!(started.elapsed() < Duration::from_secs(most), "{kind}");
    }
}

#[test]
fn programs_that_do_not_speak_the_protocol_are_told_apart() {
    let short = || McpOptions::new().with_connect_timeout(Duration::from_secs(2));
    let absent = McpServer::start("/nowhere/mcp-server", [""; 0], &McpOptions::new());
    let absent = mcp(absent.map(|_| ()));
    assert!(matches!(absent, McpError::Start { .. }), "{absent}");
    let dead = refused("dead", McpOptions::new());
    assert!(
        matches!(&dead, McpError::Connect { reason, .. }
            if reason.contains("status: 3") && reason.contains("the configuration is missing")),
        "{dead}"
    );
    for kind in ["silent", "prose"] {
        let started = Instant::now();
        let error = refused(kind, short());
        assert!(matches!(error, McpError::Timeout { .. }), "{kind}: {error}");
        assert!(started.elapsed() < Duration::from_secs(8));
    }
    let strange = refused("strange", McpOptions::new());
    assert!(matches!(strange, McpError::Connect { .. }), "{strange}");
    let old = refused("old", McpOptions::new());
    assert!(
        matches!(&old, McpError::ProtocolVersion { found, .. } if found == "1999-12-31"),
        "{old}"
    );
}

#[test]
fn lists_that_are_not_sound_are_refused() {
    let nothing = refused("nothing", McpOptions::new());
    assert!(matches!(nothing, McpError::NoTools { .. }), "{nothing}");
    let name = refused("invalid name", McpOptions::new());
    assert!(
        matches!(&name, McpError::InvalidTool { tool, .. } if tool == "see/the weather"),
        "{name}"
    );
    let twins = refused("twins", McpOptions::new());
    assert!(matches!(twins, McpError::InvalidTool { .. }), "{twins}");
    let many = refused("many", McpOptions::new());
    assert!(
        matches!(many, McpError::ListTooLong { limit: 128, .. }),
        "{many}"
    );
    let options = McpOptions::new().with_max_tools(200);
    assert_eq!(start_with("many", options).unwrap().tools().len(), 200);
    let endless = refused("endless list", McpOptions::new());
    assert!(
        matches!(endless, McpError::ListTooLong { unit: "pages", .. }),
        "{endless}"
    );
    let large = refused("many", McpOptions::new().with_max_message_bytes(4096));
    assert!(
        matches!(large, McpError::MessageTooLarge { limit: 4096, .. }),
        "{large}"
    );
}

#[test]
fn programs_that_never_stop_talking_are_cut_off() {
    let line = refused("endless line", McpOptions::new());
    assert!(matches!(line, McpError::MessageTooLarge { .. }), "{line}");
    let flood = refused("flood", McpOptions::new());
    assert!(matches!(flood, McpError::Flood { .. }), "{flood}");
    let server = start_with("good", McpOptions::new().with_max_message_bytes(50_000)).unwrap();
    let long = call(&server, "long", json!({})).unwrap_err();
    assert!(
        matches!(long, McpError::MessageTooLarge { limit: 50_000, .. }),
        "{long}"
    );
}

#[test]
fn addresses_where_no_server_is_are_told_apart() {
    let connect =
        |address: &str, options: &McpOptions| mcp(McpServer::connect(address, options).map(|_| ()));
    let nowhere = connect("ftp://localhost/mcp", &McpOptions::new());
    assert!(matches!(nowhere, McpError::Address { .. }), "{nowhere}");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}/mcp", port.local_addr().unwrap());
    drop(port);
    let nobody = connect(&address, &McpOptions::new());
    assert!(
        matches!(&nobody, McpError::Connect { reason, .. } if reason.contains("refused")),
        "{nobody}"
    );
    let page = connect(&serve_http("elsewhere", false), &McpOptions::new());
    assert!(
        matches!(&page, McpError::Connect { reason, .. } if reason.contains("404")),
        "{page}"
    );
    for is_stream in [false, true] {
        let options = McpOptions::new()
            .with_max_message_bytes(50_000)
            .with_call_timeout(Duration::from_secs(5));
        let server = McpServer::connect(&serve_http("good", is_stream), &options).unwrap();
        let long = call(&server, "long", json!({})).unwrap_err();
        let is_told = match &long {
            McpError::MessageTooLarge { limit, .. } => *limit == 50_000 && !is_stream,
            McpError::Transport { reason, .. } => reason.contains("50000") && is_stream,
            _ => false,
        };
        assert!(is_told, "{is_stream}: {long:?}");
        // The connection goes on.
        assert!(call(&server, "fail", json!({})).unwrap().1);
    }
}
