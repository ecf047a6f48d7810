//! `stigmer local`: the daemon in the background.
//!
//! | module | shows |
//! | --- | --- |
//! | `lifecycle` | start, status, restart, stop: alone, at once, after kills |
//! | `runner` | the same with an agent runner |
//! | `refusals` | what cannot be started, says why and leaves nothing |
//! | `prompt` | the key that is asked for, and the terminal that is given back |
//! | `logs` | logs, merged and followed |
//! | `full_disk` | a data directory without room |

mod full_disk;
mod lifecycle;
mod logs;
mod prompt;
mod refusals;
mod runner;

use std::fs;
use std::time::Duration;

use serde_json::Value;
use stigmer_tests::{Cli, Home, eventually, process};

/// A run of `stigmer local`.
fn local<'a>(home: &Home, args: impl IntoIterator<Item = &'a str>) -> Cli {
    home.stigmer(std::iter::once("local").chain(args))
}

/// A daemon that runs in the background, and is stopped when this is dropped.
struct Up<'a> {
    home: &'a Home,
    /// What `start --json` said.
    said: Value,
}

impl<'a> Up<'a> {
    /// One without a runner, on a port that is free.
    #[track_caller]
    fn alone(home: &'a Home) -> Self {
        Self::with(home, &["--port", "0", "--no-agent-runner"])
    }

    #[track_caller]
    fn with(home: &'a Home, args: &[&str]) -> Self {
        Self::by(local(home, ["start", "--json"]).args(args), home)
    }

    #[track_caller]
    fn by(start: Cli, home: &'a Home) -> Self {
        let said = serde_json::from_str(&start.ok()).expect("JSON");
        Self { home, said }
    }

    fn pid(&self) -> i32 {
        number(&self.said["pid"])
    }

    fn port(&self) -> String {
        self.said["port"].to_string()
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let output = local(self.home, ["stop"]).run();
        if !std::thread::panicking() {
            output.ok();
        }
    }
}

#[track_caller]
fn number(value: &Value) -> i32 {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    number.unwrap_or_else(|| panic!("{value} is no number of a process"))
}

/// What `status --json` says, whatever its exit code.
#[track_caller]
fn status(home: &Home) -> Value {
    let output = local(home, ["status", "--json"]).run();
    serde_json::from_str(output.text()).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// Kills a process, and waits until it and what it had started is gone.
fn kill(pid: i32) {
    let mut all = process::descendants(pid);
    all.extend(process::look(pid));
    process::signal(pid, rustix::process::Signal::KILL);
    process::all_end("what was killed", &all);
}

/// What a PID file says of a process that lives.
fn identity(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let started = fields.split_ascii_whitespace().nth(19).expect("a time");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux");
    format!("{pid}\n{started}\n{boot}")
}

/// Waits until nothing of this home runs.
#[track_caller]
fn nothing_runs(home: &Home) {
    eventually("nothing is left", Duration::from_secs(10), || {
        home.processes().is_empty()
    });
}

/// The files of the data directory that say that something runs.
fn traces(home: &Home) -> Vec<String> {
    let mut entries = home.data_entries();
    entries.retain(|name| name.ends_with(".pid") || name.ends_with(".sock"));
    entries
}
