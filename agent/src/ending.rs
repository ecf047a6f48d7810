//! Why work on an execution is to stop before it is done.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Somebody asked for it, for this reason; it may be empty.
    Cancelled(String),
    /// It ran for as long as it may.
    TimedOut(Duration),
    /// This runner was told to stop.
    Stopped,
    /// The lease is worth nothing any more: somebody else may be at work, and
    /// whatever is reported is refused.
    Lost,
}

/// Shared by all who work on an execution, and by those who may end it.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    token: CancellationToken,
    /// A std mutex, because nothing awaits while it is held.
    why: Mutex<Option<Why>>,
}

impl Ending {
    /// Ends the work. The first reason counts, except that a lost lease is the
    /// last word.
    pub(crate) fn end(&self, why: Why) {
        {
            let mut held = self.why.lock().unwrap_or_else(PoisonError::into_inner);
            if held.is_none() || why == Why::Lost {
                *held = Some(why);
            }
        }
        self.token.cancel();
    }

    /// The reason, if there is one.
    pub(crate) fn why(&self) -> Option<Why> {
        let held = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    /// Waits for one.
    pub(crate) async fn ended(&self) {
        self.token.cancelled().await;
    }

    /// Cancelled when there is one.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts_unless_the_lease_is_lost() {
        let ending = Ending::default();
        assert_eq!(ending.why(), None);
        ending.end(Why::Stopped);
        ending.end(Why::Cancelled(String::new()));
        assert_eq!(ending.why(), Some(Why::Stopped));
        ending.end(Why::Lost);
        ending.end(Why::Stopped);
        assert_eq!(ending.why(), Some(Why::Lost));
        assert!(ending.token().is_cancelled());
    }
}
