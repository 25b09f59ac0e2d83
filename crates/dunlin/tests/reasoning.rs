//! Reasoning before answers: told apart, switched, limited, and followed by forms. The models are tiny ones with random weights: they
//! never close reasoning by themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{CHATML, fixture, options, tiny, with_template};
use dunlin::{
    AnswerEvent, Conversation, Error, FormatState, GenerateOptions, Lm, ModelRef, Prompt,
    Reasoning, ReasoningEnd, Reply, Speculation,
};

/// As Qwen 3: the model reasons, unless it is told not to.
const THINK: &str = "{% if enable_thinking is defined and not enable_thinking %}\
    {{ '<think>\n\n</think>\n\n' }}{% endif %}";
/// As DeepSeek R1: always.
const ALWAYS: &str = "{% set close = '</think>' %}{{ '<think>\n' }}";

fn model(ending: &str) -> Lm {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    with_template(&fixture("tiny.gguf"), &path, &format!("{CHATML}{ending}"));
    Lm::load(ModelRef::Path(path), options()).unwrap()
}

fn greedy(tokens: usize) -> GenerateOptions {
    GenerateOptions::greedy().with_max_tokens(tokens)
}

fn ask(lm: &Lm, reasoning: Reasoning, options: GenerateOptions) -> Reply {
    let mut talk = Conversation::new(lm)
        .with_reasoning(reasoning)
        .with_options(options);
    talk.ask("Hello").unwrap()
}

fn raw(lm: &Lm, reply: &Reply) -> String {
    let mut stream = lm.tokenizer().stream_continuing();
    let pieces = reply.tokens.iter().map(|id| stream.push(*id).unwrap());
    let text: String = pieces.collect();
    text + &stream.finish()
}

#[test]
fn a_budget_ends_the_reasoning_and_the_answer_follows() {
    let lm = model(THINK);
    for limit in [1, 5, 9] {
        let reply = ask(&lm, Reasoning::Budget(limit), greedy(40));
        assert_eq!(reply.reasoning_end, Some(ReasoningEnd::Budget));
        let opening = lm.tokenizer().encode("<think>\n", true).unwrap();
        let closing = lm.tokenizer().encode("\n</think>\n\n", true).unwrap();
        assert!(reply.tokens.starts_with(&opening));
        let behind = &reply.tokens[opening.len()..];
        let length = behind
            .windows(closing.len())
            .position(|part| part == closing)
            .unwrap_or_else(|| panic!("{limit}: {reply:?}"));
        assert_eq!(length, limit);
        let written = raw(&lm, &reply);
        assert!(written.ends_with(&reply.text));
        assert!(!reply.text.contains("think>"));
        assert!(written.contains(&reply.reasoning.unwrap()));

        // The model goes on from there as from any prompt.
        let mut prompt = lm
            .encode_prompt(
                &Prompt::Chat(vec![dunlin::Message::user("Hello")]),
                &greedy(1),
            )
            .unwrap();
        let put_in = opening.len() + length + closing.len();
        prompt.extend(&reply.tokens[..put_in]);
        let rest = reply.tokens.len() - put_in;
        let plain = lm.complete(&Prompt::Tokens(prompt), &greedy(rest)).unwrap();
        assert_eq!(plain.tokens, reply.tokens[put_in..]);
    }
}

#[test]
fn guesses_and_log_probabilities_do_not_move_the_end_of_the_reasoning() {
    let lm = model(THINK);
    let mut plain = greedy(60);
    plain.speculation = Speculation::Off;
    let expected = ask(&lm, Reasoning::Budget(24), plain.clone());
    let guessed = ask(&lm, Reasoning::Budget(24), greedy(60));
    assert_eq!(guessed.tokens, expected.tokens);
    let scored = ask(&lm, Reasoning::Budget(24), plain.with_logprobs(0));
    assert_eq!(scored.tokens, expected.tokens);
    let logprobs = scored.logprobs.unwrap();
    let tokens: Vec<_> = logprobs.iter().map(|logprob| logprob.token).collect();
    assert_eq!(tokens, expected.tokens);
}

