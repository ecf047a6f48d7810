//! Many clients, slow ones, and those that vanish.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustix::process::Signal;
use stigmer_sdk::wire::host::{self, exec_stream_request, exec_stream_response, upload_request};
use stigmer_tests::{Home, eventually, note, process};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Client, shell};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_at_once() {
    let home = Home::new();
    let daemon = home.daemon();
    let sandbox = Client::connect(&daemon).await.create("box").await;
    let mut clients = JoinSet::new();
    for number in 0..200 {
        let client = Client::connect(&daemon).await;
        let run = shell(&sandbox, &format!("echo {number}; cat"));
        clients.spawn(async move {
            let request = host::ExecRequest {
                run: Some(run),
                stdin: Some(Bytes::from(vec![b'x'; 10_000])),
                ..host::ExecRequest::default()
            };
            let answer = client
                .commands()
                .exec(request)
                .await
                .expect("an answer")
                .into_inner();
            let stdout = answer.stdout.expect("stdout").head;
            assert_eq!(answer.result.expect("a result").exit_code, 0);
            let expected = format!("{number}\n{}", "x".repeat(10_000));
            assert!(stdout == expected.as_bytes(), "client {number}");
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("a client");
    }
    tokio::task::spawn_blocking(|| daemon.stop()).await.unwrap();
}

/// Starts a command whose events are for the caller to read.
async fn start(client: &Client, run: host::Run) -> tonic::Streaming<host::ExecStreamResponse> {
    let start = host::ExecStart {
        run: Some(run),
        ..host::ExecStart::default()
    };
    let request = host::ExecStreamRequest {
        input: Some(exec_stream_request::Input::Start(start)),
    };
    let requests = stream::iter([request]).chain(stream::pending());
    let answer = client.commands().exec_stream(requests).await;
    answer.expect("a command").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_costs_the_daemon_no_memory_and_nobody_time() {
    const OUTPUT: usize = 200_000_000;
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let sandbox = client.create("box").await;
    let before = process::anonymous_memory(daemon.pid());
    let run = shell(&sandbox, &format!("head -c {OUTPUT} /dev/zero"));
    let mut events = start(&client, run).await;

    // Nothing is read, and others are served meanwhile.
    let other = Client::connect(&daemon).await;
    let mut most = 0;
    for _ in 0..100 {
        let request = host::ExecRequest {
            run: Some(shell(&sandbox, "true")),
            ..host::ExecRequest::default()
        };
        let answer = other.commands().exec(request).await.expect("an answer");
        assert_eq!(answer.into_inner().result.expect("a result").exit_code, 0);
        most = most.max(process::anonymous_memory(daemon.pid()));
    }
    let mut received = 0;
    let mut exit = None;
    while let Some(event) = events.next().await {
        match event.expect("an event").event.expect("an event") {
            exec_stream_response::Event::Stdout(bytes) => received += bytes.len(),
            exec_stream_response::Event::Stderr(bytes) => panic!("{bytes:?}"),
            exec_stream_response::Event::Exit(result) => exit = Some(result.exit_code),
        }
        most = most.max(process::anonymous_memory(daemon.pid()));
    }
    assert_eq!((received, exit), (OUTPUT, Some(0)));
    let grown = most.saturating_sub(before);
    note(&format!("the daemon grew by {} KiB", grown / 1024));
    assert!(grown < 64 << 20, "from {before} to {most} bytes");
    tokio::task::spawn_blocking(|| daemon.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_the_old_file() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let sandbox = client.create("box").await;
    let write = |path: &str, data: &'static [u8]| host::WriteFileRequest {
        sandbox_id: sandbox.clone(),
        path: path.to_owned(),
        data: Bytes::from_static(data),
        ..host::WriteFileRequest::default()
    };
    client
        .files()
        .write_file(write("file", b"old"))
        .await
        .expect("a file");

    let part = |part| host::UploadRequest { part: Some(part) };
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let uploading = Client::connect(&daemon).await;
    let mut files = uploading.files();
    let upload = async move {
        files
            .upload(ReceiverStream::new(requests))
            .await
            .map(|_| ())
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(upload);
    let start = upload_request::Part::Start(host::UploadStart {
        sandbox_id: sandbox.clone(),
    });
    let file = upload_request::Part::File(host::UploadFile {
        path: "file".to_owned(),
        ..host::UploadFile::default()
    });
    for message in [start, file] {
        sender.send(part(message)).await.expect("it is read");
    }
    // More than what is on the way can hold, so that the daemon has taken some.
    for _ in 0..64 {
        let data = upload_request::Part::Data(Bytes::from(vec![b'n'; 1 << 20]));
        sender.send(part(data)).await.expect("it is read");
    }
    // The connection goes, as it does with a client that was killed.
    tasks.abort_all();
    drop((tasks, uploading, sender));

    let read = |path: &str| host::ReadTextRequest {
        sandbox_id: sandbox.clone(),
        path: path.to_owned(),
        ..host::ReadTextRequest::default()
    };
    let answer = client
        .files()
        .read_text(read("file"))
        .await
        .expect("the file")
        .into_inner();
    assert_eq!(
        answer.content,
        Some(host::read_text_response::Content::Text("old".to_owned()))
    );
    // Nor is a draft left beside it.
    let names = tokio::task::spawn_blocking(move || {
        eventually("the draft is gone", Duration::from_secs(10), || {
            home.stigmer(["sandbox", "exec", "box", "--", "ls -A"]).ok() == "file\n"
        });
        daemon.stop();
    });
    names.await.unwrap();
}

#[test]
fn a_client_that_is_killed_takes_its_command_with_it() {
    let home = Home::new();
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "box"]).ok();
    let script = "setsid -f sleep 1234; (sleep 1234 &); echo ready; sleep 1234";
    let running = home
        .stigmer(["sandbox", "exec", "box", "--", script])
        .start();
    running.prints("ready");
    let of_command = || {
        let all = home.processes();
        all.into_iter()
            .filter(|process| process.command.contains("1234"))
            .count()
    };
    assert!(of_command() >= 3);
    running.signal(Signal::KILL);
    drop(running);
    // SIGTERM, a grace period, SIGKILL.
    eventually("the tree ends", Duration::from_secs(20), || {
        of_command() == 0
    });
    home.stigmer(["sandbox", "exec", "box", "--", "true"]).ok();
    daemon.stop();
}

#[test]
fn a_client_that_is_killed_in_mid_write_leaves_the_old_file() {
    let home = Home::new();
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "box"]).ok();
    home.stigmer(["sandbox", "write", "box", "file"])
        .stdin("old")
        .ok();
    // More than one message, from something that never ends.
    let mut shell = home.command("sh");
    shell
        .args(["-c", "yes | \"$0\" sandbox write box file"])
        .arg(stigmer_tests::binary::path());
    let running = stigmer_tests::Cli::new(shell).start();
    let writer = || {
        let all = home.processes();
        all.into_iter().find(|process| {
            process.command.contains("sandbox write box file")
                && process.parent != 0
                && !process.command.starts_with("sh")
        })
    };
    eventually("it uploads", Duration::from_secs(30), || {
        // What it has read, it has sent on, but for a few chunks.
        writer().is_some_and(|process| process::bytes_read(process.pid) > 40 << 20)
    });
    writer().expect("it runs").signal(Signal::KILL);
    let _killed = running.wait();
    assert_eq!(home.stigmer(["sandbox", "cat", "box", "file"]).ok(), "old");
    eventually("the draft is gone", Duration::from_secs(10), || {
        home.stigmer(["sandbox", "exec", "box", "--", "ls -A"]).ok() == "file\n"
    });
    daemon.stop();
}
