//! The daemon's own runner: started, started again, and never left behind.
//!
//! The runner here is a script, so that these tests see what a program of
//! somebody else's may do to the daemon: start what it likes, in sessions of
//! its own, and not end when it is asked to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use stigmer_sdk::wire::agent::RegisterRequest;
use stigmer_sdk::wire::host::{ComponentState, RunnerStatus, StatusRequest, StatusResponse};
use stigmer_tests::process::{self, Process};
use stigmer_tests::{Cli, Daemon, Home, binary, eventually, skip};

use stigmer::grpc::generated::agent::runners_client::RunnersClient;

use crate::client::Client;

const SOON: Duration = Duration::from_secs(20);
const KEY: &str = "sk-marked-5f1c3b7e";

/// Says that it runs, leaves children in sessions of their own, and waits.
const BUSY: &str = "\
setsid sleep 1000 &
setsid -f sh -c 'sleep 1001 & setsid sleep 1002'
echo $$ > \"$SANDBOX_ROOT_DIR/running\"
while :; do sleep 0.02; done
";

fn script(home: &Home, text: &str) -> PathBuf {
    let path = home.write("runner.sh", format!("#!/bin/sh\n{text}"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    path
}

/// How to start a daemon that keeps this script as its runner.
fn keeping(home: &Home, text: &str) -> Cli {
    home.stigmer(Daemon::args(&["--agent-runner"]))
        .env("STIGMER_AGENT_RUNNER_SCRIPT", script(home, text))
}

fn status(daemon: &Daemon) -> StatusResponse {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(daemon).await;
        let answer = client.daemon().status(StatusRequest {}).await;
        answer.expect("a status").into_inner()
    })
}

fn runner(daemon: &Daemon) -> RunnerStatus {
    status(daemon).runner.expect("it supervises one")
}

/// The first line of a PID file.
fn pid_in(home: &Home, name: &str) -> i32 {
    let file = fs::read_to_string(home.data().join(name)).expect("a PID file");
    let lines: Vec<_> = file.lines().collect();
    assert_eq!(lines.len(), 3, "{file}");
    lines[0].parse().expect("a number")
}

fn agent_log(home: &Home) -> String {
    fs::read_to_string(home.data().join("logs/agent-runner.log")).unwrap_or_default()
}

/// Waits until the script runs, and gives its keepers, itself and what it started.
fn running(home: &Home, daemon: &Daemon) -> Vec<Process> {
    eventually("the script runs", SOON, || {
        home.work().join("running").exists()
    });
    let mut tree = Vec::new();
    eventually("all that it starts runs", SOON, || {
        tree = process::descendants(daemon.pid());
        ["sleep 1000", "sleep 1001", "sleep 1002"]
            .iter()
            .all(|sleep| tree.iter().any(|process| process.command.contains(sleep)))
    });
    tree
}

/// The two keepers, the first one first.
fn keepers(tree: &[Process]) -> [Process; 2] {
    let of = |second: bool| {
        let found = tree.iter().find(|process| {
            process.command.contains("agent-runner --supervised")
                && process.command.contains("--second") == second
        });
        found.expect("a keeper").clone()
    };
    [of(false), of(true)]
}

#[test]
fn whichever_process_is_killed_the_tree_goes_and_the_runner_comes_back() {
    type Victim = fn(&[Process]) -> Process;
    let victims: [(&str, Victim); 3] = [
        ("the first keeper", |tree| keepers(tree)[0].clone()),
        ("the second keeper", |tree| keepers(tree)[1].clone()),
        ("the script", |tree| {
            let script = tree
                .iter()
                .find(|process| process.command.contains("runner.sh"));
            script.expect("a script").clone()
        }),
    ];
    let home = Home::new();
    let daemon = Daemon::started(keeping(&home, BUSY));
    for (restarts, (who, victim)) in (1..).zip(victims) {
        let before = running(&home, &daemon);
        assert_eq!(
            pid_in(&home, "agent-runner.pid"),
            keepers(&before)[0].pid,
            "{who}"
        );
        fs::remove_file(home.work().join("running")).expect("it is there");
        victim(&before).signal(Signal::KILL);
        process::all_end(&format!("what there was before {who} was killed"), &before);
        running(&home, &daemon);
        let now = runner(&daemon);
        assert_eq!(now.restarts, restarts, "{who}: {now:?}");
        assert_eq!(now.state(), ComponentState::Starting, "nobody registered");
        assert!(
            now.last_failure.contains("signal 9") || now.last_failure.contains("137"),
            "{now:?}"
        );
        assert_eq!(pid_in(&home, "daemon.pid"), daemon.pid());
    }
    daemon.stop();
    for file in ["daemon.pid", "agent-runner.pid"] {
        assert!(!home.data().join(file).exists(), "{file}");
    }
}

