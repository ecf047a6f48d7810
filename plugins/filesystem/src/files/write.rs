//! Writing a file, so that it is there whole or not at all.
//!
//! ```text
//!  data ──► draft, without a name ──► linked to its name       (a new file)
//!                                 └─► linked to a hidden name,
//!                                     which is moved over it   (a replaced one)
//! ```
//!
//! A process that is killed leaves nothing: the kernel frees a draft with its
//! last descriptor. The one exception is the moment between the link and the
//! move, and file systems without unnamed files, where a draft has a hidden name
//! from the start.
//!
//! Nothing is synced. A write is atomic against readers and against the death of
//! this process, as those of the commands beside it are; it does not outlive a
//! power failure, which a sandbox does not either, and to wait for the disk would
//! make every small write a hundred times slower.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat, accessat, fstat, openat};
use rustix::io::Errno;
use stigmer_sdk::{
    ByteStream, Error, ErrorCode, FileKind, Metadata, Permissions, Result, SandboxPath, WriteMode,
    WriteOptions,
};

use super::change::find;
use super::draft::{Draft, start_writing_back};
use super::error::At;
use super::resolve::Place;
use super::{Inner, hop, metadata, start};

/// Bytes gathered before they go to the file. A write that is no longer than
/// this costs one hop.
const PIECE: usize = 256 * 1024;

/// Chunks gathered at most: as many as one system call takes.
const CHUNKS: usize = 1024;

struct Write {
    inner: Arc<Inner>,
    path: SandboxPath,
    options: WriteOptions,
}

pub(super) async fn write(
    inner: Arc<Inner>,
    path: SandboxPath,
    options: WriteOptions,
    mut data: ByteStream,
) -> Result<Metadata> {
    let write = Arc::new(Write {
        inner,
        path,
        options,
    });
    let mut draft = None;
    let (mut chunks, mut ended) = gather(&mut data).await?;
    while !ended {
        let this = Arc::clone(&write);
        let written = start(move || {
            let mut draft = match draft {
                Some(draft) => draft,
                None => this.begin()?,
            };
            draft.append(&chunks).at(this.path.as_str())?;
            Ok(draft)
        });
        (chunks, ended) = gather(&mut data).await?;
        draft = Some(written.await?);
    }
    hop(move || write.finish(draft, &chunks)).await
}

/// Takes what comes, up to a piece, and says whether it was the last.
async fn gather(data: &mut ByteStream) -> Result<(Vec<Bytes>, bool)> {
    let mut chunks = Vec::new();
    let mut size = 0;
    while size < PIECE && chunks.len() < CHUNKS {
        let Some(chunk) = data.next().await else {
            return Ok((chunks, true));
        };
        let chunk = chunk?;
        size += chunk.len();
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
    }
    Ok((chunks, false))
}

impl Write {
    /// Starts a draft, after a look at what would be refused in the end anyway.
    fn begin(&self) -> Result<Draft> {
        let place = self.locate()?;
        if place.missing.is_empty() {
            self.check(&place, self.find(&place)?.as_ref())?;
        }
        Draft::new(&place.dir).at(self.path.as_str())
    }

    /// Puts the draft and the last chunks where they belong. The path is looked
    /// up again: during a long upload, its directory may have been replaced.
    fn finish(&self, draft: Option<Draft>, chunks: &[Bytes]) -> Result<Metadata> {
        let mut place = self.locate()?;
        if !place.missing.is_empty() {
            place = place.make_missing().at(self.path.as_str())?;
        }
        if self.options.mode == WriteMode::Append {
            return self.append(&place, draft, chunks);
        }
        let mut draft = match draft {
            Some(draft) => draft,
            None => Draft::new(&place.dir).at(self.path.as_str())?,
        };
        draft.append(chunks).at(self.path.as_str())?;
        let _changing = self.inner.changing();
        let old = self.find(&place)?;
        self.check(&place, old.as_ref())?;
        self.publish(draft, &place, old.as_ref())
    }

    /// Replaces the file with a copy that is longer. The copy is made first and
    /// checked afterwards, so that only those who lose a race copy while others
    /// wait.
    fn append(&self, place: &Place, added: Option<Draft>, chunks: &[Bytes]) -> Result<Metadata> {
        let path = self.path.as_str();
        let mut changing = None;
        loop {
            let old = self.find(place)?;
            self.check(place, old.as_ref())?;
            let mut draft = Draft::new(&place.dir).at(path)?;
            if old.is_some() {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(&place.dir, &place.name, flags, Mode::empty()).at(path)?;
                metadata::regular(&fstat(&file).at(path)?).at(path)?;
                draft.copy(&file).at(path)?;
            }
            if let Some(added) = &added {
                draft.copy(added.file()).at(path)?;
            }
            draft.append(chunks).at(path)?;
            let unchanged = changing.is_some() || {
                changing = Some(self.inner.changing());
                self.find(place)?.as_ref().map(metadata::version)
                    == old.as_ref().map(metadata::version)
            };
            if unchanged {
                return self.publish(draft, place, old.as_ref());
            }
        }
    }

