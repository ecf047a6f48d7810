//! From a runner's wish for work to work whose sandbox exists.

use std::sync::Arc;
use std::time::Duration;

use stigmer_sdk::wire::agent as pb;
use stigmer_sdk::{Error, ErrorCode, Result, SandboxSpec};
use tokio::time::Instant;

use super::desk::{Claim, Handout, Reservation, failed, no_session};
use super::{Agents, ending, store};
use crate::sandboxes::Create;

/// The longest that a claim waits. A runner that wants to wait longer asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What became of a claim.
#[derive(Debug)]
pub enum Claimed {
    Work(Box<pb::Work>),
    /// None came in time.
    Nothing,
    /// The runner is not registered, or not any more.
    Unregistered,
}

impl Agents {
    /// Waits for work. Whoever drops this has claimed nothing.
    ///
    /// # Errors
    /// `Unavailable` if the daemon is ending.
    pub async fn claim(self: &Arc<Self>, runner_id: &str, wait: Duration) -> Result<Claimed> {
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        loop {
            let wanted = runner_id.to_owned();
            let reservation = match self.desk.ask(move |desk| desk.claim(&wanted)).await? {
                Claim::Unregistered => return Ok(Claimed::Unregistered),
                Claim::Now(reservation) => reservation,
                Claim::Later(later) => {
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Err(ending()),
                        reserved = later => match reserved {
                            Ok(reservation) => reservation,
                            Err(_) if self.stop.is_cancelled() => return Err(ending()),
                            Err(_) => return Ok(Claimed::Unregistered),
                        },
                        () = tokio::time::sleep_until(deadline) => return Ok(Claimed::Nothing),
                    }
                }
            };
            // To its end, also if the runner does not wait for it any more: a
            // session must not be deleted while its sandbox is being made.
            let agents = Arc::clone(self);
            let preparing = async move { agents.prepare(reservation).await };
            let prepared = self.manager.guard().tasks.spawn(preparing).await;
            let handout =
                prepared.map_err(|error| Error::internal("preparing work panicked", error))??;
            if let Some(mut work) = handout.and_then(Handout::deliver) {
                work.default_limits = Some(self.policy.limits);
                work.default_approvals = Some(self.policy.approvals.clone());
                return Ok(Claimed::Work(Box::new(work)));
            }
        }
    }

    async fn prepare(&self, reservation: Reservation) -> Result<Option<Handout>> {
        match self.sandbox_of(&reservation.session_id).await {
            Ok(()) => self.desk.ask(move |desk| desk.begin(reservation)).await,
            Err(error) => {
                tracing::warn!(%error, session = reservation.session_id, "a session has no sandbox");
                let refuse = move |desk: &mut super::desk::Desk| desk.refuse(reservation, &error);
                self.desk.ask(refuse).await.map(|()| None)
            }
        }
    }

    /// Makes sure that a session's sandbox is there.
    ///
    /// A sandbox is created under the session's id as its name, which is why
    /// one that was created just before the daemon was killed, and not bound
    /// yet, is found and not made a second time.
    async fn sandbox_of(&self, session_id: &str) -> Result<()> {
        let wanted = session_id.to_owned();
        let read = move |db: &mut _| store::session(db, &wanted, false).map_err(failed);
        let session = self.reader.ask(read).await?;
        let session = session.ok_or_else(|| no_session(session_id))?;
        if let Some(sandbox_id) = session.sandbox_id {
            return match self.manager.handle(&sandbox_id).await {
                Ok(_) => Ok(()),
                Err(error) if error.code() == ErrorCode::NoSandbox => Err(Error::new(
                    ErrorCode::NoSandbox,
                    format!(
                        "the sandbox {sandbox_id} of this session is no more: start a new session"
                    ),
                )),
                Err(error) => Err(about(&error, "cannot open the sandbox of this session")),
            };
        }
        let create = Create {
            backend: session.spec.backend.clone(),
            spec: self.sandbox_spec(&session.spec)?,
            name: Some(session.id.clone()),
            snapshot: None,
        };
        let created = self.manager.create(create).await;
        let (known, _) =
            created.map_err(|error| about(&error, "cannot make a sandbox for this session"))?;
        let bind = move |desk: &mut super::desk::Desk| desk.bind(&session.id, &known.record.id);
        self.desk.ask(bind).await.map(drop)
    }

    /// What the sandbox of a session is made from. One that says nothing works
    /// where the default backend does.
    fn sandbox_spec(&self, session: &pb::SessionSpec) -> Result<SandboxSpec> {
        if let Some(spec) = &session.sandbox_spec {
            return SandboxSpec::try_from(spec.clone());
        }
        let default = &self.manager.registry().default;
        let is_default = session.backend.as_ref().is_none_or(|name| name == default);
        let source = match self.policy.workspace.as_ref().filter(|_| is_default) {
            None => None,
            Some(path) => {
                let text = path.to_str().ok_or_else(|| {
                    Error::new(ErrorCode::InvalidPath, "the workspace's path is not UTF-8")
                        .with_path(path.to_string_lossy())
                })?;
                Some(text.to_owned())
            }
        };
        Ok(SandboxSpec {
            source,
            ..SandboxSpec::default()
        })
    }
}

/// The same error, with what it is about.
fn about(error: &Error, what: &str) -> Error {
    Error::new(error.code(), what).with_source(error.clone())
}
