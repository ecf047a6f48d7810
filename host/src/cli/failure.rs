//! What the command line reports when it cannot do what it was asked: printed
//! once, at the top, by [`output`](super::output).

use std::error::Error as StdError;
use std::io;

use prost::Message;
use stigmer_sdk::{ErrorCode, wire};
use tonic::Status;

use super::exit::Reason;
use crate::config::Problem;

/// The result of every command.
pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// A failure as a user reads it: what is wrong, what caused it, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// More than one if several things are wrong at once.
    pub(super) problems: Vec<String>,
    pub(super) causes: Vec<String>,
    pub(super) hints: Vec<String>,
}

impl Failure {
    pub(super) fn new(reason: Reason, problem: impl Into<String>) -> Self {
        Self {
            reason,
            problems: vec![problem.into()],
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    pub(super) fn usage(problem: impl Into<String>) -> Self {
        Self::new(Reason::Usage, problem)
    }

    pub(super) fn failed(problem: impl Into<String>) -> Self {
        Self::new(Reason::Failed, problem)
    }

    /// Several things that failed, of which the first few are shown.
    pub(super) fn several(mut problems: Vec<String>) -> Self {
        const SHOWN: usize = 10;
        let more = problems.len().saturating_sub(SHOWN);
        problems.truncate(SHOWN);
        if more > 0 {
            problems.push(format!("and {more} more like these"));
        }
        Self {
            reason: Reason::Failed,
            problems,
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    pub(super) fn configuration(problems: Vec<Problem>) -> Self {
        Self {
            reason: Reason::Usage,
            problems: problems.into_iter().map(|problem| problem.0).collect(),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// A signal with this number ended the run; there is nothing to say.
    pub(super) fn interrupted(signal: i32) -> Self {
        Self::silent(Reason::Interrupted(signal))
    }

    /// Bytes that could not be written to `stdout` or `stderr`.
    pub(super) fn writing(stream: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(Reason::BrokenPipe)
        } else {
            Self::failed(format!("cannot write to {stream}")).because(error)
        }
    }

    fn silent(reason: Reason) -> Self {
        Self {
            reason,
            problems: Vec::new(),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// Adds what caused it, down to the first cause.
    pub(super) fn because(mut self, error: &dyn StdError) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let cause = error.to_string();
            // Some libraries repeat their source in their own message.
            if self.causes.last() != Some(&cause) {
                self.causes.push(cause);
            }
            next = error.source();
        }
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl From<stigmer_sdk::Error> for Failure {
    fn from(error: stigmer_sdk::Error) -> Self {
        let failure = Self::new(Reason::of_error(error.code()), error.to_string());
        match error.source() {
            Some(source) => failure.because(source),
            None => failure,
        }
    }
}

/// The trailer that carries an encoded error beside a gRPC status.
const ERROR_TRAILER: &str = "stigmer-error-bin";

/// The typed error that came with a status, if one did.
pub(super) fn wire_error(status: &Status) -> Option<wire::sandbox::Error> {
    let bytes = status.metadata().get_bin(ERROR_TRAILER)?.to_bytes().ok()?;
    wire::sandbox::Error::decode(bytes).ok()
}

/// Whether a status carries this code.
pub(super) fn has_code(status: &Status, code: wire::sandbox::ErrorCode) -> bool {
    wire_error(status).is_some_and(|error| error.code() == code)
}

/// One line for an error from the wire.
pub(super) fn describe(error: &wire::sandbox::Error) -> String {
    match &error.path {
        Some(path) => format!("'{}': {}", path.escape_debug(), error.message),
        None => error.message.clone(),
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        use wire::sandbox::ErrorCode as Code;
        let Some(error) = wire_error(&status) else {
            return match status.code() {
                tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
                    Self::failed(status.message()).hint(KEY_HINT)
                }
                tonic::Code::Unavailable => {
                    Self::failed("the Stigmer daemon does not answer any more")
                        .because(&Said(&status))
                }
                _ => Self::failed("the Stigmer daemon could not answer").because(&Said(&status)),
            };
        };
        let failure = Self::new(reason(error.code()), describe(&error));
        match error.code() {
            Code::NoSandbox => failure.hint("see which there are with: stigmer sandbox list"),
            Code::Unauthenticated => failure.hint(KEY_HINT),
            Code::MultipleMatches => failure
                .hint("give more of the surrounding text, or say --all to replace every place"),
            _ => failure,
        }
    }
}

const KEY_HINT: &str = "the daemon takes the key in STIGMER_API_KEY; a local one takes it only from the user who started it";

/// A code this client does not know comes from a newer daemon: a failure.
fn reason(code: wire::sandbox::ErrorCode) -> Reason {
    use wire::sandbox::ErrorCode as Code;
    match code {
        Code::InvalidArgument => Reason::of_error(ErrorCode::InvalidArgument),
        Code::InvalidPath => Reason::of_error(ErrorCode::InvalidPath),
        Code::InvalidPattern => Reason::of_error(ErrorCode::InvalidPattern),
        _ => Reason::Failed,
    }
}

/// A status as a cause: its `Display` is for logs.
#[derive(Debug)]
struct Said<'a>(&'a Status);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.message().is_empty() {
            write!(f, "{}", self.0.code())
        } else {
            f.write_str(self.0.message())
        }
    }
}

impl StdError for Said<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::{BinaryMetadataKey, MetadataMap, MetadataValue};

    fn status(code: wire::sandbox::ErrorCode, path: Option<&str>, message: &str) -> Status {
        let error = wire::sandbox::Error {
            code: code.into(),
            message: message.to_owned(),
            path: path.map(str::to_owned),
            count: None,
        };
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(
            BinaryMetadataKey::from_static(ERROR_TRAILER),
            MetadataValue::from_bytes(&error.encode_to_vec()),
        );
        Status::with_metadata(tonic::Code::NotFound, "not this", metadata)
    }

    #[test]
    fn a_typed_error_is_preferred_to_the_status() {
        let failure = Failure::from(status(
            wire::sandbox::ErrorCode::NotFound,
            Some("a\nb"),
            "no such file",
        ));
        assert_eq!(failure.problems, [r"'a\nb': no such file"]);
        assert_eq!(failure.reason, Reason::Failed);
    }

    #[test]
    fn an_unknown_sandbox_says_how_to_see_the_others() {
        let failure = Failure::from(status(
            wire::sandbox::ErrorCode::NoSandbox,
            None,
            "there is no sandbox 'web'",
        ));
        assert_eq!(
            failure.hints,
            ["see which there are with: stigmer sandbox list"]
        );
    }

    #[test]
    fn a_bad_pattern_is_a_usage_error() {
        let failure = Failure::from(status(
            wire::sandbox::ErrorCode::InvalidPattern,
            None,
            "unclosed '['",
        ));
        assert_eq!(failure.reason, Reason::Usage);
    }

    #[test]
    fn a_bare_status_is_a_cause() {
        let failure = Failure::from(Status::unavailable("connection reset"));
        assert_eq!(
            failure.problems,
            ["the Stigmer daemon does not answer any more"]
        );
        assert_eq!(failure.causes, ["connection reset"]);
    }

    #[test]
    fn a_reader_that_left_is_no_news() {
        let failure = Failure::writing("stdout", &io::ErrorKind::BrokenPipe.into());
        assert_eq!(
            (failure.reason, failure.problems.len()),
            (Reason::BrokenPipe, 0)
        );
    }

    #[test]
    fn many_problems_are_cut_and_counted() {
        let failure = Failure::several((0..12).map(|n| n.to_string()).collect());
        assert_eq!(failure.problems.len(), 11);
        assert_eq!(failure.problems[10], "and 2 more like these");
    }
}
