//! The processes that start commands, none of which is the host.
//!
//! The host never forks: that would copy the page tables of all its memory and
//! get slower as it grows. Instead it executes itself once as a *launcher*, a
//! process that stays small and has one thread and no runtime. The launcher
//! forks a *supervisor* for each sandbox, and a supervisor a *runner* for each
//! command at a time. All three are child subreapers: whatever a command
//! starts comes back, when its parent ends, to the runner of that command;
//! what the runner leaves behind comes to the supervisor, and what a killed
//! supervisor leaves behind to the launcher, which ends it.
//!
//! Each of them holds one end of a socket whose other end only the host has.
//! When the host ends, by whatever signal, all these sockets end, and everyone
//! kills what is below. Nothing relies on `PR_SET_PDEATHSIG`, which a command
//! can clear and which follows a thread.

mod program;
mod runner;
mod supervisor;
mod sys;
mod tree;

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, WaitOptions, WaitStatus};

use crate::protocol::{Channel, StartSupervisor};
pub(crate) use tree::{all as all_processes, signal as signal_process};

/// The first argument that makes the host's program a launcher.
pub(crate) const ARGUMENT: &str = "__launcher";

/// Becomes the launcher if that is what this process was started as.
///
/// Call it before anything else in `main`: it must find one thread, and
/// nothing of the host's in memory. `Some` is the status to end with.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    // The limit of open files that commands are to have: the host raised its own.
    let open_files = arguments
        .next()
        .and_then(|limit| limit.to_str()?.parse().ok());
    Some(match launch(open_files) {
        Ok(code) => code,
        Err(_) => ExitCode::FAILURE,
    })
}

fn launch(open_files: Option<u64>) -> io::Result<ExitCode> {
    // Away from the host's terminal: its Ctrl-C is for the host, and would end the very processes
    // that answer for a command while that command, in a session of its own, went on.
    rustix::process::setsid()?;
    // Descriptors that whoever started the host forgot to close are not the commands' to have.
    sys::close_from(3)?;
    if let Some(soft) = open_files {
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let limit = rustix::process::Rlimit {
            current: Some(soft),
            maximum: hard,
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    }
    let core = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(rustix::process::Resource::Core, core)?;
    // The socket is moved away from stdin, which belongs to nobody from here on.
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR,
        rustix::fs::Mode::empty(),
    )?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    let watch = Watch::new(control, c"stigmer-launch")?;
    Launcher {
        watch,
        supervisors: HashSet::new(),
    }
    .run()
}

/// Forks supervisors, and ends what a killed one left behind.
struct Launcher {
    watch: Watch,
    supervisors: HashSet<i32>,
}

impl Launcher {
    fn run(mut self) -> io::Result<ExitCode> {
        // Set when a supervisor was killed, until nothing of its sandbox is left.
        let mut sweeping = None;
        loop {
            let ready = self.watch.wait(sweeping.map(|_| SWEEP))?;
            let reaped = reap();
            for &(pid, status) in &reaped.ended {
                if self.supervisors.remove(&pid.as_raw_nonzero().get())
                    && status.exit_status() != Some(0)
                {
                    sweeping = Some(0);
                }
            }
            if let Some(pass) = sweeping {
                let before = tree::descendants(own_pid())?;
                let strays = before.iter().any(|process| {
                    process.parent == own_pid() && !self.supervisors.contains(&process.pid)
                });
                tree::kill(own_pid(), &self.supervisors, pass);
                sweeping = strays.then_some(pass + 1);
            }
            if ready.message {
                match self.watch.channel.receive::<StartSupervisor>()? {
                    None => return Ok(end_everything()),
                    Some((start, fds)) => {
                        if let Some(code) = self.start(&start, fds)? {
                            return Ok(code);
                        }
                    }
                }
            }
        }
    }

    /// In the new supervisor, the status to end with; in the launcher, nothing.
    fn start(
        &mut self,
        start: &StartSupervisor,
        fds: Vec<OwnedFd>,
    ) -> io::Result<Option<ExitCode>> {
        let Some(socket) = fds.into_iter().next() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match sys::fork() {
            Ok(sys::Fork::Child) => {
                self.watch.close()?;
                supervisor::run(socket, start).map(Some)
            }
            Ok(sys::Fork::Parent(pid)) => {
                self.supervisors.insert(pid.as_raw_nonzero().get());
                Ok(None)
            }
            // The host reads the end of the socket that closes here.
            Err(_) => Ok(None),
        }
    }
}

/// How often to look again while processes are being killed.
const SWEEP: Duration = Duration::from_millis(2);

/// What one of these processes waits for: the host, and its own children.
struct Watch {
    channel: Channel,
    children: OwnedFd,
}

struct Ready {
    /// There is a message, or the end of them.
    message: bool,
}

impl Watch {
    /// Takes this process in hand: its name, its orphans, its signals, and its
    /// memory, which is nobody's to read.
    fn new(socket: OwnedFd, name: &CStr) -> io::Result<Self> {
        rustix::thread::set_name(name)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        Ok(Self {
            channel: Channel::new(socket)?,
            children: sys::child_signals()?,
        })
    }

    /// Waits for a message or the end of a child, or for `timeout`.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<Ready> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: 0,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut fds = [
            PollFd::new(&self.channel, PollFlags::IN),
            PollFd::new(&self.children, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [channel, children] = fds.map(|fd| !fd.revents().is_empty());
        if children {
            // One record is enough: whoever reaps takes every child that ended.
            let mut record = [0; 128];
            while matches!(rustix::io::read(&self.children, &mut record), Ok(1..)) {}
        }
        Ok(Ready { message: channel })
    }

    /// Lets go of what a forked child inherited of its parent's.
    fn close(&mut self) -> io::Result<()> {
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        rustix::io::dup3(&null, &mut self.children, rustix::io::DupFlags::CLOEXEC)?;
        self.channel.replace(null)
    }
}

struct Reaped {
    ended: Vec<(Pid, WaitStatus)>,
    /// Whether any child is left, and with it any descendant at all: those that
    /// lose their parent become children.
    children: bool,
}

/// Takes every child that has ended.
fn reap() -> Reaped {
    let mut ended = Vec::new();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(child)) => ended.push(child),
            Ok(None) => {
                return Reaped {
                    ended,
                    children: true,
                };
            }
            Err(Errno::INTR) => {}
            Err(_) => {
                return Reaped {
                    ended,
                    children: false,
                };
            }
        }
    }
}

/// Kills everything below this process, and returns when nothing is left.
///
/// A process that the kernel does not let die, waiting for a disk say, is
/// waited for: it is still there, and saying otherwise would be a lie.
fn end_everything() -> ExitCode {
    let mut pass = 0;
    while reap().children {
        tree::kill(own_pid(), &HashSet::new(), pass);
        pass = (pass + 1).min(10);
        std::thread::sleep(SWEEP.mul_f64(if pass < 3 { 0.1 } else { 1.0 }));
    }
    ExitCode::SUCCESS
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("channel", &self.channel.as_fd())
            .finish_non_exhaustive()
    }
}