    /// Finds the file's directory, through a link at the end of the path.
    fn locate(&self) -> Result<Place> {
        let root = &self.inner.root;
        let path = self.path.as_str();
        let below = root.below(&self.path)?;
        let is_directory = below.ends_with('/') || below.ends_with("/.");
        let mut place = root.entry(below).at(path)?;
        if is_directory || place.name.is_empty() {
            return Err(Errno::ISDIR).at(path);
        }
        if self.options.mode != WriteMode::CreateNew && place.missing.is_empty() {
            let old = self.find(&place)?;
            if old.is_some_and(|old| kind(&old) == FileKind::Symlink) {
                place = root.walk(below, true).at(path)?;
                if place.name.is_empty() {
                    return Err(Errno::ISDIR).at(path);
                }
            }
        }
        Ok(place)
    }

    fn find(&self, place: &Place) -> Result<Option<Stat>> {
        find(&place.dir, &place.name).at(self.path.as_str())
    }

    /// Whether this write may take the place of what is there.
    fn check(&self, place: &Place, old: Option<&Stat>) -> Result<()> {
        let path = self.path.as_str();
        let Some(old) = old else {
            return match &self.options.mode {
                WriteMode::ReplaceVersion(_) => Err(conflict("the file is gone", path)),
                WriteMode::Replace | WriteMode::CreateNew | WriteMode::Append => Ok(()),
            };
        };
        if self.options.mode == WriteMode::CreateNew {
            return Err(Errno::EXIST).at(path);
        }
        metadata::regular(old).at(path)?;
        if let WriteMode::ReplaceVersion(expected) = &self.options.mode
            && metadata::version(old) != *expected
        {
            return Err(conflict("the file has changed since it was read", path));
        }
        // The directory's permissions alone would let a read-only file be
        // replaced, and no command could write to it.
        if old.st_mode & 0o222 != 0o222 {
            let flags = AtFlags::EACCESS;
            accessat(&place.dir, &place.name, Access::WRITE_OK, flags).at(path)?;
        }
        Ok(())
    }

    /// Gives the draft its name. The caller holds the lock and has checked.
    fn publish(&self, draft: Draft, place: &Place, old: Option<&Stat>) -> Result<Metadata> {
        let path = self.path.as_str();
        let permissions = self
            .options
            .permissions
            .or_else(|| old.map(|old| Permissions::of_mode(metadata::mode(old))));
        draft.adopt(permissions, old).at(path)?;
        let file = match (old, &self.options.mode) {
            (None, WriteMode::CreateNew) => draft.link(&place.dir, &place.name).at(path)?,
            _ => draft.put(&place.dir, &place.name, old.is_none()).at(path)?,
        };
        let metadata = metadata::metadata(&fstat(&file).at(path)?);
        if old.is_some() {
            // Detached: one system call that keeps a promise which nobody waits for.
            drop(tokio::task::spawn_blocking(move || {
                start_writing_back(&file)
            }));
        }
        Ok(metadata)
    }
}

fn kind(stat: &Stat) -> FileKind {
    metadata::kind(FileType::from_raw_mode(stat.st_mode))
}

