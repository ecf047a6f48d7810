//! How an execution comes to a runner: it is reserved, its sandbox is made
//! ready, which is for [`claim`](super::super::claim), and then it is leased.
//!
//! Whoever holds a [`Reservation`] or a [`Handout`] and goes away, at whatever
//! moment, has given it back.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Instant;

use stigmer_sdk::wire::agent::{self as pb, event::What};
use stigmer_sdk::{Error, Result};
use tokio::sync::oneshot;

use super::super::ids::new_token;
use super::super::line::Place;
use super::super::secrets::Secrets;
use super::super::{store, wire};
use super::lease::{Lease, Lost};
use super::runner::Waiting;
use super::{Desk, Held, Owner, event, failed, no_session, secrets_lost};
use crate::config::Secret;

/// What became of the wish for work.
#[derive(Debug)]
pub(in super::super) enum Claim {
    Now(Reservation),
    /// There is none yet. The sender is dropped if the runner is not registered
    /// any more.
    Later(oneshot::Receiver<Reservation>),
    Unregistered,
}

/// An execution that is set aside for a runner.
#[derive(Debug)]
pub(in super::super) struct Reservation {
    own: Weak<Owner<Desk>>,
    place: Place,
    pub(in super::super) session_id: String,
    runner_id: String,
    settled: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(own) = self.own.upgrade().filter(|_| !self.settled) {
            let place = self.place;
            own.post(move |desk| desk.unreserve(place));
        }
    }
}

/// An execution that is leased, on its way to its runner.
#[derive(Debug)]
pub(in super::super) struct Handout {
    own: Weak<Owner<Desk>>,
    n: i64,
    token: Secret,
    work: Option<pb::Work>,
}

impl Handout {
    /// It is with the runner now, or as good as.
    pub(in super::super) fn deliver(mut self) -> Option<pb::Work> {
        self.work.take()
    }
}

impl Drop for Handout {
    fn drop(&mut self) {
        if let Some(own) = self.own.upgrade().filter(|_| self.work.is_some()) {
            let (n, token) = (self.n, self.token.clone());
            own.post(move |desk| desk.undelivered(n, &token));
        }
    }
}

impl Desk {
    /// Sets the next execution aside for a runner, or notes that it waits.
    pub(in super::super) fn claim(&mut self, runner_id: &str) -> Result<Claim> {
        if !self.is_registered(runner_id) {
            return Ok(Claim::Unregistered);
        }
        // Those who wait were here before, so there is nothing for them.
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
        if !self.closing
            && let Some(place) = self.line.take()
        {
            return self.reserve(place, runner_id).map(Claim::Now);
        }
        let (reply, later) = oneshot::channel();
        let runner_id = runner_id.to_owned();
        self.waiting.push_back(Waiting { runner_id, reply });
        Ok(Claim::Later(later))
    }

    /// Gives what is ready to those who wait.
    pub(super) fn dispatch(&mut self) {
        while !self.closing {
            self.waiting.retain(|waiting| !waiting.reply.is_closed());
            if self.waiting.is_empty() {
                return;
            }
            let Some(place) = self.line.take() else {
                return;
            };
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            match self.reserve(place, &waiting.runner_id) {
                // One that nobody receives gives itself back.
                Ok(reservation) => drop(waiting.reply.send(reservation)),
                Err(error) => {
                    tracing::error!(%error, "cannot read an execution that waits");
                    return;
                }
            }
        }
    }

    fn reserve(&mut self, place: Place, runner_id: &str) -> Result<Reservation> {
        self.held.insert(place.execution, Held::Reserved);
        let mut reservation = Reservation {
            own: self.own.clone(),
            place,
            session_id: String::new(),
            runner_id: runner_id.to_owned(),
            settled: false,
        };
        let head = store::head_at(&self.db, place.execution).map_err(failed)?;
        reservation.session_id = head.session_id;
        Ok(reservation)
    }

    fn unreserve(&mut self, place: Place) {
        match store::head_at(&self.db, place.execution) {
            Ok(head) => self.settle(&head),
            Err(error) => {
                // It may have been cancelled, which claiming it again will show.
                tracing::error!(%error, "cannot read an execution that is given back");
                self.held.remove(&place.execution);
                self.line.push(place);
                self.line.back(place.session);
            }
        }
    }

