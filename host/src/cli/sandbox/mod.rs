//! `stigmer sandbox`: the daemon's clients, one subcommand each.

mod commands;
mod copy;
mod files;
mod manage;
mod search;

use clap::Subcommand;

use super::daemon::Daemon;
use super::exit::{Habit, Outcome};
use super::failure::Result;
use super::output::Output;
use super::value::Environment;
use crate::config::Config;

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer sandbox create web --root ./app
  stigmer sandbox exec web -- npm test
  stigmer sandbox cp web:dist ./dist
  stigmer sandbox destroy web

A sandbox is named by its name or its id. These commands need a daemon:
stigmer local start";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a sandbox, or return the one that has this name
    #[command(after_help = manage::create_help())]
    Create(manage::CreateArgs),
    /// List sandboxes
    #[command(after_help = manage::LIST_HELP)]
    List(manage::ListArgs),
    /// Show everything about a sandbox
    #[command(after_help = "Example:\n  stigmer sandbox info web --json")]
    Info(manage::InfoArgs),
    /// Run a command in a sandbox
    #[command(after_help = commands::EXEC_HELP)]
    Exec(commands::ExecArgs),
    /// List, follow or stop background processes
    #[command(after_help = commands::PS_HELP)]
    Ps(commands::PsArgs),
    /// Open a shell in a sandbox
    #[command(after_help = "Example:\n  stigmer sandbox shell web")]
    Shell(commands::ShellArgs),
    /// List a directory
    #[command(after_help = "Examples:\n  stigmer sandbox ls web\n  stigmer sandbox ls web src -l")]
    Ls(files::LsArgs),
    /// Print a file
    #[command(
        after_help = "Examples:\n  stigmer sandbox cat web README.md\n  stigmer sandbox cat web data.bin --offset 1024 --length 16 | xxd"
    )]
    Cat(files::CatArgs),
    /// Write a file, from stdin or another file
    #[command(
        after_help = "Examples:\n  echo hello | stigmer sandbox write web notes/hello.txt\n  stigmer sandbox write web run.sh --from ./run.sh --permissions 0755"
    )]
    Write(files::WriteArgs),
    /// Replace exact text in a file
    #[command(
        after_help = "Examples:\n  stigmer sandbox edit web Cargo.toml --old '0.1.0' --new '0.2.0'\n  stigmer sandbox edit web main.c --old-file before.txt --new-file after.txt"
    )]
    Edit(files::EditArgs),
    /// Find files by name
    #[command(
        after_help = "Examples:\n  stigmer sandbox glob web '*.rs'\n  stigmer sandbox glob web 'src/**/*.{ts,tsx}' --gitignore"
    )]
    Glob(search::GlobArgs),
    /// Find lines by content; exits with 1 if there are none
    #[command(
        after_help = "Examples:\n  stigmer sandbox grep web TODO\n  stigmer sandbox grep web 'fn \\w+' src --regex --glob '*.rs' -C 2"
    )]
    Grep(search::GrepArgs),
    /// Copy files and trees between this machine and a sandbox
    #[command(after_help = copy::HELP)]
    Cp(copy::CpArgs),
    /// Move or rename within a sandbox
    #[command(after_help = "Example:\n  stigmer sandbox mv web old.txt new.txt")]
    Mv(files::MvArgs),
    /// Remove files, and directories with -r
    #[command(
        after_help = "Examples:\n  stigmer sandbox rm web old.txt\n  stigmer sandbox rm web -rf target"
    )]
    Rm(files::RmArgs),
    /// Create directories and their parents
    #[command(after_help = "Example:\n  stigmer sandbox mkdir web src/bin")]
    Mkdir(files::MkdirArgs),
    /// Destroy sandboxes and what runs in them
    #[command(after_help = "Example:\n  stigmer sandbox destroy web api")]
    Destroy(manage::DestroyArgs),
    /// Destroy sandboxes that expired, or all of them
    #[command(after_help = manage::PRUNE_HELP)]
    Prune(manage::PruneArgs),
}

impl Command {
    pub(super) fn habit(&self) -> Habit {
        match self {
            Self::Exec(_) | Self::Shell(_) => Habit::Exec,
            Self::Grep(_) => Habit::Grep,
            // Following a process passes its exit code through, but a failure is nobody's code.
            _ => Habit::Plain,
        }
    }

    /// Fails for what is wrong whatever the daemon says.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Exec(args) => args.check(),
            Self::Shell(_) => commands::check_shell(),
            Self::Cp(args) => args.check(),
            Self::Prune(args) => args.check(),
            _ => Ok(()),
        }
    }
}

pub(super) async fn run(
    command: &Command,
    config: &Config,
    environment: &Environment,
    output: &Output,
) -> Result<Outcome> {
    let daemon = &Daemon::connect(config).await?;
    match command {
        Command::Create(args) => manage::create(args, daemon, environment, output).await,
        Command::List(args) => manage::list(args, daemon, output).await,
        Command::Info(args) => manage::info(args, daemon, output).await,
        Command::Exec(args) => commands::exec(args, daemon, environment, output).await,
        Command::Ps(args) => commands::ps(args, daemon, output).await,
        Command::Shell(args) => commands::shell(args, daemon, environment, output).await,
        Command::Ls(args) => files::ls(args, daemon, output).await,
        Command::Cat(args) => files::cat(args, daemon).await,
        Command::Write(args) => files::write(args, daemon, output).await,
        Command::Edit(args) => files::edit(args, daemon, output).await,
        Command::Glob(args) => search::glob(args, daemon, output).await,
        Command::Grep(args) => search::grep(args, daemon, output).await,
        Command::Cp(args) => copy::cp(args, daemon, output).await,
        Command::Mv(args) => files::mv(args, daemon).await,
        Command::Rm(args) => files::rm(args, daemon).await,
        Command::Mkdir(args) => files::mkdir(args, daemon).await,
        Command::Destroy(args) => manage::destroy(args, daemon, output).await,
        Command::Prune(args) => manage::prune(args, daemon, output).await,
    }
}
