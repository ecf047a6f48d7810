//! One sandbox: a directory, and the processes that run in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use stigmer_sdk::{
    ByteRange, ByteStream, Command, EntryStream, Error, ErrorCode, EventStream, GlobQuery,
    GlobResults, GrepQuery, GrepResults, InputStream, Metadata, Result, Sandbox, SandboxInfo,
    SandboxPath, Search, Stat, WriteOptions,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::Sandboxes;
use crate::files::Workspace;
use crate::running::{Drains, Streams};
use crate::supervise::Supervisor;

/// A directory of this machine, and the processes that run in it.
#[derive(Debug)]
pub(crate) struct FilesystemSandbox {
    info: SandboxInfo,
    files: Workspace,
    /// Of every command, before its own.
    env: Vec<(String, String)>,
    supervisor: Arc<Supervisor>,
    drains: Drains,
    destroyed: AtomicBool,
    /// Who knows this sandbox, and forgets it.
    sandboxes: Arc<Sandboxes>,
}

impl FilesystemSandbox {
    pub(crate) fn new(
        info: SandboxInfo,
        files: Workspace,
        env: Vec<(String, String)>,
        supervisor: Supervisor,
        sandboxes: Arc<Sandboxes>,
    ) -> Self {
        let drains = Drains {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let supervisor = Arc::new(supervisor);
        Self {
            info,
            files,
            env,
            supervisor,
            drains,
            destroyed: AtomicBool::new(false),
            sandboxes,
        }
    }

    /// Lets its processes go if it has run nothing for `idle`.
    pub(crate) async fn rest(&self, idle: Duration) {
        self.supervisor.rest(idle).await;
    }

    fn alive(&self) -> Result<&Workspace> {
        if self.destroyed.load(Ordering::Acquire) {
            return Err(no_sandbox(self.info.id.as_str()));
        }
        Ok(&self.files)
    }
}

/// The answer to whoever names a sandbox that is not there.
pub(crate) fn no_sandbox(id: &str) -> Error {
    Error::new(ErrorCode::NoSandbox, format!("there is no sandbox '{id}'"))
}

#[async_trait]
impl Sandbox for FilesystemSandbox {
    fn info(&self) -> &SandboxInfo {
        &self.info
    }

    async fn exec(&self, command: Command, input: InputStream) -> Result<EventStream> {
        let files = self.alive()?;
        if command.run_as().is_some() {
            return Err(Error::unsupported("running a command as another user"));
        }
        let cwd = match command.working_dir() {
            Some(path) => files.open_dir(path)?,
            None => files.open_dir(&SandboxPath::workspace())?,
        };
        let mut env = self.env.clone();
        if command.terminal_size().is_some() {
            env.push(("TERM".to_owned(), "xterm-256color".to_owned()));
        }
        for (name, value) in command.envs() {
            env.retain(|(present, _)| present != name.as_str());
            env.push((name.as_str().to_owned(), value.as_str().to_owned()));
        }
        let streams = Streams::new(&command).map_err(|error| {
            Error::new(ErrorCode::Exhausted, "cannot make the pipes of a command")
                .with_source(error)
        })?;
        let lease = self.supervisor.runner().await?;
        let events = streams
            .start(lease, cwd, &command, env, input, self.drains.clone())
            .await?;
        Ok(Box::pin(events))
    }

    async fn stat(&self, path: &SandboxPath, follow: bool) -> Result<Stat> {
        self.alive()?.stat(path, follow).await
    }

    async fn list(&self, path: &SandboxPath) -> Result<EntryStream> {
        self.alive()?.list(path).await
    }

    async fn read(&self, path: &SandboxPath, range: ByteRange) -> Result<(Metadata, ByteStream)> {
        self.alive()?.read(path, range).await
    }

    async fn write(
        &self,
        path: &SandboxPath,
        options: WriteOptions,
        data: ByteStream,
    ) -> Result<Metadata> {
        self.alive()?.write(path, options, data).await
    }

    async fn make_dir(&self, path: &SandboxPath) -> Result<()> {
        self.alive()?.make_dir(path).await
    }

    async fn remove(&self, path: &SandboxPath, recursive: bool) -> Result<()> {
        self.alive()?.remove(path, recursive).await
    }

    async fn rename(&self, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
        self.alive()?.rename(from, to).await
    }

    async fn destroy(&self) -> Result<()> {
        self.destroyed.store(true, Ordering::Release);
        self.supervisor.end().await;
        // Nobody writes to these pipes any more.
        self.drains.stop.cancel();
        self.drains.tasks.close();
        self.drains.tasks.wait().await;
        self.sandboxes.forget(&self.info.id).await
    }

    fn search(&self) -> Option<&dyn Search> {
        Some(self)
    }
}

#[async_trait]
impl Search for FilesystemSandbox {
    async fn glob(&self, query: GlobQuery) -> Result<GlobResults> {
        self.alive()?.glob(query).await
    }

    async fn grep(&self, query: GrepQuery) -> Result<GrepResults> {
        self.alive()?.grep(query).await
    }
}
