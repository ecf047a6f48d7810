//! Agents over a real record, with a backend in memory. What clients see over
//! the wire is in `tests/e2e/agents`; here is what needs a short lease, a
//! moment of its own, or a second daemon.

mod claims;
mod leases;
mod lists;
mod restarts;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use stigmer_sdk::wire::agent::{self as pb, event::What};
use stigmer_sdk::wire::sandbox;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::*;
use crate::config::Limits;
use crate::guard::Guard;
use crate::registry::Registry;
use crate::sandboxes::Clock;
use crate::sandboxes::fake::FakeBackend;

/// Longer than anything here takes that is not stuck.
const SOON: Duration = Duration::from_secs(20);

/// One daemon's agents, with a runner `r` that is registered.
struct Bench {
    agents: Arc<Agents>,
    backend: FakeBackend,
    runner: Registration,
    dir: TempDir,
    /// Ends the upkeep with it.
    _tasks: JoinSet<()>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Timing::default()).await
    }

    async fn with(timing: Timing) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::open(dir, FakeBackend::default(), timing).await
    }

    async fn open(dir: TempDir, backend: FakeBackend, timing: Timing) -> Self {
        let registry = Registry::of("fake", Arc::new(backend.clone()));
        let guard = Guard::new(Limits::default(), TaskTracker::new());
        let manager = Manager::open(dir.path(), registry, guard, Clock::system()).unwrap();
        let agents = Agents::open_with(dir.path(), manager, Policy::default(), timing).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&agents).upkeep());
        let runner = register(&agents, "r").await;
        Self {
            agents,
            backend,
            runner,
            dir,
            _tasks: tasks,
        }
    }

    /// As if the daemon had been killed, and started again.
    async fn restart(self) -> Self {
        let Self {
            dir,
            backend,
            runner,
            ..
        } = self;
        // A daemon that is killed does not see its runners go.
        std::mem::forget(runner);
        Self::open(dir, backend, Timing::default()).await
    }

    /// An execution in a new session.
    async fn create(&self, spec: pb::ExecutionSpec) -> pb::Execution {
        self.create_in(pb::SessionSpec::default(), spec).await
    }

    async fn create_in(&self, session: pb::SessionSpec, spec: pb::ExecutionSpec) -> pb::Execution {
        let request = pb::CreateExecutionRequest {
            session: Some(create::Session::SessionSpec(session)),
            spec: Some(spec),
            key: None,
        };
        self.agents.create_execution(request).await.unwrap()
    }

    /// Another one in its session.
    async fn create_after(&self, first: &pb::Execution) -> pb::Execution {
        let request = pb::CreateExecutionRequest {
            session: Some(create::Session::SessionId(first.session_id.clone())),
            spec: Some(spec()),
            key: None,
        };
        self.agents.create_execution(request).await.unwrap()
    }

    /// What there is for `r`, without waiting.
    async fn claim(&self) -> Option<Claim> {
        match self.agents.claim("r", Duration::ZERO).await.unwrap() {
            Claimed::Work(work) => Some(Claim::of(&self.agents, *work)),
            Claimed::Nothing => None,
            Claimed::Unregistered => panic!("the runner is registered"),
        }
    }

    async fn status(&self, execution: &pb::Execution) -> pb::ExecutionStatus {
        let execution = self.agents.execution(&execution.execution_id).await;
        execution.unwrap().status.unwrap()
    }

    /// Waits until an execution is in this phase, by following it, and gives the
    /// change that brought it there.
    async fn until(&self, execution: &pb::Execution, phase: pb::Phase) -> pb::PhaseChange {
        let now = self.status(execution).await.seq;
        let events = self.agents.subscribe(&execution.execution_id, 1).await;
        let mut events = events.unwrap();
        let look = async {
            let mut last = pb::PhaseChange::default();
            while let Some(event) = events.next().await {
                let event = event.unwrap();
                if let Some(What::Phase(change)) = event.what {
                    last = change;
                }
                if last.phase() == phase && event.seq >= now {
                    return last;
                }
            }
            panic!("it ended without {phase:?}: {last:?}")
        };
        let in_time = tokio::time::timeout(SOON, look).await;
        in_time.unwrap_or_else(|_| panic!("{phase:?} did not come"))
    }
}

/// Work that a runner has.
struct Claim {
    agents: Arc<Agents>,
    work: pb::Work,
    id: String,
    token: String,
    batch: u64,
}

impl Claim {
    fn of(agents: &Arc<Agents>, work: pb::Work) -> Self {
        let execution = work.execution.as_ref().unwrap();
        Self {
            agents: Arc::clone(agents),
            id: execution.execution_id.clone(),
            token: work.lease.as_ref().unwrap().token.clone(),
            batch: 0,
            work,
        }
    }

    fn request(&self, batch: u64, whats: Vec<What>) -> pb::UpdateStatusRequest {
        let events = whats.into_iter().map(|what| pb::Event {
            what: Some(what),
            ..Default::default()
        });
        pb::UpdateStatusRequest {
            execution_id: self.id.clone(),
            lease_token: self.token.clone(),
            batch,
            events: events.collect(),
        }
    }

    async fn report(&mut self, whats: Vec<What>) -> Result<pb::UpdateStatusResponse> {
        self.batch += 1;
        self.agents.update(self.request(self.batch, whats)).await
    }

    async fn heartbeat(&self) -> Result<pb::HeartbeatResponse> {
        let request = pb::HeartbeatRequest {
            execution_id: self.id.clone(),
            lease_token: self.token.clone(),
        };
        self.agents.heartbeat(request).await
    }

    async fn release(&self) -> Result<()> {
        let request = pb::ReleaseRequest {
            execution_id: self.id.clone(),
            lease_token: self.token.clone(),
        };
        self.agents.release(request).await
    }
}

async fn register(agents: &Agents, runner_id: &str) -> Registration {
    let request = pb::RegisterRequest {
        runner_id: runner_id.to_owned(),
        pid: 1,
        ..Default::default()
    };
    agents.register(request).await.unwrap()
}

fn spec() -> pb::ExecutionSpec {
    pb::ExecutionSpec {
        message: "do it".to_owned(),
        ..Default::default()
    }
}

fn secret(name: &str, value: &str) -> std::collections::HashMap<String, pb::EnvValue> {
    let value = pb::EnvValue {
        value: value.to_owned(),
        secret: true,
    };
    [(name.to_owned(), value)].into()
}

fn said(id: &str, content: &str) -> What {
    What::Message(pb::Message {
        message_id: id.to_owned(),
        r#type: pb::MessageType::Ai.into(),
        content: content.to_owned(),
        ..Default::default()
    })
}

fn ended(phase: pb::Phase) -> What {
    let error = sandbox::Error {
        code: sandbox::ErrorCode::Internal.into(),
        message: "it broke".to_owned(),
        ..Default::default()
    };
    What::Phase(pb::PhaseChange {
        phase: phase.into(),
        error: (phase == pb::Phase::Failed).then_some(error),
        ..Default::default()
    })
}

#[track_caller]
fn message(error: Option<sandbox::Error>) -> String {
    error.expect("an error").message
}
