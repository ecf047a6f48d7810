//! Search: by the backend if it offers it, else over `list` and `read`.
//!
//! Both find the same, because both are the SDK's engine or are compared with
//! it by the conformance suite. The engine blocks, so it runs on threads made
//! for that, which wait for the sandbox's answers on this runtime. They end
//! when nobody waits for the result any more.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use stigmer_sdk::search::{self, Entry, Node, Tree};
use stigmer_sdk::{
    ByteRange, ByteStream, Error, ErrorCode, FileKind, GlobQuery, GlobResults, GrepQuery,
    GrepResults, Metadata, Result, Sandbox, SandboxPath, Stat,
};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Threads of one search. They mostly wait for a backend that may be far away,
/// so that it is not the number of processors that counts.
const THREADS: usize = 8;

/// Finds files by name.
///
/// # Errors
/// Those of [`stigmer_sdk::Search::glob`].
pub async fn glob(sandbox: Arc<dyn Sandbox>, query: GlobQuery) -> Result<GlobResults> {
    if let Some(search) = sandbox.search() {
        return search.glob(query).await;
    }
    let tree = Files::new(sandbox, query.root.clone(), query.max_time);
    blocking(move |cancelled| search::glob(&tree, &query, THREADS, cancelled)).await
}

/// Finds lines by content.
///
/// # Errors
/// Those of [`stigmer_sdk::Search::grep`].
pub async fn grep(sandbox: Arc<dyn Sandbox>, query: GrepQuery) -> Result<GrepResults> {
    if let Some(search) = sandbox.search() {
        return search.grep(query).await;
    }
    let tree = Files::new(sandbox, query.root.clone(), query.max_time);
    blocking(move |cancelled| search::grep(&tree, &query, THREADS, cancelled)).await
}

/// Runs `work` where it may block, and tells it when its caller has gone.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
) -> Result<T> {
    struct CancelOnDrop(Arc<AtomicBool>);
    impl Drop for CancelOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let cancelled = Arc::new(AtomicBool::new(false));
    let _caller = CancelOnDrop(Arc::clone(&cancelled));
    tokio::task::spawn_blocking(move || work(&cancelled))
        .await
        .unwrap_or_else(|error| Err(Error::internal("the search broke", error)))
}

/// The files of a sandbox from the root of a query downwards.
struct Files {
    sandbox: Arc<dyn Sandbox>,
    runtime: Handle,
    root: SandboxPath,
    /// The root without links: what is below it counts, wherever a link that
    /// leads there is.
    resolved: OnceLock<SandboxPath>,
    /// `None` for one that the clock cannot express.
    deadline: Option<Instant>,
}

impl Files {
    fn new(sandbox: Arc<dyn Sandbox>, root: SandboxPath, max_time: Duration) -> Self {
        Self {
            sandbox,
            runtime: Handle::current(),
            root,
            resolved: OnceLock::new(),
            deadline: Instant::now().checked_add(max_time),
        }
    }

    fn wait<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(in_time(self.deadline, answer))
    }

    fn stat(&self, path: &SandboxPath) -> Result<Stat> {
        self.wait(self.sandbox.stat(path, true))
    }

    fn read(&self, path: &SandboxPath) -> Result<Content> {
        let (_, data) = self.wait(self.sandbox.read(path, ByteRange::default()))?;
        Ok(Content {
            data,
            piece: Bytes::new(),
            runtime: self.runtime.clone(),
            deadline: self.deadline,
        })
    }
}

/// The answer, unless the search is over before it comes. `Internal` makes that
/// a place that could not be read, so that what was found until then is kept.
async fn in_time<T>(
    deadline: Option<Instant>,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(deadline) = deadline else {
        return answer.await;
    };
    tokio::time::timeout_at(deadline, answer)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                ErrorCode::Internal,
                "the backend did not answer within the time of the search",
            ))
        })
}

impl Tree for Files {
    type Dir = SandboxPath;
    type File = Content;

    fn root(&self) -> Result<Node<SandboxPath, Content>> {
        let stat = self.stat(&self.root)?;
        let resolved = self.resolved.get_or_init(|| stat.path);
        match stat.metadata.kind {
            FileKind::Directory => Ok(Node::Directory(resolved.clone())),
            FileKind::File => Ok(Node::File(self.read(&self.root)?)),
            FileKind::Symlink | FileKind::Other => Err(Error::new(
                ErrorCode::NotAFile,
                "neither a file nor a directory",
            )
            .with_path(self.root.as_str())),
        }
    }

    fn enter(&self, dir: &SandboxPath, name: &str) -> Result<SandboxPath> {
        dir.join(name)
    }

    fn list(&self, dir: &SandboxPath, entries: &mut Vec<Entry>) -> Result<()> {
        self.wait(async {
            let mut listed = self.sandbox.list(dir).await?;
            while let Some(entry) = listed.next().await {
                let entry = entry?;
                entries.push(Entry {
                    name: entry.name,
                    kind: entry.metadata.kind,
                    metadata: Some(entry.metadata),
                });
            }
            Ok(())
        })
    }

    fn open(&self, dir: &SandboxPath, name: &str) -> Result<Content> {
        self.read(&dir.join(name)?)
    }

    fn metadata(&self, dir: &SandboxPath, entry: &Entry) -> Result<Option<Metadata>> {
        if entry.kind != FileKind::Symlink
            && let Some(metadata) = &entry.metadata
        {
            return Ok(Some(metadata.clone()));
        }
        let stat = match self.stat(&dir.join(&entry.name)?) {
            Ok(stat) => stat,
            // A link that leads nowhere, or out of the sandbox.
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidPath) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let root = self.resolved.get().unwrap_or(&self.root);
        Ok(is_below(&stat.path, root).then_some(stat.metadata))
    }
}

fn is_below(path: &SandboxPath, root: &SandboxPath) -> bool {
    path.as_str()
        .strip_prefix(root.as_str().trim_end_matches('/'))
        .is_some_and(|rest| rest.starts_with('/'))
}

/// A file that is read where it may block.
struct Content {
    data: ByteStream,
    piece: Bytes,
    runtime: Handle,
    deadline: Option<Instant>,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let next = async { self.data.next().await.transpose() };
            match self.runtime.block_on(in_time(self.deadline, next)) {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
