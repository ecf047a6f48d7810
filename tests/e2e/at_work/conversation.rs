//! What a session remembers, and what reaches its commands.

use std::fs;

use rustix::process::Signal;
use serde_json::json;
use stigmer_tests::fakes::Reply;
use stigmer_tests::process;

use super::{Local, of_type, outputs, pid_in, runs};

#[track_caller]
fn session_of(events: &[serde_json::Value]) -> String {
    events[0]["session_id"]
        .as_str()
        .expect("a session")
        .to_owned()
}

#[test]
fn a_session_remembers_across_a_restart_of_everything() {
    let local = Local::started();
    runs(
        &local.model,
        "echo blue >colour; echo written",
        "The colour is blue.",
    );
    let (output, events) = local.run(&["my favourite colour is blue, note it"]);
    assert!(output.status().success(), "{output}");
    let session = session_of(&events);
    local.stigmer(["local", "restart", "--no-input"]).ok();

    runs(&local.model, "cat colour", "You said blue.");
    let (output, events) = local.run(&["--session", &session, "which colour was it?"]);
    assert!(output.status().success(), "{output}");
    assert_eq!(session_of(&events), session);
    let requests = local.model.requests();
    let asked = requests[2].body["messages"].to_string();
    for part in [
        "my favourite colour is blue",
        "The colour is blue.",
        "written",
        "which colour",
    ] {
        assert!(asked.contains(part), "no {part:?} in {asked}");
    }
    let outputs = outputs(&events);
    assert_eq!(outputs, "blue\n");

    let shown = local.stigmer(["session", "show", &session]).ok();
    assert!(shown.contains("which colour was it?"), "{shown}");
    let listed = local.stigmer(["session", "list"]).ok();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    local.stigmer(["session", "destroy", &session]).ok();
    let gone = local.stigmer(["session", "show", &session]).run();
    assert!(!gone.status().success(), "{gone}");
    // The directory is the user's own, and stays.
    assert!(local.home.work().join("colour").exists());
}

#[test]
fn the_layers_of_the_environment_reach_commands_and_secrets_are_masked() {
    let local = Local::started();
    let agent = local.home.write(
        "agent.toml",
        "name = \"reviewer\"\ninstructions = \"You review.\"\n[env]\nONE = \"agent\"\nTWO = \"agent\"\nTHREE = \"agent\"\n",
    );
    let env = local.home.write("layer.env", "TWO=file\nTHREE=file\n");
    runs(
        &local.model,
        "echo $ONE $TWO $THREE; echo token is $TOKEN | tee seen",
        "Seen.",
    );
    let (output, events) = local.run(&[
        "--agent",
        agent.to_str().expect("UTF-8"),
        "--env-file",
        env.to_str().expect("UTF-8"),
        "-e",
        "THREE=flag",
        "-e",
        "secret:TOKEN=hunter2hunter2",
        "look around",
    ]);
    assert!(output.status().success(), "{output}");
    let outputs = outputs(&events);
    assert_eq!(outputs, "agent file flag\ntoken is ***\n");
    let seen = fs::read_to_string(local.home.work().join("seen")).expect("a file");
    assert_eq!(seen, "token is hunter2hunter2\n", "the command had it");
    assert!(!output.text().contains("hunter2"), "{output}");
    let asked = local.model.requests();
    assert!(asked[0].system().contains("You review."));
    assert!(!asked[1].body.to_string().contains("hunter2"));
    let id = events[0]["execution_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for view in [["execution", "show"], ["execution", "follow"]] {
        let shown = local.stigmer([view[0], view[1], &id]).run();
        assert!(!shown.text().contains("hunter2"), "{shown}");
    }
}

#[test]
fn skills_and_the_workspaces_own_rules_are_in_the_prompt() {
    let local = Local::started();
    local
        .home
        .write("work/AGENTS.md", "Always answer in verse.\n");
    local.home.write(
        "skills/haiku/SKILL.md",
        "---\nname: haiku\ndescription: Writes a haiku.\n---\nSeventeen syllables.\n",
    );
    let agent = local.home.write(
        "agent.toml",
        "name = \"poet\"\nskills = [\"skills/haiku\"]\n",
    );
    runs(&local.model, "cat .stigmer/skills/haiku/SKILL.md", "Done.");
    let (output, events) = local.run(&["--agent", agent.to_str().expect("UTF-8"), "write"]);
    assert!(output.status().success(), "{output}");
    let system = local.model.requests()[0].system();
    for part in [
        "Always answer in verse.",
        "Writes a haiku.",
        ".stigmer/skills/haiku/SKILL.md",
    ] {
        assert!(system.contains(part), "no {part:?} in {system}");
    }
    let outputs = outputs(&events);
    assert!(outputs.contains("Seventeen syllables."), "{outputs}");
}

#[test]
fn a_runner_that_is_killed_comes_back_and_what_it_held_ends_truthfully() {
    let local = Local::started();
    let started = local.home.work().join("started");
    local.model.reply(Reply::calls([(
        "execute",
        json!({ "command": "touch started; sleep 5432" }),
    )]));
    let running = local.stigmer(["run", "--json", "wait"]).start();
    stigmer_tests::eventually(
        "the command runs",
        std::time::Duration::from_secs(20),
        || started.exists(),
    );
    let (daemon, runner) = (local.daemon_pid(), local.runner_pid());
    process::signal(runner, Signal::KILL);
    let output = running.wait();
    assert_eq!(output.status().code(), Some(1), "{output}");
    let events = super::events(output.text());
    let phases: Vec<_> = of_type(&events, "phase")
        .iter()
        .map(|event| event["phase"].as_str().unwrap_or("").to_owned())
        .collect();
    assert_eq!(
        phases.last().map(String::as_str),
        Some("failed"),
        "{phases:?}"
    );
    stigmer_tests::eventually(
        "the runner is back",
        std::time::Duration::from_secs(20),
        || {
            local.status("/agent_runner/state") == "ready"
                && pid_in(&local.home, "agent-runner.pid").is_some_and(|pid| pid != runner)
        },
    );
    assert_eq!(local.daemon_pid(), daemon);
    assert_eq!(local.status("/agent_runner/restarts"), 1);
    local.model.reply(Reply::text("Here again."));
    let (output, _) = local.run(&["are you there?"]);
    assert!(output.status().success(), "{output}");
}

#[test]
fn nothing_waits_for_a_runner_that_stays_down() {
    let local = Local::started();
    let state = || local.status("/agent_runner/state");
    stigmer_tests::eventually(
        "the runner is given up",
        std::time::Duration::from_secs(60),
        || {
            if state() == "ready"
                && let Some(pid) = pid_in(&local.home, "agent-runner.pid")
            {
                process::signal(pid, Signal::KILL);
            }
            state() == "failed"
        },
    );
    let (output, _) = local.run(&["hello"]);
    assert_eq!(output.status().code(), Some(1), "{output}");
    for part in [
        "no agent runner takes work",
        "signal 9",
        "stigmer local restart",
    ] {
        assert!(output.complaint().contains(part), "no {part:?} in {output}");
    }
    let again = local.stigmer(["local", "start", "--no-input"]).run();
    assert_eq!(again.status().code(), Some(1), "{again}");
    assert!(
        again.complaint().contains("stigmer local restart"),
        "{again}"
    );
    local.stigmer(["local", "restart", "--no-input"]).ok();
    local.model.reply(Reply::text("Here again."));
    let (output, _) = local.run(&["are you there?"]);
    assert!(output.status().success(), "{output}");
}
