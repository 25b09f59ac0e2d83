//! Tools in conversations: calls that validate, results, and the loop over both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "measured tests say what they found")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{family, pulled, tiny};
use dunlin::{
    AnswerEvent, Conversation, Error, FinishReason, GenerateOptions, SamplerConfig, TextError,
    Tool, ToolChoice, ToolOptions, Toolbox,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Celsius,
    Fahrenheit,
}

/// Short texts, so that a model of random weights ends them.
#[derive(Deserialize, JsonSchema)]
struct Weather {
    #[schemars(length(max = 6))]
    city: String,
    unit: Unit,
}

#[derive(Deserialize, JsonSchema)]
struct Count {
    #[schemars(range(min = 0, max = 99))]
    number: u8,
    loud: bool,
}

fn toolbox(runs: &Arc<AtomicUsize>) -> Toolbox {
    let (weather, count) = (Arc::clone(runs), Arc::clone(runs));
    Toolbox::new()
        .with("weather", "The weather in a city.", move |args: Weather| {
            weather.fetch_add(1, Ordering::Relaxed);
            let degrees = match args.unit {
                Unit::Celsius => 20,
                Unit::Fahrenheit => 68,
            };
            Ok::<_, String>(format!("{degrees} degrees in {}", args.city))
        })
        .unwrap()
        .with("count", "Counts.", move |args: Count| {
            count.fetch_add(1, Ordering::Relaxed);
            Err::<u8, _>(format!("{} is too many, loud: {}", args.number, args.loud))
        })
        .unwrap()
}

fn schema<'t>(tools: &'t [Tool], name: &str) -> &'t Value {
    let tool = tools.iter().find(|tool| tool.name == name);
    &tool.expect("a tool that is not on offer").parameters
}

/// The text that all events but the last one make, and the arguments of each call.
fn check_events(events: &[AnswerEvent]) {
    let Some(AnswerEvent::End(reply)) = events.last() else {
        panic!("{events:?}");
    };
    let (mut text, mut arguments) = (String::new(), Vec::new());
    for event in events {
        match event {
            AnswerEvent::Text(piece) => text.push_str(piece),
            AnswerEvent::ToolCallStart { index, .. } => {
                assert_eq!(*index, arguments.len());
                arguments.push(String::new());
            }
            AnswerEvent::ToolCallArguments { index, text } => arguments[*index].push_str(text),
            AnswerEvent::ToolCall { index, call } => assert_eq!(*call, reply.tool_calls[*index]),
            _ => {}
        }
    }
    assert_eq!(text, reply.text);
    let arguments = arguments
        .iter()
        .map(|text| serde_json::from_str::<Value>(text).unwrap());
    let calls = reply.tool_calls.iter().map(|call| call.arguments.clone());
    assert!(arguments.eq(calls));
}

#[test]
fn calls_of_models_that_know_nothing_validate_in_each_notation() {
    let runs = Arc::new(AtomicUsize::new(0));
    let toolbox = toolbox(&runs);
    let named = ToolOptions::new().with_choice(ToolChoice::Named("count".to_owned()));
    let required = ToolOptions::new()
        .with_choice(ToolChoice::Required)
        .with_parallel(false);
    for name in [
        "qwen2.5",
        "qwen3.5",
        "llama-3.2",
        "mistral-nemo",
        "phi-4-mini",
        "gemma4",
        "granite-3.3",
    ] {
        let Some(lm) = family(name) else { return };
        for (tools, seed) in [(&required, 1), (&required, 2), (&named, 3)] {
            let sampler = SamplerConfig::default();
            let options = GenerateOptions::default()
                .with_sampler(sampler)
                .with_seed(seed)
                .with_max_tokens(400);
            let tools = tools.clone().with_parallel(false);
            let is_named = tools.choice != ToolChoice::Required;
            let mut talk = Conversation::new(&lm)
                .with_options(options)
                .with_reasoning(dunlin::Reasoning::Off)
                .with_tools(toolbox.tools(), tools)
                .unwrap();
            let events: Vec<_> = talk
                .send("How is it?")
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            check_events(&events);
            let Some(AnswerEvent::End(reply)) = events.last() else {
                panic!()
            };
            assert_eq!(reply.finish_reason, FinishReason::EndOfText, "{name}");
            let [call] = reply.tool_calls.as_slice() else {
                panic!("{name}: {reply:?}");
            };
            assert!(!is_named || call.name == "count");
            let schema = schema(toolbox.tools(), &call.name);
            assert!(jsonschema::is_valid(schema, &call.arguments), "{call:?}");
            assert!(!toolbox.call(call).content.contains("do not fit"));

            // The result can be put in, and an answer without calls follows.
            talk.push_tool_result(call, "fine").unwrap();
            let none = ToolOptions::new().with_choice(ToolChoice::None);
            talk.set_tools(toolbox.tools(), none).unwrap();
            talk.set_options(GenerateOptions::greedy().with_max_tokens(8));
            let answer = talk.answer().unwrap().complete().unwrap();
            assert!(answer.tool_calls.is_empty());
        }
    }
}

