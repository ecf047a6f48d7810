//! What a program is answered that got it wrong: requests that the command
//! line would not send.

mod files;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use stigmer::grpc::status::from_status;
use stigmer_sdk::ErrorCode;
use stigmer_sdk::wire::host::{self, exec_stream_request, run::Program};
use stigmer_sdk::wire::sandbox as contract;
use stigmer_tests::Home;
use tonic::Status;

use crate::client::{Client, shell};

/// Collects what is wrong with the answers, so that all of it is shown.
#[derive(Default)]
struct Answers {
    count: usize,
    problems: Vec<String>,
}

impl Answers {
    /// What was asked must be refused with this code and sentence.
    fn refuse<T>(&mut self, what: &str, answer: Result<T, Status>, code: ErrorCode, message: &str) {
        self.count += 1;
        match answer {
            Ok(_) => self.problems.push(format!("{what}: granted")),
            Err(status) => {
                let error = from_status(status);
                if error.code() != code || !error.to_string().contains(message) {
                    self.problems.push(format!(
                        "{what}: {} {error}, and not {code} {message:?}",
                        error.code()
                    ));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let sandbox = client.create("box").await;
    let write = host::WriteFileRequest {
        sandbox_id: sandbox.clone(),
        path: "file".to_owned(),
        data: Bytes::from_static(b"one\ntwo two\n"),
        ..host::WriteFileRequest::default()
    };
    client.files().write_file(write).await.expect("a file");
    // What lies outside is this test's own, in case that it is not refused.
    let outside = home.write("outside/file", "outside");
    let outside = outside.to_str().expect("UTF-8");
    let mut answers = Answers::default();
    sandboxes(&client, &mut answers).await;
    commands(&client, &sandbox, &mut answers).await;
    processes(&client, &sandbox, &mut answers).await;
    files::paths(&client, &sandbox, outside, &mut answers).await;
    files::contents(&client, &sandbox, &mut answers).await;
    files::searches(&client, &sandbox, &mut answers).await;
    files::backend(&client, &sandbox, &mut answers).await;
    assert!(
        answers.problems.is_empty(),
        "{} of {}:\n{}",
        answers.problems.len(),
        answers.count,
        answers.problems.join("\n")
    );
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "outside");
    // And the daemon is none the worse for it.
    let request = host::ExecRequest {
        run: Some(shell(&sandbox, "cat file")),
        ..host::ExecRequest::default()
    };
    let answer = client
        .commands()
        .exec(request)
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(
        answer.stdout.expect("stdout").head,
        Bytes::from_static(b"one\ntwo two\n")
    );
    tokio::task::spawn_blocking(|| daemon.stop()).await.unwrap();
}

async fn sandboxes(client: &Client, answers: &mut Answers) {
    use ErrorCode::{InvalidArgument, NoSandbox, Unsupported};
    let long = "x".repeat(300);
    for (id, code) in [
        ("", None),
        ("a b", None),
        ("nope", Some(NoSandbox)),
        ("filesystem:..", Some(NoSandbox)),
        ("nope:1", None),
        (long.as_str(), None),
    ] {
        let request = host::GetSandboxRequest {
            sandbox_id: id.to_owned(),
        };
        let answer = client.sandboxes().get(request).await;
        let found = answer
            .as_ref()
            .err()
            .map(|status| from_status(status.clone()).code());
        // What cannot be an id may be called either.
        let code = code.unwrap_or(if found == Some(InvalidArgument) {
            InvalidArgument
        } else {
            NoSandbox
        });
        answers.refuse(&format!("get {id:.20?}"), answer, code, "sandbox");
    }
    let create = |spec: contract::SandboxSpec| host::CreateSandboxRequest {
        spec: Some(spec),
        ..host::CreateSandboxRequest::default()
    };
    let limits = |limits| contract::SandboxSpec {
        limits: Some(limits),
        ..contract::SandboxSpec::default()
    };
    let network = |policy| contract::SandboxSpec {
        network: Some(contract::Network {
            policy: Some(policy),
        }),
        ..contract::SandboxSpec::default()
    };
    let environment = |name: &str, value: &str| contract::SandboxSpec {
        env: [(name.to_owned(), value.to_owned())].into(),
        ..contract::SandboxSpec::default()
    };
    let options = |text: &str| contract::SandboxSpec {
        options: text.to_owned(),
        ..contract::SandboxSpec::default()
    };
    let source = |text: &str| contract::SandboxSpec {
        source: Some(text.to_owned()),
        ..contract::SandboxSpec::default()
    };
    let none = contract::network::Policy::None(contract::network::None {});
    let table = [
        (
            "an unknown option",
            options("{\"unknown\": 1}"),
            InvalidArgument,
            "options",
        ),
        (
            "options that are no JSON",
            options("nonsense"),
            InvalidArgument,
            "options",
        ),
        (
            "no network",
            network(none),
            Unsupported,
            "the network is not supported",
        ),
        (
            "a processor limit",
            limits(contract::Limits {
                cpu_millis: Some(100),
                ..contract::Limits::default()
            }),
            Unsupported,
            "a processor limit is not supported",
        ),
        (
            "a process limit",
            limits(contract::Limits {
                processes: Some(10),
                ..contract::Limits::default()
            }),
            Unsupported,
            "a limit on the number of processes is not supported",
        ),
        (
            "too little memory",
            limits(contract::Limits {
                memory_bytes: Some(1),
                ..contract::Limits::default()
            }),
            InvalidArgument,
            "a memory limit of 1 bytes",
        ),
        (
            "a nameless variable",
            environment("", "x"),
            InvalidArgument,
            "'' cannot name an environment variable",
        ),
        (
            "a variable with =",
            environment("A=B", "x"),
            InvalidArgument,
            "'A=B' cannot name an environment variable",
        ),
        (
            "a value with NUL",
            environment("A", "x\0y"),
            InvalidArgument,
            "may not contain a NUL byte",
        ),
        (
            "a relative directory",
            source("relative"),
            InvalidArgument,
            "must be given by an absolute path",
        ),
    ];
    for (what, spec, code, message) in table {
        answers.refuse(
            what,
            client.sandboxes().create(create(spec)).await,
            code,
            message,
        );
    }
    let snapshot = host::TakeSnapshotRequest {
        sandbox_id: "box".to_owned(),
        name: "s".to_owned(),
    };
    answers.refuse(
        "a snapshot",
        client.sandboxes().take_snapshot(snapshot).await,
        Unsupported,
        "not supported",
    );
    let page = host::ListSandboxesRequest {
        page_token: "nonsense".to_owned(),
        ..host::ListSandboxesRequest::default()
    };
    answers.refuse(
        "a page that was never given",
        client.sandboxes().list(page).await,
        InvalidArgument,
        "page",
    );
}

async fn commands(client: &Client, sandbox: &str, answers: &mut Answers) {
    use ErrorCode::{InvalidArgument, InvalidPath, NoSandbox, Unsupported};
    let argv = |args: &[&str]| {
        Some(Program::Argv(host::Argv {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
        }))
    };
    let run = || shell(sandbox, "true");
    let terminal = |columns, rows| Some(contract::Terminal { columns, rows });
    let table = [
        ("no run", None, InvalidArgument, "run"),
        (
            "no program",
            Some(host::Run {
                program: None,
                ..run()
            }),
            InvalidArgument,
            "program",
        ),
        (
            "no words",
            Some(host::Run {
                program: argv(&[]),
                ..run()
            }),
            InvalidArgument,
            "a command needs a program",
        ),
        (
            "an empty word",
            Some(host::Run {
                program: argv(&[""]),
                ..run()
            }),
            InvalidArgument,
            "a command needs a program",
        ),
        (
            "a NUL",
            Some(host::Run {
                program: argv(&["echo", "a\0b"]),
                ..run()
            }),
            InvalidArgument,
            "may not contain a NUL byte",
        ),
        (
            "a NUL in a line",
            Some(shell(sandbox, "echo a\0b")),
            InvalidArgument,
            "may not contain a NUL byte",
        ),
        (
            "a nameless variable",
            Some(host::Run {
                env: [(String::new(), String::new())].into(),
                ..run()
            }),
            InvalidArgument,
            "cannot name an environment variable",
        ),
        (
            "an empty directory",
            Some(host::Run {
                cwd: Some(String::new()),
                ..run()
            }),
            InvalidPath,
            "a path may not be empty",
        ),
        (
            "a directory outside",
            Some(host::Run {
                cwd: Some("/".to_owned()),
                ..run()
            }),
            InvalidPath,
            "leads out of the sandbox",
        ),
        (
            "another user",
            Some(host::Run {
                user: Some("nobody".to_owned()),
                ..run()
            }),
            Unsupported,
            "another user",
        ),
        (
            "no columns",
            Some(host::Run {
                terminal: terminal(0, 24),
                ..run()
            }),
            InvalidArgument,
            "a terminal cannot have 0 columns",
        ),
        (
            "too many rows",
            Some(host::Run {
                terminal: terminal(80, 70_000),
                ..run()
            }),
            InvalidArgument,
            "70000 rows",
        ),
        (
            "too long a time",
            Some(host::Run {
                timeout_ms: Some(u64::MAX / 2),
                ..run()
            }),
            InvalidArgument,
            "timeout",
        ),
        (
            "no such sandbox",
            Some(shell("nope", "true")),
            NoSandbox,
            "no sandbox 'nope'",
        ),
    ];
    for (what, run, code, message) in table {
        let request = host::ExecRequest {
            run,
            ..host::ExecRequest::default()
        };
        answers.refuse(what, client.commands().exec(request).await, code, message);
    }
    let stdin = host::ExecStreamRequest {
        input: Some(exec_stream_request::Input::Stdin(Bytes::from_static(b"x"))),
    };
    let answer = client.commands().exec_stream(stream::iter([stdin])).await;
    answers.refuse(
        "stdin before a start",
        first(answer).await,
        InvalidArgument,
        "start",
    );
    let answer = client.commands().exec_stream(stream::empty()).await;
    answers.refuse(
        "no start at all",
        first(answer).await,
        InvalidArgument,
        "start",
    );
}

/// The first of a stream of answers, or the error before it.
async fn first<T>(
    answer: Result<tonic::Response<tonic::Streaming<T>>, Status>,
) -> Result<Option<T>, Status> {
    answer?.into_inner().next().await.transpose()
}

async fn processes(client: &Client, sandbox: &str, answers: &mut Answers) {
    use ErrorCode::{InvalidArgument, NotFound};
    let (sandbox_id, process_id) = (sandbox.to_owned(), "nope".to_owned());
    let wait = host::WaitProcessRequest {
        sandbox_id: sandbox_id.clone(),
        process_id: process_id.clone(),
        ..host::WaitProcessRequest::default()
    };
    answers.refuse(
        "wait for no process",
        client.commands().wait_process(wait).await,
        NotFound,
        "nope",
    );
    let stop = host::StopProcessRequest {
        sandbox_id: sandbox_id.clone(),
        process_id: process_id.clone(),
    };
    answers.refuse(
        "stop no process",
        client.commands().stop_process(stop).await,
        NotFound,
        "nope",
    );
    let write = host::WriteProcessRequest {
        sandbox_id: sandbox_id.clone(),
        process_id: process_id.clone(),
        ..host::WriteProcessRequest::default()
    };
    answers.refuse(
        "write to no process",
        client.commands().write_process(write).await,
        NotFound,
        "nope",
    );
    let signal = host::SignalProcessRequest {
        sandbox_id,
        process_id,
        signal: 15,
    };
    answers.refuse(
        "signal no process",
        client.commands().signal_process(signal).await,
        NotFound,
        "nope",
    );
    let start = host::StartProcessRequest::default();
    answers.refuse(
        "start nothing",
        client.commands().start_process(start).await,
        InvalidArgument,
        "run",
    );
}
