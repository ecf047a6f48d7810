//! One run of a runner, from its start until nothing of it is left.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use stigmer_sdk::{Error, Result};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::launch::Launch;
use super::output::{Lines, Stream};
use crate::local::pid_file::{Identity, PidFile};
use crate::local::{keeper, proc, this_program};

/// How long the last lines may take to arrive once nobody is left to write any.
const LAST_LINES: Duration = Duration::from_millis(250);
/// How often to look again for what a runner left.
const LOOK: Duration = Duration::from_millis(10);

/// A runner that runs. Dropped, it sees its life line end, and ends.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) identity: Identity,
    pidfd: OwnedFd,
    child: Child,
    /// Says that some child of the daemon ended.
    children: tokio::signal::unix::Signal,
    life_line: Option<ChildStdin>,
    lines: Lines,
    readers: JoinSet<()>,
    file: Option<PidFile>,
    grace: Duration,
}

impl Process {
    /// Starts a runner, and hands it its keys.
    pub(super) fn start(launch: &Launch) -> Result<Self> {
        let failed = |error: io::Error| Error::internal("cannot start the agent runner", error);
        let mut child = this_program()
            .args(["agent-runner", "--supervised"])
            .env_clear()
            .envs(&launch.env)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        match Self::started(launch, &mut child) {
            Ok((identity, pidfd, children, readers, lines)) => {
                let mut life_line = child.stdin.take();
                if let Some(pipe) = &mut life_line
                    && let Err(error) = launch.keys.write_to(pipe)
                {
                    // It has ended already, and says itself why.
                    tracing::debug!(%error, "the runner took no keys");
                }
                let file = PidFile::write(&launch.pid_file, &identity)
                    .inspect_err(|error| tracing::error!(%error, "the runner has no PID file"))
                    .ok();
                Ok(Self {
                    identity,
                    pidfd,
                    child,
                    children,
                    life_line,
                    lines,
                    readers,
                    file,
                    grace: launch.grace(),
                })
            }
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                Err(failed(error))
            }
        }
    }

    /// What may fail when it runs already.
    fn started(
        launch: &Launch,
        child: &mut Child,
    ) -> io::Result<(
        Identity,
        OwnedFd,
        tokio::signal::unix::Signal,
        JoinSet<()>,
        Lines,
    )> {
        // It is not waited for, so the number is its own, ended or not.
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let children = signal(SignalKind::child())?;
        let lines = Lines::new(launch.log.clone(), launch.secrets());
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            let pipe = Receiver::from_owned_fd(stdout.into())?;
            readers.spawn(lines.clone().take(pipe, Stream::Stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            let pipe = Receiver::from_owned_fd(stderr.into())?;
            readers.spawn(lines.clone().take(pipe, Stream::Stderr));
        }
        let stat = proc::stat(child.id())?
            .ok_or_else(|| io::Error::other("/proc does not show a child of ours"))?;
        let identity = Identity {
            pid: child.id(),
            started: stat.started,
            boot: Identity::this()?.boot,
        };
        Ok((identity, pidfd, children, readers, lines))
    }

    /// Whether a process is this one or below it.
    pub(super) fn includes(&self, pid: u32) -> bool {
        proc::is_below(pid, self.identity.pid)
    }

    /// Waits until it has ended. May be dropped, and called again.
    pub(super) async fn ended(&mut self) {
        let id = WaitId::Pid(Pid::from_child(&self.child));
        // Without taking it: until that, its number is nobody else's.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while let Ok(None) = waitid(id.clone(), look) {
            // What ended since then is said here.
            self.children.recv().await;
        }
    }

    /// Asks it to end, and makes it if it does not in time.
    pub(super) async fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        if timeout(self.grace, self.ended()).await.is_err() {
            tracing::warn!(
                pid = self.identity.pid,
                "the agent runner did not end in time, and is killed"
            );
            self.signal(Signal::KILL);
            self.ended().await;
        }
        self.finish().await
    }

    fn signal(&self, signal: Signal) {
        // One that ended meanwhile needs none.
        let _gone = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Makes sure that nothing of one that has ended is left, and says how it did.
    pub(super) async fn finish(mut self) -> String {
        self.life_line = None;
        // Not waited for, its number still is its own, and so is its session's.
        sweep(self.identity.pid, keeper::GRACE + keeper::MARGIN).await;
        // It has ended: this does not wait.
        let status = self.child.wait();
        // What went into a session of its own may hold the pipes.
        drop(
            timeout(LAST_LINES, async {
                while self.readers.join_next().await.is_some() {}
            })
            .await,
        );
        self.file = None;
        let how = match status {
            Ok(status) => described(status),
            Err(error) => format!("ended, and how is not known: {error}"),
        };
        match self.lines.last() {
            said if said.is_empty() => how,
            said => format!("{how}: {said}"),
        }
    }
}

fn described(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;

    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Waits until the session of this process is empty, for as long as a second
/// keeper may need to end what it keeps; what is there then is killed. Only
/// while the number cannot be somebody else's.
async fn sweep(leader: u32, patience: Duration) {
    let limit = Instant::now() + patience;
    /// Kills that were in vain: those processes wait for a disk.
    const PASSES: u32 = 100;
    let mut passes = 0;
    loop {
        let left = match proc::session(leader) {
            Ok(left) if left.is_empty() => return,
            Ok(left) => left,
            Err(error) => {
                tracing::error!(%error, "cannot look for what a runner left");
                return;
            }
        };
        if Instant::now() >= limit {
            if passes == PASSES {
                tracing::error!(?left, "some processes of the runner cannot be killed");
                return;
            }
            passes += 1;
            for process in &left {
                proc::signal(process, Signal::KILL);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends what a daemon that was killed left: a runner that has not seen the end
/// of its life line yet, or does not heed it.
pub(super) async fn end_predecessor(file: &std::path::Path) {
    let left = match PidFile::read(file) {
        Ok(left) => left,
        Err(error) => {
            tracing::warn!(%error, "cannot tell whether a runner was left");
            None
        }
    };
    let Some(left) = left else { return };
    let limit = Instant::now() + keeper::GRACE + keeper::MARGIN * 2;
    loop {
        match left.open() {
            Ok(None) => break,
            Ok(Some(process)) if Instant::now() >= limit => {
                tracing::warn!(pid = left.pid, "killing the runner of the daemon before");
                let _gone = pidfd_send_signal(process, Signal::KILL);
            }
            Ok(Some(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot reach the runner of the daemon before");
                break;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    // Whatever it says, it says of somebody who is gone.
    drop(std::fs::remove_file(file));
}
