//! `stigmer run`: gives an agent something to do, and shows what it does.
//!
//! | module | owns |
//! | --- | --- |
//! | [`env`], [`limits`], [`definition`], [`skill`] | what is typed, and the files it names |
//! | [`find`] | executions and sessions by a part of their id |
//! | [`subscription`] | the events, over a daemon that goes away and comes back |
//! | [`follow`] | the loop that owns everything until the end |
//! | [`approval`], [`typed`] | questions, and the person who answers them |
//! | [`render`], [`screen`] | events as text or JSON, and writing it |
//!
//! `stigmer execution` and `stigmer session` share all of it but the first row.

mod approval;
mod definition;
mod env;
pub(super) mod find;
pub(super) mod follow;
mod limits;
pub(super) mod render;
mod screen;
mod skill;
pub(super) mod subscription;
mod typed;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stigmer_sdk::wire::agent::{
    AgentSpec, Approvals, CreateExecutionRequest, Execution, ExecutionSpec, SessionSpec,
    approvals::Mode, create_execution_request::Session as InSession,
};

use self::env::{Variable, Variables};
use self::follow::{Watch, follow};
use self::limits::LimitArgs;
use super::daemon::{Daemon, incomplete};
use super::exit::Outcome;
use super::failure::{Failure, Result};
use super::follow::Signals;
use super::local;
use super::output::Output;
use super::value::Environment;
use crate::config::Config;

/// What is read of stdin at most: more than any model takes, and less than what
/// one gRPC message carries.
const MESSAGE_BYTES: u64 = 1024 * 1024;
/// How much of the first message a session is known by.
const SUBJECT_CHARS: usize = 80;

pub(super) fn after_help() -> String {
    format!(
        "\
Examples:
  stigmer run 'make a file hello.py that prints the primes below 50, and run it'
  git diff | stigmer run --agent reviewer.toml - > review.md
  stigmer run --session ses-01K… 'now add a test'
  stigmer run -e CI=1 -e secret:GITHUB_TOKEN --approve ask 'open a pull request'
  stigmer run --detach 'update the dependencies'

What the agent says goes to stdout, everything else (tool calls and their
output, diffs, todos, the summary) to stderr. With --quiet only its last message
is printed. The daemon is started if it is not running.

Ctrl-C cancels the execution and shows its end; twice leaves at once. Without a
terminal, a tool call that waits for approval is answered from another one:
stigmer execution approve.

The exit code is 0 if the execution completed, 1 if it failed, 130 if Ctrl-C
cancelled it, 2 if what was typed makes no sense.

{}

{}

{}",
        env::GRAMMAR,
        definition::EXAMPLE,
        render::json::FORMAT
    )
}

/// Which tool calls wait for somebody's word.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Approve {
    /// None but those that a rule says
    Never,
    /// Those that change something
    Ask,
    /// All
    Always,
}

