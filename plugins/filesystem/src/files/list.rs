//! The entries of a directory, some hundreds at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::try_unfold;
use rustix::fs::{AtFlags, Dir, OFlags, statat};
use rustix::io::Errno;
use stigmer_sdk::{DirEntry, EntryStream, FileKind, Result, SandboxPath};

use super::error::At;
use super::{Inner, hop, metadata};

/// Entries per hop: most directories take one, and of the largest no more than
/// these are in memory.
const BATCH: usize = 512;

/// A directory on its way. Between hops nobody else has it.
struct Lister {
    dir: Dir,
    path: SandboxPath,
}

/// What a hop brings back: some entries, and the lister if there may be more.
type Batch = (VecDeque<DirEntry>, Option<Lister>);

pub(super) async fn list(inner: Arc<Inner>, path: SandboxPath) -> Result<EntryStream> {
    let first = hop(move || open(&inner, path)).await?;
    let entries = try_unfold(first, |(mut entries, mut lister)| async {
        loop {
            if let Some(entry) = entries.pop_front() {
                return Ok(Some((entry, (entries, lister))));
            }
            let Some(more) = lister.take() else {
                return Ok(None);
            };
            (entries, lister) = hop(move || more.next()).await?;
        }
    });
    Ok(Box::pin(entries))
}

fn open(inner: &Inner, path: SandboxPath) -> Result<Batch> {
    let root = &inner.root;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = root
        .find(root.below(&path)?, flags)
        .and_then(Dir::new)
        .at(path.as_str())?;
    Lister { dir, path }.next()
}

impl Lister {
    /// Reads a batch. Blocks.
    fn next(mut self) -> Result<Batch> {
        let mut entries = VecDeque::new();
        while entries.len() < BATCH {
            let Some(entry) = self.dir.read() else {
                return Ok((entries, None));
            };
            let entry = entry.at(self.path.as_str())?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let dir = self.dir.fd().at(self.path.as_str())?;
            let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                // Removed since its name was read.
                Err(Errno::NOENT) => continue,
                stat => stat.at(self.path.as_str())?,
            };
            let mut metadata = metadata::metadata(&stat);
            if metadata.kind == FileKind::Symlink {
                metadata.target = metadata::target(dir, name);
            }
            entries.push_back(DirEntry {
                name: name.to_string_lossy().into_owned(),
                metadata,
            });
        }
        Ok((entries, Some(self)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use futures_util::TryStreamExt;
    use stigmer_sdk::ErrorCode;

    use super::super::testing::{Fixture, code, path};
    use super::*;

    #[tokio::test]
    async fn every_entry_is_listed_once() {
        let fixture = Fixture::new();
        let mut expected = BTreeSet::new();
        for n in 0..3 * BATCH + 1 {
            fs::write(fixture.dir.join(n.to_string()), "").unwrap();
            expected.insert(n.to_string());
        }
        let entries: Vec<_> = fixture
            .workspace
            .list(&path("."))
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(entries.len(), expected.len());
        assert_eq!(
            entries
                .into_iter()
                .map(|entry| entry.name)
                .collect::<BTreeSet<_>>(),
            expected
        );
    }

    #[tokio::test]
    async fn entries_are_what_they_are_themselves() {
        let fixture = Fixture::new();
        fs::write(fixture.dir.join(OsStr::from_bytes(b"a\xffb")), "123").unwrap();
        fixture.link(&fixture.outside, "link");
        let mut entries: Vec<_> = fixture
            .workspace
            .list(&path("."))
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(entries[0].name, "a\u{fffd}b");
        assert_eq!(entries[0].metadata.size, 3);
        assert_eq!(entries[1].metadata.kind, FileKind::Symlink);
        assert_eq!(
            entries[1].metadata.target.as_deref(),
            fixture.outside.to_str()
        );
    }

    #[tokio::test]
    async fn only_directories_are_listed() {
        let fixture = Fixture::new();
        fs::write(fixture.dir.join("file"), "").unwrap();
        let listed = async |name: &str| code(fixture.workspace.list(&path(name)).await.map(drop));
        assert_eq!(listed("file").await, Some(ErrorCode::NotADirectory));
        assert_eq!(listed("none").await, Some(ErrorCode::NotFound));
        assert_eq!(listed("..").await, Some(ErrorCode::InvalidPath));
    }
}