#[test]
fn off_is_off_whether_the_template_knows_it_or_not() {
    for ending in [THINK, ALWAYS] {
        let lm = model(ending);
        let reply = ask(&lm, Reasoning::Off, greedy(12));
        assert_eq!(reply.reasoning, None);
        assert!(!reply.text.is_empty());
        assert!(!reply.text.contains("think>"));
    }
    let always = ask(&model(ALWAYS), Reasoning::Auto, greedy(12));
    assert_eq!(always.text, "");
    assert!(always.reasoning.is_some());
    assert_eq!(always.reasoning_end, Some(ReasoningEnd::Unfinished));
}

#[test]
fn a_form_begins_behind_the_reasoning() {
    for ending in [THINK, ALWAYS] {
        let lm = model(ending);
        let form = greedy(60).with_choices(["yes", "no"]);
        for reasoning in [Reasoning::Budget(7), Reasoning::Off] {
            let reply = ask(&lm, reasoning, form.clone());
            assert!(matches!(reply.text.as_str(), "yes" | "no"), "{reply:?}");
            assert_eq!(reply.format, FormatState::Complete);
            assert_eq!(reply.reasoning.is_some(), reasoning != Reasoning::Off);
        }
        // Both reason unless they are told not to, and this one never ends it.
        let reply = ask(&lm, Reasoning::Auto, form);
        assert_eq!(
            (reply.text.as_str(), reply.format),
            ("", FormatState::Waiting)
        );
    }
}

#[test]
fn reasoning_has_events_of_its_own_and_its_place_in_the_message() {
    let lm = model(THINK);
    let mut talk = Conversation::new(&lm)
        .with_reasoning(Reasoning::Budget(5))
        .with_options(greedy(30));
    let (mut reasoning, mut text) = (String::new(), String::new());
    for event in talk.send("Hello").unwrap() {
        match event.unwrap() {
            AnswerEvent::Reasoning(piece) => {
                assert_eq!(text, "");
                reasoning.push_str(&piece);
            }
            AnswerEvent::Text(piece) => text.push_str(&piece),
            AnswerEvent::End(reply) => {
                assert_eq!(reply.text, text);
                assert_eq!(reply.reasoning.as_ref(), Some(&reasoning));
            }
            event => panic!("{event:?}"),
        }
    }
    let message = talk.messages().last().unwrap();
    assert_eq!(message.content, text);
    assert_eq!(message.extra["reasoning_content"], reasoning);
}

#[test]
fn an_answer_that_was_cut_in_its_reasoning_goes_on() {
    for (ending, reasoning) in [
        (ALWAYS, Reasoning::Auto),
        (THINK, Reasoning::On),
        (THINK, Reasoning::Budget(16)),
    ] {
        let lm = model(ending);
        let talk = |tokens| {
            let talk = Conversation::new(&lm);
            talk.with_reasoning(reasoning).with_options(greedy(tokens))
        };
        let mut cut = talk(12);
        let first = cut.ask("Hello").unwrap();
        assert_eq!(first.reasoning_end, Some(ReasoningEnd::Unfinished));
        cut.set_options(greedy(28));
        let more = cut.continue_answer().unwrap().complete().unwrap();
        let mut whole = talk(40);
        let all = whole.ask("Hello").unwrap();
        if !matches!(reasoning, Reasoning::Budget(_)) {
            assert_eq!([first.tokens, more.tokens].concat(), all.tokens);
            assert_eq!(cut.messages(), whole.messages());
        } else {
            assert_eq!(more.reasoning_end, Some(ReasoningEnd::Budget));
            assert!(!more.text.is_empty());
        }
    }
}

#[test]
fn the_beginning_of_an_answer_stands_behind_the_reasoning_of_the_template() {
    let lm = model(ALWAYS);
    let mut talk = Conversation::new(&lm).with_options(greedy(8));
    talk.push(dunlin::Message::user("Hello"));
    talk.push(dunlin::Message::assistant("It is"));
    let reply = talk.continue_answer().unwrap().complete().unwrap();
    assert_eq!(reply.reasoning, None);
    assert_eq!(talk.messages()[1].content, format!("It is{}", reply.text));
}

#[test]
fn a_model_that_does_not_reason_says_so() {
    let lm = tiny();
    assert_eq!(lm.reasoning_format(), None);
    for reasoning in [Reasoning::On, Reasoning::Budget(3)] {
        let mut talk = Conversation::new(&lm).with_reasoning(reasoning);
        assert!(matches!(talk.ask("Hello"), Err(Error::CannotReason)));
        assert!(talk.messages().is_empty());
    }
    ask(&lm, Reasoning::Off, greedy(4));
}
