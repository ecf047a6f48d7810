//! The process of one command at a time: starts it, waits for it, and kills
//! its tree.
//!
//! ```text
//!        Start              root ends, nothing left
//! idle ─────────▶ running ─────────────────────────▶ Exited, idle again
//!                    │      root ends, some live on
//!                    ├─────────────────────────────▶ Exited{survivors}, leave
//!                    │ SIGTERM or SIGKILL asked for
//!                    ▼      nothing left
//!                 ending ──────────────────────────▶ Exited, idle again
//! ```
//!
//! In `running`, a process that outlives its command is a background process,
//! and goes to the supervisor. In `ending` it is something that has not died
//! yet, and the exit waits for it: killed means gone.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use rustix::process::{Pid, Signal, kill_process_group};

use super::{SWEEP, Watch, end_everything, own_pid, program, reap, tree};
use crate::protocol::{FromRunner, Status, ToRunner};

/// The exit status of a runner whose command left something running.
pub(super) const LEFT_SURVIVORS: i32 = 3;

/// Runs until the host drops its end of the socket.
pub(super) fn run(socket: OwnedFd) -> io::Result<ExitCode> {
    Runner {
        watch: Watch::new(socket, c"stigmer-runner")?,
        running: None,
    }
    .run()
}

struct Runner {
    watch: Watch,
    running: Option<Running>,
}

struct Running {
    command: u64,
    root: Pid,
    /// Set when the root has ended.
    status: Option<Status>,
    /// Everything is to be gone before the exit is reported.
    ending: bool,
    /// Passes of killing so far, if it is to be killed.
    killing: Option<u32>,
}

impl Runner {
    fn run(mut self) -> io::Result<ExitCode> {
        loop {
            let killing = self
                .running
                .as_ref()
                .is_some_and(|running| running.killing.is_some());
            let ready = self.watch.wait(killing.then_some(SWEEP))?;
            let reaped = reap();
            if let Some(running) = &mut self.running {
                for (pid, status) in reaped.ended {
                    if pid == running.root {
                        running.status =
                            Some(match (status.exit_status(), status.terminating_signal()) {
                                (Some(code), _) => Status::Code((code & 0xff) as u8),
                                (None, signal) => Status::Signal(signal.unwrap_or_default()),
                            });
                    }
                }
                if let Some(pass) = &mut running.killing
                    && reaped.children
                {
                    tree::kill(own_pid(), &HashSet::new(), *pass);
                    *pass += 1;
                }
                if let Some(status) = running.status {
                    if !reaped.children {
                        self.running = None;
                        self.watch.channel.send(&FromRunner::Exited {
                            status,
                            survivors: false,
                        })?;
                    } else if !running.ending {
                        self.watch.channel.send(&FromRunner::Exited {
                            status,
                            survivors: true,
                        })?;
                        return Ok(ExitCode::from(LEFT_SURVIVORS as u8));
                    }
                }
            }
            if ready.message {
                match self.watch.channel.receive::<ToRunner>() {
                    Ok(Some((ToRunner::Start(start), fds))) => match program::start(start, fds) {
                        Ok((command, root)) => {
                            self.running = Some(Running {
                                command,
                                root,
                                status: None,
                                ending: false,
                                killing: None,
                            });
                        }
                        Err(not_started) => self.watch.channel.send(&not_started)?,
                    },
                    Ok(Some((
                        ToRunner::Signal {
                            command,
                            signal,
                            group,
                        },
                        _,
                    ))) => {
                        self.signal(command, signal, group);
                    }
                    // The host is gone, or has lost interest. Garbage cannot come from it.
                    Ok(None) | Err(_) => return Ok(end_everything()),
                }
            }
        }
    }

    fn signal(&mut self, command: u64, signal: i32, group: Option<i32>) {
        let Some(running) = self
            .running
            .as_mut()
            .filter(|running| running.command == command)
        else {
            return;
        };
        let Some(signal) = Signal::from_named_raw(signal) else {
            return;
        };
        let group = group.and_then(Pid::from_raw).unwrap_or(running.root);
        match signal {
            Signal::TERM => {
                running.ending = true;
                tree::terminate(own_pid(), &HashSet::new());
            }
            Signal::KILL => {
                running.ending = true;
                running.killing = Some(1);
                // The group first, in one call, so that the common case needs no second look.
                kill_process_group(group, Signal::KILL).ok();
                tree::kill(own_pid(), &HashSet::new(), 0);
            }
            // A group that is gone has nobody to tell.
            signal => {
                kill_process_group(group, signal).ok();
            }
        }
    }
}
