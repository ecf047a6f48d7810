//! What the daemon says of itself when it is asked how it is, beside its
//! configuration and what it keeps account of.

use tokio::sync::watch;

use super::Listening;
use crate::local::supervisor::Status;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// In milliseconds of the Unix epoch.
    pub(crate) started_ms: u64,
    pub(crate) listening: Listening,
    /// Of the runner that the daemon supervises, if it does.
    pub(crate) runner: Option<watch::Receiver<Status>>,
}
