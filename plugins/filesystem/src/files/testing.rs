//! A workspace in a temporary directory, with a neighbour that must stay as it is.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use stigmer_sdk::{
    ByteRange, ByteStream, Error, ErrorCode, Metadata, Result, SandboxPath, WriteMode, WriteOptions,
};
use tempfile::TempDir;

use super::Workspace;

pub(super) struct Fixture {
    pub(super) workspace: Workspace,
    /// Where the workspace is on disk.
    pub(super) dir: PathBuf,
    /// Beside it, with a file `secret`.
    pub(super) outside: PathBuf,
    _all: TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        let base = all.path().canonicalize().unwrap();
        let (dir, outside) = (base.join("workspace"), base.join("outside"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        Self {
            workspace: Workspace::open(&dir).unwrap(),
            dir,
            outside,
            _all: all,
        }
    }

    /// A link in the workspace.
    pub(super) fn link(&self, target: impl AsRef<std::path::Path>, name: &str) {
        std::os::unix::fs::symlink(target, self.dir.join(name)).unwrap();
    }

    /// A path below the workspace, as an absolute one.
    pub(super) fn absolute(&self, below: &str) -> SandboxPath {
        path(self.dir.join(below).to_str().unwrap())
    }

    pub(super) async fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.read_range(name, ByteRange::default()).await
    }

    pub(super) async fn read_range(&self, name: &str, range: ByteRange) -> Result<Vec<u8>> {
        let (_, data) = self.workspace.read(&path(name), range).await?;
        Ok(data.try_collect::<Vec<Bytes>>().await?.concat())
    }

    pub(super) async fn write(&self, name: &str, mode: WriteMode, data: &str) -> Result<Metadata> {
        let options = WriteOptions {
            mode,
            permissions: None,
        };
        self.workspace.write(&path(name), options, once(data)).await
    }

    /// The names in the workspace, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Fails if anything was done beside the workspace.
    #[track_caller]
    pub(super) fn assert_contained(&self) {
        let names: Vec<_> = fs::read_dir(&self.outside)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read(self.outside.join("secret")).unwrap(), b"secret");
    }
}

pub(super) fn path(path: &str) -> SandboxPath {
    SandboxPath::new(path).unwrap()
}

pub(super) fn once(data: &str) -> ByteStream {
    stream::iter([Ok(Bytes::from(data.to_owned()))]).boxed()
}

/// A stream that sends and then fails.
pub(super) fn broken(data: Vec<u8>) -> ByteStream {
    let error = Error::new(ErrorCode::Cancelled, "given up");
    stream::iter([Ok(Bytes::from(data)), Err(error)]).boxed()
}

pub(super) fn code<T>(result: Result<T>) -> Option<ErrorCode> {
    result.err().map(|error| error.code())
}
