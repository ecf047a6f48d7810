//! The contract between Stigmer's host and the things it runs commands in.
//!
//! A *backend* provides sandboxes; a *sandbox* is one live environment with a
//! workspace, known by its id. Both are traits here, and everything else is
//! the vocabulary they need: values that cannot be invalid, so that a backend
//! checks nothing twice.
//!
//! The crate does no I/O and names no async runtime. What it leaves to the
//! host is as much part of the contract as what it asks for: deadlines, output
//! caps, cancellation policy, allow and deny rules and audit are the host's. A
//! backend sees signals and dropped streams.
//!
//! | feature | adds |
//! | --- | --- |
//! | `wire` | the contract as protobuf messages, and conversions both ways |
//! | `search` | the matching and walking that every search shares |
//! | `conformance` | the suite that judges a backend |
#![warn(missing_docs)]

mod backend;
mod command;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod file;
mod path;
#[cfg(feature = "search")]
pub mod search;
mod spec;
#[cfg(feature = "wire")]
pub mod wire;

pub use async_trait::async_trait;
pub use backend::{
    Backend, ByteStream, Description, EntryStream, EventStream, Feature, InputStream, Isolation,
    Sandbox, Search, Snapshots,
};
pub use bytes::Bytes;
pub use command::{Command, EnvName, EnvValue, Event, ExitStatus, Input, Signal, Terminal};
pub use error::{Error, ErrorCode, Result};
pub use file::{
    ByteRange, DirEntry, FileKind, Metadata, Permissions, Stat, Version, WriteMode, WriteOptions,
};
pub use path::SandboxPath;
pub use spec::{
    GlobQuery, GlobResults, GrepQuery, GrepResults, Limits, Match, Network, SandboxId, SandboxInfo,
    SandboxSpec, SnapshotId, Truncation,
};
