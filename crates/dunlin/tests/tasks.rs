//! Tasks: what holds whatever the model is. The model of these tests has random weights.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::ops::ControlFlow;

use common::{options, tiny, tiny_ref};
use dunlin::search::{ChunkOptions, Chunker, SearchError};
use dunlin::tasks::{
    Calibration, Classifier, EntityRecognizer, Extractor, KeywordExtractor, Label,
    PersonalDataFinder, RewriteStyle, Rewriter, Summarizer, TaskError, TextSpan, Translator,
};
use dunlin::{Error, GenerateOptions, Lm};
use serde_json::json;

const TEXT: &str =
    "Anna Schmidt met Paul in Lyon on Monday. They talked about the new bridge.\n\nPaul went home.";

fn softmax(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().map(|score| score.exp()).sum();
    scores.iter().map(|score| score.exp() / sum).collect()
}

#[test]
fn labels_have_the_models_probabilities_without_its_preferences() {
    let lm = tiny();
    let labels = ["good", "bad", "neither of both"];
    let raw = |text: &str| -> Vec<f64> {
        let classifier = Classifier::new(&lm, labels).unwrap();
        let scores = classifier.classify(text).unwrap().scores;
        scores.iter().map(|score| score.logprob).collect()
    };
    // After Zhao et al. 2021: a part of the mean over inputs without content comes off.
    let free = [
        "the of and to in a is that it was",
        "for on are as with they at be this",
        "from or one had by word but not what all",
        "were we when your can said there use an each",
    ]
    .map(|text| softmax(&raw(text)));
    let expected: Vec<f64> = (0..labels.len())
        .map(|label| {
            let logs = free.iter().map(|probabilities| probabilities[label].ln());
            raw(TEXT)[label] - 0.6 * logs.sum::<f64>() / 4.0
        })
        .collect();
    let found = Classifier::new(&lm, labels)
        .unwrap()
        .classify(TEXT)
        .unwrap();
    for (score, expected) in found.scores.iter().zip(softmax(&expected)) {
        assert!((score.probability - expected).abs() < 1e-9, "{found:?}");
    }
    let best = found
        .scores
        .iter()
        .max_by(|a, b| a.probability.total_cmp(&b.probability))
        .unwrap();
    assert_eq!(found.label.as_deref(), Some(best.label.as_str()));
    assert_eq!(found.none_of_these, None);
}

#[test]
fn a_text_that_a_classifier_is_calibrated_by_has_no_label_that_is_likelier() {
    let lm = tiny();
    let calibration = Calibration::Texts(vec![TEXT.to_owned()]);
    let classifier = Classifier::new(&lm, ["good", "bad", "so so"])
        .unwrap()
        .with_calibration(calibration);
    for score in classifier.classify(TEXT).unwrap().scores {
        assert!((score.probability - 1.0 / 3.0).abs() < 1e-9);
    }
}

#[test]
fn without_calibration_labels_are_compared_by_the_mean_of_their_tokens() {
    let lm = tiny();
    let labels = ["a", "a much longer name of a label"];
    let classify = |calibration| {
        let classifier = Classifier::new(&lm, labels)
            .unwrap()
            .with_calibration(calibration);
        classifier.classify(TEXT).unwrap().scores
    };
    let (means, sums) = (
        classify(Calibration::Off),
        classify(Calibration::ContentFree),
    );
    for ((label, mean), sum) in labels.iter().zip(&means).zip(&sums) {
        // The end of the answer is one more choice.
        let choices = lm.tokenizer().encode(label, false).unwrap().len() + 1;
        assert!((mean.logprob * choices as f64 - sum.logprob).abs() < 1e-9);
    }
    let logprobs: Vec<f64> = means.iter().map(|score| score.logprob).collect();
    for (found, expected) in means.iter().zip(softmax(&logprobs)) {
        assert!((found.probability - expected).abs() < 1e-9);
    }
}

#[test]
fn none_of_these_is_one_more_label_with_a_threshold() {
    let lm = tiny();
    let with = |threshold: f64| {
        Classifier::new(&lm, ["good", "bad"])
            .unwrap()
            .with_none_of_these(threshold)
            .unwrap()
    };
    let found = with(0.0).classify(TEXT).unwrap();
    let none = found.none_of_these.unwrap();
    let best = found
        .scores
        .iter()
        .map(|score| score.probability)
        .fold(0.0, f64::max);
    let sum: f64 = found.scores.iter().map(|score| score.probability).sum();
    assert!((sum + none - 1.0).abs() < 1e-9);
    assert_eq!(found.label.is_some(), best >= none);
    assert_eq!(with(1.0).classify(TEXT).unwrap().label, None);
    assert!(matches!(
        Classifier::new(&lm, ["a", "b"])
            .unwrap()
            .with_none_of_these(1.5),
        Err(Error::Task(TaskError::Setting { .. }))
    ));
}

