//! A command on its way: its pipes, its inputs, and the events they make.
//!
//! ```text
//!              output ◀──┐
//! NotStarted ─▶ why ─▶ Exit
//! running ── report ─▶ lingering ── end of output, or 250 ms ─▶ Exit
//!    └── dropped ─▶ its whole tree is killed
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use stigmer_sdk::{
    Command, Error, ErrorCode, Event, ExitStatus, Input, InputStream, Result, Signal, Terminal,
};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::protocol::{FromRunner, Start, Status, ToRunner};
use crate::supervise::{Lease, Runner};

/// How long output of background processes is passed on after the exit.
const LINGER: Duration = Duration::from_millis(250);
/// What a pipe holds before the command has to wait. The default of 64 KiB
/// costs a switch between the processes for each.
const PIPE_BYTES: usize = 256 << 10;
/// The first read from a pipe; each that fills its room doubles the next.
const FIRST_READ: usize = 8 << 10;
const LARGEST_READ: usize = 256 << 10;
/// stdin that the command has not taken yet. Beyond it, inputs wait.
const STDIN_QUEUE: usize = 1 << 20;
/// What a terminal takes for the end of input.
const END_OF_TRANSMISSION: &[u8] = &[4];

/// The descriptors of a command, ours and its own.
pub(crate) struct Streams {
    stdin: Option<Sender>,
    stdout: Source,
    stderr: Option<Source>,
    /// The controlling side of its terminal.
    master: Option<OwnedFd>,
    theirs: [OwnedFd; 3],
    /// The path of its terminal.
    terminal: Option<String>,
}

impl Streams {
    /// Makes what the command asks for.
    pub(crate) fn new(command: &Command) -> io::Result<Self> {
        match command.terminal_size() {
            Some(size) => Self::terminal(size),
            None => Self::pipes(command.connects_stdin(), command.merges_stderr()),
        }
    }

    fn pipes(connect_stdin: bool, merge_stderr: bool) -> io::Result<Self> {
        let (stdin, their_stdin) = if connect_stdin {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            (Some(Sender::from_owned_fd(ours)?), theirs)
        } else {
            let null = rustix::fs::open(
                "/dev/null",
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?;
            (None, null)
        };
        let (stdout, their_stdout) = output()?;
        let (stderr, their_stderr) = if merge_stderr {
            (None, their_stdout.try_clone()?)
        } else {
            let (stderr, theirs) = output()?;
            (Some(stderr), theirs)
        };
        let theirs = [their_stdin, their_stdout, their_stderr];
        Ok(Self {
            stdin,
            stdout,
            stderr,
            master: None,
            theirs,
            terminal: None,
        })
    }

    fn terminal(size: Terminal) -> io::Result<Self> {
        let master =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let path = rustix::pty::ptsname(&master, Vec::new())?
            .into_string()
            .map_err(io::Error::other)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        resize(&master, size)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self {
            stdin: Some(Sender::from_owned_fd_unchecked(master.try_clone()?)?),
            stdout: Source::new(Receiver::from_owned_fd_unchecked(master.try_clone()?)?),
            stderr: None,
            master: Some(master),
            theirs: [slave.try_clone()?, slave.try_clone()?, slave],
            terminal: Some(path),
        })
    }

    /// Hands the command to a runner, and its streams to whoever reads them.
    pub(crate) async fn start(
        self,
        lease: Lease,
        cwd: OwnedFd,
        command: &Command,
        env: Vec<(String, String)>,
        input: InputStream,
        drains: Drains,
    ) -> Result<Running> {
        let Some(runner) = lease.runner().map(Arc::clone) else {
            return Err(Error::new(
                ErrorCode::Internal,
                "a command was given no runner",
            ));
        };
        let number = runner.next_command();
        let start = Start {
            command: number,
            argv: command.argv().to_vec(),
            env,
            terminal: self.terminal,
        };
        let [stdin, stdout, stderr] = &self.theirs;
        let fds = [cwd.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let sent = runner.send(&ToRunner::Start(start), &fds).await;
        let mut events = Running {
            lease: Some(lease),
            report: BytesMut::new(),
            sources: [Some(self.stdout), self.stderr],
            stderr_first: false,
            merged: command.merges_stderr(),
            status: None,
            ended: None,
            linger: None,
            pending: VecDeque::new(),
            done: false,
            pump: None,
            drains,
        };
        match sent {
            Ok(()) => {
                let pump = Pump {
                    runner,
                    command: number,
                    stdin: self.stdin,
                    master: self.master,
                };
                #[expect(
                    clippy::disallowed_methods,
                    reason = "owned by `Running`, which aborts it"
                )]
                let task = tokio::spawn(pump.run(input));
                events.pump = Some(task.abort_handle());
            }
            // The frame is longer than the kernel's own limit for what it says.
            Err(error)
                if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::TOOBIG) =>
            {
                let name = command.argv().first().map_or("", String::as_str);
                events.fail(
                    126,
                    &format!("{name}: argument list or environment too long"),
                );
            }
            Err(error) => {
                return Err(Error::new(
                    ErrorCode::Unavailable,
                    "the sandbox's processes cannot be reached",
                )
                .with_source(error));
            }
        }
        Ok(events)
    }
}

