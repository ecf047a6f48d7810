use std::path::Path;

use stigmer_sdk::wire::host::RunnerStatus;

use super::*;
use crate::config::{Entry, Env, Inputs, resolve};

/// What these flags mean where nothing else was set but the data directory.
fn config(flags: &Flags, vars: &[(&str, &str)]) -> Config {
    let mut env: Env = vars
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    env.insert("HOME".to_owned(), "/home/u".to_owned());
    resolve(Inputs {
        entry: Entry::Local,
        flags,
        env: &env,
        file: None,
        cwd: Path::new("/cwd"),
        backends: &["filesystem", "wasi"],
    })
    .unwrap()
}

fn running() -> StatusResponse {
    StatusResponse {
        pid: 7,
        tcp: "127.0.0.1:50052".to_owned(),
        sandbox_type: "wasi".to_owned(),
        sandbox_root: "/elsewhere".to_owned(),
        runner: Some(RunnerStatus {
            provider: "openai".to_owned(),
            model: "gpt-x".to_owned(),
            ..RunnerStatus::default()
        }),
        ..StatusResponse::default()
    }
}

#[test]
fn only_what_was_asked_for_can_differ() {
    #[track_caller]
    fn check(flags: Flags, vars: &[(&str, &str)], with_runner: bool, expected: &[&str]) {
        let found = differences(&config(&flags, vars), with_runner, &running());
        let flags: Vec<_> = found.iter().map(|found| found.flag.as_str()).collect();
        assert_eq!(flags, expected);
    }
    let text = |text: &str| Some(text.to_owned());
    check(Flags::default(), &[], true, &[]);
    check(Flags::default(), &[], false, &["--no-agent-runner"]);
    check(
        Flags {
            sandbox: text("wasi"),
            root: Some("/elsewhere/.".into()),
            port: text("50052"),
            provider: text("openai"),
            model: text("gpt-x"),
            ..Flags::default()
        },
        &[],
        true,
        &[],
    );
    check(
        Flags {
            sandbox: text("filesystem"),
            root: Some("a b".into()),
            port: text("50051"),
            provider: text("ollama"),
            model: text("m"),
            ..Flags::default()
        },
        &[],
        true,
        &[
            "--sandbox filesystem",
            "--root '/cwd/a b'",
            "--port 50051",
            "--provider ollama",
            "--model m",
        ],
    );
    // Without a runner nobody asks a model.
    check(
        Flags {
            provider: text("ollama"),
            ..Flags::default()
        },
        &[],
        false,
        &["--no-agent-runner"],
    );
    check(
        Flags::default(),
        &[("STIGMER_PORT", "1")],
        true,
        &["--port 1"],
    );
    check(Flags::default(), &[("STIGMER_PORT", "0")], true, &[]);
}

#[test]
fn a_conflict_names_what_runs_what_was_asked_and_what_to_do() {
    let flags = Flags {
        port: Some("1".to_owned()),
        ..Flags::default()
    };
    let found = differences(&config(&flags, &[]), true, &running());
    let failure = conflict(&found, &running());
    assert_eq!(
        failure.problems,
        [
            "the daemon is already running, process 7, with other settings:\n  port: 50052 is running, 1 was asked for"
        ]
    );
    assert!(failure.hints[0].ends_with("stigmer local restart --port 1"));
}

#[test]
fn a_restart_keeps_what_it_does_not_change() {
    let kept = |flags: Flags, vars: &[(&str, &str)]| {
        let before = config(&flags, vars);
        keep(flags, &before, &running())
    };
    let all = kept(Flags::default(), &[]);
    assert_eq!(all.sandbox.as_deref(), Some("wasi"));
    assert_eq!(all.root.as_deref(), Some(Path::new("/elsewhere")));
    assert_eq!(all.port.as_deref(), Some("50052"));
    assert_eq!(all.provider.as_deref(), Some("openai"));
    assert_eq!(all.model.as_deref(), Some("gpt-x"));
    let asked = Flags {
        provider: Some("ollama".to_owned()),
        ..Flags::default()
    };
    let some = kept(asked, &[("STIGMER_PORT", "9"), ("SANDBOX_ROOT_DIR", "/r")]);
    assert_eq!(some.provider.as_deref(), Some("ollama"));
    assert_eq!(some.model, None, "the other provider does not have it");
    // These are not flags: the environment says so by itself.
    assert_eq!((some.port, some.root), (None, None));
}

#[test]
fn only_keys_of_the_environment_are_handed_over() {
    let vars = [("ANTHROPIC_API_KEY", "a"), ("STIGMER_API_KEY", "b")];
    let keys = given_keys(&config(&Flags::default(), &vars)).unwrap();
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, key)| (name, key.expose()))
        .collect();
    assert_eq!(keys, [("ANTHROPIC_API_KEY", "a"), ("STIGMER_API_KEY", "b")]);
    let none = given_keys(&config(&Flags::default(), &[])).unwrap();
    assert_eq!(none, Handover::new());
}

#[test]
fn a_shell_reads_what_is_quoted() {
    assert_eq!(quoted("/a/b-1"), "/a/b-1");
    assert_eq!(quoted("a b"), "'a b'");
    assert_eq!(quoted("it's"), r"'it'\''s'");
    assert_eq!(quoted(""), "''");
}
