//! What happens, on its way to the daemon.
//!
//! ```text
//! push ─▶ pending ─▶ batch n, in flight ─▶ recorded
//!            ▲ pieces of one text are joined here while a batch is in flight
//! ```
//!
//! A [`Reporter`] takes events without waiting; the [`Pump`] sends them, in
//! order, one batch at a time. With nothing in flight an event leaves at once,
//! so the first word of an answer waits for nobody; while one is in flight,
//! pieces of text are joined, so that a fast model does not mean a call for each
//! word. Whoever makes many events waits for [`room`](Reporter::room) first,
//! which bounds what is pending.
//!
//! Nothing leaves before [`begin`](Reporter::begin), which is called when the
//! model says its first word or people have to know something. Until then the
//! work is untouched, and can be given back as if it had never been claimed.
//!
//! A batch keeps its number until the daemon answered: sending it again is safe.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use stigmer_sdk::wire::agent::{Event, TextDelta, ToolOutput, event::What};
use stigmer_sdk::{Error, ErrorCode};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ending::{Ending, Why};
use crate::sandbox::told;

/// What may be pending before those who make events have to wait.
const ROOM_BYTES: usize = 1024 * 1024;
/// What goes into one batch, unless a single event is larger.
const BATCH_BYTES: usize = 1024 * 1024;
/// And no more events than these.
const BATCH_EVENTS: usize = 500;
/// The largest event. What is longer is cut: a daemon takes no event above a
/// mebibyte, and would refuse all that came with it.
const EVENT_BYTES: usize = 768 * 1024;
/// Joined pieces of text or output do not grow beyond this.
const JOINED_BYTES: usize = 32 * 1024;
/// Between attempts while the daemon is out of reach, growing from one to the
/// other.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What the daemon says of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded {
    pub(crate) ttl: Duration,
    pub(crate) cancel_requested: bool,
}

/// Where batches go.
#[async_trait::async_trait]
pub(crate) trait Sink: Send + Sync {
    /// Records all of these, or none. [`ErrorCode::Unavailable`] and
    /// [`ErrorCode::TimedOut`] leave open whether it did.
    async fn record(&self, batch: u64, events: Vec<Event>) -> Result<Recorded, Error>;
}

#[derive(Debug, Default)]
struct Pending {
    events: VecDeque<Event>,
    bytes: usize,
    in_flight: bool,
    begun: bool,
    /// Nothing will be sent any more.
    closed: bool,
}

/// Takes events. All of an execution's share one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reporter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// A std mutex, because nothing awaits while it is held.
    pending: Mutex<Pending>,
    /// There is something to send.
    work: Notify,
    /// Something was recorded, or nothing will be any more.
    progress: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// Adds an event.
    pub(crate) fn push(&self, what: What) {
        let mut pending = self.0.lock();
        if pending.closed {
            return;
        }
        let what = fitting(what);
        pending.bytes += size(&what);
        if let Some(what) = join(pending.events.back_mut(), what) {
            pending.events.push_back(Event {
                at_ms: now_ms(),
                what: Some(what),
                ..Event::default()
            });
        }
        drop(pending);
        self.0.work.notify_one();
    }

    /// Lets events leave, from the first one on.
    pub(crate) fn begin(&self) {
        let begun = std::mem::replace(&mut self.0.lock().begun, true);
        if !begun {
            self.0.work.notify_one();
        }
    }

    /// Whether anything may have left.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.lock().begun
    }

    /// Waits until there is room for more.
    pub(crate) async fn room(&self) {
        self.until(|pending| pending.bytes < ROOM_BYTES || !pending.begun)
            .await;
    }

    /// Waits until everything is recorded, once something may leave. False if
    /// that will never be.
    pub(crate) async fn flush(&self) -> bool {
        self.until(|pending| pending.events.is_empty() && !pending.in_flight)
            .await
    }

    /// The same, but for no longer than this.
    pub(crate) async fn flush_within(&self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.flush())
            .await
            .unwrap_or(false)
    }

    async fn until(&self, condition: impl Fn(&Pending) -> bool) -> bool {
        loop {
            // Listens before it looks, so that nothing is missed in between.
            let progress = self.0.progress.notified();
            {
                let pending = self.0.lock();
                if pending.closed {
                    return false;
                }
                if condition(&pending) {
                    return true;
                }
            }
            progress.await;
        }
    }
}

/// Joins a piece of text or output with what is pending of the same. Gives it
/// back if it cannot.
fn join(last: Option<&mut Event>, what: What) -> Option<What> {
    match (last.and_then(|event| event.what.as_mut()), what) {
        (Some(What::Text(text)), What::Text(more))
            if text.message_id == more.message_id && text.text.len() < JOINED_BYTES =>
        {
            text.text.push_str(&more.text);
            None
        }
        (Some(What::Output(output)), What::Output(more))
            if output.tool_call_id == more.tool_call_id
                && output.stderr == more.stderr
                && output.data.len() < JOINED_BYTES =>
        {
            output.data = Bytes::from([&output.data[..], &more.data].concat());
            None
        }
        (_, what) => Some(what),
    }
}

