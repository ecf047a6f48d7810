//! The workspace's files, for the search.
//!
//! Each directory is opened from the descriptor of the one above it and each
//! file from its directory's, without following links: that is as safe as
//! resolving every path from the root, and much faster. Only a link, which a
//! glob may find, is resolved beneath the query's root.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use stigmer_sdk::search::{Entry, Node, Tree};
use stigmer_sdk::{FileKind, Metadata, Result, SandboxPath};

use super::error::At;
use super::resolve::{HOLD, Root};
use super::{metadata, reopen};

/// How a directory is opened to be listed.
const LIST: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How a file is opened to be searched. Should it be a FIFO by now, there is
/// nothing in it.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// What a query's root leads to.
pub(super) struct Files<'a> {
    workspace: &'a Root,
    path: &'a SandboxPath,
    /// The query's root, once it was found to be a directory.
    root: OnceLock<Root>,
}

/// A directory below it.
pub(super) struct Directory {
    fd: OwnedFd,
    /// Below the query's root.
    path: String,
}

impl<'a> Files<'a> {
    pub(super) fn new(workspace: &'a Root, path: &'a SandboxPath) -> Self {
        Self {
            workspace,
            path,
            root: OnceLock::new(),
        }
    }
}

impl Tree for Files<'_> {
    type Dir = Directory;
    type File = File;

    fn root(&self) -> Result<Node<Directory, File>> {
        let path = self.path.as_str();
        let below = self.workspace.below(self.path)?;
        let (held, found) = self.workspace.find_path(below, HOLD).at(path)?;
        let kind = metadata::kind(FileType::from_raw_mode(fstat(&held).at(path)?.st_mode));
        if kind != FileKind::Directory {
            metadata::regular(&fstat(&held).at(path)?).at(path)?;
            return Ok(Node::File(reopen(&held, OFlags::RDONLY).at(path)?.into()));
        }
        let fd = openat(&held, ".", LIST, Mode::empty()).at(path)?;
        self.root.get_or_init(|| self.workspace.nested(held, found));
        Ok(Node::Directory(Directory {
            fd,
            path: String::new(),
        }))
    }

    fn enter(&self, dir: &Directory, name: &str) -> Result<Directory> {
        Ok(Directory {
            fd: openat(&dir.fd, name, LIST, Mode::empty()).at(name)?,
            path: join(&dir.path, name),
        })
    }

    fn list(&self, dir: &Directory, entries: &mut Vec<Entry>) -> Result<()> {
        // The descriptor is the walk's, to open files by while others list, and
        // a directory is read once: its position is nobody else's.
        let fd = rustix::io::fcntl_dupfd_cloexec(&dir.fd, 0).at(&dir.path)?;
        let mut listing = Dir::new(fd).at(&dir.path)?;
        while let Some(entry) = listing.read() {
            let entry = entry.at(&dir.path)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                // A file system that does not tell.
                FileType::Unknown => match statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => metadata::kind(FileType::from_raw_mode(stat.st_mode)),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno).at(&dir.path),
                },
                file_type => metadata::kind(file_type),
            };
            entries.push(Entry {
                name: name.to_string_lossy().into_owned(),
                kind,
                metadata: None,
            });
        }
        Ok(())
    }

    fn open(&self, dir: &Directory, name: &str) -> Result<File> {
        Ok(openat(&dir.fd, name, READ, Mode::empty()).at(name)?.into())
    }

    fn metadata(&self, dir: &Directory, entry: &Entry) -> Result<Option<Metadata>> {
        let name = entry.name.as_str();
        if entry.kind != FileKind::Symlink {
            let stat = statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW).at(name)?;
            return Ok(Some(metadata::metadata(&stat)));
        }
        let Some(root) = self.root.get() else {
            return Ok(None);
        };
        match root.find(&join(&dir.path, name), HOLD) {
            Ok(held) => Ok(Some(metadata::metadata(&fstat(&held).at(name)?))),
            // Broken, a loop, or it leads out.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => {
                Ok(None)
            }
            Err(errno) => Err(errno).at(name),
        }
    }
}