/// One pipe for output: ours, which never waits, and the command's, which does.
fn output() -> io::Result<(Source, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    // Refused above the user's share of pipe memory; the default does as well.
    fcntl_setpipe_size(&ours, PIPE_BYTES).ok();
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((Source::new(Receiver::from_owned_fd(ours)?), theirs))
}

fn resize(master: &OwnedFd, size: Terminal) -> io::Result<()> {
    let size = Winsize {
        ws_col: size.columns(),
        ws_row: size.rows(),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(master, size)?)
}

/// A pipe or a terminal that is read from, with room for what comes.
#[derive(Debug)]
struct Source {
    receiver: Receiver,
    room: BytesMut,
    next_read: usize,
}

impl Source {
    fn new(receiver: Receiver) -> Self {
        Self {
            receiver,
            room: BytesMut::new(),
            next_read: FIRST_READ,
        }
    }

    /// The next piece; `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if ready!(self.receiver.poll_read_ready(cx)).is_err() {
                return Poll::Ready(None);
            }
            self.room.reserve(self.next_read);
            let room = self.room.capacity();
            match self.receiver.try_read_buf(&mut self.room) {
                Ok(0) => return Poll::Ready(None),
                Ok(count) => {
                    if count >= room {
                        self.next_read = (self.next_read * 4).min(LARGEST_READ);
                    }
                    return Poll::Ready(Some(self.room.split().freeze()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A terminal whose last user has gone answers EIO.
                Err(_) => return Poll::Ready(None),
            }
        }
    }
}

/// Where pipes go that background processes still write to when their command
/// has ended: read and forgotten, so that they neither wait nor die of SIGPIPE.
#[derive(Clone, Debug)]
pub(crate) struct Drains {
    pub(crate) tasks: tokio_util::task::TaskTracker,
    pub(crate) stop: tokio_util::sync::CancellationToken,
}

