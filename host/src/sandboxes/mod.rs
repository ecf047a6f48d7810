//! Which sandboxes this data directory knows, and when they expire.
//!
//! ```text
//!              create, attach
//!   (unknown) ───────────────▶ known ──first use──▶ open
//!                                │  ▲                │ │
//!                      destroy,  │  └── restart ─────┘ │ the backend says NoSandbox
//!                      expiry    ▼                     ▼
//!                            (unknown) ◀──a day── gone
//! ```
//!
//! The [`Manager`] owns all of it: the [store](store) on disk, one [`Handle`]
//! for each sandbox that is open, and the upkeep that writes down use and
//! destroys what has expired. A sandbox that is known and not open costs
//! nothing but its row; nothing is attached at start.

mod clock;
mod facade;
#[cfg(test)]
pub(crate) mod fake;
mod lifecycle;
mod manager;
pub mod store;
mod tracked;
mod upkeep;

use std::sync::Arc;

use stigmer_sdk::{Isolation, Sandbox, SandboxInfo, SandboxSpec};

pub use clock::Clock;
pub use facade::Facade;
pub use manager::Manager;
use store::Record;
use tracked::Usage;

use crate::guard::GuardedSandbox;
use crate::processes::Processes;

/// Everything that a request for a new sandbox may say.
#[derive(Debug, Default)]
pub struct Create {
    pub backend: Option<String>,
    pub spec: SandboxSpec,
    pub name: Option<String>,
    /// The host's id of a snapshot.
    pub snapshot: Option<String>,
}

/// Whether a sandbox can be used, as far as the daemon knows without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Its backend did not answer the last time.
    Unreachable,
    /// Its backend said that it is no more.
    Gone,
}

/// What the daemon knows of a sandbox.
#[derive(Clone, Debug)]
pub struct Known {
    pub record: Record,
    pub state: State,
    pub isolation: Option<Isolation>,
    pub notice: String,
}

impl Known {
    /// When its lifetime ends, or its idle time if it stays unused.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        let lifetime = self
            .record
            .lifetime_ms
            .map(|ms| self.record.created_ms.saturating_add(ms));
        let idle = self
            .record
            .idle_ms
            .map(|ms| self.record.used_ms.saturating_add(ms));
        lifetime.into_iter().chain(idle).min()
    }
}

/// A sandbox that is open.
#[derive(Debug)]
pub struct Handle {
    /// Under the host's policy.
    pub sandbox: Arc<GuardedSandbox>,
    /// With the host's id.
    pub info: SandboxInfo,
    pub processes: Processes,
    name: Option<String>,
    backend: String,
    usage: Arc<Usage>,
}

impl Handle {
    /// The sandbox as the contract sees it.
    #[must_use]
    pub fn as_dyn(&self) -> Arc<dyn Sandbox> {
        self.sandbox.as_dyn()
    }
}

/// How many there are of what, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub known: u64,
    pub open: u64,
    pub running: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_two_ends_expires() {
        #[track_caller]
        fn check(lifetime_ms: Option<u64>, idle_ms: Option<u64>, expires: Option<u64>) {
            let record = Record {
                id: "fs:a".to_owned(),
                backend: "fs".to_owned(),
                name: None,
                workspace: "/".to_owned(),
                shell: Vec::new(),
                labels: Default::default(),
                created_ms: 100,
                used_ms: 150,
                lifetime_ms,
                idle_ms,
                gone_ms: None,
            };
            let known = Known {
                record,
                state: State::Ready,
                isolation: None,
                notice: String::new(),
            };
            assert_eq!(known.expires_ms(), expires);
        }
        check(None, None, None);
        check(Some(100), None, Some(200));
        check(None, Some(10), Some(160));
        check(Some(100), Some(10), Some(160));
        check(Some(20), Some(10), Some(120));
        check(Some(u64::MAX), None, Some(u64::MAX));
    }
}
