//! What a runner says under a lease, and what becomes of an execution whose
//! lease ends without a final phase.
//!
//! A runner is heard when it renews its lease or reports something for the
//! first time, which it does before it acts. Work that was handed out and never
//! heard of was not begun, and that attempt does not count.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use stigmer_sdk::wire::agent::{self as pb, event::What};
use stigmer_sdk::wire::invalid;
use stigmer_sdk::{Error, ErrorCode, Result};

use super::super::fold::is_final;
use super::super::store::{self, Head};
use super::{Desk, Held, event, failed};
use crate::config::Secret;

/// How often an execution may be handed out and not be heard of before that is
/// its own doing: perhaps it is what kills its runners.
const UNHEARD: u32 = 3;
/// Leases that are remembered after their end. A report is repeated within
/// seconds, if at all.
const REMEMBERED: usize = 1024;
/// When to try again what could not be written down.
const RETRY: Duration = Duration::from_secs(1);

/// A runner's right to speak for an execution.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) execution_id: String,
    pub(super) runner_id: String,
    pub(super) token: Secret,
    pub(super) until: Instant,
    /// The last batch that was recorded, and the last event with it.
    pub(super) batch: u64,
    pub(super) seq: u64,
    /// The runner has used it.
    pub(super) heard: bool,
    /// Something was recorded under it.
    pub(super) reported: bool,
    /// When the runner must have stopped, if it was asked to.
    pub(super) cancel: Option<Instant>,
    /// It is over, and that is still to be written down.
    pub(super) lost: Option<Lost>,
    /// Where the last word on each approval is, and whether it is a decision.
    pub(super) approvals: HashMap<String, (u64, pb::ApprovalState)>,
}

impl Lease {
    /// When something is to be done about it, unless it is renewed.
    pub(super) fn deadline(&self) -> Instant {
        self.cancel
            .map_or(self.until, |cancel| cancel.min(self.until))
    }

    pub(super) fn due(&self, now: Instant) -> Option<Lost> {
        if self.cancel.is_some_and(|cancel| cancel <= now) {
            return Some(self.lost.unwrap_or(Lost::Unresponsive));
        }
        (self.until <= now).then_some(self.lost.unwrap_or(Lost::Lapsed))
    }

    fn note(&mut self, recorded: &[(String, pb::ApprovalState, u64)]) {
        for (tool_call_id, state, seq) in recorded {
            self.approvals.insert(tool_call_id.clone(), (*seq, *state));
        }
    }
}

/// A lease that ended with a final phase.
#[derive(Debug)]
pub(super) struct Ended {
    n: i64,
    token: Secret,
    batch: u64,
    seq: u64,
}

/// Why a lease ended without a final phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The answer to the claim did not reach its runner.
    Undelivered,
    /// The runner does not want it any more.
    GivenBack,
    /// The runner's call ended.
    RunnerGone,
    /// It was not renewed.
    Lapsed,
    /// The runner was asked to stop, and did not say that it has.
    Unresponsive,
    DaemonEnded,
}

impl Lost {
    fn reason(self, runner_id: &str) -> Error {
        let what = match self {
            Self::Undelivered => format!("the runner '{runner_id}' did not take the work"),
            Self::GivenBack => {
                format!("the runner '{runner_id}' was stopped while the agent was at work")
            }
            Self::RunnerGone => {
                format!("the runner '{runner_id}' died while the agent was at work")
            }
            Self::Lapsed => format!(
                "the runner '{runner_id}' was not heard of in time while the agent was at work"
            ),
            Self::Unresponsive => {
                return Error::new(
                    ErrorCode::TimedOut,
                    format!(
                        "the runner '{runner_id}' did not say in time that it stopped; what it started may still run"
                    ),
                );
            }
            Self::DaemonEnded => "the daemon ended while the agent was at work".to_owned(),
        };
        Error::new(
            ErrorCode::Unavailable,
            format!(
                "{what}; what it did until then stands: look at it, then send the message again"
            ),
        )
    }

    /// The phase of an execution that was in progress.
    pub(super) fn after(self, head: &Head) -> pb::PhaseChange {
        let status = &head.status;
        let reason = self.reason(&status.runner_id);
        let (phase, runner_id, error) = if status.cancel_requested {
            // It is what somebody wanted; that it took this is worth knowing.
            (pb::Phase::Cancelled, status.runner_id.clone(), Some(reason))
        } else if status.attempt < head.max_attempts {
            (pb::Phase::Pending, String::new(), Some(reason))
        } else {
            (pb::Phase::Failed, status.runner_id.clone(), Some(reason))
        };
        pb::PhaseChange {
            phase: phase.into(),
            attempt: status.attempt,
            runner_id,
            error: error.as_ref().map(Into::into),
        }
    }
}

/// PENDING, as if it had not been handed out.
fn untouched(head: &Head) -> pb::PhaseChange {
    let phase = match head.status.cancel_requested {
        true => pb::Phase::Cancelled,
        false => pb::Phase::Pending,
    };
    pb::PhaseChange {
        phase: phase.into(),
        attempt: head.status.attempt.saturating_sub(1),
        ..Default::default()
    }
}

impl Desk {
    pub(super) fn lease(&mut self, n: i64) -> Option<&mut Lease> {
        match self.held.get_mut(&n) {
            Some(Held::Leased(lease)) if lease.lost.is_none() => Some(lease),
            Some(Held::Leased(_) | Held::Reserved) | None => None,
        }
    }

