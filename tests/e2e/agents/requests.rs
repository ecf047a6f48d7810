//! What is asked twice, and what makes no sense.

use stigmer_tests::Home;
use tonic::Code;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_creates_one_execution() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let create = |_| {
        let request = pb::CreateExecutionRequest {
            key: Some("same".to_owned()),
            ..in_new(pb::SessionSpec::default(), spec("once"))
        };
        let client = client.clone();
        async move { client.start(request).await.expect("an execution") }
    };
    let created = futures_util::future::join_all((0..20).map(create)).await;
    assert!(created.iter().all(|execution| *execution == created[0]));
    let all = pb::ListExecutionsRequest::default();
    let listed = client.executions().list(all).await.expect("a list");
    let listed = listed.into_inner().executions;
    assert_eq!(listed.len(), 1);
    let all = pb::ListSessionsRequest::default();
    let sessions = client.sessions().list(all).await.expect("a list");
    let sessions = sessions.into_inner().sessions;
    assert_eq!(sessions.len(), 1, "and one session");
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let first = client.run("0").await;
    for number in 1..5 {
        client.run_after(&first, &number.to_string()).await;
    }
    let mut request = pb::ListExecutionsRequest {
        session_id: Some(first.session_id.clone()),
        phases: vec![pb::Phase::Pending.into()],
        page_size: 2,
        ..Default::default()
    };
    let mut pages = Vec::new();
    loop {
        let page = client.executions().list(request.clone()).await;
        let page = page.expect("a page").into_inner();
        let messages = page.executions.into_iter().map(|e| e.spec.unwrap().message);
        pages.push(messages.collect::<String>());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages, ["43", "21", "0"]);
    request.page_token = "nonsense".to_owned();
    let refused_page = client.executions().list(request).await.map_err(from_status);
    refused(refused_page, ErrorCode::InvalidArgument, "page_token");
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_name_their_field() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let check = async |request, code, message: &str| {
        refused(client.start(request).await, code, message);
    };
    let new = || pb::SessionSpec::default();
    let invalid = ErrorCode::InvalidArgument;
    check(
        pb::CreateExecutionRequest::default(),
        invalid,
        "spec: is missing",
    )
    .await;
    check(in_new(new(), spec("")), invalid, "spec.message: is empty").await;
    let long = spec(&"x".repeat((1 << 20) + 1));
    check(
        in_new(new(), long),
        ErrorCode::TooLarge,
        "spec.message: has 1048577 bytes",
    )
    .await;
    let alone = pb::CreateExecutionRequest {
        spec: Some(spec("x")),
        ..Default::default()
    };
    check(alone, invalid, "session: is missing").await;
    let nowhere = in_session("ses-0", spec("x"));
    check(nowhere, ErrorCode::NotFound, "there is no session 'ses-0'").await;
    let unknown = pb::SessionSpec {
        sandbox_id: Some("nope".to_owned()),
        ..new()
    };
    check(
        in_new(unknown, spec("x")),
        ErrorCode::NoSandbox,
        "no sandbox 'nope'",
    )
    .await;
    let backend = pb::SessionSpec {
        backend: Some("nope".to_owned()),
        ..new()
    };
    check(
        in_new(backend, spec("x")),
        invalid,
        "spec.backend: there is no sandbox backend 'nope'",
    )
    .await;

    // A claim from nowhere has a status of gRPC's own.
    let claim = pb::ClaimRequest {
        runner_id: "nobody".to_owned(),
        wait_ms: 0,
    };
    let status = client.runners().claim(claim).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let runner = Runner::register(&daemon, "r").await;
    let taken = pb::RegisterRequest {
        runner_id: "r".to_owned(),
        ..Default::default()
    };
    let taken = client
        .runners()
        .register(taken)
        .await
        .map(|_| ())
        .map_err(from_status);
    refused(taken, ErrorCode::AlreadyExists, "'r' is registered already");
    let nameless = client
        .runners()
        .register(pb::RegisterRequest::default())
        .await;
    refused(
        nameless.map(|_| ()).map_err(from_status),
        invalid,
        "runner_id",
    );

    client.run("x").await;
    let mut held = runner.work().await;
    let starts = ended(pb::Phase::InProgress);
    refused(
        held.try_report(vec![starts]).await,
        invalid,
        "events[0].phase: IN_PROGRESS is the daemon's",
    );
    held.batch = 0;
    let token = std::mem::replace(&mut held.token, "0".repeat(32));
    refused(held.heartbeat().await, ErrorCode::Conflict, "the lease");
    held.token = token;
    held.end(pb::Phase::Completed).await;
    stop(daemon).await;
}
