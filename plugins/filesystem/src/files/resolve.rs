//! Finding what a path names without ever leaving the workspace.
//!
//! On Linux the kernel resolves beneath the root's descriptor in one step. It
//! refuses absolute links altogether, even one that points back into the
//! workspace and that a command would follow; for those, for kernels without
//! `openat2`, and for paths whose end does not exist yet, a [`Trail`] goes name
//! by name. Both hold descriptors and never compare the text of a path with what
//! is on disk, so that a rename at the wrong moment changes what is found but
//! not where it can be.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
#[cfg(target_os = "linux")]
use rustix::fs::{ResolveFlags, openat2};
use rustix::io::Errno;
use stigmer_sdk::{Error, ErrorCode, Result, SandboxPath};

use super::error::At;
use super::trail::{Trail, components, strip_prefix};

/// Names a thing without opening it: no permission is needed, no FIFO waits and
/// no device notices.
#[cfg(target_os = "linux")]
pub(super) const HOLD: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
pub(super) const HOLD: OFlags = OFlags::NONBLOCK
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A directory, to resolve names in.
pub(super) const HOLD_DIR: OFlags = HOLD.union(OFlags::DIRECTORY);

/// The directory that everything stays beneath.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    /// Absolute and free of links.
    path: String,
    /// As the operator wrote it, if that is absolute and another spelling.
    alias: Option<String>,
}

