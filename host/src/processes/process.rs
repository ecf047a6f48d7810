//! One background process: what goes into it, what is kept of what comes out,
//! and how it ends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use stigmer_sdk::wire::host;
use stigmer_sdk::{
    Error, ErrorCode, Event, EventStream, ExitStatus, Input, InputStream, Result, Signal, Terminal,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::ring::{Piece, Ring};
use super::{Ended, Follow};
use crate::ops::output::Captured;

/// Messages of stdin that wait for the process. After that, writing waits.
const STDIN_QUEUE: usize = 8;
/// Sizes and signals that wait. They overtake stdin.
const CONTROL_QUEUE: usize = 16;
/// How long a process may take to be gone after SIGKILL, before it is left to
/// the guard.
const KILL_WAIT: Duration = Duration::from_secs(2);
/// Output that one attached client is sent at a time.
const PIECES_BYTES: u64 = 256 * 1024;

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    end: u64,
    ended: bool,
}

/// One background process.
#[derive(Debug)]
pub struct Process {
    pub id: String,
    pub name: String,
    pub run: host::Run,
    pub started_ms: u64,
    started: Instant,
    /// A std mutex, because nothing awaits while it is held.
    ring: Mutex<Ring>,
    progress: watch::Sender<Progress>,
    /// Set before `progress` says that it ended.
    outcome: OnceLock<Result<Ended>>,
    /// `None` if it was never connected, or is at its end.
    stdin: Mutex<Option<mpsc::Sender<Input>>>,
    control: mpsc::Sender<Input>,
    /// Tells the task to drop the events, which kills.
    abandon: CancellationToken,
}

impl Process {
    /// A process that is about to be started with these inputs.
    pub(super) fn new(
        name: String,
        run: host::Run,
        started_ms: u64,
        keep_bytes: u64,
        connect_stdin: bool,
    ) -> Result<(Arc<Self>, InputStream)> {
        let (stdin, stdin_queue) = mpsc::channel(STDIN_QUEUE);
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
        let process = Self {
            id: new_id()?,
            name,
            run,
            started_ms,
            started: Instant::now(),
            ring: Mutex::new(Ring::new(keep_bytes)),
            progress: watch::Sender::new(Progress::default()),
            outcome: OnceLock::new(),
            stdin: Mutex::new(connect_stdin.then_some(stdin)),
            control,
            abandon: CancellationToken::new(),
        };
        Ok((Arc::new(process), inputs(stdin_queue, control_queue)))
    }

    /// How it ended, or that it was lost; `None` while it runs.
    #[must_use]
    pub fn ended(&self) -> Option<&Result<Ended>> {
        self.outcome.get()
    }

    /// Where the next byte of output will be.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.ring().end()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the output until the exit.
    pub(super) async fn follow_to_the_end(
        self: Arc<Self>,
        mut events: EventStream,
        captured: Option<oneshot::Receiver<Option<Result<Captured>>>>,
    ) {
        let status = loop {
            let event = tokio::select! {
                biased;
                () = self.abandon.cancelled() => break Ok(ExitStatus::Signal(Signal::Kill.number())),
                event = events.next() => event,
            };
            match event {
                Some(Ok(Event::Stdout(bytes))) => self.push(false, &bytes),
                Some(Ok(Event::Stderr(bytes))) => self.push(true, &bytes),
                Some(Ok(Event::Exit(status))) => break Ok(status),
                Some(Err(error)) => break Err(error),
                None => {
                    break Err(Error::new(
                        ErrorCode::Unavailable,
                        "the process was lost: there was no exit",
                    ));
                }
            }
        };
        drop(events);
        let captured = match captured {
            Some(captured) => captured.await.ok().flatten(),
            None => None,
        };
        let ended = status.map(|status| Ended {
            status,
            duration: self.started.elapsed(),
            captured,
        });
        // Nobody else sets it.
        drop(self.outcome.set(ended));
        self.close_stdin_now();
        self.progress.send_modify(|progress| progress.ended = true);
    }

    fn push(&self, stderr: bool, bytes: &Bytes) {
        let end = {
            let mut ring = self.ring();
            ring.push(stderr, bytes);
            ring.end()
        };
        self.progress.send_modify(|progress| progress.end = end);
    }

