//! A sandbox under policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stigmer_sdk::{
    ByteRange, ByteStream, Command, EntryStream, ErrorCode, EventStream, GlobQuery, GlobResults,
    GrepQuery, GrepResults, InputStream, Metadata, Result, Sandbox, SandboxInfo, SandboxPath,
    Search, Stat, WriteOptions, async_trait,
};
use tracing::Instrument;

use super::audit::{Audit, Outcome, Subject};
use super::streams::{Counted, Watched, stalled, while_moving};
use super::{Guard, Timeout, command};
use crate::ops;

/// A sandbox under policy; it is a [`Sandbox`] itself, whose `exec` has the
/// default timeout and whose `search` is always there.
#[derive(Debug)]
pub struct GuardedSandbox {
    guard: Arc<Guard>,
    /// What the audit log calls it.
    name: String,
    inner: Arc<dyn Sandbox>,
}

impl GuardedSandbox {
    pub(super) fn new(guard: Arc<Guard>, name: &str, inner: Arc<dyn Sandbox>) -> Self {
        Self {
            guard,
            name: name.to_owned(),
            inner,
        }
    }

    /// Runs a command under a deadline: SIGTERM, the grace period, SIGKILL for
    /// the whole tree, and an exit of `TimedOut`. Dropping the events before
    /// the exit does the same in the background.
    ///
    /// # Errors
    /// `InvalidArgument` for a timeout above the maximum, `PermissionDenied`
    /// for a variable that may not be set, and those of [`Sandbox::exec`].
    pub async fn run(
        self: &Arc<Self>,
        command: Command,
        input: InputStream,
        timeout: Timeout,
    ) -> Result<EventStream> {
        self.start(command, input, timeout).await
    }

    /// This sandbox, for whom it need not be known that it is under policy.
    pub fn as_dyn(self: &Arc<Self>) -> Arc<dyn Sandbox> {
        Arc::clone(self) as Arc<dyn Sandbox>
    }

    /// The guard it is under.
    #[must_use]
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    async fn start(
        &self,
        command: Command,
        input: InputStream,
        timeout: Timeout,
    ) -> Result<EventStream> {
        let mut audit = self.audit("exec", Subject::command(&command));
        let started = async {
            self.guard.check_env(command.envs().keys())?;
            let timeout = timeout.under(&self.guard.limits)?;
            command::start(&self.guard, &*self.inner, command, input, timeout).await
        };
        match started.instrument(audit.span()).await {
            Ok(running) => Ok(Box::pin(running.audited(audit))),
            Err(error) => {
                audit.end(&Outcome::Error(error.code()));
                Err(error)
            }
        }
    }

    fn audit(&self, operation: &'static str, subject: Subject) -> Audit {
        Audit::start(&self.name, operation, subject)
    }

    /// Runs one operation to its end, or to the deadline.
    async fn operation<T>(
        &self,
        name: &'static str,
        subject: Subject,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.moving_operation(name, subject, &AtomicU64::new(0), work)
            .await
    }

    /// Runs one operation to its end, or until it stands still.
    async fn moving_operation<T>(
        &self,
        name: &'static str,
        subject: Subject,
        progress: &AtomicU64,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut audit = self.audit(name, subject);
        let result = while_moving(self.guard.limits.operation_timeout, progress, work)
            .instrument(audit.span())
            .await;
        audit.bytes = progress.load(Ordering::Relaxed);
        audit.end(
            &result
                .as_ref()
                .err()
                .map_or(Outcome::Ok, |error| Outcome::Error(error.code())),
        );
        result
    }

    /// Waits for the beginning of a stream. Its audit goes on with it.
    async fn opening<T>(
        &self,
        audit: &mut Audit,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let patience = self.guard.limits.operation_timeout;
        let result = tokio::time::timeout(patience, work)
            .instrument(audit.span())
            .await
            .unwrap_or_else(|_| Err(stalled(patience)));
        if let Err(error) = &result {
            audit.end(&Outcome::Error(error.code()));
        }
        result
    }
}

#[async_trait]
impl Sandbox for GuardedSandbox {
    fn info(&self) -> &SandboxInfo {
        self.inner.info()
    }

    async fn exec(&self, command: Command, input: InputStream) -> Result<EventStream> {
        self.start(command, input, Timeout::Default).await
    }

    async fn stat(&self, path: &SandboxPath, follow: bool) -> Result<Stat> {
        let subject = Subject::Path(path.clone());
        self.operation("stat", subject, self.inner.stat(path, follow))
            .await
    }

    async fn list(&self, path: &SandboxPath) -> Result<EntryStream> {
        let mut audit = self.audit("list", Subject::Path(path.clone()));
        let entries = self.opening(&mut audit, self.inner.list(path)).await?;
        let patience = self.guard.limits.operation_timeout;
        Ok(Box::pin(Watched::new(entries, |_| 0, audit, patience)))
    }

    async fn read(&self, path: &SandboxPath, range: ByteRange) -> Result<(Metadata, ByteStream)> {
        let mut audit = self.audit("read", Subject::Path(path.clone()));
        let (metadata, data) = self
            .opening(&mut audit, self.inner.read(path, range))
            .await?;
        let patience = self.guard.limits.operation_timeout;
        let size = |bytes: &stigmer_sdk::Bytes| bytes.len() as u64;
        Ok((
            metadata,
            Box::pin(Watched::new(data, size, audit, patience)),
        ))
    }

    async fn write(
        &self,
        path: &SandboxPath,
        options: WriteOptions,
        data: ByteStream,
    ) -> Result<Metadata> {
        let (data, bytes) = Counted::new(data);
        let subject = Subject::Path(path.clone());
        let work = self.inner.write(path, options, Box::pin(data));
        self.moving_operation("write", subject, &bytes, work).await
    }

    async fn make_dir(&self, path: &SandboxPath) -> Result<()> {
        let subject = Subject::Path(path.clone());
        self.operation("make_dir", subject, self.inner.make_dir(path))
            .await
    }

    async fn remove(&self, path: &SandboxPath, recursive: bool) -> Result<()> {
        let subject = Subject::Path(path.clone());
        self.operation("remove", subject, self.inner.remove(path, recursive))
            .await
    }

    async fn rename(&self, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
        let subject = Subject::Paths(from.clone(), to.clone());
        self.operation("rename", subject, self.inner.rename(from, to))
            .await
    }

    async fn destroy(&self) -> Result<()> {
        self.operation("destroy", Subject::Sandbox, self.inner.destroy())
            .await
    }

    fn search(&self) -> Option<&dyn Search> {
        Some(self)
    }
}

/// The host's own search, or the backend's: one operation either way. Its
/// deadline is the query's.
#[async_trait]
impl Search for GuardedSandbox {
    async fn glob(&self, query: GlobQuery) -> Result<GlobResults> {
        let mut audit = self.audit("glob", Subject::Path(query.root.clone()));
        let result = ops::search::glob(Arc::clone(&self.inner), query)
            .instrument(audit.span())
            .await;
        audit.end(&outcome(
            result.as_ref().err().map(stigmer_sdk::Error::code),
        ));
        result
    }

    async fn grep(&self, query: GrepQuery) -> Result<GrepResults> {
        let mut audit = self.audit("grep", Subject::Path(query.root.clone()));
        let result = ops::search::grep(Arc::clone(&self.inner), query)
            .instrument(audit.span())
            .await;
        audit.end(&outcome(
            result.as_ref().err().map(stigmer_sdk::Error::code),
        ));
        result
    }
}

fn outcome(error: Option<ErrorCode>) -> Outcome {
    error.map_or(Outcome::Ok, Outcome::Error)
}
