//! The daemon: what lives as long as it does, and how it ends.
//!
//! Start: open the backends, lock the data directory, listen, clean up after a
//! daemon that was killed, open the registry and the record of executions,
//! serve, say so. A runner that the daemon supervises is started when there is
//! something for it to dial.
//!
//! End, when `shutdown` is over:
//! 1. Health says `NOT_SERVING`, and the runner is ended, while it still can
//!    say what became of its work.
//! 2. Nothing new is accepted, and background processes get SIGTERM, a grace
//!    period and SIGKILL. Other runners are told nothing more, and who follows
//!    an execution learns that it is cut off.
//! 3. Commands that clients wait for may end by themselves for [`PATIENCE`].
//! 4. Then they get the same, so that their clients see an exit.
//! 5. Calls that are still open after that are dropped with their connections.
//! 6. The registry is written down, and socket and PID file are removed.
//!
//! Dropping the future of [`run`] instead ends at once, which is what a second
//! signal is for. No process is left either way: the native backend's commands
//! watch for the end of this process.

pub(crate) mod about;
mod listen;
mod lock;
pub(crate) mod metrics;
mod policy;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stigmer_sdk::{Error, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agents::Agents;
use crate::config::{Config, Mode};
use crate::grpc::serve::{Health, Listeners, Served, serve};
use crate::guard::Guard;
use crate::local::pid_file::{Identity, PidFile};
use crate::local::supervisor::{self, Launch, Supervisor};
use crate::logging::LogFile;
use crate::registry::Registry;
use crate::sandboxes::{Clock, Manager};
use about::About;
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
/// called once both listeners serve. With a log for an agent runner, it
/// supervises one.
///
/// # Errors
/// `AlreadyExists` if the data directory has a daemon, `Unavailable` if the
/// port is taken, and whatever else keeps the daemon from starting.
pub async fn run(
    config: Config,
    runner_log: Option<LogFile>,
    ready: impl FnOnce(&Listening) + Send,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let registry = Registry::open(&config).await?;
    run_with(config, registry, runner_log, PATIENCE, ready, shutdown).await
}

async fn run_with(
    config: Config,
    registry: Registry,
    runner_log: Option<LogFile>,
    patience: Duration,
    ready: impl FnOnce(&Listening) + Send,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let config = Arc::new(config);
    let _data_dir = DataDir::lock(&config.data_dir)?;
    let this = Identity::this()
        .map_err(|error| Error::internal("cannot tell who this process is", error))?;
    let _pid_file = PidFile::write(config.data_dir.join("daemon.pid"), &this)?;
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
    let policy = policy::of(&config);
    let agents = Agents::open(&config.data_dir, Arc::clone(&manager), policy)?;

    let (unix, _socket_file) = listen::unix(&config.socket_path())?;
    let listening = Listening {
        tcp: address,
        socket: config.socket_path(),
    };
    let metrics = Arc::new(Metrics::default());
    let health = Health::new().await;
    let stop = CancellationToken::new();

    // What its runner dials is there, if not served yet: it waits in the kernel's queue.
    let supervisor = match runner_log {
        Some(log) => {
            let launch = Launch::new(&config, &listening, log)?;
            Some(Supervisor::start(launch, agents.watch_registered()))
        }
        None => None,
    };
    let about = About {
        started_ms: this.started_ms(),
        listening: listening.clone(),
        runner: supervisor.as_ref().map(Supervisor::status),
    };

    // Aborted when this function ends, in whatever way.
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&manager).upkeep());
    tasks.spawn(Arc::clone(&agents).upkeep());
    if let Some(supervisor) = &supervisor {
        tasks.spawn(give_up_with(supervisor.status(), Arc::clone(&agents)));
    }
    if let Some(listener) = metrics_listener {
        tasks.spawn(metrics::serve(
            listener,
            Arc::clone(&metrics),
            Arc::clone(&manager),
        ));
    }
    let mut serving = JoinSet::new();
    serving.spawn(serve(
        Served {
            config: Arc::clone(&config),
            manager: Arc::clone(&manager),
            agents: Arc::clone(&agents),
            about,
        },
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
    if let Some(supervisor) = supervisor {
        supervisor.stop().await;
    }
    stop.cancel();
    agents.close();
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

/// Once the runner stays down, nothing waits for it.
async fn give_up_with(mut runner: watch::Receiver<supervisor::Status>, agents: Arc<Agents>) {
    let failed = runner.wait_for(|runner| runner.state == supervisor::State::Failed);
    let Ok(how) = failed.await.map(|runner| runner.last_failure.clone()) else {
        return;
    };
    if let Err(error) = agents.give_up(how).await {
        tracing::error!(%error, "cannot end what waits for a runner");
    }
}

/// Steps 2 to 5 of the end.
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
