//! Who gets which work, and what becomes of it when they go away.

use super::*;

#[tokio::test]
async fn sessions_take_turns_and_keep_their_order() {
    let bench = Bench::new().await;
    let first = bench.create(spec()).await;
    let second = bench.create_after(&first).await;
    let other = bench.create(spec()).await;
    let mut claim = bench.claim().await.unwrap();
    assert_eq!(claim.id, first.execution_id);
    assert_eq!(bench.claim().await.unwrap().id, other.execution_id);
    assert!(bench.claim().await.is_none());
    claim
        .report(vec![ended(pb::Phase::Completed)])
        .await
        .unwrap();
    assert_eq!(bench.claim().await.unwrap().id, second.execution_id);
    // Both sessions have a sandbox of their own, and their turns the same.
    assert_eq!(bench.backend.count(), 2);
}

#[tokio::test]
async fn a_claim_waits_for_work_and_no_longer_than_it_says() {
    let bench = Bench::new().await;
    let (claimed, execution) = tokio::join!(bench.agents.claim("r", SOON), async {
        bench.create(spec()).await
    });
    let Claimed::Work(work) = claimed.unwrap() else {
        panic!("no work")
    };
    assert_eq!(work.execution.unwrap().execution_id, execution.execution_id);
    assert_eq!(work.default_limits.unwrap().max_turns, Some(100));
    let status = bench.status(&execution).await;
    assert_eq!(
        (status.phase(), status.attempt, status.runner_id.as_str()),
        (pb::Phase::InProgress, 1, "r")
    );
    let nothing = bench.agents.claim("r", Duration::from_millis(1)).await;
    assert!(matches!(nothing.unwrap(), Claimed::Nothing));
    let stranger = bench.agents.claim("s", SOON).await;
    assert!(matches!(stranger.unwrap(), Claimed::Unregistered));
}

#[tokio::test]
async fn a_claim_ends_with_its_runner_and_with_the_daemon() {
    let bench = Bench::new().await;
    let Bench { agents, runner, .. } = &bench;
    let other = register(agents, "s").await;
    let (claimed, ()) = tokio::join!(agents.claim("s", SOON), async {
        tokio::task::yield_now().await;
        drop(other);
    });
    assert!(matches!(claimed.unwrap(), Claimed::Unregistered));
    let (claimed, ()) = tokio::join!(agents.claim("r", SOON), async { agents.close() });
    assert_eq!(claimed.unwrap_err().code(), ErrorCode::Unavailable);
    assert!(!runner.instructions.is_closed());
}

