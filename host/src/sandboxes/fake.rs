//! A backend in memory, for tests of what is built on backends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use stigmer_sdk::{
    Backend, ByteRange, ByteStream, Command, Description, DirEntry, EntryStream, Error, ErrorCode,
    Event, EventStream, ExitStatus, FileKind, Input, InputStream, Isolation, Metadata, Result,
    Sandbox, SandboxId, SandboxInfo, SandboxPath, SandboxSpec, Signal, Stat, WriteOptions,
    async_trait,
};

/// Sandboxes whose files are a map, and whose commands are three: `echo`
/// writes its arguments, `cat` its stdin, and anything else waits for a signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeBackend(Arc<State>);

#[derive(Debug, Default)]
struct State {
    next: AtomicU64,
    sandboxes: Mutex<HashMap<SandboxId, Arc<FakeSandbox>>>,
    running: AtomicU64,
    writing: Arc<()>,
    /// Commands whose events were dropped before the exit.
    killed: AtomicU64,
}

impl FakeBackend {
    pub(crate) fn killed(&self) -> u64 {
        self.0.killed.load(Ordering::SeqCst)
    }

    pub(crate) fn running(&self) -> u64 {
        self.0.running.load(Ordering::SeqCst)
    }

    /// Writes that wait for more data.
    pub(crate) fn writing(&self) -> usize {
        Arc::strong_count(&self.0.writing) - 1
    }

    pub(crate) fn count(&self) -> usize {
        self.0.sandboxes.lock().unwrap().len()
    }

    /// As if somebody else had destroyed them.
    pub(crate) fn lose_all(&self) {
        self.0.sandboxes.lock().unwrap().clear();
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn describe(&self) -> Description {
        Description {
            name: "fake".to_owned(),
            version: "1".to_owned(),
            features: [].into(),
            isolation: Isolation::None,
            notice: "a test".to_owned(),
        }
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        if spec.limits.lifetime.is_some() || spec.limits.idle.is_some() {
            return Err(Error::unsupported("a lifetime"));
        }
        // Lets others in between, as a real one would.
        tokio::task::yield_now().await;
        let id = SandboxId::new(format!("s{}", self.0.next.fetch_add(1, Ordering::SeqCst)))?;
        let sandbox = Arc::new(FakeSandbox {
            info: SandboxInfo {
                id: id.clone(),
                workspace: "/w".try_into()?,
                shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            },
            files: Mutex::default(),
            backend: Arc::clone(&self.0),
        });
        self.0
            .sandboxes
            .lock()
            .unwrap()
            .insert(id, Arc::clone(&sandbox));
        Ok(sandbox)
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let found = self.0.sandboxes.lock().unwrap().get(id).cloned();
        match found {
            Some(sandbox) => Ok(sandbox),
            None => Err(Error::new(
                ErrorCode::NoSandbox,
                format!("no sandbox '{id}'"),
            )),
        }
    }
}

#[derive(Debug)]
struct FakeSandbox {
    info: SandboxInfo,
    files: Mutex<HashMap<String, Bytes>>,
    backend: Arc<State>,
}

impl FakeSandbox {
    fn check(&self) -> Result<()> {
        if self
            .backend
            .sandboxes
            .lock()
            .unwrap()
            .contains_key(&self.info.id)
        {
            return Ok(());
        }
        Err(Error::new(ErrorCode::NoSandbox, "it is no more"))
    }

    fn file(&self, path: &SandboxPath) -> Result<Bytes> {
        self.check()?;
        let found = self.files.lock().unwrap().get(path.as_str()).cloned();
        found
            .ok_or_else(|| Error::new(ErrorCode::NotFound, "no such file").with_path(path.as_str()))
    }
}

fn metadata(bytes: &Bytes) -> Metadata {
    Metadata {
        kind: FileKind::File,
        size: bytes.len() as u64,
        permissions: None,
        modified_ms: None,
        version: None,
        target: None,
    }
}

/// Counts a command as killed unless it got to its exit.
struct Kill(Arc<State>, bool);

impl Drop for Kill {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.killed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn info(&self) -> &SandboxInfo {
        &self.info
    }