    pub(super) fn ttl_ms(&self) -> u64 {
        u64::try_from(self.timing.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// The lease with this token, renewed, for its runner lives.
    fn renewed(&mut self, head: &Head, token: &Secret) -> Result<&mut Lease> {
        let until = Instant::now() + self.timing.lease;
        let lease = self.lease(head.n).filter(|lease| lease.token == *token);
        let lease = lease.ok_or_else(|| {
            Error::new(
                ErrorCode::Conflict,
                format!(
                    "the lease of the execution {} is over: drop the work, it is not this runner's any more",
                    head.id
                ),
            )
        })?;
        lease.until = until;
        lease.heard = true;
        Ok(lease)
    }

    /// Renews a lease.
    pub(in super::super) fn heartbeat(
        &mut self,
        execution_id: &str,
        token: &Secret,
    ) -> Result<pb::HeartbeatResponse> {
        let head = self.head(execution_id)?;
        self.renewed(&head, token)?;
        Ok(pb::HeartbeatResponse {
            ttl_ms: self.ttl_ms(),
            cancel_requested: head.status.cancel_requested,
        })
    }

    /// Records what a runner reports, which was [checked](super::super::check).
    pub(in super::super) fn update(
        &mut self,
        execution_id: &str,
        token: &Secret,
        batch: u64,
        mut events: Vec<pb::Event>,
    ) -> Result<pb::UpdateStatusResponse> {
        let mut head = self.head(execution_id)?;
        let answer = |seq, ttl_ms, head: &Head| pb::UpdateStatusResponse {
            seq,
            ttl_ms,
            cancel_requested: head.status.cancel_requested,
        };
        let again = self
            .ended
            .iter()
            .find(|ended| ended.n == head.n && ended.batch == batch && ended.token == *token);
        if let Some(ended) = again {
            return Ok(answer(ended.seq, 0, &head));
        }
        let ttl_ms = self.ttl_ms();
        let lease = self.renewed(&head, token)?;
        if batch > 0 && batch == lease.batch {
            return Ok(answer(lease.seq, ttl_ms, &head));
        }
        if batch != lease.batch + 1 {
            let problem = format_args!("is {batch}, and {} is next", lease.batch + 1);
            return Err(invalid("batch", problem));
        }
        let approvals = approvals(&events, lease, head.status.seq)?;
        for event in &mut events {
            if let Some(What::Phase(change)) = &mut event.what {
                change.attempt = head.status.attempt;
                change.runner_id.clone_from(&head.status.runner_id);
            }
        }

        let reports = !events.is_empty();
        self.record(&mut head, events)?;
        let seq = head.status.seq;
        if let Some(lease) = self.lease(head.n) {
            lease.note(&approvals);
            lease.reported |= reports;
            (lease.batch, lease.seq) = (batch, seq);
        }
        if is_final(head.status.phase()) {
            self.ended.truncate(REMEMBERED - 1);
            self.ended.push_front(Ended {
                n: head.n,
                token: token.clone(),
                batch,
                seq,
            });
            self.settle(&head);
        }
        Ok(answer(seq, ttl_ms, &head))
    }

    /// Takes back what a runner does not want. If it has reported anything, the
    /// work is not untouched, and it is as if the runner had died.
    pub(in super::super) fn release(&mut self, execution_id: &str, token: &Secret) -> Result<()> {
        let head = self.head(execution_id)?;
        self.renewed(&head, token)?;
        self.lose(head, Lost::GivenBack)
    }

    /// Records that a lease ended, now or as soon as that can be written.
    pub(super) fn lose_or_retry(&mut self, n: i64, why: Lost, now: Instant) {
        let lost = store::head_at(&self.db, n)
            .map_err(failed)
            .and_then(|head| self.lose(head, why));
        if let Err(error) = lost {
            tracing::error!(%error, "cannot record that a lease ended");
            if let Some(Held::Leased(lease)) = self.held.get_mut(&n) {
                lease.lost = Some(why);
                lease.until = now + RETRY;
                lease.cancel = None;
                self.deadlines.notify_one();
            }
        }
    }

    fn lose(&mut self, mut head: Head, why: Lost) -> Result<()> {
        let Some(Held::Leased(lease)) = self.held.get(&head.n) else {
            return Ok(());
        };
        let unheard = !lease.heard && self.unheard.get(&head.n).copied().unwrap_or(0) < UNHEARD;
        let change = match why {
            Lost::Undelivered => untouched(&head),
            Lost::GivenBack if !lease.reported => untouched(&head),
            Lost::RunnerGone | Lost::Lapsed if unheard => untouched(&head),
            _ => why.after(&head),
        };
        let (execution, runner) = (&lease.execution_id, &lease.runner_id);
        tracing::warn!(execution, runner, ?why, phase = ?change.phase(), "a lease ended early");
        self.record(&mut head, vec![event(What::Phase(change))])?;
        if unheard && head.status.phase() == pb::Phase::Pending {
            *self.unheard.entry(head.n).or_default() += 1;
        }
        self.settle(&head);
        Ok(())
    }
}

/// What a batch says of approvals, and where in the record it will be. What
/// somebody has decided is not the runner's to change.
fn approvals(
    events: &[pb::Event],
    lease: &Lease,
    before: u64,
) -> Result<Vec<(String, pb::ApprovalState, u64)>> {
    let mut found = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let Some(What::Approval(approval)) = &event.what else {
            continue;
        };
        let known = lease.approvals.get(&approval.tool_call_id);
        if known.is_some_and(|(_, state)| *state != pb::ApprovalState::Pending) {
            let field = format!("events[{at}].approval");
            let problem = format_args!(
                "'{}' was decided already",
                approval.tool_call_id.escape_debug()
            );
            return Err(invalid(&field, problem));
        }
        let seq = before + 1 + at as u64;
        found.push((approval.tool_call_id.clone(), approval.state(), seq));
    }
    Ok(found)
}
