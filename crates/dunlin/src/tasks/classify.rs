//! Classification by the probabilities of labels.

use std::sync::OnceLock;

use super::{TaskError, TaskUsage, ask};
use crate::{Error, Lm, Message, OutputFormat, Prompt, ScoreOptions};

/// What the model is told before the labels.
const INSTRUCTION: &str = "Classify the text. Answer with one of these labels and nothing else:";
/// Where the labels stand in an instruction that has them in its own words.
const LABELS: &str = "{labels}";
/// What stands before each text.
const TEXT: &str = "Text: ";
/// What stands before each label where a base model continues a text.
const LABEL: &str = "Label:";
/// The label of what belongs to no other.
const NONE_OF_THESE: &str = "none of these";
/// Texts that say nothing: frequent words in no order. Which labels the model prefers by itself shows in them (Zhao et al. 2021, "Calibrate
/// Before Use", took `N/A`, `[MASK]` and an empty text, after which fewer texts are sorted rightly).
const CONTENT_FREE: [&str; 4] = [
    "the of and to in a is that it was",
    "for on are as with they at be this",
    "from or one had by word but not what all",
    "were we when your can said there use an each",
];
/// The part of that preference which is taken off: texts with content show less of it. Chosen, as the words, over the models and sets of texts
/// that `docs/tasks.md` names for it: hardly ever worse than no calibration, and close to the best on average.
const CONTENT_FREE_PART: f64 = 0.6;
/// Labels of one classifier at most; a prompt that lists more is no use to a small model.
const MOST_LABELS: usize = 1000;

/// A label that a text can have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label {
    /// Its name, which is what the model is asked for: a plain word that says what it means.
    pub name: String,
    /// What it means, where the name does not say it.
    pub description: Option<String>,
}

impl Label {
    /// A label of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Label {
            name: name.into(),
            description: None,
        }
    }

    /// With what it means.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }
}

impl From<&str> for Label {
    fn from(name: &str) -> Self {
        Label::new(name)
    }
}

impl From<String> for Label {
    fn from(name: String) -> Self {
        Label::new(name)
    }
}

/// What a classifier takes off the scores of labels: how likely the model finds them whatever the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Calibration {
    /// Nothing. The scores are the mean log-probabilities of the labels' tokens.
    Off,
    /// Six tenths of their mean log-probabilities over texts without content: frequent English words in no order (after contextual
    /// calibration, Zhao et al. 2021).
    #[default]
    ContentFree,
    /// Their mean log-probabilities over these texts, of which no label needs to be known: some dozens of the kind that will be
    /// classified, in which each label is about as frequent as is to be expected (after batch calibration, Zhou et al. 2024, which
    /// takes the mean of probabilities).
    Texts(Vec<String>),
}

/// Sorts texts by labels of one's own, without training.
///
/// The labels' names are scored as answers, and the scores become probabilities: a softmax over the labels of
/// `ln P(label | text) - c`. What is taken off, `c`, is the model's own preference among the labels
/// ([`Calibration`]), which in small models outweighs many a text. Nothing is generated: a text costs its tokens and one step for the
/// labels. The first text also pays for the calibration.
pub struct Classifier {
    lm: Lm,
    labels: Vec<Label>,
    /// Texts, and the index of the label of each.
    examples: Vec<(String, usize)>,
    instruction: String,
    none_of_these: Option<f64>,
    calibration: Calibration,
    /// What is taken off the score of each label.
    prior: OnceLock<Vec<f64>>,
}

