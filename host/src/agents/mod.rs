//! Agents at work: sessions, executions, and the runners that do them.
//!
//! ```text
//!  clients ─▶ Agents ─▶ desk: one thread, agents.db, leases, secrets ◀─ runners
//!                │                     │ "there is more"
//!                └──▶ reader: another connection ─▶ lists, histories, followers
//! ```
//!
//! [`Agents`] is what the rest of the daemon sees. Everything that changes goes
//! through the [`desk`], one thing after the other; everything that is only
//! read goes past it. An execution is what its events say: the messages that
//! people see are folded from them.
//!
//! It never talks to a model, and the only thing that it does to a sandbox is
//! to make one for a session, and to destroy it with the session.
//!
//! | module | owns |
//! | --- | --- |
//! | [`desk`] | what happens to executions, in memory and on disk |
//! | [`claim`] | a claim from the wish to the work, the session's sandbox |
//! | [`follow`] | readers of events |
//! | [`store`], [`query`] | the tables; lists and counts |
//! | [`fold`] | what events amount to |
//! | [`line`] | who is next |
//! | [`secrets`] | values that are never stored or shown |
//! | [`check`] | what may be asked and reported |

mod check;
mod claim;
mod desk;
mod fold;
mod follow;
mod ids;
mod line;
mod query;
mod secrets;
mod store;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use stigmer_sdk::wire::agent::{self as pb, create_execution_request as create};
use stigmer_sdk::wire::host::RegisteredRunner;
use stigmer_sdk::wire::{invalid, required};
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use claim::Claimed;
pub use desk::Registration;
pub use follow::{Events, History};
pub use query::{Counts, Filter, Page, Slice};

use crate::config::Secret;
use crate::sandboxes::Manager;
use crate::sqlite::{self, Owner};
use desk::{Desk, In, NewSession, Timing, failed, no_session};

/// When to look for deadlines if there is none.
const IDLE: Duration = Duration::from_secs(3600);

/// What counts where a request is silent: the operator's word.
#[derive(Clone, Debug)]
pub struct Policy {
    pub limits: pb::ExecutionLimits,
    pub approvals: pb::Approvals,
    /// Where a session works that says nothing of its sandbox. `None`: each in
    /// a workspace of its own.
    pub workspace: Option<PathBuf>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            limits: pb::ExecutionLimits {
                max_turns: Some(100),
                timeout_ms: Some(60 * 60 * 1000),
                ..Default::default()
            },
            approvals: pb::Approvals {
                mode: pb::approvals::Mode::Never.into(),
                rules: Vec::new(),
            },
            workspace: None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Agents {
    desk: Arc<Owner<Desk>>,
    reader: Owner<Connection>,
    manager: Arc<Manager>,
    policy: Policy,
    registered: watch::Receiver<Vec<RegisteredRunner>>,
    deadlines: Arc<Notify>,
    stop: CancellationToken,
}

impl Agents {
    /// Opens the record of a data directory, which the caller has locked, and
    /// sorts out what a daemon before this one left. [`upkeep`](Self::upkeep)
    /// is to be polled from then on.
    ///
    /// # Errors
    /// `Internal` if the file cannot be used.
    pub fn open(data_dir: &Path, manager: Arc<Manager>, policy: Policy) -> Result<Arc<Self>> {
        Self::open_with(data_dir, manager, policy, Timing::default())
    }

    fn open_with(
        data_dir: &Path,
        manager: Arc<Manager>,
        policy: Policy,
        timing: Timing,
    ) -> Result<Arc<Self>> {
        let path = data_dir.join("agents.db");
        let connection = sqlite::open(&path, "record of executions", store::MIGRATIONS)?;
        let reader = sqlite::open_reader(&path, "record of executions")?;
        let (shown, registered) = watch::channel(Vec::new());
        let deadlines = Arc::new(Notify::new());
        let mut desk = Desk::new(connection, timing, shown, Arc::clone(&deadlines));
        desk.recover()?;
        Ok(Arc::new(Self {
            desk: desk.start()?,
            reader: Owner::start("agents-reader", reader)?,
            manager,
            policy,
            registered,
            deadlines,
            stop: CancellationToken::new(),
        }))
    }

