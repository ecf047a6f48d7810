//! What happens to sandboxes while nobody asks: their use is written down, and
//! those that have expired are destroyed.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use stigmer_sdk::Result;

use super::Manager;
use super::store::Record;

/// Use is written down this often, and not at each operation: a commit would
/// cost more than most operations do. What a crash loses is this much of idle
/// time.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How late an expired sandbox is destroyed, at most, in units of the above.
const REAP_EVERY: u32 = 5;
/// How long a sandbox that is gone is still listed as such.
const REMEMBER_GONE_MS: u64 = 24 * 60 * 60 * 1000;

/// What is to be done about a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Destroy(&'static str),
    Forget,
}

impl Manager {
    /// Keeps house for as long as it is polled. [`flush`](Self::flush) is
    /// still to be called after it was dropped.
    pub async fn upkeep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(FLUSH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for tick in 1_u32.. {
            ticks.tick().await;
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "cannot write down which sandboxes were used");
            }
            if tick.is_multiple_of(REAP_EVERY)
                && let Err(error) = self.reap().await
            {
                tracing::warn!(%error, "cannot look for sandboxes that have expired");
            }
        }
    }

    /// Writes down what was used since the last time.
    pub async fn flush(&self) -> Result<()> {
        let used: Vec<_> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.by_id
                .iter()
                .filter_map(|(id, handle)| Some((id.clone(), handle.usage.take_dirty()?)))
                .collect()
        };
        if used.is_empty() {
            Ok(())
        } else {
            self.store.touch(used).await
        }
    }

    async fn reap(self: &Arc<Self>) -> Result<()> {
        for record in self.store.expiring().await? {
            let handle = self.opened(&record.id);
            let (used_ms, running) = handle.map_or((0, 0), |handle| {
                (handle.usage.used_ms(), handle.usage.running())
            });
            let used_ms = used_ms.max(record.used_ms).max(self.started_ms);
            let outcome = match fate(&record, self.now_ms(), used_ms, running) {
                Fate::Keep => continue,
                Fate::Forget => self.store.delete(&record.id).await,
                Fate::Destroy(why) => {
                    tracing::info!(
                        sandbox = record.id,
                        why,
                        "destroying a sandbox that has expired"
                    );
                    self.destroy(&record.id).await
                }
            };
            if let Err(error) = outcome {
                // It is tried again the next time.
                tracing::warn!(%error, sandbox = record.id, "cannot destroy a sandbox that has expired");
            }
        }
        Ok(())
    }
}

/// Ages are never negative: what lies in the future was just now.
fn fate(record: &Record, now_ms: u64, used_ms: u64, running: u32) -> Fate {
    let since = |then: u64| now_ms.saturating_sub(then);
    if let Some(gone_ms) = record.gone_ms {
        let forgotten = since(gone_ms) >= REMEMBER_GONE_MS;
        return if forgotten { Fate::Forget } else { Fate::Keep };
    }
    if record
        .lifetime_ms
        .is_some_and(|lifetime| since(record.created_ms) >= lifetime)
    {
        return Fate::Destroy("lifetime");
    }
    if running == 0 && record.idle_ms.is_some_and(|idle| since(used_ms) >= idle) {
        return Fate::Destroy("idle");
    }
    Fate::Keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandboxes::Clock;

    #[test]
    fn sandboxes_expire_by_lifetime_and_by_idle_time() {
        #[track_caller]
        fn check(
            lifetime_ms: Option<u64>,
            idle_ms: Option<u64>,
            gone_ms: Option<u64>,
            now_ms: u64,
            running: u32,
            expected: Fate,
        ) {
            let record = Record {
                id: "fs:a".to_owned(),
                backend: "fs".to_owned(),
                name: None,
                workspace: "/".to_owned(),
                shell: Vec::new(),
                labels: Default::default(),
                created_ms: 1000,
                used_ms: 1500,
                lifetime_ms,
                idle_ms,
                gone_ms,
            };
            let clock = Clock::manual(0);
            clock.set(now_ms);
            assert_eq!(
                fate(&record, clock.now_ms(), record.used_ms, running),
                expected
            );
        }
        check(None, None, None, u64::MAX, 0, Fate::Keep);
        check(Some(1000), None, None, 1999, 0, Fate::Keep);
        check(Some(1000), None, None, 2000, 0, Fate::Destroy("lifetime"));
        // A running command does not outlive its sandbox's lifetime.
        check(Some(1000), None, None, 2000, 1, Fate::Destroy("lifetime"));
        check(None, Some(1000), None, 2499, 0, Fate::Keep);
        check(None, Some(1000), None, 2500, 0, Fate::Destroy("idle"));
        check(None, Some(1000), None, 2500, 1, Fate::Keep);
        // The clock was set back over a restart.
        check(Some(1000), Some(1000), None, 0, 0, Fate::Keep);
        check(Some(1), Some(1), Some(1000), 2000, 0, Fate::Keep);
        check(
            None,
            None,
            Some(1000),
            1000 + REMEMBER_GONE_MS,
            0,
            Fate::Forget,
        );
    }
}