    async fn exec(&self, command: Command, input: InputStream) -> Result<EventStream> {
        self.check()?;
        self.backend.running.fetch_add(1, Ordering::SeqCst);
        let kill = Kill(Arc::clone(&self.backend), false);
        let program = command.argv()[0].clone();
        let mut first =
            (program == "echo").then(|| Event::Stdout(command.argv()[1..].join(" ").into()));
        let state = (Some((input, kill)), program);
        let events = stream::unfold(state, move |(state, program)| {
            let first = first.take();
            async move {
                let (mut input, mut kill) = state?;
                if let Some(output) = first {
                    return Some((Ok(output), (Some((input, kill)), program)));
                }
                loop {
                    let status = match input.next().await {
                        _ if program == "echo" => ExitStatus::Code(0),
                        Some(Input::Stdin(bytes)) if program == "cat" => {
                            return Some((
                                Ok(Event::Stdout(bytes)),
                                (Some((input, kill)), program),
                            ));
                        }
                        Some(Input::CloseStdin) | None if program == "cat" => ExitStatus::Code(0),
                        Some(Input::Signal(signal @ (Signal::Terminate | Signal::Kill))) => {
                            ExitStatus::Signal(signal.number())
                        }
                        Some(_) => continue,
                        None => std::future::pending().await,
                    };
                    kill.1 = true;
                    return Some((Ok(Event::Exit(status)), (None, program)));
                }
            }
        });
        Ok(events.boxed())
    }

    async fn stat(&self, path: &SandboxPath, _follow: bool) -> Result<Stat> {
        let metadata = metadata(&self.file(path)?);
        Ok(Stat {
            path: SandboxPath::new(format!("/w/{path}"))?,
            metadata,
        })
    }

    async fn list(&self, _path: &SandboxPath) -> Result<EntryStream> {
        self.check()?;
        let files = self.files.lock().unwrap();
        let entries: Vec<_> = files
            .iter()
            .map(|(name, bytes)| {
                Ok(DirEntry {
                    name: name.clone(),
                    metadata: metadata(bytes),
                })
            })
            .collect();
        Ok(stream::iter(entries).boxed())
    }

    async fn read(&self, path: &SandboxPath, _range: ByteRange) -> Result<(Metadata, ByteStream)> {
        let bytes = self.file(path)?;
        Ok((metadata(&bytes), stream::iter([Ok(bytes)]).boxed()))
    }

    async fn write(
        &self,
        path: &SandboxPath,
        _: WriteOptions,
        mut data: ByteStream,
    ) -> Result<Metadata> {
        self.check()?;
        if path.as_str() == "refused" {
            return Err(Error::new(ErrorCode::PermissionDenied, "refused").with_path(path.as_str()));
        }
        let _writing = Arc::clone(&self.backend.writing);
        let mut content = Vec::new();
        while let Some(chunk) = data.next().await {
            content.extend_from_slice(&chunk?);
        }
        let bytes = Bytes::from(content);
        self.files
            .lock()
            .unwrap()
            .insert(path.as_str().to_owned(), bytes.clone());
        Ok(metadata(&bytes))
    }

    async fn make_dir(&self, _: &SandboxPath) -> Result<()> {
        self.check()
    }

    async fn remove(&self, path: &SandboxPath, _recursive: bool) -> Result<()> {
        self.file(path)?;
        self.files.lock().unwrap().remove(path.as_str());
        Ok(())
    }

    async fn rename(&self, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
        let bytes = self.file(from)?;
        let mut files = self.files.lock().unwrap();
        files.remove(from.as_str());
        files.insert(to.as_str().to_owned(), bytes);
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.backend.sandboxes.lock().unwrap().remove(&self.info.id);
        Ok(())
    }
}
