//! A sandbox in memory, for the units of this crate.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use stigmer_sdk::{
    ByteRange, ByteStream, Command, DirEntry, EntryStream, Error, ErrorCode, Event, EventStream,
    FileKind, InputStream, Metadata, Permissions, Result, Sandbox, SandboxId, SandboxInfo,
    SandboxPath, Stat, Version, WriteMode, WriteOptions, async_trait,
};

type Script = Box<dyn Fn(Command, InputStream) -> EventStream + Send + Sync>;

#[derive(Clone)]
struct File {
    content: Bytes,
    version: u64,
    permissions: Permissions,
}

/// Files by path, and commands that do what a test says. A path that does not
/// begin with `/` is below `/w`. `/full` takes nothing.
pub(crate) struct Fake {
    info: SandboxInfo,
    files: Mutex<BTreeMap<String, File>>,
    script: Script,
    /// Of what is read: small, so that seams are everywhere.
    pub(crate) chunk: AtomicUsize,
    /// Of the latest read: what was taken, not what there is.
    pub(crate) bytes_read: Arc<AtomicU64>,
    /// Before anything is answered.
    pub(crate) delay: Mutex<Duration>,
    /// Changes the file after the next read, as somebody else would.
    pub(crate) meddle: Mutex<Option<(String, Bytes)>>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::scripted(|_, _| panic!("no command was expected"))
    }

    pub(crate) fn scripted(
        script: impl Fn(Command, InputStream) -> EventStream + Send + Sync + 'static,
    ) -> Self {
        Self {
            info: SandboxInfo {
                id: SandboxId::new("fake").unwrap(),
                workspace: SandboxPath::new("/w").unwrap(),
                shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            },
            files: Mutex::default(),
            script: Box::new(script),
            chunk: AtomicUsize::new(3),
            bytes_read: Arc::default(),
            delay: Mutex::default(),
            meddle: Mutex::default(),
        }
    }

    pub(crate) fn put(&self, path: &str, content: impl Into<Bytes>) {
        let mut files = self.files.lock().unwrap();
        let old = files.get(path);
        let file = File {
            content: content.into(),
            version: old.map_or(1, |old| old.version + 1),
            permissions: old.map_or(Permissions::of_mode(0o640), |old| old.permissions),
        };
        files.insert(path.to_owned(), file);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Bytes> {
        let files = self.files.lock().unwrap();
        files.get(path).map(|file| file.content.clone())
    }

    async fn wait(&self) {
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    fn find(&self, path: &SandboxPath) -> Result<File> {
        let files = self.files.lock().unwrap();
        files
            .get(&key(path))
            .cloned()
            .ok_or_else(|| Error::new(ErrorCode::NotFound, "no such file").with_path(path.as_str()))
    }
}

fn key(path: &SandboxPath) -> String {
    match path.as_str() {
        "." => "/w".to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("/w/{relative}"),
    }
}

fn metadata(file: &File) -> Metadata {
    Metadata {
        kind: FileKind::File,
        size: file.content.len() as u64,
        permissions: Some(file.permissions),
        modified_ms: None,
        version: Some(Version::new(file.version.to_string())),
        target: None,
    }
}

#[async_trait]
impl Sandbox for Fake {
    fn info(&self) -> &SandboxInfo {
        &self.info
    }

    async fn exec(&self, command: Command, input: InputStream) -> Result<EventStream> {
        self.wait().await;
        Ok((self.script)(command, input))
    }

    async fn stat(&self, path: &SandboxPath, _follow: bool) -> Result<Stat> {
        self.wait().await;
        let below = format!("{}/", key(path));
        let is_dir = self
            .files
            .lock()
            .unwrap()
            .keys()
            .any(|file| file.starts_with(&below));
        let metadata = if is_dir {
            Metadata {
                kind: FileKind::Directory,
                size: 0,
                permissions: None,
                modified_ms: None,
                version: None,
                target: None,
            }
        } else {
            metadata(&self.find(path)?)
        };
        let path = SandboxPath::new(key(path))?;
        Ok(Stat { path, metadata })
    }

    async fn list(&self, path: &SandboxPath) -> Result<EntryStream> {
        self.wait().await;
        let below = format!("{}/", key(path));
        let mut entries: BTreeMap<String, Metadata> = BTreeMap::new();
        for (path, file) in self.files.lock().unwrap().iter() {
            let Some(rest) = path.strip_prefix(&below) else {
                continue;
            };
            let mut metadata = metadata(file);
            let name = match rest.split_once('/') {
                Some((name, _)) => {
                    metadata.kind = FileKind::Directory;
                    name
                }
                None => rest,
            };
            entries.insert(name.to_owned(), metadata);
        }
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(name, metadata)| Ok(DirEntry { name, metadata }))
            .collect();
        Ok(futures_util::stream::iter(entries).boxed())
    }

    async fn read(&self, path: &SandboxPath, range: ByteRange) -> Result<(Metadata, ByteStream)> {
        self.wait().await;
        let file = self.find(path)?;
        let metadata = metadata(&file);
        if let Some((path, content)) = self.meddle.lock().unwrap().take() {
            self.put(&path, content);
        }
        let start = usize::try_from(range.offset)
            .unwrap()
            .min(file.content.len());
        let mut content = file.content.slice(start..);
        if let Some(length) = range.length {
            content.truncate(usize::try_from(length).unwrap());
        }
        let size = self.chunk.load(Ordering::Relaxed);
        let chunks: Vec<Bytes> = content
            .chunks(size)
            .map(|chunk| content.slice_ref(chunk))
            .collect();
        self.bytes_read.store(0, Ordering::Relaxed);
        let taken = Arc::clone(&self.bytes_read);
        let data = futures_util::stream::iter(chunks).map(move |chunk| {
            taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Ok(chunk)
        });
        Ok((metadata, data.boxed()))
    }

    async fn write(
        &self,
        path: &SandboxPath,
        options: WriteOptions,
        mut data: ByteStream,
    ) -> Result<Metadata> {
        self.wait().await;
        let key = key(path);
        if key.starts_with("/full") {
            return Err(
                Error::new(ErrorCode::Exhausted, "no space is left").with_path(path.as_str())
            );
        }
        let mut content = Vec::new();
        while let Some(bytes) = data.next().await {
            content.extend_from_slice(&bytes?);
        }
        if let WriteMode::ReplaceVersion(version) = &options.mode {
            let current = self.find(path).map(|file| file.version.to_string());
            if current.ok().as_deref() != Some(version.as_str()) {
                return Err(
                    Error::new(ErrorCode::Conflict, "the file changed").with_path(path.as_str())
                );
            }
        }
        self.put(&key, content);
        Ok(metadata(&self.find(path)?))
    }

    async fn make_dir(&self, _path: &SandboxPath) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, path: &SandboxPath, _recursive: bool) -> Result<()> {
        self.wait().await;
        self.find(path)?;
        self.files.lock().unwrap().remove(&key(path));
        Ok(())
    }

    async fn rename(&self, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
        let file = self.find(from)?;
        self.put(&key(to), file.content);
        self.remove(from, false).await
    }

    async fn destroy(&self) -> Result<()> {
        self.files.lock().unwrap().clear();
        Ok(())
    }
}

/// A stream of these events.
pub(crate) fn events(events: Vec<Event>) -> EventStream {
    futures_util::stream::iter(events.into_iter().map(Ok)).boxed()
}