#[test]
fn the_loop_runs_calls_and_ends() {
    let Some(lm) = family("qwen2.5") else { return };
    let runs = Arc::new(AtomicUsize::new(0));
    let toolbox = toolbox(&runs);
    let required = ToolOptions::new()
        .with_choice(ToolChoice::Required)
        .with_parallel(false);
    let mut talk = Conversation::new(&lm)
        .with_options(GenerateOptions::greedy().with_max_tokens(200))
        .with_tools(toolbox.tools(), required.clone())
        .unwrap();
    let mut told = Vec::new();
    let run = talk
        .run_tools_with(&toolbox, "How is it?", 1, |event| {
            if let AnswerEvent::ToolResult(result) = event {
                told.push(result.clone());
            }
        })
        .unwrap();
    assert!(run.is_limited);
    assert!(run.reply.tool_calls.is_empty());
    assert_eq!(run.rounds.len(), 1);
    assert_eq!(run.rounds[0].results, told);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(told[0].is_error, told[0].call.name == "count");
    let roles: Vec<_> = talk.messages().iter().map(|m| m.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
    assert_eq!(talk.messages()[2].content, told[0].content);
    assert!(talk.messages()[1].extra.contains_key("tool_calls"));

    // The choice is as it was, and the prompt of the second turn is found again.
    let again = talk.ask("And now?").unwrap();
    assert_eq!(again.tool_calls.len(), 1);
    assert!(again.usage.cached_prompt_tokens * 2 > again.usage.prompt_tokens);
}

#[test]
fn no_rounds_are_an_answer_without_calls() {
    let Some(lm) = family("qwen2.5") else { return };
    let runs = Arc::new(AtomicUsize::new(0));
    let mut talk =
        Conversation::new(&lm).with_options(GenerateOptions::greedy().with_max_tokens(20));
    let run = talk.run_tools(&toolbox(&runs), "Hello", 0).unwrap();
    assert!(run.is_limited && run.rounds.is_empty() && run.reply.tool_calls.is_empty());
}

#[test]
fn a_call_that_is_cut_is_an_error_and_nothing_was_said() {
    let Some(lm) = family("qwen2.5") else { return };
    let toolbox = toolbox(&Arc::default());
    let mut talk = Conversation::new(&lm)
        .with_options(GenerateOptions::greedy().with_max_tokens(30))
        .with_tools(
            toolbox.tools(),
            ToolOptions::new().with_choice(ToolChoice::Required),
        )
        .unwrap();
    let error = talk.ask("Hello").unwrap_err();
    assert!(
        matches!(error, Error::Text(TextError::ToolCallIncomplete { .. })),
        "{error}"
    );
    assert!(talk.messages().is_empty());
}

#[test]
fn what_cannot_be_is_a_typed_error() {
    let toolbox = toolbox(&Arc::default());
    let plain = Conversation::new(&tiny()).with_tools(toolbox.tools(), ToolOptions::new());
    assert!(matches!(
        plain.err(),
        Some(Error::Text(TextError::NoToolFormat))
    ));
    let Some(lm) = family("qwen2.5") else { return };
    let mut talk = Conversation::new(&lm)
        .with_tools(toolbox.tools(), ToolOptions::new())
        .unwrap();
    let other = ToolOptions::new().with_choice(ToolChoice::Named("shout".to_owned()));
    assert!(matches!(
        talk.set_tools(toolbox.tools(), other),
        Err(Error::Text(TextError::NoSuchTool { .. }))
    ));
    let strange = serde_json::json!({"type": "object", "properties": {"a": {"not": {}}}});
    let strange = [Tool::new("strange", "", strange).unwrap()];
    let refused = talk.set_tools(&strange, ToolOptions::new()).unwrap_err();
    assert!(
        matches!(&refused, Error::Text(TextError::ToolSchema { tool, place, .. })
            if tool == "strange" && place.ends_with("/properties/a/not")),
        "{refused:?}"
    );
    assert_eq!(talk.tools().len(), 2);
    talk.set_options(GenerateOptions::greedy().with_choices(["a"]));
    assert!(matches!(talk.ask("Hello"), Err(Error::FormWithTools)));
    assert!(matches!(talk.answer().err(), Some(Error::NothingToAnswer)));
    // Without calls the form stands.
    let none = ToolOptions::new().with_choice(ToolChoice::None);
    talk.set_tools(toolbox.tools(), none).unwrap();
    assert_eq!(talk.ask("Hello").unwrap().text, "a");
}

mod five {
    use super::*;

    #[derive(Deserialize, JsonSchema)]
    pub(super) struct GetWeather {
        /// Name of the city.
        pub city: String,
        pub unit: Option<Unit>,
    }

    #[derive(Deserialize, JsonSchema)]
    pub(super) struct Calculate {
        /// An arithmetic expression such as 3*(4+5).
        pub expression: String,
    }

    #[derive(Deserialize, JsonSchema)]
    pub(super) struct SendMail {
        /// Name or address of who gets the mail.
        pub to: String,
        pub subject: String,
        pub body: String,
    }

    #[derive(Deserialize, JsonSchema)]
    pub(super) struct SetTimer {
        /// How long, in minutes.
        #[schemars(range(min = 1, max = 1440))]
        pub minutes: u32,
    }

    #[derive(Deserialize, JsonSchema)]
    pub(super) struct Translate {
        pub text: String,
        /// The language to translate into.
        pub language: String,
    }

    pub(super) fn toolbox() -> Toolbox {
        fn done(text: String) -> Result<String, String> {
            Ok(text)
        }
        Toolbox::new()
            .with(
                "get_weather",
                "Gets the weather in a city.",
                |a: GetWeather| done(format!("{} {}", a.city, a.unit.is_some())),
            )
            .unwrap()
            .with(
                "calculate",
                "Computes an arithmetic expression.",
                |a: Calculate| done(a.expression),
            )
            .unwrap()
            .with(
                "send_mail",
                "Sends an e-mail to somebody.",
                |a: SendMail| done(a.to + &a.subject + &a.body),
            )
            .unwrap()
            .with("set_timer", "Sets a timer.", |a: SetTimer| {
                done(a.minutes.to_string())
            })
            .unwrap()
            .with(
                "translate",
                "Translates a text into a language.",
                |a: Translate| done(a.text + &a.language),
            )
            .unwrap()
    }

    pub(super) const PROMPTS: [(&str, &str); 20] = [
        ("get_weather", "What is the weather in Paris?"),
        ("get_weather", "Is it raining in Tokyo right now?"),
        ("get_weather", "How warm is it in Cairo, in celsius?"),
        (
            "get_weather",
            "Tell me the weather in New York in fahrenheit.",
        ),
        ("calculate", "What is 17 * 23?"),
        ("calculate", "Compute (12 + 8) / 5."),
        ("calculate", "How much is 1024 divided by 32?"),
        ("calculate", "Add 3.5 and 4.25."),
        (
            "send_mail",
            "Send a mail to Anna that says the meeting is at ten.",
        ),
        (
            "send_mail",
            "Write an e-mail to bob@example.com with the subject Hello.",
        ),
        ("send_mail", "Mail my boss that I am ill today."),
        (
            "send_mail",
            "Send an e-mail to Carla and thank her for the gift.",
        ),
        ("set_timer", "Set a timer for 10 minutes."),
        ("set_timer", "Wake me in half an hour."),
        (
            "set_timer",
            "Remind me of the pizza in 15 minutes with a timer.",
        ),
        ("set_timer", "Start a timer of two hours."),
        ("translate", "Translate 'good morning' into French."),
        ("translate", "How do you say thank you in Japanese?"),
        (
            "translate",
            "Translate the sentence 'Where is the station?' to German.",
        ),
        ("translate", "What is 'I love you' in Italian?"),
    ];
}

#[test]
fn every_call_of_a_real_model_parses_and_validates() {
    let Some(lm) = pulled("qwen2.5-coder:0.5b") else {
        return;
    };
    let toolbox = five::toolbox();
    let required = ToolOptions::new()
        .with_choice(ToolChoice::Required)
        .with_parallel(false);
    let (mut calls, mut right) = (0, 0);
    for (expected, prompt) in five::PROMPTS {
        let mut talk = Conversation::new(&lm)
            .with_options(GenerateOptions::greedy().with_max_tokens(256))
            .with_tools(toolbox.tools(), required.clone())
            .unwrap();
        let reply = talk.ask(prompt).unwrap();
        assert!(!reply.tool_calls.is_empty(), "{prompt}: {reply:?}");
        for call in &reply.tool_calls {
            calls += 1;
            let schema = schema(toolbox.tools(), &call.name);
            assert!(jsonschema::is_valid(schema, &call.arguments), "{call:?}");
            assert!(!toolbox.call(call).is_error, "{call:?}");
        }
        let call = &reply.tool_calls[0];
        right += usize::from(call.name == expected);
        println!("{prompt} -> {} {}", call.name, call.arguments);
    }
    println!("{calls} calls, all valid; {right} of 20 of the right tool");
    assert_eq!(calls, 20);
}
