//! `stigmer local status`: how the daemon and its runner are, as the daemon
//! says it and not as a file does.

use std::time::Duration;

use clap::Args;
use stigmer_sdk::wire::host::{ComponentState, RunnerStatus, StatusResponse};

use super::super::exit::Outcome;
use super::super::failure::Result;
use super::super::output::{Output, count};
use super::process::{DAEMON_PID, Living, RUNNER_PID};
use super::report::{Report, since};
use super::{contact, plan};
use crate::config::Config;
use crate::local::pid_file::PidFile;

#[derive(Args, Debug)]
pub(in crate::cli) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer local status
  stigmer local status --json | jq -r .agent_runner.state

Exits with 0 if the daemon runs and its agent runner, if it has one, is ready;
with 1 otherwise.";

const TITLE: &str = "Daemon Status:\n─────────────────────────────────────";

pub(super) async fn status(args: &StatusArgs, config: &Config, output: &Output) -> Result<Outcome> {
    let status = match contact::status(config).await {
        Ok(status) => status,
        Err(failure) => {
            // There is one, and only that can be said of it.
            if !args.json {
                output.text(format!(
                    "{TITLE}\n  Status: ✗ Not answering\n  Data:   {}",
                    config.data_dir.display()
                ))?;
            }
            return Err(failure);
        }
    };
    match &status {
        Some(status) if args.json => output.json(&Report::running(status, config))?,
        Some(status) => output.text(running(status))?,
        None if args.json => output.json(&Report::stopped(config))?,
        None => output.text(stopped(config)?)?,
    }
    let is_well = status.is_some_and(|status| {
        status
            .runner
            .is_none_or(|runner| runner.state() == ComponentState::Ready)
    });
    Ok(if is_well {
        Outcome::Success
    } else {
        Outcome::Unfit
    })
}

fn running(status: &StatusResponse) -> String {
    let port = plan::port(status).map_or_else(|| "?".to_owned(), |port| port.to_string());
    let daemon = [
        ("Status", "✓ Running".to_owned()),
        ("PID", status.pid.to_string()),
        ("Port", port),
        ("Data", status.data_dir.clone()),
        ("TCP", status.tcp.clone()),
        ("Socket", status.socket.clone()),
        ("Uptime", uptime(status.started_ms)),
        ("Build", status.version.clone()),
    ];
    let sandbox = [
        ("Type", status.sandbox_type.clone()),
        ("Root", status.sandbox_root.clone()),
        ("Count", count(status.sandboxes, "sandbox")),
    ];
    let runner = status.runner.as_ref().map_or_else(
        || {
            let none = "none, the daemon was started without one";
            vec![("Status", none.to_owned())]
        },
        runner_lines,
    );
    let work = [
        ("Runners", status.registered.len().to_string()),
        ("Sessions", status.sessions.to_string()),
        (
            "Executions",
            format!(
                "{} in progress, {} pending",
                status.executions_in_progress, status.executions_pending
            ),
        ),
    ];
    [
        section(TITLE, &daemon),
        section("Sandbox:", &sandbox),
        section("Agent runner:", &runner),
        section("Work:", &work),
    ]
    .join("\n\n")
}

fn runner_lines(runner: &RunnerStatus) -> Vec<(&'static str, String)> {
    let state = match runner.state() {
        ComponentState::Ready => "✓ Ready",
        ComponentState::Starting => "Starting",
        ComponentState::BackingOff => "✗ Ended, and will be started again",
        ComponentState::Failed => {
            "✗ Failed: it ended too often; `stigmer local restart` tries again"
        }
        ComponentState::Stopped => "✗ Stopped",
        ComponentState::Unspecified => "? unknown to this version of the client",
    };
    let mut lines = vec![("Status", state.to_owned())];
    lines.extend(runner.pid.map(|pid| ("PID", pid.to_string())));
    lines.extend(runner.started_ms.map(|started| ("Uptime", uptime(started))));
    lines.push(("Restarts", runner.restarts.to_string()));
    if !runner.last_failure.is_empty() {
        lines.push(("Last failure", runner.last_failure.clone()));
    }
    if !runner.script.is_empty() {
        lines.push(("Program", runner.script.clone()));
    }
    lines.push(("Provider", runner.provider.clone()));
    lines.push(("Model", runner.model.clone()));
    lines
}

/// What is there without a daemon that answers.
fn stopped(config: &Config) -> Result<String> {
    let mut parts = vec![section(TITLE, &[("Status", "✗ Stopped".to_owned())])];
    let daemon = config.data_dir.join(DAEMON_PID);
    if let Some(living) = Living::named_in(&daemon)? {
        parts.push(format!(
            "Process {} is a daemon of this data directory that does not listen: it starts, or it stops.",
            living.identity.pid
        ));
    } else if let Some(identity) = PidFile::read(&daemon)? {
        parts.push(format!(
            "The last one, process {}, was killed, or ended without saying so.",
            identity.pid
        ));
    }
    if let Some(living) = Living::named_in(&config.data_dir.join(RUNNER_PID))? {
        parts.push(format!(
            "Its agent runner, process {}, still runs; `stigmer local stop` ends it.",
            living.identity.pid
        ));
    }
    parts.push("To start:\n  stigmer local start".to_owned());
    Ok(parts.join("\n\n"))
}

/// A title and lines whose values begin in one column.
fn section(title: &str, lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(label, _)| label.len() + 1).max();
    let width = width.unwrap_or_default();
    let mut text = vec![title.to_owned()];
    text.extend(lines.iter().map(|(label, value)| {
        let label = format!("{label}:");
        format!("  {label:<width$} {value}")
    }));
    text.join("\n")
}

fn uptime(started_ms: u64) -> String {
    let seconds = since(started_ms) / 1000;
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> StatusResponse {
        StatusResponse {
            version: "0.1.0".to_owned(),
            pid: 12345,
            started_ms: u64::MAX,
            tcp: "127.0.0.1:50051".to_owned(),
            socket: "/data/stigmer.sock".to_owned(),
            data_dir: "/data".to_owned(),
            sandbox_type: "filesystem".to_owned(),
            sandbox_root: "/work".to_owned(),
            executions_pending: 2,
            ..StatusResponse::default()
        }
    }

    #[test]
    fn a_daemon_without_a_runner() {
        assert_eq!(
            running(&status()),
            "\
Daemon Status:
─────────────────────────────────────
  Status: ✓ Running
  PID:    12345
  Port:   50051
  Data:   /data
  TCP:    127.0.0.1:50051
  Socket: /data/stigmer.sock
  Uptime: 0s
  Build:  0.1.0

Sandbox:
  Type:  filesystem
  Root:  /work
  Count: 0 sandboxes

Agent runner:
  Status: none, the daemon was started without one

Work:
  Runners:    0
  Sessions:   0
  Executions: 0 in progress, 2 pending"
        );
    }

    #[test]
    fn a_runner_says_what_became_of_it() {
        let runner = RunnerStatus {
            state: ComponentState::BackingOff.into(),
            restarts: 3,
            last_failure: "killed by signal 9".to_owned(),
            provider: "ollama".to_owned(),
            model: "m".to_owned(),
            ..RunnerStatus::default()
        };
        assert_eq!(
            section("Agent runner:", &runner_lines(&runner)),
            "Agent runner:
  Status:       ✗ Ended, and will be started again
  Restarts:     3
  Last failure: killed by signal 9
  Provider:     ollama
  Model:        m"
        );
    }
}
