//! What the next daemon makes of what one left.

use super::*;

#[tokio::test]
async fn what_was_at_work_is_sorted_out() {
    let bench = Bench::new().await;
    let lost = bench.create(spec()).await;
    let again = pb::ExecutionSpec {
        max_attempts: Some(2),
        ..spec()
    };
    let again = bench.create(again).await;
    let cancelled = bench.create(spec()).await;
    let done = bench.create(spec()).await;
    for _ in 0..3 {
        bench.claim().await.unwrap().heartbeat().await.unwrap();
    }
    bench
        .agents
        .cancel(&cancelled.execution_id, "")
        .await
        .unwrap();
    let mut claim = bench.claim().await.unwrap();
    claim
        .report(vec![ended(pb::Phase::Completed)])
        .await
        .unwrap();
    let waiting = bench.create(spec()).await;

    let bench = bench.restart().await;
    let status = bench.status(&lost).await;
    assert_eq!(status.phase(), pb::Phase::Failed);
    let told = message(status.error);
    assert!(
        told.starts_with("the daemon ended while the agent was at work"),
        "{told}"
    );
    assert_eq!(bench.status(&cancelled).await.phase(), pb::Phase::Cancelled);
    assert_eq!(bench.status(&done).await.phase(), pb::Phase::Completed);
    let change = bench.until(&again, pb::Phase::Pending).await;
    assert_eq!(change.attempt, 1);
    assert_eq!(bench.claim().await.unwrap().id, again.execution_id);
    assert_eq!(bench.claim().await.unwrap().id, waiting.execution_id);
    assert!(bench.claim().await.is_none());
    // Sorted out once: nothing is added to what is over.
    let seq = bench.status(&lost).await.seq;
    let bench = bench.restart().await;
    assert_eq!(bench.status(&lost).await.seq, seq);
}

#[tokio::test]
async fn secrets_are_not_remembered() {
    let bench = Bench::new().await;
    let with_secret = || pb::ExecutionSpec {
        env: secret("TOKEN", "a-mark"),
        ..spec()
    };
    let own = bench.create(with_secret()).await;
    let session = pb::SessionSpec {
        agent: Some(pb::AgentSpec {
            env: secret("TOKEN", "a-mark"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let theirs = bench.create_in(session, spec()).await;

    let bench = bench.restart().await;
    let status = bench.status(&own).await;
    assert_eq!(status.phase(), pb::Phase::Failed);
    assert_eq!(
        message(status.error),
        "the secret variable TOKEN was lost when the daemon was restarted, \
         because secrets are kept in memory only; send the message again with it"
    );
    assert!(bench.claim().await.is_none());
    let status = bench.status(&theirs).await;
    assert!(message(status.error).contains("TOKEN"));
    // An execution may bring it.
    let request = pb::CreateExecutionRequest {
        session: Some(create::Session::SessionId(theirs.session_id.clone())),
        spec: Some(with_secret()),
        key: None,
    };
    bench.agents.create_execution(request).await.unwrap();
    let work = bench.claim().await.unwrap().work;
    let env = work.execution.unwrap().spec.unwrap().env;
    assert_eq!(env["TOKEN"].value, "a-mark");
    let agent = work.session.unwrap().spec.unwrap().agent.unwrap();
    assert!(agent.env.is_empty(), "{agent:?}");
}

#[tokio::test]
async fn a_sandbox_that_was_made_and_not_bound_is_found_again() {
    let bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    // As far as it came before the daemon was killed.
    let create = crate::sandboxes::Create {
        name: Some(execution.session_id.clone()),
        ..Default::default()
    };
    let (known, _) = bench.agents.manager.create(create).await.unwrap();
    let bench = bench.restart().await;
    let work = bench.claim().await.unwrap().work;
    assert_eq!(work.session.unwrap().sandbox_id, known.record.id);
    assert_eq!(bench.backend.count(), 1);
}

#[tokio::test]
async fn a_deletion_goes_on() {
    let bench = Bench::new().await;
    let execution = bench.create(spec()).await;
    let claim = bench.claim().await.unwrap();
    // Killed while it waits for the runner.
    let id = execution.session_id.clone();
    let begun = bench
        .agents
        .desk
        .ask(move |desk| desk.end_session(&id))
        .await;
    assert!(begun.unwrap().is_some());
    drop(claim);
    let bench = bench.restart().await;
    let gone = async {
        while bench.agents.session(&execution.session_id).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
    assert_eq!(bench.backend.count(), 0);
}

#[tokio::test]
async fn a_key_creates_once() {
    let bench = Bench::new().await;
    let request = |message: &str| pb::CreateExecutionRequest {
        session: Some(create::Session::SessionSpec(pb::SessionSpec::default())),
        spec: Some(pb::ExecutionSpec {
            message: message.to_owned(),
            ..Default::default()
        }),
        key: Some("k".to_owned()),
    };
    let first = bench.agents.create_execution(request("a")).await.unwrap();
    let again = bench.agents.create_execution(request("b")).await.unwrap();
    assert_eq!(first, again);
    let bench = bench.restart().await;
    let again = bench.agents.create_execution(request("c")).await.unwrap();
    assert_eq!(first, again);
    let counts = bench.agents.counts().await.unwrap();
    assert_eq!((counts.sessions, counts.pending), (1, 1));
    let empty = pb::CreateExecutionRequest {
        key: Some(String::new()),
        ..request("d")
    };
    let refused = bench.agents.create_execution(empty).await.unwrap_err();
    assert!(refused.message().starts_with("key: "), "{refused}");
}
