//! The exit code of every way in which the command line ends.
//!
//! | command | its own end | a failure | a usage error |
//! | --- | --- | --- | --- |
//! | `exec`, `sandbox exec`, `sandbox shell` | the command's; 124 timed out, 126, 127, 128 + signal | 125 | 125 |
//! | `sandbox grep` | 0, or 1 if nothing matched | 2 | 2 |
//! | the others | 0 | 1 | 2 |
//!
//! Whatever the command: 128 + n when signal n ended it, and 141 when nobody
//! reads its output any more, as for a tool that SIGPIPE ended.

use stigmer_sdk::{ErrorCode, ExitStatus};

/// Whose habits the exit code follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Of a program that runs another.
    Exec,
    /// Of `grep`.
    Grep,
    /// Of everything else.
    Plain,
}

/// How a run ended without a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// With the command that it ran.
    Command(ExitStatus),
    /// A search found nothing.
    NoMatch,
    /// A report was printed, and it is bad.
    Unfit,
}

/// Why a run failed, as far as the exit code is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// What was typed, set or configured makes no sense.
    Usage,
    Failed,
    /// A signal with this number asked for it.
    Interrupted(i32),
    /// Nobody reads stdout.
    BrokenPipe,
}

impl Habit {
    pub(super) fn of_outcome(self, outcome: &Outcome) -> u8 {
        match outcome {
            Outcome::Success => 0,
            Outcome::Command(status) => status.exit_code(),
            Outcome::NoMatch | Outcome::Unfit => 1,
        }
    }

    pub(super) fn of_failure(self, reason: Reason) -> u8 {
        match (reason, self) {
            (Reason::Interrupted(signal), _) => ExitStatus::Signal(signal).exit_code(),
            (Reason::BrokenPipe, _) => 141,
            (Reason::Usage | Reason::Failed, Self::Exec) => 125,
            (Reason::Usage | Reason::Failed, Self::Grep) => 2,
            (Reason::Usage, Self::Plain) => 2,
            (Reason::Failed, Self::Plain) => 1,
        }
    }
}

impl Reason {
    /// Only what can be seen from the words alone is a usage error: a file that
    /// is missing is the sandbox's state, and a failure.
    pub(super) fn of_error(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidArgument | ErrorCode::InvalidPath | ErrorCode::InvalidPattern => {
                Self::Usage
            }
            ErrorCode::NoSandbox
            | ErrorCode::NotFound
            | ErrorCode::AlreadyExists
            | ErrorCode::PermissionDenied
            | ErrorCode::Unauthenticated
            | ErrorCode::IsDirectory
            | ErrorCode::NotADirectory
            | ErrorCode::NotAFile
            | ErrorCode::TooLarge
            | ErrorCode::Conflict
            | ErrorCode::Unsupported
            | ErrorCode::Exhausted
            | ErrorCode::Unavailable
            | ErrorCode::Internal
            | ErrorCode::Cancelled
            | ErrorCode::TimedOut
            | ErrorCode::NotText
            | ErrorCode::OutOfRange
            | ErrorCode::NoMatch
            | ErrorCode::MultipleMatches => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_passes_codes_through_and_keeps_125_for_itself() {
        #[track_caller]
        fn check(outcome: Outcome, code: u8) {
            assert_eq!(Habit::Exec.of_outcome(&outcome), code);
        }
        check(Outcome::Command(ExitStatus::Code(0)), 0);
        check(Outcome::Command(ExitStatus::Code(42)), 42);
        check(Outcome::Command(ExitStatus::NO_SUCH_PROGRAM), 127);
        check(Outcome::Command(ExitStatus::NOT_EXECUTABLE), 126);
        check(Outcome::Command(ExitStatus::TimedOut), 124);
        check(Outcome::Command(ExitStatus::Signal(9)), 137);
    }

    #[test]
    fn failures_keep_each_tools_habit() {
        #[track_caller]
        fn check(reason: Reason, exec: u8, grep: u8, plain: u8) {
            let codes =
                [Habit::Exec, Habit::Grep, Habit::Plain].map(|habit| habit.of_failure(reason));
            assert_eq!(codes, [exec, grep, plain]);
        }
        check(Reason::Usage, 125, 2, 2);
        check(Reason::Failed, 125, 2, 1);
        check(Reason::Interrupted(2), 130, 130, 130);
        check(Reason::BrokenPipe, 141, 141, 141);
    }
}
