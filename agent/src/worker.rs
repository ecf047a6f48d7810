//! The runner's own life: find the daemon, register, and claim executions until
//! told to stop.
//!
//! ```text
//! connecting ─▶ registered ──shutdown──▶ letting go ─▶ over
//!     ▲             │
//!     └─ back-off ──┘ the registration ended: all leases are lost
//! ```
//!
//! Whoever is registered holds a stream open. What the daemon asks of executions
//! comes over it, and its end is how either side learns that the other is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_core::future::BoxFuture;
use stigmer_sdk::wire::agent::{self, register_response::What};
use stigmer_sdk::{Error, ErrorCode};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Streaming;

use crate::Config;
use crate::daemon::{Daemon, from_status, incomplete, within};
use crate::ending::Why;
use crate::error::RunnerError;
use crate::execution;
use crate::model;
use crate::prepare::{Claimed, Shared};
use crate::sandbox::told;
use crate::turn::Held;

/// How long a runner waits for a daemon that it has never seen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the daemon may take to notice that a runner of the same name is gone.
const NOTICING: Duration = Duration::from_secs(5);
/// Between attempts, growing from one to the other.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long the daemon has to answer a registration.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a claim waits for work.
const CLAIM_WAIT: Duration = Duration::from_secs(30);
/// And how much later its answer may come.
const CLAIM_MARGIN: Duration = Duration::from_secs(10);
/// After a claim that failed.
const CLAIM_PAUSE: Duration = Duration::from_secs(1);
/// How long executions may take to let go of what they do.
const LETTING_GO: Duration = Duration::from_millis(3700);

/// Works for the daemon until `shutdown`. `ready` is called once, when the
/// daemon knows of this runner.
///
/// A daemon that goes away is looked for until it is back. What was being
/// worked on is no longer this runner's then, and is dropped.
///
/// # Errors
/// If the daemon cannot be reached within half a minute of the start, or does
/// not want this runner.
pub async fn run(
    config: Config,
    ready: impl FnOnce() + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunnerError> {
    let providers = config.providers.clone();
    let shared = Arc::new(Shared {
        providers: config.providers.clone(),
        connect: Box::new(move |provider| model::connect(&providers, provider)),
    });
    let runner = Runner { config, shared };
    let mut shutdown = std::pin::pin!(shutdown);
    let mut ready = Some(ready);
    let mut lost = None;
    loop {
        let registering = runner.registered(lost.take());
        let registration = tokio::select! {
            registration = registering => registration?,
            () = &mut shutdown => return Ok(()),
        };
        if let Some(ready) = ready.take() {
            ready();
        }
        match runner.serve(registration, shutdown.as_mut()).await {
            Served::ShutDown => return Ok(()),
            Served::Lost(error) => {
                tracing::warn!(error = told(&error), "lost the daemon; looking for it");
                lost = Some(error);
            }
        }
    }
}

/// A runner that the daemon knows of.
struct Registration {
    daemon: Daemon,
    instructions: Streaming<agent::RegisterResponse>,
}

/// Why serving ended.
enum Served {
    ShutDown,
    Lost(Error),
}

type HeldById = Arc<Mutex<HashMap<String, Arc<Held>>>>;

fn lock(held: &HeldById) -> MutexGuard<'_, HashMap<String, Arc<Held>>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Runner {
    config: Config,
    shared: Arc<Shared>,
}

