//! The contract's errors as gRPC statuses, and back.

use std::error::Error as _;

use stigmer_sdk::wire::{self, GRPC_ERROR_TRAILER, sandbox};
use stigmer_sdk::{Error, ErrorCode};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The longest `grpc-message`, which is for people without a decoder for the
/// trailer. Percent-encoded it may be three times as long.
const MAX_MESSAGE_BYTES: usize = 1024;

/// The status that an error has on the wire, with all of it in the trailer.
#[must_use]
pub fn to_status(error: &Error) -> Status {
    let wire = sandbox::Error::from(error);
    let mut message = match &wire.path {
        Some(path) => format!("'{}': {}", path.escape_debug(), wire.message),
        None => wire.message,
    };
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    let mut metadata = MetadataMap::with_capacity(1);
    metadata.insert_bin(
        GRPC_ERROR_TRAILER,
        MetadataValue::from_bytes(&wire::encode_error(error)),
    );
    Status::with_metadata(
        Code::from_i32(wire::grpc_status(error.code())),
        message,
        metadata,
    )
}

/// [`to_status`] for a result.
pub(super) fn checked<T>(result: stigmer_sdk::Result<T>) -> Result<T, Status> {
    result.map_err(|error| to_status(&error))
}

/// The error that a status stands for, whoever made it.
#[must_use]
pub fn from_status(status: Status) -> Error {
    let trailer = status
        .metadata()
        .get_bin(GRPC_ERROR_TRAILER)
        .and_then(|value| value.to_bytes().ok());
    let code = status.code();
    // Without a trailer and with a source, no peer said this: the connection
    // broke. tonic calls that UNKNOWN or INTERNAL, depending on where.
    let connection_broke = trailer.is_none()
        && status.source().is_some()
        && !matches!(code, Code::Cancelled | Code::DeadlineExceeded);
    if connection_broke {
        return Error::new(ErrorCode::Unavailable, "the connection broke").with_source(status);
    }
    wire::error_of_status(code as i32, status.message(), trailer.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_trip() {
        for code in ErrorCode::ALL {
            let error = Error::new(code, "why").with_path("a b").with_count(3);
            let status = to_status(&error);
            assert_eq!(status.message(), "'a b': why");
            let back = from_status(status);
            assert_eq!((back.code(), back.message()), (code, "why"));
            assert_eq!((back.path(), back.count()), (Some("a b"), Some(3)));
        }
    }

    #[test]
    fn a_plain_status_is_understood() {
        let error = from_status(Status::not_found("no such thing"));
        assert_eq!(
            (error.code(), error.message()),
            (ErrorCode::NotFound, "no such thing")
        );
    }

    #[test]
    fn a_broken_connection_is_unavailable() {
        let broken = Status::from_error(Box::new(std::io::Error::from(
            std::io::ErrorKind::BrokenPipe,
        )));
        assert_eq!(from_status(broken).code(), ErrorCode::Unavailable);
    }

    #[test]
    fn a_long_message_stays_a_header() {
        let error = Error::new(ErrorCode::Internal, "ż".repeat(5000)).with_path("x".repeat(4095));
        assert!(to_status(&error).message().len() <= MAX_MESSAGE_BYTES);
    }
}