fn join(dir: &str, name: &str) -> String {
    match dir {
        "" => name.to_owned(),
        _ => [dir, "/", name].concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::num::NonZeroU32;
    use std::os::unix::ffi::OsStrExt;
    use std::time::Duration;

    use rustix::fs::CWD;
    use stigmer_sdk::{ErrorCode, GlobQuery, GrepQuery};

    use super::super::testing::{Fixture, code, path};
    use super::*;

    fn fixture() -> Fixture {
        let fixture = Fixture::new();
        for dir in ["src/deep", "lib"] {
            fs::create_dir_all(fixture.dir.join(dir)).unwrap();
        }
        for file in ["src/a.rs", "src/deep/b.rs", "lib/c.rs"] {
            fs::write(fixture.dir.join(file), "needle\n").unwrap();
        }
        fixture.link("deep/b.rs", "src/in.rs");
        fixture.link(fixture.dir.join("src/a.rs"), "src/absolute.rs");
        fixture.link("../lib/c.rs", "src/sibling.rs");
        fixture.link(fixture.outside.join("secret"), "src/out.rs");
        fixture.link("in-a-loop.rs", "src/in-a-loop.rs");
        fixture.link(&fixture.outside, "src/out");
        rustix::fs::mkfifoat(CWD, fixture.dir.join("src/fifo.rs"), Mode::RUSR).unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"odd\xff.rs");
        fs::write(fixture.dir.join("src").join(odd), "needle\n").unwrap();
        fixture
    }

    fn glob(root: &str) -> GlobQuery {
        GlobQuery {
            root: path(root),
            pattern: "*.rs".to_owned(),
            directories: false,
            exclude: Vec::new(),
            gitignore: false,
            max_results: NonZeroU32::new(100).unwrap(),
            max_time: Duration::from_secs(60),
        }
    }

    fn grep(root: &str) -> GrepQuery {
        GrepQuery {
            root: path(root),
            patterns: vec!["needle".to_owned(), "secret".to_owned()],
            regex: false,
            ignore_case: false,
            files: None,
            exclude: Vec::new(),
            gitignore: false,
            before: 0,
            after: 0,
            max_results: NonZeroU32::new(100).unwrap(),
            max_time: Duration::from_secs(60),
        }
    }

    #[tokio::test]
    async fn globs_find_what_stays_below_their_root() {
        let fixture = fixture();
        let found = async |root: &str| {
            let results = fixture.workspace.glob(glob(root)).await.unwrap();
            assert_eq!(results.truncation, None);
            assert!(results.files.iter().all(|(_, metadata)| metadata.size == 7));
            results
                .files
                .into_iter()
                .map(|(path, _)| path)
                .collect::<Vec<_>>()
        };
        let src = ["a.rs", "absolute.rs", "deep/b.rs", "in.rs"];
        assert_eq!(found("src").await, src);
        assert_eq!(found(fixture.absolute("src").as_str()).await, src);
        let mut all = src.map(|name| format!("src/{name}")).to_vec();
        all.insert(0, "lib/c.rs".to_owned());
        all.push("src/sibling.rs".to_owned());
        assert_eq!(found(".").await, all);
    }

    #[tokio::test]
    async fn greps_read_files_and_follow_no_links() {
        let fixture = fixture();
        let found = async |root: &str| {
            let results = fixture.workspace.grep(grep(root)).await.unwrap();
            assert_eq!(results.truncation, None);
            results
                .matches
                .into_iter()
                .map(|found| found.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(found(".").await, ["lib/c.rs", "src/a.rs", "src/deep/b.rs"]);
        assert_eq!(found("src").await, ["a.rs", "deep/b.rs"]);
        assert_eq!(found("src/a.rs").await, [""]);
        assert_eq!(found("src/in.rs").await, [""]);
    }

    #[tokio::test]
    async fn roots_are_resolved_as_everywhere() {
        let fixture = fixture();
        let check = async |root: &str, globbed, grepped| {
            assert_eq!(
                code(fixture.workspace.glob(glob(root)).await),
                Some(globbed),
                "{root}"
            );
            assert_eq!(
                code(fixture.workspace.grep(grep(root)).await),
                Some(grepped),
                "{root}"
            );
        };
        use ErrorCode::{InvalidPath, NotAFile, NotFound};
        check("none", NotFound, NotFound).await;
        check("..", InvalidPath, InvalidPath).await;
        check("src/out", InvalidPath, InvalidPath).await;
        check("src/fifo.rs", NotAFile, NotAFile).await;
        let file = fixture.workspace.glob(glob("src/a.rs")).await;
        assert_eq!(code(file), Some(ErrorCode::NotADirectory));
    }
}