#[test]
fn asked_for_a_label_the_model_writes_one() {
    let lm = tiny();
    let labels = ["good", "bad"].map(|name| Label::new(name).with_description("a word"));
    let classifier = Classifier::new(&lm, labels)
        .unwrap()
        .with_example("fine", "good")
        .unwrap();
    let label = classifier.classify_by_text(TEXT).unwrap().unwrap();
    assert!(["good", "bad"].contains(&label.as_str()));
}

#[test]
fn labels_that_cannot_be_told_apart_are_refused() {
    let lm = tiny();
    let new = |labels: &[&str]| Classifier::new(&lm, labels.iter().copied());
    assert!(matches!(
        new(&["a"]),
        Err(Error::Task(TaskError::TooFewLabels { found: 1 }))
    ));
    for labels in [["a", "a"], ["a", ""], ["a", " b"], ["a", "b\nc"]] {
        assert!(matches!(
            new(&labels),
            Err(Error::Task(TaskError::Label { .. }))
        ));
    }
    let example = new(&["a", "b"]).unwrap().with_example("x", "c");
    assert!(matches!(
        example,
        Err(Error::Task(TaskError::UnknownLabel { .. }))
    ));
    let texts = Calibration::Texts(Vec::new());
    let refused = new(&["a", "b"])
        .unwrap()
        .with_calibration(texts)
        .classify("x");
    assert!(matches!(
        refused,
        Err(Error::Task(TaskError::Setting { .. }))
    ));
    let long = "word ".repeat(5000);
    let refused = new(&["a", "b"]).unwrap().classify(&long);
    assert!(matches!(refused, Err(Error::PromptTooLong { .. })));
}

/// Paragraphs that make several pieces of 160 tokens.
fn long_text() -> String {
    (0..24)
        .map(|index| format!("Part {index} says that the sky is blue.\n\n"))
        .collect()
}

#[test]
fn a_summary_says_what_it_was_made_from() {
    let lm = tiny();
    let text = long_text();
    let summarizer = Summarizer::new(&lm).with_words(4).with_piece_tokens(160);
    let chunks = Chunker::new(
        lm.tokenizer(),
        160,
        ChunkOptions::new().with_max_tokens(160),
    )
    .unwrap();
    let pieces = chunks.chunks(&text).unwrap();
    assert!(pieces.len() > 3);
    let mut progress = Vec::new();
    let summary = summarizer
        .summarize_with(&text, &mut |event| {
            progress.push((event.level, event.done, event.total));
            ControlFlow::Continue(())
        })
        .unwrap();
    let coverage = summary.coverage;
    assert_eq!(
        (coverage.pieces, coverage.bytes),
        (pieces.len(), text.len())
    );
    let mut white = text.clone();
    for piece in pieces.iter().rev() {
        white.replace_range(piece.bytes.clone(), "");
    }
    assert!(white.trim().is_empty());
    assert_eq!(coverage.covered_bytes, text.len() - white.len());
    assert!(coverage.levels >= 2);
    assert_eq!(progress[0], (0, 0, pieces.len()));
    let levels = coverage.levels - 1;
    assert_eq!(*progress.last().unwrap(), (levels, 1, 1));
    let requests: usize = progress
        .iter()
        .filter(|(_, done, total)| done == total)
        .map(|(_, _, total)| total)
        .sum();
    assert_eq!(summary.usage.requests, requests);
    assert!(coverage.unfinished <= requests);
    // A short text is one piece.
    let short = summarizer.summarize("The sky is blue.").unwrap().coverage;
    assert_eq!(
        (short.pieces, short.levels, short.covered_bytes),
        (1, 1, 16)
    );
}

