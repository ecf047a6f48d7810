//! Runs cases: several at a time, each under a deadline, and each cleaned up
//! after whatever becomes of it.
//!
//! A [`Context`] owns the sandboxes that its case made. They are destroyed
//! when the case has passed, failed, panicked or met its deadline; a sandbox
//! that cannot be destroyed fails the case. Only a run that is itself dropped
//! leaves sandboxes behind.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::check::{Stop, Verdict, describe_error, equal, ok, skip};
use super::report::{CaseResult, Failure, Outcome, Report};
use super::subject::Subject;
use super::{Case, cases};
use crate::{Backend, Feature, Result, Sandbox, SandboxId, SandboxSpec};

/// Restarts whatever the backend runs in, and gives a backend over the same
/// state. The one before is not used again.
pub type Reopen = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Backend>>> + Send + Sync>;

/// What to judge, and how.
#[derive(Clone)]
pub struct Options {
    /// The backend that is judged.
    pub backend: Arc<dyn Backend>,
    /// What sandboxes are made from; a case adds what it needs. Default: the
    /// backend's own choice of everything.
    pub template: SandboxSpec,
    /// How to restart the backend. Without it, the cases on that are skipped.
    pub reopen: Option<Reopen>,
    /// Whether the sandbox's roots contain `/`, as in a container of its own,
    /// so that no path leads out. Default: they do not.
    pub whole_filesystem: bool,
    /// Cases at a time. Default: 4.
    pub concurrency: NonZeroUsize,
    /// Only the cases with this in their name. Default: all.
    pub filter: Option<String>,
    /// What one case may take. Default: a minute.
    pub deadline: Duration,
}

impl Options {
    /// Everything at its default.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            template: SandboxSpec::default(),
            reopen: None,
            whole_filesystem: false,
            concurrency: const { NonZeroUsize::new(4).unwrap() },
            filter: None,
            deadline: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("backend", &self.backend)
            .field("concurrency", &self.concurrency)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

/// What the cases of a run share.
struct Shared {
    options: Options,
    /// Replaced by the case that restarts the backend, which runs alone.
    backend: Mutex<Arc<dyn Backend>>,
}

/// What a case is given: the backend, and the sandboxes it makes.
pub struct Context {
    shared: Arc<Shared>,
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<dyn Sandbox>>>,
    /// What was done so far, for the report.
    steps: Arc<Mutex<Vec<String>>>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("sandboxes", &lock(&self.sandboxes).keys())
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        lock(&self.shared.backend).clone()
    }

    /// What a sandbox is made from unless the case needs more.
    pub(super) fn template(&self) -> SandboxSpec {
        self.shared.options.template.clone()
    }

    /// A fresh sandbox.
    pub(super) async fn sandbox(&self) -> Verdict<Subject> {
        self.create(self.template()).await
    }

    /// A fresh sandbox of this kind, which must be possible.
    pub(super) async fn create(&self, spec: SandboxSpec) -> Verdict<Subject> {
        let created = self.try_create(spec).await;
        ok("create a sandbox", created)
    }

    pub(super) async fn try_create(&self, spec: SandboxSpec) -> Result<Subject> {
        self.note("create a sandbox");
        let sandbox = self.backend().create(spec).await?;
        Ok(self.adopt(sandbox))
    }

    /// Takes over a sandbox, to be destroyed after the case. A second handle
    /// on one replaces the first.
    pub(super) fn adopt(&self, sandbox: Arc<dyn Sandbox>) -> Subject {
        let id = sandbox.info().id.clone();
        lock(&self.sandboxes).insert(id, sandbox.clone());
        Subject::new(sandbox, self.steps.clone())
    }

    /// Restarts the backend, or skips the case if nobody said how.
    pub(super) async fn reopen(&self) -> Verdict<Arc<dyn Backend>> {
        let Some(reopen) = &self.shared.options.reopen else {
            return skip("no way to restart the backend was given");
        };
        self.note("restart the backend");
        let backend = ok("restart the backend", reopen().await)?;
        *lock(&self.shared.backend) = backend.clone();
        Ok(backend)
    }

    pub(super) fn has(&self, feature: Feature) -> bool {
        self.backend().describe().has(feature)
    }

    /// Skips the case unless the backend declares this.
    pub(super) fn needs(&self, feature: Feature) -> Verdict {
        if self.has(feature) {
            return Ok(());
        }
        skip(format!("the backend does not declare {}", feature.as_str()))
    }

    /// Skips the case if no path leads out of the sandbox.
    pub(super) fn needs_an_outside(&self) -> Verdict {
        if self.shared.options.whole_filesystem {
            return skip("the sandbox's roots contain /, so that no path leads out");
        }
        Ok(())
    }

    /// A directory outside of a sandbox, which is another sandbox's, so that a
    /// backend that lets a case out of the first destroys nothing else. Where
    /// both have the same paths, it is one that does not exist.
    pub(super) async fn outside(&self, of: &Subject) -> Verdict<Outside> {
        self.needs_an_outside()?;
        let other = self.sandbox().await?;
        other.write("outside/file", "canary").await?;
        let same = other.sandbox.info().workspace == of.sandbox.info().workspace;
        let directory = match same {
            true => "/no-such-directory-for-stigmer".to_owned(),
            false => other.absolute("outside"),
        };
        Ok(Outside { other, directory })
    }