    /// Output from an offset, or from the oldest that is kept, then what
    /// follows, and the exit. Ending the stream leaves the process alone.
    #[must_use]
    pub fn follow(self: Arc<Self>, offset: Option<u64>) -> BoxStream<'static, Result<Follow>> {
        struct State {
            process: Arc<Process>,
            progress: watch::Receiver<Progress>,
            offset: u64,
            ready: VecDeque<Piece>,
        }
        let state = State {
            progress: self.progress.subscribe(),
            process: self,
            offset: offset.unwrap_or(0),
            ready: VecDeque::new(),
        };
        stream::unfold(Some(state), |state| async {
            let mut state = state?;
            loop {
                if let Some(piece) = state.ready.pop_front() {
                    state.offset = piece.offset + piece.bytes.len() as u64;
                    return Some((Ok(Follow::Output(piece)), Some(state)));
                }
                // Marked as seen before the ring is read, so that nothing that
                // comes in between is waited for.
                let ended = state.progress.borrow_and_update().ended;
                state.ready = state.process.ring().read(state.offset, PIECES_BYTES).into();
                if !state.ready.is_empty() {
                    continue;
                }
                if ended {
                    let outcome = state.process.ended().cloned().unwrap_or_else(lost);
                    return Some((outcome.map(Follow::Exit), None));
                }
                if state.progress.changed().await.is_err() {
                    return Some((lost(), None));
                }
            }
        })
        .boxed()
    }

    /// Waits for the end, but not longer than this.
    pub async fn wait(&self, timeout: Duration) {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|progress| progress.ended);
        // Whether it ended or the time is up, `ended` says.
        drop(tokio::time::timeout(timeout, ended).await);
    }

    /// Output since an offset, at most about so much, and where to go on.
    #[must_use]
    pub fn output_since(&self, offset: u64, max: u64) -> (Vec<Piece>, u64) {
        let ring = self.ring();
        let pieces = ring.read(offset, max);
        let next = pieces
            .last()
            .map_or(ring.end().max(offset.min(ring.end())), |last| {
                last.offset + last.bytes.len() as u64
            });
        (pieces, next)
    }

    /// Writes to stdin, waiting until there is room.
    ///
    /// # Errors
    /// `InvalidArgument` if stdin is not connected or at its end, `NotFound`
    /// if the process is over.
    pub async fn write(&self, bytes: Bytes) -> Result<()> {
        let stdin = self
            .stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.check_running()?;
        let Some(stdin) = stdin else {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                "stdin: it is at its end, or was not connected when the process was started",
            ));
        };
        stdin.send(Input::Stdin(bytes)).await.map_err(|_| over())
    }

    /// Ends stdin, after what was written.
    pub async fn close_stdin(&self) {
        let stdin = self
            .stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(stdin) = stdin {
            // A process that is over has no stdin to close.
            drop(stdin.send(Input::CloseStdin).await);
        }
    }

    fn close_stdin_now(&self) {
        drop(
            self.stdin
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `NotFound` if the process is over.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.control(Input::Signal(signal)).await
    }

    /// Tells it the size of its terminal.
    ///
    /// # Errors
    /// `NotFound` if the process is over.
    pub async fn resize(&self, terminal: Terminal) -> Result<()> {
        self.control(Input::Resize(terminal)).await
    }

    async fn control(&self, input: Input) -> Result<()> {
        self.check_running()?;
        self.control.send(input).await.map_err(|_| over())
    }

    fn check_running(&self) -> Result<()> {
        if self.ended().is_some() {
            Err(over())
        } else {
            Ok(())
        }
    }

    /// SIGTERM, a grace period, SIGKILL. Returns when it is over.
    pub async fn stop(&self, grace: Duration) {
        for (signal, patience) in [(Signal::Terminate, grace), (Signal::Kill, KILL_WAIT)] {
            if self.ended().is_some() {
                return;
            }
            // A backend that takes no input for so long gets no more of it.
            drop(tokio::time::timeout(patience, self.signal(signal)).await);
            self.wait(patience).await;
        }
        self.abandon.cancel();
        self.wait(KILL_WAIT).await;
    }
}

fn over() -> Error {
    Error::new(ErrorCode::NotFound, "the process is over")
}

fn lost<T>() -> Result<T> {
    Err(Error::new(ErrorCode::Unavailable, "the process was lost"))
}

/// Signals and sizes first: stdin may be full of what the process never reads.
fn inputs(mut stdin: mpsc::Receiver<Input>, mut control: mpsc::Receiver<Input>) -> InputStream {
    let mut stdin_open = true;
    stream::poll_fn(move |cx| {
        if let Poll::Ready(Some(input)) = control.poll_recv(cx) {
            return Poll::Ready(Some(input));
        }
        if stdin_open {
            match stdin.poll_recv(cx) {
                Poll::Ready(Some(input)) => return Poll::Ready(Some(input)),
                Poll::Ready(None) => {
                    stdin_open = false;
                    return Poll::Ready(Some(Input::CloseStdin));
                }
                Poll::Pending => {}
            }
        }
        // Signals may come until the command is over, and then this is dropped.
        Poll::Pending
    })
    .boxed()
}