#[test]
fn nothing_outlives_a_daemon_that_is_killed_and_the_next_one_recovers() {
    let home = Home::new();
    let daemon = Daemon::started(keeping(&home, BUSY));
    let tree = running(&home, &daemon);
    let stale = pid_in(&home, "agent-runner.pid");
    daemon.kill();
    process::all_end("what the daemon had started", &tree);
    assert_eq!(pid_in(&home, "agent-runner.pid"), stale);
    fs::remove_file(home.work().join("running")).expect("it is there");

    let daemon = Daemon::started(keeping(&home, BUSY));
    running(&home, &daemon);
    assert_ne!(pid_in(&home, "agent-runner.pid"), stale);
    assert_eq!(runner(&daemon).restarts, 0);
    daemon.stop();
}

#[test]
fn one_that_ends_at_once_is_tried_again_and_then_given_up() {
    let home = Home::new();
    let daemon = Daemon::started(keeping(
        &home,
        "echo tried; echo 'no model today' >&2; exit 3",
    ));
    let mut seen = Vec::new();
    eventually("it is given up", SOON, || {
        let now = runner(&daemon);
        seen.push(now.state());
        now.state() == ComponentState::Failed
    });
    assert!(seen.contains(&ComponentState::BackingOff), "{seen:?}");
    let now = runner(&daemon);
    assert_eq!(now.last_failure, "exited with 3: no model today");
    assert_eq!((now.restarts, now.pid), (4, None));
    assert_eq!(agent_log(&home).matches("\"tried\"").count(), 5);
    assert!(daemon.log().contains("ended too often"), "{}", daemon.log());
    assert!(!home.data().join("agent-runner.pid").exists());
    // The daemon does not suffer from it.
    home.stigmer(["sandbox", "list"]).ok();
    daemon.stop();
}

#[test]
fn a_script_that_cannot_be_started_is_said_to_be_so() {
    let home = Home::new();
    let cli = home
        .stigmer(Daemon::args(&["--agent-runner"]))
        .env("STIGMER_AGENT_RUNNER_SCRIPT", home.path("missing.sh"));
    let daemon = Daemon::started(cli);
    eventually("it says so", SOON, || {
        let now = runner(&daemon);
        now.last_failure.contains("cannot start") && now.last_failure.contains("missing.sh")
    });
    daemon.stop();
}

#[test]
fn the_runner_ends_while_the_daemon_still_serves() {
    let home = Home::new();
    let text = format!(
        "trap '{} sandbox list > \"$SANDBOX_ROOT_DIR/listed\"; exit 0' TERM\n{BUSY}",
        binary::path().display()
    );
    let daemon = Daemon::started(keeping(&home, &text));
    running(&home, &daemon);
    daemon.stop();
    assert!(home.work().join("listed").exists(), "{}", agent_log(&home));
    let log = agent_log(&home);
    assert!(!log.contains("error"), "{log}");
}

#[test]
fn one_that_does_not_heed_sigterm_is_killed() {
    let home = Home::new();
    let daemon = Daemon::started(keeping(&home, &format!("trap '' TERM\n{BUSY}")));
    running(&home, &daemon);
    let start = std::time::Instant::now();
    daemon.stop();
    let took = start.elapsed();
    assert!((5..9).contains(&took.as_secs()), "{took:?}");
}

/// A daemon that was handed a key, with a script that prints what it was given.
fn handed_over(home: &Home) -> Daemon {
    let text = format!("env > \"$SANDBOX_ROOT_DIR/env\"; env; env >&2\n{BUSY}");
    let cli = keeping(home, &text)
        .arg("--handover")
        .stdin(format!("{{\"ANTHROPIC_API_KEY\":\"{KEY}\"}}"));
    Daemon::started(cli)
}

