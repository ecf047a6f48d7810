//! A whole daemon over a backend in memory, through its own doors.

mod contract;
mod streams;

use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use stigmer_sdk::wire::host as pb;
use stigmer_sdk::wire::host::{download_response, run, upload_request, upload_result};
use stigmer_sdk::{
    Backend, Command, Error, ErrorCode, Event, ExitStatus, Input, SandboxId, SandboxSpec, Signal,
    WriteOptions,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Entry, Flags, Inputs, resolve};
use crate::grpc::backend_client::RemoteBackend;
use crate::grpc::channel::{Key, Keyed, connect};
use crate::grpc::generated::host::commands_client::CommandsClient;
use crate::grpc::generated::host::daemon_client::DaemonClient;
use crate::grpc::generated::host::files_client::FilesClient;
use crate::grpc::generated::host::sandboxes_client::SandboxesClient;
use crate::grpc::status::from_status;
use crate::sandboxes::fake::FakeBackend;

/// Commands here never end by themselves, so waiting for that is in vain.
const PATIENCE_IN_TESTS: Duration = Duration::from_millis(50);
const KEY: &str = "dummy-local-key";

struct Daemon {
    listening: Listening,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<()>>,
    backend: FakeBackend,
}

fn config(data_dir: &Path) -> Config {
    let flags = Flags {
        data_dir: Some(data_dir.to_owned()),
        port: Some("0".to_owned()),
        sandbox: Some("fake".to_owned()),
        ..Flags::default()
    };
    let env = Default::default();
    let inputs = Inputs {
        entry: Entry::Local,
        flags: &flags,
        env: &env,
        file: None,
        cwd: data_dir,
        backends: &["fake"],
    };
    let mut config = resolve(inputs).unwrap();
    config.limits.grace = Duration::from_millis(50);
    config
}

