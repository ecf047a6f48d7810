//! `stigmer local`: the daemon of this machine, from start to stop.
//!
//! | module | owns |
//! | --- | --- |
//! | [`start`], [`stop`], [`restart`], [`status`], [`logs`] | one subcommand each |
//! | [`plan`] | what is asked for, how that differs from what runs, and the key it takes |
//! | [`prompt`] | a key that a person types |
//! | [`launch`] | the daemon's process until it is ready, or nothing of it is left |
//! | [`last_words`] | what they said before they failed |
//! | [`port`] | who is in the way when a port is taken |
//! | [`foreground`] | the same with a person, or a supervisor, in front of it |
//! | [`contact`] | asking the daemon of a data directory |
//! | [`process`] | the processes that PID files name, and the locks |
//! | [`log_files`], [`log_text`] | logs that are rotated while they are read, and for people |
//! | [`report`] | how everything is, as JSON |
//!
//! A daemon belongs to a data directory, and so do these commands: they go to
//! the socket in it, wherever other commands find a daemon.

mod contact;
mod foreground;
mod last_words;
mod launch;
mod log_files;
mod log_text;
mod logs;
mod plan;
mod port;
mod process;
mod prompt;
mod report;
mod restart;
mod start;
mod status;
mod stop;

use std::os::fd::OwnedFd;

use clap::Subcommand;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Outcome;
use super::failure::{Failure, Result};
use super::output::Output;
use super::value::Environment;
use crate::config::{Config, Entry, Flags, Mode};
use crate::local::private::keep_private;

pub(super) use start::ensure_running;

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer local start --sandbox filesystem
  stigmer local status
  stigmer local logs -f
  stigmer local stop

The daemon belongs to the data directory: another --data-dir has another daemon.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the daemon and its agent runner in the background
    #[command(after_help = start::AFTER_HELP)]
    Start(start::StartArgs),
    /// Stop the agent runner and the daemon
    #[command(after_help = stop::AFTER_HELP)]
    Stop(stop::StopArgs),
    /// Stop the daemon and start it again with the settings it had
    #[command(after_help = restart::AFTER_HELP)]
    Restart(restart::RestartArgs),
    /// Show how the daemon and the agent runner are; exits with 1 unless both are well
    #[command(after_help = status::AFTER_HELP)]
    Status(status::StatusArgs),
    /// Print what the daemon and the agent runner logged
    #[command(after_help = logs::AFTER_HELP)]
    Logs(logs::LogsArgs),
}

pub(super) fn run(
    command: &Command,
    mut flags: Flags,
    environment: &Environment,
    output: &Output,
) -> Result<Outcome> {
    // Before a key is read.
    keep_private()?;
    match command {
        Command::Start(args) => args.settings.add_to(&mut flags),
        Command::Restart(args) => args.settings.add_to(&mut flags),
        Command::Stop(_) | Command::Status(_) | Command::Logs(_) => {}
    }
    let config = load(&flags, environment)?;
    let builder = Builder::new_current_thread();
    match command {
        Command::Start(args) => super::block_on(builder, start::start(args, &config, output)),
        Command::Stop(args) => super::block_on(builder, stop::stop(args, &config, output)),
        Command::Restart(args) => super::block_on(
            builder,
            restart::restart(args, flags, &config, environment, output),
        ),
        Command::Status(args) => super::block_on(builder, status::status(args, &config, output)),
        Command::Logs(args) => super::block_on(builder, logs::logs(args, &config, output)),
    }
}

fn load(flags: &Flags, environment: &Environment) -> Result<Config> {
    let config = super::load(Entry::Local, flags, environment)?;
    match config.mode {
        Mode::Local => Ok(config),
        Mode::Cloud => Err(Failure::usage(
            "the mode is cloud, and `stigmer local` is about a daemon of local mode",
        )
        .hint("unset MODE, or say --mode local")),
    }
}

/// The signals that ask a command to end. Once somebody listens to them, they
/// end nothing by themselves any more, so that from then on every wait is one
/// for them too.
#[derive(Debug)]
pub(super) struct Interrupts([(i32, Signal); 3]);

impl Interrupts {
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind: SignalKind| match signal(kind) {
            Ok(signal) => Ok((kind.as_raw_value(), signal)),
            Err(error) => Err(Failure::failed("cannot listen for signals").because(&error)),
        };
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// The number of the next one.
    pub(super) async fn recv(&mut self) -> i32 {
        let [(interrupt, a), (terminate, b), (hangup, c)] = &mut self.0;
        tokio::select! {
            _ = a.recv() => *interrupt,
            _ = b.recv() => *terminate,
            _ = c.recv() => *hangup,
        }
    }

    /// Does `work`, unless one comes first.
    pub(super) async fn or<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            signal = self.recv() => Err(Failure::interrupted(signal)),
            done = work => done,
        }
    }
}

/// A descriptor to wait for.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe for the sake of descriptors that can be closed elsewhere, and an OwnedFd cannot"
)]
fn watched(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

/// To whom a command tells what it does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Voice<'a> {
    /// To who typed it.
    Stdout(&'a Output),
    /// Beside the data of another command.
    Stderr(&'a Output),
    /// To nobody: the answer is JSON.
    Silent(&'a Output),
}

impl<'a> Voice<'a> {
    fn new(json: bool, output: &'a Output) -> Self {
        if json {
            Self::Silent(output)
        } else {
            Self::Stdout(output)
        }
    }

    fn say(&self, line: impl AsRef<str>) -> Result<()> {
        match self {
            Self::Stdout(output) => output.say(line),
            Self::Stderr(output) => {
                output.note(line);
                Ok(())
            }
            Self::Silent(_) => Ok(()),
        }
    }

    fn output(&self) -> &'a Output {
        match self {
            Self::Stdout(output) | Self::Stderr(output) | Self::Silent(output) => output,
        }
    }
}
