//! Errors on the wire: the code, the gRPC status it has, and the trailer that
//! says the rest.

use prost::Message;

use super::{named, sandbox};
use crate::{Error, ErrorCode, Result};

/// The trailer that holds an encoded [`sandbox::Error`].
pub const GRPC_ERROR_TRAILER: &str = "stigmer-error-bin";

/// The longest message that travels. With a path of 4,095 bytes and base64 it
/// stays below the 16 KiB that HTTP/2 implementations allow for trailers.
const MAX_MESSAGE_BYTES: usize = 4096;

impl From<ErrorCode> for sandbox::ErrorCode {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NoSandbox => Self::NoSandbox,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::AlreadyExists => Self::AlreadyExists,
            ErrorCode::PermissionDenied => Self::PermissionDenied,
            ErrorCode::Unauthenticated => Self::Unauthenticated,
            ErrorCode::InvalidArgument => Self::InvalidArgument,
            ErrorCode::InvalidPath => Self::InvalidPath,
            ErrorCode::InvalidPattern => Self::InvalidPattern,
            ErrorCode::IsDirectory => Self::IsDirectory,
            ErrorCode::NotADirectory => Self::NotADirectory,
            ErrorCode::NotAFile => Self::NotAFile,
            ErrorCode::TooLarge => Self::TooLarge,
            ErrorCode::Conflict => Self::Conflict,
            ErrorCode::Unsupported => Self::Unsupported,
            ErrorCode::Exhausted => Self::Exhausted,
            ErrorCode::Unavailable => Self::Unavailable,
            ErrorCode::Internal => Self::Internal,
            ErrorCode::Cancelled => Self::Cancelled,
            ErrorCode::TimedOut => Self::TimedOut,
            ErrorCode::NotText => Self::NotText,
            ErrorCode::OutOfRange => Self::OutOfRange,
            ErrorCode::NoMatch => Self::NoMatch,
            ErrorCode::MultipleMatches => Self::MultipleMatches,
        }
    }
}

impl TryFrom<sandbox::ErrorCode> for ErrorCode {
    type Error = Error;

    fn try_from(code: sandbox::ErrorCode) -> Result<Self> {
        Ok(match code {
            sandbox::ErrorCode::Unspecified => return Err(super::invalid("code", "is missing")),
            sandbox::ErrorCode::NoSandbox => Self::NoSandbox,
            sandbox::ErrorCode::NotFound => Self::NotFound,
            sandbox::ErrorCode::AlreadyExists => Self::AlreadyExists,
            sandbox::ErrorCode::PermissionDenied => Self::PermissionDenied,
            sandbox::ErrorCode::Unauthenticated => Self::Unauthenticated,
            sandbox::ErrorCode::InvalidArgument => Self::InvalidArgument,
            sandbox::ErrorCode::InvalidPath => Self::InvalidPath,
            sandbox::ErrorCode::InvalidPattern => Self::InvalidPattern,
            sandbox::ErrorCode::IsDirectory => Self::IsDirectory,
            sandbox::ErrorCode::NotADirectory => Self::NotADirectory,
            sandbox::ErrorCode::NotAFile => Self::NotAFile,
            sandbox::ErrorCode::TooLarge => Self::TooLarge,
            sandbox::ErrorCode::Conflict => Self::Conflict,
            sandbox::ErrorCode::Unsupported => Self::Unsupported,
            sandbox::ErrorCode::Exhausted => Self::Exhausted,
            sandbox::ErrorCode::Unavailable => Self::Unavailable,
            sandbox::ErrorCode::Internal => Self::Internal,
            sandbox::ErrorCode::Cancelled => Self::Cancelled,
            sandbox::ErrorCode::TimedOut => Self::TimedOut,
            sandbox::ErrorCode::NotText => Self::NotText,
            sandbox::ErrorCode::OutOfRange => Self::OutOfRange,
            sandbox::ErrorCode::NoMatch => Self::NoMatch,
            sandbox::ErrorCode::MultipleMatches => Self::MultipleMatches,
        })
    }
}

/// The number of the gRPC status that an error of this code has.
#[must_use]
pub const fn grpc_status(code: ErrorCode) -> i32 {
    match code {
        ErrorCode::Cancelled => 1,
        ErrorCode::InvalidArgument | ErrorCode::InvalidPath | ErrorCode::InvalidPattern => 3,
        ErrorCode::TimedOut => 4,
        ErrorCode::NoSandbox | ErrorCode::NotFound => 5,
        ErrorCode::AlreadyExists => 6,
        ErrorCode::PermissionDenied => 7,
        ErrorCode::Exhausted => 8,
        ErrorCode::IsDirectory
        | ErrorCode::NotADirectory
        | ErrorCode::NotAFile
        | ErrorCode::TooLarge
        | ErrorCode::NotText
        | ErrorCode::NoMatch
        | ErrorCode::MultipleMatches => 9,
        ErrorCode::Conflict => 10,
        ErrorCode::OutOfRange => 11,
        ErrorCode::Unsupported => 12,
        ErrorCode::Internal => 13,
        ErrorCode::Unavailable => 14,
        ErrorCode::Unauthenticated => 16,
    }
}

