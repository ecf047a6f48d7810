//! How a command ends that does not end itself.
//!
//! ```text
//! running ──exit──▶ its own status
//!    │ deadline, or the daemon stops
//!    ▼
//! SIGTERM ──exit──▶ TimedOut at a deadline, else its own status
//!    │ grace
//!    ▼
//! SIGKILL ──exit──▶ the same
//!    │ KILL_WAIT
//!    ▼
//! given up: TimedOut at a deadline, else Cancelled
//! ```
//!
//! Output is passed on in every state. Whoever drops the events before the exit
//! sets off the same in the background: SIGTERM, the grace period, and then the
//! events underneath are dropped, which kills.
//!
//! All of that is one future, [`watch`]. The stream of events polls it along
//! with the command, so that a command costs no task of its own. Past
//! [`UNATTENDED_BYTES`] of output the future moves to a task, because then the
//! reader may be one that has stopped reading, whom nothing polls, and the
//! deadline holds all the same.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use stigmer_sdk::{
    Command, Error, ErrorCode, Event, EventStream, ExitStatus, Input, InputStream, Result, Sandbox,
    Signal,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::audit::{Audit, Outcome};
use super::streams::stalled;
use super::{Guard, KILL_WAIT};
use crate::config::Limits;

/// Output that any reader's buffers take without reading: HTTP/2's initial
/// window.
const UNATTENDED_BYTES: u64 = 64 * 1024;

/// How long a command may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// What is configured.
    Default,
    /// This; no time at all means [`Self::None`].
    After(Duration),
    /// For as long as it wants.
    None,
}

impl Timeout {
    /// What it means under these limits.
    pub(super) fn under(self, limits: &Limits) -> Result<Option<Duration>> {
        match self {
            Self::Default => Ok(Some(limits.default_timeout)),
            Self::None => Ok(None),
            Self::After(timeout) if timeout.is_zero() => Ok(None),
            Self::After(timeout) if timeout <= limits.max_timeout => Ok(Some(timeout)),
            Self::After(timeout) => Err(Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "a timeout of {} is above the maximum of {}; 0 means none",
                    humantime::format_duration(timeout),
                    humantime::format_duration(limits.max_timeout),
                ),
            )),
        }
    }
}

/// Starts a command whose end this module sees to.
pub(super) async fn start(
    guard: &Arc<Guard>,
    sandbox: &dyn Sandbox,
    command: Command,
    input: InputStream,
    timeout: Option<Duration>,
) -> Result<Running> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let (signals, receiver) = unbounded_channel();
    let inputs = Inputs {
        signals: receiver,
        caller: Some(input),
    };
    let patience = guard.limits.operation_timeout;
    let events = tokio::time::timeout(patience, sandbox.exec(command, Box::pin(inputs)))
        .await
        .unwrap_or_else(|_| Err(stalled(patience)))?;
    let cause = Arc::new(Cause::default());
    let watch = watch(
        Arc::clone(guard),
        deadline,
        signals.clone(),
        Arc::clone(&cause),
    );
    Ok(Running {
        guard: Arc::clone(guard),
        events: Some(events),
        watch: Watch::Inline(Box::pin(watch)),
        signals,
        cause,
        bytes: 0,
        audit: None,
    })
}

/// Why a command is being ended, if it is.
#[derive(Debug, Default)]
struct Cause(AtomicU8);

impl Cause {
    const DEADLINE: u8 = 1;
    const SHUTDOWN: u8 = 2;

    fn set(&self, cause: u8) {
        self.0.store(cause, Ordering::Release);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

/// Waits for a reason to end the command and then ends it. Over when it cannot
/// be ended. A signal that cannot be sent finds nobody to send it to.
async fn watch(
    guard: Arc<Guard>,
    deadline: Option<Instant>,
    signals: UnboundedSender<Signal>,
    cause: Arc<Cause>,
) {
    let passes = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = passes => cause.set(Cause::DEADLINE),
        () = guard.stop.cancelled() => cause.set(Cause::SHUTDOWN),
    }
    signals.send(Signal::Terminate).ok();
    tokio::time::sleep(guard.limits.grace).await;
    signals.send(Signal::Kill).ok();
    tokio::time::sleep(KILL_WAIT).await;
}

/// Who polls [`watch`].
enum Watch {
    Inline(BoxFuture<'static, ()>),
    Task(JoinHandle<()>),
}

/// The events of a command whose end is seen to.
pub(super) struct Running {
    guard: Arc<Guard>,
    /// `None` once it is over.
    events: Option<EventStream>,
    watch: Watch,
    signals: UnboundedSender<Signal>,
    cause: Arc<Cause>,
    bytes: u64,
    audit: Option<Audit>,
}

impl Running {
    /// Lets this audit end with the command.
    pub(super) fn audited(mut self, audit: Audit) -> Self {
        self.audit = Some(audit);
        self
    }

