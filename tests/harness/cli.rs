//! One run of a program, with a deadline.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::process;

/// What is about to run.
#[derive(Debug)]
pub struct Cli {
    command: Command,
    stdin: Option<Vec<u8>>,
    deadline: Duration,
}

impl Cli {
    /// Runs this command, without stdin and for a minute at most.
    #[must_use]
    pub fn new(command: Command) -> Self {
        Self {
            command,
            stdin: None,
            deadline: Duration::from_secs(60),
        }
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Feeds it this, and closes its stdin.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Gives it longer, or less long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// In a process group of its own, as a shell starts a job.
    #[must_use]
    pub fn as_job(mut self) -> Self {
        std::os::unix::process::CommandExt::process_group(&mut self.command, 0);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(mut self) -> Running {
        let stdin = if self.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let mut child = self
            .command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.command));
        let writer = self.stdin.map(|data| {
            let mut pipe = child.stdin.take().expect("piped");
            // It may end without having read everything.
            std::thread::spawn(move || drop(pipe.write_all(&data)))
        });
        let stdout = Collector::start(child.stdout.take().expect("piped"));
        let stderr = Collector::start(child.stderr.take().expect("piped"));
        Running {
            deadline: Instant::now() + self.deadline,
            command: format!("{:?}", self.command),
            child: Some(child),
            writer,
            stdout,
            stderr,
        }
    }

    /// Runs it to its end.
    #[track_caller]
    #[must_use]
    pub fn run(self) -> Output {
        self.start().wait()
    }

    /// Runs it, and fails unless it exits with 0. Gives what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        self.run().ok()
    }
}

/// What was read of a pipe so far.
#[derive(Debug)]
struct Collector {
    data: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let data = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&data);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                sink.extend_from_slice(&buffer[..length]);
            }
        });
        Self {
            data,
            thread: Some(thread),
        }
    }

    fn so_far(&self) -> Vec<u8> {
        self.data
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// All of it: the pipe ends when the last process that has it does, which
    /// is not to be waited for longer than the process itself was.
    fn finish(&mut self, limit: Instant) -> Vec<u8> {
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() {
                assert!(
                    Instant::now() < limit,
                    "the program ended, and something still holds its output"
                );
                std::thread::sleep(Duration::from_millis(1));
            }
            thread.join().expect("the reader does not panic");
        }
        self.so_far()
    }
}

/// A program that runs. Dropped before its end, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    command: String,
    deadline: Instant,
    writer: Option<JoinHandle<()>>,
    stdout: Collector,
    stderr: Collector,
}

impl Running {
    /// Its number.
    ///
    /// # Panics
    /// Never: it is there until `wait` takes it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("not waited for");
        i32::try_from(child.id()).expect("a small number")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Sends a signal to the whole group of a job, as a terminal's Ctrl-C does.
    ///
    /// # Panics
    /// If it is not a job, or gone.
    pub fn signal_job(&self, signal: Signal) {
        let group = rustix::process::Pid::from_raw(self.pid()).expect("a number");
        rustix::process::kill_process_group(group, signal).expect("it is a job, and there");
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.so_far()).into_owned()
    }

    /// What it has complained about so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Waits until it has printed this.
    ///
    /// # Panics
    /// If it has not before its deadline.
    #[track_caller]
    pub fn prints(&self, text: &str) {
        let limit = self.deadline.saturating_duration_since(Instant::now());
        let start = Instant::now();
        while !self.stdout().contains(text) {
            assert!(
                start.elapsed() < limit,
                "{} did not print {text:?} but {:?}, and on stderr {:?}",
                self.command,
                self.stdout(),
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// If it cannot be asked.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        process::look(self.pid()).is_none_or(|process| !process.lives())
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end before its deadline.
    #[track_caller]
    #[must_use]
    pub fn wait(mut self) -> Output {
        let mut child = self.child.take().expect("not waited for");
        let Some(status) = wait_until(&mut child, self.deadline) else {
            child.kill().ok();
            child.wait().ok();
            panic!(
                "{} did not end in time; it printed {:?}, and on stderr {:?}",
                self.command,
                self.stdout(),
                self.stderr()
            );
        };
        let limit = self.deadline.max(Instant::now() + Duration::from_secs(5));
        if let Some(writer) = self.writer.take() {
            writer.join().expect("the writer does not panic");
        }
        Output {
            command: std::mem::take(&mut self.command),
            status,
            stdout: self.stdout.finish(limit),
            stderr: self.stderr.finish(limit),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Waits for a child, but no longer than until `deadline`.
pub(crate) fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(child.id()).ok()?)?;
    let pidfd: OwnedFd = pidfd_open(pid, PidfdFlags::empty()).expect("the child is not reaped");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).expect("a short time"),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return None,
            Ok(_) => return Some(child.wait().expect("the child is not reaped")),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot wait: {error}"),
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Output {
    command: String,
    status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its exit code.
    ///
    /// # Panics
    /// If a signal ended it.
    #[track_caller]
    #[must_use]
    pub fn code(&self) -> i32 {
        let code = self.status.code();
        code.unwrap_or_else(|| panic!("{self} was ended by {}", self.status))
    }

    /// How it ended.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// What it printed, as text.
    #[track_caller]
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("UTF-8")
    }

    /// What it complained about.
    #[must_use]
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// What it printed, after making sure that it exited with 0.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{self}");
        String::from_utf8(self.stdout).expect("UTF-8")
    }

    /// Makes sure that it exited with this code, and said this on stderr.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn fails(&self, code: i32, message: &str) {
        assert_eq!(self.status.code(), Some(code), "{self}");
        assert!(
            self.complaint().contains(message),
            "no {message:?} in {self}"
        );
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The end of a long output says more than its beginning.
        let tail = |bytes: &[u8]| {
            let start = bytes.len().saturating_sub(4000);
            String::from_utf8_lossy(&bytes[start..]).into_owned()
        };
        write!(
            f,
            "{}: {}\nstdout: {}\nstderr: {}",
            self.command,
            self.status,
            tail(&self.stdout),
            tail(&self.stderr)
        )
    }
}