#[tokio::test]
async fn a_claimant_that_vanishes_has_claimed_nothing() {
    let bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    // Wherever it is cut off: before it is reserved, while its sandbox is made,
    // and when it is leased.
    for polls in 0..200 {
        let mut claim = std::pin::pin!(bench.agents.claim("r", Duration::ZERO));
        let mut taken = None;
        for _ in 0..polls {
            if let std::task::Poll::Ready(claimed) = futures_util::poll!(claim.as_mut()) {
                taken = Some(claimed);
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some(Ok(Claimed::Work(work))) = taken {
            Claim::of(&bench.agents, *work).release().await.unwrap();
        }
    }
    let look = async {
        loop {
            if let Some(claim) = bench.claim().await {
                return claim;
            }
            tokio::task::yield_now().await;
        }
    };
    let claim = tokio::time::timeout(SOON, look).await.unwrap();
    assert_eq!(claim.id, execution.execution_id);
    assert_eq!(bench.status(&execution).await.attempt, 1);
    assert_eq!(bench.backend.count(), 1, "it has one sandbox all the same");
}

#[tokio::test]
async fn a_session_without_its_sandbox_fails_and_says_so() {
    let bench = Bench::new().await;
    let first = bench.create(spec()).await;
    let mut claim = bench.claim().await.unwrap();
    claim
        .report(vec![ended(pb::Phase::Completed)])
        .await
        .unwrap();
    let session = bench.agents.session(&first.session_id).await.unwrap();
    assert!(session.sandbox_id.starts_with("fake:"), "{session:?}");
    let manager = &bench.agents.manager;
    let known = manager.get(&session.sandbox_id).await.unwrap();
    assert_eq!(known.record.name, Some(session.session_id.clone()));
    manager.destroy(&session.sandbox_id).await.unwrap();
    let second = bench.create_after(&first).await;
    assert!(bench.claim().await.is_none());
    let status = bench.status(&second).await;
    assert_eq!((status.phase(), status.attempt), (pb::Phase::Failed, 0));
    let told = message(status.error);
    assert!(told.contains("is no more: start a new session"), "{told}");

    // One that cannot be made is a failure of the execution, too.
    let impossible = pb::SessionSpec {
        sandbox_spec: Some(sandbox::SandboxSpec {
            env: [("STIGMER_SANDBOX_ID".to_owned(), String::new())].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let refused = bench.agents.create_session(impossible).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn secrets_reach_the_runner_and_nobody_else() {
    let bench = Bench::new().await;
    let session = pb::SessionSpec {
        agent: Some(pb::AgentSpec {
            env: secret("THEIRS", "the-agents-mark"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let with_secret = pb::ExecutionSpec {
        env: secret("OURS", "the-executions-mark"),
        ..spec()
    };
    let created = bench.create_in(session, with_secret).await;
    let mut claim = bench.claim().await.unwrap();
    let told = format!("{:?}", claim.work);
    assert!(told.contains("the-agents-mark") && told.contains("the-executions-mark"));
    let leak = "x the-agents-mark y the-executions-mark";
    claim
        .report(vec![said("m", leak), ended(pb::Phase::Failed)])
        .await
        .unwrap();

    let execution = bench.agents.execution(&created.execution_id).await.unwrap();
    let status = execution.status.as_ref().unwrap();
    assert_eq!(status.messages[0].content, "x *** y ***");
    let all = Filter::default();
    let shown = [
        format!("{created:?}"),
        format!("{execution:?}"),
        format!("{:?}", bench.agents.executions(all).await.unwrap()),
        format!("{:?}", bench.agents.session(&created.session_id).await),
        format!(
            "{:?}",
            bench
                .agents
                .sessions(BTreeMap::new(), Slice::default())
                .await
        ),
    ];
    for shown in shown {
        assert!(shown.contains("***") && !shown.contains("-mark"), "{shown}");
    }
    for name in ["agents.db", "agents.db-wal"] {
        let bytes = std::fs::read(bench.dir.path().join(name)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("-mark"), "{name}");
        assert!(!text.contains(&claim.token), "{name}");
    }
}

#[tokio::test]
async fn a_session_that_is_deleted_takes_its_own_with_it() {
    let bench = Bench::new().await;
    let agents = &bench.agents;
    let created = bench.create(spec()).await;
    let later = bench.create_after(&created).await;
    let mut claim = bench.claim().await.unwrap();
    claim.report(vec![said("m", "x"); 1000]).await.unwrap();
    let (deleted, ()) = tokio::join!(agents.delete_session(&created.session_id), async {
        bench.until(&later, pb::Phase::Cancelled).await;
        let refused = agents
            .create_execution(pb::CreateExecutionRequest {
                session: Some(create::Session::SessionId(created.session_id.clone())),
                spec: Some(spec()),
                key: None,
            })
            .await;
        assert_eq!(refused.unwrap_err().code(), ErrorCode::Conflict);
        claim
            .report(vec![ended(pb::Phase::Cancelled)])
            .await
            .unwrap();
    });
    deleted.unwrap();
    assert_eq!(bench.backend.count(), 0);
    for id in [&created.execution_id, &later.execution_id] {
        let error = agents.execution(id).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound);
    }
    assert_eq!(agents.counts().await.unwrap(), Counts::default());
    agents.delete_session(&created.session_id).await.unwrap();

    // One that was given stays.
    let create = crate::sandboxes::Create::default();
    let (known, _) = agents.manager.create(create).await.unwrap();
    let given = pb::SessionSpec {
        sandbox_id: Some(known.record.id.clone()),
        ..Default::default()
    };
    let created = bench.create_in(given, spec()).await;
    let mut claim = bench.claim().await.unwrap();
    claim
        .report(vec![ended(pb::Phase::Completed)])
        .await
        .unwrap();
    agents.delete_session(&created.session_id).await.unwrap();
    assert!(agents.manager.handle(&known.record.id).await.is_ok());
}
