//! The events of an execution, from a daemon that may go away and come back.
//!
//! A stream that breaks is taken up after the last event that it brought, so
//! that none is missed or seen twice, as long as the daemon is back in time.

use std::time::Duration;

use stigmer_sdk::wire::agent::{Event, Phase, SubscribeRequest, SubscribeResponse, event::What};
use stigmer_sdk::wire::sandbox::ErrorCode;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use crate::cli::daemon::Daemon;
use crate::cli::failure::{Failure, Result, wire_error};

/// How long a daemon may be away. A restart takes a second or two; who waits
/// for longer waits for something else.
const AWAY: Duration = Duration::from_secs(10);
/// Between attempts, at first and at most.
const BACK_OFF: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Subscription {
    daemon: Daemon,
    execution: String,
    next: u64,
    stream: Option<Streaming<SubscribeResponse>>,
    /// The stream broke, and has brought nothing since.
    broken: Option<Broken>,
}

/// What comes of listening.
#[derive(Debug)]
pub(super) enum Heard {
    Event(Box<Event>),
    /// The stream broke; it is being taken up again.
    Lost,
}

#[derive(Debug)]
struct Broken {
    give_up: Instant,
    retry: Instant,
    back_off: Duration,
}

impl Subscription {
    pub(super) fn new(daemon: Daemon, execution: String, from: u64) -> Self {
        Self {
            daemon,
            execution,
            next: from.max(1),
            stream: None,
            broken: None,
        }
    }

    /// The next event, or that there will be a pause before it. After one that
    /// brings a final phase there is none. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Heard> {
        loop {
            let status = match self.attempt().await {
                Ok(event) if event.seq < self.next => continue,
                Ok(event) if event.seq == self.next => {
                    self.next += 1;
                    self.broken = None;
                    return Ok(Heard::Event(Box::new(event)));
                }
                // What is missing is asked for again.
                Ok(event) => Status::unavailable(format!(
                    "event {} came where {} was due",
                    event.seq, self.next
                )),
                Err(status) => status,
            };
            self.stream = None;
            if !is_transient(&status) {
                return Err(status.into());
            }
            let first = self.broken.is_none();
            self.broke(&status)?;
            if first {
                return Ok(Heard::Lost);
            }
        }
    }

    async fn attempt(&mut self) -> Result<Event, Status> {
        if let Some(broken) = &self.broken {
            tokio::time::sleep_until(broken.retry).await;
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let request = SubscribeRequest {
                    execution_id: self.execution.clone(),
                    from_seq: self.next,
                };
                let answer = self.daemon.executions().subscribe(request).await?;
                self.stream.insert(answer.into_inner())
            }
        };
        let event = stream.message().await?.and_then(|answer| answer.event);
        event.ok_or_else(|| Status::unavailable("the events ended before the execution did"))
    }

    /// Plans the next attempt, if there may be one.
    fn broke(&mut self, status: &Status) -> Result<()> {
        let now = Instant::now();
        let (give_up, back_off) = match &self.broken {
            Some(broken) => (broken.give_up, (broken.back_off * 2).min(BACK_OFF_MAX)),
            None => (now + AWAY, BACK_OFF),
        };
        if now >= give_up {
            let mut failure = Failure::failed(format!(
                "lost the Stigmer daemon, and it is not back after {} seconds",
                AWAY.as_secs()
            ));
            failure.causes.push(status.message().to_owned());
            return Err(failure
                .hint("start it with: stigmer local start")
                .hint(format!(
                    "then see what became of it with: stigmer execution follow {} --from {}",
                    self.execution, self.next
                )));
        }
        self.broken = Some(Broken {
            give_up,
            retry: now + back_off,
            back_off,
        });
        Ok(())
    }
}

/// Whether the same question may have a better answer later.
fn is_transient(status: &Status) -> bool {
    if let Some(error) = wire_error(status) {
        // The daemon's own word, and not that of the connection.
        return matches!(error.code(), ErrorCode::Unavailable | ErrorCode::Cancelled);
    }
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted | Code::Internal => {
            true
        }
        Code::Ok
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// The phase that nothing follows, if an event brings it.
pub(super) fn final_phase(event: &Event) -> Option<Phase> {
    let Some(What::Phase(change)) = &event.what else {
        return None;
    };
    let phase = change.phase();
    is_final(phase).then_some(phase)
}

pub(in crate::cli) fn is_final(phase: Phase) -> bool {
    match phase {
        Phase::Completed | Phase::Failed | Phase::Cancelled => true,
        Phase::Unspecified | Phase::Pending | Phase::InProgress => false,
    }
}
