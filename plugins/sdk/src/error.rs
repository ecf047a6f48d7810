//! What can go wrong in the runtime itself: a closed list.

use std::fmt;
use std::sync::Arc;

/// The result of every fallible operation of the contract.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, for code.
///
/// The list is closed: each code maps to one gRPC status and one exit code of
/// the command line, in one place each, without a default. A command that
/// fails is not an error but an [`ExitStatus`](crate::ExitStatus).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// There is no such sandbox, or not any more.
    NoSandbox,
    /// The path, process or snapshot does not exist.
    NotFound,
    /// It exists, and the caller asked for it not to.
    AlreadyExists,
    /// Understood, and refused.
    PermissionDenied,
    /// The caller, or the backend before what it fronts, is not who it must be.
    Unauthenticated,
    /// The request makes no sense.
    InvalidArgument,
    /// Empty, with a NUL, too long, a loop of links, or leading out of the
    /// sandbox's roots.
    InvalidPath,
    /// Not a search pattern.
    InvalidPattern,
    /// A directory, where only a file will do.
    IsDirectory,
    /// A file, where only a directory will do.
    NotADirectory,
    /// A FIFO, a socket or a device: neither file nor directory.
    NotAFile,
    /// More than may be moved or expanded at once. [`Error::count`] is the limit.
    TooLarge,
    /// The file is no longer the version that the caller named.
    Conflict,
    /// This backend does not do that, and never will for this sandbox.
    Unsupported,
    /// A quota was reached.
    Exhausted,
    /// Out of reach for now. The only code worth retrying.
    Unavailable,
    /// The backend broke.
    Internal,
    /// The call was given up by its caller.
    Cancelled,
    /// The call met its deadline. A command that does so is an exit status.
    TimedOut,
    /// Not UTF-8 text. Only from operations the host builds.
    NotText,
    /// Past the end. [`Error::count`] is what there is. Only from the host.
    OutOfRange,
    /// The text to replace is not there. Only from the host.
    NoMatch,
    /// The text to replace is there more than once. [`Error::count`] is how
    /// often. Only from the host.
    MultipleMatches,
}

impl ErrorCode {
    /// Every code there is, in declaration order.
    pub const ALL: [Self; 23] = [
        Self::NoSandbox,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::Unauthenticated,
        Self::InvalidArgument,
        Self::InvalidPath,
        Self::InvalidPattern,
        Self::IsDirectory,
        Self::NotADirectory,
        Self::NotAFile,
        Self::TooLarge,
        Self::Conflict,
        Self::Unsupported,
        Self::Exhausted,
        Self::Unavailable,
        Self::Internal,
        Self::Cancelled,
        Self::TimedOut,
        Self::NotText,
        Self::OutOfRange,
        Self::NoMatch,
        Self::MultipleMatches,
    ];

    /// The name used in JSON, logs and metrics, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSandbox => "no_sandbox",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PermissionDenied => "permission_denied",
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidArgument => "invalid_argument",
            Self::InvalidPath => "invalid_path",
            Self::InvalidPattern => "invalid_pattern",
            Self::IsDirectory => "is_directory",
            Self::NotADirectory => "not_a_directory",
            Self::NotAFile => "not_a_file",
            Self::TooLarge => "too_large",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::NotText => "not_text",
            Self::OutOfRange => "out_of_range",
            Self::NoMatch => "no_match",
            Self::MultipleMatches => "multiple_matches",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an operation failed: a code for programs, a sentence for people, and
/// what it is about.
///
/// The message is a lowercase fragment without the path, which has a field of
/// its own, and without its source, which the chain prints once at the top.
#[expect(clippy::error_impl_error, reason = "it reads as stigmer_sdk::Error")]
#[derive(Clone, Debug)]
pub struct Error {
    code: ErrorCode,
    message: String,
    path: Option<String>,
    count: Option<u64>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with this code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            path: None,
            count: None,
            source: None,
        }
    }

    /// [`ErrorCode::Internal`] with what broke underneath.
    pub fn internal(
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::new(ErrorCode::Internal, message).with_source(source)
    }

    /// [`ErrorCode::Unsupported`]: `what` is a noun phrase, such as "a terminal".
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(
            ErrorCode::Unsupported,
            format!("{what} is not supported by this backend"),
        )
    }

    /// Adds the path it is about, as the caller wrote it.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Adds the number that the code calls for.
    #[must_use]
    pub fn with_count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The reason, for code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The reason, for people, without the path.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The path it is about, as the caller wrote it.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The limit for `TooLarge`, the lines there are for `OutOfRange`, the
    /// matches for `MultipleMatches`.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.count
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            // Escaped, because a file name may hold a newline or an escape sequence.
            Some(path) => write!(f, "'{}': {}", path.escape_debug(), self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_displayed() {
        let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.to_string()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn a_hostile_path_cannot_forge_a_second_line() {
        let error = Error::new(ErrorCode::NotFound, "no such file")
            .with_path("a\nerror: all is well\u{1b}[2J");
        assert_eq!(
            error.to_string(),
            r"'a\nerror: all is well\u{1b}[2J': no such file"
        );
    }
}
