//! The daemon's own life: ready, restarted, refused, ended.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use rustix::process::Signal;
use stigmer_sdk::wire::host;
use stigmer_tests::{Daemon, Home, eventually};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::client::Client;

/// Creates a sandbox with a file and a background process in it.
fn furnish(home: &Home) {
    home.stigmer(["sandbox", "create", "box", "-e", "KEPT=variable"])
        .ok();
    home.stigmer(["sandbox", "write", "box", "kept"])
        .stdin("file")
        .ok();
    let script = "echo >started; setsid -f sleep 1000; sleep 1000";
    home.stigmer(["sandbox", "exec", "-d", "box", "--", script])
        .ok();
    eventually("the process runs", Duration::from_secs(10), || {
        let listed = home.stigmer(["sandbox", "ls", "box"]).ok();
        listed.contains("started")
    });
}

/// Makes sure that all but the process is still there.
fn is_furnished(home: &Home) {
    let found = home
        .stigmer(["sandbox", "exec", "box", "--", "cat kept; echo $KEPT"])
        .ok();
    assert_eq!(found, "filevariable\n");
    assert_eq!(
        home.stigmer(["sandbox", "ps", "box", "--json"]).ok(),
        "[]\n"
    );
    let running = home.processes();
    assert!(
        running
            .iter()
            .all(|process| !process.command.contains("sleep 1000")),
        "{running:?}"
    );
}

#[test]
fn sandboxes_outlive_a_daemon_that_is_stopped() {
    let home = Home::new();
    let daemon = home.daemon();
    furnish(&home);
    // Background processes are the daemon's to end: they do not delay it.
    daemon.stop();
    assert_eq!(home.processes(), [], "commands end with the daemon");
    let daemon = home.daemon();
    is_furnished(&home);
    daemon.stop();
}

#[test]
fn sandboxes_outlive_a_daemon_that_is_killed() {
    let home = Home::new();
    let daemon = home.daemon();
    furnish(&home);
    daemon.kill();
    let daemon = home.daemon();
    is_furnished(&home);
    daemon.stop();
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let home = Home::new();
    let daemon = home.daemon();
    let second = home.stigmer(Daemon::args(&[])).run();
    second.fails(1, &daemon.pid().to_string());
    assert_eq!(second.text(), "");
    // The first does not suffer from it.
    home.stigmer(["sandbox", "list"]).ok();
    daemon.stop();
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    let (home, other) = (Home::new(), Home::new());
    let daemon = home.daemon();
    let port = daemon.tcp().port().to_string();
    let second = other
        .stigmer(["server", "--mode", "local", "--port", &port])
        .run();
    second.fails(1, &port);
    second.fails(1, &daemon.pid().to_string());
    daemon.stop();
}

#[test]
fn a_daemon_that_stops_loses_no_exit() {
    let home = Home::new();
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "box", "--root", "mine"])
        .ok();
    let script = "echo ready; while ! test -e go; do sleep 0.02; done; echo went; exit 5";
    let running = home
        .stigmer(["sandbox", "exec", "box", "--", script])
        .start();
    running.prints("ready");
    daemon.signal(Signal::TERM);
    eventually("it takes no more", Duration::from_secs(10), || {
        home.stigmer(["sandbox", "list"]).run().code() != 0
    });
    assert!(!running.has_ended());
    home.write("mine/go", "");
    let output = running.wait();
    assert_eq!(
        (output.code(), output.text()),
        (5, "ready\nwent\n"),
        "{output}"
    );
    assert!(daemon.wait().status().success());
}

#[test]
fn the_second_signal_stops_at_once() {
    let home = Home::new();
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "box"]).ok();
    let script = "trap '' TERM INT; echo ready; while :; do sleep 1000; done";
    let running = home
        .stigmer(["sandbox", "exec", "box", "--", script])
        .start();
    running.prints("ready");
    daemon.signal(Signal::TERM);
    eventually("it says so", Duration::from_secs(10), || {
        daemon.log().contains("stopping")
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), 143);
    assert_ne!(running.wait().code(), 0);
    eventually("nothing survives", Duration::from_secs(10), || {
        home.processes().is_empty()
    });
}

#[test]
fn a_lifetime_ends() {
    let home = Home::new();
    let daemon = home.daemon();
    let created = crate::sandboxes::json(
        &home,
        &["sandbox", "create", "brief", "--lifetime", "1s", "--json"],
    );
    let workspace = std::path::PathBuf::from(created["workspace"].as_str().unwrap());
    assert!(created["expires_ms"].as_u64().unwrap() > created["created_ms"].as_u64().unwrap());
    home.stigmer(["sandbox", "create", "lasting", "--lifetime", "1h"])
        .ok();
    eventually("the sandbox is gone", Duration::from_secs(60), || {
        !home.stigmer(["sandbox", "list"]).ok().contains("brief")
    });
    home.stigmer(["sandbox", "exec", "brief", "--", "true"])
        .run()
        .fails(125, "no sandbox 'brief'");
    assert!(!workspace.exists());
    home.stigmer(["sandbox", "exec", "lasting", "--", "true"])
        .ok();
    daemon.stop();
}

