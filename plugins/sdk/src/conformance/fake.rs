//! A backend in memory that does some things wrongly, so that the suite is
//! seen to fail. It has files and directories, no links, and a shell that
//! knows three scripts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::run::lock;
use crate::{
    Backend, ByteRange, ByteStream, Bytes, Command, Description, DirEntry, EntryStream, Error,
    ErrorCode, Event, EventStream, ExitStatus, FileKind, InputStream, Isolation, Metadata, Network,
    Permissions, Result, Sandbox, SandboxId, SandboxInfo, SandboxPath, SandboxSpec, Stat, Version,
    WriteMode, WriteOptions, async_trait,
};

/// What the backend does wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sin {
    None,
    ChangesItsName,
    DeclaresWhatItLacks,
    TakesAnyLimit,
    TakesAnyOption,
    RunsUnderATerminal,
    ForgetsOnAttach,
    LivesAfterDestroy,
    DestroysOnce,
    SharesFiles,
    ExitsTwice,
    LosesTheExit,
    EmptyOutput,
    TruncatesCodes,
    NeverEnds,
    Panics,
    ReadsTooFar,
    ListsItself,
    IgnoresVersions,
    AppendsByReplacing,
    CreatesOverFiles,
    WritesBeforeTheEnd,
    LeavesLitter,
    ReplacesDirectories,
    RemovesDirectories,
    RemovesTheWorkspace,
    LetsOut,
}

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File {
        content: Vec<u8>,
        permissions: Permissions,
        version: u64,
    },
}

/// Paths below the workspace, which is the empty one.
type Files = BTreeMap<String, Node>;

#[derive(Debug, Default)]
struct State {
    minted: u64,
    sandboxes: BTreeMap<SandboxId, Files>,
}

#[derive(Clone, Debug)]
pub(super) struct Fake {
    sin: Sin,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(super) fn new(sin: Sin) -> Self {
        Self {
            sin,
            state: Arc::default(),
        }
    }

    fn handle(&self, id: SandboxId) -> Arc<dyn Sandbox> {
        Arc::new(Handle {
            fake: self.clone(),
            info: SandboxInfo {
                id,
                workspace: SandboxPath::new("/workspace").unwrap(),
                shell: vec!["sh".to_owned(), "-c".to_owned()],
            },
        })
    }
}

#[async_trait]
impl Backend for Fake {
    fn describe(&self) -> Description {
        let mut name = "fake".to_owned();
        if self.sin == Sin::ChangesItsName {
            name.push_str(&"x".repeat(lock(&self.state).minted as usize));
        }
        let mut features = std::collections::BTreeSet::new();
        if self.sin == Sin::DeclaresWhatItLacks {
            features.insert(crate::Feature::Snapshots);
        }
        Description {
            name,
            version: "1".to_owned(),
            features,
            isolation: Isolation::None,
            notice: String::new(),
        }
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        if spec.options != "{}" && self.sin != Sin::TakesAnyOption {
            return Err(Error::new(ErrorCode::InvalidArgument, "unknown option"));
        }
        let network = !matches!(spec.network, None | Some(Network::Unrestricted));
        if network && self.sin != Sin::TakesAnyLimit {
            return Err(Error::unsupported("a network policy"));
        }
        let mut state = lock(&self.state);
        state.minted += 1;
        let id = SandboxId::new(format!("fake-{}", state.minted))?;
        let root = Files::from([(String::new(), Node::Directory)]);
        state.sandboxes.insert(id.clone(), root);
        Ok(self.handle(id))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let mut state = lock(&self.state);
        let Some(files) = state.sandboxes.get_mut(id) else {
            return Err(Error::new(ErrorCode::NoSandbox, "no such sandbox"));
        };
        if self.sin == Sin::ForgetsOnAttach {
            files.retain(|path, _| path.is_empty());
        }
        Ok(self.handle(id.clone()))
    }
}

#[derive(Debug)]
struct Handle {
    fake: Fake,
    info: SandboxInfo,
}

fn error<T>(code: ErrorCode) -> Result<T> {
    Err(Error::new(code, "so it is in this fake"))
}

fn parent(key: &str) -> String {
    key.rsplit_once('/')
        .map_or("", |(parent, _)| parent)
        .to_owned()
}

fn metadata(node: &Node) -> Metadata {
    let (kind, size, permissions, version) = match node {
        Node::Directory => (FileKind::Directory, 0, None, None),
        Node::File {
            content,
            permissions,
            version,
        } => (
            FileKind::File,
            content.len() as u64,
            Some(*permissions),
            Some(Version::new(version.to_string())),
        ),
    };
    Metadata {
        kind,
        size,
        permissions,
        modified_ms: None,
        version,
        target: None,
    }
}

impl Handle {
    fn has(&self, sin: Sin) -> bool {
        self.fake.sin == sin
    }

