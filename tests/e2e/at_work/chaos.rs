//! Kills at random: the daemon, the runner, the person's own command, the
//! model's API, in any phase. Every execution ends in a truthful phase, its
//! events are numbered without a gap, and no process is left.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use stigmer_tests::fakes::Reply;
use stigmer_tests::{eventually, note, process};

use super::{Local, events, pid_in};
use crate::kill_loop::{Random, setting};

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Daemon,
    Runner,
    Person,
    Model,
}

const VICTIMS: [Victim; 4] = [
    Victim::Daemon,
    Victim::Runner,
    Victim::Person,
    Victim::Model,
];

#[test]
fn whoever_is_killed_every_execution_ends_truthfully() {
    let repeat = setting("STIGMER_TEST_REPEAT_AGENT").unwrap_or(15);
    let seed = setting("STIGMER_TEST_SEED").unwrap_or_else(crate::kill_loop::seed);
    note(&format!(
        "STIGMER_TEST_SEED={seed} STIGMER_TEST_REPEAT_AGENT={repeat}"
    ));
    let mut random = Random(seed);
    let local = Local::started();
    // Six turns of files and commands, then the end.
    local.model.on_request(|request| {
        let turn = request.turn();
        match turn {
            6.. => Reply::text("That is all of it."),
            n if n % 2 == 0 => Reply::calls([(
                "execute",
                json!({ "command": format!("echo {turn}; sleep 0.05; setsid sleep 0.2 &") }),
            )])
            .with_text("I run it."),
            _ => Reply::calls([(
                "write_file",
                json!({ "path": "counted", "content": turn.to_string() }),
            )]),
        }
    });
    for round in 0..repeat {
        let victim = VICTIMS[random.below(4) as usize];
        let person = local.stigmer(["run", "--json", "count"]).start();
        // The moment is the point here: from before the first request to long
        // after the last.
        std::thread::sleep(Duration::from_micros(random.below(600_000)));
        match victim {
            Victim::Daemon => {
                if let Some(pid) = pid_in(&local.home, "daemon.pid") {
                    process::signal(pid, Signal::KILL);
                }
            }
            Victim::Runner => {
                if let Some(pid) = pid_in(&local.home, "agent-runner.pid") {
                    process::signal(pid, Signal::KILL);
                }
            }
            Victim::Person => person.signal(Signal::KILL),
            Victim::Model => local.model.hang_up(),
        }
        // Some got their end, the others an error; none hangs.
        let seen = person.wait();
        let context = format!("round {round}, {victim:?}: {seen}");
        // It fails, and says so, if the runner stays down.
        let _either = local.stigmer(["local", "start", "--no-input"]).run();
        eventually(
            &format!("{context}: nothing is at work"),
            Duration::from_secs(30),
            || open(&local).is_empty(),
        );
        for execution in listed(&local) {
            let id = execution["execution_id"].as_str().expect("an id");
            numbered(&local, id, &context);
        }
        // What the person saw is what is recorded, as far as it goes.
        let shown = events(&whole_lines(seen.text()));
        if let Some(id) = shown
            .first()
            .and_then(|first| first["execution_id"].as_str())
        {
            let recorded = followed(&local, id);
            let of = |events: &[Value]| -> Vec<Value> {
                events
                    .iter()
                    .filter(|event| event["seq"].is_u64())
                    .cloned()
                    .collect()
            };
            let (shown, recorded) = (of(&shown), of(&recorded));
            assert!(recorded.starts_with(&shown), "{context}");
        }
        if local.status("/agent_runner/state") == "failed" {
            // Killed too often in a minute, it stays down until somebody acts.
            local.stigmer(["local", "restart", "--no-input"]).ok();
        }
        eventually(
            &format!("{context}: a runner"),
            Duration::from_secs(30),
            || local.status("/agent_runner/state") == "ready",
        );
        let (daemon, runner) = (local.daemon_pid(), local.runner_pid());
        eventually(
            &format!("{context}: no process survives"),
            Duration::from_secs(15),
            || {
                local.home.processes().iter().all(|process| {
                    process.pid == daemon
                        || process.pid == runner
                        || below(daemon, process.pid)
                        || below(runner, process.pid)
                })
            },
        );
    }
}

fn below(root: i32, pid: i32) -> bool {
    // Idle processes of the sandbox are the daemon's; a command's are not.
    process::descendants(root)
        .iter()
        .any(|process| process.pid == pid && !process.command.contains("sleep"))
}

/// A process that is killed may leave half a line.
fn whole_lines(text: &str) -> String {
    text.rfind('\n').map_or("", |end| &text[..=end]).to_owned()
}

fn listed(local: &Local) -> Vec<Value> {
    let text = local
        .stigmer(["execution", "list", "--json", "--limit", "1000"])
        .ok();
    let value: Value = serde_json::from_str(&text).expect("JSON");
    value.as_array().expect("a list").clone()
}

fn open(local: &Local) -> Vec<Value> {
    listed(local)
        .into_iter()
        .filter(|execution| {
            let phase = execution["phase"].as_str().unwrap_or("");
            !["completed", "failed", "cancelled"].contains(&phase)
        })
        .collect()
}

fn followed(local: &Local, id: &str) -> Vec<Value> {
    let output = local.stigmer(["execution", "follow", "--json", id]).run();
    events(output.text())
}

/// Its events are 1, 2, 3 and so on, and the last brings the final phase.
#[track_caller]
fn numbered(local: &Local, id: &str, context: &str) {
    let events = followed(local, id);
    let numbers: Vec<u64> = events
        .iter()
        .filter_map(|event| event["seq"].as_u64())
        .collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "{context}: {id}");
    let last = events
        .iter()
        .rfind(|event| event["seq"].is_u64())
        .unwrap_or_else(|| panic!("{context}: {id} has no events"));
    assert_eq!(last["type"], "phase", "{context}: {id}: {last}");
    let phase = last["phase"].as_str().unwrap_or("");
    assert!(
        ["completed", "failed", "cancelled"].contains(&phase),
        "{context}: {id}: {last}"
    );
}
