//! The provider's key is in memory, and nowhere else.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::json;
use stigmer_tests::fakes::Reply;
use stigmer_tests::{process, skip};

use super::{Local, outputs};

/// Recognised wherever it turns up.
const MARK: &str = "sk-ant-marked-0b5f7e2c9d";

/// Notes everything a command can learn of its surroundings: its own
/// environment, and that of every process it may look at. In a file, because
/// what is printed is masked.
const PRY: &str = "{ env; for p in /proc/[0-9]*; do cat $p/environ $p/cmdline; done; } >found 2>/dev/null; echo pried";

fn files_below(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&path, found),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
}

fn holds(bytes: &[u8]) -> bool {
    bytes
        .windows(MARK.len())
        .any(|window| window == MARK.as_bytes())
}

#[test]
fn a_marked_key_is_in_no_file_log_process_or_answer() {
    let local = Local::with_key(MARK);
    let stigmer = |args: &[&str]| {
        local
            .with_settings(local.home.stigmer(args))
            .env("STIGMER_LOG_LEVEL", "trace")
    };
    // It is in the environment of this one command, as a user would have it.
    let started = stigmer(&["local", "start", "--no-input"])
        .env("ANTHROPIC_API_KEY", MARK)
        .run();
    assert!(started.status().success(), "{started}");
    local
        .model
        .reply(Reply::calls([("execute", json!({ "command": PRY }))]));
    // A provider that repeats the key, as some do in their errors.
    local.model.reply(Reply::error(
        400,
        "invalid_request_error",
        &format!("your key {MARK} may not do that"),
    ));
    let output = stigmer(&["run", "--json", "look around"]).run();
    assert_eq!(output.status().code(), Some(1), "{output}");
    let events = super::events(output.text());
    let pried = outputs(&events);
    assert_eq!(pried, "pried\n");
    let found = fs::read(local.home.work().join("found")).expect("what it found");
    let found = String::from_utf8_lossy(&found).into_owned();
    assert!(
        found.contains("STIGMER_SANDBOX_ID=") && found.contains("agent-runner"),
        "{found}"
    );
    assert!(
        local
            .model
            .requests()
            .iter()
            .any(|request| request.header("x-api-key") == Some(MARK)),
        "the provider got the key"
    );

    let mut said = vec![("start", started), ("run", output)];
    for args in [
        &["local", "status", "--json"][..],
        &["local", "status"],
        &["local", "logs"],
        &["config", "show"],
        &["execution", "list", "--json"],
    ] {
        said.push((args[1], stigmer(args).run()));
    }
    for (what, output) in &said {
        let said = [&output.stdout[..], &output.stderr].concat();
        assert!(!holds(&said), "{what}: {output}");
    }

    let mut files = Vec::new();
    files_below(&local.home.path(""), &mut files);
    assert!(
        files.iter().any(|path| path.ends_with("logs/daemon.log")),
        "{files:?}"
    );
    for path in files {
        assert!(!holds(&fs::read(&path).expect("a file")), "{path:?}");
    }

    let pids = [local.daemon_pid(), local.runner_pid()];
    let mut all = pids.to_vec();
    for pid in pids {
        all.extend(process::descendants(pid).iter().map(|process| process.pid));
    }
    assert!(all.len() > 2, "{all:?}");
    for pid in all {
        for name in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            assert!(!holds(&bytes), "{pid}/{name}");
        }
    }
    for pid in pids {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .expect("a limit");
        let soft = core.split_whitespace().nth(4);
        assert_eq!(soft, Some("0"), "{core}");
        if rustix::process::geteuid().is_root() {
            skip(
                "whether others may look into a holder",
                "/proc does not tell it of root's processes",
            );
        } else {
            // What is not dumpable belongs to root there.
            let owner = fs::metadata(format!("/proc/{pid}/environ"))
                .expect("a process")
                .uid();
            assert_eq!(owner, 0, "{pid} can be dumped");
        }
    }
}
