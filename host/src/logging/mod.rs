//! Where the log of a process goes: to stderr, as text for people or as JSON,
//! or, for a daemon in the background, to a file that does not grow forever.
//!
//! | module | owns |
//! | --- | --- |
//! | `file` | lines in a file, and those before them in older files |

mod file;

use std::io::IsTerminal as _;

use stigmer_sdk::{Error, ErrorCode, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, LogFormat};
pub use file::LogFile;
pub(crate) use file::timestamp;

/// Sends everything that is logged from now on to `file`, as JSON; without
/// one, to stderr. A panic is logged too.
///
/// # Errors
/// `InvalidArgument` if the level is not one, or a log was set up before.
pub fn init(config: &Config, file: Option<LogFile>) -> Result<()> {
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
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let stderr = std::io::stderr;
    let installed = match (file, config.log_format) {
        (Some(file), _) => builder
            .json()
            .flatten_event(true)
            .with_writer(move || file.clone())
            .finish()
            .try_init(),
        (None, LogFormat::Text) => builder
            .with_ansi(stderr().is_terminal())
            .with_writer(stderr)
            .finish()
            .try_init(),
        (None, LogFormat::Json) => builder
            .json()
            .flatten_event(true)
            .with_writer(stderr)
            .finish()
            .try_init(),
    };
    installed.map_err(|error| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("cannot set up the log: {error}"),
        )
    })?;
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// What is said and where, and nothing of what was in memory. A payload that
/// is no text is not shown.
fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("(no message)");
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        location = location.as_deref().unwrap_or_default(),
        thread = thread.name().unwrap_or_default(),
        "panicked: {message}"
    );
}