    /// The sandbox cannot be had: the execution FAILED.
    pub(in super::super) fn refuse(&mut self, reservation: Reservation, why: &Error) -> Result<()> {
        let mut head = store::head_at(&self.db, reservation.place.execution).map_err(failed)?;
        if head.status.phase() == pb::Phase::Pending {
            self.fail(&mut head, why)?;
        }
        self.settled(reservation, &head);
        Ok(())
    }

    /// Leases an execution whose sandbox is ready. `None`: it was cancelled
    /// meanwhile, or cannot be done, which its record says.
    pub(in super::super) fn begin(
        &mut self,
        mut reservation: Reservation,
    ) -> Result<Option<Handout>> {
        let n = reservation.place.execution;
        let mut head = store::head_at(&self.db, n).map_err(failed)?;
        if head.status.phase() != pb::Phase::Pending {
            self.settled(reservation, &head);
            return Ok(None);
        }
        if self.closing || !self.is_registered(&reservation.runner_id) {
            return Ok(None);
        }
        let execution = store::execution(&self.db, &head.id)
            .map_err(failed)?
            .ok_or_else(|| super::no_execution(&head.id))?;
        let mut session = store::session(&self.db, &head.session_id, true)
            .map_err(failed)?
            .ok_or_else(|| no_session(&head.session_id))?;
        let mut spec = execution.spec;
        if let Err(error) = self.fill_secrets(n, session.n, &mut spec, &mut session.spec) {
            self.fail(&mut head, &error)?;
            self.settled(reservation, &head);
            return Ok(None);
        }

        let token = new_token()?;
        let change = pb::PhaseChange {
            phase: pb::Phase::InProgress.into(),
            attempt: head.status.attempt + 1,
            runner_id: reservation.runner_id.clone(),
            error: None,
        };
        self.record(&mut head, vec![event(What::Phase(change))])?;
        let lease = Lease {
            execution_id: head.id.clone(),
            runner_id: reservation.runner_id.clone(),
            token: token.clone(),
            until: Instant::now() + self.timing.lease,
            batch: 0,
            seq: head.status.seq,
            heard: false,
            reported: false,
            cancel: None,
            lost: None,
            approvals: HashMap::new(),
        };
        self.held.insert(n, Held::Leased(lease));
        self.show_runners();
        self.deadlines.notify_one();
        let work = pb::Work {
            execution: Some(wire::execution(head, spec)),
            session: Some(wire::session(session)),
            lease: Some(pb::Lease {
                token: token.expose().to_owned(),
                ttl_ms: self.ttl_ms(),
            }),
            default_limits: None,
            default_approvals: None,
        };
        let handout = Handout {
            own: self.own.clone(),
            n,
            token,
            work: Some(work),
        };
        reservation.settled = true;
        Ok(Some(handout))
    }

    fn settled(&mut self, mut reservation: Reservation, head: &store::Head) {
        reservation.settled = true;
        self.settle(head);
    }

    /// Puts the values of secrets back in, for the runner. What the execution
    /// brings, the session need not have any more.
    fn fill_secrets(
        &self,
        execution: i64,
        session: i64,
        spec: &mut pb::ExecutionSpec,
        session_spec: &mut pb::SessionSpec,
    ) -> Result<()> {
        let none = Secrets::default();
        let own = self.execution_secrets.get(&execution).unwrap_or(&none);
        let mut missing = own.missing(&spec.env);
        own.fill(&mut spec.env);
        if let Some(agent) = &mut session_spec.agent {
            let theirs = self.session_secrets.get(&session).unwrap_or(&none);
            theirs.fill(&mut agent.env);
            for name in theirs.missing(&agent.env) {
                agent.env.remove(&name);
                if !spec.env.contains_key(&name) {
                    missing.push(name);
                }
            }
        }
        match missing[..] {
            [] => Ok(()),
            _ => Err(secrets_lost(&missing)),
        }
    }

    /// A handout that nobody took.
    fn undelivered(&mut self, n: i64, token: &Secret) {
        if self.lease(n).is_some_and(|lease| lease.token == *token) {
            self.lose_or_retry(n, Lost::Undelivered, Instant::now());
        }
    }
}
