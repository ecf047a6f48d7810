//! Following a path name by name.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::resolve::{HOLD_DIR, Place, Root};

/// As many links as Linux itself follows in one path.
const MAX_LINKS: usize = 40;

/// Directories that a [`Trail`] holds open at a time. Enough that `..` finds
/// its directory open, and few enough that a path of 2,000 names does not use up
/// the descriptors of the process.
pub(super) const MAX_OPEN: usize = 64;

/// A way down from the root that can be gone back without asking the file
/// system what `..` is.
pub(super) struct Trail<'r> {
    root: &'r Root,
    pub(super) names: Vec<OsString>,
    /// The last directories of `names`, at most [`MAX_OPEN`] and at least one
    /// if there are any.
    open: VecDeque<OwnedFd>,
}

impl<'r> Trail<'r> {
    pub(super) fn new(root: &'r Root) -> Self {
        Self {
            root,
            names: Vec::new(),
            open: VecDeque::new(),
        }
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.open
            .back()
            .map_or(self.root.as_fd(), |dir| dir.as_fd())
    }

    fn enter(&mut self, name: OsString) -> Result<(), Errno> {
        let flags = HOLD_DIR | OFlags::NOFOLLOW;
        let dir = openat(self.dir(), &name, flags, Mode::empty())?;
        self.names.push(name);
        self.open.push_back(dir);
        if self.open.len() > MAX_OPEN {
            self.open.pop_front();
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) -> Result<(), Errno> {
        self.names.pop().ok_or(Errno::XDEV)?;
        self.open.pop_back();
        if self.open.is_empty() {
            for name in std::mem::take(&mut self.names) {
                self.enter(name)?;
            }
        }
        Ok(())
    }

    /// Follows a path to its last name, or to the first directory that is
    /// missing. Answers the missing ones and the last name, empty if the path
    /// ends at the directory reached.
    pub(super) fn follow(
        &mut self,
        path: &str,
        follow_last: bool,
    ) -> Result<(Vec<OsString>, OsString), Errno> {
        let mut rest = path.as_bytes().to_vec();
        let mut links = 0;
        loop {
            let start = rest.iter().position(|byte| *byte != b'/');
            let Some(start) = start else {
                return Ok((Vec::new(), OsString::new()));
            };
            let end = rest[start..].iter().position(|byte| *byte == b'/');
            let end = end.map_or(rest.len(), |length| start + length);
            let tail = rest.split_off(end);
            let name = OsString::from_vec(rest.split_off(start));
            rest = tail;
            match name.as_bytes() {
                b"." => continue,
                b".." => {
                    self.leave()?;
                    continue;
                }
                _ => {}
            }
            let target = if rest.is_empty() {
                if !follow_last {
                    return Ok((Vec::new(), name));
                }
                match self.link(&name) {
                    Ok(Some(target)) => target,
                    Ok(None) | Err(Errno::NOENT) => return Ok((Vec::new(), name)),
                    Err(errno) => return Err(errno),
                }
            } else {
                match self.enter(name.clone()) {
                    Ok(()) => continue,
                    Err(Errno::NOENT) => return missing(name, &rest),
                    Err(Errno::NOTDIR | Errno::LOOP) => self.link(&name)?.ok_or(Errno::NOTDIR)?,
                    Err(errno) => return Err(errno),
                }
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let mut target = target.into_vec();
            if target.starts_with(b"/") {
                target = self.root.strip(&target).ok_or(Errno::XDEV)?.to_vec();
                self.names.clear();
                self.open.clear();
            }
            target.extend_from_slice(&rest);
            rest = target;
        }
    }

    /// Where a link points, or `None` if it is something else.
    fn link(&self, name: &OsStr) -> Result<Option<OsString>, Errno> {
        match readlinkat(self.dir(), name, Vec::new()) {
            Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()))),
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn place(mut self, missing: Vec<OsString>, name: OsString) -> Result<Place, Errno> {
        let dir = match self.open.pop_back() {
            Some(dir) => dir,
            None => openat(self.root, ".", HOLD_DIR, Mode::empty())?,
        };
        Ok(Place {
            dir,
            missing,
            name,
            names: self.names,
        })
    }
}

/// What follows a directory that does not exist: more of those, and a name. A
/// `..` in there would be a parent of nothing.
fn missing(first: OsString, rest: &[u8]) -> Result<(Vec<OsString>, OsString), Errno> {
    let mut names = vec![first];
    for name in components(rest).filter(|name| *name != b".") {
        if name == b".." {
            return Err(Errno::NOENT);
        }
        names.push(OsStr::from_bytes(name).to_owned());
    }
    let is_directory = rest.ends_with(b"/") || rest.ends_with(b"/.");
    let last = if is_directory { None } else { names.pop() };
    Ok((names, last.unwrap_or_default()))
}

pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
}

/// What is left of an absolute path after all the names of another.
pub(super) fn strip_prefix<'p>(path: &'p [u8], prefix: &[u8]) -> Option<&'p [u8]> {
    let mut rest = path;
    for expected in components(prefix).filter(|name| *name != b".") {
        loop {
            let start = rest.iter().position(|byte| *byte != b'/')?;
            let end = rest[start..].iter().position(|byte| *byte == b'/');
            let end = end.map_or(rest.len(), |length| start + length);
            let name = &rest[start..end];
            rest = &rest[end..];
            if name == b"." {
                continue;
            }
            if name != expected {
                return None;
            }
            break;
        }
    }
    let start = rest.iter().position(|byte| *byte != b'/');
    Some(&rest[start.unwrap_or(rest.len())..])
}
