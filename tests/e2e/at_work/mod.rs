//! An agent at work, all of it: a daemon and a runner that `stigmer local
//! start` brought up, a model's API that is faked on loopback, and the person
//! who types `stigmer run`.

mod chaos;
mod conversation;
mod limits;
mod primes;
mod secrets;

use serde_json::{Value, json};
use stigmer_tests::fakes::{FakeProvider, Reply};
use stigmer_tests::pty::Terminal;
use stigmer_tests::{Cli, Home, Output, binary};

/// The key that the fakes take.
pub(crate) const KEY: &str = "sk-ant-test-4f1d9c";

/// A home whose agents ask a fake of Anthropic's.
pub(crate) struct Local {
    pub(crate) home: Home,
    pub(crate) model: FakeProvider,
}

impl Local {
    pub(crate) fn new() -> Self {
        Self::with_key(KEY)
    }

    /// One whose model's API takes this key.
    pub(crate) fn with_key(key: &str) -> Self {
        Self {
            home: Home::new(),
            model: FakeProvider::anthropic().accepting(key),
        }
    }

    /// `stigmer` at a terminal, with everything set but the key.
    pub(crate) fn at_terminal(&self, args: &[&str], key: Option<&str>) -> Terminal {
        let mut command = self.home.command(binary::path());
        command
            .args(args)
            .env("TERM", "xterm")
            .env("STIGMER_PORT", "0")
            .env("STIGMER_LLM_PROVIDER", "anthropic")
            .env("ANTHROPIC_BASE_URL", self.model.base_url());
        if let Some(key) = key {
            command.env("ANTHROPIC_API_KEY", key);
        }
        Terminal::run(command, 100, 30)
    }

    /// One that has been started.
    pub(crate) fn started() -> Self {
        let local = Self::new();
        local.stigmer(["local", "start", "--no-input"]).ok();
        local
    }

    pub(crate) fn stigmer<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Cli {
        self.with_settings(self.home.stigmer(args))
            .env("ANTHROPIC_API_KEY", KEY)
    }

    /// Everything but the key.
    pub(crate) fn with_settings(&self, cli: Cli) -> Cli {
        cli.env("STIGMER_PORT", "0")
            .env("STIGMER_LLM_PROVIDER", "anthropic")
            .env("ANTHROPIC_BASE_URL", self.model.base_url())
    }

    /// `stigmer run --json`, to its end, and its events.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> (Output, Vec<Value>) {
        let output = self
            .stigmer(["run", "--json"].into_iter().chain(args.iter().copied()))
            .run();
        let events = events(output.text());
        (output, events)
    }

    /// A field of `local status --json`, by its pointer.
    #[track_caller]
    pub(crate) fn status(&self, pointer: &str) -> Value {
        // It exits with 1 while the runner is not ready.
        let output = self.stigmer(["local", "status", "--json"]).run();
        let status: Value = serde_json::from_str(output.text()).expect("JSON");
        status
            .pointer(pointer)
            .unwrap_or_else(|| panic!("no {pointer} in {status}"))
            .clone()
    }

    pub(crate) fn runner_pid(&self) -> i32 {
        pid_in(&self.home, "agent-runner.pid").expect("a runner")
    }

    pub(crate) fn daemon_pid(&self) -> i32 {
        pid_in(&self.home, "daemon.pid").expect("a daemon")
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // The home fails the test if this leaves a process.
        let _either = self.home.stigmer(["local", "stop"]).run();
    }
}

/// The process that a PID file names.
pub(crate) fn pid_in(home: &Home, file: &str) -> Option<i32> {
    let text = std::fs::read_to_string(home.data().join(file)).ok()?;
    text.lines().next()?.parse().ok()
}

/// One JSON value a line.
#[track_caller]
pub(crate) fn events(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// The events of one kind.
pub(crate) fn of_type<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["type"] == kind)
        .collect()
}

/// What commands printed, all of it.
pub(crate) fn outputs(events: &[Value]) -> String {
    of_type(events, "tool_output")
        .iter()
        .filter_map(|event| event["data"].as_str())
        .collect()
}

/// A model that runs this line of shell, and then says something.
pub(crate) fn runs(model: &FakeProvider, line: &str, says: &str) {
    model.reply(Reply::calls([("execute", json!({ "command": line }))]));
    model.reply(Reply::text(says));
}
