//! When a runner that ended is started again, and when no more.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause; each one after it is twice as long.
const FIRST: Duration = Duration::from_millis(200);
/// And at most.
const LONGEST: Duration = Duration::from_secs(10);
/// What lived for so long was no failed start: pauses begin anew.
const STABLE: Duration = Duration::from_secs(60);
/// Ends within the last [`STABLE`] after which it stays down.
const BUDGET: usize = 5;

/// What was seen of a runner's ends.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Those of the last [`STABLE`].
    ends: Vec<Instant>,
    /// Pauses since the last run that was long.
    pauses: u32,
}

impl Backoff {
    /// How long to wait, now that a run ended that had begun then. `None`: the
    /// budget is used up.
    pub(super) fn ended(&mut self, began: Instant, now: Instant) -> Option<Duration> {
        if now - began > STABLE {
            *self = Self::default();
        }
        self.ends.retain(|end| now - *end < STABLE);
        self.ends.push(now);
        if self.ends.len() >= BUDGET {
            return None;
        }
        let pause = FIRST.saturating_mul(1 << self.pauses.min(10)).min(LONGEST);
        self.pauses += 1;
        Some(pause)
    }
}

/// Up to a quarter less or more, so that what failed together is not tried
/// together. `random` is any byte.
pub(super) fn jittered(pause: Duration, random: u8) -> Duration {
    pause.mul_f64(0.75 + f64::from(random) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_the_budget_is_used_up() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.ended(now, now) {
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [200, 400, 800, 1600]);
    }

    #[test]
    fn what_ends_now_and_then_is_always_started_again() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            let began = now;
            now += Duration::from_secs(16);
            let pause = backoff.ended(began, now).unwrap();
            longest = longest.max(pause);
            now += pause;
        }
        assert_eq!(longest, LONGEST);
    }

    #[test]
    fn a_long_run_makes_up_for_what_was_before() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        for _ in 0..BUDGET - 1 {
            backoff.ended(now, now).unwrap();
        }
        let began = now;
        now += STABLE + Duration::from_secs(1);
        assert_eq!(backoff.ended(began, now), Some(FIRST));
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        let pause = Duration::from_secs(4);
        assert_eq!(jittered(pause, 0), Duration::from_secs(3));
        assert_eq!(jittered(pause, 255), Duration::from_secs(5));
    }
}
