//! The file API, by descriptor.
//!
//! A [`Workspace`] holds a directory open and resolves every path beneath that
//! descriptor ([`resolve`]). Each operation is one closure that blocks, run off
//! the runtime's threads; only [`read`], [`write`](mod@write) and [`list`] take
//! more than one such hop, and those only when there is more to move than one
//! piece.

mod change;
mod draft;
mod error;
mod list;
mod metadata;
mod read;
mod remove;
mod resolve;
#[cfg(test)]
mod testing;
mod trail;
mod tree;
mod write;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use stigmer_sdk::{
    ByteRange, ByteStream, EntryStream, Error, GlobQuery, GlobResults, GrepQuery, GrepResults,
    Metadata, Result, SandboxPath, Stat, WriteOptions, search,
};
use tokio_util::task::AbortOnDropHandle;

use self::error::At;
pub(crate) use self::remove::remove_tree;
use self::resolve::Root;

/// A directory, and everything that can be done to the files in it.
///
/// The methods that share a name with one of [`Sandbox`](stigmer_sdk::Sandbox)
/// do what is written there.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: Root,
    /// Held while what a path names is looked at and then changed, so that of
    /// two writers with the same condition one loses. Commands in the sandbox
    /// do not take it.
    changes: Mutex<()>,
}

impl Inner {
    fn changing(&self) -> MutexGuard<'_, ()> {
        // It guards no data that a panic could have left half-changed.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workspace {
    /// Opens a directory that exists.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                root: Root::open(path)?,
                changes: Mutex::new(()),
            }),
        })
    }

    /// Its path, absolute and free of links.
    pub(crate) fn path(&self) -> &str {
        self.inner.root.path()
    }

    /// Holds a directory in it, for a command to start in. Blocks.
    pub(crate) fn open_dir(&self, path: &SandboxPath) -> Result<OwnedFd> {
        let root = &self.inner.root;
        root.find(root.below(path)?, resolve::HOLD_DIR)
            .at(path.as_str())
    }

    pub(crate) async fn stat(&self, path: &SandboxPath, follow: bool) -> Result<Stat> {
        let inner = Arc::clone(&self.inner);
        let path = path.clone();
        hop(move || metadata::stat(&inner.root, &path, follow)).await
    }

    pub(crate) async fn list(&self, path: &SandboxPath) -> Result<EntryStream> {
        list::list(Arc::clone(&self.inner), path.clone()).await
    }

    pub(crate) async fn read(
        &self,
        path: &SandboxPath,
        range: ByteRange,
    ) -> Result<(Metadata, ByteStream)> {
        read::read(Arc::clone(&self.inner), path.clone(), range).await
    }

    pub(crate) async fn write(
        &self,
        path: &SandboxPath,
        options: WriteOptions,
        data: ByteStream,
    ) -> Result<Metadata> {
        write::write(Arc::clone(&self.inner), path.clone(), options, data).await
    }

    pub(crate) async fn make_dir(&self, path: &SandboxPath) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let path = path.clone();
        hop(move || change::make_dir(&inner.root, &path)).await
    }

    pub(crate) async fn remove(&self, path: &SandboxPath, recursive: bool) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let path = path.clone();
        hop(move || change::remove(&inner, &path, recursive)).await
    }

    pub(crate) async fn rename(&self, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let (from, to) = (from.clone(), to.clone());
        hop(move || change::rename(&inner, &from, &to)).await
    }

    pub(crate) async fn glob(&self, query: GlobQuery) -> Result<GlobResults> {
        let inner = Arc::clone(&self.inner);
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        hop(move || {
            let tree = tree::Files::new(&inner.root, &query.root);
            search::glob(&tree, &query, threads(), &stopped)
        })
        .await
    }

    pub(crate) async fn grep(&self, query: GrepQuery) -> Result<GrepResults> {
        let inner = Arc::clone(&self.inner);
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        hop(move || {
            let tree = tree::Files::new(&inner.root, &query.root);
            search::grep(&tree, &query, threads(), &stopped)
        })
        .await
    }
}

/// Tells a search that nobody waits for it any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Threads of one search. More than a few wait for each other's directory locks
/// in the kernel, and other sandboxes search too.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8))
}

/// Runs what blocks where it may. Dropped before it started, it never does;
/// after that it ends on its own, and what it made is dropped.
async fn hop<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    start(work).await
}

/// As [`hop`], but under way before anybody waits for it.
fn start<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> + Send {
    let work = AbortOnDropHandle::new(tokio::task::spawn_blocking(work));
    async move {
        work.await
            .map_err(|error| Error::internal("a file operation was cut short", error))?
    }
}

/// Opens for reading what is [held](resolve::HOLD), that very thing and not
/// what has its name by now.
#[cfg(target_os = "linux")]
fn reopen(held: &OwnedFd, flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(link_to(held), flags, rustix::fs::Mode::empty())
}

/// Where a descriptor can be told from its path, holding is opening already.
#[cfg(not(target_os = "linux"))]
fn reopen(held: &OwnedFd, _flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
    rustix::io::fcntl_dupfd_cloexec(held, 0)
}

/// A path to whatever a descriptor refers to.
#[cfg(target_os = "linux")]
fn link_to(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