    /// Moves the watch to a task once there was a lot of output.
    fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes > UNATTENDED_BYTES
            && let Watch::Inline(watch) = &mut self.watch
        {
            let watch = std::mem::replace(watch, Box::pin(std::future::pending()));
            self.watch = Watch::Task(self.guard.tasks.spawn(watch));
        }
    }

    /// Leaves nothing to be ended, and says how it was.
    fn over(&mut self, result: Result<Event>) -> Poll<Option<Result<Event>>> {
        self.events = None;
        if let Watch::Task(task) = &self.watch {
            task.abort();
        }
        if let Some(mut audit) = self.audit.take() {
            audit.bytes = self.bytes;
            audit.end(&match &result {
                Ok(Event::Exit(status)) => Outcome::Exit(status.clone()),
                Ok(Event::Stdout(_) | Event::Stderr(_)) => Outcome::Ok,
                Err(error) => Outcome::Error(error.code()),
            });
        }
        Poll::Ready(Some(result))
    }
}

impl Stream for Running {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        let this = self.get_mut();
        let Some(events) = &mut this.events else {
            return Poll::Ready(None);
        };
        // First, so that a command which never stops writing has a deadline too.
        let given_up = match &mut this.watch {
            Watch::Inline(watch) => watch.as_mut().poll(context).is_ready(),
            Watch::Task(task) => Pin::new(task).poll(context).is_ready(),
        };
        let timed_out = this.cause.get() == Cause::DEADLINE;
        match events.as_mut().poll_next(context) {
            Poll::Ready(Some(Ok(Event::Exit(_)))) if timed_out => {
                this.over(Ok(Event::Exit(ExitStatus::TimedOut)))
            }
            Poll::Ready(Some(Ok(event @ Event::Exit(_)))) => this.over(Ok(event)),
            // One that is given up may go on writing for ever.
            Poll::Ready(Some(Ok(_))) | Poll::Pending if given_up && timed_out => {
                this.over(Ok(Event::Exit(ExitStatus::TimedOut)))
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending if given_up => this.over(Err(Error::new(
                ErrorCode::Cancelled,
                "the daemon stopped, and the command did not end when killed",
            ))),
            Poll::Ready(Some(Ok(event))) => {
                if let Event::Stdout(bytes) | Event::Stderr(bytes) = &event {
                    this.count(bytes.len());
                }
                Poll::Ready(Some(Ok(event)))
            }
            Poll::Ready(Some(Err(error))) => this.over(Err(error)),
            Poll::Ready(None) => this.over(Err(Error::new(
                ErrorCode::Unavailable,
                "the command was lost: its backend sent no exit",
            ))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut events) = self.events.take() else {
            return;
        };
        if let Watch::Task(task) = &self.watch {
            task.abort();
        }
        // Without a runtime there is no time either, and dropping kills at once.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.cause.get() == 0 {
            self.signals.send(Signal::Terminate).ok();
        }
        let grace = self.guard.limits.grace;
        let signals = self.signals.clone();
        let end = async move {
            // Takes the output, so that a command that writes can end.
            let exit = async {
                while let Some(Ok(Event::Stdout(_) | Event::Stderr(_))) = events.next().await {}
            };
            // Over in time or killed by what follows, it is over.
            tokio::time::timeout(grace, exit).await.ok();
            drop(events);
            drop(signals);
        };
        self.guard.tasks.spawn_on(end, &runtime);
    }
}

/// What the caller sends, and the signals that end the command. The end of the
/// caller's part is [`Input::CloseStdin`], so that signals can still follow.
struct Inputs {
    signals: UnboundedReceiver<Signal>,
    caller: Option<InputStream>,
}

impl Stream for Inputs {
    type Item = Input;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Input>> {
        match self.signals.poll_recv(context) {
            Poll::Ready(Some(signal)) => return Poll::Ready(Some(Input::Signal(signal))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        let Some(caller) = &mut self.caller else {
            return Poll::Pending;
        };
        match caller.as_mut().poll_next(context) {
            Poll::Ready(None) => {
                self.caller = None;
                Poll::Ready(Some(Input::CloseStdin))
            }
            other => other,
        }
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
