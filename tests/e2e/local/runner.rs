//! The daemon with an agent runner: the scenarios of people who use both.
//!
//! Ollama is the provider where no key matters: it needs none, and is asked
//! nothing before there is work.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use stigmer_tests::pty::Terminal;
use stigmer_tests::{Home, eventually, process};

use super::{Up, kill, local, nothing_runs, number, status, traces};

const KEYLESS: [&str; 4] = ["--port", "0", "--provider", "ollama"];

/// The runner's number, once it is ready again.
#[track_caller]
fn ready_runner(home: &Home, not: i32) -> i32 {
    let mut found = 0;
    eventually("a runner is ready", Duration::from_secs(30), || {
        let runner = &status(home)["agent_runner"];
        found = runner["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap_or_default();
        runner["state"] == "ready" && found != not
    });
    found
}

#[test]
fn a_fresh_start_asks_for_the_key_and_starts_both() {
    let home = Home::new();
    let args = ["local", "start", "--port", "0"];
    let mut terminal = Terminal::start(&home, &args, 100, 40);
    terminal.shows("Enter Anthropic API key: ");
    terminal.types("sk-scenario-1\n");
    terminal.shows("✓ Anthropic API key configured");
    assert!(terminal.wait().success(), "{}", terminal.screen());
    terminal.shows("stigmer local stop");
    let screen = terminal.screen();
    assert!(!screen.contains("sk-scenario"), "{screen}");
    let places: Vec<_> = [
        "configured",
        "Starting daemon...",
        "Daemon started successfully",
        "Agent-runner started successfully",
    ]
    .iter()
    .map(|said| {
        screen
            .find(said)
            .unwrap_or_else(|| panic!("{said}: {screen}"))
    })
    .collect();
    assert!(places.is_sorted(), "{screen}");
    let entries = home.data_entries();
    for file in [
        "daemon.pid",
        "agent-runner.pid",
        "logs/daemon.log",
        "logs/agent-runner.log",
    ] {
        assert!(entries.contains(&file.to_owned()), "{file}: {entries:?}");
    }
    let now = status(&home);
    assert_eq!(now["agent_runner"]["state"], "ready");
    assert_eq!(now["agent_runner"]["provider"], "anthropic");
    assert_eq!(now["runners"].as_array().unwrap().len(), 1);
    assert_eq!(local(&home, ["status"]).run().code(), 0);
    local(&home, ["stop"]).ok();
}

#[test]
fn a_key_in_the_environment_is_taken_without_a_word() {
    let home = Home::new();
    let up = Up::by(
        local(&home, ["start", "--json", "--port", "0"]).env("ANTHROPIC_API_KEY", "sk-scenario-2"),
        &home,
    );
    assert_eq!(up.said["agent_runner"]["provider"], "anthropic");
    let shown = local(&home, ["status"]).ok();
    assert!(!shown.contains("sk-scenario"), "{shown}");
    let runner = number(&up.said["agent_runner"]["pid"]);
    for pid in [up.pid(), runner] {
        for name in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains("sk-scenario"), "{name} of {pid}");
        }
    }
}

#[test]
fn a_stop_ends_the_runner_first() {
    let home = Home::new();
    let up = Up::with(&home, &KEYLESS);
    let runner = number(&up.said["agent_runner"]["pid"]);
    let said = local(&home, ["stop"]).ok();
    assert_eq!(
        said,
        "Stopping daemon...\nSent SIGTERM to daemon\nAgent-runner stopped successfully\nDaemon stopped successfully\n"
    );
    for pid in [up.pid(), runner] {
        assert!(process::look(pid).is_none_or(|process| !process.lives()));
    }
    assert_eq!(traces(&home), [""; 0]);
    nothing_runs(&home);
}

#[test]
fn a_restart_brings_both_back() {
    let home = Home::new();
    let up = Up::with(&home, &[&KEYLESS[..], &["--model", "m1"]].concat());
    let said = local(&home, ["restart"]).ok();
    assert!(said.contains("Agent-runner started successfully"), "{said}");
    assert!(said.ends_with("Daemon restarted successfully\n"), "{said}");
    let now = status(&home);
    for name in ["provider", "model", "state"] {
        assert_eq!(
            now["agent_runner"][name], up.said["agent_runner"][name],
            "{name}"
        );
    }
    assert_ne!(now["agent_runner"]["pid"], up.said["agent_runner"]["pid"]);
    local(&home, ["restart", "--no-agent-runner"]).ok();
    assert_eq!(status(&home)["agent_runner"], Value::Null);
}

#[test]
fn a_runner_that_is_killed_comes_back_and_the_daemon_stays() {
    let home = Home::new();
    let up = Up::with(&home, &KEYLESS);
    let first = number(&up.said["agent_runner"]["pid"]);
    kill(first);
    let second = ready_runner(&home, first);
    let now = status(&home);
    assert_eq!(number(&now["pid"]), up.pid());
    assert_eq!(now["agent_runner"]["restarts"], 1);
    let failure = now["agent_runner"]["last_failure"].as_str().unwrap();
    assert!(
        failure.contains('9') || failure.contains("KILL"),
        "{failure}"
    );
    local(&home, ["restart"]).ok();
    let third = ready_runner(&home, second);
    assert_ne!(third, second);
    assert_eq!(status(&home)["agent_runner"]["restarts"], 0);
}

#[test]
fn no_runner_survives_a_daemon_that_is_killed() {
    let home = Home::new();
    let up = Up::with(&home, &KEYLESS);
    let runner = number(&up.said["agent_runner"]["pid"]);
    kill(up.pid());
    assert!(process::look(runner).is_none_or(|process| !process.lives()));
    let again = Up::with(&home, &KEYLESS);
    assert_eq!(again.said["already_running"], false);
}

#[test]
fn other_settings_of_the_runner_are_told_apart() {
    let home = Home::new();
    let up = Up::with(&home, &[&KEYLESS[..], &["--model", "m1"]].concat());
    let same = local(&home, ["start", "--model", "m1", "--provider", "ollama"]);
    assert!(same.ok().starts_with("Daemon is already running\n"));
    let other = local(&home, ["start", "--model", "m2", "--provider", "openai"]).run();
    other.fails(1, "provider: ollama is running, openai was asked for");
    other.fails(1, "model: m1 is running, m2 was asked for");
    let without = local(&home, ["start", "--no-agent-runner"]).run();
    without.fails(1, "stigmer local restart --no-agent-runner");
    drop(up);
}

#[test]
fn both_logs_are_there() {
    let home = Home::new();
    let _up = Up::with(&home, &KEYLESS);
    let shown = local(&home, ["logs", "--component", "agent-runner"]).ok();
    assert!(shown.contains("agent-runner INFO"), "{shown}");
    let shown = local(&home, ["logs"]).ok();
    assert!(
        shown.contains(" server ") && shown.contains(" agent-runner "),
        "{shown}"
    );
}
