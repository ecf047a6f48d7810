//! The command line: what can be typed, and who does it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`value`] | values as people type them, and the environment |
//! | [`exec`], [`run_args`], [`follow`], [`events`], [`terminal`] | a command and the person in front of it |
//! | [`sandbox`], [`daemon`] | the daemon's clients |
//! | [`local`] | the daemon of this machine, from start to stop |
//! | [`run`], [`execution`], [`session`] | agents at work, and what they did |
//! | [`agent_runner`] | what asks a language model, under a daemon or by hand |
//! | [`server`], [`settings`], [`doctor`], [`bench`] | the daemon in the foreground, configuration, diagnosis, figures |
//! | [`output`], [`failure`], [`exit`] | what is printed, and the exit code |
//!
//! Nothing here reads a variable or a config file on its own: the environment
//! comes in once, and [`config`](crate::config) says what it means.

mod agent_runner;
mod bench;
mod daemon;
mod doctor;
mod events;
mod exec;
mod execution;
mod exit;
mod failure;
mod follow;
mod local;
mod output;
mod run;
mod run_args;
mod sandbox;
mod server;
mod session;
mod settings;
mod terminal;
mod value;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use stigmer_sdk::ExitStatus;
use tokio::runtime::{Builder, Runtime};

use self::daemon::Daemon;
use self::exit::{Habit, Outcome, Reason};
use self::failure::{Failure, Result};
use self::output::Output;
use self::value::Environment;
use crate::config::{self, Config, Entry, Flags, Problem};
use crate::local::private;
use crate::logging;

/// Runs an AI agent's commands and file operations in a sandbox.
#[derive(Debug, Parser)]
#[command(
    name = "stigmer",
    version,
    after_help = "\
Examples:
  stigmer exec -- cargo test                run a command in a sandbox, no daemon needed
  stigmer local start                       start the daemon, with an agent runner
  stigmer run 'fix the failing test'        have an agent work in a sandbox
  stigmer sandbox create web --root ./app   create a sandbox in it
  stigmer doctor                            see what this machine can do"
)]
struct Cli {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Infrastructure to use: local or cloud
    #[arg(long, global = true, value_name = "MODE")]
    mode: Option<String>,

    /// Where Stigmer keeps its data [default: ~/.stigmer]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where the daemon is: host:port or unix:/path
    #[arg(long, global = true, value_name = "ENDPOINT")]
    endpoint: Option<String>,

    /// What to log: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,

    /// How to log: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,

    /// Print data and errors only
    #[arg(long, global = true)]
    quiet: bool,
}