/// The code for a gRPC status that came without the trailer, from a peer that
/// knows nothing of it.
#[must_use]
pub const fn code_of_grpc_status(status: i32) -> ErrorCode {
    match status {
        1 => ErrorCode::Cancelled,
        // FAILED_PRECONDITION says that the request does not fit what is there.
        3 | 9 => ErrorCode::InvalidArgument,
        4 => ErrorCode::TimedOut,
        5 => ErrorCode::NotFound,
        6 => ErrorCode::AlreadyExists,
        7 => ErrorCode::PermissionDenied,
        8 => ErrorCode::Exhausted,
        10 => ErrorCode::Conflict,
        11 => ErrorCode::OutOfRange,
        12 => ErrorCode::Unsupported,
        14 => ErrorCode::Unavailable,
        16 => ErrorCode::Unauthenticated,
        // UNKNOWN, INTERNAL, DATA_LOSS, and what gRPC does not define.
        _ => ErrorCode::Internal,
    }
}

impl From<&Error> for sandbox::Error {
    /// The chain of sources becomes part of the message: beyond the wire there
    /// is nobody else to print it.
    fn from(error: &Error) -> Self {
        let mut message = error.message().to_owned();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
            message.push('…');
        }
        Self {
            code: sandbox::ErrorCode::from(error.code()).into(),
            message,
            path: error.path().map(str::to_owned),
            count: error.count(),
        }
    }
}

impl TryFrom<sandbox::Error> for Error {
    type Error = Error;

    fn try_from(wire: sandbox::Error) -> Result<Self> {
        let code = named::<sandbox::ErrorCode>("code", wire.code)?.try_into()?;
        Ok(rest(Error::new(code, wire.message), wire.path, wire.count))
    }
}

fn rest(mut error: Error, path: Option<String>, count: Option<u64>) -> Error {
    if let Some(path) = path {
        error = error.with_path(path);
    }
    if let Some(count) = count {
        error = error.with_count(count);
    }
    error
}

/// The bytes of the trailer [`GRPC_ERROR_TRAILER`].
#[must_use]
pub fn encode_error(error: &Error) -> Vec<u8> {
    sandbox::Error::from(error).encode_to_vec()
}

/// The error in the bytes of the trailer, if that is what they hold.
///
/// # Errors
/// [`ErrorCode::InvalidArgument`] if they do not.
pub fn decode_error(trailer: &[u8]) -> Result<Error> {
    sandbox::Error::decode(trailer)
        .map_err(|error| super::invalid(GRPC_ERROR_TRAILER, error))?
        .try_into()
}

/// The error that a status with its message and trailer stands for.
///
/// A trailer that makes no sense, or has a code from a later version of the
/// contract, leaves the status to speak for itself.
#[must_use]
pub fn error_of_status(status: i32, message: &str, trailer: Option<&[u8]>) -> Error {
    let wire = trailer.and_then(|bytes| sandbox::Error::decode(bytes).ok());
    match wire {
        Some(wire) => Error::try_from(wire.clone()).unwrap_or_else(|_| {
            rest(
                Error::new(code_of_grpc_status(status), wire.message),
                wire.path,
                wire.count,
            )
        }),
        None => Error::new(code_of_grpc_status(status), message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_trip() {
        for code in ErrorCode::ALL {
            let wire = sandbox::ErrorCode::from(code);
            assert_eq!(ErrorCode::try_from(wire).unwrap(), code);
            let error = Error::new(code, "a message")
                .with_path("a/\nb")
                .with_count(7);
            let back = error_of_status(grpc_status(code), "", Some(&encode_error(&error)));
            assert_eq!(back.code(), code);
            assert_eq!(back.message(), "a message");
            assert_eq!(back.path(), Some("a/\nb"));
            assert_eq!(back.count(), Some(7));
        }
    }

    /// The comments in the proto file are the contract with other languages.
    #[test]
    fn statuses_are_those_of_the_proto_file() {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        let proto = include_str!("../../../../proto/stigmer/sandbox/v1/sandbox.proto");
        for code in ErrorCode::ALL {
            let wire = sandbox::ErrorCode::from(code);
            let status = usize::try_from(grpc_status(code)).unwrap();
            let line = format!(
                "{} = {}; // {}",
                wire.as_str_name(),
                wire as i32,
                NAMES[status]
            );
            assert!(proto.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_status_without_a_trailer_stands_alone() {
        #[track_caller]
        fn check(status: i32, trailer: Option<&[u8]>, code: ErrorCode) {
            let error = error_of_status(status, "why", trailer);
            assert_eq!((error.code(), error.message()), (code, "why"));
        }
        check(5, None, ErrorCode::NotFound);
        check(14, None, ErrorCode::Unavailable);
        check(2, None, ErrorCode::Internal);
        check(99, None, ErrorCode::Internal);
        check(12, Some(b"\xff\xff"), ErrorCode::Unsupported);
    }

    #[test]
    fn a_code_from_the_future_falls_back_to_the_status() {
        let wire = sandbox::Error {
            code: 999,
            message: "later".to_owned(),
            path: Some("p".to_owned()),
            count: None,
        };
        let error = error_of_status(9, "status", Some(&wire.encode_to_vec()));
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert_eq!((error.message(), error.path()), ("later", Some("p")));
        assert!(decode_error(&wire.encode_to_vec()).is_err());
    }

    #[test]
    fn the_chain_travels_in_a_bounded_message() {
        let error = Error::internal("cannot open", std::io::Error::other("disk on fire"));
        assert_eq!(
            sandbox::Error::from(&error).message,
            "cannot open: disk on fire"
        );
        let long = Error::new(ErrorCode::Internal, "ż".repeat(9000));
        assert!(sandbox::Error::from(&long).message.len() <= MAX_MESSAGE_BYTES + 3);
    }
}