/// Where a path ends: a name in a directory that is held.
#[derive(Debug)]
pub(super) struct Place {
    /// The deepest directory on the way that exists.
    pub(super) dir: OwnedFd,
    /// Directories below it that do not.
    pub(super) missing: Vec<OsString>,
    /// The last name, which may or may not exist. Empty if the place is `dir`.
    pub(super) name: OsString,
    /// The names from the root to `dir`, all of them directories.
    pub(super) names: Vec<OsString>,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = path.to_string_lossy();
        let canonical = path.canonicalize().map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            super::error::failure(errno, &shown)
        })?;
        let fd = openat(CWD, &canonical, HOLD_DIR, Mode::empty()).at(&shown)?;
        let Some(canonical) = canonical.to_str() else {
            return Err(
                Error::new(ErrorCode::InvalidPath, "a workspace's path must be UTF-8")
                    .with_path(shown),
            );
        };
        let alias = path
            .to_str()
            .filter(|given| path.is_absolute() && *given != canonical);
        Ok(Self {
            fd,
            path: canonical.to_owned(),
            alias: alias.map(str::to_owned),
        })
    }

    /// A directory below this one, as a root of its own: `path` is what
    /// [`Self::find_path`] says.
    pub(super) fn nested(&self, fd: OwnedFd, path: String) -> Self {
        let below = &path[self.path.len()..];
        let alias = self.alias.as_ref().map(|alias| format!("{alias}{below}"));
        Self { fd, path, alias }
    }

    /// Absolute and free of links.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The part of a path below the root, `.` for the root itself.
    pub(super) fn below<'p>(&self, path: &'p SandboxPath) -> Result<&'p str> {
        if !path.is_absolute() {
            return Ok(path.as_str());
        }
        let rest = self.strip(path.as_str().as_bytes()).ok_or(Errno::XDEV);
        // The prefix ends at a separator, so what is left of UTF-8 is UTF-8.
        let start = path.as_str().len() - rest.at(path.as_str())?.len();
        Ok(match &path.as_str()[start..] {
            "" => ".",
            rest => rest,
        })
    }

    /// Whether an absolute path, or one of dots alone, is a directory that
    /// contains the root, or the root.
    pub(super) fn is_within(&self, path: &SandboxPath) -> bool {
        let is_dot = |name: &[u8]| matches!(name, b"." | b"..");
        if !path.is_absolute() {
            return components(path.as_str().as_bytes()).all(is_dot);
        }
        [Some(&self.path), self.alias.as_ref()]
            .into_iter()
            .flatten()
            .any(|root| strip_prefix(root.as_bytes(), path.as_str().as_bytes()).is_some())
    }

    pub(super) fn strip<'p>(&self, absolute: &'p [u8]) -> Option<&'p [u8]> {
        strip_prefix(absolute, self.path.as_bytes())
            .or_else(|| strip_prefix(absolute, self.alias.as_ref()?.as_bytes()))
    }

    /// Opens what exists, following a link at the end unless `flags` has
    /// `NOFOLLOW`.
    pub(super) fn find(&self, below: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.find_beneath(below, flags, false) {
            Err(Errno::XDEV | Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
            found => return found,
        }
        self.walk(below, !flags.contains(OFlags::NOFOLLOW))?
            .open(flags)
    }

    /// As [`Self::find`], with the names that lead there without a link.
    pub(super) fn find_path(&self, below: &str, flags: OFlags) -> Result<(OwnedFd, String), Errno> {
        // Where there is no link on the way, the names are those of the text.
        match self.find_beneath(below, flags, true) {
            Err(Errno::XDEV | Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::LOOP) => {}
            found => return Ok((found?, self.absolute(&normalise(below)))),
        }
        let place = self.walk(below, !flags.contains(OFlags::NOFOLLOW))?;
        let found = place.open(flags)?;
        let names = place.names.iter().chain([&place.name]);
        let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
        Ok((found, self.absolute(names.join("/").trim_end_matches('/'))))
    }

    /// The absolute path of what is `below` the root.
    pub(super) fn absolute(&self, below: &str) -> String {
        match below {
            "" | "." => self.path.clone(),
            _ => format!("{}/{below}", self.path.trim_end_matches('/')),
        }
    }

    /// Finds the directory that the last name of a path is in; a link at the
    /// end is not followed. The name is empty if the path is the root's.
    pub(super) fn entry(&self, below: &str) -> Result<Place, Errno> {
        let (parent, name) = match below.rsplit_once('/') {
            Some((parent, name)) => (if parent.is_empty() { "." } else { parent }, name),
            None => (".", below),
        };
        if !matches!(name, "" | "." | "..")
            && let Ok(dir) = self.find_beneath(parent, HOLD_DIR, false)
        {
            return Ok(Place {
                dir,
                missing: Vec::new(),
                name: name.into(),
                names: Vec::new(),
            });
        }
        let mut trail = Trail::new(self);
        let (missing, mut name) = trail.follow(below, false)?;
        if name.is_empty()
            && let Some(last) = trail.names.last().cloned()
        {
            name = last;
            trail.leave()?;
        }
        trail.place(missing, name)
    }

    /// Goes name by name to where a path ends.
    pub(super) fn walk(&self, below: &str, follow: bool) -> Result<Place, Errno> {
        let mut trail = Trail::new(self);
        let (missing, name) = trail.follow(below, follow)?;
        trail.place(missing, name)
    }

    #[cfg(target_os = "linux")]
    fn find_beneath(&self, below: &str, flags: OFlags, plain: bool) -> Result<OwnedFd, Errno> {
        let mut how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        how.set(ResolveFlags::NO_SYMLINKS, plain);
        // The kernel gives up on a `..` whenever anything is renamed meanwhile.
        for _ in 0..16 {
            match openat2(&self.fd, below, flags, Mode::empty(), how) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    #[cfg(not(target_os = "linux"))]
    fn find_beneath(&self, _below: &str, _flags: OFlags, _plain: bool) -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Place {
    /// Opens what is there.
    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        if !self.missing.is_empty() {
            return Err(Errno::NOENT);
        }
        if self.name.is_empty() {
            return openat(&self.dir, ".", flags | OFlags::NOFOLLOW, Mode::empty());
        }
        openat(
            &self.dir,
            &self.name,
            flags | OFlags::NOFOLLOW,
            Mode::empty(),
        )
    }

    /// Makes the directories that are missing.
    pub(super) fn make_missing(mut self) -> Result<Self, Errno> {
        for name in std::mem::take(&mut self.missing) {
            self.dir = make_one(&self.dir, &name)?;
            self.names.push(name);
        }
        Ok(self)
    }
}

/// Makes a directory, unless somebody else just did, and holds it.
fn make_one(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    openat(dir, name, HOLD_DIR | OFlags::NOFOLLOW, Mode::empty())
}

/// The names of a path, without the ones that change nothing. Only where no
/// link is on the way does `..` undo the name before it.
fn normalise(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            _ => names.push(name),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::testing::{Fixture, code, path};
    use super::super::trail::MAX_OPEN;
    use super::*;

    fn fixture() -> Fixture {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.dir.join("a/b")).unwrap();
        fs::write(fixture.dir.join("a/b/file"), "content").unwrap();
        fixture.link("b/file", "a/relative");
        fixture.link("a/b", "dir");
        fixture.link(fixture.dir.join("a/b/file"), "absolute");
        fixture.link(fixture.dir.join("a"), "absolute-dir");
        fixture.link("../outside/secret", "out");
        fixture.link(&fixture.outside, "out-dir");
        fixture.link("/etc/passwd", "passwd");
        fixture.link("a/../../outside/secret", "out-by-dots");
        fixture.link("absolute-dir/../../outside/secret", "out-by-link");
        fixture.link("loop-b", "loop-a");
        fixture.link("loop-a", "loop-b");
        fixture.link("self/x", "self");
        fixture.link("nowhere/file", "broken");
        fixture.link("..", "up");
        fixture
    }

    /// Both ways to find a file must agree: the kernel's with its fallback, and
    /// the walk alone.
    #[test]
    fn paths_stay_inside() {
        let fixture = fixture();
        let root = Root::open(&fixture.dir).unwrap();
        let inside = fs::canonicalize(fixture.dir.join("a/b/file")).unwrap();
        let inside = inside.to_str().unwrap();
        let check = |given: &str, expected: Result<(), ErrorCode>| {
            let given = path(given);
            let below = match root.below(&given) {
                Ok(below) => below,
                Err(error) => return assert_eq!(Err(error.code()), expected, "{given}"),
            };
            let found = root.find(below, HOLD).map(drop);
            let walked = root.walk(below, true).and_then(|place| place.open(HOLD));
            let named = root.find_path(below, HOLD);
            assert_eq!(code(found.at("")), expected.err(), "find {given}");
            assert_eq!(code(walked.at("")), expected.err(), "walk {given}");
            match named {
                Ok((_, path)) => assert_eq!(path, inside, "{given}"),
                Err(errno) => assert_eq!(code::<()>(Err(errno).at("")), expected.err()),
            }
        };
        let absolute = |below: &str| fixture.absolute(below).as_str().to_owned();
        let outside = || Err(ErrorCode::InvalidPath);
        check("a/b/file", Ok(()));
        check("./a//b/./file", Ok(()));
        check("a/../a/b/file", Ok(()));
        check("a/relative", Ok(()));
        check("dir/file", Ok(()));
        check("dir/../b/file", Ok(()));
        check("absolute", Ok(()));
        check("absolute-dir/b/file", Ok(()));
        check("absolute-dir/../dir/../relative", Ok(()));
        check(&absolute("a/b/file"), Ok(()));
        check(&absolute("./absolute"), Ok(()));
        check(&format!("/{}", absolute("a/b/file")), Ok(()));
        check("..", outside());
        check("../workspace/a", outside());
        check("a/../../outside/secret", outside());
        check("out", outside());
        check("out-dir/secret", outside());
        check("passwd", outside());
        check("out-by-dots", outside());
        check("out-by-link", outside());
        check("up", outside());
        check("up/outside/secret", outside());
        check("/", outside());
        check("/etc/passwd", outside());
        check(
            &format!("{}-not/a", absolute("").trim_end_matches('/')),
            outside(),
        );
        check(&absolute("../outside/secret"), outside());
        check("loop-a", outside());
        check("self", outside());
        check("loop-a/x", outside());
        check(&format!("{}x", "a/".repeat(2000)), Err(ErrorCode::NotFound));
        check(&"x".repeat(256), outside());
        check("broken", Err(ErrorCode::NotFound));
        check("missing/../a/b/file", Err(ErrorCode::NotFound));
        check("a/b/file/x", Err(ErrorCode::NotADirectory));
        check("a/b/file/", Err(ErrorCode::NotADirectory));
        check("a/b/file/..", Err(ErrorCode::NotADirectory));
    }

    #[test]
    fn as_many_links_are_followed_as_by_the_kernel() {
        let fixture = Fixture::new();
        fs::write(fixture.dir.join("0"), "").unwrap();
        for n in 1..=41 {
            fixture.link(format!("{}", n - 1), &n.to_string());
        }
        let root = Root::open(&fixture.dir).unwrap();
        for n in ["40", "41"] {
            let walked = root.walk(n, true).and_then(|place| place.open(HOLD));
            let found = root.find(n, HOLD);
            assert_eq!(walked.map(drop), found.map(drop), "{n}");
        }
        assert!(root.walk("41", true).is_err());
    }

    #[test]
    fn commands_start_in_directories() {
        let fixture = fixture();
        let open = |name: &str| code(fixture.workspace.open_dir(&path(name)));
        assert_eq!(open("."), None);
        assert_eq!(open("absolute-dir/b"), None);
        assert_eq!(open("a/b/file"), Some(ErrorCode::NotADirectory));
        assert_eq!(open("none"), Some(ErrorCode::NotFound));
        assert_eq!(open("out-dir"), Some(ErrorCode::InvalidPath));
        let dir = fixture.workspace.open_dir(&path("a")).unwrap();
        assert!(
            rustix::fs::accessat(
                &dir,
                "b/file",
                rustix::fs::Access::EXISTS,
                rustix::fs::AtFlags::empty()
            )
            .is_ok()
        );
    }

    #[test]
    fn a_long_way_up_is_found_again() {
        let fixture = Fixture::new();
        let deep = "d/".repeat(MAX_OPEN * 3);
        fs::create_dir_all(fixture.dir.join(&deep)).unwrap();
        fs::write(fixture.dir.join("d/file"), "").unwrap();
        let root = Root::open(&fixture.dir).unwrap();
        let up = "../".repeat(MAX_OPEN * 3 - 1);
        assert!(
            root.walk(&format!("{deep}{up}file"), true)
                .unwrap()
                .open(HOLD)
                .is_ok()
        );
        let out = format!("{deep}{up}../../outside/secret");
        assert_eq!(root.walk(&out, true).unwrap_err(), Errno::XDEV);
    }

    #[test]
    fn either_spelling_of_the_workspace_is_known() {
        let fixture = fixture();
        let alias = fixture.dir.parent().unwrap().join("alias");
        symlink(&fixture.dir, &alias).unwrap();
        let root = Root::open(&alias).unwrap();
        for dir in [&alias, &fixture.dir] {
            let path = path(dir.join("a/b/file").to_str().unwrap());
            assert_eq!(root.below(&path).unwrap(), "a/b/file");
        }
        fixture.link(alias.join("a/b/file"), "by-alias");
        assert!(root.find("by-alias", HOLD).is_ok());
    }

    #[test]
    fn what_contains_the_workspace_is_known() {
        let fixture = Fixture::new();
        let root = Root::open(&fixture.dir).unwrap();
        let check = |given: &str, expected| assert_eq!(root.is_within(&path(given)), expected);
        check(".", true);
        check("./..", true);
        check("/", true);
        check(fixture.dir.to_str().unwrap(), true);
        check(fixture.dir.parent().unwrap().to_str().unwrap(), true);
        check("a", false);
        check(fixture.outside.to_str().unwrap(), false);
        check(fixture.absolute("a").as_str(), false);
    }

    /// A command swaps a directory for a link out as fast as it can.
    #[test]
    fn a_race_does_not_lead_out() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.dir.join("real")).unwrap();
        fs::write(fixture.dir.join("real/secret"), "public").unwrap();
        fixture.link(&fixture.outside, "evil");
        fs::rename(fixture.dir.join("real"), fixture.dir.join("swapped")).unwrap();
        let root = Root::open(&fixture.dir).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (dir, evil) = (fixture.dir.join("swapped"), fixture.dir.join("evil"));
                while !done.load(Ordering::Relaxed) {
                    let swap = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, &dir, CWD, &evil, swap).unwrap();
                }
            });
            for _ in 0..2000 {
                let walked = root
                    .walk("swapped/secret", true)
                    .and_then(|place| place.open(OFlags::RDONLY));
                let found = root.find("swapped/secret", OFlags::RDONLY);
                for file in [found, walked].into_iter().flatten() {
                    let content = std::io::read_to_string(fs::File::from(file)).unwrap();
                    assert_eq!(content, "public");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
