//! The daemon: what lives as long as it does, and how it ends.
//!
//! Start: open the backends, lock the data directory, listen, clean up after a
//! daemon that was killed, open the registry, serve, say so.
//!
//! End, when `shutdown` is over:
//! 1. Health says `NOT_SERVING`, nothing new is accepted, and background
//!    processes get SIGTERM, a grace period and SIGKILL.
//! 2. Commands that clients wait for may end by themselves for [`PATIENCE`].
//! 3. Then they get the same, so that their clients see an exit.
//! 4. Calls that are still open after that are dropped with their connections.
//! 5. The registry is written down, and the socket removed.
//!
//! Dropping the future of [`run`] instead ends at once, which is what a second
//! signal is for. No process is left either way: the native backend's commands
//! watch for the end of this process.

mod listen;
mod lock;
pub(crate) mod metrics;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stigmer_sdk::{Error, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Mode};
use crate::grpc::serve::{Health, Listeners, serve};
use crate::guard::Guard;
use crate::registry::Registry;
use crate::sandboxes::{Clock, Manager};
use lock::DataDir;
use metrics::Metrics;

/// How long running commands may go on when the daemon is asked to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last answers may take to reach their clients, and what was
/// given up to end, once commands were killed.
const LAST_WORDS: Duration = Duration::from_secs(6);

/// What a daemon that is ready listens on.
#[derive(Clone, Debug)]
pub struct Listening {
    pub tcp: SocketAddr,
    pub socket: PathBuf,
}

/// Runs the daemon until `shutdown` is over, then ends gracefully. `ready` is
/// called once both listeners serve.
///
/// # Errors
/// `AlreadyExists` if the data directory has a daemon, `Unavailable` if the
/// port is taken, and whatever else keeps the daemon from starting.
pub async fn run(
    config: Config,
    ready: impl FnOnce(&Listening) + Send,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let registry = Registry::open(&config).await?;
    run_with(config, registry, PATIENCE, ready, shutdown).await
}

async fn run_with(
    config: Config,
    registry: Registry,
    patience: Duration,
    ready: impl FnOnce(&Listening) + Send,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let config = Arc::new(config);
    let _data_dir = DataDir::lock(&config.data_dir)?;
    // Before anything is cleaned or opened: the likeliest failure comes first.
    let (tcp, address) = listen::tcp(config.port).await?;
    let metrics_listener = match config.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };

    let found = registry.recover().await?;
    let guard = Guard::from_config(&config, TaskTracker::new());
    let manager = Manager::open(
        &config.data_dir,
        registry,
        Arc::clone(&guard),
        Clock::system(),
    )?;
    for (backend, sandboxes) in &found {
        manager.reconcile(backend, sandboxes).await?;
    }

    let (unix, _socket_file) = listen::unix(&config.socket_path())?;
    let listening = Listening {
        tcp: address,
        socket: config.socket_path(),
    };
    let metrics = Arc::new(Metrics::default());
    let health = Health::new().await;
    let stop = CancellationToken::new();

    // Aborted when this function ends, in whatever way.
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&manager).upkeep());
    if let Some(listener) = metrics_listener {
        tasks.spawn(metrics::serve(
            listener,
            Arc::clone(&metrics),
            Arc::clone(&manager),
        ));
    }
    let mut serving = JoinSet::new();
    serving.spawn(serve(
        Arc::clone(&config),
        Arc::clone(&manager),
        Listeners { tcp, unix },
        health.clone(),
        metrics,
        stop.clone(),
    ));

    health.set(true).await;
    tracing::info!(
        tcp = %listening.tcp,
        socket = %listening.socket.display(),
        mode = match config.mode { Mode::Local => "local", Mode::Cloud => "cloud" },
        "serving"
    );
    ready(&listening);

    tokio::select! {
        () = shutdown => {}
        ended = serving.join_next() => return outcome(ended),
    }
    tracing::info!("shutting down");
    health.set(false).await;
    stop.cancel();
    let served = drain(&manager, &guard, patience, &mut serving).await;
    tasks.shutdown().await;
    guard.tasks.close();
    // What is still being ended has its own deadlines; this one is for the rest.
    if tokio::time::timeout(LAST_WORDS, guard.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("some commands did not end in time");
    }
    manager.flush().await?;
    served
}

/// Steps 1 to 4 of the end.
async fn drain(
    manager: &Arc<Manager>,
    guard: &Guard,
    patience: Duration,
    serving: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let grace = guard.limits.grace;
    let background = async {
        let handles = manager.handles();
        let stops = handles
            .iter()
            .map(|handle| handle.processes.stop_all(grace));
        futures_util::future::join_all(stops).await;
    };
    let calls = async {
        if let Ok(ended) = tokio::time::timeout(patience, serving.join_next()).await {
            return outcome(ended);
        }
        guard.end_commands();
        match tokio::time::timeout(grace + LAST_WORDS, serving.join_next()).await {
            Ok(ended) => outcome(ended),
            Err(_) => {
                tracing::warn!("some calls did not end in time");
                serving.shutdown().await;
                Ok(())
            }
        }
    };
    let ((), served) = tokio::join!(background, calls);
    served
}

fn outcome(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match ended {
        None => Ok(()),
        Some(Ok(served)) => served,
        Some(Err(error)) => Err(Error::internal("the server's task failed", error)),
    }
}

#[cfg(test)]
mod tests;
