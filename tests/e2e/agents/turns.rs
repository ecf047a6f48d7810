//! Turns of an agent, from their creation to their end.

use stigmer_sdk::wire::host;
use stigmer_tests::Home;

use super::*;
use crate::client::shell;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_from_turn_to_turn_in_one_sandbox() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let runner = Runner::register(&daemon, "r").await;
    let first = client.run("make a file").await;
    assert!(first.execution_id.starts_with("exe-") && first.session_id.starts_with("ses-"));
    let mut events = client.follow(&first, 0).await;
    events.until(pb::Phase::Pending).await;

    let mut held = runner.work().await;
    events.until(pb::Phase::InProgress).await;
    let session = held.work.session.clone().expect("a session");
    assert_eq!(session.session_id, first.session_id);
    // Its sandbox is the user's own directory.
    let all = host::ListSandboxesRequest::default();
    let sandboxes = client.sandboxes().list(all).await.expect("sandboxes");
    let sandboxes = sandboxes.into_inner().sandboxes;
    let work = home.work();
    assert_eq!(sandboxes[0].workspace, work.to_str().expect("UTF-8"));
    assert_eq!(sandboxes[0].sandbox_id, session.sandbox_id);
    let run = shell(&session.sandbox_id, "echo hello >made");
    let request = host::ExecRequest {
        run: Some(run),
        ..Default::default()
    };
    client.commands().exec(request).await.expect("it ran");
    assert_eq!(
        std::fs::read_to_string(work.join("made")).unwrap(),
        "hello\n"
    );

    let call = |status: pb::ToolCallStatus| {
        event::What::ToolCall(pb::ToolCall {
            tool_call_id: "t1".to_owned(),
            message_id: "m2".to_owned(),
            name: "execute".to_owned(),
            status: status.into(),
            ..Default::default()
        })
    };
    let usage = |input_tokens| pb::Usage {
        input_tokens,
        ..Default::default()
    };
    held.report(vec![
        said("m1", pb::MessageType::Human, "make a file"),
        said("m2", pb::MessageType::Ai, ""),
        more("m2", "I will "),
        more("m2", "do it."),
        call(pb::ToolCallStatus::Running),
        event::What::Usage(usage(5)),
    ])
    .await;
    let todo = pb::Todo {
        content: "make it".to_owned(),
        status: pb::TodoStatus::Completed.into(),
    };
    held.report(vec![
        call(pb::ToolCallStatus::Completed),
        event::What::Todos(pb::Todos { items: vec![todo] }),
        event::What::Usage(usage(9)),
        ended(pb::Phase::Completed),
    ])
    .await;
    events.until(pb::Phase::Completed).await;
    assert!(events.next().await.is_none(), "it ends with the execution");

    let status = client.status(&first).await;
    let contents: Vec<_> = status.messages.iter().map(|m| m.content.as_str()).collect();
    assert_eq!(contents, ["make a file", "I will do it."]);
    assert_eq!(status.tool_calls.len(), 1);
    assert_eq!(status.tool_calls[0].status(), pb::ToolCallStatus::Completed);
    assert_eq!(status.usage, Some(usage(9)));
    assert_eq!(status.todos.expect("todos").items.len(), 1);
    assert_eq!((status.attempt, status.runner_id.as_str()), (1, "r"));
    assert!(
        status.started_ms <= status.completed_ms && status.started_ms >= Some(first.created_ms)
    );
    assert_eq!(client.record(&first).await.len() as u64, status.seq);

    // The next turn has the same sandbox, and knows what was said.
    let second = client.run_after(&first, "show it").await;
    let mut held = runner.work().await;
    assert_eq!(held.id, second.execution_id);
    assert_eq!(
        held.work.session.as_ref().unwrap().sandbox_id,
        session.sandbox_id
    );
    held.report(vec![said("m3", pb::MessageType::Human, "show it")])
        .await;
    let history = async |before: Option<&pb::Execution>| -> Vec<String> {
        let request = pb::HistoryRequest {
            session_id: first.session_id.clone(),
            before_execution_id: before.map(|execution| execution.execution_id.clone()),
        };
        let answers = client.sessions().history(request).await.expect("a history");
        let answers: Vec<_> = answers.into_inner().collect().await;
        let answers = answers.into_iter().map(|answer| answer.expect("an answer"));
        let ids = answers
            .flat_map(|answer| answer.messages)
            .map(|m| m.message_id);
        ids.collect()
    };
    assert_eq!(history(Some(&second)).await, ["m1", "m2"]);
    assert_eq!(history(None).await, ["m1", "m2", "m3"]);
    assert_eq!(history(Some(&first)).await, [""; 0]);
    held.end(pb::Phase::Failed).await;
    let status = client.status(&second).await;
    assert_eq!(status.error.expect("a reason").message, "it broke");
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_of_a_session_are_handed_out_in_their_order() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let mut expected = Vec::new();
    for _ in 0..3 {
        let mut ids = vec![client.run("0").await];
        for number in 1..5 {
            let next = client.run_after(&ids[0], &number.to_string()).await;
            ids.push(next);
        }
        expected.push(ids.into_iter().map(|e| e.execution_id).collect::<Vec<_>>());
    }
    // Two runners share the work.
    let (one, two) = tokio::join!(
        Runner::register(&daemon, "one"),
        Runner::register(&daemon, "two")
    );
    let drain = async |runner: &Runner| {
        let mut done = Vec::new();
        while let Some(held) = runner.claim(Duration::from_millis(200)).await {
            done.push(held.id.clone());
            held.end(pb::Phase::Completed).await;
        }
        done
    };
    let (first, second) = tokio::join!(drain(&one), drain(&two));
    assert_eq!(first.len() + second.len(), 15);
    for ids in expected {
        let mut starts = Vec::new();
        for id in &ids {
            let execution = pb::Execution {
                execution_id: id.clone(),
                ..Default::default()
            };
            let status = client.status(&execution).await;
            starts.extend([status.started_ms, status.completed_ms]);
        }
        assert!(starts.is_sorted(), "one at a time, in order: {starts:?}");
    }
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_are_asked_for_and_answered_once() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let mut runner = Runner::register(&daemon, "r").await;
    let execution = client.run("do it").await;
    let decide = async |call: &str, allow| {
        let request = pb::DecideRequest {
            execution_id: execution.execution_id.clone(),
            tool_call_id: call.to_owned(),
            allow,
            reason: "because".to_owned(),
        };
        let answer = client.executions().decide(request).await;
        answer.map(|_| ()).map_err(from_status)
    };
    refused(
        decide("t1", true).await,
        ErrorCode::NotFound,
        "no tool call 't1' that waits",
    );
    let mut held = runner.work().await;
    let asked = |call: &str| {
        event::What::Approval(pb::Approval {
            tool_call_id: call.to_owned(),
            state: pb::ApprovalState::Pending.into(),
            why: "ask".to_owned(),
            summary: "rm -r x".to_owned(),
            ..Default::default()
        })
    };
    held.report(vec![asked("t1"), asked("t2")]).await;
    decide("t1", true).await.expect("it is decided");
    decide("t2", false).await.expect("it is decided");
    for (call, allow) in [("t1", true), ("t2", false)] {
        let register_response::What::Decided(decided) = runner.told().await else {
            panic!("a decision")
        };
        assert_eq!(
            (decided.tool_call_id.as_str(), decided.allow),
            (call, allow)
        );
    }
    refused(
        decide("t1", false).await,
        ErrorCode::Conflict,
        "was decided already",
    );
    refused(decide("t3", true).await, ErrorCode::NotFound, "t3");
    let approvals = client.status(&execution).await.approvals;
    let states: Vec<_> = approvals.iter().map(pb::Approval::state).collect();
    assert_eq!(
        states,
        [pb::ApprovalState::Allowed, pb::ApprovalState::Denied]
    );
    assert_eq!(
        (approvals[1].summary.as_str(), approvals[1].reason.as_str()),
        ("rm -r x", "because")
    );
    held.end(pb::Phase::Completed).await;
    refused(decide("t1", true).await, ErrorCode::NotFound, "t1");
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_are_cancelled_in_every_phase() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let mut runner = Runner::register(&daemon, "r").await;

    let waiting = client.run("wait").await;
    let status = client.cancel(&waiting).await;
    assert_eq!((status.phase(), status.attempt), (pb::Phase::Cancelled, 0));
    assert!(runner.claim(Duration::ZERO).await.is_none());
    // Created, asked for, cancelled; and no more for asking again.
    client.cancel(&waiting).await;
    assert_eq!(client.record(&waiting).await.len(), 3);

    let obedient = client.run("stop when told").await;
    let mut held = runner.work().await;
    let status = client.cancel(&obedient).await;
    assert!(status.cancel_requested && status.phase() == pb::Phase::InProgress);
    let told = runner.told().await;
    let register_response::What::CancelRequested(told) = told else {
        panic!("{told:?}")
    };
    assert_eq!(
        (told.execution_id, told.reason.as_str()),
        (held.id.clone(), "enough")
    );
    assert!(held.heartbeat().await.expect("it lives").cancel_requested);
    assert!(held.report(vec![more("m", "…")]).await.cancel_requested);
    held.end(pb::Phase::Cancelled).await;
    assert_eq!(client.status(&obedient).await.phase(), pb::Phase::Cancelled);

    let stubborn = client.run("go on").await;
    let mut held = runner.work().await;
    let mut events = client.follow(&stubborn, 0).await;
    client.cancel(&stubborn).await;
    events.until(pb::Phase::Cancelled).await;
    refused(
        held.try_report(vec![more("m", "!")]).await,
        ErrorCode::Conflict,
        "not this runner's",
    );

    let done = client.run("be quick").await;
    runner.work().await.end(pb::Phase::Completed).await;
    assert_eq!(client.cancel(&done).await.phase(), pb::Phase::Completed);
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_deleted_with_its_sandbox() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let mut runner = Runner::register(&daemon, "r").await;
    let mine = client.create("mine").await;
    let execution = client.run("work").await;
    let later = client.run_after(&execution, "more work").await;
    let held = runner.work().await;
    let stopping = async {
        let told = runner.told().await;
        assert!(
            matches!(told, register_response::What::CancelRequested(_)),
            "{told:?}"
        );
        held.end(pb::Phase::Cancelled).await;
    };
    tokio::join!(client.delete(&execution.session_id), stopping);
    client.delete(&execution.session_id).await;
    for gone in [&execution, &later] {
        let request = pb::GetExecutionRequest {
            execution_id: gone.execution_id.clone(),
        };
        let answer = client.executions().get(request).await.map_err(from_status);
        refused(answer, ErrorCode::NotFound, "there is no execution");
    }
    let list = async || {
        let request = host::ListSandboxesRequest::default();
        let listed = client.sandboxes().list(request).await.expect("sandboxes");
        let sandboxes = listed.into_inner().sandboxes;
        sandboxes
            .into_iter()
            .map(|s| s.sandbox_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(list().await, std::slice::from_ref(&mine));
    assert!(home.work().is_dir(), "the user's directory stays");

    // One that was given to it stays, whichever way it was called.
    let given = pb::SessionSpec {
        sandbox_id: Some("mine".to_owned()),
        ..Default::default()
    };
    let execution = client
        .start(in_new(given, spec("x")))
        .await
        .expect("an execution");
    let held = runner.work().await;
    assert_eq!(held.work.session.as_ref().unwrap().sandbox_id, mine);
    held.end(pb::Phase::Completed).await;
    client.delete(&execution.session_id).await;
    assert_eq!(list().await, [mine]);
    stop(daemon).await;
}
