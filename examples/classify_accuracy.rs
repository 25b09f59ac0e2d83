//! How often a classifier is right, by the probabilities of the labels and by asking for the label:
//! `cargo run --release --example classify_accuracy -- DATA [MODEL] [ITEMS] [SEED] [test|choice]`.
//!
//! DATA has a line for each text: its label, a tab, the text. `scripts/fetch-sentiment-data` makes such a file. The lines are
//! shuffled by the seed; of each label the first ITEMS are the test and the next ITEMS are for choices (of words, of settings), so
//! that no choice is made on the test. Texts of the latter also are those of the calibration by texts; their labels are not looked at.

use std::collections::BTreeMap;
use std::io::Write as _;

use dunlin::Lm;
use dunlin::tasks::{Calibration, Classifier};

/// Texts of the calibration by texts, for each label.
const CALIBRATION_TEXTS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments
        .next()
        .ok_or("name a file with a label, a tab and a text in each line (scripts/fetch-sentiment-data makes one)")?;
    let model = arguments
        .next()
        .unwrap_or_else(|| "smollm2:135m".to_owned());
    let items: usize = arguments.next().map_or(Ok(100), |items| items.parse())?;
    let seed: u64 = arguments.next().map_or(Ok(1), |seed| seed.parse())?;
    let is_choice = arguments.next().is_some_and(|split| split == "choice");

    let data = std::fs::read_to_string(data)?;
    let by_label = shuffled_by_label(&data, seed)?;
    let take = |from: usize, count: usize| -> Vec<(&str, &str)> {
        by_label
            .iter()
            .flat_map(|(label, texts)| {
                texts
                    .iter()
                    .skip(from)
                    .take(count)
                    .map(|text| (*label, *text))
            })
            .collect()
    };
    let measured = take(if is_choice { items } else { 0 }, items);
    let unlabelled: Vec<String> = take(items, CALIBRATION_TEXTS)
        .into_iter()
        .map(|(_, text)| text.to_owned())
        .collect();

    let lm = Lm::load_from_model_id(&model)?;
    let classifier = |calibration: Calibration| -> Result<Classifier, dunlin::Error> {
        let labels: Vec<&str> = by_label.keys().copied().collect();
        let classifier = match labels[..] {
            ["negative", "positive"] => Classifier::sentiment(&lm)?,
            _ => Classifier::new(&lm, labels)?,
        };
        Ok(classifier.with_calibration(calibration))
    };
    let mut out = std::io::stdout();
    writeln!(out, "{model}: {} texts, seed {seed}", measured.len())?;
    for (name, calibration) in [
        ("probabilities, not calibrated", Calibration::Off),
        (
            "probabilities, calibrated without content",
            Calibration::ContentFree,
        ),
        (
            "probabilities, calibrated by texts",
            Calibration::Texts(unlabelled),
        ),
    ] {
        let classifier = classifier(calibration)?;
        let answer = |text: &str| Ok(classifier.classify(text)?.label);
        report(&mut out, name, &measured, answer)?;
    }
    let classifier = classifier(Calibration::Off)?;
    report(&mut out, "asked for the label", &measured, |text| {
        classifier.classify_by_text(text)
    })?;
    Ok(())
}

/// Counts right answers, in all and for each label.
fn report(
    out: &mut impl std::io::Write,
    name: &str,
    measured: &[(&str, &str)],
    answer: impl Fn(&str) -> Result<Option<String>, dunlin::Error>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut right: BTreeMap<&str, usize> = BTreeMap::new();
    for (label, text) in measured {
        let is_right = answer(text)?.as_deref() == Some(*label);
        *right.entry(label).or_default() += usize::from(is_right);
    }
    let sum: usize = right.values().sum();
    let share = 100.0 * sum as f64 / measured.len() as f64;
    writeln!(out, "{share:5.1} %  {name} {right:?}")?;
    Ok(())
}

/// The texts of each label in an order that the seed says.
fn shuffled_by_label(
    data: &str,
    seed: u64,
) -> Result<BTreeMap<&str, Vec<&str>>, Box<dyn std::error::Error>> {
    let mut by_label: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (index, line) in data.lines().enumerate() {
        let Some((label, text)) = line.split_once('\t') else {
            return Err(format!("line {} has no tab between label and text", index + 1).into());
        };
        by_label.entry(label).or_default().push(text);
    }
    let mut random = seed;
    for texts in by_label.values_mut() {
        for index in (1..texts.len()).rev() {
            // SplitMix64 (Steele, Lea and Flood 2014).
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = random;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            texts.swap(index, ((bits ^ (bits >> 31)) % (index as u64 + 1)) as usize);
        }
    }
    Ok(by_label)
}
