//! The contract as protobuf messages (`proto/stigmer`), and conversions
//! between them and the crate's own types.
//!
//! Wire types stay at the wire: what comes in is converted, and so checked,
//! before anything else sees it. `TryFrom` is the way in, and its error names
//! the field; `From` is the way out, and cannot fail. Nothing here knows a
//! transport: a gRPC status is its number.

mod backend;
mod command;
mod error;
mod file;
mod search;

pub use error::{
    GRPC_ERROR_TRAILER, code_of_grpc_status, decode_error, encode_error, error_of_status,
    grpc_status,
};
pub use search::{glob_request, glob_responses, grep_request, grep_responses};
/// The messages of `stigmer.agent.v1`: sessions, executions, and their runners.
pub use stigmer::agent::v1 as agent;
/// The messages of `stigmer.host.v1`: what the daemon offers its clients.
pub use stigmer::host::v1 as host;
/// The messages of `stigmer.sandbox.v1`: the backend contract.
pub use stigmer::sandbox::v1 as sandbox;

use crate::{Error, ErrorCode, Result, SandboxId, SandboxPath};

/// Everything generated, under its protobuf package.
#[expect(
    missing_docs,
    clippy::all,
    reason = "generated; documented in the proto files"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}

pub use generated::stigmer;

/// The error for a field that holds what it must not.
pub fn invalid(field: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("{field}: {problem}"))
}

/// A field that must be there.
///
/// # Errors
/// [`ErrorCode::InvalidArgument`] if it is not.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| invalid(field, "is missing"))
}

/// Adds the field's name to the error of the type that it was to become.
fn at(field: &str) -> impl FnOnce(Error) -> Error {
    let field = field.to_owned();
    move |error| {
        let named = Error::new(error.code(), format!("{field}: {}", error.message()));
        match error.path() {
            Some(path) => named.with_path(path),
            None => named,
        }
    }
}

/// The value of an enum field, which travels as a number.
fn named<E: TryFrom<i32>>(field: &str, number: i32) -> Result<E> {
    E::try_from(number)
        .map_err(|_| invalid(field, format_args!("{number} is not one of its values")))
}

/// A field that names a sandbox.
///
/// # Errors
/// [`ErrorCode::InvalidArgument`] as for [`SandboxId`].
pub fn sandbox_id(field: &str, id: impl Into<String>) -> Result<SandboxId> {
    SandboxId::new(id).map_err(at(field))
}

/// A field that names a file or a directory.
///
/// # Errors
/// [`ErrorCode::InvalidPath`] as for [`SandboxPath`].
pub fn path(field: &str, path: impl Into<String>) -> Result<SandboxPath> {
    SandboxPath::new(path).map_err(at(field))
}
