//! The fakes of model providers, driven by the vendors' own SDKs: what a fake
//! says is worth as much as its likeness to the real thing.
//!
//! The versions are those in `tests/sdk/requirements.txt`, in the Python that
//! `STIGMER_TEST_PYTHON` names, or in `python3`. Where they are not, this is
//! skipped, and says so.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use stigmer_tests::fakes::{FakeProvider, Received, Reply, Usage};
use stigmer_tests::{Cli, binary, skip};

/// The Python to use, if it has this package in the pinned version.
#[expect(
    clippy::disallowed_methods,
    reason = "it is not the host that is started, nor in the host's environment"
)]
fn python(package: &str) -> Result<Command, String> {
    let directory = binary::repository().join("tests/sdk");
    let pins = std::fs::read_to_string(directory.join("requirements.txt")).expect("the pins");
    let pin = pins
        .lines()
        .find_map(|line| line.strip_prefix(package)?.strip_prefix("=="))
        .expect("a pin");
    let python = std::env::var_os("STIGMER_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(&python);
    command.current_dir(directory);
    let version = format!("import {package}; print({package}.__version__)");
    let output = Command::new(&python).args(["-c", &version]).output();
    let output = output.map_err(|error| format!("{}: {error}", python.display()))?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        found if found == pin => Ok(command),
        "" => Err(format!("{} has no {package}", python.display())),
        found => Err(format!("{package} is {found}, and not {pin}")),
    }
}

/// What the scripts expect of a model by its name.
fn respond(received: &Received) -> Reply {
    let words = "Zażółć gęślą jaźń 🦀";
    match received.body["model"].as_str().unwrap_or_default() {
        "text" => Reply::text(&format!("{words}, said the fake.")).usage(Usage {
            input: 60,
            output: 7,
            cache_read: 20,
            cache_write: 30,
        }),
        "slowly" => Reply::text(words).slowly(3),
        "tools" if received.turn() == 0 => {
            Reply::calls(["ls", "pwd"].map(|command| ("execute", json!({"command": command}))))
                .with_text("I look.")
                .with_thinking("Hm.", "c2lnbmVk")
        }
        "tools" => Reply::text(&received.results().join(", ")),
        // The SDK counts its tries in this header.
        "limited" if received.header("x-stainless-retry-count") == Some("0") => {
            Reply::rate_limited("0.01")
        }
        "limited" => Reply::text("after a wait"),
        "always-limited" => Reply::rate_limited("7"),
        "overloaded-in-between" => {
            Reply::text(words).failing_after(4, "overloaded_error", "Overloaded")
        }
        "cut" => Reply::text(words).cut_after(4),
        other => panic!("no script asks for {other}"),
    }
}

const MODELS: [&str; 7] = [
    "text",
    "slowly",
    "tools",
    "limited",
    "always-limited",
    "overloaded-in-between",
    "cut",
];

#[track_caller]
fn check(package: &str, fake: FakeProvider) {
    let mut command = match python(package) {
        Ok(command) => command,
        Err(reason) => return skip(&format!("the SDK of {package}"), &reason),
    };
    let fake = fake.with_models(&MODELS);
    fake.on_request(respond);
    command
        .arg(format!("check_{package}.py"))
        .args([fake.base_url(), fake.key()])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = Cli::new(command).deadline(Duration::from_secs(180)).ok();
    assert_eq!(output.trim(), "ok");
    for model in MODELS {
        let asked = fake.requests();
        assert!(
            asked.iter().any(|asked| asked.body["model"] == model),
            "{model}"
        );
    }
}

#[test]
fn anthropic_s_own_sdk_talks_to_the_fake() {
    check("anthropic", FakeProvider::anthropic());
}

#[test]
fn openai_s_own_sdk_talks_to_the_fake() {
    check("openai", FakeProvider::openai());
}