/// Roughly what an event takes.
fn size(what: &What) -> usize {
    64 + match what {
        What::Text(TextDelta { text, .. }) => text.len(),
        What::Output(ToolOutput { data, .. }) => data.len(),
        What::Message(message) => message.content.len() + message.state.len(),
        What::ToolCall(call) => {
            let diffs: usize = call.changes.iter().map(|change| change.diff.len()).sum();
            call.args.len() + call.result.len() + diffs
        }
        What::Approval(approval) => {
            let diffs: usize = approval
                .changes
                .iter()
                .map(|change| change.diff.len())
                .sum();
            approval.summary.len() + diffs
        }
        What::Todos(todos) => todos.items.iter().map(|todo| todo.content.len()).sum(),
        What::Phase(_) | What::Usage(_) | What::CancelRequested(_) => 0,
    }
}

/// The event, cut to what a daemon takes.
fn fitting(mut what: What) -> What {
    if size(&what) <= EVENT_BYTES {
        return what;
    }
    match &mut what {
        What::Message(message) => {
            // Its text is understood without it.
            message.state = Bytes::new();
            cut(&mut message.content);
        }
        What::ToolCall(call) => {
            if call.args.len() > EVENT_BYTES / 4 {
                call.args = format!("{{\"left_out_bytes\":{}}}", call.args.len());
            }
            cut(&mut call.result);
            call.changes
                .iter_mut()
                .for_each(|change| change.diff.clear());
        }
        What::Approval(approval) => {
            cut(&mut approval.summary);
            approval
                .changes
                .iter_mut()
                .for_each(|change| change.diff.clear());
        }
        What::Text(delta) => cut(&mut delta.text),
        What::Todos(todos) => todos.items.iter_mut().for_each(|todo| {
            todo.content
                .truncate(todo.content.floor_char_boundary(1000));
        }),
        What::Output(_) | What::Phase(_) | What::Usage(_) | What::CancelRequested(_) => {}
    }
    what
}

fn cut(text: &mut String) {
    if text.len() > EVENT_BYTES / 2 {
        text.truncate(text.floor_char_boundary(EVENT_BYTES / 2));
        text.push_str("\n[cut here: it was longer]");
    }
}

/// Sends what a [`Reporter`] takes.
pub(crate) struct Pump<S> {
    reporter: Reporter,
    sink: S,
    ending: Arc<Ending>,
    ttl: Duration,
}

impl<S: Sink> Pump<S> {
    pub(crate) fn new(reporter: Reporter, sink: S, ending: Arc<Ending>, ttl: Duration) -> Self {
        Self {
            reporter,
            sink,
            ending,
            ttl,
        }
    }

    /// Sends until it is dropped, or the lease is lost.
    pub(crate) async fn run(mut self) {
        let mut batch = 0;
        loop {
            let events = self.next().await;
            batch += 1;
            match self.send(batch, events).await {
                Ok(recorded) => {
                    self.ttl = recorded.ttl;
                    if recorded.cancel_requested {
                        self.ending.end(Why::Cancelled(String::new()));
                    }
                }
                Err(error) => {
                    // A lease that is another's now, or gone with the daemon.
                    tracing::warn!(
                        error = told(&error),
                        "the execution is no longer this runner's"
                    );
                    self.ending.end(Why::Lost);
                    return;
                }
            }
            self.reporter.0.lock().in_flight = false;
            self.reporter.0.progress.notify_waiters();
        }
    }

    async fn next(&self) -> Vec<Event> {
        loop {
            let work = self.reporter.0.work.notified();
            {
                let mut pending = self.reporter.0.lock();
                let mut events = Vec::new();
                let mut taken = 0;
                while let Some(event) = pending.events.front().filter(|_| pending.begun) {
                    let bytes = event.what.as_ref().map_or(0, size);
                    let full = taken + bytes > BATCH_BYTES || events.len() == BATCH_EVENTS;
                    if full && !events.is_empty() {
                        break;
                    }
                    taken += bytes;
                    events.extend(pending.events.pop_front());
                }
                if !events.is_empty() {
                    // What was joined counted more than it is.
                    pending.bytes = if pending.events.is_empty() {
                        0
                    } else {
                        pending.bytes.saturating_sub(taken)
                    };
                    pending.in_flight = true;
                    return events;
                }
            }
            work.await;
        }
    }

    async fn send(&self, batch: u64, events: Vec<Event>) -> Result<Recorded, Error> {
        let mut pause = RETRY.0;
        let lapses = Instant::now() + self.ttl;
        loop {
            match self.sink.record(batch, events.clone()).await {
                Err(error)
                    if matches!(error.code(), ErrorCode::Unavailable | ErrorCode::TimedOut)
                        && Instant::now() + pause < lapses =>
                {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
                answer => return answer,
            }
        }
    }
}

impl<S> Drop for Pump<S> {
    /// Nobody waits for what will not be sent.
    fn drop(&mut self) {
        self.reporter.0.lock().closed = true;
        self.reporter.0.progress.notify_waiters();
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "report_tests.rs"]
pub(crate) mod tests;