#[test]
fn a_key_that_is_handed_over_is_in_no_environment_but_the_scripts() {
    let home = Home::new();
    let daemon = handed_over(&home);
    let tree = running(&home, &daemon);
    let of_ours = keepers(&tree).map(|process| process.pid);
    let holds = |pid: i32, file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).expect("a process that lives");
        String::from_utf8_lossy(&bytes).contains(KEY)
    };
    for pid in of_ours.into_iter().chain([daemon.pid()]) {
        let core = fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process");
        let core = core
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let numbers: Vec<_> = core
            .expect("a limit")
            .split_whitespace()
            .skip(4)
            .take(2)
            .collect();
        assert_eq!(numbers, ["0", "0"]);
        if rustix::process::geteuid().is_root() {
            for file in ["environ", "cmdline"] {
                assert!(!holds(pid, file), "{pid} {file}");
            }
        }
    }
    let given = fs::read_to_string(home.work().join("env")).expect("it was written");
    let variable = |name: &str| {
        let line = given
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.map(str::to_owned)
    };
    let endpoint = format!("localhost:{}", daemon.tcp().port());
    let work = home.work().display().to_string();
    for (name, value) in [
        ("ANTHROPIC_API_KEY", Some(KEY)),
        ("MODE", Some("local")),
        ("SANDBOX_TYPE", Some("filesystem")),
        ("SANDBOX_ROOT_DIR", Some(work.as_str())),
        ("STIGMER_BACKEND_ENDPOINT", Some(endpoint.as_str())),
        ("STIGMER_API_KEY", Some("dummy-local-key")),
        ("LOG_LEVEL", Some("INFO")),
        ("OPENAI_API_KEY", None),
        ("STIGMER_LOG_FORMAT", None),
    ] {
        assert_eq!(variable(name).as_deref(), value, "{given}");
    }
    // It printed all of it, and the log does not have it.
    eventually("its output is logged", SOON, || {
        agent_log(&home).contains("ANTHROPIC_API_KEY=***")
    });
    // Nor does a command of the daemon's.
    home.stigmer(["sandbox", "create", "box"]).ok();
    let env = home.stigmer(["sandbox", "exec", "box", "--", "env"]).ok();
    assert!(!env.contains(KEY) && !env.contains("ANTHROPIC"), "{env}");
    assert!(!format!("{:?}", status(&daemon)).contains(KEY));
    assert!(!daemon.log().contains(KEY) && !agent_log(&home).contains(KEY));
    for entry in home.data_entries() {
        let bytes = fs::read(home.data().join(&entry)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains(KEY), "{entry}");
    }
    daemon.stop();
}

#[test]
fn other_processes_of_the_user_cannot_look_into_a_holder() {
    let home = Home::new();
    if rustix::process::geteuid().is_root() {
        // To root everything is open, and to others root's processes are closed anyway.
        return skip("holders are closed", "root sees everything");
    }
    let daemon = handed_over(&home);
    let tree = running(&home, &daemon);
    for pid in keepers(&tree)
        .map(|process| process.pid)
        .into_iter()
        .chain([daemon.pid()])
    {
        for file in ["environ", "maps", "mem"] {
            let opened = fs::read(format!("/proc/{pid}/{file}"));
            assert!(opened.is_err(), "{pid} {file}");
        }
    }
    daemon.stop();
}

#[test]
fn what_is_no_handover_is_refused() {
    let home = Home::new();
    let start = |text: &str| {
        home.stigmer(Daemon::args(&["--handover"]))
            .stdin(text.to_owned())
            .run()
    };
    start("").fails(2, "handed over");
    start("{\"PATH\":\"/x\"}").fails(2, "'PATH' is not a secret setting");
    let refused = start(&format!("{{\"ANTHROPIC_API_KEY\":\"{KEY}\""));
    refused.fails(2, "it is not a JSON object");
    assert!(!refused.complaint().contains(KEY));
}

