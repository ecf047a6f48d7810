//! New sessions and executions.

use stigmer_sdk::wire::agent::{self as pb, event::What};
use stigmer_sdk::{Error, ErrorCode, Result};

use super::super::ids::new_id;
use super::super::secrets::Secrets;
use super::super::store::{self, Execution, NewExecution, Session};
use super::{Desk, event, failed, no_session, place};

/// A session that is about to be stored: its spec without the values of
/// secrets, and those.
#[derive(Debug)]
pub(in super::super) struct NewSession {
    spec: pb::SessionSpec,
    secrets: Secrets,
}

impl NewSession {
    pub(in super::super) fn new(mut spec: pb::SessionSpec) -> Self {
        let secrets = match &mut spec.agent {
            Some(agent) => Secrets::take(&mut agent.env),
            None => Secrets::default(),
        };
        Self { spec, secrets }
    }
}

/// The session that a new execution is in.
#[derive(Debug)]
pub(in super::super) enum In {
    Session(String),
    New(Box<NewSession>),
}

impl Desk {
    pub(in super::super) fn create_session(&mut self, new: NewSession) -> Result<Session> {
        let now_ms = self.clock.now_ms();
        let id = new_id("ses-", now_ms)?;
        let n = store::insert_session(&self.db, &id, &new.spec, now_ms).map_err(failed)?;
        self.keep_session_secrets(n, new.secrets);
        store::session(&self.db, &id, false)
            .map_err(failed)?
            .ok_or_else(|| no_session(&id))
    }

    /// Creates an execution, and with it its session if that is new, both or
    /// neither. If the key is taken, the answer is the execution that has it.
    pub(in super::super) fn create_execution(
        &mut self,
        within: In,
        key: Option<&str>,
        mut spec: pb::ExecutionSpec,
    ) -> Result<Execution> {
        if let Some(key) = key
            && let Some(execution) = store::execution_with_key(&self.db, key).map_err(failed)?
        {
            return Ok(execution);
        }
        let secrets = Secrets::take(&mut spec.env);
        let now_ms = self.clock.now_ms();
        let id = new_id("exe-", now_ms)?;
        let transaction = self.db.transaction().map_err(failed)?;
        let (session, session_secrets) = match within {
            In::Session(id) => {
                let session = store::session(&transaction, &id, false)
                    .map_err(failed)?
                    .ok_or_else(|| no_session(&id))?;
                if session.deleting {
                    let message = format!("the session {id} is being deleted");
                    return Err(Error::new(ErrorCode::Conflict, message));
                }
                store::touch_session(&transaction, session.n, now_ms).map_err(failed)?;
                (session.n, Secrets::default())
            }
            In::New(new) => {
                let id = new_id("ses-", now_ms)?;
                let n =
                    store::insert_session(&transaction, &id, &new.spec, now_ms).map_err(failed)?;
                (n, new.secrets)
            }
        };
        let new = NewExecution {
            id: &id,
            session,
            key,
            spec: &spec,
            created_ms: now_ms,
        };
        let mut head = store::insert_execution(&transaction, &new).map_err(failed)?;
        let mut first = event(What::Phase(pb::PhaseChange {
            phase: pb::Phase::Pending.into(),
            ..Default::default()
        }));
        (first.seq, first.at_ms) = (1, now_ms);
        super::fold::summary(&mut head.status, &first);
        store::append(&transaction, head.n, vec![first], &head.status).map_err(failed)?;
        transaction.commit().map_err(failed)?;

        self.keep_session_secrets(session, session_secrets);
        if !secrets.is_empty() {
            self.execution_secrets.insert(head.n, secrets);
        }
        match self.nobody_comes() {
            Some(error) => self.fail(&mut head, &error)?,
            None => {
                self.line.push(place(&head));
                self.dispatch();
            }
        }
        Ok(Execution { head, spec })
    }

    fn keep_session_secrets(&mut self, session: i64, secrets: Secrets) {
        if !secrets.is_empty() {
            self.session_secrets.insert(session, secrets);
        }
    }
}
