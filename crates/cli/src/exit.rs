//! How the program ends: the error in words, and a code that scripts can tell apart.

use std::io;
use std::process::ExitCode;

use dunlin::search::SearchError;
use dunlin::tasks::TaskError;
use dunlin::{ConvertError, EngineError, Error, FormatError, HubError, TextError};

use crate::interrupt;
use crate::terminal::Terminal;

/// There is no such model or file.
pub(crate) const NOT_FOUND: u8 = 3;
/// The model could not be downloaded.
pub(crate) const DOWNLOAD: u8 = 4;
/// The model file is damaged or not supported.
pub(crate) const MODEL_FILE: u8 = 5;
const OTHER: u8 = 1;
const USAGE: u8 = 2;

/// The arguments contradict each other in a way that the parser does not see.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

/// The answer is out and says itself what is wrong; only the exit code is left to give.
#[derive(Debug)]
pub(crate) struct Finished(pub(crate) u8);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "finished with exit code {}", self.0)
    }
}

impl std::error::Error for Usage {}
impl std::error::Error for Finished {}

/// Says the error, if there is one, and gives the exit code.
pub(crate) fn finish(result: anyhow::Result<()>, terminal: &Terminal) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if is_closed_pipe(&error) {
        // The reader has seen enough (`dunlin catalog | head`).
        return ExitCode::SUCCESS;
    }
    if let Some(Finished(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let code = code(&error);
    match code {
        interrupt::EXIT_CODE => terminal.say("interrupted"),
        _ => terminal.say(format_args!("error: {}", in_words(&error))),
    }
    ExitCode::from(code)
}

/// The error and its causes. A cause that the message above it already contains is not said twice.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error
        .chain()
        .any(|cause| cause.downcast_ref().is_some_and(is))
}

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(OTHER)
}

fn code_of(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(error) = error.downcast_ref() {
        return of_sdk(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_hub(error);
    }
    if let Some(error) = error.downcast_ref() {
        return Some(of_format(error));
    }
    if let Some(error) = error.downcast_ref() {
        return of_engine(error);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return (error.kind() == io::ErrorKind::NotFound).then_some(NOT_FOUND);
    }
    error.downcast_ref::<Usage>().map(|_| USAGE)
}

fn of_sdk(error: &Error) -> Option<u8> {
    match error {
        Error::Hub(error) => of_hub(error),
        Error::Format(error) => Some(of_format(error)),
        Error::Text(error) => of_text(error),
        Error::Engine(error) => of_engine(error),
        Error::Convert(error) => of_convert(error),
        Error::Folder { .. } => Some(MODEL_FILE),
        Error::NotAFolder { .. }
        | Error::NoPooling { .. }
        | Error::Dimensions { .. }
        | Error::TensorPattern { .. }
        | Error::TensorPatternUnused { .. }
        | Error::TensorWidth { .. }
        | Error::MappedConversion
        | Error::NoFileTokens => Some(USAGE),
        Error::CannotGenerate { .. }
        | Error::CannotInfill { .. }
        | Error::ManyLabels { .. }
        | Error::NotANumber { .. } => Some(MODEL_FILE),
        Error::Cancelled => Some(interrupt::EXIT_CODE),
        #[cfg(feature = "mcp")]
        Error::Mcp(dunlin::mcp::McpError::Cancelled) => Some(interrupt::EXIT_CODE),
        Error::Search(error) => of_search(error),
        Error::Task(error) => of_task(error),
        _ => None,
    }
}

fn of_search(error: &SearchError) -> Option<u8> {
    match error {
        SearchError::Io { source, .. } => {
            (source.kind() == io::ErrorKind::NotFound).then_some(NOT_FOUND)
        }
        SearchError::Filter { .. }
        | SearchError::ChunkSize { .. }
        | SearchError::OtherFolder { .. } => Some(USAGE),
        _ => None,
    }
}

fn of_task(error: &TaskError) -> Option<u8> {
    match error {
        TaskError::PieceUnfinished { .. } => None,
        _ => Some(USAGE),
    }
}

fn of_hub(error: &HubError) -> Option<u8> {
    match error {
        HubError::UnknownModel { .. }
        | HubError::NotCached { .. }
        | HubError::NotFound { .. }
        | HubError::NoMatchingFile { .. }
        | HubError::NoModelFiles { .. } => Some(NOT_FOUND),
        HubError::NotGguf { .. } => Some(MODEL_FILE),
        HubError::InvalidReference { .. } => Some(USAGE),
        HubError::Io { source, .. } => {
            (source.kind() == io::ErrorKind::NotFound).then_some(NOT_FOUND)
        }
        HubError::Cancelled => Some(interrupt::EXIT_CODE),
        HubError::Busy { .. } | HubError::BadManifest { .. } | HubError::BadConfig { .. } => None,
        _ => Some(DOWNLOAD),
    }
}

fn of_convert(error: &ConvertError) -> Option<u8> {
    match error {
        ConvertError::Io { source, .. } => {
            (source.kind() == io::ErrorKind::NotFound).then_some(NOT_FOUND)
        }
        ConvertError::Format(error) => Some(of_format(error)),
        ConvertError::Text(error) => of_text(error),
        ConvertError::Cancelled => Some(interrupt::EXIT_CODE),
        ConvertError::NoSpace { .. } | ConvertError::OutIsSource { .. } => None,
        _ => Some(MODEL_FILE),
    }
}

fn of_format(error: &FormatError) -> u8 {
    match error {
        FormatError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
        _ => MODEL_FILE,
    }
}

fn of_text(error: &TextError) -> Option<u8> {
    match error {
        TextError::Format(error) => Some(of_format(error)),
        TextError::UnsupportedTokenizer { .. }
        | TextError::UnsupportedPreTokenizer { .. }
        | TextError::MissingPreTokenizer
        | TextError::Vocabulary { .. } => Some(MODEL_FILE),
        TextError::Schema { .. }
        | TextError::Grammar { .. }
        | TextError::Gbnf { .. }
        | TextError::GrammarTooLarge { .. } => Some(USAGE),
        _ => None,
    }
}

fn of_engine(error: &EngineError) -> Option<u8> {
    match error {
        EngineError::Format(error) => Some(of_format(error)),
        EngineError::UnknownArchitecture { .. }
        | EngineError::InvalidMetadata { .. }
        | EngineError::UnsupportedFeature { .. }
        | EngineError::MissingTensor { .. }
        | EngineError::WrongShape { .. }
        | EngineError::UnexpectedTensor { .. }
        | EngineError::InvalidTensorValue { .. }
        | EngineError::InvalidLogit { .. }
        | EngineError::NotAnAdapter { .. }
        | EngineError::AdapterArchitecture { .. }
        | EngineError::AdapterUnknownTensor { .. }
        | EngineError::AdapterUnsupported { .. }
        | EngineError::AdapterUnpaired { .. }
        | EngineError::AdapterRank { .. }
        | EngineError::AdapterShape { .. }
        | EngineError::NoClassifier
        | EngineError::Pack { .. } => Some(MODEL_FILE),
        // Another --pooling can be asked for.
        EngineError::RankIsNoEmbedding => Some(USAGE),
        EngineError::Cancelled => Some(interrupt::EXIT_CODE),
        _ => None,
    }
}
