//! `stigmer local stop`: the agent runner ends, then the daemon, and no file
//! says otherwise afterwards.
//!
//! SIGTERM to the daemon does both in that order, since the runner is the
//! daemon's to end: signalled from here, it would be started again. Only a
//! runner whose daemon is dead is signalled from here.

use std::time::Duration;

use clap::Args;
use rustix::process::Signal;
use serde::Serialize;

use super::super::exit::Outcome;
use super::super::failure::{Failure, Result};
use super::super::output::Output;
use super::process::{DAEMON_PID, Living, RUNNER_PID, tidy};
use super::{Voice, contact};
use crate::config::Config;

/// How long a daemon may take that was asked to end: more than its own bounds
/// for its runner, commands under way and last answers add up to.
const DAEMON: Duration = Duration::from_secs(40);
/// How long a runner may take that was asked to end.
const RUNNER: Duration = Duration::from_secs(5);
/// How long a runner may take to notice that its daemon is dead, with what it
/// has started.
const ORPHAN: Duration = Duration::from_secs(7);
/// How long the kernel may take to end what was killed.
const KILLED: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(in crate::cli) struct StopArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer local stop
  stigmer local stop --json

Running commands get SIGTERM, five seconds, and SIGKILL, with all they started.
Sandboxes and sessions are kept. Without a daemon there is nothing to do.";

/// What was ended.
#[derive(Debug, Default, Serialize)]
pub(super) struct Stopped {
    daemon: Option<Ended>,
    agent_runner: Option<Ended>,
}

#[derive(Debug, Serialize)]
struct Ended {
    pid: u32,
    /// It did not end when it was asked to.
    killed: bool,
}

pub(super) async fn stop(args: &StopArgs, config: &Config, output: &Output) -> Result<Outcome> {
    let stopped = bring_down(config, Voice::new(args.json, output)).await?;
    if args.json {
        output.json(&stopped)?;
    }
    Ok(Outcome::Success)
}

/// Ends whatever runs of this data directory.
pub(super) async fn bring_down(config: &Config, voice: Voice<'_>) -> Result<Stopped> {
    let daemon = find_daemon(config).await?;
    let runner = Living::named_in(&config.data_dir.join(RUNNER_PID))?;
    let mut stopped = Stopped::default();
    if let Some(daemon) = &daemon {
        voice.say("Stopping daemon...")?;
        stopped.daemon = Some(end_daemon(daemon, runner.as_ref(), voice).await?);
    }
    if let Some(runner) = &runner {
        stopped.agent_runner = Some(end_runner(runner, daemon.is_some(), voice).await?);
    }
    tidy(config);
    voice.say(if daemon.is_some() {
        "Daemon stopped successfully"
    } else {
        "Daemon is not running"
    })?;
    Ok(stopped)
}

/// By its PID file, or if somebody removed that, by its socket.
async fn find_daemon(config: &Config) -> Result<Option<Living>> {
    if let Some(daemon) = Living::named_in(&config.data_dir.join(DAEMON_PID))? {
        return Ok(Some(daemon));
    }
    match contact::listener(config).await? {
        Some(pid) => Living::numbered(pid),
        None => Ok(None),
    }
}

async fn end_daemon(daemon: &Living, runner: Option<&Living>, voice: Voice<'_>) -> Result<Ended> {
    signal(daemon, Signal::TERM, "daemon", voice)?;
    let mut killed = false;
    let first = async {
        match runner {
            Some(runner) => runner.ends(DAEMON).await,
            None => std::future::pending().await,
        }
    };
    // The runner's end is told when it comes, which is before the daemon's.
    let started = tokio::time::Instant::now();
    tokio::select! {
        biased;
        _ = first => {}
        _ = daemon.ends(DAEMON) => {}
    }
    if runner.is_some_and(Living::has_ended) {
        voice.say("Agent-runner stopped successfully")?;
    }
    if !daemon.ends(DAEMON.saturating_sub(started.elapsed())).await {
        killed = signal(daemon, Signal::KILL, "daemon", voice)?;
        if !daemon.ends(KILLED).await {
            return Err(unkillable("daemon", daemon));
        }
    }
    Ok(Ended {
        pid: daemon.identity.pid,
        killed,
    })
}

/// Ends a runner that no daemon looks after any more.
async fn end_runner(runner: &Living, had_daemon: bool, voice: Voice<'_>) -> Result<Ended> {
    let mut ended = Ended {
        pid: runner.identity.pid,
        killed: false,
    };
    if had_daemon && runner.has_ended() {
        return Ok(ended);
    }
    // It sees its daemon's end by itself; one that was left alone long ago
    // has not.
    if !(had_daemon && runner.ends(ORPHAN).await) {
        signal(runner, Signal::TERM, "agent-runner", voice)?;
        if !runner.ends(RUNNER).await {
            ended.killed = signal(runner, Signal::KILL, "agent-runner", voice)?;
            if !runner.ends(KILLED).await {
                return Err(unkillable("agent-runner", runner));
            }
        }
    }
    voice.say("Agent-runner stopped successfully")?;
    Ok(ended)
}

/// Sends a signal, and tells so. False if there was nobody any more.
fn signal(process: &Living, signal: Signal, name: &str, voice: Voice<'_>) -> Result<bool> {
    let word = if signal == Signal::KILL {
        "SIGKILL"
    } else {
        "SIGTERM"
    };
    let pid = process.identity.pid;
    let sent = process.signal(signal).map_err(|error| {
        Failure::failed(format!("failed to send {word} to {name}, process {pid}")).because(&error)
    })?;
    if sent {
        voice.say(format!("Sent {word} to {name}"))?;
    }
    Ok(sent)
}

fn unkillable(name: &str, process: &Living) -> Failure {
    Failure::failed(format!(
        "the {name}, process {}, does not end although it was killed",
        process.identity.pid
    ))
    .hint("it waits in the kernel, mostly for a disk or a network file system; look at its state with ps")
}