impl Drains {
    fn take(&self, mut source: Source) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let drain = std::future::poll_fn(|cx| {
                while let Some(_forgotten) = ready!(source.poll_piece(cx)) {}
                Poll::Ready(())
            });
            tokio::select! {
                () = drain => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// The events of one command.
pub(crate) struct Running {
    /// Given back at the exit; dropped before it, it ends the command's tree.
    lease: Option<Lease>,
    report: BytesMut,
    /// stdout and stderr; `None` at their end.
    sources: [Option<Source>; 2],
    /// The streams take turns at being first, so that neither starves.
    stderr_first: bool,
    merged: bool,
    status: Option<ExitStatus>,
    /// When the program itself ended, and the wait for output after it.
    ended: Option<Instant>,
    linger: Option<Pin<Box<Sleep>>>,
    /// Events that wait for their turn.
    pending: VecDeque<Event>,
    done: bool,
    pump: Option<AbortHandle>,
    drains: Drains,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// It did not start: says why where the command would have.
    fn fail(&mut self, code: u8, reason: &str) {
        let line = Bytes::from(format!("stigmer: {reason}\n"));
        self.pending.push_back(if self.merged {
            Event::Stdout(line)
        } else {
            Event::Stderr(line)
        });
        self.sources = [None, None];
        self.status = Some(ExitStatus::Code(code));
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.stderr_first = !self.stderr_first;
        let order = if self.stderr_first { [1, 0] } else { [0, 1] };
        for index in order {
            let Some(source) = &mut self.sources[index] else {
                continue;
            };
            match source.poll_piece(cx) {
                Poll::Ready(Some(piece)) if index == 0 => return Poll::Ready(Event::Stdout(piece)),
                Poll::Ready(Some(piece)) => return Poll::Ready(Event::Stderr(piece)),
                Poll::Ready(None) => self.sources[index] = None,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Waits for the runner's report.
    fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(runner) = self.lease.as_ref().and_then(Lease::runner) else {
            return Poll::Pending;
        };
        let report = match ready!(runner.poll_report(&mut self.report, cx)) {
            Ok(Some(report)) => report,
            Ok(None) => return Poll::Ready(Err(lost())),
            Err(error) => return Poll::Ready(Err(lost().with_source(error))),
        };
        let Some(lease) = self.lease.take() else {
            return Poll::Pending;
        };
        match report {
            FromRunner::NotStarted { code, reason } => {
                self.lease = Some(lease);
                self.fail(code, &reason);
            }
            FromRunner::Exited { status, survivors } => {
                if survivors {
                    lease.forget()
                } else {
                    lease.give_back()
                }
                self.status = Some(match status {
                    Status::Code(code) => ExitStatus::Code(code),
                    Status::Signal(number) => ExitStatus::Signal(number),
                });
                self.ended = Some(Instant::now());
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self) {
        self.done = true;
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
        for source in self.sources.iter_mut().filter_map(Option::take) {
            self.drains.take(source);
        }
    }
}

fn lost() -> Error {
    Error::new(
        ErrorCode::Unavailable,
        "the process that ran this command was killed, and the command with it",
    )
}

impl Stream for Running {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            // Looked at before the output, which may never pause.
            let waited = self.ended.is_some_and(|ended| ended.elapsed() >= LINGER);
            if !waited && let Poll::Ready(event) = self.poll_output(cx) {
                return Poll::Ready(Some(Ok(event)));
            }
            match self.status.clone() {
                Some(status) if waited || self.sources.iter().all(Option::is_none) => {
                    self.finish();
                    return Poll::Ready(Some(Ok(Event::Exit(status))));
                }
                // Most commands leave no writer behind, and so never need the timer.
                Some(_) => {
                    let deadline = self.ended.unwrap_or_else(Instant::now) + LINGER;
                    let linger = self
                        .linger
                        .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                    ready!(linger.as_mut().poll(cx));
                }
                None => {
                    if let Err(error) = ready!(self.poll_report(cx)) {
                        self.finish();
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
    }
}

/// Carries inputs to the command, whether or not anybody takes its output: a
/// signal must not wait for a reader.
struct Pump {
    runner: Arc<Runner>,
    command: u64,
    stdin: Option<Sender>,
    master: Option<OwnedFd>,
}

impl Pump {
    async fn run(mut self, mut input: InputStream) {
        let mut queue: VecDeque<Bytes> = VecDeque::new();
        let mut queued = 0;
        let mut closing = false;
        loop {
            // An input that is always ready must not keep this from being aborted.
            tokio::task::consume_budget().await;
            if closing && queue.is_empty() {
                self.close_stdin().await;
            }
            tokio::select! {
                biased;
                next = input.next(), if queued < STDIN_QUEUE => match next {
                    Some(Input::Stdin(bytes)) if self.stdin.is_some() && !closing => {
                        queued += bytes.len();
                        queue.push_back(bytes);
                    }
                    Some(Input::Stdin(_)) => {}
                    Some(Input::CloseStdin) => closing = true,
                    Some(Input::Resize(size)) => {
                        if let Some(master) = &self.master {
                            // Refused only by a terminal that is gone.
                            resize(master, size).ok();
                        }
                    }
                    Some(Input::Signal(signal)) => self.signal(signal).await,
                    None => break,
                },
                () = self.write(&mut queue, &mut queued), if !queue.is_empty() => {}
            }
        }
        while !queue.is_empty() {
            self.write(&mut queue, &mut queued).await;
        }
        self.close_stdin().await;
    }

    /// Writes some of the queue; without a reader, forgets it.
    async fn write(&mut self, queue: &mut VecDeque<Bytes>, queued: &mut usize) {
        let (Some(stdin), Some(bytes)) = (&self.stdin, queue.front_mut()) else {
            queue.clear();
            *queued = 0;
            return;
        };
        if bytes.is_empty() {
            queue.pop_front();
            return;
        }
        let written = match stdin.writable().await {
            Ok(()) => stdin.try_write(bytes),
            Err(error) => Err(error),
        };
        match written {
            Ok(count) => {
                *queued -= count;
                bytes.advance(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                self.stdin = None;
                queue.clear();
                *queued = 0;
            }
        }
    }

    async fn close_stdin(&mut self) {
        if let Some(stdin) = self.stdin.take()
            && self.master.is_some()
            && stdin.writable().await.is_ok()
        {
            // Only a program that reads lines will notice, as at any terminal.
            stdin.try_write(END_OF_TRANSMISSION).ok();
        }
    }

    async fn signal(&self, signal: Signal) {
        let foreground = self
            .master
            .as_ref()
            .and_then(|master| tcgetpgrp(master).ok());
        let message = ToRunner::Signal {
            command: self.command,
            signal: signal.number(),
            group: foreground.map(|group| group.as_raw_nonzero().get()),
        };
        // A runner that is gone has no command either, and the events say so.
        self.runner.send(&message, &[]).await.ok();
    }
}
