//! `stigmer server`: the daemon in the foreground, its log, and its end.

use std::path::PathBuf;

use clap::Args;
use stigmer_sdk::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::agent_runner::{self, Unbuffered};
use super::exec::NOT_CONTAINED;
use super::exit::Outcome;
use super::failure::{Failure, Result};
use super::output::Output;
use super::value::Environment;
use crate::config::{Config, Flags};
use crate::local::handover::Handover;
use crate::local::{private, provider};
use crate::logging::LogFile;
use crate::server;

#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    /// The port on 127.0.0.1
    #[arg(long, value_name = "PORT")]
    port: Option<String>,

    /// The directory that is the workspace of sandboxes created without one
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// The backend of sandboxes created without one
    #[arg(long, value_name = "TYPE")]
    sandbox: Option<String>,

    /// Serve Prometheus metrics on this address
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,

    /// Who makes the model that agents ask: anthropic, openai or ollama
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,

    /// The model that agents ask when nobody says which
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Run an agent runner, and start it again if it ends
    #[arg(long)]
    agent_runner: bool,

    /// Take keys from stdin, up to its end, as if they were set: whoever
    /// starts a daemon in the background need not put them where others see them
    #[arg(long, hide = true)]
    handover: bool,

    /// Log to files in this directory, and not to stderr
    #[arg(long, value_name = "DIR", hide = true)]
    log_dir: Option<PathBuf>,

    /// Hold so many bytes of touched memory, for `stigmer bench`
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide = true)]
    ballast: usize,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer server --mode local
  MODE=local stigmer server --port 50052 --metrics 127.0.0.1:9090

Without a mode this is the cloud's daemon, which needs the cloud's variables.
One SIGTERM or Ctrl-C lets running commands end, a second one stops at once.";

impl ServerArgs {
    pub(super) fn add_to(&self, flags: &mut Flags) {
        flags.port.clone_from(&self.port);
        flags.root.clone_from(&self.root);
        flags.sandbox.clone_from(&self.sandbox);
        flags.metrics.clone_from(&self.metrics);
        flags.provider.clone_from(&self.provider);
        flags.model.clone_from(&self.model);
    }

    /// What is set around this process, with the keys that are handed over.
    pub(super) fn environment(&self, environment: &Environment) -> Result<Environment> {
        if !self.handover {
            return Ok(environment.clone());
        }
        private::keep_private()?;
        // A list of processes shows it, and /proc/self/exe is no name.
        let _unnamed = rustix::thread::set_name(c"stigmer");
        // Whoever started it may go, and their terminal with them.
        rustix::process::setsid().map_err(|error| {
            Failure::failed("cannot leave the session of whoever started this")
                .because(&std::io::Error::from(error))
        })?;
        let keys = Handover::read_all(Unbuffered)?;
        Ok(environment.with(&keys))
    }

    /// Where this daemon logs, if not to stderr.
    pub(super) fn log(&self) -> Result<Option<LogFile>> {
        let Some(directory) = &self.log_dir else {
            return Ok(None);
        };
        Ok(Some(LogFile::open(directory.join("daemon.log"))?))
    }

    /// Where the runner that this daemon supervises logs, if it does: also
    /// when the daemon itself logs to stderr, to a file.
    fn runner_log(&self, config: &Config) -> Result<Option<LogFile>> {
        if !self.agent_runner {
            return Ok(None);
        }
        let directory = match &self.log_dir {
            Some(directory) => directory.clone(),
            None => config.data_dir.join("logs"),
        };
        Ok(Some(LogFile::open(directory.join("agent-runner.log"))?))
    }
}

pub(super) async fn run(args: &ServerArgs, mut config: Config, output: &Output) -> Result<Outcome> {
    let _ballast = vec![1_u8; args.ballast];
    if args.agent_runner {
        agent_runner::available(&config)?;
        // Chosen once: a runner that is started again asks the same one.
        let provider = provider::choose(&config.llm).await;
        // What a script needs is for it to say.
        if config.agent_runner.is_none() {
            agent_runner::usable(&config.llm, provider)?;
        }
        config.llm.provider = Some(provider);
    }
    let runner_log = args.runner_log(&config)?;
    let failed =
        |error: std::io::Error| Failure::failed("cannot listen for signals").because(&error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let contains_nothing = config.sandbox == "filesystem";
    let ready = |listening: &server::Listening| {
        let line = format!(
            "listening on {} and {}",
            listening.tcp,
            listening.socket.display()
        );
        // Whoever started the daemon need not read this.
        if let Err(failure) = output.line(line) {
            output.failure(&failure);
        }
        if contains_nothing {
            // In the log and not beside it, where somebody may be parsing JSON.
            tracing::warn!("{}", NOT_CONTAINED.replace('\n', " "));
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let shutdown = async {
        // Dropped or sent: both mean the end.
        let _either = stopped.await;
    };
    let mut daemon = std::pin::pin!(server::run(config, runner_log, ready, shutdown));
    loop {
        let signal = tokio::select! {
            ended = &mut daemon => {
                ended?;
                return Ok(Outcome::Success);
            }
            _ = terminate.recv() => Signal::Terminate,
            _ = interrupt.recv() => Signal::Interrupt,
        };
        if stop.take().is_none() {
            return Err(Failure::interrupted(signal.number()));
        }
        tracing::info!("stopping; one more signal stops at once");
    }
}
