//! How everything is, as `--json` prints it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use stigmer_sdk::wire::host::{ComponentState, RunnerStatus, StatusResponse};

use super::plan;
use crate::config::Config;

/// How the daemon of a data directory is.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    status: &'static str,
    data_dir: String,
    #[serde(flatten)]
    daemon: Option<DaemonReport<'a>>,
}

#[derive(Debug, Serialize)]
struct DaemonReport<'a> {
    version: &'a str,
    pid: u32,
    started_ms: u64,
    uptime_ms: u64,
    mode: &'a str,
    endpoint: &'a str,
    port: Option<u16>,
    socket: &'a str,
    sandbox: SandboxReport<'a>,
    /// `null` without one.
    agent_runner: Option<RunnerReport<'a>>,
    /// All that are registered, whoever started them.
    runners: Vec<RegisteredReport<'a>>,
    sandboxes: u64,
    sessions: u64,
    executions: ExecutionsReport,
}

#[derive(Debug, Serialize)]
struct SandboxReport<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    root: &'a str,
}

#[derive(Debug, Serialize)]
struct RunnerReport<'a> {
    state: &'static str,
    pid: Option<u32>,
    started_ms: Option<u64>,
    uptime_ms: Option<u64>,
    restarts: u32,
    last_failure: Option<&'a str>,
    script: Option<&'a str>,
    provider: &'a str,
    model: &'a str,
}

#[derive(Debug, Serialize)]
struct RegisteredReport<'a> {
    runner_id: &'a str,
    pid: u32,
    version: &'a str,
    provider: &'a str,
    model: &'a str,
    registered_ms: u64,
    executions: &'a [String],
}

#[derive(Debug, Serialize)]
struct ExecutionsReport {
    pending: u64,
    in_progress: u64,
}

fn state(runner: &RunnerStatus) -> &'static str {
    match runner.state() {
        ComponentState::Unspecified => "unknown",
        ComponentState::Starting => "starting",
        ComponentState::Ready => "ready",
        ComponentState::BackingOff => "backing_off",
        ComponentState::Failed => "failed",
        ComponentState::Stopped => "stopped",
    }
}

impl<'a> Report<'a> {
    pub(super) fn running(status: &'a StatusResponse, config: &Config) -> Self {
        Self {
            status: "running",
            data_dir: config.data_dir.display().to_string(),
            daemon: Some(DaemonReport {
                version: &status.version,
                pid: status.pid,
                started_ms: status.started_ms,
                uptime_ms: since(status.started_ms),
                mode: &status.mode,
                endpoint: &status.tcp,
                port: plan::port(status),
                socket: &status.socket,
                sandbox: SandboxReport {
                    kind: &status.sandbox_type,
                    root: &status.sandbox_root,
                },
                agent_runner: status.runner.as_ref().map(RunnerReport::of),
                runners: status
                    .registered
                    .iter()
                    .map(|runner| RegisteredReport {
                        runner_id: &runner.runner_id,
                        pid: runner.pid,
                        version: &runner.version,
                        provider: &runner.provider,
                        model: &runner.model,
                        registered_ms: runner.registered_ms,
                        executions: &runner.executions,
                    })
                    .collect(),
                sandboxes: status.sandboxes,
                sessions: status.sessions,
                executions: ExecutionsReport {
                    pending: status.executions_pending,
                    in_progress: status.executions_in_progress,
                },
            }),
        }
    }

    pub(super) fn stopped(config: &Config) -> Self {
        Self {
            status: "stopped",
            data_dir: config.data_dir.display().to_string(),
            daemon: None,
        }
    }
}

impl<'a> RunnerReport<'a> {
    fn of(runner: &'a RunnerStatus) -> Self {
        let if_any = |text: &'a str| (!text.is_empty()).then_some(text);
        Self {
            state: state(runner),
            pid: runner.pid,
            started_ms: runner.started_ms,
            uptime_ms: runner.started_ms.map(since),
            restarts: runner.restarts,
            last_failure: if_any(&runner.last_failure),
            script: if_any(&runner.script),
            provider: &runner.provider,
            model: &runner.model,
        }
    }
}

/// For how many milliseconds something runs that was started then.
pub(super) fn since(started_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis();
    u64::try_from(now)
        .unwrap_or(u64::MAX)
        .saturating_sub(started_ms)
}
