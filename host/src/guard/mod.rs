//! Policy: the one decorator around every sandbox.
//!
//! A backend knows no deadline, keeps no log and refuses nothing. This adds,
//! once and for all of them:
//! - a deadline for every operation; for a stream, of time without progress;
//! - the end of a command: SIGTERM, a grace period, SIGKILL, at its deadline,
//!   when its caller has gone, and when the daemon stops (`command`);
//! - which environment variables a caller may set;
//! - one line of audit for each operation, target `stigmer::audit`.
//!
//! An operation that the host builds from others, such as a search over `list`
//! and `read`, is one operation here: it runs on the sandbox underneath.
//!
//! Who owns what: a [`GuardedSandbox`] holds the sandbox under it and its
//! [`Guard`]; the daemon holds the guard, whose [`tasks`](Guard::tasks) own
//! what outlives a caller, and ends them through [`Guard::shut_down`].

mod audit;
mod command;
mod sandbox;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use stigmer_sdk::{EnvName, Error, ErrorCode, Result, Sandbox};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::audit::{Audit, Outcome, Subject};
use crate::config::{Config, Limits};

pub use command::Timeout;
pub use sandbox::GuardedSandbox;

/// How long a command may survive SIGKILL before it is given up: for a process
/// in uninterruptible sleep, or a backend that is out of reach.
pub const KILL_WAIT: Duration = Duration::from_secs(5);

/// What every command has from Stigmer itself, and no caller may change.
const RESERVED: &str = "STIGMER_SANDBOX_ID";

/// The policy of one host.
#[derive(Debug)]
pub struct Guard {
    /// Every limit and timeout.
    pub limits: Limits,
    /// Owns what outlives its caller: a command that is being ended.
    pub tasks: TaskTracker,
    /// Cancelled when the host stops; every running command hears it.
    stop: CancellationToken,
    /// Names, or beginnings that end in `*`.
    deny_env: Vec<String>,
}

impl Guard {
    /// A policy of limits alone.
    pub fn new(limits: Limits, tasks: TaskTracker) -> Arc<Self> {
        Self::with(limits, Vec::new(), tasks)
    }

    /// The whole policy that is configured.
    pub fn from_config(config: &Config, tasks: TaskTracker) -> Arc<Self> {
        Self::with(config.limits.clone(), config.deny_env.clone(), tasks)
    }

    fn with(limits: Limits, deny_env: Vec<String>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            limits,
            tasks,
            stop: CancellationToken::new(),
            deny_env,
        })
    }

    /// Puts a sandbox under this policy. `name` is what the audit log calls it
    /// (the host's id).
    pub fn sandbox(self: &Arc<Self>, name: &str, sandbox: Arc<dyn Sandbox>) -> Arc<GuardedSandbox> {
        Arc::new(GuardedSandbox::new(Arc::clone(self), name, sandbox))
    }

    /// Refuses variables that no caller may set, for a command or a sandbox.
    ///
    /// # Errors
    /// `PermissionDenied` for the first of them.
    pub fn check_env<'a>(&self, names: impl IntoIterator<Item = &'a EnvName>) -> Result<()> {
        for name in names {
            let name = name.as_str();
            if name == RESERVED {
                return Err(Error::new(
                    ErrorCode::PermissionDenied,
                    format!("{name} is set by Stigmer itself"),
                ));
            }
            if let Some(pattern) = self.deny_env.iter().find(|pattern| denies(pattern, name)) {
                return Err(Error::new(
                    ErrorCode::PermissionDenied,
                    format!(
                        "{} may not be set: STIGMER_DENY_ENV has '{pattern}'",
                        name.escape_debug()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Writes the line of audit for the creation of a sandbox, which no guarded
    /// sandbox can write. `name` is what its creator calls it, perhaps nothing,
    /// and `id` what it is called from then on.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn audited_create<T>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T>>,
        id: impl FnOnce(&T) -> &str,
    ) -> Result<T> {
        let mut audit = Audit::start(name, "create", Subject::Sandbox);
        let result = work.instrument(audit.span()).await;
        match &result {
            Ok(created) => {
                audit.subject = Subject::Created(id(created).to_owned());
                audit.end(&Outcome::Ok);
            }
            Err(error) => audit.end(&Outcome::Error(error.code())),
        }
        result
    }

    /// Ends every running command as its deadline would, but with its own exit
    /// as the answer, and waits until all of them, and those whose callers had
    /// gone before, are over. Bounded by the grace period and [`KILL_WAIT`] for
    /// each. Whoever takes the events of a command must go on doing so
    /// meanwhile. Commands that start later are ended at once.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What [`Self::shut_down`] begins with, alone: for a daemon that answers
    /// its open calls before it waits.
    pub fn end_commands(&self) {
        self.stop.cancel();
    }
}

fn denies(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_may_set_what_is_not_denied() {
        let guard = Guard::with(
            Limits::default(),
            vec!["LD_*".to_owned(), "BASH_ENV".to_owned()],
            TaskTracker::new(),
        );
        let check = |name: &str, expected: Option<&str>| {
            let message = guard
                .check_env(&[EnvName::new(name).unwrap()])
                .err()
                .map(|error| error.to_string());
            assert_eq!(message.as_deref(), expected, "{name}");
        };
        check("PATH", None);
        check("BASH_ENV2", None);
        check("MY_LD_PRELOAD", None);
        check(
            "STIGMER_SANDBOX_ID",
            Some("STIGMER_SANDBOX_ID is set by Stigmer itself"),
        );
        check(
            "LD_PRELOAD",
            Some("LD_PRELOAD may not be set: STIGMER_DENY_ENV has 'LD_*'"),
        );
        check(
            "BASH_ENV",
            Some("BASH_ENV may not be set: STIGMER_DENY_ENV has 'BASH_ENV'"),
        );
    }
}
