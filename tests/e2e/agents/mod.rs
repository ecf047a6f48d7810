//! Sessions and executions over a real daemon: as clients see them, and as
//! runners do, which here are the tests themselves.

mod following;
mod losing;
mod requests;
mod turns;

use std::time::Duration;

use futures_util::StreamExt as _;
use stigmer::grpc::status::from_status;
use stigmer_sdk::wire::agent::{self as pb, create_execution_request, event, register_response};
use stigmer_sdk::wire::sandbox;
use stigmer_sdk::{Error, ErrorCode};
use stigmer_tests::Daemon;
use tonic::Streaming;

use crate::client::Client;

/// Longer than anything here takes that is not stuck.
const SOON: Duration = Duration::from_secs(30);

/// What this takes, if it is not stuck.
#[track_caller]
fn soon<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let limit = tokio::time::timeout(SOON, work);
    async { limit.await.expect("it does not hang") }
}

/// A client and what it creates.
impl Client {
    async fn start(&self, request: pb::CreateExecutionRequest) -> Result<pb::Execution, Error> {
        let answer = self.executions().create(request).await;
        let answer = answer.map_err(from_status)?.into_inner();
        Ok(answer.execution.expect("an execution"))
    }

    /// An execution in a new session.
    async fn run(&self, message: &str) -> pb::Execution {
        let request = in_new(pb::SessionSpec::default(), spec(message));
        self.start(request).await.expect("an execution")
    }

    /// Another one in its session.
    async fn run_after(&self, first: &pb::Execution, message: &str) -> pb::Execution {
        let request = in_session(&first.session_id, spec(message));
        self.start(request).await.expect("an execution")
    }

    async fn get(&self, execution: &pb::Execution) -> pb::Execution {
        let request = pb::GetExecutionRequest {
            execution_id: execution.execution_id.clone(),
        };
        let answer = self.executions().get(request).await.expect("an execution");
        answer.into_inner().execution.expect("an execution")
    }

    async fn status(&self, execution: &pb::Execution) -> pb::ExecutionStatus {
        self.get(execution).await.status.expect("a status")
    }

    async fn cancel(&self, execution: &pb::Execution) -> pb::ExecutionStatus {
        let request = pb::CancelExecutionRequest {
            execution_id: execution.execution_id.clone(),
            reason: "enough".to_owned(),
        };
        let answer = self.executions().cancel(request).await.expect("an answer");
        let execution = answer.into_inner().execution.expect("an execution");
        execution.status.expect("a status")
    }

    async fn follow(&self, execution: &pb::Execution, from_seq: u64) -> Events {
        let request = pb::SubscribeRequest {
            execution_id: execution.execution_id.clone(),
            from_seq,
        };
        let events = self.executions().subscribe(request).await;
        Events(events.expect("events").into_inner())
    }

    /// All events of an execution, whose end is waited for.
    async fn record(&self, execution: &pb::Execution) -> Vec<pb::Event> {
        let events = self.follow(execution, 0).await;
        let events = soon(events.0.collect::<Vec<_>>()).await;
        let events: Vec<_> = events
            .into_iter()
            .map(|event| event.expect("an event").event.expect("an event"))
            .collect();
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        let expected: Vec<u64> = (1..=seqs.len() as u64).collect();
        assert_eq!(seqs, expected, "no gap and no repetition");
        events
    }

    async fn delete(&self, session_id: &str) {
        let request = pb::DeleteSessionRequest {
            session_id: session_id.to_owned(),
        };
        let mut sessions = self.sessions();
        soon(sessions.delete(request)).await.expect("it is deleted");
    }
}

/// Events of one execution.
struct Events(Streaming<pb::SubscribeResponse>);

impl Events {
    /// The next one.
    async fn next(&mut self) -> Option<pb::Event> {
        let answer = soon(self.0.message()).await.expect("an event");
        answer.map(|answer| answer.event.expect("an event"))
    }

    /// Waits for a change to this phase.
    async fn until(&mut self, phase: pb::Phase) -> pb::PhaseChange {
        while let Some(event) = self.next().await {
            if let Some(event::What::Phase(change)) = event.what
                && change.phase() == phase
            {
                return change;
            }
        }
        panic!("it ended without {phase:?}")
    }
}

/// A runner that is registered, with a connection of its own.
struct Runner {
    client: Client,
    id: String,
    instructions: Streaming<pb::RegisterResponse>,
}

