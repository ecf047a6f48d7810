//! The host's side of the launcher, the supervisors and the runners.
//!
//! Nothing here waits for a process to start: a socket exists before the
//! process that will read it, so the first command of a sandbox is written
//! while its supervisor and runner are still being forked.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::launcher;
use crate::protocol::{
    FromRunner, StartSupervisor, StillBusy, ToRunner, ToSupervisor, decode_frame, encode, send_with,
};

/// Runners that a sandbox keeps for its next commands. Each is a process of
/// some 150 KiB; a new one costs a fork, 0.2 ms.
const IDLE_RUNNERS: usize = 2;

/// The process that forks supervisors, started when first needed, and again if
/// somebody killed it.
#[derive(Debug)]
pub(crate) struct Launcher {
    program: PathBuf,
    /// The soft limit of open files that commands are to have.
    open_files: u64,
    process: Mutex<Option<LauncherProcess>>,
}

#[derive(Debug)]
struct LauncherProcess {
    /// `None` only while it is being dropped.
    socket: Option<Arc<UnixStream>>,
    child: Child,
}

impl Launcher {
    pub(crate) fn new(program: PathBuf, open_files: u64) -> Self {
        Self {
            program,
            open_files,
            process: Mutex::new(None),
        }
    }

    /// Whether there is a program to start it from.
    pub(crate) fn check(&self) -> Result<()> {
        match rustix::fs::access(&self.program, rustix::fs::Access::EXEC_OK) {
            Ok(()) => Ok(()),
            Err(error) => Err(Error::new(
                ErrorCode::Unavailable,
                format!("cannot start the launcher {}", self.program.display()),
            )
            .with_source(error)),
        }
    }

    /// A socket to a new supervisor.
    async fn supervisor(&self, start: &StartSupervisor) -> Result<UnixStream> {
        let frame = encode(start).map_err(|error| broken("encode a request", error))?;
        let mut fresh = false;
        loop {
            let socket = self.socket(fresh)?;
            let (ours, theirs) = pair()?;
            match send_frame(&socket, &frame, &[theirs.as_fd()]).await {
                Ok(()) => return Ok(ours),
                Err(error) if fresh => return Err(broken("reach the launcher", error)),
                Err(_) => fresh = true,
            }
        }
    }

    /// The launcher's socket, of a new process if there is none or `fresh`.
    fn socket(&self, fresh: bool) -> Result<Arc<UnixStream>> {
        let mut process = lock(&self.process);
        if fresh {
            *process = None;
        }
        if let Some(LauncherProcess {
            socket: Some(socket),
            ..
        }) = &*process
        {
            return Ok(Arc::clone(socket));
        }
        let (ours, theirs) = pair()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the one process that the host starts itself"
        )]
        let child = std::process::Command::new(&self.program)
            .arg(launcher::ARGUMENT)
            .arg(self.open_files.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                Error::new(
                    ErrorCode::Unavailable,
                    format!("cannot start the launcher {}", self.program.display()),
                )
                .with_source(error)
            })?;
        let socket = Arc::new(ours);
        *process = Some(LauncherProcess {
            socket: Some(Arc::clone(&socket)),
            child,
        });
        Ok(socket)
    }
}

impl Drop for LauncherProcess {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            // Also ends it for a caller that still holds the other reference.
            hang_up(&socket);
        }
        // It ends when everything below it has, which is what dropping it promises.
        self.child.wait().ok();
    }
}

/// One sandbox's supervisor, started with its first command.
#[derive(Debug)]
pub(crate) struct Supervisor {
    launcher: Arc<Launcher>,
    start: StartSupervisor,
    state: Mutex<State>,
    /// Held while a socket is being made, so that there is one supervisor.
    starting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    socket: Option<Arc<UnixStream>>,
    idle: VecDeque<Arc<Runner>>,
    /// Commands that have a runner.
    running: usize,
    /// When the last of them ended.
    idle_since: Option<std::time::Instant>,
    /// The sandbox is destroyed; nothing starts any more.
    ended: bool,
}

