//! `stigmer local restart`: the same settings, unless somebody says otherwise,
//! in a new daemon. Whatever can be wrong is found, and the key asked for,
//! before anything is stopped.

use clap::Args;
use serde::Serialize;

use super::super::exit::Outcome;
use super::super::failure::{Failure, Result};
use super::super::output::Output;
use super::super::value::Environment;
use super::launch::launch;
use super::plan::{self, Plan, SettingArgs};
use super::port;
use super::process::StartLock;
use super::report::Report;
use super::start::say_started;
use super::stop::{Stopped, bring_down};
use super::{Interrupts, Voice, contact};
use crate::config::{Config, Flags};

#[derive(Args, Debug)]
pub(in crate::cli) struct RestartArgs {
    #[command(flatten)]
    pub(super) settings: SettingArgs,

    /// With an agent runner, if there was none
    #[arg(long, conflicts_with = "no_agent_runner")]
    agent_runner: bool,

    /// Without an agent runner, if there was one
    #[arg(long)]
    no_agent_runner: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer local restart
  stigmer local restart --provider ollama --model qwen2.5-coder:7b

What neither a flag nor the environment nor config.toml says stays as it is.
Only the key must be given again, in its variable or when it is asked for: the
daemon that runs tells it to nobody.";

/// What `--json` prints.
#[derive(Serialize)]
struct Restarted<'a> {
    stopped: Stopped,
    #[serde(flatten)]
    report: Report<'a>,
}

pub(super) async fn restart(
    args: &RestartArgs,
    flags: Flags,
    asked: &Config,
    environment: &Environment,
    output: &Output,
) -> Result<Outcome> {
    let mut interrupts = Interrupts::listen()?;
    let voice = Voice::new(args.json, output);
    let running = match interrupts.or(contact::status(asked)).await {
        Ok(running) => running,
        // It can be stopped all the same, which may be why it is restarted.
        Err(failure) if failure.reason == super::super::exit::Reason::Failed => {
            output.warn("the daemon that runs does not tell its settings, so they are not kept");
            output.failure(&failure);
            None
        }
        Err(failure) => return Err(failure),
    };
    let merged;
    let config = match &running {
        Some(running) => {
            merged = super::load(&plan::keep(flags, asked, running), environment)?;
            &merged
        }
        None => asked,
    };
    let had_runner = running
        .as_ref()
        .is_none_or(|running| running.runner.is_some());
    let with_runner = args.agent_runner || (had_runner && !args.no_agent_runner);
    config.check().map_err(Failure::configuration)?;
    let plan = Plan::make(config, with_runner, args.settings.no_input, output);
    let plan = interrupts.or(plan).await?;
    let _lock = interrupts.or(StartLock::take(config)).await?;
    // A port that the present daemon has is free in a moment.
    if running.as_ref().and_then(plan::port) != Some(config.port) {
        interrupts.or(port::check(config)).await?;
    }
    let stopped = interrupts.or(bring_down(config, voice)).await?;
    voice.say("Starting daemon...")?;
    let launched = launch(&plan, &mut interrupts).await?;
    if args.json {
        output.json(&Restarted {
            stopped,
            report: Report::running(&launched.status, config),
        })?;
    } else {
        say_started(voice, &launched.status)?;
        voice.say("Daemon restarted successfully")?;
    }
    Ok(Outcome::Success)
}
