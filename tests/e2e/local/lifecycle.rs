//! Start, status, restart and stop of a daemon without a runner.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::Signal;
use stigmer_tests::pty::Terminal;
use stigmer_tests::{Home, eventually, process};

use super::{Up, identity, kill, local, nothing_runs, number, status, traces};

#[test]
fn a_daemon_is_started_shown_and_stopped() {
    let home = Home::new();
    let shown = local(&home, ["status"]).run();
    assert_eq!(shown.code(), 1, "{shown}");
    assert_eq!(
        shown.text(),
        "Daemon Status:\n─────────────────────────────────────\n  Status: ✗ Stopped\n\nTo start:\n  stigmer local start\n"
    );
    assert_eq!(status(&home)["status"], "stopped");

    let started = local(&home, ["start", "--port", "0", "--no-agent-runner"]).run();
    assert_eq!(started.code(), 0, "{started}");
    let now = status(&home);
    let (pid, port) = (number(&now["pid"]), now["port"].to_string());
    let data = home.data().display().to_string();
    let block = format!(
        "Starting daemon...\nDaemon started successfully\n  PID:  {pid}\n  Port: {port}\n  Data: {data}\n"
    );
    assert!(started.text().starts_with(&block), "{started}");
    let sandbox = format!("Sandbox: filesystem (root: {})", home.work().display());
    assert!(started.text().contains(&sandbox), "{started}");
    assert!(
        started.complaint().contains("does not confine"),
        "{started}"
    );
    assert!(started.text().contains("stigmer local stop"), "{started}");

    let shown = local(&home, ["status"]).ok();
    let block = format!(
        "Daemon Status:\n─────────────────────────────────────\n  Status: ✓ Running\n  PID:    {pid}\n  Port:   {port}\n  Data:   {data}\n"
    );
    assert!(shown.starts_with(&block), "{shown}");
    assert_eq!(now["sandbox"]["root"], home.work().display().to_string());
    assert_eq!(now["agent_runner"], serde_json::Value::Null);

    let mode = |name: &str| {
        let metadata = fs::metadata(home.data().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode(""), mode("logs")), (0o700, 0o700));
    for file in ["daemon.pid", "logs/daemon.log", "logs/daemon.err"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    // What a terminal sends to whatever is in front of it does not reach it.
    let group = rustix::process::getpgid(rustix::process::Pid::from_raw(pid)).unwrap();
    assert_eq!(group.as_raw_pid(), pid);
    home.stigmer(["sandbox", "list"]).ok();

    let stopped = local(&home, ["stop"]).ok();
    assert_eq!(
        stopped,
        "Stopping daemon...\nSent SIGTERM to daemon\nDaemon stopped successfully\n"
    );
    assert!(process::look(pid).is_none_or(|process| !process.lives()));
    assert_eq!(traces(&home), [""; 0]);
    assert_eq!(local(&home, ["stop"]).ok(), "Daemon is not running\n");
}

#[test]
fn a_daemon_that_runs_as_asked_is_left_alone() {
    let home = Home::new();
    let up = Up::alone(&home);
    let again = ["start", "--no-agent-runner"];
    let said = local(&home, again).ok();
    let block = format!(
        "Daemon is already running\n  PID:  {}\n  Port: {}\n",
        up.pid(),
        up.port()
    );
    assert!(said.starts_with(&block), "{said}");
    let same = local(&home, again).args(["--port", &up.port(), "--sandbox", "filesystem"]);
    let same: serde_json::Value = serde_json::from_str(&same.arg("--json").ok()).unwrap();
    assert_eq!(same["already_running"], true);
    assert_eq!(number(&same["pid"]), up.pid());
    assert_eq!(up.said["already_running"], false);

    let other = local(&home, again)
        .args(["--port", "1", "--root", "/elsewhere"])
        .run();
    other.fails(
        1,
        &format!("port: {} is running, 1 was asked for", up.port()),
    );
    other.fails(1, "/elsewhere was asked for");
    other.fails(1, "stigmer local restart --root /elsewhere --port 1");
    let with = local(&home, ["start", "--no-input"]).run();
    with.fails(1, "agent runner: no is running, yes was asked for");
    with.fails(1, "stigmer local restart --agent-runner");
    let front = local(&home, again).arg("--foreground").run();
    front.fails(1, "in the background");
    assert_eq!(number(&status(&home)["pid"]), up.pid());
}

#[test]
fn starts_at_once_end_with_one_daemon() {
    let home = Home::new();
    let args = ["start", "--port", "0", "--no-agent-runner", "--json"];
    let starts: Vec<_> = (0..5).map(|_| local(&home, args).start()).collect();
    let said: Vec<serde_json::Value> = starts
        .into_iter()
        .map(|start| serde_json::from_str(&start.wait().ok()).unwrap())
        .collect();
    let pid = number(&status(&home)["pid"]);
    assert!(
        said.iter().all(|said| number(&said["pid"]) == pid),
        "{said:?}"
    );
    let started = said.iter().filter(|said| said["already_running"] == false);
    assert_eq!(started.count(), 1, "{said:?}");
    local(&home, ["stop"]).ok();
}

#[test]
fn a_restart_keeps_what_it_does_not_change() {
    let home = Home::new();
    let root = home.path("elsewhere").display().to_string();
    let up = Up::by(
        local(&home, ["start", "--json", "--port", "0"])
            .args(["--no-agent-runner", "--root", &root])
            .without_env("SANDBOX_ROOT_DIR"),
        &home,
    );
    let said = local(&home, ["restart"])
        .without_env("SANDBOX_ROOT_DIR")
        .ok();
    let now = status(&home);
    assert!(
        said.starts_with("Stopping daemon...\nSent SIGTERM to daemon\nDaemon stopped successfully\nStarting daemon...\nDaemon started successfully\n"),
        "{said}"
    );
    assert!(said.ends_with("Daemon restarted successfully\n"), "{said}");
    assert_ne!(now["pid"], up.said["pid"]);
    assert_eq!(now["port"], up.said["port"]);
    assert_eq!(now["sandbox"]["root"], root);
    assert_eq!(now["agent_runner"], serde_json::Value::Null);

    // What the environment says counts again, as do flags.
    local(&home, ["restart", "--port", "0"]).ok();
    let now = status(&home);
    assert_eq!(now["sandbox"]["root"], home.work().display().to_string());
}

#[test]
fn a_restart_without_a_daemon_starts_one() {
    let home = Home::new();
    let said = local(&home, ["restart", "--port", "0", "--no-agent-runner"]).ok();
    assert!(said.starts_with("Daemon is not running\nStarting daemon...\n"));
    local(&home, ["stop"]).ok();
}

#[test]
fn a_daemon_that_was_killed_is_started_again() {
    let home = Home::new();
    let up = Up::alone(&home);
    home.stigmer(["sandbox", "create", "box"]).ok();
    kill(up.pid());
    assert_eq!(traces(&home), ["daemon.pid", "stigmer.sock"]);
    let shown = local(&home, ["status"]).run();
    assert_eq!(shown.code(), 1);
    let said = format!("process {}, was killed", up.pid());
    assert!(shown.text().contains(&said), "{shown}");
    let again = Up::alone(&home);
    assert_eq!(again.said["already_running"], false);
    assert!(home.stigmer(["sandbox", "list"]).ok().contains("box"));
    kill(again.pid());
    assert_eq!(local(&home, ["stop"]).ok(), "Daemon is not running\n");
    assert_eq!(traces(&home), [""; 0], "what it left is tidied");
}

#[test]
fn a_number_that_was_given_to_another_is_never_signalled() {
    let home = Home::new();
    let mut other = home.command("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(other.id()).unwrap();
    let said = identity(pid);
    let lines: Vec<&str> = said.lines().collect();
    let earlier = lines[1].parse::<u64>().unwrap() - 1;
    let boot = "00000000-0000-4000-8000-000000000000";
    for stale in [
        format!("{pid}\n{earlier}\n{}\n", lines[2]),
        format!("{pid}\n{}\n{boot}\n", lines[1]),
        format!("{pid}\n"),
        "nonsense".to_owned(),
    ] {
        for file in ["data/daemon.pid", "data/agent-runner.pid"] {
            home.write(file, &stale);
        }
        let stopped = local(&home, ["stop"]).ok();
        assert_eq!(stopped, "Daemon is not running\n", "{stale:?}");
        let up = Up::alone(&home);
        assert_ne!(up.pid(), pid);
        drop(up);
        assert!(process::look(pid).is_some_and(|process| process.lives()));
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_runner_without_a_daemon_is_ended_alone() {
    let home = Home::new();
    let mut orphan = home.command("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(orphan.id()).unwrap();
    home.write("data/agent-runner.pid", identity(pid));
    let shown = local(&home, ["status"]).run();
    assert!(shown.text().contains(&format!("process {pid}, still runs")));
    assert_eq!(
        local(&home, ["stop"]).ok(),
        "Sent SIGTERM to agent-runner\nAgent-runner stopped successfully\nDaemon is not running\n"
    );
    assert!(!orphan.wait().unwrap().success());
}

#[test]
fn a_daemon_whose_pid_file_was_removed_is_found_by_its_socket() {
    let home = Home::new();
    let up = Up::alone(&home);
    fs::remove_file(home.data().join("daemon.pid")).unwrap();
    let stopped = local(&home, ["stop", "--json"]).ok();
    let stopped: serde_json::Value = serde_json::from_str(&stopped).unwrap();
    assert_eq!(number(&stopped["daemon"]["pid"]), up.pid());
    assert_eq!(stopped["daemon"]["killed"], false);
    nothing_runs(&home);
}

#[test]
fn commands_end_with_the_daemon() {
    let home = Home::new();
    let up = Up::alone(&home);
    home.stigmer(["sandbox", "create", "box"]).ok();
    let script = "setsid -f sleep 1000; echo ready >ready; sleep 1000";
    home.stigmer(["sandbox", "exec", "-d", "box", "--", script])
        .ok();
    eventually("the command runs", Duration::from_secs(10), || {
        home.stigmer(["sandbox", "ls", "box"])
            .ok()
            .contains("ready")
    });
    drop(up);
    assert_eq!(home.processes(), [], "right after the answer");
}

#[test]
fn one_in_the_foreground_ends_with_whoever_started_it() {
    let home = Home::new();
    let args = ["start", "--foreground", "--port", "0", "--no-agent-runner"];
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let running = local(&home, args).start();
        running.prints("Daemon started successfully");
        assert_eq!(status(&home)["status"], "running");
        running.signal(signal);
        let output = running.wait();
        assert_eq!(output.code(), 0, "{output}");
        assert!(output.complaint().contains("serving"), "{output}");
        nothing_runs(&home);
        assert_eq!(traces(&home), [""; 0]);
    }
    let running = local(&home, args).start();
    running.prints("Daemon started successfully");
    kill(number(&status(&home)["pid"]));
    running.wait().fails(1, "the daemon ended with signal: 9");
}

#[test]
fn a_ctrl_c_is_for_the_one_in_the_foreground() {
    let home = Home::new();
    let args = [
        "local",
        "start",
        "--foreground",
        "--port",
        "0",
        "--no-agent-runner",
    ];
    let mut terminal = Terminal::start(&home, &args, 100, 40);
    terminal.shows("Daemon started successfully");
    terminal.types("\x03");
    assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.screen());
    nothing_runs(&home);
}

#[test]
fn a_window_that_is_closed_leaves_the_daemon_alone() {
    let home = Home::new();
    let args = ["local", "start", "--port", "0", "--no-agent-runner"];
    let mut terminal = Terminal::start(&home, &args, 100, 40);
    assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.screen());
    drop(terminal);
    assert_eq!(status(&home)["status"], "running");
    local(&home, ["stop"]).ok();
}

#[test]
fn a_key_of_the_environment_is_in_no_process_and_no_file() {
    const KEY: &str = "sk-mark-4711";
    let home = Home::new();
    let up = Up::by(
        local(&home, ["start", "--port", "0", "--no-agent-runner"])
            .args(["--json", "--log-level", "trace"])
            .env("ANTHROPIC_API_KEY", KEY)
            .env("DAYTONA_API_KEY", KEY),
        &home,
    );
    home.stigmer(["sandbox", "create", "box"]).ok();
    let seen = home.stigmer(["sandbox", "exec", "box", "--", "env"]).run();
    assert!(!seen.text().contains(KEY), "{seen}");
    let holds = |bytes: &[u8]| bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes());
    let mut processes = process::descendants(up.pid());
    processes.extend(process::look(up.pid()));
    for process in processes {
        for name in ["environ", "cmdline"] {
            let path = format!("/proc/{}/{name}", process.pid);
            // Of a process that has ended meanwhile there is nothing to see.
            let bytes = fs::read(path).unwrap_or_default();
            assert!(!holds(&bytes), "{name} of {process:?}");
        }
    }
    for entry in home.data_entries() {
        let path = home.data().join(&entry);
        if path.is_file() {
            assert!(!holds(&fs::read(path).unwrap()), "{entry}");
        }
    }
}
