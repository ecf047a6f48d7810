//! The processes that PID files name, and the locks of the data directory.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::failure::{Failure, Result};
use super::watched;
use crate::config::Config;
use crate::local::pid_file::{Identity, PidFile};

pub(super) const DAEMON_PID: &str = "daemon.pid";
pub(super) const RUNNER_PID: &str = "agent-runner.pid";
/// What the daemon holds for as long as it lives.
const DAEMON_LOCK: &str = "stigmer.lock";
/// What a start holds until its daemon is ready.
const START_LOCK: &str = "start.lock";
/// How often a lock is tried.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long another start may take: more than the bounds that it has itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that lives, and no other one that has its number later.
#[derive(Debug)]
pub(super) struct Living {
    pub(super) identity: Identity,
    fd: AsyncFd<OwnedFd>,
}

impl Living {
    /// The process that a PID file names, if it still lives.
    pub(super) fn named_in(path: &Path) -> Result<Option<Self>> {
        match PidFile::read(path)? {
            Some(identity) => Self::of(identity),
            None => Ok(None),
        }
    }

    /// Whoever has this number now.
    pub(super) fn numbered(pid: u32) -> Result<Option<Self>> {
        match Identity::of(pid).map_err(|error| unseen(pid, &error))? {
            Some(identity) => Self::of(identity),
            None => Ok(None),
        }
    }

    fn of(identity: Identity) -> Result<Option<Self>> {
        let pid = identity.pid;
        let Some(fd) = identity.open().map_err(|error| unseen(pid, &error))? else {
            return Ok(None);
        };
        let fd = watched(fd, Interest::READABLE).map_err(|error| unseen(pid, &error))?;
        Ok(Some(Self { identity, fd }))
    }

    /// Sends a signal. False if it has ended.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(self.fd.get_ref(), signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has ended already.
    pub(super) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.get_ref(), PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Waits for its end. False if that does not come in time.
    pub(super) async fn ends(&self, limit: Duration) -> bool {
        let end = self.fd.readable();
        matches!(tokio::time::timeout(limit, end).await, Ok(Ok(_)))
    }
}

fn unseen(pid: u32, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot look at process {pid}")).because(error)
}

/// Makes a directory that is this user's alone, with its parents.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A data directory in which nobody else starts a daemon meanwhile.
#[derive(Debug)]
pub(super) struct StartLock {
    _file: File,
}

impl StartLock {
    /// Waits for it.
    pub(super) async fn take(config: &Config) -> Result<Self> {
        let directory = &config.data_dir;
        private_directory(directory).map_err(|error| {
            Failure::failed(format!(
                "failed to create data directory {}",
                directory.display()
            ))
            .because(&error)
        })?;
        let path = directory.join(START_LOCK);
        let failed = |error: &io::Error| {
            Failure::failed(format!("cannot lock {}", path.display())).because(error)
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed(&error))?;
        let limit = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < limit => {
                    tokio::time::sleep(INTERVAL).await;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Failure::failed(format!(
                        "another `stigmer local start` holds {} for {PATIENCE:?}",
                        path.display()
                    )));
                }
                Err(TryLockError::Error(error)) => return Err(failed(&error)),
            }
        }
    }
}

/// Removes what a daemon that was killed left behind, unless there is one: the
/// files are those of whoever has the daemon's lock.
pub(super) fn tidy(config: &Config) {
    let Ok(lock) = File::open(config.data_dir.join(DAEMON_LOCK)) else {
        return;
    };
    if lock.try_lock().is_ok() {
        let socket = config.socket_path();
        let files = [DAEMON_PID, RUNNER_PID].map(|name| config.data_dir.join(name));
        for path in files.iter().chain([&socket]) {
            // What is not there is as it should be, and what cannot be removed
            // names nobody who lives.
            let _gone = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a process to end is needed")]
    async fn only_the_process_that_is_named_is_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DAEMON_PID);
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let identity = Identity::of(child.id()).unwrap().unwrap();
        let reused = Identity {
            started: identity.started + 1,
            ..identity.clone()
        };
        let file = PidFile::write(&path, &reused).unwrap();
        assert!(Living::named_in(&path).unwrap().is_none());
        let _file = PidFile::write(&path, &identity).unwrap();
        std::mem::forget(file);
        let living = Living::named_in(&path).unwrap().unwrap();
        assert!(!living.ends(Duration::from_millis(1)).await);
        assert!(living.signal(Signal::KILL).unwrap());
        assert!(living.ends(Duration::from_secs(20)).await);
        child.wait().unwrap();
        assert!(!living.signal(Signal::KILL).unwrap());
        assert!(Living::named_in(&path).unwrap().is_none());
    }
}