/// Random, so that the id of a process of a daemon that is gone names no other.
fn new_id() -> Result<String> {
    let mut bytes = [0_u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::internal("cannot make an id", error))?;
    Ok(format!("p-{:016x}", u64::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn process(keep: u64) -> Arc<Process> {
        let (process, _) =
            Process::new(String::new(), host::Run::default(), 0, keep, true).unwrap();
        process
    }

    fn events(items: Vec<Result<Event>>) -> EventStream {
        stream::iter(items).boxed()
    }

    async fn followed(process: &Arc<Process>, offset: Option<u64>) -> String {
        let follow = Arc::clone(process).follow(offset);
        let seen = follow.map(|item| match item {
            Ok(Follow::Output(piece)) => {
                format!("{}:{}", piece.offset, String::from_utf8_lossy(&piece.bytes))
            }
            Ok(Follow::Exit(ended)) => ended.status.to_string(),
            Err(error) => error.code().to_string(),
        });
        seen.collect::<Vec<_>>().await.join(" ")
    }

    #[tokio::test]
    async fn any_number_of_clients_see_output_and_exit() {
        let process = process(100);
        let early = Arc::clone(&process).follow(None).collect::<Vec<_>>();
        let exit = Event::Exit(ExitStatus::Code(3));
        let output = vec![
            Ok(Event::Stdout("abc".into())),
            Ok(Event::Stderr("de".into())),
            Ok(exit),
        ];
        let (early, ()) = tokio::join!(
            early,
            Arc::clone(&process).follow_to_the_end(events(output), None)
        );
        assert_eq!(early.len(), 3);
        assert_eq!(followed(&process, None).await, "0:abc 3:de exit code 3");
        assert_eq!(followed(&process, Some(4)).await, "4:e exit code 3");
        assert_eq!(process.output_since(1, 3), (process.ring().read(1, 3), 4));
        assert_eq!(process.output_since(5, 3), (Vec::new(), 5));
        assert_eq!(process.output_bytes(), 5);
    }

    #[tokio::test]
    async fn a_process_without_an_exit_is_lost() {
        #[track_caller]
        fn check(items: Vec<Result<Event>>, expected: &str) {
            let process = process(100);
            Arc::clone(&process)
                .follow_to_the_end(events(items), None)
                .now_or_never()
                .unwrap();
            assert_eq!(followed(&process, None).now_or_never().unwrap(), expected);
            assert_eq!(
                process
                    .signal(Signal::Kill)
                    .now_or_never()
                    .unwrap()
                    .unwrap_err()
                    .code(),
                ErrorCode::NotFound
            );
        }
        check(vec![], "unavailable");
        check(
            vec![Err(Error::new(ErrorCode::NoSandbox, ""))],
            "no_sandbox",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_and_stopping_always_ends() {
        let process = process(100);
        let running = Arc::clone(&process).follow_to_the_end(stream::pending().boxed(), None);
        let stop = async {
            process.wait(Duration::from_secs(1)).await;
            assert!(process.ended().is_none());
            process.stop(Duration::from_secs(5)).await;
        };
        tokio::join!(running, stop);
        let ended = process.ended().unwrap().clone().unwrap();
        assert_eq!(ended.status, ExitStatus::Signal(9));
    }

    #[tokio::test]
    async fn signals_overtake_stdin() {
        let (stdin, stdin_queue) = mpsc::channel(4);
        let (control, control_queue) = mpsc::channel(4);
        let mut inputs = inputs(stdin_queue, control_queue);
        stdin.send(Input::Stdin("a".into())).await.unwrap();
        control.send(Input::Signal(Signal::Hangup)).await.unwrap();
        assert_eq!(inputs.next().await, Some(Input::Signal(Signal::Hangup)));
        assert_eq!(inputs.next().await, Some(Input::Stdin("a".into())));
        drop(stdin);
        assert_eq!(inputs.next().await, Some(Input::CloseStdin));
        assert!(inputs.next().now_or_never().is_none());
        control.send(Input::Signal(Signal::Kill)).await.unwrap();
        assert_eq!(inputs.next().await, Some(Input::Signal(Signal::Kill)));
    }
}
