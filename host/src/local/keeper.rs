//! Keeps a program that somebody else wrote, and ends it with its whole tree.
//!
//! A runner that is a script may start what it likes, also in sessions of its
//! own, and knows nothing of a life line. Two processes answer for it:
//!
//! ```text
//! daemon ──life line──▶ keeper ──life line──▶ second keeper ──▶ script ──▶ its children
//! ```
//!
//! Both are child subreapers: whoever loses its parent below them comes to
//! them, and cannot get away. If the daemon is killed, the keepers see their
//! life line end; if the first keeper is, the second does; if the second is,
//! its tree comes to the first. So nothing is left whichever one of them dies.
//! The first is the leader of a session that the second shares, by which the
//! daemon finds it.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use stigmer_sdk::{Error, ErrorCode, ExitStatus, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::handover::Handover;
use super::proc;
use crate::config::Env;

/// How long a script may take to end when it is asked to.
pub const GRACE: Duration = Duration::from_secs(5);
/// And how much longer whoever waits for that has patience.
pub(super) const MARGIN: Duration = Duration::from_secs(1);

/// How often to look again while processes are being killed.
const PASS: Duration = Duration::from_millis(2);
/// When to give up on processes that SIGKILL does not end: they are in the
/// kernel, waiting for a disk that does not answer.
const STUBBORN: Duration = Duration::from_secs(5);

/// What is kept.
#[derive(Debug)]
pub enum Kept {
    /// The second keeper, which takes the keys and holds our life line.
    Second(Handover),
    /// The script.
    Script {
        program: PathBuf,
        /// All of its environment, keys included: that is how it expects them.
        env: Env,
        /// Where it starts.
        cwd: PathBuf,
    },
}

/// Runs it until it ends, or until it `asked` to be ended. What it left is
/// ended too.
///
/// # Errors
/// If it cannot be started.
pub async fn keep(kept: Kept, asked: impl Future<Output = ()>) -> Result<ExitStatus> {
    let failed = |error: io::Error| Error::internal("cannot keep a runner", error);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| failed(error.into()))?;
    let mut ended = signal(SignalKind::child()).map_err(failed)?;
    let (main, _life_line) = start(&kept)?;
    let mut asked = pin!(asked);
    let mut deadline = None;
    let status = loop {
        if let Reaped {
            main: Some(status), ..
        } = reap(main)
        {
            break status;
        }
        tokio::select! {
            _ = ended.recv() => {}
            () = &mut asked, if deadline.is_none() => {
                terminate(&kept, main);
                deadline = Some(Instant::now() + kept.grace());
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                tracing::warn!("the runner did not end in time, and is killed");
                break kill(main).await.unwrap_or(ExitStatus::Signal(9));
            }
        }
    };
    kill(main).await;
    Ok(status)
}

impl Kept {
    fn grace(&self) -> Duration {
        match self {
            Self::Second(_) => GRACE + MARGIN,
            Self::Script { .. } => GRACE,
        }
    }
}

/// Starts it. For as long as the pipe is held, it knows that we live.
#[expect(
    clippy::disallowed_methods,
    reason = "the one thing that a keeper starts"
)]
fn start(kept: &Kept) -> Result<(Pid, Option<ChildStdin>)> {
    let (mut command, name) = match kept {
        Kept::Second(_) => {
            let mut command = super::this_program();
            command
                .args(["agent-runner", "--supervised", "--second"])
                .stdin(Stdio::piped());
            (command, "the second keeper".to_owned())
        }
        Kept::Script { program, env, cwd } => {
            let mut command = std::process::Command::new(program);
            command
                .env_clear()
                .envs(env)
                .current_dir(cwd)
                .stdin(Stdio::null());
            (command, program.display().to_string())
        }
    };
    let mut child = command.spawn().map_err(|error| {
        Error::new(ErrorCode::Unavailable, format!("cannot start {name}")).with_source(error)
    })?;
    let main = Pid::from_child(&child);
    let mut stdin = child.stdin.take();
    if let (Kept::Second(keys), Some(stdin)) = (kept, &mut stdin) {
        keys.write_to(stdin)?;
    }
    Ok((main, stdin))
}

/// Asks it to end: the second keeper alone, since the rest is its business;
/// of a script everybody, as a terminal would.
fn terminate(kept: &Kept, main: Pid) {
    match kept {
        // Nobody else has its number before we have waited for it. If it has
        // ended, it has heard.
        Kept::Second(_) => {
            let _heard = rustix::process::kill_process(main, Signal::TERM);
        }
        Kept::Script { .. } => {
            for process in proc::descendants(std::process::id()).unwrap_or_default() {
                proc::signal(&process, Signal::TERM);
                // One that is stopped would not see it.
                proc::signal(&process, Signal::CONT);
            }
        }
    }
}

/// Kills everybody below until nobody is left. Gives how `main` ended, if it
/// did only now.
async fn kill(main: Pid) -> Option<ExitStatus> {
    let limit = Instant::now() + STUBBORN;
    let mut status = None;
    loop {
        let reaped = reap(main);
        status = status.or(reaped.main);
        if !reaped.children {
            return status;
        }
        if Instant::now() >= limit {
            tracing::error!("some processes of the runner cannot be killed");
            return status;
        }
        let below = proc::descendants(std::process::id()).unwrap_or_default();
        // Stopped first, so that one that forks without end cannot outrun this.
        for signal in [Signal::STOP, Signal::KILL] {
            for process in &below {
                proc::signal(process, signal);
            }
        }
        tokio::time::sleep(PASS).await;
    }
}

struct Reaped {
    /// How `main` ended, if it did.
    main: Option<ExitStatus>,
    /// Whether any child is left, and with it any descendant at all: those
    /// that lose their parent become children.
    children: bool,
}

/// Takes every child that has ended.
fn reap(main: Pid) -> Reaped {
    let mut reaped = Reaped {
        main: None,
        children: true,
    };
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if pid == main {
                    reaped.main = Some(exit_status(status));
                }
            }
            Ok(None) => return reaped,
            Err(Errno::INTR) => {}
            Err(_) => {
                reaped.children = false;
                return reaped;
            }
        }
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status.terminating_signal() {
        Some(signal) => ExitStatus::Signal(signal),
        None => {
            let code = status.exit_status().unwrap_or_default();
            ExitStatus::Code(u8::try_from(code).unwrap_or(u8::MAX))
        }
    }
}
