//! What cannot be started: why, and that nothing of it is left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::Signal;
use stigmer_tests::{Cli, Home, eventually, skip};

use super::{Up, local, nothing_runs, traces};

const ALONE: [&str; 4] = ["start", "--port", "0", "--no-agent-runner"];

/// Makes sure that it failed with this, and that nothing is left.
#[track_caller]
fn check(home: &Home, start: Cli, code: i32, said: &[&str]) {
    let output = start.run();
    for said in said {
        output.fails(code, said);
    }
    assert!(!output.text().contains("successfully"), "{output}");
    nothing_runs(home);
    assert_eq!(traces(home), [""; 0]);
}

/// A start with this script as its runner.
fn scripted(home: &Home, script: &str) -> Cli {
    let path = home.write("runner.sh", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    local(home, ["start", "--port", "0", "--provider", "ollama"])
        .env("STIGMER_AGENT_RUNNER_SCRIPT", path)
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    let (home, other) = (Home::new(), Home::new());
    let daemon = other.daemon();
    let port = daemon.tcp().port().to_string();
    let start = local(&home, ["start", "--no-agent-runner", "--port", &port]);
    let holder = format!(
        "port {port} is in use by process {} (the Stigmer daemon of {})",
        daemon.pid(),
        other.data().display()
    );
    check(&home, start, 1, &[&holder, "--port"]);
    daemon.stop();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let start = local(&home, ["start", "--no-agent-runner", "--port", &port]);
    let holder = format!("port {port} is in use by process {} (", std::process::id());
    check(&home, start, 1, &[&holder, "--port"]);
}

#[test]
fn a_daemon_that_ends_at_once_has_the_last_word() {
    let home = Home::new();
    // A directory where its lock belongs.
    fs::create_dir_all(home.data().join("stigmer.lock")).unwrap();
    let said = [
        "failed to start daemon: it ended before it was ready, with exit status: 1",
        "the last lines of ",
        "cannot lock the data directory",
    ];
    check(&home, local(&home, ALONE), 1, &said);
}

#[test]
fn a_socket_path_that_is_too_long_is_said() {
    let home = Home::new();
    let start = local(&home, ALONE).env("STIGMER_DATA_DIR", home.path(&"x".repeat(108)));
    check(&home, start, 1, &["107", "STIGMER_DATA_DIR"]);
}

#[test]
fn a_runner_that_ends_at_once_has_the_last_word() {
    let home = Home::new();
    let start = scripted(&home, "echo told its reason >&2; exit 3");
    let said = ["failed to start agent-runner", "told its reason"];
    check(&home, start, 1, &said);
}

#[test]
fn a_runner_that_is_not_there_is_named() {
    let home = Home::new();
    let start = local(&home, ["start", "--port", "0", "--provider", "ollama"])
        .env("STIGMER_AGENT_RUNNER_SCRIPT", "missing.py");
    check(
        &home,
        start,
        1,
        &["failed to start agent-runner", "missing.py"],
    );
}

#[test]
fn a_start_that_is_interrupted_leaves_nothing() {
    let home = Home::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        // It never registers, and has a child that is hard to find.
        let start = scripted(
            &home,
            "echo >started; setsid -f sleep 1000; exec sleep 1000",
        );
        let running = start.start();
        eventually("the runner runs", Duration::from_secs(20), || {
            home.processes()
                .iter()
                .any(|process| process.command.contains("sleep 1000"))
        });
        running.signal(signal);
        assert_eq!(running.wait().code(), code);
        nothing_runs(&home);
        assert_eq!(traces(&home), [""; 0]);
    }
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let home = Home::new();
    let with = |args: &[&str]| local(&home, ALONE).args(args);
    check(
        &home,
        with(&["--sandbox", "filesytem"]),
        2,
        &["did you mean 'filesystem'?"],
    );
    check(
        &home,
        with(&["--provider", "openia"]),
        2,
        &["did you mean 'openai'?"],
    );
    check(
        &home,
        with(&["--root", ""]),
        2,
        &["a value is required for"],
    );
    let cloud = local(&home, ALONE).env("MODE", "cloud");
    check(&home, cloud, 2, &["STIGMER_API_KEY is not set"]);
    let nowhere = local(&home, ALONE)
        .without_env("HOME")
        .without_env("STIGMER_DATA_DIR");
    check(&home, nowhere, 2, &["HOME is not set", "STIGMER_DATA_DIR"]);
    home.write("file", "");
    let file = local(&home, ALONE).env("STIGMER_DATA_DIR", home.path("file"));
    check(&home, file, 2, &["STIGMER_DATA_DIR"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_said() {
    if rustix::process::geteuid().is_root() {
        skip("a read-only data directory", "root writes everywhere");
        return;
    }
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    fs::set_permissions(home.data(), fs::Permissions::from_mode(0o500)).unwrap();
    check(&home, local(&home, ALONE), 2, &["STIGMER_DATA_DIR"]);
    fs::set_permissions(home.data(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_stale_socket_is_no_daemon() {
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(home.data().join("stigmer.sock")).unwrap());
    assert_eq!(local(&home, ["status"]).run().code(), 1);
    drop(Up::alone(&home));
}

#[test]
fn somebody_else_on_the_socket_is_no_daemon_that_answers() {
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    let socket = home.data().join("stigmer.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let shown = local(&home, ["status"]).run();
    assert_eq!(shown.code(), 1, "{shown}");
    assert!(shown.text().contains("✗ Not answering"), "{shown}");
    shown.fails(1, "gives no answer within 5s");
    drop(listener);
}