impl Classifier {
    /// A classifier for these labels.
    ///
    /// # Errors
    /// [`TaskError::TooFewLabels`]; [`TaskError::Label`] for a label that is empty or there twice; [`TaskError::Setting`] for more than
    /// 1000; [`Error::CannotGenerate`] for a model that only reads.
    pub fn new<L: Into<Label>>(
        lm: &Lm,
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Self, Error> {
        lm.check_writes()?;
        let labels: Vec<Label> = labels.into_iter().map(Into::into).collect();
        check(&labels)?;
        Ok(Classifier {
            lm: lm.clone(),
            labels,
            examples: Vec::new(),
            instruction: INSTRUCTION.to_owned(),
            none_of_these: None,
            calibration: Calibration::default(),
            prior: OnceLock::new(),
        })
    }

    /// With one more example: a text, and the label that it has.
    ///
    /// # Errors
    /// [`TaskError::UnknownLabel`].
    pub fn with_example(mut self, text: impl Into<String>, label: &str) -> Result<Self, Error> {
        let known = self.labels.iter().position(|known| known.name == label);
        let Some(index) = known else {
            return Err(TaskError::UnknownLabel {
                label: label.to_owned(),
                labels: self.names().collect::<Vec<_>>().join(", "),
            }
            .into());
        };
        self.examples.push((text.into(), index));
        self.prior = OnceLock::new();
        Ok(self)
    }

    /// With this instruction instead of the default. It should ask for one of the labels, which stand where it has `{labels}` (as
    /// `a, b or c`), else in a list behind it. A question to which the labels are the answers is understood best.
    #[must_use]
    pub fn with_instruction(mut self, instruction: impl Into<String>) -> Self {
        self.instruction = instruction.into();
        self.prior = OnceLock::new();
        self
    }

    /// With "none of these" as one more label. A text has no label where "none of these" is likelier than all others, and where
    /// the best of them has a probability below `threshold` (0 to 1). Both probabilities are calibrated, so that the threshold
    /// means about the same for all models.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for a threshold outside of 0 to 1; [`TaskError::Label`] where a label has that name.
    pub fn with_none_of_these(mut self, threshold: f64) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(TaskError::Setting {
                setting: "the threshold of \"none of these\"",
                found: threshold.to_string(),
                allowed: "0 to 1".to_owned(),
            }
            .into());
        }
        if self.labels.iter().any(|label| label.name == NONE_OF_THESE) {
            return Err(TaskError::Label {
                label: NONE_OF_THESE.to_owned(),
                reason: "is already among the labels: leave it out there".to_owned(),
            }
            .into());
        }
        self.none_of_these = Some(threshold);
        self.prior = OnceLock::new();
        Ok(self)
    }

    /// With this calibration.
    #[must_use]
    pub fn with_calibration(mut self, calibration: Calibration) -> Self {
        self.calibration = calibration;
        self.prior = OnceLock::new();
        self
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// The label of a text, and how likely each one is.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] for a text that does not fit the context beside labels and examples; as [`Lm::score`].
    pub fn classify(&self, text: &str) -> Result<Classification, Error> {
        let prior = self.prior()?;
        let scores = self.scores(text)?;
        let calibrated: Vec<f64> = scores.iter().zip(prior).map(|(s, p)| s - p).collect();
        let probabilities = softmax(&calibrated);
        let (of_labels, none) = probabilities.split_at(self.labels.len());
        let none_of_these = none.first().copied();
        let best = index_of_largest(of_labels);
        let (best_probability, threshold) =
            (of_labels[best], self.none_of_these.unwrap_or_default());
        let has_label = none_of_these
            .is_none_or(|none| best_probability >= none && best_probability >= threshold);
        Ok(Classification {
            label: has_label.then(|| self.labels[best].name.clone()),
            scores: self
                .names()
                .zip(of_labels)
                .zip(&scores)
                .map(|((label, probability), logprob)| LabelScore {
                    label: label.to_owned(),
                    probability: *probability,
                    logprob: *logprob,
                })
                .collect(),
            none_of_these,
        })
    }

    /// The label that the model writes when it is asked for it, held to the labels: what [`Classifier::classify`] is to be compared
    /// with. `None` for "none of these".
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn classify_by_text(&self, text: &str) -> Result<Option<String>, Error> {
        let prompt = self.prompt(text);
        let choices = self.answers(&prompt);
        let options = ask::faithful().with_format(OutputFormat::Choices(choices));
        let answer = ask::answer(&self.lm, &prompt, &options, &mut TaskUsage::default())?;
        if !answer.is_complete {
            return Err(Error::Incomplete {
                text: answer.text,
                reason: crate::FinishReason::ContextFull,
            });
        }
        let label = answer.text.trim();
        Ok((label != NONE_OF_THESE).then(|| label.to_owned()))
    }

    /// What is taken off the score of each label, computed at its first use.
    fn prior(&self) -> Result<&[f64], Error> {
        if let Some(prior) = self.prior.get() {
            return Ok(prior);
        }
        let prior = match &self.calibration {
            Calibration::Off => vec![0.0; self.answers_count()],
            Calibration::ContentFree => {
                let means = self.mean_over(&CONTENT_FREE)?;
                means
                    .into_iter()
                    .map(|mean| CONTENT_FREE_PART * mean)
                    .collect()
            }
            Calibration::Texts(texts) if texts.is_empty() => {
                let setting = "the number of texts to calibrate with";
                return Err(TaskError::Setting {
                    setting,
                    found: "0".to_owned(),
                    allowed: "1 or more".to_owned(),
                }
                .into());
            }
            Calibration::Texts(texts) => self.mean_over(texts)?,
        };
        Ok(self.prior.get_or_init(|| prior))
    }

    /// The mean over these texts of the logarithm of each label's probability among the labels.
    fn mean_over<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<f64>, Error> {
        let mut means = vec![0.0; self.answers_count()];
        for text in texts {
            let probabilities = softmax(&self.scores(text.as_ref())?);
            for (mean, probability) in means.iter_mut().zip(probabilities) {
                *mean += probability.max(f64::MIN_POSITIVE).ln() / texts.len() as f64;
            }
        }
        Ok(means)
    }

    /// The log-probability of each label as the answer; without calibration, which takes the length of labels into account, the
    /// mean over its tokens.
    fn scores(&self, text: &str) -> Result<Vec<f64>, Error> {
        let prompt = self.prompt(text);
        let answers = self.answers(&prompt);
        let mut options = ScoreOptions::new();
        // A base model goes on with the next text.
        options.whole = matches!(prompt, Prompt::Chat(_));
        let scores = self.lm.score_with(&prompt, &answers, &options)?;
        let by_length = self.calibration == Calibration::Off;
        Ok(scores
            .iter()
            .map(|score| match by_length {
                true => score.mean_logprob(),
                false => score.logprob,
            })
            .collect())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|label| label.name.as_str())
    }

    fn answers_count(&self) -> usize {
        self.labels.len() + usize::from(self.none_of_these.is_some())
    }

    /// What the model may answer, "none of these" last.
    fn answers(&self, prompt: &Prompt) -> Vec<String> {
        // In a text the word follows another one.
        let space = match prompt {
            Prompt::Chat(_) => "",
            _ => " ",
        };
        let none = self.none_of_these.map(|_| NONE_OF_THESE);
        self.names()
            .chain(none)
            .map(|name| format!("{space}{name}"))
            .collect()
    }

    /// The instruction, the labels, the examples and the text.
    fn prompt(&self, text: &str) -> Prompt {
        let mut task = self.task();
        if self.lm.chat_template().is_ok() {
            return Prompt::Chat(self.conversation(&task, text));
        }
        for (text, label) in &self.examples {
            let label = &self.labels[*label].name;
            task.push_str(&format!("\n{TEXT}{text}\n{LABEL} {label}\n"));
        }
        Prompt::Text(format!("{task}\n{TEXT}{text}\n{LABEL}"))
    }

    /// The instruction with the labels.
    fn task(&self) -> String {
        let in_line = self.instruction.contains(LABELS);
        let none = self.none_of_these.map(|_| NONE_OF_THESE.to_owned());
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|label| match (&label.description, in_line) {
                (None, _) => label.name.clone(),
                (Some(description), true) => format!("{} ({description})", label.name),
                (Some(description), false) => format!("{}: {description}", label.name),
            })
            .chain(none)
            .collect();
        match labels.split_last() {
            Some((last, others)) if in_line => {
                let labels = format!("{} or {last}", others.join(", "));
                format!("{}\n", self.instruction.replace(LABELS, &labels))
            }
            _ => format!("{}\n- {}\n", self.instruction, labels.join("\n- ")),
        }
    }

    fn conversation(&self, task: &str, text: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut before = format!("{task}\n");
        for (text, label) in &self.examples {
            let before = std::mem::take(&mut before);
            messages.push(Message::user(format!("{before}{TEXT}{text}")));
            messages.push(Message::assistant(&self.labels[*label].name));
        }
        messages.push(Message::user(format!("{before}{TEXT}{text}")));
        messages
    }
}