#[test]
fn a_runner_is_ready_once_it_has_registered() {
    let home = Home::new();
    let daemon = Daemon::started(keeping(&home, BUSY));
    running(&home, &daemon);
    let now = runner(&daemon);
    assert_eq!(now.state(), ComponentState::Starting);
    assert!(now.script.ends_with("runner.sh"), "{now:?}");
    let script = fs::read_to_string(home.work().join("running")).expect("it runs");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(&daemon).await;
        let register = |id: &str, pid: u32| RegisterRequest {
            runner_id: id.to_owned(),
            pid,
            version: "1".to_owned(),
            ..RegisterRequest::default()
        };
        let mut runners = RunnersClient::new(client.channel.clone());
        let state = async || {
            let answer = client.daemon().status(StatusRequest {}).await;
            let status = answer.expect("a status").into_inner();
            (
                status.runner.expect("it supervises one").state(),
                status.registered.len(),
            )
        };
        // Somebody else's runner is not the daemon's.
        let other = runners
            .register(register("other", std::process::id()))
            .await;
        let _other = other.expect("it is registered");
        assert_eq!(state().await, (ComponentState::Starting, 1));
        let own = script.trim().parse().expect("a number");
        let own = runners
            .register(register("own", own))
            .await
            .expect("it is registered");
        while state().await != (ComponentState::Ready, 2) {}
        drop(own);
        while state().await != (ComponentState::Starting, 1) {}
    });
    daemon.stop();
}

#[test]
fn the_built_in_runner_is_ready_by_itself_and_again_after_it_was_killed() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &["--agent-runner", "--provider", "ollama"]);
    let ready = |restarts: u32| {
        eventually("the runner is ready", SOON, || {
            let now = runner(&daemon);
            now.state() == ComponentState::Ready && now.restarts == restarts
        });
        let (pid, now) = (pid_in(&home, "agent-runner.pid"), status(&daemon));
        let [registered] = &now.registered[..] else {
            panic!("{now:?}")
        };
        assert_eq!(i32::try_from(registered.pid), Ok(pid));
        assert_eq!(registered.runner_id, format!("local-{pid}"));
        let runner = now.runner.expect("it supervises one");
        assert_eq!(
            (runner.provider, runner.script),
            ("ollama".to_owned(), String::new())
        );
        pid
    };
    let first = ready(0);
    process::signal(first, Signal::KILL);
    assert_ne!(ready(1), first);
    assert!(
        runner(&daemon)
            .last_failure
            .starts_with("ended by signal 9")
    );
    let start = std::time::Instant::now();
    daemon.stop();
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "an idle runner ends at once"
    );
    let log = agent_log(&home);
    for said in [
        "🚀 Stigmer Agent Runner - LOCAL Mode",
        "Note: Using gRPC to Stigmer Daemon for state/streaming",
        "✓ Signal handlers registered (SIGTERM, SIGINT)",
        "🚀 Worker ready, polling for tasks...",
        "🛑 Received shutdown signal, stopping worker gracefully...",
        "✅ Graceful shutdown complete",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

#[test]
fn the_built_in_runner_does_not_outlive_its_daemon() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &["--agent-runner", "--provider", "ollama"]);
    eventually("the runner is ready", SOON, || {
        runner(&daemon).state() == ComponentState::Ready
    });
    let runner = process::look(pid_in(&home, "agent-runner.pid")).expect("it runs");
    daemon.kill();
    process::all_end("the runner", &[runner]);
}

#[test]
fn a_key_that_the_provider_needs_is_asked_for_by_its_variable() {
    let home = Home::new();
    let run = home
        .stigmer(Daemon::args(&["--agent-runner", "--provider", "anthropic"]))
        .run();
    run.fails(2, "ANTHROPIC_API_KEY is not set, and anthropic needs it");
    let run = home
        .stigmer(["agent-runner", "--mode", "local", "--provider", "anthropic"])
        .run();
    run.fails(2, "ANTHROPIC_API_KEY is not set, and anthropic needs it");
}

#[test]
fn a_daemon_logs_to_a_file_if_it_is_told_to() {
    let home = Home::new();
    let logs = home.path("logs");
    let args = ["--log-dir", logs.to_str().expect("UTF-8")];
    let daemon = Daemon::start(&home, &args);
    assert_eq!(daemon.log(), "");
    daemon.stop();
    let log = fs::read_to_string(logs.join("daemon.log")).expect("a log");
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
        for field in ["timestamp", "level", "target", "message"] {
            assert!(entry[field].is_string(), "{line}");
        }
    }
    assert!(
        log.contains("\"serving\"") && log.contains("\"shutting down\""),
        "{log}"
    );
    let mode = |path: PathBuf| {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
    };
    assert_eq!(mode(logs.join("daemon.log")) & 0o777, 0o600);
    assert_eq!(mode(logs) & 0o777, 0o700);
}