    /// Does something to the files, if the sandbox is there.
    fn files<T>(&self, act: impl FnOnce(&mut Files, &mut u64) -> Result<T>) -> Result<T> {
        let mut state = lock(&self.fake.state);
        let state = &mut *state;
        let id = match self.has(Sin::SharesFiles) {
            true => state.sandboxes.keys().next().cloned(),
            false => Some(self.info.id.clone()),
        };
        match id.and_then(|id| state.sandboxes.get_mut(&id)) {
            Some(files) => act(files, &mut state.minted),
            None => error(ErrorCode::NoSandbox),
        }
    }

    /// Where a path leads, which every directory on the way must allow.
    fn key(&self, files: &Files, path: &SandboxPath) -> Result<String> {
        let below = match path.as_str().strip_prefix("/workspace") {
            Some(below) if below.is_empty() || below.starts_with('/') => below,
            _ if path.is_absolute() => return error(ErrorCode::InvalidPath),
            _ => path.as_str(),
        };
        let mut key = String::new();
        for name in below.split('/') {
            match files.get(&key) {
                Some(Node::File { .. }) => return error(ErrorCode::NotADirectory),
                _ if name.len() > 255 => return error(ErrorCode::InvalidPath),
                _ => {}
            }
            match name {
                "" | "." => {}
                ".." if key.is_empty() && !self.has(Sin::LetsOut) => {
                    return error(ErrorCode::InvalidPath);
                }
                ".." => key = parent(&key),
                name if key.is_empty() => key = name.to_owned(),
                name => key = format!("{key}/{name}"),
            }
        }
        Ok(key)
    }

    fn make_parents(files: &mut Files, key: &str) {
        let mut above = parent(key);
        while !above.is_empty() {
            files.entry(above.clone()).or_insert(Node::Directory);
            above = parent(&above);
        }
    }
}

#[async_trait]
impl Sandbox for Handle {
    fn info(&self) -> &SandboxInfo {
        &self.info
    }

    async fn exec(&self, command: Command, _input: InputStream) -> Result<EventStream> {
        self.files(|_, _| Ok(()))?;
        if command.run_as().is_some() {
            return Err(Error::unsupported("another user"));
        }
        if command.terminal_size().is_some() && !self.has(Sin::RunsUnderATerminal) {
            return Err(Error::unsupported("a terminal"));
        }
        let script = command.argv().get(2).map_or("", String::as_str);
        let code = match script.strip_prefix("exit ").map(str::parse) {
            Some(Ok(code)) if self.has(Sin::TruncatesCodes) => code % 128,
            Some(Ok(code)) => code,
            _ if script == ":" => 0,
            _ => 127,
        };
        let exit = Event::Exit(ExitStatus::Code(code));
        let events = match self.fake.sin {
            Sin::ExitsTwice => vec![exit.clone(), exit],
            Sin::LosesTheExit => Vec::new(),
            Sin::EmptyOutput => vec![Event::Stdout(Bytes::new()), exit],
            _ => vec![exit],
        };
        Ok(stream::iter(events.into_iter().map(Ok)).boxed())
    }

    async fn stat(&self, path: &SandboxPath, _follow: bool) -> Result<Stat> {
        if self.has(Sin::NeverEnds) {
            std::future::pending::<()>().await;
        }
        assert!(!self.has(Sin::Panics), "a fake panic");
        self.files(|files, _| {
            let key = self.key(files, path)?;
            let Some(node) = files.get(&key) else {
                return error(ErrorCode::NotFound);
            };
            let absolute = format!("/workspace/{key}");
            Ok(Stat {
                path: SandboxPath::new(absolute.trim_end_matches('/'))?,
                metadata: metadata(node),
            })
        })
    }

    async fn list(&self, path: &SandboxPath) -> Result<EntryStream> {
        let entries = self.files(|files, _| {
            let key = self.key(files, path)?;
            match files.get(&key) {
                None => return error(ErrorCode::NotFound),
                Some(Node::File { .. }) => return error(ErrorCode::NotADirectory),
                Some(Node::Directory) => {}
            }
            let mut entries = Vec::new();
            for (below, node) in files.iter() {
                if !below.is_empty() && parent(below) == key {
                    let name = below.rsplit('/').next().unwrap().to_owned();
                    let metadata = metadata(node);
                    entries.push(Ok(DirEntry { name, metadata }));
                }
            }
            if self.has(Sin::ListsItself) {
                let name = ".".to_owned();
                let metadata = metadata(&Node::Directory);
                entries.push(Ok(DirEntry { name, metadata }));
            }
            Ok(entries)
        })?;
        Ok(stream::iter(entries).boxed())
    }