#[test]
fn summaries_that_cannot_be_made_are_refused() {
    let lm = tiny();
    for text in ["", " \n\t "] {
        let refused = Summarizer::new(&lm).summarize(text);
        assert!(matches!(
            refused,
            Err(Error::Task(TaskError::EmptyText { task: "summarize" }))
        ));
    }
    let refused = Summarizer::new(&lm).with_words(0).summarize("x");
    assert!(matches!(
        refused,
        Err(Error::Task(TaskError::Setting { .. }))
    ));
    let refused = Summarizer::new(&lm)
        .with_words(4)
        .with_piece_tokens(60)
        .summarize(&long_text());
    assert!(matches!(
        refused,
        Err(Error::Task(TaskError::Setting { .. }))
    ));
    let refused = Summarizer::new(&lm)
        .with_words(4)
        .with_piece_tokens(1_000_000)
        .summarize("x");
    assert!(matches!(
        refused,
        Err(Error::Search(SearchError::ChunkSize {
            max_tokens: 1_000_000,
            ..
        }))
    ));
    let small = Lm::load(tiny_ref(), options().with_context_length(64)).unwrap();
    let refused = Summarizer::new(&small).summarize("x");
    assert!(matches!(
        refused,
        Err(Error::Task(TaskError::ContextTooShort {
            context_length: 64,
            ..
        }))
    ));
    let stopped = Summarizer::new(&lm)
        .with_words(4)
        .with_piece_tokens(160)
        .summarize_with(&long_text(), &mut |event| match event.done {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

/// A model with random weights seldom ends a text: either the answer is whole, or the error says which piece is not.
#[test]
fn a_translation_that_does_not_end_is_an_error_with_its_piece() {
    let lm = tiny();
    match Translator::new(&lm, "fr")
        .with_piece_tokens(16)
        .translate(TEXT)
    {
        Ok(translation) => assert!(translation.pieces > 1),
        Err(Error::Task(TaskError::PieceUnfinished {
            piece,
            pieces,
            tokens,
            ..
        })) => {
            assert!(piece >= 1 && piece <= pieces && tokens > 48);
        }
        Err(error) => panic!("{error}"),
    }
    let refused = Translator::new(&lm, "fr").translate("  ");
    assert!(matches!(
        refused,
        Err(Error::Task(TaskError::EmptyText { .. }))
    ));
    let refused = Rewriter::new(&lm, RewriteStyle::Correct).rewrite("");
    assert!(matches!(
        refused,
        Err(Error::Task(TaskError::EmptyText { .. }))
    ));
}

#[test]
fn extracted_data_validate_against_the_schema() {
    let lm = tiny();
    let example = json!({"married": true, "children": [{"grown": false}]});
    let extractor = Extractor::for_example(&lm, &example).unwrap();
    let options = GenerateOptions::greedy().with_max_tokens(200).with_seed(1);
    let sampled = GenerateOptions::new().with_max_tokens(200).with_seed(1);
    for options in [options, sampled] {
        let schema = extractor.schema().clone();
        let extractor = Extractor::for_schema(&lm, schema.clone())
            .unwrap()
            .with_options(options);
        match extractor.extract(TEXT) {
            Ok(found) => assert!(
                jsonschema::is_valid(&schema, &found.value),
                "{}",
                found.value
            ),
            // A list without end.
            Err(Error::Incomplete { text, .. }) => assert!(text.contains("children")),
            Err(error) => panic!("{error}"),
        }
    }
    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Report,
        Letter,
    }
    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    struct Document {
        kind: Kind,
        is_long: bool,
    }
    let extractor = Extractor::for_type::<Document>(&lm).unwrap();
    let found = extractor.extract_as::<Document>(TEXT).unwrap();
    assert!(matches!(found.value.kind, Kind::Report | Kind::Letter));
    assert!([true, false].contains(&found.value.is_long));
    assert_eq!(found.usage.requests, 1);
    assert!(matches!(
        extractor.extract(" "),
        Err(Error::Task(TaskError::EmptyText { .. }))
    ));
    let refused = Extractor::for_schema(&lm, json!({"type": "array", "uniqueItems": true}));
    assert!(matches!(refused, Err(Error::Text(_))));
}

fn assert_stand_in(spans: &[TextSpan], text: &str) {
    for span in spans {
        assert!(!span.places.is_empty());
        for place in &span.places {
            let plain = |text: &str| text.replace(char::is_control, " ");
            assert_eq!(plain(&text[place.clone()]), plain(&span.text));
        }
    }
}

#[test]
fn names_and_keywords_stand_in_the_text() {
    let lm = tiny();
    let recognizer = EntityRecognizer::new(&lm)
        .with_kinds(["person", "place"])
        .unwrap();
    let found = recognizer.recognize(TEXT).unwrap();
    assert_eq!(found.pieces, 1);
    assert_stand_in(&found.entities, TEXT);
    assert!(
        found
            .entities
            .iter()
            .all(|name| ["person", "place"].contains(&name.kind.as_str()))
    );
    let quotes =
        "She said \"go \\ home\" to\tthe\u{7f} cat.\nThen {she} left; 'twas late.".repeat(3);
    let keywords = KeywordExtractor::new(&lm)
        .with_count(3)
        .with_piece_tokens(40)
        .extract(&quotes)
        .unwrap();
    assert!(keywords.pieces > 1 && keywords.keywords.len() <= 3);
    assert!(keywords.named >= keywords.keywords.len());
    assert_stand_in(&keywords.keywords, &quotes);
    let refused = EntityRecognizer::new(&lm).with_kinds(["a:b"]);
    assert!(matches!(refused, Err(Error::Task(TaskError::Label { .. }))));
}

#[test]
fn personal_data_are_masked_by_form_and_by_the_model() {
    let lm = tiny();
    let text = format!("{TEXT} Write to anna@example.org.");
    let masked = PersonalDataFinder::new(&lm).mask(&text).unwrap();
    assert!(!masked.text.contains("anna@example.org"));
    assert!(masked.usage.requests == 1);
    for data in &masked.found {
        assert_eq!(&text[data.place.clone()], data.text);
    }
    let by_form = PersonalDataFinder::by_form().mask(&text).unwrap();
    assert_eq!(by_form.text, format!("{TEXT} Write to [EMAIL]."));
    assert_eq!(by_form.usage.requests, 0);
}