    /// Remembers what is about to be done.
    pub(super) fn note(&self, step: impl Into<String>) {
        lock(&self.steps).push(step.into());
    }

    async fn clean_up(&self) -> std::result::Result<(), String> {
        let sandboxes = std::mem::take(&mut *lock(&self.sandboxes));
        for (id, sandbox) in sandboxes {
            match tokio::time::timeout(Duration::from_secs(30), sandbox.destroy()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(format!("{id}: {}", describe_error(&error))),
                Err(_) => return Err(format!("{id}: no answer in 30 s")),
            }
        }
        Ok(())
    }
}

/// What no path in a sandbox may lead to.
pub(super) struct Outside {
    other: Subject,
    /// Absolute. Has one entry, `file`.
    pub(super) directory: String,
}

impl Outside {
    /// Nothing was written, moved or removed there.
    pub(super) async fn is_untouched(&self) -> Verdict {
        let names = self.other.names("outside").await?;
        equal("what is outside", names, vec!["file".to_owned()])?;
        let canary = self.other.read("outside/file").await?;
        equal("the file outside", canary, b"canary".to_vec())
    }
}

/// A panic is caught per case, and leaves nothing half-done under a lock.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the cases and says what came of each. Needs a tokio runtime with time.
pub async fn run(options: Options) -> Report {
    let started = Instant::now();
    let chosen = cases().iter().copied().enumerate().filter(|(_, case)| {
        let filter = options.filter.as_deref();
        filter.is_none_or(|filter| case.name.contains(filter))
    });
    let (alone, together): (Vec<_>, Vec<_>) = chosen.partition(|(_, case)| case.alone);
    let shared = Arc::new(Shared {
        backend: Mutex::new(options.backend.clone()),
        options,
    });

    let concurrency = shared.options.concurrency.get();
    let mut results = run_some(&shared, together, concurrency).await;
    results.extend(run_some(&shared, alone, 1).await);
    results.sort_by_key(|(index, _)| *index);
    Report {
        backend: shared.options.backend.describe(),
        results: results.into_iter().map(|(_, result)| result).collect(),
        duration: started.elapsed(),
    }
}

async fn run_some(
    shared: &Arc<Shared>,
    cases: Vec<(usize, &'static Case)>,
    concurrency: usize,
) -> Vec<(usize, CaseResult)> {
    let mut results = Vec::with_capacity(cases.len());
    let mut running = JoinSet::new();
    for (index, case) in cases {
        if running.len() >= concurrency {
            results.extend(running.join_next().await.map(joined));
        }
        let shared = shared.clone();
        running.spawn(async move { (index, run_one(shared, case).await) });
    }
    while let Some(result) = running.join_next().await {
        results.push(joined(result));
    }
    results
}

fn joined<T>(result: std::result::Result<T, tokio::task::JoinError>) -> T {
    result.expect("a case's panics are caught inside its task, and nobody aborts it")
}

async fn run_one(shared: Arc<Shared>, case: &'static Case) -> CaseResult {
    let deadline = shared.options.deadline;
    let cx = Context {
        shared,
        sandboxes: Mutex::default(),
        steps: Arc::default(),
    };
    let started = Instant::now();
    let verdict = tokio::time::timeout(deadline, guarded((case.run)(&cx))).await;
    let duration = started.elapsed();
    let cleaned = guarded(cx.clean_up()).await;
    let failed = |what: &str, expected: &str, got: String| Stop::Failed {
        what: what.to_owned(),
        expected: expected.to_owned(),
        got,
    };
    let verdict = match verdict {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(panic)) => Err(failed("the case as a whole", "no panic", panic)),
        Err(_) => Err(failed(
            "the case as a whole",
            &format!("an end within {deadline:?}"),
            "none: it hangs in or after the last step".to_owned(),
        )),
    };
    let cleaned = cleaned
        .and_then(|cleaned| cleaned)
        .map_err(|problem| failed("destroy the sandbox after the case", "success", problem));
    let outcome = match (verdict, cleaned) {
        (
            Err(Stop::Failed {
                what,
                expected,
                got,
            }),
            _,
        )
        | (
            _,
            Err(Stop::Failed {
                what,
                expected,
                got,
            }),
        ) => Outcome::Failed(Failure {
            what,
            expected,
            got,
            steps: std::mem::take(&mut *lock(&cx.steps)),
        }),
        (Err(Stop::Skipped(reason)), _) | (_, Err(Stop::Skipped(reason))) => {
            Outcome::Skipped { reason }
        }
        (Ok(()), Ok(())) => Outcome::Passed,
    };
    CaseResult {
        case,
        outcome,
        duration,
    }
}

/// What a future comes to, or what it panicked with.
async fn guarded<T>(future: impl Future<Output = T>) -> std::result::Result<T, String> {
    AssertUnwindSafe(future)
        .catch_unwind()
        .await
        .map_err(|panic| format!("a panic: {}", panic_message(panic.as_ref())))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    if let Some(message) = panic.downcast_ref::<&str>() {
        message
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message
    } else {
        "of an unknown kind"
    }
}