impl Approve {
    fn mode(self) -> Mode {
        match self {
            Self::Never => Mode::Never,
            Self::Ask => Mode::Ask,
            Self::Always => Mode::Always,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// What to do; '-' or nothing reads it from stdin
    message: Option<String>,

    /// Go on in this session: its id, or a part of it that is unique
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,

    /// The agent that does it
    #[arg(long, value_name = "FILE", conflicts_with = "session")]
    agent: Option<PathBuf>,

    /// Set a variable for its commands; NAME alone takes its value from here
    #[arg(short, long = "env", value_name = "[secret:]NAME[=VALUE]", value_parser = env::variable)]
    env: Vec<Variable>,

    /// Set the variables in this file; may be repeated, the last value wins
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,

    /// The model: its name, or provider/name
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    #[command(flatten)]
    limits: LimitArgs,

    /// Which tool calls wait for your word [default: as configured]
    #[arg(long, value_enum, value_name = "WHEN")]
    approve: Option<Approve>,

    /// Work in this sandbox instead of a new one; its name or its id
    #[arg(long, value_name = "SANDBOX", conflicts_with = "session")]
    sandbox_id: Option<String>,

    /// Print the id of the execution, and do not wait for it
    #[arg(long, conflicts_with = "json")]
    detach: bool,

    /// Print events as JSON, one a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    args: &RunArgs,
    config: &Config,
    around: &Environment,
    output: &Output,
) -> Result<Outcome> {
    // All that can be wrong without a daemon comes before there is one.
    let agent = match &args.agent {
        Some(path) => definition::load(path, around)?,
        None => AgentSpec::default(),
    };
    let variables = env::layers(&args.env_files, &args.env, around)?;
    let mut signals = Signals::listen()?;
    let message = signals.unless_asked(message(args)).await?;
    let daemon = signals.unless_asked(running(config, output)).await?;
    if !args.json && !args.detach {
        output.note("Creating agent execution...");
    }
    let created = create(args, message, agent, variables, &daemon);
    let execution = signals.unless_asked(created).await?;
    let id = &execution.execution_id;
    if args.detach {
        output.line(id)?;
        output.note(format!("follow it with: stigmer execution follow {id}"));
        return Ok(Outcome::Success);
    }
    if !args.json {
        output.note(format!("✓ Agent execution started: {id}"));
    }
    let watch = Watch {
        daemon: &daemon,
        execution: &execution,
        from: 1,
        json: args.json,
        owned: true,
    };
    follow(watch, &mut signals, output).await
}

/// A daemon to talk to.
async fn running(config: &Config, output: &Output) -> Result<Daemon> {
    local::ensure_running(config, output).await?;
    Daemon::connect(config).await
}

/// What to do, as it was typed or piped.
async fn message(args: &RunArgs) -> Result<String> {
    let message = match args.message.as_deref() {
        Some("-") => from_stdin().await?,
        Some(message) => message.to_owned(),
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::usage(
                "there is nothing to do: no MESSAGE, and stdin is a terminal",
            )
            .hint("say what to do: stigmer run 'make the tests pass'"));
        }
        None => from_stdin().await?,
    };
    if message.trim().is_empty() {
        return Err(Failure::usage(
            "there is nothing to do: the message is empty",
        ));
    }
    Ok(message)
}

/// Reads stdin to its end, on a thread that Ctrl-C leaves behind.
async fn from_stdin() -> Result<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut bytes = Vec::new();
        let stdin = std::io::stdin().lock();
        stdin
            .take(MESSAGE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map(|_| bytes)
    });
    let read = read
        .await
        .map_err(|error| Failure::failed("cannot read stdin").because(&error))?;
    let bytes = read.map_err(|error| Failure::failed("cannot read stdin").because(&error))?;
    if bytes.len() as u64 > MESSAGE_BYTES {
        return Err(Failure::usage("the message on stdin is longer than 1 MiB")
            .hint("put it into a file of the sandbox, and say what to do with that"));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage("the message on stdin is not UTF-8"))
}

async fn create(
    args: &RunArgs,
    message: String,
    agent: AgentSpec,
    mut variables: Variables,
    daemon: &Daemon,
) -> Result<Execution> {
    // A secret of the agent's stays one under another value.
    for (name, value) in &mut variables {
        value.secret |= agent.env.get(name).is_some_and(|below| below.secret);
    }
    let session = match &args.session {
        Some(name) => {
            let session_id = find::session(daemon, name).await?.session_id;
            InSession::SessionId(session_id)
        }
        None => {
            let sandbox_id = match &args.sandbox_id {
                Some(name) => Some(daemon.sandbox(name).await?.sandbox_id),
                None => None,
            };
            let spec = SessionSpec {
                subject: subject(&message),
                agent: Some(agent),
                sandbox_id,
                ..SessionSpec::default()
            };
            InSession::SessionSpec(spec)
        }
    };
    let approvals = args.approve.map(|approve| Approvals {
        mode: approve.mode().into(),
        ..Approvals::default()
    });
    let request = CreateExecutionRequest {
        session: Some(session),
        spec: Some(ExecutionSpec {
            message,
            model: args.model.clone(),
            env: variables.into_iter().collect(),
            limits: args.limits.to_wire(),
            approvals,
            ..ExecutionSpec::default()
        }),
        key: None,
    };
    let answer = daemon.executions().create(request).await?.into_inner();
    answer.execution.ok_or_else(incomplete)
}

/// What a session is called in a list: the beginning of what was first said.
fn subject(message: &str) -> String {
    let line = message.trim().lines().next().unwrap_or_default();
    line.chars().take(SUBJECT_CHARS).collect()
}