    /// Ends what is due, and what an earlier daemon began to delete, for as
    /// long as it is polled.
    pub async fn upkeep(self: Arc<Self>) {
        match self.desk.ask(Desk::half_deleted).await {
            Ok(sessions) => {
                for session_id in sessions {
                    let agents = Arc::clone(&self);
                    self.manager.guard().tasks.spawn(async move {
                        if let Err(error) = agents.delete_to_the_end(&session_id).await {
                            tracing::warn!(%error, session = session_id, "cannot delete a session");
                        }
                    });
                }
            }
            Err(error) => tracing::error!(%error, "cannot look for sessions to delete"),
        }
        loop {
            let next = self.desk.ask(|desk| Ok(desk.lapse(Instant::now()))).await;
            let next = match next {
                Ok(next) => next.unwrap_or_else(|| Instant::now() + IDLE),
                Err(error) => {
                    tracing::error!(%error, "cannot look after leases");
                    return;
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = self.deadlines.notified() => {}
            }
        }
    }

    /// The daemon is ending: claims, registrations and subscriptions do. What a
    /// runner has is left to it, and to the next daemon; runners that are to
    /// finish well are to be ended before.
    pub fn close(&self) {
        self.desk.post(Desk::close);
        self.stop.cancel();
    }

    /// The runner that the daemon supervises stays down, and this is how it
    /// ended. Nothing waits for it any more: while no other runner is there,
    /// executions FAIL.
    ///
    /// # Errors
    /// `Internal` if that cannot be recorded.
    pub async fn give_up(&self, how_it_ended: String) -> Result<()> {
        self.desk.ask(move |desk| desk.give_up(how_it_ended)).await
    }

    /// Is cancelled when the daemon is ending.
    #[must_use]
    pub fn closed(&self) -> &CancellationToken {
        &self.stop
    }

    /// The runners there are, by name, with what they hold.
    #[must_use]
    pub fn registered(&self) -> Vec<RegisteredRunner> {
        self.registered.borrow().clone()
    }

    /// The same, for whoever waits for one to come or to go.
    #[must_use]
    pub fn watch_registered(&self) -> watch::Receiver<Vec<RegisteredRunner>> {
        self.registered.clone()
    }

    /// How many there are of what.
    pub async fn counts(&self) -> Result<Counts> {
        self.reader
            .ask(|db| query::counts(db).map_err(failed))
            .await
    }

    pub async fn create_session(&self, spec: pb::SessionSpec) -> Result<pb::Session> {
        let new = self.new_session(spec).await?;
        let created = self.desk.ask(|desk| desk.create_session(new)).await?;
        Ok(wire::shown_session(created))
    }

    pub async fn session(&self, session_id: &str) -> Result<pb::Session> {
        let wanted = session_id.to_owned();
        let read = move |db: &mut _| store::session(db, &wanted, true).map_err(failed);
        match self.reader.ask(read).await? {
            Some(session) => Ok(wire::shown_session(session)),
            None => Err(no_session(session_id)),
        }
    }

    /// Newest first, without the files of their skills.
    pub async fn sessions(
        &self,
        labels: BTreeMap<String, String>,
        page: Slice,
    ) -> Result<Page<pb::Session>> {
        let read = move |db: &mut _| query::sessions(db, &labels, page).map_err(failed);
        let page = self.reader.ask(read).await?;
        Ok(page.map(wire::shown_session))
    }

    /// Ends a session, with everything that is its own. Of one that is not
    /// there it is a success. It runs to its end even if nobody waits for it any
    /// more, and if the daemon is killed, the next one goes on.
    pub async fn delete_session(self: &Arc<Self>, session_id: &str) -> Result<()> {
        let agents = Arc::clone(self);
        let session_id = session_id.to_owned();
        let work = async move { agents.delete_to_the_end(&session_id).await };
        match self.manager.guard().tasks.spawn(work).await {
            Ok(result) => result,
            Err(error) => Err(Error::internal("deleting a session panicked", error)),
        }
    }

    async fn delete_to_the_end(&self, session_id: &str) -> Result<()> {
        let wanted = session_id.to_owned();
        let Some((session, idle)) = self.desk.ask(move |desk| desk.end_session(&wanted)).await?
        else {
            return Ok(());
        };
        tokio::select! {
            // What is cancelled ends within its grace, and what is being
            // prepared within its backend's deadlines.
            _ = idle => {}
            () = self.stop.cancelled() => return Err(ending()),
        }
        if session.spec.sandbox_id.is_none() {
            // By its name, since it may be there and not be bound.
            self.manager.destroy(&session.id).await?;
        }
        while !self
            .desk
            .ask(move |desk| desk.forget_some(session.n))
            .await?
        {}
        Ok(())
    }

    /// Creates an execution, in a session that is there or in a new one.
    pub async fn create_execution(
        &self,
        request: pb::CreateExecutionRequest,
    ) -> Result<pb::Execution> {
        let spec = required("spec", request.spec)?;
        check::execution(&spec, self.manager.guard())?;
        if let Some(key) = &request.key {
            check::name("key", key)?;
        }
        let within = match required("session", request.session)? {
            create::Session::SessionId(id) => In::Session(id),
            create::Session::SessionSpec(spec) => In::New(Box::new(self.new_session(spec).await?)),
        };
        let key = request.key;
        let create = move |desk: &mut Desk| desk.create_execution(within, key.as_deref(), spec);
        let created = self.desk.ask(create).await?;
        Ok(wire::shown_execution(created))
    }

    /// Newest first, without messages.
    pub async fn executions(&self, filter: Filter) -> Result<Page<pb::Execution>> {
        let read = move |db: &mut _| query::executions(db, &filter).map_err(failed);
        let page = self.reader.ask(read).await?;
        Ok(page.map(wire::shown_execution))
    }

    /// Cancels an execution, or asks its runner to.
    pub async fn cancel(&self, execution_id: &str, reason: &str) -> Result<pb::Execution> {
        let (id, reason) = (execution_id.to_owned(), reason.to_owned());
        let cancelled = self.desk.ask(move |desk| desk.cancel(&id, &reason)).await?;
        Ok(wire::shown_execution(cancelled))
    }

    /// Answers a tool call that waits for approval.
    pub async fn decide(&self, request: pb::DecideRequest) -> Result<()> {
        self.desk.ask(|desk| desk.decide(request)).await
    }

    /// Takes a runner on, until the registration is dropped.
    pub async fn register(&self, request: pb::RegisterRequest) -> Result<Registration> {
        check::name("runner_id", &request.runner_id)?;
        if self.stop.is_cancelled() {
            return Err(ending());
        }
        self.desk.ask(|desk| desk.register(request)).await
    }

    /// Renews a lease.
    pub async fn heartbeat(&self, request: pb::HeartbeatRequest) -> Result<pb::HeartbeatResponse> {
        let token = Secret::new(request.lease_token);
        let id = request.execution_id;
        self.desk.ask(move |desk| desk.heartbeat(&id, &token)).await
    }

    /// Records what a runner reports.
    pub async fn update(
        &self,
        request: pb::UpdateStatusRequest,
    ) -> Result<pb::UpdateStatusResponse> {
        check::batch(&request.events)?;
        let token = Secret::new(request.lease_token);
        let (id, batch, events) = (request.execution_id, request.batch, request.events);
        let update = move |desk: &mut Desk| desk.update(&id, &token, batch, events);
        self.desk.ask(update).await
    }

    /// Takes work back from a runner.
    pub async fn release(&self, request: pb::ReleaseRequest) -> Result<()> {
        let token = Secret::new(request.lease_token);
        let id = request.execution_id;
        self.desk.ask(move |desk| desk.release(&id, &token)).await
    }

    async fn new_session(&self, mut spec: pb::SessionSpec) -> Result<NewSession> {
        check::session(&spec, self.manager.guard())?;
        if let Some(id_or_name) = &spec.sandbox_id {
            let known = self.manager.get(id_or_name).await?;
            spec.sandbox_id = Some(known.record.id);
        }
        if let Some(backend) = &spec.backend {
            let found = self.manager.registry().get(Some(backend));
            found.map_err(|error| invalid("spec.backend", error.message()))?;
        }
        Ok(NewSession::new(spec))
    }
}

fn ending() -> Error {
    Error::new(ErrorCode::Unavailable, "the daemon is ending")
}
