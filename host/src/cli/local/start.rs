//! `stigmer local start`: one daemon that is ready, whoever else starts one.

use std::process::Child;

use clap::Args;
use serde::Serialize;
use stigmer_sdk::wire::host::{ComponentState, StatusResponse};

use super::super::exec::NOT_CONTAINED;
use super::super::exit::Outcome;
use super::super::failure::{Failure, Result};
use super::super::output::Output;
use super::launch::{Launched, launch};
use super::plan::{self, Plan, SettingArgs};
use super::port;
use super::process::StartLock;
use super::report::Report;
use super::{Interrupts, Voice, contact, foreground, logs};
use crate::config::{Config, Mode};

#[derive(Args, Debug)]
pub(in crate::cli) struct StartArgs {
    #[command(flatten)]
    pub(super) settings: SettingArgs,

    /// Stay in front of the daemon: print its log, and stop it on Ctrl-C
    #[arg(long, conflicts_with = "json")]
    foreground: bool,

    /// Start the daemon alone
    #[arg(long)]
    no_agent_runner: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer local start
  stigmer local start --root ~/projects/app --provider openai
  ANTHROPIC_API_KEY=… stigmer local start --no-input --json

The key that the provider needs is taken from its variable, or asked for; it is
kept in memory only. If the daemon runs with these settings already, nothing is
done. It is started when it serves and its agent runner has registered.";

/// A daemon that is there.
#[derive(Debug)]
enum Up {
    Already(StatusResponse),
    Started(Launched),
}

/// What `--json` prints.
#[derive(Serialize)]
struct Started<'a> {
    already_running: bool,
    #[serde(flatten)]
    report: Report<'a>,
}

pub(super) async fn start(args: &StartArgs, config: &Config, output: &Output) -> Result<Outcome> {
    let mut interrupts = Interrupts::listen()?;
    let voice = Voice::new(args.json, output);
    let wanted = Wanted {
        config,
        with_runner: !args.no_agent_runner,
        no_input: args.settings.no_input,
        foreground: args.foreground,
    };
    // What is there already was said elsewhere.
    let log = logs::Logs::open(&config.data_dir.join(logs::LOGS), None, Some(0));
    match wanted.up(voice, &mut interrupts).await? {
        Up::Already(status) => {
            if !args.no_agent_runner {
                not_down(&status)?;
            }
            if args.json {
                return json(true, &status, config, output);
            }
            voice.say("Daemon is already running")?;
            say_daemon(voice, &status)?;
            say_rest(voice, &status)?;
        }
        Up::Started(Launched { child, status }) => {
            if args.json {
                return json(false, &status, config, output);
            }
            say_started(voice, &status)?;
            if args.foreground {
                let log =
                    log.map_err(|error| Failure::failed("cannot follow the log").because(&error))?;
                return foreground::stay(child, log, &mut interrupts, output).await;
            }
            voice.say("\nStop it with: stigmer local stop")?;
            leave(child);
        }
    }
    Ok(Outcome::Success)
}

fn json(
    already_running: bool,
    status: &StatusResponse,
    config: &Config,
    output: &Output,
) -> Result<Outcome> {
    output.json(&Started {
        already_running,
        report: Report::running(status, config),
    })?;
    Ok(Outcome::Success)
}

/// A runner that stays down is not what somebody asked for.
fn not_down(status: &StatusResponse) -> Result<()> {
    match &status.runner {
        Some(runner) if runner.state() == ComponentState::Failed => Err(Failure::failed(format!(
            "the daemon is already running, process {}, but its agent runner ended too often and stays down",
            status.pid
        ))
        .hint("see why with: stigmer local logs --component agent-runner")
        .hint("start both again with: stigmer local restart")),
        _ => Ok(()),
    }
}

/// The daemon outlives this process, and is then waited for by whoever waits
/// for orphans.
fn leave(child: Child) {
    drop(child);
}

