//! `stigmer server`: the daemon in the foreground, its log, and its end.

use std::path::PathBuf;

use clap::Args;
use stigmer_sdk::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::exec::NOT_CONTAINED;
use super::exit::Outcome;
use super::failure::{Failure, Result};
use super::output::Output;
use crate::config::{Config, Flags};
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
    }
}

pub(super) async fn run(args: &ServerArgs, config: Config, output: &Output) -> Result<Outcome> {
    let _ballast = vec![1_u8; args.ballast];
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
    let mut daemon = std::pin::pin!(server::run(config, ready, shutdown));
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