impl Runner {
    async fn register(daemon: &Daemon, id: &str) -> Self {
        let client = Client::connect(daemon).await;
        let request = pb::RegisterRequest {
            runner_id: id.to_owned(),
            pid: std::process::id(),
            version: "1".to_owned(),
            ..Default::default()
        };
        let instructions = client.runners().register(request).await;
        let mut runner = Self {
            client,
            id: id.to_owned(),
            instructions: instructions.expect("it is registered").into_inner(),
        };
        let hello = runner.told().await;
        let register_response::What::Registered(hello) = hello else {
            panic!("{hello:?}")
        };
        assert_eq!(hello.lease_ttl_ms, 15_000);
        runner
    }

    /// What it is told next.
    async fn told(&mut self) -> register_response::What {
        let told = soon(self.instructions.message()).await.expect("a call");
        told.expect("an instruction").what.expect("an instruction")
    }

    /// Work, if there is any within so long.
    async fn claim(&self, wait: Duration) -> Option<Held> {
        let request = pb::ClaimRequest {
            runner_id: self.id.clone(),
            wait_ms: u64::try_from(wait.as_millis()).expect("a while"),
        };
        let answer = soon(self.client.runners().claim(request)).await;
        let work = answer.expect("an answer").into_inner().work?;
        Some(Held {
            client: self.client.clone(),
            id: work.execution.as_ref().expect("one").execution_id.clone(),
            token: work.lease.as_ref().expect("a lease").token.clone(),
            batch: 0,
            work,
        })
    }

    async fn work(&self) -> Held {
        self.claim(SOON).await.expect("work")
    }
}

/// An execution that a runner has.
struct Held {
    client: Client,
    work: pb::Work,
    id: String,
    token: String,
    batch: u64,
}

impl Held {
    async fn try_report(
        &mut self,
        whats: Vec<event::What>,
    ) -> Result<pb::UpdateStatusResponse, Error> {
        self.batch += 1;
        let events = whats.into_iter().map(|what| pb::Event {
            what: Some(what),
            ..Default::default()
        });
        let request = pb::UpdateStatusRequest {
            execution_id: self.id.clone(),
            lease_token: self.token.clone(),
            batch: self.batch,
            events: events.collect(),
        };
        let answer = self.client.runners().update_status(request).await;
        Ok(answer.map_err(from_status)?.into_inner())
    }

    async fn report(&mut self, whats: Vec<event::What>) -> pb::UpdateStatusResponse {
        self.try_report(whats).await.expect("it is recorded")
    }

    async fn end(mut self, phase: pb::Phase) {
        self.report(vec![ended(phase)]).await;
    }

    async fn heartbeat(&self) -> Result<pb::HeartbeatResponse, Error> {
        let request = pb::HeartbeatRequest {
            execution_id: self.id.clone(),
            lease_token: self.token.clone(),
        };
        let answer = self.client.runners().heartbeat(request).await;
        Ok(answer.map_err(from_status)?.into_inner())
    }
}

fn spec(message: &str) -> pb::ExecutionSpec {
    pb::ExecutionSpec {
        message: message.to_owned(),
        ..Default::default()
    }
}

fn in_new(session: pb::SessionSpec, spec: pb::ExecutionSpec) -> pb::CreateExecutionRequest {
    pb::CreateExecutionRequest {
        session: Some(create_execution_request::Session::SessionSpec(session)),
        spec: Some(spec),
        key: None,
    }
}

fn in_session(session_id: &str, spec: pb::ExecutionSpec) -> pb::CreateExecutionRequest {
    let session_id = session_id.to_owned();
    pb::CreateExecutionRequest {
        session: Some(create_execution_request::Session::SessionId(session_id)),
        spec: Some(spec),
        key: None,
    }
}

fn said(id: &str, r#type: pb::MessageType, content: &str) -> event::What {
    event::What::Message(pb::Message {
        message_id: id.to_owned(),
        r#type: r#type.into(),
        content: content.to_owned(),
        ..Default::default()
    })
}

fn more(id: &str, text: &str) -> event::What {
    event::What::Text(pb::TextDelta {
        message_id: id.to_owned(),
        text: text.to_owned(),
    })
}

fn ended(phase: pb::Phase) -> event::What {
    let error = sandbox::Error {
        code: sandbox::ErrorCode::Internal.into(),
        message: "it broke".to_owned(),
        ..Default::default()
    };
    event::What::Phase(pb::PhaseChange {
        phase: phase.into(),
        error: (phase == pb::Phase::Failed).then_some(error),
        ..Default::default()
    })
}

/// The daemon ends where ending takes no thread of the runtime.
async fn stop(daemon: Daemon) {
    tokio::task::spawn_blocking(|| daemon.stop())
        .await
        .expect("it stops");
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode, message: &str) {
    let error = result.expect_err("it is refused");
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(message), "{error}");
}
