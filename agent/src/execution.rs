//! One execution, from the claim to its final phase.
//!
//! ```text
//! claimed ─▶ prepared ─▶ turns ─▶ COMPLETED | FAILED
//!    │                    │
//!    └──── Ending ────────┴─▶ CANCELLED | FAILED | released | left to the daemon
//! ```
//!
//! Three tasks belong to it and end with it: the [`Pump`] of what is reported,
//! the heartbeat of the lease, on a timer of its own so that no long command or
//! slow model can let it lapse, and the clock of its timeout.

use std::sync::Arc;
use std::time::Duration;

use stigmer_sdk::wire::agent::{self, Event, Phase, PhaseChange, event::What};
use stigmer_sdk::wire::sandbox;
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ask::{Halt, failed, seconds};
use crate::daemon::{Daemon, from_status, within};
use crate::ending::Why;
use crate::mask::Mask;
use crate::prepare::{Claimed, Shared, mask, prepare};
use crate::report::{Pump, Recorded, Reporter, Sink};
use crate::sandbox::told;
use crate::turn::Held;

/// How long one report may take. Above what a busy daemon needs, and short
/// enough that a lease survives an attempt or two.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last report may take when the runner has been told to stop.
const STOPPING: Duration = Duration::from_secs(2);
/// Works on an execution until it is over, or no longer this runner's.
pub(crate) async fn work(shared: Arc<Shared>, daemon: Daemon, claimed: Claimed, held: Arc<Held>) {
    let id = claimed.execution.execution_id.clone();
    if claimed.status().cancel_requested {
        held.ending.end(Why::Cancelled(String::new()));
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    let reporter = Reporter::default();
    let sink = Lease::new(daemon.clone(), &claimed);
    let pump = Pump::new(
        reporter.clone(),
        sink,
        Arc::clone(&held.ending),
        claimed.ttl(),
    );
    tasks.spawn(pump.run());
    let heart = heartbeat(
        Lease::new(daemon.clone(), &claimed),
        Arc::clone(&held),
        claimed.ttl(),
    );
    let heart = tasks.spawn(heart);
    if let Some(timeout) = claimed.limits().timeout {
        let held = Arc::clone(&held);
        tasks.spawn(async move {
            tokio::time::sleep(timeout).await;
            held.ending.end(Why::TimedOut(timeout));
        });
    }
    let preparing = async {
        tokio::select! {
            job = prepare(&shared, &daemon, &claimed, &held, &reporter) => job.map_err(Halt::from),
            () = held.ending.ended() => Err(Halt::Ended),
        }
    };
    let result = match preparing.await {
        Ok(mut job) => job.run().await,
        Err(halt) => Err(halt),
    };
    let ended = match result {
        Ok(()) => Some((Phase::Completed, None)),
        Err(Halt::Failed(error)) => Some((Phase::Failed, Some(error))),
        Err(Halt::Model(failure)) => Some((Phase::Failed, Some(failed(&failure)))),
        Err(Halt::Ended) => match held.ending.why() {
            Some(Why::Cancelled(_)) => Some((Phase::Cancelled, None)),
            Some(Why::TimedOut(limit)) => Some((Phase::Failed, Some(timed_out(limit)))),
            Some(Why::Stopped) if !reporter.has_begun() => {
                heart.abort();
                release(&daemon, &claimed).await;
                return;
            }
            // Left to the daemon, which hands it out again once this runner's
            // registration ends.
            Some(Why::Stopped) if attempts_left(&claimed) => {
                reporter.flush_within(STOPPING).await;
                return;
            }
            Some(Why::Stopped) => Some((
                Phase::Failed,
                Some(Error::new(
                    ErrorCode::Unavailable,
                    "the agent runner was stopped",
                )),
            )),
            Some(Why::Lost) | None => None,
        },
    };
    let Some((phase, error)) = ended else {
        tracing::warn!(execution = id, "an execution was lost");
        return;
    };
    let error = error.map(|error| masked(&error, &mask(&shared, &claimed)));
    let took = started.elapsed();
    tracing::info!(
        execution = id,
        phase = phase.as_str_name(),
        error = error.as_ref().map(|error| error.message.as_str()),
        took = seconds(took),
        "an execution is over"
    );
    reporter.begin();
    reporter.push(What::Phase(PhaseChange {
        phase: phase.into(),
        error,
        ..PhaseChange::default()
    }));
    if held.ending.why() == Some(Why::Stopped) {
        reporter.flush_within(STOPPING).await;
    } else {
        // Ends with the lease at the latest.
        reporter.flush().await;
    }
}

fn timed_out(limit: Duration) -> Error {
    Error::new(
        ErrorCode::TimedOut,
        format!("it ran for {}, which is its limit", seconds(limit)),
    )
}

fn attempts_left(claimed: &Claimed) -> bool {
    claimed.status().attempt < claimed.spec().max_attempts.unwrap_or(1)
}

fn masked(error: &Error, mask: &Mask) -> sandbox::Error {
    let mut wire = sandbox::Error::from(error);
    wire.message = mask.text(&wire.message);
    wire
}

async fn release(daemon: &Daemon, claimed: &Claimed) {
    let request = agent::ReleaseRequest {
        execution_id: claimed.execution.execution_id.clone(),
        lease_token: claimed.lease.token.clone(),
    };
    if let Err(status) = daemon.runners().release(within(STOPPING, request)).await {
        let error = from_status(status);
        tracing::warn!(
            error = told(&error),
            "cannot give an execution back; its lease will lapse"
        );
    }
}

/// A lease, as the calls on it need it.
struct Lease {
    daemon: Daemon,
    execution_id: String,
    token: String,
}

impl Lease {
    fn new(daemon: Daemon, claimed: &Claimed) -> Self {
        Self {
            daemon,
            execution_id: claimed.execution.execution_id.clone(),
            token: claimed.lease.token.clone(),
        }
    }
}

#[async_trait::async_trait]
impl Sink for Lease {
    async fn record(&self, batch: u64, events: Vec<Event>) -> Result<Recorded> {
        let request = agent::UpdateStatusRequest {
            execution_id: self.execution_id.clone(),
            lease_token: self.token.clone(),
            batch,
            events,
        };
        let answer = self
            .daemon
            .runners()
            .update_status(within(REPORT_TIMEOUT, request))
            .await;
        let answer = answer.map_err(from_status)?.into_inner();
        Ok(Recorded {
            ttl: Duration::from_millis(answer.ttl_ms),
            cancel_requested: answer.cancel_requested,
        })
    }
}

/// Renews a lease every third of its life, until it is dropped or the lease is
/// lost.
async fn heartbeat(lease: Lease, held: Arc<Held>, mut ttl: Duration) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(ttl / 3).await;
        let request = agent::HeartbeatRequest {
            execution_id: lease.execution_id.clone(),
            lease_token: lease.token.clone(),
        };
        let asked = Instant::now();
        match lease
            .daemon
            .runners()
            .heartbeat(within(ttl / 3, request))
            .await
        {
            Ok(answer) => {
                let answer = answer.into_inner();
                renewed = asked;
                ttl = Duration::from_millis(answer.ttl_ms.max(1));
                if answer.cancel_requested {
                    held.ending.end(Why::Cancelled(String::new()));
                }
            }
            Err(status) => {
                let error = from_status(status);
                let passes = matches!(error.code(), ErrorCode::Unavailable | ErrorCode::TimedOut);
                if !passes || renewed.elapsed() >= ttl {
                    tracing::warn!(error = told(&error), "the lease could not be renewed");
                    held.ending.end(Why::Lost);
                    return;
                }
            }
        }
    }
}
