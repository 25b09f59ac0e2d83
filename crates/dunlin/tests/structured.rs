//! Answers held to a form, by models that know nothing: tiny ones with random weights.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

#[path = "common/schemas.rs"]
mod schemas;

use common::{conformance, options, tiny};
use dunlin::{
    Completion, DraftLength, Error, FinishReason, FormatState, GenerateOptions, Grammar, Lm,
    ModelRef, OutputFormat, Prompt, SamplerConfig, Speculation, TextError,
};
use schemas::{Schemas, fault};
use serde_json::json;

fn run(lm: &Lm, options: &GenerateOptions) -> Completion {
    let prompt = Prompt::from("The quick brown fox");
    lm.generate(&prompt, options).unwrap().complete().unwrap()
}

fn form(format: OutputFormat) -> GenerateOptions {
    GenerateOptions::greedy()
        .with_format(format)
        .with_max_tokens(200)
}

#[test]
fn answers_validate_whatever_the_model() {
    let mut models = vec![tiny()];
    if let Some(folder) = conformance() {
        for family in ["smollm2", "gemma3"] {
            let path = folder.join(family).join("model.gguf");
            models.push(Lm::load(ModelRef::Path(path), options()).unwrap());
        }
    }
    for (number, lm) in (0..).zip(&models) {
        let (mut complete, mut cut) = (0, 0);
        let mut generator = Schemas::new(number);
        for seed in 0..20 {
            let schema = generator.schema();
            let sampler = match seed % 2 {
                0 => SamplerConfig::greedy(),
                _ => SamplerConfig::default(),
            };
            let options = GenerateOptions::default()
                .with_sampler(sampler)
                .with_seed(seed)
                .with_json_schema(schema.clone())
                .with_max_tokens(300);
            let answer = run(lm, &options);
            match answer.format {
                FormatState::Complete => {
                    complete += 1;
                    assert_eq!(
                        fault(&schema, &answer.text),
                        None,
                        "{schema}\n{}",
                        answer.text
                    );
                }
                state => {
                    cut += 1;
                    assert_eq!(state, FormatState::Open);
                    assert!(
                        matches!(
                            answer.finish_reason,
                            FinishReason::Length | FinishReason::ContextFull
                        ),
                        "{:?}",
                        answer.finish_reason
                    );
                }
            }
        }
        assert!(
            complete >= 5,
            "model {number}: {complete} complete, {cut} cut"
        );
    }
}

#[test]
fn guessing_changes_no_answer_with_a_form() {
    let lm = tiny();
    let schema = json!({"type": "array", "minItems": 6, "maxItems": 6, "items": {"type": "object",
        "properties": {"first": {"type": "boolean"}, "second": {"enum": ["abc", "abd"]}},
        "required": ["first", "second"], "additionalProperties": false}});
    for sampler in [SamplerConfig::greedy(), SamplerConfig::default()] {
        let answer = |speculation| {
            lm.clear_cache();
            let options = GenerateOptions::default()
                .with_sampler(sampler.clone())
                .with_seed(5)
                .with_json_schema(schema.clone())
                .with_max_tokens(400)
                .with_speculation(speculation);
            run(&lm, &options)
        };
        let plain = answer(Speculation::Off);
        assert_eq!(plain.format, FormatState::Complete);
        assert_eq!(fault(&schema, &plain.text), None);
        assert!(plain.usage.forced_tokens > 0);
        for length in [1, 4, 15] {
            let length = DraftLength::Fixed(length);
            let guessed = answer(Speculation::PromptLookup { length });
            assert_eq!(guessed.tokens, plain.tokens);
            assert!(guessed.usage.drafted_tokens > 0);
        }
    }
}

#[test]
fn a_greedy_answer_is_the_same_whether_one_token_is_asked_about_or_all() {
    let lm = tiny();
    let schema = Schemas::new(4).schema();
    let plain = GenerateOptions::greedy();
    // A penalty of nothing, which the short way does not know to be nothing.
    let mut masked = GenerateOptions::greedy();
    masked.sampler.top_k = 1;
    let answer = |options: GenerateOptions| {
        let options = options
            .with_json_schema(schema.clone())
            .with_max_tokens(200);
        run(&lm, &options).tokens
    };
    assert_eq!(answer(plain), answer(masked));
}

