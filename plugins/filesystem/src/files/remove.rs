//! Removing a tree, however deep and whatever is done to it meanwhile.
//!
//! Every name is removed relative to the descriptor of its directory, and
//! directories are opened without following links, so nothing outside can be
//! reached. The descriptors of at most [`MAX_OPEN`] levels are held: a directory
//! deeper than that is first moved up into the top of the tree, and its turn
//! comes when the top is read again.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, fchmod, fstat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::draft::hidden_name;
use super::resolve::HOLD_DIR;

/// Directories held open at a time.
const MAX_OPEN: usize = 64;

/// Times that a directory is read again because it was not empty when all that
/// it held was removed. Somebody else is writing to it.
const MAX_PASSES: u32 = 16;

/// A directory that is being emptied.
struct Level {
    dir: Dir,
    name: CString,
    passes: u32,
    /// Something was moved into it.
    refilled: bool,
    /// Something in it could not be removed, and that is known already.
    failed: bool,
}

/// Removes what `name` is in `parent`, with everything under it. Goes on after
/// a failure, and answers the first.
///
/// With `force` it gives itself the permissions that a directory denies its own
/// owner; caches of modules often do.
pub(crate) fn remove_tree(
    parent: impl AsFd,
    name: impl AsRef<OsStr>,
    force: bool,
) -> Result<(), Errno> {
    let parent = parent.as_fd();
    let name = CString::new(name.as_ref().as_bytes()).map_err(|_| Errno::INVAL)?;
    let mut levels = match Level::open(parent, &name, force) {
        Ok(level) => vec![level],
        Err(Errno::NOTDIR | Errno::LOOP) => return unlinkat(parent, &name, AtFlags::empty()),
        // It may be empty, and then there is no need to read it.
        Err(errno) => return unlinkat(parent, &name, AtFlags::REMOVEDIR).map_err(|_| errno),
    };
    let mut failure = None;
    while let Some(level) = levels.last_mut() {
        let result = match level.dir.read() {
            Some(Ok(entry)) => match entry.file_name().to_bytes() {
                b"." | b".." => Ok(()),
                _ => remove_entry(&mut levels, entry.file_name(), entry.file_type(), force),
            },
            Some(Err(errno)) => Err(errno),
            None => finish(&mut levels, parent),
        };
        if let Err(errno) = result {
            failure = failure.or(Some(errno));
            if let Some(level) = levels.last_mut() {
                level.failed = true;
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Removes a file, or goes down into a directory.
fn remove_entry(
    levels: &mut Vec<Level>,
    name: &CStr,
    file_type: FileType,
    force: bool,
) -> Result<(), Errno> {
    let depth = levels.len();
    let (Some(top), Some(level)) = (levels.first(), levels.last()) else {
        return Ok(());
    };
    let dir = level.dir.fd()?;
    if file_type != FileType::Directory {
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // The type was unknown, or is another by now.
            Err(Errno::ISDIR) => {}
            // What POSIX says instead, and Linux of what may not be removed.
            Err(Errno::PERM) if file_type == FileType::Unknown => {}
            Err(errno) => return Err(errno),
        }
    }
    let below = match Level::open(dir, name, force) {
        Ok(below) => below,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(|_| errno),
    };
    if depth < MAX_OPEN {
        levels.push(below);
        return Ok(());
    }
    if unlinkat(dir, name, AtFlags::REMOVEDIR).is_err() {
        renameat(dir, name, top.dir.fd()?, hidden_name()?)?;
        levels[0].refilled = true;
    }
    Ok(())
}

/// Removes the directory that has been read to its end, or starts over.
fn finish(levels: &mut Vec<Level>, parent: BorrowedFd<'_>) -> Result<(), Errno> {
    let Some(mut level) = levels.pop() else {
        return Ok(());
    };
    let above = match levels.last() {
        Some(above) => above.dir.fd()?,
        None => parent,
    };
    if level.failed && !level.refilled {
        if let Some(above) = levels.last_mut() {
            above.failed = true;
        }
        return Ok(());
    }
    match unlinkat(above, &level.name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) if level.refilled || level.passes < MAX_PASSES => {
            // What was moved here is at most as deep as all that was there.
            level.passes += u32::from(!level.refilled);
            level.refilled = false;
            level.dir.rewind();
            levels.push(level);
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

impl Level {
    fn open(parent: BorrowedFd<'_>, name: &CStr, force: bool) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::ACCESS) if force => {
                let held = openat(parent, name, HOLD_DIR | OFlags::NOFOLLOW, Mode::empty())?;
                open_up(&held)?;
                openat(&held, ".", flags, Mode::empty())?
            }
            dir => dir?,
        };
        if force {
            let mode = fstat(&dir)?.st_mode;
            if mode & 0o700 != 0o700 {
                fchmod(&dir, Mode::from_raw_mode(mode | 0o700))?;
            }
        }
        Ok(Self {
            dir: Dir::new(dir)?,
            name: name.to_owned(),
            passes: 0,
            refilled: false,
            failed: false,
        })
    }
}

/// Lets the owner read a directory that is held and cannot be opened. Its name
/// could be a link by now, its descriptor cannot.
#[cfg(target_os = "linux")]
fn open_up(held: &OwnedFd) -> Result<(), Errno> {
    chmodat(CWD, super::link_to(held), Mode::RWXU, AtFlags::empty())
}

#[cfg(not(target_os = "linux"))]
fn open_up(held: &OwnedFd) -> Result<(), Errno> {
    fchmod(held, Mode::RWXU)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{OFlags, mkdirat};

    use super::super::testing::{Fixture, path};
    use super::*;

    /// Names of one letter, so that the tree is deeper than any path is long.
    fn dig(fixture: &Fixture, levels: usize) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir = openat(CWD, &fixture.dir, flags, Mode::empty()).unwrap();
        for level in 0..levels {
            mkdirat(&dir, "d", Mode::RWXU).unwrap();
            if level % 100 == 0 {
                mkdirat(&dir, "e", Mode::RWXU).unwrap();
                openat(&dir, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
            }
            dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_tree_deeper_than_any_path_is_removed() {
        let fixture = Fixture::new();
        dig(&fixture, 40 * MAX_OPEN);
        fixture.workspace.remove(&path("d"), true).await.unwrap();
        assert_eq!(fixture.names(), ["e", "f"]);
    }

    #[test]
    fn links_in_it_are_not_followed() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.dir.join("d")).unwrap();
        fixture.link(&fixture.outside, "d/out");
        let dir = openat(CWD, &fixture.dir, HOLD_DIR, Mode::empty()).unwrap();
        remove_tree(&dir, "d", false).unwrap();
        assert!(fixture.names().is_empty());
        fixture.assert_contained();
        assert_eq!(remove_tree(&dir, "d", false), Err(Errno::NOENT));
    }

    /// For root, permissions say nothing, and nothing is shown then.
    #[test]
    fn read_only_directories_go_only_by_force() {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.dir.join("cache/module/x")).unwrap();
        fs::write(fixture.dir.join("cache/module/file"), "").unwrap();
        let dir = openat(CWD, &fixture.dir, HOLD_DIR, Mode::empty()).unwrap();
        let module = fixture.dir.join("cache/module");
        let deny = |mode| chmodat(CWD, &module, Mode::from_raw_mode(mode), AtFlags::empty());
        deny(0o500).unwrap();
        if !rustix::process::geteuid().is_root() {
            assert_eq!(remove_tree(&dir, "cache", false), Err(Errno::ACCESS));
            deny(0o000).unwrap();
        }
        remove_tree(&dir, "cache", true).unwrap();
        assert!(fixture.names().is_empty());
    }
}
