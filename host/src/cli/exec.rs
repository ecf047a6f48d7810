//! `stigmer exec`: one command in a sandbox of its own, without a daemon.
//!
//! Everything lives as long as this call: the sandbox is created in the
//! configured root, and destroyed with what the command left running. Its files
//! stay, because the directory is the user's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use stigmer_sdk::{ExitStatus, Sandbox, SandboxSpec};
use tokio_util::task::TaskTracker;

use super::events;
use super::exit::Outcome;
use super::failure::{Failure, Result};
use super::follow::{Signals, Sink, channel, follow};
use super::output::Output;
use super::run_args::RunArgs;
use super::terminal::RawMode;
use super::value::Environment;
use crate::config::Config;
use crate::guard::{Guard, Timeout};
use crate::registry::Registry;

#[derive(Args, Clone, Debug)]
pub(super) struct ExecArgs {
    /// The backend that provides the sandbox
    #[arg(long, value_name = "TYPE")]
    pub(super) sandbox: Option<String>,

    /// The directory that is the workspace; created if it is missing
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,

    #[command(flatten)]
    run: RunArgs,
}

impl ExecArgs {
    #[cfg(test)]
    pub(super) fn words(&self) -> &[String] {
        self.run.words()
    }
}

/// What `--help` adds.
pub(super) fn after_help() -> String {
    format!(
        "\
Examples:
  stigmer exec -- cargo test
  stigmer exec -- 'ls -la | wc -l'          one word: a line for the shell
  stigmer exec --root ./app -e CI=1 --timeout 5m -- make check
  stigmer exec -it -- bash

The command sees none of this environment but what -e and --env-file pass on.
Ctrl-C is passed to the command; twice kills it and all that it started.

The exit code is the command's own: 128 + n if signal n ended it, 124 if it
timed out, 126 or 127 if it could not be run, 125 if Stigmer itself failed.

{}

{NOT_CONTAINED}",
        events::FORMAT
    )
}

/// Said wherever people choose a sandbox.
pub(super) const NOT_CONTAINED: &str = "\
The filesystem backend runs real processes as you: it does not confine what a
command may read or reach outside the workspace.";

pub(super) async fn run(
    args: &ExecArgs,
    config: &Config,
    around: &Environment,
    output: &Output,
) -> Result<Outcome> {
    args.run.check()?;
    let variables = args.run.variables(around)?;
    // From here on a signal no longer just ends this process, which could leave
    // a sandbox behind.
    let mut signals = Signals::listen()?;
    let registry = signals.unless_asked(Registry::open(config)).await?;
    let backend = registry.get(None)?;
    std::fs::create_dir_all(&config.root).map_err(|error| {
        Failure::failed(format!(
            "cannot create the workspace '{}'",
            config.root.display()
        ))
        .because(&error)
    })?;
    let source = config.root.to_str().ok_or_else(|| {
        Failure::usage(format!(
            "the workspace '{}' has a name that is not UTF-8",
            config.root.display()
        ))
    })?;
    let spec = SandboxSpec {
        source: Some(source.to_owned()),
        // Nothing is written down, so that whatever ends this leaves nothing.
        options: r#"{"ephemeral":true}"#.to_owned(),
        ..SandboxSpec::default()
    };
    let sandbox = signals.unless_asked(backend.create(spec)).await?;

    let tasks = TaskTracker::new();
    let guard = Guard::from_config(config, tasks.clone());
    let status = run_in(args, variables, &guard, &sandbox, &mut signals, output).await;
    // A command that was given up is ended by a task of the guard's. Whoever
    // does not want to wait for that has it killed with the sandbox.
    tasks.close();
    tokio::select! {
        () = tasks.wait() => {}
        _ = signals.asked() => {}
    }
    let destroyed = sandbox.destroy().await;
    let status = status?;
    destroyed?;
    Ok(Outcome::Command(status))
}

async fn run_in(
    args: &ExecArgs,
    variables: BTreeMap<String, String>,
    guard: &Arc<Guard>,
    sandbox: &Arc<dyn Sandbox>,
    signals: &mut Signals,
    output: &Output,
) -> Result<ExitStatus> {
    let info = sandbox.info();
    let command = args.run.to_command(&info.shell, variables)?;
    let guarded = guard.sandbox(info.id.as_str(), sandbox.clone());
    let raw = args.run.has_terminal().then(RawMode::enter).transpose()?;
    let (controls, inputs) = channel(args.run.passes_stdin(), output);
    let timeout = args.run.timeout().map_or(Timeout::None, Timeout::After);
    let events = signals
        .unless_asked(guarded.run(command, inputs, timeout))
        .await?;
    let sink = Sink::new(args.run.format())?;
    let status = follow(events, controls, signals, sink).await;
    drop(raw);
    status
}
