//! The daemon's own agent runner: started, watched, started again, ended.
//!
//! ```text
//!          ┌──────────── after a pause ────────────┐
//!          ▼                                       │
//!      STARTING ─registered─▶ READY ─it ended─▶ BACKING_OFF
//!          └────────it ended──────────────────────▶│
//!                                                  └─too often─▶ FAILED
//!      any of them ─the daemon ends─▶ STOPPED
//! ```
//!
//! | module | owns |
//! | --- | --- |
//! | `launch` | with what a runner is started |
//! | `process` | one run, until nothing of it is left |
//! | `output` | what it prints, on its way into its log |
//! | `backoff` | when it is started again, and when no more |
//!
//! One task owns the runner and says in a `watch` how it is; everybody else
//! reads that. The runner cannot outlive the daemon: it holds the end of a
//! pipe, and only the daemon has the other.

mod backoff;
mod launch;
mod output;
mod process;

use std::path::PathBuf;

use stigmer_sdk::wire::host::RegisteredRunner;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::backoff::{Backoff, jittered};
pub(crate) use self::launch::Launch;
use self::process::{Process, end_predecessor};
use super::pid_file::Identity;

/// Who is registered at the daemon, now and later.
pub(crate) type Registered = watch::Receiver<Vec<RegisteredRunner>>;

/// How a runner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its process runs and has not registered.
    Starting,
    /// It is registered.
    Ready,
    /// It ended, and is started again after a pause.
    BackingOff,
    /// It ended too often, and stays down.
    Failed,
    /// The daemon ends.
    Stopped,
}

/// What there is to know of the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// While it runs.
    pub process: Option<Identity>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended when it last did without being asked to, and what it said
    /// last; empty if it never did.
    pub last_failure: String,
    /// The program, if it is not the one built in.
    pub script: Option<PathBuf>,
    /// Empty if that is for the runner to choose.
    pub provider: String,
    /// Empty if that is for the runner to choose.
    pub model: String,
}

/// A runner that is looked after. Dropped, it is let go of, and ends.
#[derive(Debug)]
pub(crate) struct Supervisor {
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Supervisor {
    /// Starts a runner, and goes on doing so.
    pub(crate) fn start(launch: Launch, registered: Registered) -> Self {
        let (report, status) = watch::channel(Status {
            state: State::Starting,
            process: None,
            restarts: 0,
            last_failure: String::new(),
            script: launch.script.clone(),
            provider: launch.provider.to_owned(),
            model: launch.model.clone(),
        });
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let supervision = Supervision {
            launch,
            registered,
            report,
            stop: stop.clone(),
        };
        task.spawn(supervision.run());
        Self { status, stop, task }
    }

    /// How the runner is, and whenever that changes.
    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Ends the runner: SIGTERM, a grace period, SIGKILL. Over when nothing of
    /// it is left.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "looking after the agent runner failed");
            }
        }
    }
}

/// What the task of a supervisor has.
struct Supervision {
    launch: Launch,
    registered: Registered,
    report: watch::Sender<Status>,
    stop: CancellationToken,
}

impl Supervision {
    async fn run(mut self) {
        tokio::select! {
            () = end_predecessor(&self.launch.pid_file) => {}
            () = self.stop.cancelled() => {}
        }
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            let failure = match Process::start(&self.launch) {
                Ok(process) => match self.watch(process).await {
                    Some(failure) => failure,
                    None => break,
                },
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
                }
            };
            let Some(pause) = backoff.ended(began, Instant::now()) else {
                tracing::error!(failure, "the agent runner ended too often, and stays down");
                self.ended(State::Failed, failure);
                self.stop.cancelled().await;
                break;
            };
            let pause = jittered(pause, random());
            tracing::warn!(
                failure,
                ?pause,
                "the agent runner ended, and is started again"
            );
            self.ended(State::BackingOff, failure);
            let stopped = tokio::time::timeout(pause, self.stop.cancelled()).await;
            if stopped.is_err() {
                self.report.send_modify(|status| {
                    status.state = State::Starting;
                    status.restarts += 1;
                });
            }
        }
        self.report.send_modify(|status| {
            status.state = State::Stopped;
            status.process = None;
        });
    }

    /// Looks after a process until it ended, and says how; `None` if it was
    /// asked to.
    async fn watch(&mut self, mut process: Process) -> Option<String> {
        let stop = self.stop.clone();
        self.report.send_modify(|status| {
            status.state = State::Starting;
            status.process = Some(process.identity.clone());
        });
        tracing::info!(pid = process.identity.pid, "started the agent runner");
        let mut registering = true;
        loop {
            self.look(&process);
            tokio::select! {
                () = process.ended() => return Some(process.finish().await),
                () = stop.cancelled() => {
                    let ended = process.stop().await;
                    tracing::info!(ended, "the agent runner ended");
                    return None;
                }
                changed = self.registered.changed(), if registering => {
                    // Whoever said so is gone, as the daemon soon will be.
                    registering = changed.is_ok();
                }
            }
        }
    }

    /// Says whether the process is registered.
    fn look(&mut self, process: &Process) {
        let ready = self
            .registered
            .borrow_and_update()
            .iter()
            .any(|runner| process.includes(runner.pid));
        let state = if ready { State::Ready } else { State::Starting };
        self.report.send_if_modified(|status| {
            let changed = status.state != state;
            if changed && ready {
                tracing::info!(pid = process.identity.pid, "the agent runner is ready");
            }
            status.state = state;
            changed
        });
    }

    fn ended(&self, state: State, failure: String) {
        self.report.send_modify(|status| {
            status.state = state;
            status.process = None;
            status.last_failure = failure;
        });
    }
}

fn random() -> u8 {
    let mut byte = [0];
    // The middle is as good where the kernel has nothing to give.
    match rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(1) => byte[0],
        _ => u8::MAX / 2,
    }
}