#[test]
fn idleness_ends_and_use_puts_it_off() {
    let home = Home::new();
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "idle", "--idle", "1s"])
        .ok();
    home.stigmer(["sandbox", "create", "busy", "--idle", "1s"])
        .ok();
    let busy = home
        .stigmer(["sandbox", "exec", "busy", "--", "echo busy; sleep 1000"])
        .start();
    busy.prints("busy");
    eventually("the idle one is gone", Duration::from_secs(60), || {
        !home.stigmer(["sandbox", "list"]).ok().contains("idle")
    });
    home.stigmer(["sandbox", "exec", "busy", "--", "true"]).ok();
    assert!(!busy.has_ended());
    busy.signal(Signal::INT);
    assert_eq!(busy.wait().code(), 130);
    daemon.stop();
}

#[test]
fn what_expired_while_no_daemon_ran_is_gone_after_the_next_start() {
    let home = Home::new();
    let daemon = home.daemon();
    let created = crate::sandboxes::json(
        &home,
        &["sandbox", "create", "brief", "--lifetime", "1ms", "--json"],
    );
    let workspace = std::path::PathBuf::from(created["workspace"].as_str().unwrap());
    daemon.kill();
    let daemon = home.daemon();
    eventually("the sandbox is gone", Duration::from_secs(60), || {
        home.stigmer(["sandbox", "list", "--ids"]).ok().is_empty()
    });
    assert!(!workspace.exists());
    daemon.stop();
}

#[test]
fn the_data_is_the_user_s_alone() {
    let home = Home::new();
    let daemon = home.daemon();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.data()), 0o700);
    assert_eq!(mode(daemon.socket()) & 0o077, 0);
    assert_eq!(daemon.socket(), home.data().join("stigmer.sock"));
    assert!(daemon.tcp().ip().is_loopback());
    let socket = daemon.socket().to_owned();
    daemon.stop();
    assert!(!socket.exists(), "a daemon that stopped is not looked for");
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let home = Home::new();
    let daemon = home.daemon();
    let client = Client::connect(&daemon).await;
    let mut health = HealthClient::new(client.channel.clone());
    let answer = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);

    let mut reflection = ServerReflectionClient::new(client.channel.clone());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection
        .server_reflection_info(stream::iter([request]))
        .await
        .unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = services
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for service in ["Daemon", "Sandboxes", "Commands", "Files"] {
        assert!(
            names.contains(&format!("stigmer.host.v1.{service}")),
            "{names:?}"
        );
    }
    assert!(
        names.contains(&"stigmer.sandbox.v1.Backend".to_owned()),
        "{names:?}"
    );

    let info = client
        .daemon()
        .info(host::InfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (info.mode.as_str(), info.default_backend.as_str()),
        ("local", "filesystem")
    );
    tokio::task::spawn_blocking(|| daemon.stop()).await.unwrap();
}

#[test]
fn the_log_is_json_when_asked_and_names_each_operation() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &["--log-format", "json"]);
    home.stigmer(["sandbox", "create", "box"]).ok();
    home.stigmer(["sandbox", "exec", "box", "--", "true"]).ok();
    let output = daemon.stop();
    let log = output.complaint();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let said = |word: &str| lines.iter().any(|line| line.to_string().contains(word));
    assert!(said("serving") && said("\"operation\":\"exec\""), "{log}");
}

#[test]
fn the_configuration_is_shown_with_its_sources() {
    let home = Home::new();
    home.write("data/config.toml", "port = 4000\n");
    let shown = home
        .stigmer(["config", "show", "--log-level", "warn"])
        .env("STIGMER_API_KEY", "hunter2")
        .env("STIGMER_LOG_FORMAT", "json")
        .ok();
    assert!(!shown.contains("hunter2"), "{shown}");
    let row = |name: &str| {
        shown
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name}: {shown}"))
    };
    let check = |name: &str, value: &str, source: &str| {
        let row = row(name);
        assert!(row.contains(value) && row.contains(source), "{row}");
    };
    check("MODE ", "local", "default");
    check("STIGMER_LOG_LEVEL ", "warn", "flag --log-level");
    check(
        "STIGMER_LOG_FORMAT ",
        "json",
        "environment STIGMER_LOG_FORMAT",
    );
    check("STIGMER_PORT ", "4000", "config.toml:1");
    check("STIGMER_API_KEY ", "***", "environment STIGMER_API_KEY");
    let parsed = crate::sandboxes::json(&home, &["config", "show", "--json"]);
    assert!(parsed.to_string().contains("SANDBOX_TYPE"), "{parsed}");
}

#[test]
fn metrics_are_served_when_asked() {
    let home = Home::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let daemon = Daemon::start(&home, &["--metrics", &address.to_string()]);
    home.stigmer(["sandbox", "list"]).ok();
    let mut connection = TcpStream::connect(address).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("stigmer_operations_total{"), "{answer}");
    daemon.stop();
    let shown = home.stigmer(["config", "show"]).ok();
    let default = shown
        .lines()
        .find(|line| line.starts_with("STIGMER_METRICS "));
    assert!(default.is_some_and(|line| line.contains("off") && line.contains("default")));
}