/// Makes sure that there is a daemon for a command that needs one, and tells
/// on stderr if that takes starting it. A daemon that somebody named, or of
/// the cloud, is not ours to start.
pub(in crate::cli) async fn ensure_running(config: &Config, output: &Output) -> Result<()> {
    if config.mode == Mode::Cloud || !config.endpoint_is_default {
        return Ok(());
    }
    if let Some(status) = contact::status(config).await? {
        if status.runner.is_none() && status.registered.is_empty() {
            output.warn(
                "the daemon runs without an agent runner, so nobody takes work; \
                 `stigmer local restart --agent-runner` adds one",
            );
        }
        return Ok(());
    }
    let mut interrupts = Interrupts::listen()?;
    let voice = Voice::Stderr(output);
    let wanted = Wanted {
        config,
        with_runner: true,
        no_input: false,
        foreground: false,
    };
    if let Up::Started(Launched { child, status }) = wanted.up(voice, &mut interrupts).await? {
        say_started(voice, &status)?;
        leave(child);
    }
    Ok(())
}

/// What somebody asked for.
#[derive(Debug)]
struct Wanted<'a> {
    config: &'a Config,
    with_runner: bool,
    no_input: bool,
    /// One that runs in the background already will not do.
    foreground: bool,
}

impl Wanted<'_> {
    /// Makes it so. Two who do this at once end with one daemon.
    async fn up(&self, voice: Voice<'_>, interrupts: &mut Interrupts) -> Result<Up> {
        let config = self.config;
        if let Some(status) = interrupts.or(self.running()).await? {
            return Ok(Up::Already(status));
        }
        config.check().map_err(Failure::configuration)?;
        // Before the lock, so that nobody waits for what somebody types.
        let plan = Plan::make(config, self.with_runner, self.no_input, voice.output());
        let plan = interrupts.or(plan).await?;
        let _lock = interrupts.or(StartLock::take(config)).await?;
        if let Some(status) = interrupts.or(self.running()).await? {
            return Ok(Up::Already(status));
        }
        interrupts.or(port::check(config)).await?;
        voice.say("Starting daemon...")?;
        launch(&plan, interrupts).await.map(Up::Started)
    }

    /// The daemon that runs already, if it does as was asked.
    async fn running(&self) -> Result<Option<StatusResponse>> {
        let Some(status) = contact::status(self.config).await? else {
            return Ok(None);
        };
        let differences = plan::differences(self.config, self.with_runner, &status);
        if !differences.is_empty() {
            return Err(plan::conflict(&differences, &status));
        }
        if self.foreground {
            return Err(Failure::failed(format!(
                "the daemon is already running in the background, process {}",
                status.pid
            ))
            .hint("end it with: stigmer local stop"));
        }
        Ok(Some(status))
    }
}

/// Tells that a daemon was started, and with what.
pub(super) fn say_started(voice: Voice<'_>, status: &StatusResponse) -> Result<()> {
    voice.say("Daemon started successfully")?;
    say_daemon(voice, status)?;
    if let Some(runner) = &status.runner {
        voice.say("Agent-runner started successfully")?;
        if let Some(pid) = runner.pid {
            voice.say(format!("  PID:  {pid}"))?;
        }
    }
    say_rest(voice, status)
}

fn say_daemon(voice: Voice<'_>, status: &StatusResponse) -> Result<()> {
    voice.say(format!("  PID:  {}", status.pid))?;
    match plan::port(status) {
        Some(port) => voice.say(format!("  Port: {port}"))?,
        None => voice.say(format!("  TCP:  {}", status.tcp))?,
    }
    voice.say(format!("  Data: {}", status.data_dir))
}

/// What agents will work with and in.
fn say_rest(voice: Voice<'_>, status: &StatusResponse) -> Result<()> {
    voice.say(format!(
        "Sandbox: {} (root: {})",
        status.sandbox_type, status.sandbox_root
    ))?;
    if let Some(runner) = &status.runner {
        voice.say(format!(
            "Model:   {} from {}",
            runner.model, runner.provider
        ))?;
        if !runner.script.is_empty() {
            voice.say(format!("Runner:  {}", runner.script))?;
        }
    }
    if status.sandbox_type == "filesystem" {
        voice.output().note(NOT_CONTAINED.replace('\n', " "));
    }
    Ok(())
}