impl Global {
    fn flags(&self) -> Flags {
        Flags {
            mode: self.mode.clone(),
            data_dir: self.data_dir.clone(),
            endpoint: self.endpoint.clone(),
            log_level: self.log_level.clone(),
            log_format: self.log_format.clone(),
            ..Flags::default()
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command in a sandbox of its own, without a daemon
    #[command(after_help = exec::after_help())]
    Exec(exec::ExecArgs),

    /// Give an agent something to do, and watch it
    #[command(after_help = run::after_help())]
    Run(Box<run::RunArgs>),

    /// Work with what agents do and did
    #[command(subcommand, visible_alias = "exe", after_help = execution::AFTER_HELP)]
    Execution(execution::Command),

    /// Work with conversations with agents
    #[command(subcommand, after_help = session::AFTER_HELP)]
    Session(session::Command),

    /// Work with the sandboxes of the daemon
    #[command(subcommand, visible_alias = "sb", after_help = sandbox::AFTER_HELP)]
    Sandbox(sandbox::Command),

    /// Start, stop and look after the daemon of this machine
    #[command(subcommand, after_help = local::AFTER_HELP)]
    Local(local::Command),

    /// Run the daemon in the foreground
    #[command(after_help = server::AFTER_HELP)]
    Server(server::ServerArgs),

    /// Run an agent runner in the foreground, beside a daemon
    #[command(after_help = agent_runner::AFTER_HELP)]
    AgentRunner(agent_runner::AgentRunnerArgs),

    /// Show the configuration
    #[command(subcommand, after_help = settings::AFTER_HELP)]
    Config(settings::Command),

    /// Check what this machine can do, and say how to mend what it cannot
    #[command(after_help = doctor::AFTER_HELP)]
    Doctor(doctor::DoctorArgs),

    /// Measure what Stigmer costs on this machine, beside a floor or a peer
    #[command(after_help = bench::AFTER_HELP)]
    Bench(bench::BenchArgs),

    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  stigmer completions bash > ~/.local/share/bash-completion/completions/stigmer
  stigmer completions zsh > ~/.zfunc/_stigmer
  stigmer completions fish > ~/.config/fish/completions/stigmer.fish")]
    Completions {
        /// The shell that will read it
        shell: clap_complete::Shell,
    },
}

impl Command {
    fn habit(&self) -> Habit {
        match self {
            Self::Exec(_) => Habit::Exec,
            Self::Sandbox(command) => command.habit(),
            Self::Run(_)
            | Self::Execution(_)
            | Self::Session(_)
            | Self::Local(_)
            | Self::Server(_)
            | Self::AgentRunner(_)
            | Self::Config(_)
            | Self::Doctor(_)
            | Self::Bench(_)
            | Self::Completions { .. } => Habit::Plain,
        }
    }
}

/// Does what the arguments say, with this environment.
pub fn main(
    args: impl Iterator<Item = OsString>,
    vars: impl Iterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let environment = Environment::new(vars);
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return refused(&error, &args),
    };
    let no_colour = environment
        .vars
        .get("NO_COLOR")
        .is_some_and(|value| !value.is_empty());
    let output = Output::new(cli.global.quiet, no_colour);
    let habit = cli.command.habit();
    let code = match run(&cli, &environment, &output) {
        Ok(outcome) => {
            if outcome == Outcome::Command(ExitStatus::TimedOut) {
                output.note("timed out: the command was ended, with everything it had started");
            }
            habit.of_outcome(&outcome)
        }
        Err(failure) => {
            output.failure(&failure);
            habit.of_failure(failure.reason)
        }
    };
    ExitCode::from(code)
}

/// Prints what clap has to say: help, the version, or a usage error.
fn refused(error: &clap::Error, args: &[OsString]) -> ExitCode {
    // Nobody is there to be told that nobody is there.
    let _unwritable = error.print();
    if error.use_stderr() {
        ExitCode::from(habit_of(args).of_failure(Reason::Usage))
    } else {
        ExitCode::SUCCESS
    }
}

/// Whose exit codes arguments ask for that could not be parsed.
fn habit_of(args: &[OsString]) -> Habit {
    let mut words = Vec::new();
    let mut args = args.iter().skip(1).map(|arg| arg.to_string_lossy());
    while let Some(arg) = args.next() {
        match arg.as_ref() {
            "--mode" | "--data-dir" | "--endpoint" | "--log-level" | "--log-format" => {
                args.next();
            }
            flag if flag.starts_with('-') => {}
            word => words.push(word.to_owned()),
        }
        if words.len() == 2 {
            break;
        }
    }
    match words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["exec", ..] | ["sandbox" | "sb", "exec" | "shell"] => Habit::Exec,
        ["sandbox" | "sb", "grep"] => Habit::Grep,
        _ => Habit::Plain,
    }
}