fn conflict(message: &str, path: &str) -> Error {
    Error::new(ErrorCode::Conflict, message).with_path(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::join_all;
    use futures_util::stream;

    use super::super::testing::{Fixture, broken, code, once, path};
    use super::*;

    fn fixture() -> Fixture {
        let fixture = Fixture::new();
        fs::create_dir(fixture.dir.join("dir")).unwrap();
        fs::write(fixture.dir.join("old"), "old").unwrap();
        fixture.link("old", "link");
        fixture.link("dir/new", "to-new");
        fixture.link("missing/new", "to-missing");
        fixture.link(&fixture.outside, "out");
        fixture.link("../outside/new", "out-new");
        fixture
    }

    #[tokio::test]
    async fn modes_and_kinds_decide() {
        let check = async |name: &str, mode, expected: Result<(&str, &str), ErrorCode>| {
            let fixture = fixture();
            let before = fixture.names();
            let written = fixture.write(name, mode, "new").await;
            match expected {
                Ok((target, content)) => {
                    assert_eq!(written.unwrap().size, content.len() as u64, "{name}");
                    assert_eq!(
                        fs::read_to_string(fixture.dir.join(target)).unwrap(),
                        content
                    );
                }
                Err(expected) => {
                    assert_eq!(code(written), Some(expected), "{name}");
                    assert_eq!(fixture.names(), before);
                    assert_eq!(fs::read(fixture.dir.join("old")).unwrap(), b"old");
                }
            }
            fixture.assert_contained();
        };
        use ErrorCode::{AlreadyExists, Conflict, InvalidPath, IsDirectory, NotADirectory};
        use WriteMode::{Append, CreateNew, Replace, ReplaceVersion};
        check("new", Replace, Ok(("new", "new"))).await;
        check("old", Replace, Ok(("old", "new"))).await;
        check("a/b/new", Replace, Ok(("a/b/new", "new"))).await;
        check("link", Replace, Ok(("old", "new"))).await;
        check("to-new", Replace, Ok(("dir/new", "new"))).await;
        check("to-missing", Replace, Ok(("missing/new", "new"))).await;
        check("dir", Replace, Err(IsDirectory)).await;
        check("new/", Replace, Err(IsDirectory)).await;
        check(".", Replace, Err(IsDirectory)).await;
        check("dir/..", Append, Err(IsDirectory)).await;
        check("old/x", Replace, Err(NotADirectory)).await;
        check("out/secret", Replace, Err(InvalidPath)).await;
        check("out/new", CreateNew, Err(InvalidPath)).await;
        check("out-new", Replace, Err(InvalidPath)).await;
        check("../new", Replace, Err(InvalidPath)).await;
        check("new", CreateNew, Ok(("new", "new"))).await;
        check("old", CreateNew, Err(AlreadyExists)).await;
        check("dir", CreateNew, Err(AlreadyExists)).await;
        check("to-new", CreateNew, Err(AlreadyExists)).await;
        check("new", Append, Ok(("new", "new"))).await;
        check("old", Append, Ok(("old", "oldnew"))).await;
        check("link", Append, Ok(("old", "oldnew"))).await;
        let other = || ReplaceVersion(stigmer_sdk::Version::new("other"));
        check("old", other(), Err(Conflict)).await;
        check("new", other(), Err(Conflict)).await;
    }

    #[tokio::test]
    async fn a_written_file_is_a_link_no_more_and_its_link_still_is() {
        let fixture = fixture();
        fixture
            .write("link", WriteMode::Replace, "new")
            .await
            .unwrap();
        assert!(fixture.dir.join("link").is_symlink());
    }

    #[tokio::test]
    async fn the_version_is_that_of_the_file() {
        let fixture = fixture();
        let first = fixture.write("old", WriteMode::Replace, "1").await.unwrap();
        let stat = fixture.workspace.stat(&path("old"), true).await.unwrap();
        assert_eq!(stat.metadata, first);
        let mode = WriteMode::ReplaceVersion(first.version.unwrap());
        fixture.write("old", mode.clone(), "2").await.unwrap();
        let again = fixture.write("old", mode, "3").await;
        assert_eq!(code(again), Some(ErrorCode::Conflict));
        assert_eq!(fixture.read("old").await.unwrap(), b"2");
    }

    #[tokio::test]
    async fn permissions_are_kept_or_set() {
        let fixture = fixture();
        let mode = |name: &str| fs::metadata(fixture.dir.join(name)).unwrap().mode() & 0o7777;
        let set =
            |mode| fs::set_permissions(fixture.dir.join("old"), fs::Permissions::from_mode(mode));
        set(0o751).unwrap();
        fixture.write("old", WriteMode::Replace, "x").await.unwrap();
        assert_eq!(mode("old"), 0o751);
        fixture.write("old", WriteMode::Append, "x").await.unwrap();
        assert_eq!(mode("old"), 0o751);
        // What a program makes without being told otherwise.
        fs::write(fixture.dir.join("made"), "").unwrap();
        fixture.write("new", WriteMode::Replace, "x").await.unwrap();
        assert_eq!(mode("new"), mode("made"));
        let options = WriteOptions {
            mode: WriteMode::Replace,
            permissions: Some(Permissions::new(0o604).unwrap()),
        };
        for name in ["old", "new2"] {
            let written = fixture
                .workspace
                .write(&path(name), options.clone(), once("x"))
                .await;
            assert_eq!(written.unwrap().permissions, options.permissions);
            assert_eq!(mode(name), 0o604);
        }
        if !rustix::process::geteuid().is_root() {
            set(0o444).unwrap();
            let written = fixture.write("old", WriteMode::Replace, "y").await;
            assert_eq!(code(written), Some(ErrorCode::PermissionDenied));
        }
    }

    #[tokio::test]
    async fn what_is_given_up_leaves_nothing() {
        let fixture = fixture();
        let before = fixture.names();
        for size in [1, PIECE, 3 * PIECE] {
            for name in ["old", "new", "a/b/new"] {
                let path = path(name);
                let write = |data| {
                    let options = WriteOptions::default();
                    fixture.workspace.write(&path, options, data)
                };
                let written = write(broken(vec![1; size])).await;
                assert_eq!(code(written), Some(ErrorCode::Cancelled));
                // One that never ends is dropped after it was polled.
                let endless = stream::iter([Ok(Bytes::from(vec![1; size]))]);
                let mut write = Box::pin(write(endless.chain(stream::pending()).boxed()));
                for _ in 0..3 {
                    assert!(futures_util::poll!(&mut write).is_pending());
                    tokio::task::yield_now().await;
                }
                drop(write);
            }
        }
        assert_eq!(fixture.names(), before);
        assert_eq!(fixture.read("old").await.unwrap(), b"old");
    }

    #[tokio::test]
    async fn chunks_of_all_sizes_arrive_in_order() {
        let fixture = fixture();
        for (count, size) in [
            (0, 0),
            (3000, 1),
            (1, PIECE),
            (9, PIECE / 2 + 1),
            (3, 2 * PIECE),
        ] {
            let chunks: Vec<_> = (0..count)
                .map(|n| Bytes::from(vec![n as u8; size]))
                .collect();
            let data = stream::iter(chunks.clone().into_iter().map(Ok)).boxed();
            let options = WriteOptions::default();
            fixture
                .workspace
                .write(&path("new"), options, data)
                .await
                .unwrap();
            assert!(
                fixture.read("new").await.unwrap() == chunks.concat(),
                "{count} {size}"
            );
            let data = stream::iter(chunks.clone().into_iter().map(Ok)).boxed();
            let options = WriteOptions {
                mode: WriteMode::Append,
                permissions: None,
            };
            fixture
                .workspace
                .write(&path("new"), options, data)
                .await
                .unwrap();
            let twice = [chunks.clone(), chunks].concat().concat();
            assert!(
                fixture.read("new").await.unwrap() == twice,
                "{count} {size}"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_two_with_the_same_condition_one_wins() {
        let fixture = fixture();
        for _ in 0..100 {
            let current = fixture.workspace.stat(&path("old"), true).await.unwrap();
            let mode = WriteMode::ReplaceVersion(current.metadata.version.unwrap());
            let writes = ["a", "b", "c", "d"].map(|data| fixture.write("old", mode.clone(), data));
            let written = join_all(writes).await;
            assert_eq!(written.iter().filter(|written| written.is_ok()).count(), 1);
            let writes = ["a", "b"].map(|data| fixture.write("once", WriteMode::CreateNew, data));
            let written = join_all(writes).await;
            assert_eq!(written.iter().filter(|written| written.is_ok()).count(), 1);
            fs::remove_file(fixture.dir.join("once")).unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_append_is_lost() {
        let fixture = fixture();
        let lines: Vec<_> = (0..100).map(|n| format!("{n}\n")).collect();
        let writes = lines
            .iter()
            .map(|line| fixture.write("log", WriteMode::Append, line));
        assert!(join_all(writes).await.iter().all(Result::is_ok));
        let log = String::from_utf8(fixture.read("log").await.unwrap()).unwrap();
        let mut written: Vec<_> = log.split_inclusive('\n').collect();
        let mut lines: Vec<_> = lines.iter().map(String::as_str).collect();
        written.sort_unstable();
        lines.sort_unstable();
        assert_eq!(written, lines);
    }

    #[tokio::test]
    async fn holes_stay_holes() {
        let fixture = fixture();
        fs::File::create(fixture.dir.join("sparse"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        let written = fixture
            .write("sparse", WriteMode::Append, "end")
            .await
            .unwrap();
        assert_eq!(written.size, (1 << 40) + 3);
        assert!(fs::metadata(fixture.dir.join("sparse")).unwrap().blocks() < 1024);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_sees_the_old_file_or_the_new() {
        let fixture = fixture();
        let contents = ["a".repeat(100_000), "b".repeat(50_000)];
        fixture
            .write("old", WriteMode::Replace, &contents[0])
            .await
            .unwrap();
        let done = AtomicBool::new(false);
        let file = fixture.dir.join("old");
        let expected = &contents;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let read = fs::read_to_string(&file).unwrap();
                    assert!(expected.contains(&read));
                }
            });
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    for n in 0..200 {
                        fixture
                            .write("old", WriteMode::Replace, &contents[n % 2])
                            .await
                            .unwrap();
                    }
                });
            });
            done.store(true, Ordering::Relaxed);
        });
    }
}
