//! Files and processes: what goes on for longer than an answer.

use super::*;

#[tokio::test]
async fn files_go_up_and_down_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), &FakeBackend::default()).await;
    let channel = daemon.channel().await;
    let sandbox_id = create(&channel, None).await.sandbox.unwrap().sandbox_id;
    let file = |path: &str| {
        upload_request::Part::File(pb::UploadFile {
            path: path.to_owned(),
            ..Default::default()
        })
    };
    let data = |text: &'static str| upload_request::Part::Data(text.into());
    let end = || upload_request::Part::End(upload_request::End {});
    let parts = [
        upload_request::Part::Start(pb::UploadStart {
            sandbox_id: sandbox_id.clone(),
        }),
        file("a"),
        data("1"),
        data("2"),
        end(),
        file(""),
        data("lost"),
        end(),
        file("refused"),
        data("lost"),
        data("too"),
        end(),
        file("given-up"),
        data("half"),
        file("empty"),
        end(),
        file("unfinished"),
        data("half"),
    ];
    let requests = stream::iter(parts.map(|part| pb::UploadRequest { part: Some(part) }));
    let mut files = FilesClient::new(channel);
    let results = files.upload(requests).await.unwrap().into_inner().results;
    let outcomes: Vec<_> = results
        .into_iter()
        .map(|result| match result.outcome.unwrap() {
            upload_result::Outcome::Metadata(metadata) => {
                format!("{} {}", result.path, metadata.size)
            }
            upload_result::Outcome::Error(error) => {
                format!("{} {}", result.path, Error::try_from(error).unwrap().code())
            }
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            "a 2",
            " invalid_path",
            "refused permission_denied",
            "given-up cancelled",
            "empty 0",
            "unfinished cancelled"
        ]
    );

    let paths = ["a", "given-up", "empty"].map(str::to_owned).to_vec();
    let request = pb::DownloadRequest {
        sandbox_id,
        paths,
        max_bytes: None,
    };
    let mut responses = files.download(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        let part = match response.part.unwrap() {
            download_response::Part::Metadata(metadata) => format!("of {}", metadata.size),
            download_response::Part::Data(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            download_response::Part::End(_) => "end".to_owned(),
            download_response::Part::Error(error) => {
                Error::try_from(error).unwrap().code().to_string()
            }
        };
        seen.push(format!("{} {part}", response.index));
    }
    assert_eq!(
        seen,
        ["0 of 2", "0 12", "0 end", "1 not_found", "2 of 0", "2 end"]
    );
    daemon.stop().await;
}

#[tokio::test]
async fn background_processes_outlive_their_clients() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), &FakeBackend::default()).await;
    let channel = daemon.channel().await;
    let sandbox = create(&channel, None).await.sandbox.unwrap();
    let sandbox_id = sandbox.sandbox_id.clone();
    let mut commands = CommandsClient::new(channel);
    let request = pb::StartProcessRequest {
        run: Some(run_of(&sandbox, &["cat"])),
        stdin: true,
        ..Default::default()
    };
    let process = commands
        .start_process(request)
        .await
        .unwrap()
        .into_inner()
        .process
        .unwrap();
    let process_id = process.process_id;
    let write = pb::WriteProcessRequest {
        sandbox_id: sandbox_id.clone(),
        process_id: process_id.clone(),
        stdin: "hello".into(),
        close_stdin: true,
    };
    commands.write_process(write).await.unwrap();
    let wait = pb::WaitProcessRequest {
        sandbox_id: sandbox_id.clone(),
        process_id: process_id.clone(),
        timeout_ms: 60_000,
        offset: Some(2),
        max_bytes: None,
    };
    let answer = commands.wait_process(wait).await.unwrap().into_inner();
    assert_eq!(
        (answer.output.as_ref(), answer.offset, answer.next_offset),
        (&b"llo"[..], 2, 5)
    );
    assert_eq!(answer.process.unwrap().result.unwrap().exit_code, 0);

    let request = pb::StartProcessRequest {
        run: Some(run_of(&sandbox, &["sleep"])),
        ..Default::default()
    };
    let process_id = commands
        .start_process(request)
        .await
        .unwrap()
        .into_inner()
        .process
        .unwrap()
        .process_id;
    let stop = pb::StopProcessRequest {
        sandbox_id: sandbox_id.clone(),
        process_id,
    };
    let stopped = commands
        .stop_process(stop)
        .await
        .unwrap()
        .into_inner()
        .process
        .unwrap();
    assert_eq!(stopped.result.unwrap().exit_code, 128 + 15);
    let list = pb::ListProcessesRequest { sandbox_id };
    assert_eq!(
        commands
            .list_processes(list)
            .await
            .unwrap()
            .into_inner()
            .processes
            .len(),
        2
    );
    daemon.stop().await;
}

#[tokio::test]
async fn a_stopping_daemon_loses_no_exit() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start(dir.path(), &FakeBackend::default()).await;
    let channel = daemon.channel().await;
    let sandbox = create(&channel, None).await.sandbox.unwrap();
    let mut commands = CommandsClient::new(channel.clone());
    let request = pb::StartProcessRequest {
        run: Some(run_of(&sandbox, &["sleep"])),
        ..Default::default()
    };
    commands.start_process(request).await.unwrap();
    let request = pb::ExecRequest {
        run: Some(run_of(&sandbox, &["sleep"])),
        ..Default::default()
    };
    let mut exec = std::pin::pin!(commands.exec(request));
    // Only once it runs: until then, it would not be accepted any more.
    let runs = async {
        while daemon.backend.running() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = &mut exec => panic!("{answer:?}"),
        () = runs => {}
    }
    daemon.ask_to_stop();
    let answer = exec.await.unwrap().into_inner();
    assert_eq!(answer.result.unwrap().exit_code, 128 + 15);
    daemon.running.await.unwrap().unwrap();
    assert_eq!(daemon.backend.killed(), 0);
}
