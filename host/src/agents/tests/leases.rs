//! What a runner says under a lease, and what becomes of work whose runner is
//! lost.

use super::*;

/// Leases that end while a test waits.
const SHORT: Timing = Timing {
    lease: Duration::from_millis(100),
    cancel: Duration::from_millis(50),
};

#[tokio::test]
async fn a_lease_that_is_not_renewed_lapses() {
    let bench = Bench::with(SHORT).await;
    let again = pb::ExecutionSpec {
        max_attempts: Some(2),
        ..spec()
    };
    let execution = bench.create(again).await;
    let mut lost = bench.claim().await.unwrap();
    lost.report(vec![said("m", "lost")]).await.unwrap();
    let change = bench.until(&execution, pb::Phase::Pending).await;
    let told = message(change.error);
    assert!(told.contains("was not heard of in time"), "{told}");
    assert_eq!((change.attempt, change.runner_id.as_str()), (1, ""));

    let mut second = bench.claim().await.unwrap();
    assert_eq!(
        second
            .work
            .execution
            .as_ref()
            .unwrap()
            .status
            .as_ref()
            .unwrap()
            .attempt,
        2
    );
    for error in [
        lost.report(vec![said("m", "from the dead")])
            .await
            .unwrap_err(),
        lost.heartbeat().await.unwrap_err(),
        lost.release().await.unwrap_err(),
    ] {
        assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
    }
    second.report(vec![said("n", "found")]).await.unwrap();
    let failed = bench.until(&execution, pb::Phase::Failed).await;
    assert_eq!(failed.attempt, 2);
    let status = bench.status(&execution).await;
    assert!(message(status.error).contains("send the message again"));
    // Of the attempt that was lost, nothing is part of the conversation.
    assert_eq!(status.messages.len(), 1);
    assert_eq!(status.messages[0].content, "found");
}