impl Runner {
    /// Registers with the daemon, once it is there. One that was there before
    /// is waited for without end.
    async fn registered(&self, lost: Option<Error>) -> Result<Registration, RunnerError> {
        let again = lost.is_some();
        let begun = Instant::now();
        let mut pause = BACK_OFF.0;
        loop {
            let problem = match self.register().await {
                Ok(registration) => return Ok(registration),
                Err(problem) => problem,
            };
            let passes = match &problem {
                RunnerError::Unreachable { .. } => again || begun.elapsed() + pause < PATIENCE,
                RunnerError::Refused { source, .. } => {
                    source.code() == ErrorCode::AlreadyExists
                        && (again || begun.elapsed() + pause < NOTICING)
                }
                RunnerError::Endpoint { .. } | RunnerError::Key => false,
            };
            if !passes {
                return Err(problem);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    async fn register(&self) -> Result<Registration, RunnerError> {
        let endpoint = &self.config.endpoint;
        let daemon = Daemon::connect(endpoint, &self.config.api_key).await?;
        let providers = &self.config.providers;
        let default_model = || providers.default.default_model().to_owned();
        let request = agent::RegisterRequest {
            runner_id: self.config.runner_id.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            provider: providers.default.as_str().to_owned(),
            model: providers.model.clone().unwrap_or_else(default_model),
        };
        // No deadline on the call itself: it lasts for as long as the runner.
        let registering = async {
            let answer = daemon.runners().register(request).await;
            let mut instructions = answer.map_err(from_status)?.into_inner();
            let first = instructions.message().await.map_err(from_status)?;
            match first.and_then(|first| first.what) {
                Some(What::Registered(_)) => Ok(instructions),
                _ => Err(incomplete("registered")),
            }
        };
        let silent = |_| Err(Error::new(ErrorCode::Unavailable, "it does not answer"));
        let registered = tokio::time::timeout(REGISTER_TIMEOUT, registering).await;
        let instructions = registered.unwrap_or_else(silent).map_err(|source| {
            let endpoint = endpoint.clone();
            match source.code() {
                ErrorCode::Unavailable => RunnerError::Unreachable { endpoint, source },
                _ => RunnerError::Refused { endpoint, source },
            }
        })?;
        tracing::info!(
            runner = self.config.runner_id,
            endpoint,
            "registered with the daemon"
        );
        Ok(Registration {
            daemon,
            instructions,
        })
    }

    /// Claims and works until told to stop, or until the registration ends.
    async fn serve(
        &self,
        registration: Registration,
        mut shutdown: std::pin::Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Served {
        let Registration {
            daemon,
            mut instructions,
        } = registration;
        let held = HeldById::default();
        let mut executions = JoinSet::new();
        let mut claim: Option<BoxFuture<'static, Result<Option<Claimed>, Error>>> = None;
        let served = loop {
            if claim.is_none() && executions.len() < self.config.concurrency.max(1) {
                claim = Some(Box::pin(next(
                    daemon.clone(),
                    self.config.runner_id.clone(),
                )));
            }
            let claiming = async {
                match &mut claim {
                    Some(claim) => claim.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut shutdown => break Served::ShutDown,
                instruction = instructions.message() => match instruction {
                    Ok(Some(instruction)) => follow(instruction, &held),
                    Ok(None) => break Served::Lost(Error::new(
                        ErrorCode::Unavailable,
                        "the daemon ended the registration",
                    )),
                    Err(status) => break Served::Lost(from_status(status)),
                },
                Some(ended) = executions.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an execution broke the runner; its lease will lapse");
                    }
                }
                claimed = claiming => {
                    claim = None;
                    match claimed {
                        Ok(Some(claimed)) => {
                            let (id, mine) = keep(&held, &claimed);
                            let (shared, daemon) = (Arc::clone(&self.shared), daemon.clone());
                            let held = Arc::clone(&held);
                            executions.spawn(async move {
                                execution::work(shared, daemon, claimed, mine).await;
                                lock(&held).remove(&id);
                            });
                        }
                        Ok(None) => {}
                        Err(error) => break Served::Lost(error),
                    }
                }
            }
        };
        drop(claim);
        let why = match served {
            Served::ShutDown => Why::Stopped,
            Served::Lost(_) => Why::Lost,
        };
        for held in lock(&held).values() {
            held.ending.end(why.clone());
        }
        // Those that do not let go in time are dropped, and their calls reset.
        let all = async { while executions.join_next().await.is_some() {} };
        tokio::time::timeout(LETTING_GO, all).await.ok();
        // Held until here: its end gives up what is still held.
        drop(instructions);
        served
    }
}

/// Puts an execution where instructions find it.
fn keep(held: &HeldById, claimed: &Claimed) -> (String, Arc<Held>) {
    let id = claimed.execution.execution_id.clone();
    tracing::info!(
        execution = id,
        session = claimed.execution.session_id,
        "claimed an execution"
    );
    let mine = Arc::<Held>::default();
    lock(held).insert(id.clone(), Arc::clone(&mine));
    (id, mine)
}

/// Passes on what is asked of an execution. Of one that is over, nothing can be
/// asked any more.
fn follow(instruction: agent::RegisterResponse, held: &HeldById) {
    match instruction.what {
        Some(What::CancelRequested(cancel)) => {
            if let Some(held) = lock(held).get(&cancel.execution_id) {
                held.ending.end(Why::Cancelled(cancel.reason));
            }
        }
        Some(What::Decided(decision)) => {
            if let Some(held) = lock(held).get(&decision.execution_id) {
                held.decide(decision);
            }
        }
        Some(What::Registered(_)) | None => {}
    }
}

/// Waits for an execution. `None` if none came, or none that makes sense.
///
/// # Errors
/// If this runner is not registered any more.
async fn next(daemon: Daemon, runner_id: String) -> Result<Option<Claimed>, Error> {
    let request = agent::ClaimRequest {
        runner_id,
        wait_ms: u64::try_from(CLAIM_WAIT.as_millis()).unwrap_or(u64::MAX),
    };
    let answer = daemon
        .runners()
        .claim(within(CLAIM_WAIT + CLAIM_MARGIN, request))
        .await;
    match answer {
        Ok(answer) => match answer.into_inner().work.map(Claimed::try_from) {
            Some(Err(error)) => {
                tracing::error!(error = told(&error), "an execution makes no sense");
                Ok(None)
            }
            Some(Ok(claimed)) => Ok(Some(claimed)),
            None => Ok(None),
        },
        Err(status) if status.code() == tonic::Code::FailedPrecondition => Err(from_status(status)),
        Err(status) => {
            let error = from_status(status);
            tracing::warn!(error = told(&error), "cannot claim an execution");
            tokio::time::sleep(CLAIM_PAUSE).await;
            Ok(None)
        }
    }
}
