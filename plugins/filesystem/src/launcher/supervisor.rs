//! The process of one sandbox: forks runners, and owns what they leave behind.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{SWEEP, Watch, end_everything, own_pid, reap, runner, sys, tree};
use crate::protocol::{StartSupervisor, StillBusy, ToSupervisor};

/// Runs until the host is gone or asks it to leave.
pub(super) fn run(socket: OwnedFd, start: &StartSupervisor) -> io::Result<ExitCode> {
    limit(Resource::Data, start.memory_bytes)?;
    limit(Resource::Fsize, start.file_bytes)?;
    let watch = Watch::new(socket, c"stigmer-sandbox")?;
    Supervisor {
        watch,
        runners: HashSet::new(),
        owned: HashSet::new(),
    }
    .run()
}

/// Lowers a limit of this process, and so of everything it will start.
fn limit(resource: Resource, bytes: Option<u64>) -> io::Result<()> {
    if let Some(bytes) = bytes {
        let bytes = getrlimit(resource)
            .maximum
            .map_or(bytes, |maximum| maximum.min(bytes));
        setrlimit(
            resource,
            Rlimit {
                current: Some(bytes),
                maximum: Some(bytes),
            },
        )?;
    }
    Ok(())
}

struct Supervisor {
    watch: Watch,
    runners: HashSet<i32>,
    /// Children that came from runners which ended as they should: background
    /// processes, to be spared when another runner is killed.
    owned: HashSet<i32>,
}

impl Supervisor {
    fn run(mut self) -> io::Result<ExitCode> {
        // Set when a runner was killed, until nothing of its command is left.
        let mut sweeping = None;
        loop {
            let ready = self.watch.wait(sweeping.map(|_| SWEEP))?;
            let mut inherited = false;
            for (pid, status) in reap().ended {
                let pid = pid.as_raw_nonzero().get();
                self.owned.remove(&pid);
                if self.runners.remove(&pid) {
                    match status.exit_status() {
                        Some(0) => {}
                        Some(runner::LEFT_SURVIVORS) => inherited = true,
                        _ => sweeping = Some(0),
                    }
                }
            }
            if inherited && sweeping.is_none() {
                self.owned
                    .extend(self.children().filter(|pid| !self.runners.contains(pid)));
            }
            if let Some(pass) = sweeping {
                let spared: HashSet<i32> = self.runners.union(&self.owned).copied().collect();
                let strays = self.children().any(|pid| !spared.contains(&pid));
                tree::kill(own_pid(), &spared, pass);
                sweeping = strays.then_some(pass + 1);
            }
            if ready.message {
                match self.watch.channel.receive::<ToSupervisor>()? {
                    None => return Ok(end_everything()),
                    Some((ToSupervisor::LeaveIfIdle, _)) => {
                        // Idle runners end with their sockets, which the host closed before it asked.
                        if self.children().all(|pid| self.runners.contains(&pid)) {
                            return Ok(end_everything());
                        }
                        self.watch.channel.send(&StillBusy)?;
                    }
                    Some((ToSupervisor::StartRunner, fds)) => {
                        if let Some(code) = self.start_runner(fds)? {
                            return Ok(code);
                        }
                    }
                }
            }
        }
    }

    /// In the new runner, the status to end with; in the supervisor, nothing.
    fn start_runner(&mut self, fds: Vec<OwnedFd>) -> io::Result<Option<ExitCode>> {
        let Some(socket) = fds.into_iter().next() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match sys::fork() {
            Ok(sys::Fork::Child) => {
                self.watch.close()?;
                runner::run(socket).map(Some)
            }
            Ok(sys::Fork::Parent(pid)) => {
                self.runners.insert(pid.as_raw_nonzero().get());
                Ok(None)
            }
            // The host reads the end of the socket that closes here.
            Err(_) => Ok(None),
        }
    }

    fn children(&self) -> impl Iterator<Item = i32> + use<> {
        let own = own_pid();
        tree::descendants(own)
            .unwrap_or_default()
            .into_iter()
            .filter(move |process| process.parent == own)
            .map(|process| process.pid)
    }
}
