//! `stigmer sandbox`: sandboxes that come and go, and the commands in them.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use stigmer_tests::{Home, eventually};

/// The one JSON value that a command prints.
#[track_caller]
pub(crate) fn json(home: &Home, args: &[&str]) -> Value {
    let printed = home.stigmer(args).ok();
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

#[test]
fn a_sandbox_is_created_found_and_destroyed() {
    let home = Home::new();
    let daemon = home.daemon();
    let run = |args: &[&str]| home.stigmer([&["sandbox"], args].concat()).run();
    let created = run(&[
        "create",
        "web",
        "--label",
        "task=42",
        "-e",
        "X=from the sandbox",
    ]);
    assert_eq!((created.code(), created.text()), (0, "web\n"), "{created}");

    let again = run(&["create", "web"]);
    again.fails(0, "'web' was there already");
    let nameless = run(&["create", "--json"]).ok();
    let nameless: Value = serde_json::from_str(&nameless).unwrap();
    let id = nameless["id"].as_str().unwrap();
    assert!(id.starts_with("filesystem:"), "{id}");

    let table = run(&["list"]).ok();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("SANDBOX "), "{table}");
    assert_eq!(lines.count(), 2, "{table}");
    assert!(table.contains("task=42"), "{table}");
    assert_eq!(run(&["list", "--label", "task=41", "--ids"]).ok(), "");
    let found = json(&home, &["sandbox", "list", "--label", "task=42", "--json"]);
    assert_eq!(found[0]["name"], "web");
    let ids = run(&["list", "--ids"]).ok();
    assert!(ids.lines().any(|line| line == id), "{ids}");

    let shown = run(&["info", "web"]).ok();
    assert_eq!(shown.matches("Not contained: ").count(), 1, "{shown}");
    assert!(shown.contains("isolation  none"), "{shown}");
    let info = json(&home, &["sandbox", "info", id, "--json"]);
    assert_eq!((&info["id"], &info["state"]), (&id.into(), &"ready".into()));
    let workspace = std::path::PathBuf::from(info["workspace"].as_str().unwrap());
    assert!(workspace.is_dir());

    assert_eq!(
        run(&["exec", "web", "--", "echo $X"]).ok(),
        "from the sandbox\n"
    );
    run(&["exec", "web", "--", "exit 4"]).fails(4, "");

    assert_eq!(run(&["destroy", "web", id]).ok(), format!("web\n{id}\n"));
    run(&["info", "web"]).fails(1, "no sandbox 'web'");
    assert!(!workspace.exists(), "its workspace was its own");
    assert_eq!(run(&["list", "--ids"]).ok(), "");
    daemon.stop();
}

#[test]
fn a_workspace_that_is_somebody_s_own_stays() {
    let home = Home::new();
    let daemon = home.daemon();
    home.write("mine/kept", "kept");
    home.stigmer(["sandbox", "create", "box", "--root", "mine"])
        .ok();
    let printed = home
        .stigmer(["sandbox", "exec", "box", "--", "cat kept; echo new >new"])
        .ok();
    assert_eq!(printed, "kept");
    home.stigmer(["sandbox", "destroy", "box"]).ok();
    assert_eq!(
        std::fs::read_to_string(home.path("mine/new")).unwrap(),
        "new\n"
    );
    daemon.stop();
}

#[test]
fn background_processes_are_listed_followed_and_stopped() {
    let home = Home::new();
    let daemon = home.daemon();
    let run = |args: &[&str]| home.stigmer([&["sandbox"], args].concat()).run();
    run(&["create", "box"]).ok();
    let script = "echo started; while ! test -e go; do sleep 0.02; done; echo went; exit 6";
    let id = run(&["exec", "-d", "box", "--", script]).ok();
    let id = id.trim_end();
    let listed = json(&home, &["sandbox", "ps", "box", "--json"]);
    assert_eq!(
        (&listed[0]["id"], &listed[0]["state"]),
        (&id.into(), &"running".into())
    );

    let follower = home
        .stigmer(["sandbox", "ps", "box", "--follow", id])
        .start();
    follower.prints("started");
    run(&["exec", "box", "--", "touch go"]).ok();
    let followed = follower.wait();
    assert_eq!(followed.text(), "started\nwent\n");
    assert_eq!(followed.code(), 6, "{followed}");
    let ended = json(&home, &["sandbox", "ps", "box", "--all", "--json"]);
    assert_eq!(ended[0]["exit_code"], 6);
    assert_eq!(
        json(&home, &["sandbox", "ps", "box", "--json"]),
        Value::Array(Vec::new())
    );

    let id = run(&[
        "exec",
        "-d",
        "box",
        "--",
        "(setsid sleep 1000 &) ; sleep 1000",
    ])
    .ok();
    run(&["ps", "box", "--stop", id.trim_end()]).fails(0, "stopped");
    eventually("the stopped tree ends", Duration::from_secs(10), || {
        home.processes()
            .iter()
            .all(|process| !process.command.contains("sleep 1000"))
    });
    run(&["ps", "box", "--follow", "nope"]).fails(1, "nope");
    daemon.stop();
}

#[test]
fn a_command_in_the_daemon_behaves_as_one_without() {
    let home = Home::new();
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "box"]).ok();
    let exec = |args: &[&str]| home.stigmer([&["sandbox", "exec", "box"], args].concat());
    exec(&["--", "no-such-program", "x"])
        .run()
        .fails(127, "no-such-program");
    exec(&["--timeout", "100ms", "--", "echo kept; sleep 60"])
        .run()
        .fails(124, "");
    exec(&["--", "kill -9 $$"]).run().fails(137, "");
    let streams = exec(&["--", "echo out; echo err >&2"]).run();
    assert_eq!(
        (streams.text(), streams.complaint().as_str()),
        ("out\n", "err\n")
    );
    let all: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    let echoed = exec(&["-i", "--", "cat"]).stdin(all.clone()).run();
    assert!(echoed.stdout == all, "binary stdin comes back");
    let secret = exec(&["-e", "GIVEN", "--", "env"])
        .env("GIVEN", "given")
        .env("ANTHROPIC_API_KEY", "marker")
        .ok();
    assert!(
        secret.contains("GIVEN=given") && !secret.contains("marker"),
        "{secret}"
    );

    let script = "trap 'echo handled; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let running = exec(&["--", script]).start();
    running.prints("ready");
    running.signal(Signal::INT);
    let output = running.wait();
    assert_eq!((output.code(), output.text()), (7, "ready\nhandled\n"));
    daemon.stop();
}

#[test]
fn prune_destroys_what_it_is_told_to() {
    let home = Home::new();
    let daemon = home.daemon();
    let run = |args: &[&str]| home.stigmer([&["sandbox"], args].concat()).run();
    for name in ["one", "two"] {
        run(&["create", name]).ok();
    }
    assert_eq!(run(&["prune"]).ok(), "");
    run(&["prune", "--all"]).fails(2, "--all destroys every sandbox");
    let mut planned: Vec<String> = run(&["prune", "--all", "--dry-run"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    planned.sort();
    assert_eq!(planned, ["one", "two"]);
    assert_eq!(run(&["list", "--ids"]).ok().lines().count(), 2);
    run(&["prune", "--all", "--yes"]).fails(0, "destroyed 2 sandboxes");
    assert_eq!(run(&["list", "--ids"]).ok(), "");
    daemon.stop();
}