fn run(cli: &Cli, environment: &Environment, output: &Output) -> Result<Outcome> {
    let mut flags = cli.global.flags();
    match &cli.command {
        Command::Exec(args) => {
            flags.sandbox.clone_from(&args.sandbox);
            flags.root.clone_from(&args.root);
            let config = load(Entry::Local, &flags, environment)?;
            if cli.global.log_level.is_some() {
                logging::init(&config, None)?;
            }
            block_on(
                Builder::new_current_thread(),
                exec::run(args, &config, environment, output),
            )
        }
        Command::Run(args) => {
            let config = load(Entry::Local, &flags, environment)?;
            block_on(
                Builder::new_current_thread(),
                run::run(args, &config, environment, output),
            )
        }
        Command::Execution(command) => {
            let config = load(Entry::Local, &flags, environment)?;
            block_on(Builder::new_current_thread(), async {
                execution::run(command, &Daemon::connect(&config).await?, output).await
            })
        }
        Command::Session(command) => {
            let config = load(Entry::Local, &flags, environment)?;
            block_on(Builder::new_current_thread(), async {
                session::run(command, &Daemon::connect(&config).await?, output).await
            })
        }
        Command::Sandbox(command) => {
            command.check()?;
            let config = load(Entry::Local, &flags, environment)?;
            block_on(
                Builder::new_current_thread(),
                sandbox::run(command, &config, environment, output),
            )
        }
        Command::Local(command) => local::run(command, flags, environment, output),
        Command::Server(args) => {
            args.add_to(&mut flags);
            let environment = args.environment(environment)?;
            let config = load(Entry::Daemon, &flags, &environment).map_err(|failure| {
                // By hand, no mode means cloud, which is not what a newcomer wants.
                if flags.mode.is_none() && !environment.vars.contains_key("MODE") {
                    failure.hint("for a local daemon: stigmer server --mode local")
                } else {
                    failure
                }
            })?;
            if config.holds_secrets() {
                private::keep_private()?;
            }
            logging::init(&config, args.log()?)?;
            block_on(
                Builder::new_multi_thread(),
                server::run(args, config, output),
            )
        }
        Command::AgentRunner(args) => {
            args.add_to(&mut flags);
            let environment = args.environment(environment)?;
            let config = load(Entry::Runner, &flags, &environment)?;
            if config.holds_secrets() {
                private::keep_private()?;
            }
            logging::init(&config, None)?;
            // A keeper does next to nothing, and does it in little memory.
            let builder = match config.agent_runner {
                Some(_) => Builder::new_current_thread(),
                None => Builder::new_multi_thread(),
            };
            block_on(builder, agent_runner::run(args, config, output))
        }
        Command::Config(settings::Command::Show(args)) => {
            settings::show(args, &load(Entry::Local, &flags, environment)?, output)
        }
        Command::Doctor(args) => {
            let config = load(Entry::Local, &flags, environment)?;
            block_on(
                Builder::new_current_thread(),
                doctor::run(args, &config, output),
            )
        }
        Command::Bench(args) => block_on(Builder::new_current_thread(), bench::run(args, output)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "stigmer", &mut script);
            output.bytes(&script)?;
            Ok(Outcome::Success)
        }
    }
}

/// Variables that Stigmer reads; the values of others may be any bytes.
const READ: [&str; 5] = [
    "MODE",
    "SANDBOX_TYPE",
    "SANDBOX_ROOT_DIR",
    "HOME",
    "NO_COLOR",
];
const READ_PREFIXES: [&str; 6] = [
    "STIGMER_",
    "REDIS_",
    "DAYTONA_",
    "ANTHROPIC_",
    "OPENAI_",
    "OLLAMA_",
];

fn unreadable(environment: &Environment) -> Vec<Problem> {
    let reads = |name: &str| {
        READ.contains(&name) || READ_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let unreadable = environment.unreadable.iter().filter(|name| reads(name));
    unreadable
        .map(|name| Problem(format!("the value of {name} is not UTF-8")))
        .collect()
}

fn load(entry: Entry, flags: &Flags, environment: &Environment) -> Result<Config> {
    let mut problems = unreadable(environment);
    match config::load(entry, flags, &environment.vars) {
        Ok(config) if problems.is_empty() => return Ok(config),
        Ok(_) => {}
        Err(more) => problems.extend(more),
    }
    Err(Failure::configuration(problems))
}

fn block_on<T>(mut builder: Builder, work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime: Runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start").because(&error))?;
    let result = runtime.block_on(work);
    // A thread that waits for stdin, or for a reader that never comes, must not
    // keep the process.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests;
