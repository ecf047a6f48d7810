//! What all threads of a search share: how much it may find, and until when.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, ErrorCode, Result, Truncation};

/// Bytes of text that a search holds at most, whatever it was asked for. Past
/// it there is [`Truncation::Results`].
const MAX_TEXT: usize = 64 * 1024 * 1024;

/// The bounds of one search, and why it ended.
///
/// The counters order nothing but themselves, so that relaxed access will do;
/// the results travel back when the threads are joined.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    max_results: u64,
    results: AtomicU64,
    text: AtomicUsize,
    /// `None` for one that the clock cannot express.
    deadline: Option<Instant>,
    /// Set by whoever asked, once nobody waits for the answer.
    cancelled: &'a AtomicBool,
    stopped: AtomicBool,
    full: AtomicBool,
    late: AtomicBool,
    unreadable: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl<'a> Budget<'a> {
    pub(super) fn new(
        max_results: NonZeroU32,
        max_time: Duration,
        cancelled: &'a AtomicBool,
    ) -> Self {
        Self {
            max_results: u64::from(max_results.get()),
            results: AtomicU64::new(0),
            text: AtomicUsize::new(0),
            deadline: Instant::now().checked_add(max_time),
            cancelled,
            stopped: AtomicBool::new(false),
            full: AtomicBool::new(false),
            late: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    /// Whether to go on. Cheap enough to ask for every file.
    pub(super) fn lasts(&self) -> bool {
        if self.is_stopped() || self.cancelled.load(Ordering::Relaxed) {
            return false;
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            self.late.store(true, Ordering::Relaxed);
            self.stop();
            return false;
        }
        true
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Asks to add a result. The first that is refused ends the search, so that
    /// to find exactly as many as were asked for is no truncation.
    pub(super) fn take(&self) -> bool {
        let taken = self.results.fetch_add(1, Ordering::Relaxed) < self.max_results;
        if !taken {
            self.overflow();
        }
        taken
    }

    /// Asks to hold this much text until the end.
    pub(super) fn hold(&self, text: &str) -> bool {
        let bytes = text.len() + size_of::<String>();
        let held = self.text.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_TEXT;
        if !held {
            self.overflow();
        }
        held
    }

    fn overflow(&self) {
        self.full.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Something below the root is left out.
    pub(super) fn miss(&self) {
        self.unreadable.store(true, Ordering::Relaxed);
    }

    /// Judges an error that came up below the root.
    pub(super) fn judge(&self, error: Error) {
        match error.code() {
            // Removed or replaced since it was listed.
            ErrorCode::NotFound
            | ErrorCode::NotADirectory
            | ErrorCode::IsDirectory
            | ErrorCode::NotAFile => {}
            ErrorCode::PermissionDenied
            | ErrorCode::InvalidPath
            | ErrorCode::TooLarge
            | ErrorCode::Internal => self.miss(),
            ErrorCode::NoSandbox
            | ErrorCode::AlreadyExists
            | ErrorCode::Unauthenticated
            | ErrorCode::InvalidArgument
            | ErrorCode::InvalidPattern
            | ErrorCode::Conflict
            | ErrorCode::Unsupported
            | ErrorCode::Exhausted
            | ErrorCode::Unavailable
            | ErrorCode::Cancelled
            | ErrorCode::TimedOut
            | ErrorCode::NotText
            | ErrorCode::OutOfRange
            | ErrorCode::NoMatch
            | ErrorCode::MultipleMatches => {
                self.stop();
                let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
            }
        }
    }

    /// Judges an error that came out of a file.
    pub(super) fn judge_io(&self, error: &std::io::Error) {
        // A reader that was told to stop says so with an error, too.
        if self.is_stopped() {
            return;
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => self.judge(Error::clone(error)),
            None => self.miss(),
        }
    }

    /// Why there is not more, after the end.
    pub(super) fn verdict(self) -> Result<Option<Truncation>> {
        let error = self.error.into_inner();
        if let Some(error) = error.unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let reasons = [
            (self.full, Truncation::Results),
            (self.late, Truncation::Time),
            (self.unreadable, Truncation::Unreadable),
        ];
        let reason = reasons
            .into_iter()
            .find(|(set, _)| set.load(Ordering::Relaxed));
        Ok(reason.map(|(_, reason)| reason))
    }
}
