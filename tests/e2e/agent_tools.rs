//! The tools of an agent, in a real sandbox behind a real daemon.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use stigmer_agent::daemon::Daemon as Connection;
use stigmer_agent::mask::Mask;
use stigmer_agent::model::Key;
use stigmer_agent::sandbox::Sandbox;
use stigmer_agent::tools::{Outcome, Toolbox};
use stigmer_sdk::wire::agent::file_change::Kind;
use stigmer_sdk::wire::host;
use stigmer_tests::{Daemon, Home, note};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, LOCAL_KEY};

/// Tools in a sandbox of their own. The fields end in this order.
struct Bench {
    tools: Toolbox,
    workspace: PathBuf,
    daemon: Daemon,
    home: Home,
}

impl Bench {
    async fn new() -> Self {
        let home = Home::new();
        let daemon = home.daemon();
        let client = Client::connect(&daemon).await;
        let id = client.create("box").await;
        let request = host::GetSandboxRequest {
            sandbox_id: id.clone(),
        };
        let answer = client.sandboxes().get(request).await.expect("a sandbox");
        let workspace = answer.into_inner().sandbox.expect("a sandbox").workspace;
        let endpoint = format!("unix:{}", daemon.socket().display());
        let connection = Connection::connect(&endpoint, &Key::new(LOCAL_KEY)).await;
        let sandbox = Sandbox::open(connection.expect("a daemon"), &id).await;
        let env = [("TOKEN", "hunter2-secret"), ("PLAIN", "plain")];
        let env: HashMap<_, _> = env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let mask = Arc::new(Mask::new(["hunter2-secret"]));
        let tools = Toolbox::new(sandbox.expect("a sandbox"), &[], env, mask);
        Self {
            tools: tools.expect("tools"),
            workspace: workspace.into(),
            daemon,
            home,
        }
    }

    async fn call(&self, name: &str, arguments: Value) -> Outcome {
        let stop = CancellationToken::new();
        self.call_with(name, arguments, &|_, _| {}, &stop).await
    }

    async fn call_with(
        &self,
        name: &str,
        arguments: Value,
        live: &(dyn Fn(Bytes, bool) + Send + Sync),
        stop: &CancellationToken,
    ) -> Outcome {
        let action = self.tools.parse(name, &arguments.to_string());
        let action = action.expect("a call that makes sense");
        self.tools.run("call-1", &action, live, stop).await
    }

    /// A call that goes well, and what the model reads of it.
    async fn ok(&self, name: &str, arguments: Value) -> String {
        let outcome = self.call(name, arguments).await;
        assert!(!outcome.failed, "{outcome:?}");
        outcome.content
    }

