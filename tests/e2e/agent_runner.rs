//! The built-in runner, between a real daemon and fake providers.

use std::time::{Duration, Instant};

use serde_json::json;
use stigmer_agent::model::{Endpoint, Key, Provider, Providers};
use stigmer_agent::{Config, RunnerError};
use stigmer_sdk::wire::agent::{self as pb, Phase, create_execution_request::Session, event::What};
use stigmer_tests::fakes::{FakeProvider, Reply};
use stigmer_tests::{Daemon, Home, note};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::client::{Client, LOCAL_KEY};

const SOON: Duration = Duration::from_secs(30);

/// A runner in this process.
struct Runner {
    stop: Option<oneshot::Sender<()>>,
    running: JoinSet<Result<(), RunnerError>>,
}

impl Runner {
    async fn start(daemon: &Daemon, provider: Provider, fake: &FakeProvider) -> Self {
        Self::named("runner-1", daemon, provider, fake).await
    }

    async fn named(id: &str, daemon: &Daemon, provider: Provider, fake: &FakeProvider) -> Self {
        let endpoint = Endpoint {
            base_url: fake.base_url(),
            key: Some(Key::new(fake.key())),
        };
        let config = Config {
            endpoint: format!("unix:{}", daemon.socket().display()),
            api_key: Key::new(LOCAL_KEY),
            runner_id: id.to_owned(),
            providers: Providers {
                default: provider,
                model: None,
                anthropic: endpoint.clone(),
                openai: endpoint.clone(),
                ollama: endpoint,
            },
            concurrency: 4,
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let mut running = JoinSet::new();
        running.spawn(stigmer_agent::run(
            config,
            move || ready.send(()).expect("the test waits"),
            async move { drop(stopped.await) },
        ));
        soon(is_ready).await.expect("it is registered");
        Self {
            stop: Some(stop),
            running,
        }
    }

    /// Stops it, and tells how long that took.
    async fn stop(mut self) -> Duration {
        let begun = Instant::now();
        drop(self.stop.take());
        let ended = soon(self.running.join_next()).await.expect("one");
        ended.expect("no panic").expect("a good end");
        begun.elapsed()
    }

    /// Ends it as SIGKILL would.
    async fn kill(mut self) {
        self.running.shutdown().await;
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work)
        .await
        .expect("it does not hang")
}

fn spec(message: &str) -> pb::ExecutionSpec {
    pb::ExecutionSpec {
        message: message.to_owned(),
        ..pb::ExecutionSpec::default()
    }
}

async fn create(client: &Client, session: Session, spec: pb::ExecutionSpec) -> pb::Execution {
    let request = pb::CreateExecutionRequest {
        session: Some(session),
        spec: Some(spec),
        key: None,
    };
    let answer = client
        .executions()
        .create(request)
        .await
        .expect("an answer");
    answer.into_inner().execution.expect("an execution")
}

async fn create_new(client: &Client, spec: pb::ExecutionSpec) -> pb::Execution {
    create(
        client,
        Session::SessionSpec(pb::SessionSpec::default()),
        spec,
    )
    .await
}

/// Its events, as they come.
struct Events(tonic::Streaming<pb::SubscribeResponse>, Vec<What>);

impl Events {
    async fn of(client: &Client, execution: &pb::Execution) -> Self {
        let request = pb::SubscribeRequest {
            execution_id: execution.execution_id.clone(),
            from_seq: 0,
        };
        let events = client.executions().subscribe(request).await;
        Self(events.expect("events").into_inner(), Vec::new())
    }

    async fn next(&mut self) -> Option<What> {
        let next = soon(self.0.message()).await.expect("an event")?;
        let what = next.event.expect("an event").what.expect("one");
        self.1.push(what.clone());
        Some(what)
    }

    async fn until(&mut self, wanted: impl Fn(&What) -> bool) {
        while let Some(what) = self.next().await {
            if wanted(&what) {
                return;
            }
        }
        panic!("it ended before: {:#?}", self.1);
    }

