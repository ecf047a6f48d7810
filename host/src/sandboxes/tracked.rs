//! The one place that sees every use of a sandbox, whoever it is by.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::Manager;
use futures_util::StreamExt as _;
use stigmer_sdk::{
    ByteRange, ByteStream, Command, EntryStream, ErrorCode, EventStream, InputStream, Metadata,
    Result, Sandbox, SandboxInfo, SandboxPath, Search, Stat, WriteOptions, async_trait,
};

/// How a sandbox is being used. Shared by its handle, the commands that run in
/// it, and the manager, which writes it down once a second.
#[derive(Debug, Default)]
pub(super) struct Usage {
    used_ms: AtomicU64,
    /// Used since it was last written down.
    dirty: AtomicBool,
    running: AtomicU32,
    /// Its backend did not answer when it was last asked.
    unreachable: AtomicBool,
}

impl Usage {
    pub(super) fn since(used_ms: u64) -> Self {
        Self {
            used_ms: used_ms.into(),
            ..Self::default()
        }
    }

    pub(super) fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    pub(super) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    pub(super) fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    pub(super) fn touch(&self, now_ms: u64) {
        self.used_ms.fetch_max(now_ms, Ordering::Relaxed);
        self.dirty.store(true, Ordering::Release);
    }

    /// When it was last used, if that is not written down yet.
    pub(super) fn take_dirty(&self) -> Option<u64> {
        self.dirty
            .swap(false, Ordering::Acquire)
            .then(|| self.used_ms())
    }
}

/// A sandbox as its backend gives it, with its use noted and its id made the
/// host's. It is under the policy, so that it sees what the policy lets through.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) inner: Arc<dyn Sandbox>,
    /// With the host's id.
    pub(super) info: SandboxInfo,
    pub(super) usage: Arc<Usage>,
    /// Weak, because the manager holds the handles.
    pub(super) manager: Weak<Manager>,
}

impl Tracked {
    fn touch(&self) {
        if let Some(manager) = self.manager.upgrade() {
            self.usage.touch(manager.now_ms());
        }
    }

    /// Learns from an answer whether the sandbox, and its backend, are there.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        self.touch();
        let code = result.as_ref().err().map(stigmer_sdk::Error::code);
        self.usage
            .unreachable
            .store(code == Some(ErrorCode::Unavailable), Ordering::Relaxed);
        if code == Some(ErrorCode::NoSandbox)
            && let Some(manager) = self.manager.upgrade()
        {
            manager.gone(self.info.id.as_str());
        }
        result
    }
}

#[async_trait]
impl Sandbox for Tracked {
    fn info(&self) -> &SandboxInfo {
        &self.info
    }

    async fn exec(&self, command: Command, input: InputStream) -> Result<EventStream> {
        self.touch();
        let running = Running::new(self);
        let events = self.noted(self.inner.exec(command, input).await)?;
        Ok(events
            .inspect(move |event| running.heard(event.as_ref().err()))
            .boxed())
    }

    async fn stat(&self, path: &SandboxPath, follow: bool) -> Result<Stat> {
        self.noted(self.inner.stat(path, follow).await)
    }

    async fn list(&self, path: &SandboxPath) -> Result<EntryStream> {
        self.noted(self.inner.list(path).await)
    }

    async fn read(&self, path: &SandboxPath, range: ByteRange) -> Result<(Metadata, ByteStream)> {
        self.noted(self.inner.read(path, range).await)
    }

    async fn write(
        &self,
        path: &SandboxPath,
        options: WriteOptions,
        data: ByteStream,
    ) -> Result<Metadata> {
        self.touch();
        self.noted(self.inner.write(path, options, data).await)
    }

    async fn make_dir(&self, path: &SandboxPath) -> Result<()> {
        self.noted(self.inner.make_dir(path).await)
    }

    async fn remove(&self, path: &SandboxPath, recursive: bool) -> Result<()> {
        self.noted(self.inner.remove(path, recursive).await)
    }

    async fn rename(&self, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
        self.noted(self.inner.rename(from, to).await)
    }

    async fn destroy(&self) -> Result<()> {
        self.inner.destroy().await?;
        match self.manager.upgrade() {
            Some(manager) => manager.forget(self.info.id.as_str()).await,
            None => Ok(()),
        }
    }

    fn search(&self) -> Option<&dyn Search> {
        self.touch();
        self.inner.search()
    }
}

/// One command that runs. A sandbox with one is not idle, and is used until
/// the command's end.
struct Running {
    usage: Arc<Usage>,
    manager: Weak<Manager>,
    sandbox: SandboxInfo,
}

impl Running {
    fn new(sandbox: &Tracked) -> Self {
        sandbox.usage.running.fetch_add(1, Ordering::Relaxed);
        Self {
            usage: Arc::clone(&sandbox.usage),
            manager: Weak::clone(&sandbox.manager),
            sandbox: sandbox.info.clone(),
        }
    }

    fn heard(&self, error: Option<&stigmer_sdk::Error>) {
        if error.is_some_and(|error| error.code() == ErrorCode::NoSandbox)
            && let Some(manager) = self.manager.upgrade()
        {
            manager.gone(self.sandbox.id.as_str());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.usage.running.fetch_sub(1, Ordering::Relaxed);
        if let Some(manager) = self.manager.upgrade() {
            self.usage.touch(manager.now_ms());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_written_down_once() {
        let usage = Usage::since(5);
        assert_eq!(usage.take_dirty(), None);
        usage.touch(9);
        usage.touch(7);
        assert_eq!(usage.take_dirty(), Some(9));
        assert_eq!(usage.take_dirty(), None);
    }
}
