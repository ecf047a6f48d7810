//! A record of executions that has grown for a year: what it costs to list it,
//! to open what is in it, and to add to it.

use std::time::Instant;

use stigmer_sdk::wire::agent as pb;
use stigmer_sdk::wire::agent::create_execution_request::Session as Within;
use stigmer_sdk::wire::agent::event::What;
use tonic::Streaming;

use super::daemon::Bench;
use super::figures::{Figures, Samples, Target};
use crate::cli::daemon::{Service, incomplete};
use crate::cli::failure::Result;
use crate::grpc::generated::agent::runners_client::RunnersClient;

/// Events of each execution, all told.
const EVENTS: usize = 100;
const SESSIONS: usize = 100;
/// How often each thing is measured.
const ROUNDS: usize = 200;
/// What people find short.
const OPEN: Target = Target::AtMost(10.0);

pub(super) async fn measure(figures: &mut Figures, count: usize) -> Result<()> {
    let bench = Bench::start(0).await?;
    let mut work = Work::new(&bench).await?;
    let mut executions = Vec::new();
    let mut turn = Samples::default();
    for number in 0..count {
        let start = Instant::now();
        let (execution, lease) = work.begin(number).await?;
        work.report(&execution, &lease, 1, story()).await?;
        turn.push(start.elapsed());
        executions.push(execution);
    }
    figures.add(
        "an execution with 100 events, from Create to its end",
        turn.median(),
        "ms",
        None,
    );
    lists(figures, &bench, count, &work.sessions).await?;

    let (mut get, mut first) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        let execution_id = executions[round * count / ROUNDS].clone();
        let start = Instant::now();
        let request = pb::GetExecutionRequest {
            execution_id: execution_id.clone(),
        };
        bench.daemon.executions().get(request).await?;
        get.push(start.elapsed());
        let start = Instant::now();
        let mut events = follow(&bench, &execution_id, 1).await?;
        events.message().await?.ok_or_else(incomplete)?;
        first.push(start.elapsed());
    }
    figures.add("open one with its messages", get.median(), "ms", Some(OPEN));
    figures.add("the same, 99th percentile", get.p99(), "ms", Some(OPEN));
    figures.add(
        "the first event of one, for a follower",
        first.median(),
        "ms",
        Some(OPEN),
    );

    let (execution, lease) = work.begin(0).await?;
    let (mut append, mut heard) = (Samples::default(), Samples::default());
    // After the two events that say that it waits and that it began.
    let mut events = follow(&bench, &execution, 3).await?;
    for batch in 1..=ROUNDS {
        let start = Instant::now();
        let report = work.report(&execution, &lease, batch as u64, vec![text()]);
        let (reported, told) =
            tokio::join!(async { report.await.map(|()| start.elapsed()) }, async {
                events.message().await.map(|_| start.elapsed())
            },);
        append.push(reported?);
        heard.push(told?);
    }
    figures.add(
        "append an event",
        append.median(),
        "ms",
        Some(Target::AtMost(2.0)),
    );
    figures.add("the same, 99th percentile", append.p99(), "ms", None);
    figures.add(
        "until a follower has it",
        heard.median(),
        "ms",
        Some(Target::AtMost(5.0)),
    );
    let size =
        std::fs::metadata(bench.dir().join("agents.db")).map_or(f64::NAN, |file| file.len() as f64);
    figures.add("the record on disk", size / f64::from(1 << 20), "MiB", None);
    figures.add(
        "the daemon with it",
        bench.memory("VmRSS"),
        "MiB",
        Some(Target::AtMost(60.0)),
    );
    Ok(())
}

async fn lists(
    figures: &mut Figures,
    bench: &Bench,
    count: usize,
    sessions: &[String],
) -> Result<()> {
    let session = sessions.first().cloned();
    let label = |value: String| [("number".to_owned(), value)].into();
    let all = pb::ListExecutionsRequest::default;
    let lists = [
        ("list the newest 100 executions", all()),
        (
            "list 100 from the middle",
            pb::ListExecutionsRequest {
                page_token: (count / 2).to_string(),
                ..all()
            },
        ),
        (
            "list those of a session",
            pb::ListExecutionsRequest {
                session_id: session,
                ..all()
            },
        ),
        (
            "list those in progress, of which there are none",
            pb::ListExecutionsRequest {
                phases: vec![pb::Phase::Pending.into(), pb::Phase::InProgress.into()],
                ..all()
            },
        ),
        (
            "find the oldest by its label",
            pb::ListExecutionsRequest {
                labels: label("0".to_owned()),
                ..all()
            },
        ),
    ];
    for (name, request) in lists {
        let mut samples = Samples::default();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            bench.daemon.executions().list(request.clone()).await?;
            samples.push(start.elapsed());
        }
        figures.add(name, samples.median(), "ms", Some(OPEN));
    }
    Ok(())
}