    async fn read(&self, path: &SandboxPath, range: ByteRange) -> Result<(Metadata, ByteStream)> {
        self.files(|files, _| {
            let key = self.key(files, path)?;
            let Some(node) = files.get(&key) else {
                return error(ErrorCode::NotFound);
            };
            let Node::File { content, .. } = node else {
                return error(ErrorCode::IsDirectory);
            };
            let extra = u64::from(self.has(Sin::ReadsTooFar));
            let length = range.length.unwrap_or(u64::MAX).saturating_add(extra);
            let end = range.offset.saturating_add(length);
            let [start, end] = [range.offset, end].map(|at| at.min(content.len() as u64) as usize);
            let data = content[start..end].to_vec();
            Ok((metadata(node), super::subject::bytes(data)))
        })
    }

    async fn write(
        &self,
        path: &SandboxPath,
        options: WriteOptions,
        mut data: ByteStream,
    ) -> Result<Metadata> {
        let mut new = Vec::new();
        if self.has(Sin::LeavesLitter) {
            self.files(|files, _| {
                let key = self.key(files, path)?;
                files.insert(format!("{key}.tmp"), Node::Directory);
                Ok(())
            })?;
        }
        loop {
            let piece = data.try_next().await?;
            let done = piece.is_none();
            new.extend_from_slice(&piece.unwrap_or_default());
            if !done && !self.has(Sin::WritesBeforeTheEnd) {
                continue;
            }
            let written = self.files(|files, minted| {
                let key = self.key(files, path)?;
                let (old, kept, has) = match files.get(&key) {
                    Some(Node::Directory) if options.mode == WriteMode::CreateNew => {
                        return error(ErrorCode::AlreadyExists);
                    }
                    Some(Node::Directory) => return error(ErrorCode::IsDirectory),
                    Some(Node::File {
                        content,
                        permissions,
                        version,
                    }) => (
                        Some(content.clone()),
                        *permissions,
                        Some(version.to_string()),
                    ),
                    None => (None, Permissions::of_mode(0o644), None),
                };
                let content = match &options.mode {
                    WriteMode::CreateNew if old.is_some() && !self.has(Sin::CreatesOverFiles) => {
                        return error(ErrorCode::AlreadyExists);
                    }
                    WriteMode::ReplaceVersion(wanted)
                        if has.as_deref() != Some(wanted.as_str())
                            && !self.has(Sin::IgnoresVersions) =>
                    {
                        return error(ErrorCode::Conflict);
                    }
                    WriteMode::Append if !self.has(Sin::AppendsByReplacing) => {
                        [old.unwrap_or_default(), new.clone()].concat()
                    }
                    _ => new.clone(),
                };
                *minted += 1;
                let node = Node::File {
                    content,
                    permissions: options.permissions.unwrap_or(kept),
                    version: *minted,
                };
                Self::make_parents(files, &key);
                let answer = metadata(&node);
                files.insert(key, node);
                Ok(answer)
            })?;
            if done {
                return Ok(written);
            }
        }
    }

    async fn make_dir(&self, path: &SandboxPath) -> Result<()> {
        self.files(|files, _| {
            let key = self.key(files, path)?;
            if matches!(files.get(&key), Some(Node::File { .. })) {
                return error(ErrorCode::AlreadyExists);
            }
            Self::make_parents(files, &key);
            files.insert(key, Node::Directory);
            Ok(())
        })
    }

    async fn remove(&self, path: &SandboxPath, recursive: bool) -> Result<()> {
        self.files(|files, _| {
            let key = self.key(files, path)?;
            if key.is_empty() && !self.has(Sin::RemovesTheWorkspace) {
                return error(ErrorCode::PermissionDenied);
            }
            match files.get(&key) {
                None => return error(ErrorCode::NotFound),
                Some(Node::Directory) if !recursive && !self.has(Sin::RemovesDirectories) => {
                    return error(ErrorCode::IsDirectory);
                }
                Some(_) => {}
            }
            let below = format!("{key}/");
            files.retain(|at, _| *at != key && !at.starts_with(&below));
            Ok(())
        })
    }

    async fn rename(&self, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
        self.files(|files, _| {
            let (from, to) = (self.key(files, from)?, self.key(files, to)?);
            if !files.contains_key(&from) {
                return error(ErrorCode::NotFound);
            }
            let below = format!("{from}/");
            if to.starts_with(&below) {
                return error(ErrorCode::InvalidArgument);
            }
            let in_the_way = matches!(files.get(&to), Some(Node::Directory));
            if in_the_way && !self.has(Sin::ReplacesDirectories) {
                return error(ErrorCode::AlreadyExists);
            }
            let moved: Vec<_> = files
                .extract_if(.., |at, _| *at == from || at.starts_with(&below))
                .collect();
            for (at, node) in moved {
                files.insert(format!("{to}{}", &at[from.len()..]), node);
            }
            Ok(())
        })
    }

    async fn destroy(&self) -> Result<()> {
        if self.has(Sin::LivesAfterDestroy) {
            return Ok(());
        }
        let removed = lock(&self.fake.state).sandboxes.remove(&self.info.id);
        match removed {
            None if self.has(Sin::DestroysOnce) => error(ErrorCode::NoSandbox),
            _ => Ok(()),
        }
    }
}
