//! What people ask of an execution while it goes on: to stop, and to answer an
//! approval. And the end of a whole session.

use std::time::Instant;

use stigmer_sdk::wire::agent::{self as pb, event::What, register_response};
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::sync::oneshot;

use super::super::fold::is_final;
use super::super::store::{self, Execution, Head, Session};
use super::{Desk, event, failed, no_execution, place};

/// Events that are deleted at once: a few milliseconds.
const DELETED_AT_ONCE: u32 = 5000;

impl Desk {
    /// Cancels an execution, or asks its runner to.
    pub(in super::super) fn cancel(
        &mut self,
        execution_id: &str,
        reason: &str,
    ) -> Result<Execution> {
        let execution = store::execution(&self.db, execution_id)
            .map_err(failed)?
            .ok_or_else(|| no_execution(execution_id))?;
        let mut head = execution.head;
        self.cancel_one(&mut head, reason)?;
        Ok(Execution { head, ..execution })
    }

    fn cancel_one(&mut self, head: &mut Head, reason: &str) -> Result<()> {
        let requested = event(What::CancelRequested(reason.to_owned()));
        if is_final(head.status.phase()) {
            return Ok(());
        }
        if self.lease(head.n).is_none() {
            let cancelled = pb::PhaseChange {
                phase: pb::Phase::Cancelled.into(),
                attempt: head.status.attempt,
                ..Default::default()
            };
            self.record(head, vec![requested, event(What::Phase(cancelled))])?;
            // One that is reserved is found to be over when it is to begin.
            self.line.remove(place(head));
            self.wake_idle(head.session);
            return Ok(());
        }
        if head.status.cancel_requested {
            return Ok(());
        }
        self.record(head, vec![requested])?;
        let grace = self.timing.cancel;
        if let Some(lease) = self.lease(head.n) {
            lease.cancel = Some(Instant::now() + grace);
        }
        self.deadlines.notify_one();
        let request = register_response::CancelRequested {
            execution_id: head.id.clone(),
            reason: reason.to_owned(),
        };
        let runner_id = head.status.runner_id.clone();
        self.instruct(
            &runner_id,
            register_response::What::CancelRequested(request),
        );
        Ok(())
    }

    /// Answers a tool call that waits for approval.
    pub(in super::super) fn decide(&mut self, request: pb::DecideRequest) -> Result<()> {
        let mut head = self.head(&request.execution_id)?;
        let call = &request.tool_call_id;
        let known = self
            .lease(head.n)
            .and_then(|lease| lease.approvals.get(call).copied());
        let Some((seq, state)) = known else {
            let message = format!(
                "the execution {} has no tool call '{}' that waits for approval",
                head.id,
                call.escape_debug()
            );
            return Err(Error::new(ErrorCode::NotFound, message));
        };
        if state != pb::ApprovalState::Pending {
            let message = format!(
                "the tool call '{}' was decided already",
                call.escape_debug()
            );
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        let asked = store::events(&self.db, head.n, seq, seq, 1).map_err(failed)?;
        let Some(What::Approval(asked)) = asked.into_iter().next().and_then(|event| event.what)
        else {
            let message = format!("the record of {} has no approval at {seq}", head.id);
            return Err(Error::new(ErrorCode::Internal, message));
        };
        let state = match request.allow {
            true => pb::ApprovalState::Allowed,
            false => pb::ApprovalState::Denied,
        };
        let decided = pb::Approval {
            state: state.into(),
            reason: request.reason.clone(),
            ..asked
        };
        self.record(&mut head, vec![event(What::Approval(decided))])?;
        let seq = head.status.seq;
        if let Some(lease) = self.lease(head.n) {
            lease.approvals.insert(call.clone(), (seq, state));
        }
        self.instruct(
            &head.status.runner_id,
            register_response::What::Decided(request),
        );
        Ok(())
    }

    /// Cancels all of a session, which takes no more from now on. The receiver
    /// hears when none is left. `None`: there is no such session.
    pub(in super::super) fn end_session(
        &mut self,
        session_id: &str,
    ) -> Result<Option<(Session, oneshot::Receiver<()>)>> {
        let Some(session) = store::session(&self.db, session_id, false).map_err(failed)? else {
            return Ok(None);
        };
        store::mark_deleting(&self.db, session.n).map_err(failed)?;
        for mut head in store::open_in_session(&self.db, session.n).map_err(failed)? {
            self.cancel_one(&mut head, "the session is deleted")?;
        }
        let (ended, idle) = oneshot::channel();
        self.idle.entry(session.n).or_default().push(ended);
        self.wake_idle(session.n);
        Ok(Some((session, idle)))
    }

    /// Deletes a part of a session that has nothing going on. Says whether all
    /// of it is gone.
    pub(in super::super) fn forget_some(&mut self, session: i64) -> Result<bool> {
        let gone = store::delete_some(&mut self.db, session, DELETED_AT_ONCE).map_err(failed)?;
        if gone {
            self.session_secrets.remove(&session);
        }
        Ok(gone)
    }

    /// Binds a session to its sandbox, unless it is bound already, and gives
    /// the one that it is bound to.
    pub(in super::super) fn bind(&mut self, session_id: &str, sandbox_id: &str) -> Result<String> {
        store::bind(&self.db, session_id, sandbox_id)
            .map_err(failed)?
            .ok_or_else(|| super::no_session(session_id))
    }

    /// The sessions whose deletion a daemon before this one began.
    pub(in super::super) fn half_deleted(&mut self) -> Result<Vec<String>> {
        store::deleting(&self.db).map_err(failed)
    }
}
