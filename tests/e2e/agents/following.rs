//! Those who follow an execution: all of it, once, and in order.

use stigmer_tests::Home;
use tokio::task::JoinSet;

use super::*;

/// Together more than the window of a stream, and many pages.
const EVENTS: u64 = 12_000;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_misses_an_event_however_slow() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let runner = Runner::register(&daemon, "r").await;
    let execution = client.run("talk").await;
    let mut held = runner.work().await;
    // One that reads nothing until all is written.
    let slow = Client::connect(&daemon).await.follow(&execution, 1).await;
    let mut followers = JoinSet::new();
    for number in 0..40 {
        let client = Client::connect(&daemon).await;
        let execution = execution.clone();
        followers.spawn(async move {
            let from = number * 250;
            let mut events = client.follow(&execution, from).await;
            let mut next = from.max(1);
            while let Some(event) = events.next().await {
                assert_eq!(event.seq, next, "follower {number}");
                next += 1;
                if next == from + 100 {
                    // It breaks off, and comes back for the rest.
                    events = client.follow(&execution, next).await;
                }
            }
            next - 1
        });
    }
    let text = "x".repeat(1000);
    held.report(vec![said("m", pb::MessageType::Ai, "")]).await;
    let mut seq = 3;
    while seq + 1 < EVENTS {
        let batch = (EVENTS - 1 - seq).min(97);
        let deltas = (0..batch).map(|_| more("m", &text)).collect();
        seq = held.report(deltas).await.seq;
    }
    held.end(pb::Phase::Completed).await;
    while let Some(last) = followers.join_next().await {
        assert_eq!(last.expect("a follower"), EVENTS);
    }
    let seqs = slow
        .0
        .map(|event| event.expect("an event").event.expect("one").seq);
    let seqs: Vec<u64> = soon(seqs.collect()).await;
    assert_eq!(seqs, (1..=EVENTS).collect::<Vec<_>>());

    // And one that comes when all is over.
    let mut late = client.follow(&execution, EVENTS).await;
    late.until(pb::Phase::Completed).await;
    assert!(late.next().await.is_none());
    assert!(
        client
            .follow(&execution, EVENTS + 1)
            .await
            .next()
            .await
            .is_none()
    );
    let status = client.status(&execution).await;
    assert_eq!(status.messages[0].content.len() as u64, (EVENTS - 4) * 1000);
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ends_says_so() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let mut runner = Runner::register(&daemon, "r").await;
    let execution = client.run("wait").await;
    let held = runner.work().await;
    held.heartbeat().await.expect("it lives");
    let mut events = client.follow(&execution, 4).await;
    let waiting = pb::ClaimRequest {
        runner_id: "r".to_owned(),
        wait_ms: 60_000,
    };
    let mut runners = runner.client.runners();
    let claim = runners.claim(waiting);
    let stopping = tokio::task::spawn_blocking(|| daemon.stop());
    let (claimed, event) = soon(async { tokio::join!(claim, events.0.message()) }).await;
    for error in [
        from_status(claimed.unwrap_err()),
        from_status(event.unwrap_err()),
    ] {
        assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    }
    // The runner's call ends well: nothing is wrong with it.
    let end = soon(runner.instructions.message()).await;
    assert!(end.expect("no failure").is_none());
    stopping.await.expect("it stops");

    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let status = client.status(&execution).await;
    assert_eq!(status.phase(), pb::Phase::Failed);
    let reason = status.error.expect("a reason").message;
    assert!(reason.starts_with("the daemon ended while"), "{reason}");
    stop(daemon).await;
}