/// A runner that does nothing but report.
struct Work<'a> {
    bench: &'a Bench,
    runners: RunnersClient<Service>,
    /// All of them in one sandbox.
    sessions: Vec<String>,
    /// Registered for as long as this is open.
    _instructions: Streaming<pb::RegisterResponse>,
}

impl<'a> Work<'a> {
    async fn new(bench: &'a Bench) -> Result<Self> {
        let sandbox_id = bench.sandbox().await?.sandbox_id;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let spec = pb::SessionSpec {
                sandbox_id: Some(sandbox_id.clone()),
                ..Default::default()
            };
            let request = pb::CreateSessionRequest { spec: Some(spec) };
            let created = bench.daemon.sessions().create(request).await?.into_inner();
            sessions.push(created.session.ok_or_else(incomplete)?.session_id);
        }
        let mut runners = RunnersClient::new(bench.daemon.service());
        let request = pb::RegisterRequest {
            runner_id: "bench".to_owned(),
            ..Default::default()
        };
        let instructions = runners.register(request).await?.into_inner();
        Ok(Self {
            bench,
            runners,
            sessions,
            _instructions: instructions,
        })
    }

    /// An execution that is created and claimed: its id and its lease.
    async fn begin(&mut self, number: usize) -> Result<(String, String)> {
        let spec = pb::ExecutionSpec {
            message: "make a file that prints the primes below 50, and run it".to_owned(),
            labels: [("number".to_owned(), number.to_string())].into(),
            ..Default::default()
        };
        let session = self.sessions[number % SESSIONS].clone();
        let request = pb::CreateExecutionRequest {
            session: Some(Within::SessionId(session)),
            spec: Some(spec),
            key: None,
        };
        self.bench.daemon.executions().create(request).await?;
        let request = pb::ClaimRequest {
            runner_id: "bench".to_owned(),
            wait_ms: 10_000,
        };
        let work = self.runners.claim(request).await?.into_inner().work;
        let work = work.ok_or_else(incomplete)?;
        let execution = work.execution.ok_or_else(incomplete)?;
        let lease = work.lease.ok_or_else(incomplete)?;
        Ok((execution.execution_id, lease.token))
    }

    async fn report(
        &mut self,
        execution_id: &str,
        lease_token: &str,
        batch: u64,
        whats: Vec<What>,
    ) -> Result<()> {
        let events = whats.into_iter().map(|what| pb::Event {
            what: Some(what),
            ..Default::default()
        });
        let request = pb::UpdateStatusRequest {
            execution_id: execution_id.to_owned(),
            lease_token: lease_token.to_owned(),
            batch,
            events: events.collect(),
        };
        self.runners.update_status(request).await?;
        Ok(())
    }
}

async fn follow(
    bench: &Bench,
    execution_id: &str,
    from_seq: u64,
) -> Result<Streaming<pb::SubscribeResponse>> {
    let request = pb::SubscribeRequest {
        execution_id: execution_id.to_owned(),
        from_seq,
    };
    Ok(bench
        .daemon
        .executions()
        .subscribe(request)
        .await?
        .into_inner())
}

/// What a runner reports of one execution: with the two events that the daemon
/// adds itself, [`EVENTS`] of them.
fn story() -> Vec<What> {
    let message = |id: &str, r#type: pb::MessageType, content: &str| {
        What::Message(pb::Message {
            message_id: id.to_owned(),
            r#type: r#type.into(),
            content: content.to_owned(),
            ..Default::default()
        })
    };
    let call = |status: pb::ToolCallStatus, result: &str| {
        What::ToolCall(pb::ToolCall {
            tool_call_id: "call".to_owned(),
            message_id: "said".to_owned(),
            name: "execute".to_owned(),
            args: r#"{"command":"python3 primes.py"}"#.to_owned(),
            result: result.to_owned(),
            status: status.into(),
            ..Default::default()
        })
    };
    let result = "2 3 5 7 11 13 17 19 23 29 31 37 41 43 47\n".repeat(20);
    let mut story = vec![
        message("asked", pb::MessageType::Human, "make a file"),
        message("said", pb::MessageType::Ai, ""),
        call(pb::ToolCallStatus::Running, ""),
        call(pb::ToolCallStatus::Completed, &result),
        message("result", pb::MessageType::Tool, &result),
        What::Usage(pb::Usage::default()),
    ];
    story.resize_with(EVENTS - 3, text);
    story.push(What::Phase(pb::PhaseChange {
        phase: pb::Phase::Completed.into(),
        ..Default::default()
    }));
    story
}

/// A few words, as a model streams them.
fn text() -> What {
    What::Text(pb::TextDelta {
        message_id: "said".to_owned(),
        text: "a few words ".to_owned(),
    })
}