impl Supervisor {
    pub(crate) fn new(launcher: Arc<Launcher>, start: StartSupervisor) -> Self {
        Self {
            launcher,
            start,
            state: Mutex::default(),
            starting: tokio::sync::Mutex::new(()),
        }
    }

    /// A runner for one command: an idle one, or a new one.
    pub(crate) async fn runner(self: &Arc<Self>) -> Result<Lease> {
        let mut lease = Lease {
            supervisor: Arc::clone(self),
            runner: None,
        };
        {
            let mut state = lock(&self.state);
            state.running += 1;
            while let Some(runner) = state.idle.pop_front() {
                if runner.is_alive() {
                    lease.runner = Some(runner);
                    return Ok(lease);
                }
            }
        }
        lease.runner = Some(self.start_runner().await?);
        Ok(lease)
    }

    async fn start_runner(&self) -> Result<Arc<Runner>> {
        let frame = encode(&ToSupervisor::StartRunner)
            .map_err(|error| broken("encode a request", error))?;
        let mut fresh = false;
        loop {
            let socket = self.socket(fresh).await?;
            let (ours, theirs) = pair()?;
            match send_frame(&socket, &frame, &[theirs.as_fd()]).await {
                Ok(()) => {
                    return Ok(Arc::new(Runner {
                        socket: ours,
                        commands: AtomicU64::new(0),
                    }));
                }
                Err(error) if fresh => return Err(broken("reach the sandbox's supervisor", error)),
                Err(_) => fresh = true,
            }
        }
    }

    async fn socket(&self, fresh: bool) -> Result<Arc<UnixStream>> {
        let _starting = self.starting.lock().await;
        {
            let mut state = lock(&self.state);
            if state.ended {
                return Err(Error::new(
                    ErrorCode::NoSandbox,
                    "the sandbox was destroyed",
                ));
            }
            if fresh {
                state.socket = None;
            }
            if let Some(socket) = &state.socket {
                return Ok(Arc::clone(socket));
            }
        }
        let socket = Arc::new(self.launcher.supervisor(&self.start).await?);
        let mut state = lock(&self.state);
        if state.ended {
            return Err(Error::new(
                ErrorCode::NoSandbox,
                "the sandbox was destroyed",
            ));
        }
        state.socket = Some(Arc::clone(&socket));
        Ok(socket)
    }

    /// Ends every process of the sandbox, and returns when none is left.
    pub(crate) async fn end(&self) {
        let _starting = self.starting.lock().await;
        let socket = {
            let mut state = lock(&self.state);
            state.ended = true;
            state.idle.clear();
            state.socket.take()
        };
        if let Some(socket) = socket {
            hang_up_writing(&socket);
            until_closed(&socket).await;
        }
    }

    /// Lets the supervisor go if the sandbox has run nothing for `idle`, and
    /// has no background process.
    pub(crate) async fn rest(&self, idle: std::time::Duration) {
        let _starting = self.starting.lock().await;
        let socket = {
            let mut state = lock(&self.state);
            let rested = state
                .idle_since
                .is_some_and(|since| since.elapsed() >= idle);
            if state.running > 0 || !rested {
                return;
            }
            state.idle.clear();
            let Some(socket) = state.socket.clone() else {
                return;
            };
            socket
        };
        let Ok(frame) = encode(&ToSupervisor::LeaveIfIdle) else {
            return;
        };
        if send_frame(&socket, &frame, &[]).await.is_ok()
            && matches!(answer::<StillBusy>(&socket).await, Ok(Some(StillBusy)))
        {
            lock(&self.state).idle_since = Some(std::time::Instant::now());
        } else {
            lock(&self.state).socket = None;
        }
    }
}

/// A runner for the time of one command.
#[derive(Debug)]
pub(crate) struct Lease {
    supervisor: Arc<Supervisor>,
    /// `None` once it was given back.
    runner: Option<Arc<Runner>>,
}