async fn start(data_dir: &Path, backend: &FakeBackend) -> Daemon {
    let (stop, stopped) = oneshot::channel();
    let (ready, is_ready) = oneshot::channel();
    let registry = Registry::of("fake", Arc::new(backend.clone()));
    let shutdown = async { drop(stopped.await) };
    let announce = |listening: &Listening| ready.send(listening.clone()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test owns the handle")]
    let running = tokio::spawn(run_with(
        config(data_dir),
        registry,
        None,
        PATIENCE_IN_TESTS,
        announce,
        shutdown,
    ));
    Daemon {
        listening: is_ready.await.unwrap(),
        stop: Some(stop),
        running,
        backend: backend.clone(),
    }
}

impl Daemon {
    async fn channel(&self) -> Keyed {
        let endpoint = format!("unix:{}", self.listening.socket.display());
        connect(&endpoint, Key::new(KEY).unwrap()).await.unwrap()
    }

    async fn stop(mut self) {
        self.ask_to_stop();
        self.running.await.unwrap().unwrap();
    }

    fn ask_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

fn run_of(sandbox: &pb::Sandbox, argv: &[&str]) -> pb::Run {
    pb::Run {
        sandbox_id: sandbox.sandbox_id.clone(),
        program: Some(run::Program::Argv(pb::Argv {
            args: argv.iter().map(|word| (*word).to_owned()).collect(),
        })),
        ..Default::default()
    }
}

async fn create(channel: &Keyed, name: Option<&str>) -> pb::CreateSandboxResponse {
    let request = pb::CreateSandboxRequest {
        name: name.map(str::to_owned),
        ..Default::default()
    };
    SandboxesClient::new(channel.clone())
        .create(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn a_command_runs_over_both_doors() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), &FakeBackend::default()).await;
    let tcp = connect(&daemon.listening.tcp.to_string(), Key::new(KEY).unwrap())
        .await
        .unwrap();
    for channel in [daemon.channel().await, tcp] {
        let info = DaemonClient::new(channel.clone())
            .info(pb::InfoRequest {})
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (info.mode.as_str(), info.default_backend.as_str()),
            ("local", "fake")
        );
        let sandbox = create(&channel, None).await.sandbox.unwrap();
        assert!(sandbox.sandbox_id.starts_with("fake:"), "{sandbox:?}");
        let mut commands = CommandsClient::new(channel.clone());
        let request = pb::ExecRequest {
            run: Some(run_of(&sandbox, &["echo", "a", "b"])),
            ..Default::default()
        };
        let answer = commands.exec(request).await.unwrap().into_inner();
        assert_eq!(answer.stdout.unwrap().head, "a b");
        assert_eq!(answer.result.unwrap().exit_code, 0);
        let request = pb::ExecRequest {
            run: Some(run_of(&sandbox, &["cat"])),
            stdin: Some("from stdin".into()),
            ..Default::default()
        };
        let answer = commands.exec(request).await.unwrap().into_inner();
        assert_eq!(answer.stdout.unwrap().head, "from stdin");
        let run = pb::Run {
            timeout_ms: Some(10),
            ..run_of(&sandbox, &["sleep"])
        };
        let answer = commands
            .exec(pb::ExecRequest {
                run: Some(run),
                ..Default::default()
            })
            .await
            .unwrap();
        assert_eq!(answer.into_inner().result.unwrap().exit_code, 124);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_call_needs_the_key_and_health_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), &FakeBackend::default()).await;
    let endpoint = format!("unix:{}", daemon.listening.socket.display());
    for (key, code) in [
        (Key::none(), ErrorCode::Unauthenticated),
        (Key::new("wrong").unwrap(), ErrorCode::Unauthenticated),
    ] {
        let channel = connect(&endpoint, key).await.unwrap();
        let refused = DaemonClient::new(channel.clone())
            .info(pb::InfoRequest {})
            .await
            .unwrap_err();
        assert_eq!(from_status(refused).code(), code);
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
        let request = tonic_health::pb::HealthCheckRequest {
            service: "stigmer.host.v1.Commands".to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(
            answer.status(),
            tonic_health::pb::health_check_response::ServingStatus::Serving
        );
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), &FakeBackend::default()).await;
    let channel = daemon.channel().await;
    let creations = (0..20).map(|_| create(&channel, Some("n")));
    let answers = futures_util::future::join_all(creations).await;
    assert_eq!(answers.iter().filter(|answer| !answer.existed).count(), 1);
    assert_eq!(daemon.backend.count(), 1);
    let id = answers[0].sandbox.clone().unwrap().sandbox_id;
    assert!(
        answers
            .iter()
            .all(|answer| answer.sandbox.as_ref().unwrap().sandbox_id == id)
    );

    // By name like by id; and once it is lost, the name is free again.
    let mut sandboxes = SandboxesClient::new(channel.clone());
    let get = |id: &str| pb::GetSandboxRequest {
        sandbox_id: id.to_owned(),
    };
    assert_eq!(
        sandboxes
            .get(get("n"))
            .await
            .unwrap()
            .into_inner()
            .sandbox
            .unwrap()
            .sandbox_id,
        id
    );
    daemon.backend.lose_all();
    let mut files = FilesClient::new(channel.clone());
    let stat = pb::StatRequest {
        sandbox_id: "n".to_owned(),
        path: "a".to_owned(),
        follow: false,
    };
    let error = from_status(files.stat(stat).await.unwrap_err());
    assert_eq!(error.code(), ErrorCode::NoSandbox);
    let lost = sandboxes
        .get(get(&id))
        .await
        .unwrap()
        .into_inner()
        .sandbox
        .unwrap();
    assert_eq!(lost.state(), pb::SandboxState::Gone);
    assert!(!create(&channel, Some("n")).await.existed);

    let destroy = |id: &str| pb::DestroySandboxRequest {
        sandbox_id: id.to_owned(),
    };
    for _ in 0..2 {
        sandboxes.destroy(destroy("n")).await.unwrap();
        assert_eq!(daemon.backend.count(), 0);
    }
    let error = from_status(sandboxes.get(get("no-such")).await.unwrap_err());
    assert_eq!(error.code(), ErrorCode::NoSandbox);
    assert!(error.message().contains("'no-such'"), "{error}");
    daemon.stop().await;
}

#[tokio::test]
async fn sandboxes_survive_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let backend = FakeBackend::default();
    let daemon = start(dir.path(), &backend).await;
    let before = create(&daemon.channel().await, Some("n"))
        .await
        .sandbox
        .unwrap();
    daemon.stop().await;
    assert!(!dir.path().join("stigmer.sock").exists());

    let daemon = start(dir.path(), &backend).await;
    let channel = daemon.channel().await;
    let request = pb::ListSandboxesRequest::default();
    let listed = SandboxesClient::new(channel.clone())
        .list(request)
        .await
        .unwrap()
        .into_inner()
        .sandboxes;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].sandbox_id, before.sandbox_id);
    let request = pb::ExecRequest {
        run: Some(run_of(&before, &["echo", "again"])),
        ..Default::default()
    };
    let answer = CommandsClient::new(channel)
        .exec(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.stdout.unwrap().head, "again");

    // And there is only one.
    let registry = Registry::of("fake", Arc::new(backend));
    let second = run_with(
        config(dir.path()),
        registry,
        None,
        PATIENCE_IN_TESTS,
        |_| panic!("two are ready"),
        std::future::pending(),
    );
    assert_eq!(second.await.unwrap_err().code(), ErrorCode::AlreadyExists);
    daemon.stop().await;
}