#[tokio::test]
async fn a_lease_that_is_renewed_goes_on() {
    let bench = Bench::with(SHORT).await;
    bench.create(spec()).await;
    let mut claim = bench.claim().await.unwrap();
    let until = Instant::now() + 3 * SHORT.lease;
    while Instant::now() < until {
        claim.heartbeat().await.unwrap();
        tokio::time::sleep(SHORT.lease / 10).await;
    }
    claim
        .report(vec![ended(pb::Phase::Completed)])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_daemon_that_was_stopped_judges_nobody() {
    let bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    bench.claim().await.unwrap().heartbeat().await.unwrap();
    let lapse = async |after: Duration| {
        let at = Instant::now() + after;
        let next = bench.agents.desk.ask(move |desk| Ok(desk.lapse(at))).await;
        (next.unwrap(), bench.status(&execution).await.phase())
    };
    // A minute in which nobody could renew anything.
    let (next, phase) = lapse(Duration::from_secs(60)).await;
    assert_eq!(phase, pb::Phase::InProgress);
    assert!(next.unwrap() > Instant::now() + Duration::from_secs(74));
    let (_, phase) = lapse(Duration::from_secs(74)).await;
    assert_eq!(phase, pb::Phase::InProgress);
    let (next, phase) = lapse(Duration::from_secs(76)).await;
    assert_eq!((next, phase), (None, pb::Phase::Failed));
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_recorded() {
    let bench = Bench::new().await;
    let runner = register(&bench.agents, "s").await;
    let execution = bench.create(spec()).await;
    let Claimed::Work(work) = bench.agents.claim("s", SOON).await.unwrap() else {
        panic!("no work")
    };
    let claim = Claim::of(&bench.agents, *work);
    let fill = async |room| {
        let fill = move |desk: &mut Desk| {
            desk.fill_disk(room);
            Ok(())
        };
        bench.agents.desk.ask(fill).await.unwrap();
    };
    fill(Some(1)).await;
    let update = async |batch: u64| {
        let said = said(&batch.to_string(), &"x".repeat(100));
        bench.agents.update(claim.request(batch, vec![said])).await
    };
    let mut batch = 1;
    let full = loop {
        match update(batch).await {
            Ok(_) => batch += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.code(), ErrorCode::Exhausted);
    assert!(full.message().contains("the disk is full"), "{full}");
    let messages = bench.status(&execution).await.messages.len() as u64;
    assert_eq!(messages, batch - 1);
    // The same batch again, once there is room.
    fill(None).await;
    update(batch).await.unwrap();

    // What cannot be written down yet is, as soon as it can.
    fill(Some(0)).await;
    while update(batch + 1).await.is_ok() {
        batch += 1;
    }
    let mut gone = bench.agents.watch_registered();
    drop(runner);
    let left = gone.wait_for(|runners| runners.len() == 1);
    drop(tokio::time::timeout(SOON, left).await.unwrap().unwrap());
    assert_eq!(
        bench.status(&execution).await.phase(),
        pb::Phase::InProgress
    );
    let dead = claim.heartbeat().await.unwrap_err();
    assert_eq!(dead.code(), ErrorCode::Conflict);
    fill(None).await;
    let change = bench.until(&execution, pb::Phase::Failed).await;
    assert!(message(change.error).contains("the runner 's' died"));
}

#[tokio::test]
async fn work_that_is_not_heard_of_was_not_begun() {
    let bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    for _ in 0..3 {
        let runner = register(&bench.agents, "s").await;
        let claimed = bench.agents.claim("s", Duration::ZERO).await.unwrap();
        assert!(matches!(claimed, Claimed::Work(_)));
        drop(runner);
        let change = bench.until(&execution, pb::Phase::Pending).await;
        assert_eq!((change.attempt, change.error), (0, None));
    }
    // But not for ever: perhaps it is what kills its runners.
    let runner = register(&bench.agents, "s").await;
    let claimed = bench.agents.claim("s", Duration::ZERO).await.unwrap();
    assert!(matches!(claimed, Claimed::Work(_)));
    drop(runner);
    let change = bench.until(&execution, pb::Phase::Failed).await;
    assert!(message(change.error).contains("the runner 's' died"));
}

#[tokio::test]
async fn a_runner_that_is_gone_holds_nothing() {
    let bench = Bench::new().await;
    let runner = register(&bench.agents, "s").await;
    let taken = pb::RegisterRequest {
        runner_id: "s".to_owned(),
        ..Default::default()
    };
    let refused = bench.agents.register(taken).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::AlreadyExists);
    let execution = bench.create(spec()).await;
    let Claimed::Work(work) = bench.agents.claim("s", SOON).await.unwrap() else {
        panic!("no work")
    };
    let claim = Claim::of(&bench.agents, *work);
    claim.heartbeat().await.unwrap();
    let held = |runners: &Vec<RegisteredRunner>| {
        runners
            .iter()
            .find(|r| r.runner_id == "s")
            .map(|r| r.executions.clone())
    };
    assert_eq!(
        held(&bench.agents.registered()),
        Some(vec![claim.id.clone()])
    );
    let mut watched = bench.agents.watch_registered();
    drop(runner);
    let gone = watched.wait_for(|runners| held(runners).is_none());
    drop(tokio::time::timeout(SOON, gone).await.unwrap().unwrap());
    let failed = bench.until(&execution, pb::Phase::Failed).await;
    assert!(message(failed.error).contains("the runner 's' died while the agent was at work"));
    assert_eq!(
        claim.heartbeat().await.unwrap_err().code(),
        ErrorCode::Conflict
    );
    drop(register(&bench.agents, "s").await);
}

#[tokio::test]
async fn what_is_given_back_untouched_does_not_count() {
    let bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    bench.claim().await.unwrap().release().await.unwrap();
    let status = bench.status(&execution).await;
    assert_eq!((status.phase(), status.attempt), (pb::Phase::Pending, 0));
    let mut touched = bench.claim().await.unwrap();
    touched.report(vec![said("m", "x")]).await.unwrap();
    touched.release().await.unwrap();
    let status = bench.status(&execution).await;
    assert_eq!((status.phase(), status.attempt), (pb::Phase::Failed, 1));
    assert!(message(status.error).contains("was stopped while the agent was at work"));
}

#[tokio::test]
async fn a_batch_is_recorded_once_and_whole() {
    let bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    let claim = bench.claim().await.unwrap();
    let update = async |batch, whats| bench.agents.update(claim.request(batch, whats)).await;
    let empty = update(0, vec![]).await.unwrap_err();
    assert_eq!(empty.message(), "batch: is 0, and 1 is next");
    let first = update(1, vec![said("a", "x"), said("b", "y")])
        .await
        .unwrap();
    let again = update(1, vec![said("a", "other")]).await.unwrap();
    assert_eq!((first.seq, again.seq), (4, 4));
    let ahead = update(3, vec![]).await.unwrap_err();
    assert_eq!(ahead.message(), "batch: is 3, and 2 is next");
    let bad = vec![said("c", "z"), What::Message(pb::Message::default())];
    let refused = update(2, bad).await.unwrap_err();
    assert!(refused.message().starts_with("events[1]."), "{refused}");
    assert_eq!(bench.status(&execution).await.messages.len(), 2);
    let last = update(2, vec![ended(pb::Phase::Completed)]).await.unwrap();
    let again = update(2, vec![ended(pb::Phase::Completed)]).await.unwrap();
    assert_eq!((last.seq, again.seq), (5, 5));
    let after = update(3, vec![said("d", "late")]).await.unwrap_err();
    assert_eq!(after.code(), ErrorCode::Conflict);
    let status = bench.status(&execution).await;
    assert_eq!((status.seq, status.attempt), (5, 1));
}

#[tokio::test]
async fn a_runner_that_does_not_stop_is_not_waited_for() {
    let bench = Bench::with(Timing {
        lease: SOON,
        ..SHORT
    })
    .await;
    let execution = bench.create(spec()).await;
    let mut claim = bench.claim().await.unwrap();
    let asked = bench.agents.cancel(&claim.id, "enough").await.unwrap();
    let status = asked.status.unwrap();
    assert!(status.cancel_requested && status.phase() == pb::Phase::InProgress);
    let change = bench.until(&execution, pb::Phase::Cancelled).await;
    assert!(message(change.error).contains("did not say in time that it stopped"));
    let late = claim
        .report(vec![ended(pb::Phase::Cancelled)])
        .await
        .unwrap_err();
    assert_eq!(late.code(), ErrorCode::Conflict);
    // It is no failure, and asking again changes nothing.
    let again = bench.agents.cancel(&claim.id, "again").await.unwrap();
    assert_eq!(again.status.unwrap().error, None);
}

#[tokio::test]
async fn a_runner_that_does_not_listen_is_let_go() {
    let mut bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    let mut claim = bench.claim().await.unwrap();
    for number in 0..300 {
        let call = format!("t{number}");
        let asked = What::Approval(pb::Approval {
            tool_call_id: call.clone(),
            state: pb::ApprovalState::Pending.into(),
            ..Default::default()
        });
        if claim.report(vec![asked]).await.is_err() {
            break;
        }
        let decided = pb::DecideRequest {
            execution_id: claim.id.clone(),
            tool_call_id: call,
            allow: true,
            ..Default::default()
        };
        bench.agents.decide(decided).await.unwrap();
    }
    bench.until(&execution, pb::Phase::Failed).await;
    assert!(bench.agents.registered().is_empty());
    while bench.runner.instructions.recv().await.is_some() {}
}