impl Lease {
    pub(crate) fn runner(&self) -> Option<&Arc<Runner>> {
        self.runner.as_ref()
    }

    /// The command has ended and left nothing: the runner can have another.
    pub(crate) fn give_back(mut self) {
        if let Some(runner) = self.runner.take() {
            let mut state = lock(&self.supervisor.state);
            if !state.ended && state.idle.len() < IDLE_RUNNERS {
                state.idle.push_back(runner);
            }
        }
    }

    /// The command has ended, and its runner with it.
    pub(crate) fn forget(mut self) {
        self.runner = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(runner) = self.runner.take() {
            // Nobody waits for the command any more: its whole tree ends.
            hang_up(&runner.socket);
        }
        let mut state = lock(&self.supervisor.state);
        state.running -= 1;
        state.idle_since = Some(std::time::Instant::now());
    }
}

/// The host's end of a runner's socket.
#[derive(Debug)]
pub(crate) struct Runner {
    socket: UnixStream,
    commands: AtomicU64,
}

impl Runner {
    /// The number of the next command.
    pub(crate) fn next_command(&self) -> u64 {
        self.commands.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) async fn send(&self, message: &ToRunner, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_frame(&self.socket, &encode(message)?, fds).await
    }

    /// The report on a command, or `None` if the runner is gone.
    pub(crate) fn poll_report(
        &self,
        buffer: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<FromRunner>>> {
        loop {
            if let Some((report, _)) = decode_frame(buffer)? {
                buffer.clear();
                return Poll::Ready(Ok(Some(report)));
            }
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read_buf(buffer) {
                Ok(0) => return Poll::Ready(Ok(None)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(Ok(None));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Whether it is still there to be written to.
    fn is_alive(&self) -> bool {
        let mut byte = [0];
        matches!(self.socket.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A connected pair: our end for the runtime, the other for a process.
fn pair() -> Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) =
        std::os::unix::net::UnixStream::pair().map_err(|error| broken("make a socket", error))?;
    ours.set_nonblocking(true)
        .map_err(|error| broken("make a socket", error))?;
    let ours = UnixStream::from_std(ours).map_err(|error| broken("make a socket", error))?;
    Ok((ours, theirs.into()))
}

/// Writes a frame, with `fds` beside its first byte. One writer at a time for
/// frames that may not fit the socket's buffer at once.
async fn send_frame(socket: &UnixStream, frame: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut sent = 0;
    while sent < frame.len() {
        let fds = if sent == 0 { fds } else { &[] };
        match socket.try_io(Interest::WRITABLE, || {
            send_with(socket.as_fd(), &frame[sent..], fds)
        }) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads one message, or `None` at the end.
async fn answer<M: serde::de::DeserializeOwned>(socket: &UnixStream) -> io::Result<Option<M>> {
    let mut buffer = BytesMut::new();
    loop {
        if let Some((message, _)) = decode_frame(&buffer)? {
            return Ok(Some(message));
        }
        socket.readable().await?;
        match socket.try_read_buf(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the process at the other end is gone.
async fn until_closed(socket: &UnixStream) {
    let mut ignored = [0; 64];
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut ignored) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

fn hang_up(socket: &UnixStream) {
    // A socket that is disconnected already is as good.
    rustix::net::shutdown(socket, rustix::net::Shutdown::Both).ok();
}

fn hang_up_writing(socket: &UnixStream) {
    rustix::net::shutdown(socket, rustix::net::Shutdown::Write).ok();
}

fn broken(what: &str, error: io::Error) -> Error {
    let code = match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM) => {
            ErrorCode::Exhausted
        }
        _ => ErrorCode::Unavailable,
    };
    Error::new(code, format!("cannot {what}")).with_source(error)
}

/// These locks guard plain data that is whole between any two statements, so a
/// panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
