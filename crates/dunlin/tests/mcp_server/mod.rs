//! A small MCP server, written from the protocol's specification (2025-06-18), and some that keep to nothing.
//!
//! It runs as a process of its own (the test binary itself, started again with a variable that says what to be) or behind an
//! address of this machine.
#![allow(clippy::print_stderr, reason = "last words of a server")]

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use std::{env, fs, process, thread};

use serde_json::{Value, json};

/// Says what the process is to be.
pub(crate) const KIND: &str = "DUNLIN_TEST_MCP_KIND";
/// Names a file for what happened.
pub(crate) const NOTES: &str = "DUNLIN_TEST_MCP_NOTES";

/// Serves on standard input and output, as the variables say.
pub(crate) fn serve_stdio(kind: &str) -> ! {
    let mut out = std::io::stdout().lock();
    let endless = |text: &str| {
        let mut out = std::io::stdout().lock();
        while out.write_all(text.as_bytes()).is_ok() {}
    };
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let request: Value = serde_json::from_str(&line).unwrap();
        match kind {
            "silent" => continue,
            "prose" => {
                writeln!(out, "Welcome to the server!").unwrap();
                continue;
            }
            "dead" => {
                eprintln!("the configuration is missing");
                process::exit(3);
            }
            "endless line" => {
                drop(out);
                endless("x");
                process::exit(0);
            }
            "flood" if request["method"] == "tools/list" => {
                drop(out);
                endless("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n");
                process::exit(0);
            }
            _ => {}
        }
        if let Some(answer) = answer(kind, &request) {
            writeln!(out, "{answer}").unwrap();
            out.flush().unwrap();
        }
    }
    // Its input was closed.
    if kind == "stubborn" {
        thread::sleep(Duration::from_secs(600));
    }
    process::exit(0)
}

/// Serves behind an address, each connection on a thread, until the tests end. `is_stream`: answers as streams of events.
pub(crate) fn serve_http(kind: &'static str, is_stream: bool) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}/mcp", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            thread::spawn(move || exchange(connection.unwrap(), kind, is_stream));
        }
    });
    address
}

/// One request and its response.
fn exchange(mut connection: TcpStream, kind: &str, is_stream: bool) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push(lower);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut respond = |status: &str, kind: &str, body: &str| {
        let length = body.len();
        let _ = write!(
            connection,
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
    };
    if kind == "guarded"
        && !head
            .iter()
            .any(|line| line.trim() == "authorization: bearer sesame")
    {
        return respond("401 Unauthorized", "text/plain", "who are you?");
    }
    if !head[0].starts_with("post") {
        return respond("405 Method Not Allowed", "text/plain", "");
    }
    if kind == "elsewhere" {
        return respond(
            "404 Not Found",
            "text/html",
            "<h1>There is nothing here</h1>",
        );
    }
    let request: Value = serde_json::from_slice(&body).unwrap();
    let Some(answer) = answer(kind, &request) else {
        return respond("202 Accepted", "text/plain", "");
    };
    match is_stream {
        true => respond(
            "200 OK",
            "text/event-stream",
            &format!("event: message\ndata: {answer}\n\n"),
        ),
        false => respond("200 OK", "application/json", &answer.to_string()),
    }
}

/// The answer to a request; none to a notification.
fn answer(kind: &str, request: &Value) -> Option<Value> {
    let params = &request["params"];
    let result = match request["method"].as_str()? {
        "initialize" => initialize(kind),
        "ping" => json!({}),
        "tools/list" => list(kind, params["cursor"].as_str()),
        "tools/call" => match call(params["name"].as_str()?, &params["arguments"])? {
            Ok(result) => result,
            Err(message) => return Some(error(request, -32602, message)),
        },
        "notifications/cancelled" => {
            let notes = env::var_os(NOTES)?;
            fs::write(notes, params.to_string()).unwrap();
            return None;
        }
        method if method.starts_with("notifications/") => return None,
        _ => return Some(error(request, -32601, "Method not found")),
    };
    Some(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
}

fn error(request: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}})
}

fn initialize(kind: &str) -> Value {
    if kind == "strange" {
        return json!(["hello"]);
    }
    json!({
        "protocolVersion": if kind == "old" { "1999-12-31" } else { "2025-06-18" },
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "weather station", "version": "1.2.3"},
        "instructions": "Ask for the weather.",
    })
}

/// A page of the list.
fn list(kind: &str, cursor: Option<&str>) -> Value {
    let tool = |name: &str| {
        let schema = json!({"type": "object", "properties": {}});
        json!({"name": name, "description": "", "inputSchema": schema})
    };
    let numbered = |count: usize| (0..count).map(|n| tool(&format!("tool{n}"))).collect();
    let tools: Vec<Value> = match kind {
        "nothing" => vec![],
        "single" => vec![weather()],
        "invalid name" => vec![tool("see/the weather")],
        "twins" => vec![tool("a"), tool("a")],
        "many" => numbered(200),
        "endless list" => return json!({"tools": [], "nextCursor": "again"}),
        "unkeepable" => {
            let schema =
                json!({"type": "object", "properties": {"city": {"not": {"const": "Rome"}}}});
            vec![tool("fine"), json!({"name": "odd", "inputSchema": schema})]
        }
        _ => match cursor {
            None => return json!({"tools": [weather()], "nextCursor": "page 2"}),
            Some(cursor) => {
                assert_eq!(cursor, "page 2");
                [
                    "fail", "picture", "wait", "die", "long", "process", "variable",
                ]
                .map(tool)
                .to_vec()
            }
        },
    };
    json!({"tools": tools})
}

fn weather() -> Value {
    json!({
        "name": "weather",
        "title": "Weather",
        "description": "The weather in a city.",
        "inputSchema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "WeatherArguments",
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 6},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
        },
    })
}

/// The result of a call, or why it is refused; none where there is no answer.
fn call(name: &str, arguments: &Value) -> Option<Result<Value, &'static str>> {
    let text = |text: String| json!({"content": [{"type": "text", "text": text}]});
    Some(Ok(match name {
        "weather" => {
            let (city, unit) = (arguments["city"].as_str()?, arguments["unit"].as_str()?);
            json!({"content": [
                {"type": "text", "text": format!("sunny in {city}")},
                {"type": "text", "text": format!("20 degrees {unit}")},
            ]})
        }
        "fail" => {
            json!({"content": [{"type": "text", "text": "the sensor is broken"}], "isError": true})
        }
        "picture" => {
            json!({"content": [{"type": "image", "data": "QUJD", "mimeType": "image/png"}]})
        }
        "wait" => return None,
        "die" => {
            eprintln!("lightning has struck");
            process::exit(9);
        }
        "long" => text("x".repeat(100_000)),
        "process" => text(process::id().to_string()),
        "variable" => text(env::var("STATION").unwrap_or_default()),
        _ => return Some(Err("there is no such tool")),
    }))
}
