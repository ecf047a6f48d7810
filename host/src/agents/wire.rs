//! What is stored, as the messages of the wire.

use stigmer_sdk::wire::agent as pb;

use super::secrets::hide;
use super::store::{Execution, Head, Session};

/// An execution as its runner sees it.
pub(super) fn execution(head: Head, spec: pb::ExecutionSpec) -> pb::Execution {
    pb::Execution {
        execution_id: head.id,
        session_id: head.session_id,
        spec: Some(spec),
        status: Some(head.status),
        created_ms: head.created_ms,
    }
}

/// A session as its runner sees it.
pub(super) fn session(session: Session) -> pb::Session {
    pb::Session {
        session_id: session.id,
        spec: Some(session.spec),
        sandbox_id: session.sandbox_id.unwrap_or_default(),
        created_ms: session.created_ms,
        used_ms: session.used_ms,
    }
}

/// An execution as everybody else sees it.
pub(super) fn shown_execution(stored: Execution) -> pb::Execution {
    let mut spec = stored.spec;
    hide(&mut spec.env);
    execution(stored.head, spec)
}

/// A session as everybody else sees it.
pub(super) fn shown_session(mut stored: Session) -> pb::Session {
    if let Some(agent) = &mut stored.spec.agent {
        hide(&mut agent.env);
    }
    session(stored)
}
