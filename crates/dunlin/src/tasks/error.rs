//! What can go wrong with a task, apart from the model's own work.

/// Everything that can go wrong with a task, apart from the model's own work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// There is nothing to work on.
    #[error("the text to {task} is empty: give at least one word")]
    EmptyText {
        /// What was to be done.
        task: &'static str,
    },

    /// A classifier has nothing to choose between.
    #[error("a classifier chooses between labels, and {found} were given: give at least 2")]
    TooFewLabels {
        /// Labels that were given.
        found: usize,
    },

    /// A label cannot be told from others.
    #[error("the label {label:?} {reason}")]
    Label {
        /// The label.
        label: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// An example has a label that there is not.
    #[error("an example has the label {label:?}, and the labels are {labels}")]
    UnknownLabel {
        /// The label of the example.
        label: String,
        /// The labels that there are.
        labels: String,
    },

    /// A setting of a task is outside its range.
    #[error("{setting} is {found}, allowed is {allowed}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// The value given.
        found: String,
        /// The range allowed.
        allowed: String,
    },

    /// The words of a task leave no room for a text.
    #[error(
        "the context holds {context_length} tokens, and the task takes {needed} beside the text, its answer included: load the model with a longer context, or ask for a shorter answer"
    )]
    ContextTooShort {
        /// Tokens that the context holds.
        context_length: usize,
        /// Tokens that are needed beside the text.
        needed: usize,
    },

    /// An answer became longer than there is room for.
    #[error(
        "the answer to piece {piece} of {pieces} was still open after {tokens} tokens: the model may repeat itself. Take smaller pieces, another temperature, or a larger model. So far it is {text:?}"
    )]
    PieceUnfinished {
        /// The piece, counted from 1.
        piece: usize,
        /// All pieces.
        pieces: usize,
        /// Tokens of the answer.
        tokens: usize,
        /// What there is of it.
        text: String,
    },

    /// No schema follows from an example.
    #[error("no schema follows from the example at {pointer:?}: {reason}")]
    Example {
        /// Where (JSON Pointer, RFC 6901).
        pointer: String,
        /// What is wrong, and what to do.
        reason: &'static str,
    },

    /// There is no such language.
    #[error("{found:?} is none of the languages that are known: {known}")]
    UnknownLanguage {
        /// What was named.
        found: String,
        /// The languages that can be named.
        known: String,
    },
}
