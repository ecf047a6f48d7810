//! The whole story, with nothing but the binary and a model's API: start with
//! a key typed at a terminal, look, let the agent work until its program runs,
//! read the logs, stop.

use std::fs;

use serde_json::json;
use stigmer_tests::fakes::Reply;
use stigmer_tests::process;

use super::{KEY, Local, events, of_type};

const TASK: &str = "make a file hello.py that prints the primes below 50, run it, fix what fails";

const WRONG: &str =
    "for n in range(2, 50):\n    if all(n % d for d in range(2, n):\n        print(n)\n";
const PRIMES: &str = "2\n3\n5\n7\n11\n13\n17\n19\n23\n29\n31\n37\n41\n43\n47\n";

fn script(local: &Local) {
    let model = &local.model;
    model.reply(
        Reply::calls([(
            "write_file",
            json!({ "path": "hello.py", "content": WRONG }),
        )])
        .with_text("I write the program."),
    );
    let run = || Reply::calls([("execute", json!({ "command": "python3 hello.py" }))]);
    model.reply(run());
    model.reply(
        Reply::calls([(
            "edit_file",
            json!({ "path": "hello.py", "old_text": "range(2, n):", "new_text": "range(2, n)):" }),
        )])
        .with_text("A bracket is missing."),
    );
    model.reply(run());
    model.reply(Reply::text("It prints the primes below 50."));
}

#[test]
fn from_a_prompt_for_the_key_to_primes_below_fifty() {
    let local = Local::new();
    script(&local);

    let mut person = local.at_terminal(&["local", "start"], None);
    person.shows("Enter Anthropic API key: ");
    assert!(!person.echoes(), "the key would be seen");
    person.types(&format!("{KEY}\r"));
    person.shows("✓ Anthropic API key configured");
    person.shows("Agent-runner started successfully");
    assert!(person.wait().success(), "{}", person.screen());
    assert!(!person.screen().contains(KEY), "{}", person.screen());
    assert!(person.echoes(), "the terminal is as it was");

    let status = local.home.stigmer(["local", "status"]).ok();
    for part in ["✓ Running", "filesystem", "anthropic"] {
        assert!(status.contains(part), "no {part} in {status}");
    }

    // No key is set here: the runner has it.
    let output = local.home.stigmer(["run", "--json", TASK]).run();
    assert!(output.status().success(), "{output}");
    let events = events(output.text());
    let tools: Vec<_> = of_type(&events, "tool_call")
        .into_iter()
        .filter(|event| ["completed", "failed"].contains(&event["status"].as_str().unwrap_or("")))
        .map(|event| (event["name"].clone(), event["exit_code"].clone()))
        .collect();
    assert_eq!(
        json!(tools),
        json!([
            ["write_file", null],
            ["execute", 1],
            ["edit_file", null],
            ["execute", 0]
        ])
    );
    let shown: String = of_type(&events, "tool_output")
        .iter()
        .filter(|event| event["stream"] == "stdout")
        .filter_map(|event| event["data"].as_str())
        .collect();
    assert_eq!(shown, PRIMES);
    let made = fs::read_to_string(local.home.work().join("hello.py")).expect("the file");
    assert_eq!(made, WRONG.replace("n):\n        ", "n)):\n        "));

    // The model saw the error that it then fixed.
    let requests = local.model.requests();
    let third = requests[2].body.to_string();
    assert!(third.contains("SyntaxError"), "{third}");
    let offered = requests[0].tools();
    for tool in [
        "execute",
        "read_file",
        "write_file",
        "edit_file",
        "ls",
        "glob",
        "grep",
        "delete",
        "write_todos",
    ] {
        assert!(
            offered.iter().any(|name| name == tool),
            "{tool} is not in {offered:?}"
        );
    }

    let logs = local.home.stigmer(["local", "logs"]).ok();
    assert!(logs.contains("serving"), "{logs}");

    let pids = [local.daemon_pid(), local.runner_pid()];
    let mut below: Vec<_> = pids.into_iter().flat_map(process::descendants).collect();
    below.extend(pids.into_iter().filter_map(process::look));
    let stopped = local.home.stigmer(["local", "stop"]).ok();
    assert!(stopped.contains("Daemon stopped successfully"), "{stopped}");
    process::all_end("what was started", &below);
    assert!(local.home.processes().is_empty());
}

/// What a person sees who runs it from a script or a terminal: the answer on
/// stdout, what was done on stderr.
#[test]
fn what_is_printed_reads_well_when_piped() {
    let local = Local::started();
    script(&local);
    let output = local.stigmer(["run", TASK]).run();
    assert!(output.status().success(), "{output}");
    let text = output.text();
    assert!(
        text.trim_end().ends_with("It prints the primes below 50."),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
    let told = String::from_utf8_lossy(&output.stderr);
    for part in [
        "write_file",
        "hello.py",
        "python3 hello.py",
        "SyntaxError",
        "47",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
}
