//! Runners, clients and daemons that are lost in the middle of it.

use std::path::Path;

use stigmer_tests::Home;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_gone_is_known_at_once() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let again = pb::ExecutionSpec {
        max_attempts: Some(2),
        ..spec("try twice")
    };
    let execution = client.start(in_new(pb::SessionSpec::default(), again));
    let execution = execution.await.expect("an execution");
    let mut events = client.follow(&execution, 2).await;

    let first = Runner::register(&daemon, "first").await;
    let mut old = first.work().await;
    old.report(vec![said("m", pb::MessageType::Ai, "lost")])
        .await;
    let Runner { instructions, .. } = first;
    drop(instructions);
    let change = events.until(pb::Phase::Pending).await;
    let why = change.error.expect("a reason").message;
    assert!(why.contains("the runner 'first' died"), "{why}");
    assert_eq!(change.attempt, 1);

    let second = Runner::register(&daemon, "second").await;
    let mut new = second.work().await;
    new.report(vec![said("m", pb::MessageType::Ai, "found")])
        .await;
    // The one that was believed dead cannot write over its successor.
    let from_the_dead = old
        .try_report(vec![said("m", pb::MessageType::Ai, "ha")])
        .await;
    refused(
        from_the_dead,
        ErrorCode::Conflict,
        "the lease of the execution",
    );
    refused(
        old.heartbeat().await,
        ErrorCode::Conflict,
        "not this runner's any more",
    );
    drop((second, new));
    let failed = events.until(pb::Phase::Failed).await;
    assert!(events.next().await.is_none());
    let why = failed.error.expect("a reason").message;
    assert!(
        why.contains("'second' died") && why.contains("send the message again"),
        "{why}"
    );
    let status = client.status(&execution).await;
    assert_eq!((status.attempt, status.messages.len()), (2, 1));
    assert_eq!(status.messages[0].content, "found");
    client.record(&execution).await;
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_renews_lapses() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let runner = Runner::register(&daemon, "r").await;
    let execution = client.run("hang").await;
    let held = runner.work().await;
    let ttl = Duration::from_millis(held.work.lease.as_ref().expect("a lease").ttl_ms);
    let renewed = std::time::Instant::now();
    held.heartbeat().await.expect("it lives");
    let mut events = client.follow(&execution, 3).await;
    let failed = events.until(pb::Phase::Failed).await;
    assert!(renewed.elapsed() >= ttl, "no sooner than promised");
    let why = failed.error.expect("a reason").message;
    assert!(
        why.contains("the runner 'r' was not heard of in time"),
        "{why}"
    );
    refused(held.heartbeat().await, ErrorCode::Conflict, "the lease");
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimant_that_vanishes_loses_nothing() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let steady = Runner::register(&daemon, "steady").await;
    let mut taken = 0;
    for round in 0..20 {
        let fickle = Runner::register(&daemon, &format!("fickle{round}")).await;
        let mut runners = fickle.client.runners();
        let request = pb::ClaimRequest {
            runner_id: fickle.id.clone(),
            wait_ms: 60_000,
        };
        // It goes away about when there is work for it.
        let claim = runners.claim(request);
        let created = tokio::select! {
            biased;
            created = client.run("x") => created,
            claimed = claim => {
                // It came first: the answer was there before that of Create.
                drop(claimed.expect("an answer"));
                taken += 1;
                continue;
            }
        };
        drop(fickle);
        let mut held = steady.work().await;
        while held.id != created.execution_id {
            held.end(pb::Phase::Completed).await;
            held = steady.work().await;
        }
        let attempt = client.status(&created).await.attempt;
        assert_eq!(attempt, 1, "round {round}");
        held.end(pb::Phase::Completed).await;
    }
    assert!(taken < 20, "the race was never the other way round");
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_leaves_a_record_that_is_true() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let runner = Runner::register(&daemon, "r").await;
    let lost = client.run("be lost").await;
    let after = client.run_after(&lost, "come after").await;
    let mut held = runner.work().await;
    held.report(vec![said("m", pb::MessageType::Ai, "")]).await;
    let mut follower = client.follow(&lost, 1).await;
    let mut recorded = 0;
    for _ in 0..50 {
        recorded = held.report(vec![more("m", "x")]).await.seq;
    }
    assert_eq!(follower.next().await.expect("an event").seq, 1);
    tokio::task::spawn_blocking(|| daemon.kill())
        .await
        .expect("it is killed");
    refused(
        held.try_report(vec![more("m", "x")]).await,
        ErrorCode::Unavailable,
        "",
    );
    let cut = async {
        loop {
            if let Err(status) = follower.0.message().await {
                return from_status(status);
            }
        }
    };
    assert_eq!(soon(cut).await.code(), ErrorCode::Unavailable);

    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let status = client.status(&lost).await;
    assert_eq!(status.phase(), pb::Phase::Failed);
    assert_eq!(
        status.messages[0].content.len(),
        50,
        "what was answered was recorded"
    );
    // A follower goes on where it was, over the restart.
    let mut follower = client.follow(&lost, recorded + 1).await;
    let change = follower.until(pb::Phase::Failed).await;
    assert!(
        change
            .error
            .expect("a reason")
            .message
            .contains("the daemon ended")
    );
    assert!(follower.next().await.is_none());
    client.record(&lost).await;
    let runner = Runner::register(&daemon, "r").await;
    let held = runner.work().await;
    assert_eq!(held.id, after.execution_id);
    held.end(pb::Phase::Completed).await;
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_but_with_the_runner() {
    const MARK: &str = "mark-4b1d-of-a-secret";
    let home = Home::new();
    let daemon = Daemon::start(&home, &["--log-level", "trace"]);
    let client = Client::connect(&daemon).await;
    let runner = Runner::register(&daemon, "r").await;
    let secret = |value: &str| pb::EnvValue {
        value: value.to_owned(),
        secret: true,
    };
    let session = pb::SessionSpec {
        agent: Some(pb::AgentSpec {
            env: [("THEIRS".to_owned(), secret(&format!("{MARK}-1")))].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let with_secret = pb::ExecutionSpec {
        env: [("OURS".to_owned(), secret(&format!("{MARK}-2")))].into(),
        ..spec("use them")
    };
    let execution = client.start(in_new(session, with_secret.clone()));
    let execution = execution.await.expect("an execution");
    assert!(!format!("{execution:?}").contains(MARK));
    let mut held = runner.work().await;
    let env = &held
        .work
        .execution
        .as_ref()
        .unwrap()
        .spec
        .as_ref()
        .unwrap()
        .env;
    assert_eq!(env["OURS"].value, format!("{MARK}-2"));
    let leak = format!("OURS={MARK}-2 THEIRS={MARK}-1");
    held.report(vec![
        said("m", pb::MessageType::Tool, &leak),
        event::What::Output(pb::ToolOutput {
            data: leak.clone().into(),
            ..tool_output()
        }),
    ])
    .await;
    let token = held.token.clone();
    let shown = client.get(&execution).await;
    let content = &shown.status.as_ref().unwrap().messages[0].content;
    assert_eq!(content, "OURS=*** THEIRS=***");
    assert_eq!(shown.spec.unwrap().env["OURS"].value, "***");
    let waiting = in_session(&execution.session_id, with_secret);
    let waiting = client.start(waiting).await.expect("an execution");
    let log = daemon.log();
    assert!(
        !log.contains(MARK) && !log.contains(&token),
        "the log has a secret"
    );
    tokio::task::spawn_blocking(|| daemon.kill())
        .await
        .expect("it is killed");
    none_holds(&home.data(), &[MARK, &token]);

    // What cannot be done any more says so.
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let status = client.status(&waiting).await;
    assert_eq!(status.phase(), pb::Phase::Failed);
    let why = status.error.expect("a reason").message;
    assert!(
        why.contains("OURS was lost when the daemon was restarted"),
        "{why}"
    );
    stop(daemon).await;
    none_holds(&home.data(), &[MARK, &token]);
}

fn tool_output() -> pb::ToolOutput {
    pb::ToolOutput {
        tool_call_id: "t".to_owned(),
        ..Default::default()
    }
}

/// No file below this has any of these in it.
#[track_caller]
fn none_holds(dir: &Path, marks: &[&str]) {
    let mut files = 0;
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            none_holds(&path, marks);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).expect("a file");
            let text = String::from_utf8_lossy(&bytes);
            for mark in marks {
                assert!(!text.contains(mark), "{} holds a secret", path.display());
            }
            files += 1;
        }
    }
    let has_record = dir.join("agents.db").exists();
    assert!(files > 0 || !has_record);
}