/// The label of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Classification {
    /// The likeliest label; `None` for none of these.
    pub label: Option<String>,
    /// All labels with their probabilities, in the order in which they were given. Together with that of "none of these" they sum to 1.
    pub scores: Vec<LabelScore>,
    /// The probability of "none of these", where it was asked for.
    pub none_of_these: Option<f64>,
}

/// How likely a label is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LabelScore {
    /// The label's name.
    pub label: String,
    /// Its probability among the labels, calibrated.
    pub probability: f64,
    /// The natural logarithm of the model's own probability for its name as the answer; without calibration the mean over its tokens.
    pub logprob: f64,
}

fn check(labels: &[Label]) -> Result<(), TaskError> {
    let found = labels.len();
    if found < 2 {
        return Err(TaskError::TooFewLabels { found });
    }
    if found > MOST_LABELS {
        return Err(TaskError::Setting {
            setting: "the number of labels",
            found: found.to_string(),
            allowed: format!("2 to {MOST_LABELS}"),
        });
    }
    let mut seen = std::collections::HashSet::new();
    for label in labels {
        let name = label.name.as_str();
        let reason = match name {
            _ if name.trim() != name || name.is_empty() || name.contains('\n') => {
                "must be a word or more in one line, without spaces around it"
            }
            _ if !seen.insert(name) => "is there twice: leave out one of them",
            _ => continue,
        };
        return Err(TaskError::Label {
            label: name.to_owned(),
            reason: reason.to_owned(),
        });
    }
    Ok(())
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|exp| exp / sum).collect()
}

/// The first of the largest.
fn index_of_largest(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}