    /// Waits for the end, and gives the final phase.
    async fn end(&mut self) -> pb::PhaseChange {
        while self.next().await.is_some() {}
        match self.1.last() {
            Some(What::Phase(change)) => change.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn calls(&self) -> Vec<pb::ToolCall> {
        let call = |what: &What| match what {
            What::ToolCall(call) => Some(call.clone()),
            _ => None,
        };
        self.1.iter().filter_map(call).collect()
    }
}

async fn status(client: &Client, execution: &pb::Execution) -> pb::ExecutionStatus {
    let request = pb::GetExecutionRequest {
        execution_id: execution.execution_id.clone(),
    };
    let answer = client.executions().get(request).await.expect("an answer");
    let execution = answer.into_inner().execution.expect("an execution");
    execution.status.expect("a status")
}

fn prints(text: &'static str) -> impl Fn(&What) -> bool {
    move |what| matches!(what, What::Output(output) if output.data.starts_with(text.as_bytes()))
}

async fn end(home: Home, daemon: Daemon) {
    let end = move || {
        daemon.stop();
        drop(home);
    };
    tokio::task::spawn_blocking(end).await.expect("an end");
}

fn sleepers(home: &Home) -> usize {
    let all = home.processes();
    all.iter()
        .filter(|process| process.command.contains("4321"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_works_and_remembers() {
    for (provider, fake) in [
        (Provider::Anthropic, FakeProvider::anthropic()),
        (Provider::OpenAi, FakeProvider::openai()),
        (Provider::Ollama, FakeProvider::ollama()),
    ] {
        let home = Home::new();
        let daemon = home.daemon();
        let client = Client::connect(&daemon).await;
        let runner = Runner::start(&daemon, provider, &fake).await;
        let program = "print([n for n in range(2, 50) if all(n % d for d in range(2, n))])\n";
        fake.reply(
            Reply::calls([
                (
                    "write_file",
                    json!({"path": "hello.py", "content": program}),
                ),
                (
                    "execute",
                    json!({"command": "python3 hello.py; echo $SECRET"}),
                ),
            ])
            .with_text("I write it and run it."),
        );
        fake.reply(Reply::text("It prints the primes below 50."));
        let agent = pb::AgentSpec {
            instructions: "You like primes.".to_owned(),
            skills: vec![pb::Skill {
                name: "primes".to_owned(),
                description: "all about primes".to_owned(),
                files: vec![pb::skill::File {
                    path: "SKILL.md".to_owned(),
                    data: "2 is the first.".into(),
                    executable: false,
                }],
            }],
            ..pb::AgentSpec::default()
        };
        let secret = pb::EnvValue {
            value: "hunter2-secret".to_owned(),
            secret: true,
        };
        let session = pb::SessionSpec {
            agent: Some(agent),
            ..pb::SessionSpec::default()
        };
        let first = create(
            &client,
            Session::SessionSpec(session),
            pb::ExecutionSpec {
                env: [("SECRET".to_owned(), secret)].into(),
                ..spec("make hello.py")
            },
        )
        .await;
        let mut events = Events::of(&client, &first).await;
        let phase = events.end().await;
        assert_eq!(phase.phase(), Phase::Completed, "{phase:?}");
        let calls = status(&client, &first).await.tool_calls;
        assert_eq!(calls.len(), 2);
        assert_eq!(calls[0].changes[0].path, "hello.py");
        assert!(
            calls[1].result.contains("41, 43, 47]\n***\n"),
            "{}",
            calls[1].result
        );
        assert!(!format!("{:?}", events.1).contains("hunter2"));
        let asked = fake.requests();
        assert!(asked[0].system().contains("You like primes."));
        assert!(
            asked[0]
                .system()
                .contains("- primes: all about primes (.stigmer/skills/primes/SKILL.md)")
        );
        assert!(asked[0].tools().contains(&"execute".to_owned()));
        assert_eq!(asked[0].said(), "make hello.py");
        assert!(asked[1].results()[1].contains("47]"));

        // A second one, and another runner: it knows what was said.
        runner.stop().await;
        let runner = Runner::start(&daemon, provider, &fake).await;
        fake.reply(Reply::calls([(
            "read_file",
            json!({"path": ".stigmer/skills/primes/SKILL.md"}),
        )]));
        fake.reply(Reply::text("You asked for hello.py."));
        let again = Session::SessionId(first.session_id.clone());
        let second = create(&client, again, spec("what did I ask for?")).await;
        let mut events = Events::of(&client, &second).await;
        assert_eq!(events.end().await.phase(), Phase::Completed);
        assert!(
            events
                .calls()
                .last()
                .expect("a call")
                .result
                .contains("2 is the first.")
        );
        let asked = fake.requests();
        assert_eq!(asked.len(), 4);
        assert!(
            asked.iter().all(|request| request.status == 200),
            "{asked:#?}"
        );
        let body = asked[2].body.to_string();
        assert!(
            body.contains("make hello.py") && body.contains("It prints the primes"),
            "{body}"
        );
        let took = runner.stop().await;
        note(&format!("idle, stopped after {took:?}"));
        assert!(took < Duration::from_millis(300), "{took:?}");
        end(home, daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_the_command_and_the_answer() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let fake = FakeProvider::anthropic();
    let runner = Runner::start(&daemon, Provider::Anthropic, &fake).await;
    let cancel = async |execution: &pb::Execution, events: &mut Events| {
        let begun = Instant::now();
        let request = pb::CancelExecutionRequest {
            execution_id: execution.execution_id.clone(),
            reason: "enough".to_owned(),
        };
        client
            .executions()
            .cancel(request)
            .await
            .expect("an answer");
        assert_eq!(events.end().await.phase(), Phase::Cancelled);
        let took = begun.elapsed();
        note(&format!("cancelled after {took:?}"));
        assert!(took < Duration::from_secs(1), "{took:?}");
    };
    let script = "trap '' TERM; setsid sleep 4321 & echo begun; sleep 4321";
    fake.reply(Reply::calls([("execute", json!({"command": script}))]));
    let execution = create_new(&client, spec("sleep")).await;
    let mut events = Events::of(&client, &execution).await;
    events.until(prints("begun")).await;
    assert!(sleepers(&home) >= 2);
    cancel(&execution, &mut events).await;
    assert_eq!(sleepers(&home), 0);
    let call = events.calls().pop().expect("a call");
    assert_eq!(call.status(), pb::ToolCallStatus::Failed);
    assert_eq!(call.error.as_deref(), Some("cancelled"));

    let (reply, gate) = Reply::text("one two three four").held_after(4);
    fake.reply(reply);
    let execution = create_new(&client, spec("talk")).await;
    let mut events = Events::of(&client, &execution).await;
    events.until(|what| matches!(what, What::Text(_))).await;
    cancel(&execution, &mut events).await;
    let limit = Instant::now() + SOON;
    while fake.abandoned() == 0 {
        assert!(Instant::now() < limit, "the answer goes on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    gate.open();
    runner.stop().await;
    end(home, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_stopped_lets_go() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let fake = FakeProvider::openai();
    let runner = Runner::start(&daemon, Provider::OpenAi, &fake).await;
    // At work.
    fake.reply(Reply::calls([(
        "execute",
        json!({"command": "echo begun; sleep 4321"}),
    )]));
    let working = create_new(&client, spec("work")).await;
    let mut events = Events::of(&client, &working).await;
    events.until(prints("begun")).await;
    // The model has said nothing yet.
    let (reply, gate) = Reply::text("never").held();
    fake.reply(reply);
    let untouched = create_new(&client, spec("wait")).await;
    tokio::task::spawn_blocking({
        let gate = gate.clone();
        move || gate.reached()
    })
    .await
    .expect("it is asked");
    let took = runner.stop().await;
    note(&format!("at work, stopped after {took:?}"));
    assert!(took < Duration::from_secs(4), "{took:?}");
    let phase = events.end().await;
    assert_eq!(phase.phase(), Phase::Failed);
    assert_eq!(
        phase.error.expect("why").message,
        "the agent runner was stopped"
    );
    assert_eq!(sleepers(&home), 0);
    let waiting = status(&client, &untouched).await;
    assert_eq!(
        (waiting.phase(), waiting.attempt),
        (Phase::Pending, 0),
        "{waiting:?}"
    );
    gate.open();
    fake.reply(Reply::text("at last"));
    let runner = Runner::start(&daemon, Provider::OpenAi, &fake).await;
    let mut events = Events::of(&client, &untouched).await;
    assert_eq!(events.end().await.phase(), Phase::Completed);
    let said = status(&client, &untouched).await.messages;
    let texts: Vec<_> = said
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    assert_eq!(texts, ["wait", "at last"]);
    assert_eq!(status(&client, &untouched).await.attempt, 1);
    runner.stop().await;
    end(home, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_attempt_knows_that_the_first_was_killed() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let fake = FakeProvider::anthropic();
    let runner = Runner::start(&daemon, Provider::Anthropic, &fake).await;
    fake.reply(Reply::calls([
        (
            "write_todos",
            json!({"todos": [{"content": "sleep", "status": "in_progress"}]}),
        ),
        ("execute", json!({"command": "echo begun; sleep 4321"})),
    ]));
    let execution = create_new(
        &client,
        pb::ExecutionSpec {
            max_attempts: Some(2),
            ..spec("work")
        },
    )
    .await;
    let mut events = Events::of(&client, &execution).await;
    events.until(prints("begun")).await;
    runner.kill().await;
    fake.reply(Reply::text("done at last"));
    let runner = Runner::named("runner-2", &daemon, Provider::Anthropic, &fake).await;
    assert_eq!(events.end().await.phase(), Phase::Completed);
    let asked = fake.requests();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].status, 200);
    assert!(asked[1].said().contains("work"), "{}", asked[1].said());
    assert!(
        asked[1].said().contains("may be half done"),
        "{}",
        asked[1].said()
    );
    runner.stop().await;
    end(home, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_call_is_not_made_and_time_is_up_in_the_end() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let fake = FakeProvider::ollama();
    let runner = Runner::start(&daemon, Provider::Ollama, &fake).await;
    fake.reply(Reply::calls([(
        "write_file",
        json!({"path": "a", "content": "new\n"}),
    )]));
    fake.reply(Reply::calls([(
        "execute",
        json!({"command": "echo begun; sleep 4321"}),
    )]));
    let execution = create_new(
        &client,
        pb::ExecutionSpec {
            approvals: Some(pb::Approvals {
                mode: pb::approvals::Mode::Never.into(),
                rules: vec![pb::ApprovalRule {
                    tool: "write_file".to_owned(),
                    pattern: String::new(),
                    answer: pb::approval_rule::Answer::Ask.into(),
                }],
            }),
            limits: Some(pb::ExecutionLimits {
                timeout_ms: Some(3000),
                ..pb::ExecutionLimits::default()
            }),
            ..spec("try")
        },
    )
    .await;
    let mut events = Events::of(&client, &execution).await;
    events.until(|what| matches!(what, What::Approval(_))).await;
    let Some(What::Approval(approval)) = events.1.last().cloned() else {
        panic!("it was just there");
    };
    assert_eq!(approval.summary, "a");
    assert_eq!(approval.changes[0].diff, "@@ -0,0 +1 @@\n+new\n");
    let decision = pb::DecideRequest {
        execution_id: execution.execution_id.clone(),
        tool_call_id: approval.tool_call_id,
        allow: false,
        reason: "not that".to_owned(),
    };
    client
        .executions()
        .decide(decision)
        .await
        .expect("it is heard");
    let phase = events.end().await;
    assert_eq!(phase.phase(), Phase::Failed);
    assert_eq!(
        phase.error.expect("why").message,
        "it ran for 3 s, which is its limit"
    );
    assert_eq!(sleepers(&home), 0);
    let results = fake.requests()[1].results();
    assert!(
        results[0].contains("denied by the person, who says: not that"),
        "{results:?}"
    );
    runner.stop().await;
    end(home, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_comes_back_is_found() {
    let home = Home::new();
    let daemon = home.daemon();
    let fake = FakeProvider::anthropic();
    let runner = Runner::start(&daemon, Provider::Anthropic, &fake).await;
    let killed = tokio::task::spawn_blocking(move || daemon.kill());
    killed.await.expect("it is gone");
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    fake.reply(Reply::text("here"));
    let execution = create_new(&client, spec("hello")).await;
    let mut events = Events::of(&client, &execution).await;
    assert_eq!(events.end().await.phase(), Phase::Completed);
    runner.stop().await;
    end(home, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_word_arrives_at_once() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let fake = FakeProvider::openai();
    let runner = Runner::start(&daemon, Provider::OpenAi, &fake).await;
    let mut took = Vec::new();
    for _ in 0..10 {
        let (reply, gate) = Reply::text("word").held_after(1);
        fake.reply(reply);
        let execution = create_new(&client, spec("say it")).await;
        let mut events = Events::of(&client, &execution).await;
        tokio::task::spawn_blocking({
            let gate = gate.clone();
            move || gate.reached()
        })
        .await
        .expect("it is asked");
        let begun = Instant::now();
        gate.open();
        events.until(|what| matches!(what, What::Text(_))).await;
        took.push(begun.elapsed());
        events.end().await;
    }
    took.sort();
    note(&format!("first word after {took:?}"));
    // The fake itself looks every 2 ms whether the gate is open.
    assert!(took[took.len() / 2] < Duration::from_millis(50), "{took:?}");
    runner.stop().await;
    end(home, daemon).await;
}
