//! What time it is, for deadlines that people set in hours.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 that only ever go forward, at the pace of real time.
///
/// The wall clock is read once, when the daemon starts; from then on the time
/// since boot is added, which counts a suspended machine's sleep. A wall clock
/// that is set while the daemon runs, in either direction, therefore expires
/// nothing. Across a restart it is all there is:
///
/// - After a step back, what was created "in the future" has an age of zero.
/// - After a step forward, a lifetime that has passed by the new clock has
///   passed. Idle time is spared: it counts from the daemon's start at the
///   earliest, because nobody could use a sandbox while there was no daemon.
#[derive(Debug)]
pub struct Clock(Source);

#[derive(Debug)]
enum Source {
    /// What to add to the time since boot.
    SinceBoot { offset_ms: u64 },
    #[cfg(test)]
    Manual(std::sync::atomic::AtomicU64),
}

impl Clock {
    /// The machine's.
    #[must_use]
    pub fn system() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            });
        Self(Source::SinceBoot {
            offset_ms: wall.saturating_sub(boot_ms()),
        })
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Source::SinceBoot { offset_ms } => offset_ms.saturating_add(boot_ms()),
            #[cfg(test)]
            Source::Manual(now) => now.load(std::sync::atomic::Ordering::Relaxed),
        }
    }

    #[cfg(test)]
    pub(super) fn manual(now_ms: u64) -> Self {
        Self(Source::Manual(now_ms.into()))
    }

    #[cfg(test)]
    pub(super) fn set(&self, now_ms: u64) {
        match &self.0 {
            Source::Manual(now) => now.store(now_ms, std::sync::atomic::Ordering::Relaxed),
            Source::SinceBoot { .. } => panic!("the machine's clock is not ours to set"),
        }
    }
}

fn boot_ms() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    let millis = now
        .tv_sec
        .saturating_mul(1000)
        .saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clock_is_this_century() {
        let clock = Clock::system();
        let now = clock.now_ms();
        assert!(now > 1_600_000_000_000, "{now}");
        assert!(clock.now_ms() >= now);
    }
}
