//! The daemon's log: `tracing` on stderr, as text for people or as JSON.

use std::io::IsTerminal as _;

use stigmer_sdk::{Error, ErrorCode, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, LogFormat};

/// Sends everything that is logged from now on to stderr.
///
/// # Errors
/// `InvalidArgument` if the level is not one, or a log was set up before.
pub fn init(config: &Config) -> Result<()> {
    let filter = EnvFilter::builder()
        .parse(&config.log_level)
        .map_err(|error| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "'{}' is neither a log level nor a filter",
                    config.log_level.escape_debug()
                ),
            )
            .with_source(error)
        })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match config.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    installed.map_err(|error| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("cannot set up the log: {error}"),
        )
    })
}
