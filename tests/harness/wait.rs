//! Waiting, and not running.

use std::time::{Duration, Instant};

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within `limit`, with `what` was waited for.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        // The interval of a poll, and not a guess at how long something takes.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that a part of a test did not run, and why.
pub fn skip(part: &str, reason: &str) {
    note(&format!("skipped: {part}: {reason}"));
}

/// Says something that is no failure.
#[expect(
    clippy::print_stderr,
    reason = "cargo shows it to whoever asks, and when the test fails"
)]
pub fn note(text: &str) {
    eprintln!("{text}");
}
