//! Background processes and the output kept of them.
//!
//! ```text
//! start ─▶ running ──exit──▶ ended ──100 later ones ended──▶ forgotten
//! ```
//!
//! The handle on a sandbox owns its [`Processes`]; a task owned by the guard
//! follows each of them, so that output is taken whether or not anybody is
//! attached. Clients read the [ring](ring) at their own pace. A process ends
//! with its sandbox, because the backend ends all commands, and with the
//! daemon, because the guard does.

mod process;
mod ring;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stigmer_sdk::wire::host;
use stigmer_sdk::{Command, Error, ErrorCode, ExitStatus, Result};

pub use process::Process;
pub use ring::Piece;

use crate::guard::{Guard, GuardedSandbox, Timeout};
use crate::ops::output::{self, Capture, Captured};

/// Ended processes that a sandbox remembers.
const REMEMBERED: usize = 100;
/// Running ones that it may have at a time: each costs a task and its output.
const MAX_RUNNING: usize = 1000;
/// The most output that may be kept of one.
pub const MAX_KEEP_BYTES: u64 = 256 * 1024 * 1024;

/// What to start.
#[derive(Debug)]
pub struct Start {
    pub command: Command,
    pub timeout: Timeout,
    /// For people.
    pub name: String,
    /// As it was asked for, to be shown again.
    pub run: host::Run,
    pub keep_bytes: u64,
    pub capture: Option<Capture>,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub duration: Duration,
    /// Where its output was captured, or why it was not.
    pub captured: Option<Result<Captured>>,
}

/// What an attached client sees.
#[derive(Clone, Debug)]
pub enum Follow {
    Output(Piece),
    Exit(Ended),
}

/// The background processes of one sandbox, in the order they were started.
#[derive(Debug, Default)]
pub struct Processes(Mutex<VecDeque<Arc<Process>>>);

impl Processes {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Process>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process that nobody has to wait for.
    ///
    /// # Errors
    /// As for running a command, and `Exhausted` if too many run already.
    pub async fn start(
        &self,
        guard: &Guard,
        sandbox: &Arc<GuardedSandbox>,
        start: Start,
        now_ms: u64,
    ) -> Result<Arc<Process>> {
        let running = self
            .lock()
            .iter()
            .filter(|process| process.ended().is_none())
            .count();
        if running >= MAX_RUNNING {
            return Err(Error::new(
                ErrorCode::Exhausted,
                format!(
                    "this sandbox has {running} background processes, which is the most it may have"
                ),
            ));
        }
        let connected = start.command.connects_stdin();
        let (process, input) =
            Process::new(start.name, start.run, now_ms, start.keep_bytes, connected)?;
        let events = sandbox.run(start.command, input, start.timeout).await?;
        let (events, captured) = match start.capture {
            Some(capture) => {
                let (events, captured) = output::tee(sandbox.as_dyn(), events, capture);
                (events, Some(captured))
            }
            None => (events, None),
        };
        {
            let mut processes = self.lock();
            let ended = |process: &Arc<Process>| process.ended().is_some();
            while processes.iter().filter(|process| ended(process)).count() >= REMEMBERED
                && let Some(oldest) = processes.iter().position(ended)
            {
                processes.remove(oldest);
            }
            processes.push_back(Arc::clone(&process));
        }
        guard
            .tasks
            .spawn(Arc::clone(&process).follow_to_the_end(events, captured));
        Ok(process)
    }

    /// Those that run, and those that ended and are not forgotten yet.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Process>> {
        self.lock().iter().cloned().collect()
    }

    /// # Errors
    /// `NotFound` if there is none with this id.
    pub fn get(&self, id: &str) -> Result<Arc<Process>> {
        let found = self.lock().iter().find(|process| process.id == id).cloned();
        found.ok_or_else(|| {
            let shown: String = id.chars().take(80).collect();
            Error::new(
                ErrorCode::NotFound,
                format!(
                    "no process '{}' in this sandbox, or not any more",
                    shown.escape_debug()
                ),
            )
        })
    }

    /// Ends all that run, as [`Process::stop`] does.
    pub async fn stop_all(&self, grace: Duration) {
        let stops = self
            .list()
            .into_iter()
            .map(|process| async move { process.stop(grace).await });
        futures_util::future::join_all(stops).await;
    }
}