#[test]
fn forms_of_every_kind_are_kept() {
    let lm = tiny();
    let regex = run(
        &lm,
        &form(OutputFormat::Regex("[a-c]{3}-\\d{2}".to_owned())),
    );
    assert_eq!((regex.text.len(), regex.format), (6, FormatState::Complete));
    assert_eq!(regex.finish_reason, FinishReason::EndOfText);
    let choice = run(
        &lm,
        &GenerateOptions::greedy().with_choices(["left", "right"]),
    );
    assert!(["left", "right"].contains(&choice.text.as_str()));
    let gbnf = OutputFormat::Gbnf("root ::= \"(\" root \")\" | \"x\"".to_owned());
    let nested = run(&lm, &form(gbnf));
    if nested.format == FormatState::Complete {
        let depth = nested.text.find('x').unwrap();
        assert_eq!(
            nested.text,
            format!("{}x{}", "(".repeat(depth), ")".repeat(depth))
        );
    }
    let lark = run(
        &lm,
        &form(OutputFormat::Lark("start: \"ab\"{2}".to_owned())),
    );
    assert_eq!(lark.text, "abab");
    assert_eq!(lark.usage.forced_tokens, lark.usage.completion_tokens);
    let object = run(&lm, &form(OutputFormat::Json));
    if object.format == FormatState::Complete {
        assert_eq!(fault(&json!({"type": "object"}), &object.text), None);
    }
}

#[test]
fn an_answer_that_is_cut_short_says_so() {
    let lm = tiny();
    let options = form(OutputFormat::Regex("a{50}".to_owned())).with_max_tokens(5);
    let answer = run(&lm, &options);
    assert_eq!(answer.finish_reason, FinishReason::Length);
    assert_eq!(
        (answer.format, answer.usage.completion_tokens),
        (FormatState::Open, 5)
    );
    let options = form(OutputFormat::Regex("ab{9}".to_owned())).with_stop("bb");
    let answer = run(&lm, &options);
    assert_eq!(answer.finish_reason, FinishReason::Stop("bb".to_owned()));
    assert_eq!(answer.text, "a");
}

#[test]
fn a_form_begins_after_a_text() {
    let lm = tiny();
    let free = run(&lm, &GenerateOptions::greedy().with_max_tokens(30));
    let trigger: String = free.text.chars().skip(5).take(2).collect();
    let at = free.text.find(&trigger).unwrap() + trigger.len();
    let options = GenerateOptions::greedy()
        .with_choices(["left", "right"])
        .with_format_after(trigger)
        .with_max_tokens(60);
    let answer = run(&lm, &options);
    assert_eq!(answer.format, FormatState::Complete);
    assert!(
        ["left", "right"].contains(&answer.formatted()),
        "{}",
        answer.text
    );
    assert_eq!(answer.text[..at], free.text[..at]);
    let never = options.with_format_after("never there").with_max_tokens(8);
    let answer = run(&lm, &never);
    assert_eq!(
        (answer.format, answer.formatted()),
        (FormatState::Waiting, "")
    );
    assert_eq!(free.text.find(&answer.text), Some(0));
}

#[test]
fn a_form_that_cannot_be_kept_generates_nothing() {
    let lm = tiny();
    let refused =
        |options: &GenerateOptions| lm.generate(&Prompt::from("x"), options).err().unwrap();
    let schema = json!({"properties": {"a": {"type": "array", "uniqueItems": true}}});
    let error = refused(&GenerateOptions::greedy().with_json_schema(schema));
    assert!(
        matches!(&error, Error::Text(TextError::Schema { pointer, .. }) if pointer == "#/properties/a/uniqueItems"),
        "{error}"
    );
    let other = Grammar::from_regex(tiny().tokenizer(), "a").unwrap();
    assert!(matches!(
        refused(&form(OutputFormat::Grammar(other))),
        Error::ForeignGrammar
    ));
    // The model is free again.
    let grammar = Grammar::from_regex(lm.tokenizer(), "aa").unwrap();
    assert_eq!(run(&lm, &form(OutputFormat::Grammar(grammar))).text, "aa");
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[allow(dead_code, reason = "that they can be read is what is tested")]
struct Order {
    count: u8,
    paid: Option<bool>,
    kind: Kind,
    size: (i16, bool),
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[allow(dead_code, reason = "that they can be read is what is tested")]
enum Kind {
    Small,
    Named { code: char },
}

#[test]
fn answers_become_values() {
    let lm = tiny();
    let prompt = Prompt::from("An order: ");
    for seed in 0..6 {
        let options = GenerateOptions::default()
            .with_seed(seed)
            .with_max_tokens(300);
        match lm.generate_as::<Order>(&prompt, &options) {
            Ok(_) | Err(Error::Incomplete { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let short = GenerateOptions::greedy().with_max_tokens(3);
    match lm.generate_as::<Order>(&prompt, &short) {
        Err(Error::Incomplete { text, reason }) => {
            assert!(text.starts_with('{'), "{text}");
            assert_eq!(reason, FinishReason::Length);
        }
        other => panic!("{other:?}"),
    }
    let set = lm.generate_as::<std::collections::BTreeSet<u8>>(&prompt, &short);
    assert!(
        matches!(set, Err(Error::Text(TextError::Schema { .. }))),
        "{set:?}"
    );
}