    /// One that fails, and what the model reads of that.
    async fn fails(&self, name: &str, arguments: Value) -> String {
        let outcome = self.call(name, arguments).await;
        assert!(outcome.failed, "{outcome:?}");
        outcome.content
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.workspace.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.workspace.join(path)).ok()
    }

    /// Ends the daemon, off the threads of the test.
    async fn end(self) {
        let stop = move || {
            let Self { daemon, home, .. } = self;
            daemon.stop();
            drop(home);
        };
        tokio::task::spawn_blocking(stop).await.expect("an end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gives_its_output_and_its_exit_code() {
    let bench = Bench::new().await;
    let outcome = bench
        .call(
            "execute",
            json!({"command": "echo out; echo err >&2; echo $PLAIN; exit 3"}),
        )
        .await;
    assert_eq!((outcome.exit_code, outcome.failed), (Some(3), false));
    for line in ["out\n", "err\n", "plain\n", "[exit code 3]"] {
        assert!(outcome.content.contains(line), "{outcome:?}");
    }
    bench.write("sub/file", "");
    let content = bench
        .ok("execute", json!({"command": "pwd; ls", "cwd": "sub"}))
        .await;
    assert!(content.ends_with("/sub\nfile\n[exit code 0]"), "{content}");
    let content = bench.ok("execute", json!({"command": "true"})).await;
    assert_eq!(content, "[no output]\n[exit code 0]");
    let content = bench.ok("execute", json!({"command": "kill -9 $$"})).await;
    assert!(
        content.ends_with("[killed by signal 9; exit code 137]"),
        "{content}"
    );
    let outcome = bench
        .call(
            "execute",
            json!({"command": "echo before; sleep 100", "timeout_seconds": 1}),
        )
        .await;
    assert_eq!(outcome.exit_code, Some(124));
    assert!(
        outcome.content.starts_with("before\n[timed out after 1 s"),
        "{outcome:?}"
    );
    let content = bench
        .fails("execute", json!({"command": "true", "timeout_seconds": 0}))
        .await;
    assert!(content.contains("must be from 1 to 86400"), "{content}");
    let content = bench
        .fails("execute", json!({"command": "true", "cwd": "nowhere"}))
        .await;
    assert!(content.contains("nowhere"), "{content}");
    // What fits into the result leaves no file, and the place is git's business
    // no more.
    assert_eq!(bench.read(".stigmer/output/call-1.txt"), None);
    assert_eq!(bench.read(".stigmer/.gitignore").as_deref(), Some("*\n"));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_commands_and_nobody_else() {
    let bench = Bench::new().await;
    let seen = Mutex::new(Vec::new());
    let live = |bytes: Bytes, _| seen.lock().unwrap().extend_from_slice(&bytes);
    // In two pieces, with time between them for either to be passed on.
    let command =
        "printf %s \"$TOKEN\" >file; printf '<hunter2-'; sleep 0.2; printf 'secret>'; cat file >&2";
    let outcome = bench
        .call_with(
            "execute",
            json!({"command": command}),
            &live,
            &CancellationToken::new(),
        )
        .await;
    assert_eq!(bench.read("file").as_deref(), Some("hunter2-secret"));
    assert!(outcome.content.contains("<***>"), "{outcome:?}");
    assert!(!outcome.content.contains("hunter2"), "{outcome:?}");
    let seen = String::from_utf8(seen.into_inner().unwrap()).unwrap();
    assert!(seen.contains("<***>") && !seen.contains("secret"), "{seen}");
    let content = bench.ok("read_file", json!({"path": "file"})).await;
    assert_eq!(content, "     1\t***\n");
    let outcome = bench
        .call(
            "edit_file",
            json!({"path": "file", "old_text": "hunter2", "new_text": "hunter3"}),
        )
        .await;
    assert!(
        !outcome.changes[0].diff.contains("hunter2-secret"),
        "{outcome:?}"
    );
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_output_is_cut_and_kept_whole_in_a_file() {
    let bench = Bench::new().await;
    let live = Mutex::new(0);
    let count = |bytes: Bytes, _| *live.lock().unwrap() += bytes.len();
    let outcome = bench
        .call_with(
            "execute",
            json!({"command": "seq 100000; exit 1"}),
            &count,
            &CancellationToken::new(),
        )
        .await;
    assert_eq!(*live.lock().unwrap(), 64 * 1024);
    let content = &outcome.content;
    assert!(content.starts_with("1\n2\n") && content.ends_with("99999\n100000\n[exit code 1]"));
    assert!(content.len() < 31_000, "{}", content.len());
    assert!(
        content.contains("all of it is in .stigmer/output/call-1.txt]"),
        "{content}"
    );
    let whole: String = (1..=100_000).map(|line| format!("{line}\n")).collect();
    assert!(bench.read(".stigmer/output/call-1.txt").as_deref() == Some(&whole));
    let content = bench
        .ok(
            "read_file",
            json!({"path": ".stigmer/output/call-1.txt", "offset": 50_000, "limit": 1}),
        )
        .await;
    assert!(content.starts_with(" 50000\t50000\n"), "{content}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_the_whole_tree_within_a_second() {
    let bench = Bench::new().await;
    for deaf in ["", "trap '' TERM INT HUP; "] {
        let script = format!(
            "{deaf}setsid sleep 4321 & (sleep 4321 &) ; nohup sleep 4321 >/dev/null 2>&1 & echo begun; sleep 4321; sleep 4321"
        );
        let stop = CancellationToken::new();
        let begun = Mutex::new(None);
        let live = |bytes: Bytes, _| {
            if bytes.starts_with(b"begun") {
                *begun.lock().unwrap() = Some(Instant::now());
                stop.cancel();
            }
        };
        let outcome = bench
            .call_with("execute", json!({"command": script}), &live, &stop)
            .await;
        let took = begun.into_inner().unwrap().expect("it began").elapsed();
        let left: Vec<_> = bench
            .home
            .processes()
            .into_iter()
            .filter(|process| process.command.contains("4321"))
            .collect();
        assert!(left.is_empty(), "right after the answer: {left:#?}");
        assert!(
            outcome.failed && outcome.content.starts_with("begun\n[stopped"),
            "{outcome:?}"
        );
        assert!(took < Duration::from_secs(1), "{took:?}");
        note(&format!("stopped after {took:?}"));
    }
    // Stopped before it began, it does not begin.
    let stop = CancellationToken::new();
    stop.cancel();
    let outcome = bench
        .call_with(
            "execute",
            json!({"command": "sleep 1; touch ran"}),
            &|_, _| {},
            &stop,
        )
        .await;
    assert!(outcome.failed, "{outcome:?}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_call_is_dropped_ends() {
    let bench = Bench::new().await;
    let running = bench.call(
        "execute",
        json!({"command": "echo $$ >pid; exec sleep 4321"}),
    );
    let begun = async {
        while bench.read("pid").is_none_or(|pid| pid.is_empty()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        outcome = running => panic!("{outcome:?}"),
        () = begun => {}
    }
    let alive = || {
        let all = bench.home.processes();
        all.iter().any(|process| process.command.contains("4321"))
    };
    let limit = Instant::now() + Duration::from_secs(10);
    while alive() {
        assert!(Instant::now() < limit, "it goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_process_can_be_looked_at_and_stopped() {
    let bench = Bench::new().await;
    let started = bench
        .ok(
            "execute",
            json!({"command": "echo hunter2-secret; sleep 4321", "background": true}),
        )
        .await;
    let id = started
        .strip_prefix("started as process ")
        .and_then(|rest| rest.split(';').next())
        .expect("an id")
        .to_owned();
    let process = |more: Value| {
        let mut arguments = json!({"process_id": id});
        for (name, value) in more.as_object().expect("an object") {
            arguments[name] = value.clone();
        }
        bench.ok("process", arguments)
    };
    let limit = Instant::now() + Duration::from_secs(10);
    let seen = loop {
        let seen = process(json!({"action": "output"})).await;
        if seen.contains("***") {
            break seen;
        }
        assert!(Instant::now() < limit, "{seen}");
    };
    assert_eq!(seen, "***\n[it runs; go on with offset 15]");
    let seen = process(json!({"action": "output", "offset": 15, "wait_seconds": 0})).await;
    assert_eq!(seen, "[no new output]\n[it runs; go on with offset 15]");
    let stopped = process(json!({"action": "stop"})).await;
    assert_eq!(stopped, "it has ended with exit code 143");
    let seen = process(json!({"action": "output", "offset": 15})).await;
    assert_eq!(
        seen,
        "[no new output]\n[it ended with exit code 143; go on with offset 15]"
    );
    let problem = bench
        .fails("process", json!({"process_id": "none", "action": "stop"}))
        .await;
    assert!(problem.contains("it may have ended long ago"), "{problem}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_edited_and_deleted_with_their_diffs() {
    let bench = Bench::new().await;
    let outcome = bench
        .call(
            "write_file",
            json!({"path": "./src/a.txt", "content": "one\ntwo\nthree\n"}),
        )
        .await;
    assert_eq!(outcome.content, "created src/a.txt (14 bytes)");
    let change = &outcome.changes[0];
    assert_eq!(
        (change.path.as_str(), change.kind()),
        ("src/a.txt", Kind::Created)
    );
    assert_eq!((change.added, change.removed), (3, 0));
    assert_eq!(change.diff, "@@ -0,0 +1,3 @@\n+one\n+two\n+three\n");

    let edit = json!({"path": "src/a.txt", "old_text": "two", "new_text": "2"});
    let outcome = bench.call("edit_file", edit).await;
    assert_eq!(outcome.content, "changed 1 place in src/a.txt");
    assert_eq!(outcome.changes[0].kind(), Kind::Changed);
    assert_eq!(
        outcome.changes[0].diff,
        "@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
    );
    assert_eq!(bench.read("src/a.txt").as_deref(), Some("one\n2\nthree\n"));

    let edit = |old: &str, all: bool| json!({"path": "src/a.txt", "old_text": old, "new_text": "E", "replace_all": all});
    let problem = bench.fails("edit_file", edit("four", false)).await;
    assert!(problem.contains("without line numbers"), "{problem}");
    let problem = bench.fails("edit_file", edit("e", false)).await;
    assert!(
        problem.contains("3 places") && problem.contains("replace_all"),
        "{problem}"
    );
    let done = bench.ok("edit_file", edit("e", true)).await;
    assert_eq!(done, "changed 3 places in src/a.txt");
    let problem = bench.fails("edit_file", edit("", false)).await;
    assert!(problem.contains("empty"), "{problem}");

    bench.write("crlf.txt", "a\r\nb\r\n");
    let edit = json!({"path": "crlf.txt", "old_text": "a\nb", "new_text": "a\nB"});
    bench.ok("edit_file", edit).await;
    assert_eq!(bench.read("crlf.txt").as_deref(), Some("a\r\nB\r\n"));

    let problem = bench
        .fails("write_file", json!({"path": "../out", "content": ""}))
        .await;
    assert!(problem.contains("paths lie in the workspace"), "{problem}");
    bench.write("bin", b"\xff\x00");
    let outcome = bench
        .call("write_file", json!({"path": "bin", "content": "x"}))
        .await;
    assert_eq!(
        (outcome.changes[0].kind(), outcome.changes[0].diff.as_str()),
        (Kind::Changed, "")
    );

    let problem = bench.fails("delete", json!({"path": "src"})).await;
    assert!(problem.contains("set `recursive`"), "{problem}");
    let outcome = bench.call("delete", json!({"path": "src/a.txt"})).await;
    assert_eq!(outcome.changes[0].kind(), Kind::Deleted);
    assert_eq!(outcome.changes[0].removed, 3);
    bench
        .ok("delete", json!({"path": "src", "recursive": true}))
        .await;
    assert!(!bench.workspace.join("src").exists());
    let problem = bench.fails("delete", json!({"path": "src"})).await;
    assert!(problem.contains("look for it"), "{problem}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_in_parts() {
    let bench = Bench::new().await;
    let lines: String = (1..=5000).map(|line| format!("line {line}\n")).collect();
    bench.write("long.txt", lines);
    let content = bench.ok("read_file", json!({"path": "long.txt"})).await;
    assert!(content.starts_with("     1\tline 1\n"), "{content}");
    assert!(
        content.contains("[lines 1 to 2000 of 5000; go on with offset 2001]"),
        "{content}"
    );
    let content = bench
        .ok("read_file", json!({"path": "long.txt", "offset": 5000}))
        .await;
    assert_eq!(content, "  5000\tline 5000\n");
    let problem = bench
        .fails("read_file", json!({"path": "long.txt", "offset": 5002}))
        .await;
    assert_eq!(
        problem,
        "long.txt has 5000 lines, and line 5002 is past the end"
    );
    bench.write("empty", "");
    assert_eq!(
        bench.ok("read_file", json!({"path": "empty"})).await,
        "[the file is empty]"
    );
    bench.write("bin", b"\xff\xfe\x00\x01");
    let problem = bench.fails("read_file", json!({"path": "bin"})).await;
    assert!(problem.contains("it is no UTF-8 text"), "{problem}");
    let problem = bench.fails("read_file", json!({"path": "."})).await;
    assert!(problem.contains("use `ls`"), "{problem}");
    let problem = bench.fails("read_file", json!({"path": "none"})).await;
    assert!(
        problem.contains("none:") && problem.contains("look for it"),
        "{problem}"
    );
    bench.write("wide", "x".repeat(1_000_000));
    let content = bench.ok("read_file", json!({"path": "wide"})).await;
    assert!(
        content.contains("bytes more]") && content.contains("too long to be shown"),
        "{}",
        content.len()
    );
    assert!(content.len() < 3000, "{}", content.len());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_bounded_and_say_so() {
    let bench = Bench::new().await;
    for number in 0..600 {
        bench.write(&format!("many/{number:03}.txt"), "needle\n");
    }
    bench.write("src/a.rs", "fn a() {}\nfn needle(x) {}\n");
    bench.write(".gitignore", "ignored\n");
    bench.write("ignored/b.rs", "needle");
    let content = bench.ok("ls", json!({})).await;
    assert_eq!(content, ".gitignore  8 bytes\nignored/\nmany/\nsrc/\n");
    let content = bench.ok("ls", json!({"path": "src"})).await;
    assert_eq!(content, "a.rs  26 bytes\n");
    assert_eq!(
        bench.ok("glob", json!({"pattern": "*.rs"})).await,
        "src/a.rs\n"
    );
    let all = json!({"pattern": "*.rs", "include_ignored": true});
    assert_eq!(bench.ok("glob", all).await, "ignored/b.rs\nsrc/a.rs\n");
    assert_eq!(
        bench.ok("glob", json!({"pattern": "*.py"})).await,
        "[no file matches]\n"
    );
    let content = bench.ok("glob", json!({"pattern": "*.txt"})).await;
    assert!(content.ends_with("[there are more results than these; use a narrower pattern]\n"));
    assert_eq!(content.lines().count(), 501);
    let content = bench
        .ok(
            "grep",
            json!({"pattern": "needle\\(", "path": "src", "context": 1}),
        )
        .await;
    assert_eq!(
        content,
        "src/a.rs-1-fn a() {}\nsrc/a.rs:2:fn needle(x) {}\n--\n"
    );
    let content = bench
        .ok("grep", json!({"pattern": "needle", "glob": "*.txt"}))
        .await;
    assert!(
        content.contains("there are more results than these"),
        "{content}"
    );
    let problem = bench.fails("grep", json!({"pattern": "needle("})).await;
    assert!(problem.contains("set `literal`"), "{problem}");
    let content = bench
        .ok("grep", json!({"pattern": "needle(", "literal": true}))
        .await;
    assert_eq!(content, "src/a.rs:2:fn needle(x) {}\n");
    assert_eq!(
        bench.ok("grep", json!({"pattern": "absent"})).await,
        "[no line matches]\n"
    );
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_run_at_the_same_time() {
    let bench = Bench::new().await;
    // Each waits for what the other does.
    let one = bench.ok(
        "execute",
        json!({"command": "touch one; until test -e two; do sleep 0.01; done"}),
    );
    let two = bench.ok(
        "execute",
        json!({"command": "touch two; until test -e one; do sleep 0.01; done"}),
    );
    tokio::join!(one, two);
    bench.end().await;
}
