//! Making directories, removing and moving.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Mode, RenameFlags, Stat, mkdirat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use stigmer_sdk::{Error, ErrorCode, FileKind, Result, SandboxPath};

use super::error::At;
use super::resolve::{HOLD, HOLD_DIR, Place, Root};
use super::{Inner, metadata, remove_tree};

pub(super) fn make_dir(root: &Root, path: &SandboxPath) -> Result<()> {
    let below = root.below(path)?;
    match root.find(below, HOLD_DIR) {
        Ok(_) => return Ok(()),
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR) => {
            // Either the path itself is something else, or a parent of it.
            let name = below.trim_end_matches('/');
            let errno = root.find(name, HOLD).err().unwrap_or(Errno::EXIST);
            return Err(errno).at(path.as_str());
        }
        Err(errno) => return Err(errno).at(path.as_str()),
    }
    // The link at the end, if there is one, leads nowhere and is not replaced.
    let place = root
        .walk(below, false)
        .and_then(Place::make_missing)
        .at(path.as_str())?;
    if place.name.is_empty() {
        return Ok(());
    }
    match mkdirat(&place.dir, &place.name, Mode::from_raw_mode(0o777)) {
        // Somebody else may have made it just now, and as well.
        Err(Errno::EXIST)
            if is_directory(find(&place.dir, &place.name).at(path.as_str())?.as_ref()) =>
        {
            Ok(())
        }
        made => made.at(path.as_str()),
    }
}

pub(super) fn remove(inner: &Inner, path: &SandboxPath, recursive: bool) -> Result<()> {
    if inner.root.is_within(path) {
        return Err(not_the_workspace(path));
    }
    let (place, stat) = existing(&inner.root, path)?;
    if is_directory(Some(&stat)) {
        if !recursive {
            return Err(Errno::ISDIR).at(path.as_str());
        }
        // As `rm -r` would, it fails for what is in a directory that may not
        // be written to. Only a sandbox that is destroyed goes regardless.
        return remove_tree(&place.dir, &place.name, false).at(path.as_str());
    }
    let _changing = inner.changing();
    unlinkat(&place.dir, &place.name, AtFlags::empty()).at(path.as_str())
}

pub(super) fn rename(inner: &Inner, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
    let (source, stat) = existing(&inner.root, from)?;
    let below = inner.root.below(to)?;
    let name = trim(below);
    let target = inner.root.entry(name).at(to.as_str())?;
    if !target.missing.is_empty() {
        return Err(Errno::NOENT).at(to.as_str());
    }
    if target.name.is_empty() {
        return Err(Errno::EXIST).at(to.as_str());
    }
    let _changing = inner.changing();
    let there = find(&target.dir, &target.name).at(to.as_str())?;
    if there.as_ref().is_some_and(|there| same(&stat, there)) {
        return Ok(());
    }
    let moved = if is_directory(Some(&stat)) {
        if there.is_some() && !is_directory(there.as_ref()) {
            return Err(Error::new(
                ErrorCode::NotADirectory,
                "a directory cannot take the place of something else",
            )
            .with_path(to.as_str()));
        }
        move_directory(&source, &target)
    } else if is_directory(there.as_ref()) {
        Err(Errno::EXIST)
    } else if name != below {
        Err(Errno::NOTDIR)
    } else {
        renameat(&source.dir, &source.name, &target.dir, &target.name)
    };
    match moved {
        // ISDIR: a directory that came there meanwhile.
        Err(Errno::EXIST | Errno::ISDIR) => Err(Errno::EXIST).at(to.as_str()),
        Err(Errno::INVAL) => Err(Error::new(
            ErrorCode::InvalidArgument,
            "a directory cannot be moved into itself",
        )
        .with_path(to.as_str())),
        Err(Errno::XDEV) => {
            Err(Error::unsupported("moving to another file system").with_path(to.as_str()))
        }
        moved => moved.at(from.as_str()),
    }
}

/// Moves a directory to a name that must be free: the kernel by itself would
/// replace an empty directory.
fn move_directory(source: &Place, target: &Place) -> Result<(), Errno> {
    let free = RenameFlags::NOREPLACE;
    match renameat_with(&source.dir, &source.name, &target.dir, &target.name, free) {
        // The file system has no such flag, or the target is inside the source.
        Err(Errno::INVAL | Errno::NOSYS) => match find(&target.dir, &target.name)? {
            Some(_) => Err(Errno::EXIST),
            None => renameat(&source.dir, &source.name, &target.dir, &target.name),
        },
        moved => moved,
    }
}

/// Finds what a path names, itself and not what it leads to.
fn existing(root: &Root, path: &SandboxPath) -> Result<(Place, Stat)> {
    let below = root.below(path)?;
    let name = trim(below);
    let place = root.entry(name).at(path.as_str())?;
    if !place.missing.is_empty() {
        return Err(Errno::NOENT).at(path.as_str());
    }
    if place.name.is_empty() {
        return Err(not_the_workspace(path));
    }
    let found = find(&place.dir, &place.name).at(path.as_str())?;
    let stat = found.ok_or(Errno::NOENT).at(path.as_str())?;
    // A path that ends in a slash names a directory, and never the one that a
    // link leads to.
    if name != below && !is_directory(Some(&stat)) {
        return Err(Errno::NOTDIR).at(path.as_str());
    }
    Ok((place, stat))
}

fn not_the_workspace(path: &SandboxPath) -> Error {
    Error::new(
        ErrorCode::PermissionDenied,
        "the workspace itself stays where it is",
    )
    .with_path(path.as_str())
}

/// A path without slashes at its end, and not without anything.
fn trim(below: &str) -> &str {
    match below.trim_end_matches('/') {
        "" => ".",
        name => name,
    }
}

/// What has a name, if anything.
pub(super) fn find(dir: &OwnedFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is_directory(stat: Option<&Stat>) -> bool {
    stat.is_some_and(|stat| {
        metadata::kind(FileType::from_raw_mode(stat.st_mode)) == FileKind::Directory
    })
}

fn same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{Fixture, code, path};
    use super::*;

    fn fixture() -> Fixture {
        let fixture = Fixture::new();
        for dir in ["a/b", "empty", "full/x"] {
            fs::create_dir_all(fixture.dir.join(dir)).unwrap();
        }
        for file in ["file", "other", "a/b/inner"] {
            fs::write(fixture.dir.join(file), file).unwrap();
        }
        fixture.link("a", "link");
        fixture.link("nowhere", "broken");
        fixture.link(&fixture.outside, "out");
        fixture
    }

    #[tokio::test]
    async fn directories_are_made_with_their_parents() {
        let check = async |name: &str, expected| {
            let fixture = fixture();
            let made = fixture.workspace.make_dir(&path(name)).await;
            assert_eq!(code(made), expected, "{name}");
            let there = fixture.dir.join(name).is_dir();
            assert!(expected.is_some() || there, "{name}");
            fixture.assert_contained();
        };
        check("new", None).await;
        check("new/x/y/", None).await;
        check("a/b", None).await;
        check(".", None).await;
        check("link/new/x", None).await;
        check("a/../new", None).await;
        check(&"deep/".repeat(600), None).await;
        check("file", Some(ErrorCode::AlreadyExists)).await;
        check("broken", Some(ErrorCode::AlreadyExists)).await;
        check("file/x", Some(ErrorCode::NotADirectory)).await;
        check("file/x/y", Some(ErrorCode::NotADirectory)).await;
        check("out/x", Some(ErrorCode::InvalidPath)).await;
        check("../x", Some(ErrorCode::InvalidPath)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn all_who_make_a_directory_at_once_succeed() {
        let fixture = fixture();
        for n in 0..50 {
            let path = path(&format!("many/{n}/x"));
            let made =
                futures_util::future::join_all((0..8).map(|_| fixture.workspace.make_dir(&path)));
            assert!(made.await.iter().all(Result::is_ok));
        }
    }

    #[tokio::test]
    async fn removing_takes_links_as_links_and_spares_the_workspace() {
        let check = async |name: &str, recursive, expected| {
            let fixture = fixture();
            let removed = fixture.workspace.remove(&path(name), recursive).await;
            assert_eq!(code(removed), expected, "{name}");
            let gone = fixture.dir.join(name).symlink_metadata().is_err();
            assert!(expected.is_some() || gone, "{name}");
            assert!(fixture.dir.join("file").exists() || name == "file");
            fixture.assert_contained();
        };
        let refused = Some(ErrorCode::PermissionDenied);
        check("file", false, None).await;
        check("file", true, None).await;
        check("link", true, None).await;
        check("broken", false, None).await;
        check("out", true, None).await;
        check("a", true, None).await;
        check("a/", true, None).await;
        check("link/b", true, None).await;
        check("a/b/..", true, None).await;
        check("a", false, Some(ErrorCode::IsDirectory)).await;
        check("empty", false, Some(ErrorCode::IsDirectory)).await;
        check("none", true, Some(ErrorCode::NotFound)).await;
        check("none/x", true, Some(ErrorCode::NotFound)).await;
        check("link/", true, Some(ErrorCode::NotADirectory)).await;
        check("file/", true, Some(ErrorCode::NotADirectory)).await;
        check("out/secret", false, Some(ErrorCode::InvalidPath)).await;
        check(".", true, refused).await;
        check("./", true, refused).await;
        check("..", true, refused).await;
        check("a/..", true, refused).await;
        // Never recursively: a resolver that is wrong would then obey.
        check("/", false, refused).await;
        let fixture = fixture();
        let removed = fixture.workspace.remove(&fixture.absolute(""), true).await;
        assert_eq!(code(removed), refused);
    }

    #[tokio::test]
    async fn renaming_replaces_files_only() {
        let check = async |from: &str, to: &str, expected| {
            let fixture = fixture();
            let before = fs::symlink_metadata(fixture.dir.join(from));
            let moved = fixture.workspace.rename(&path(from), &path(to)).await;
            assert_eq!(code(moved), expected, "{from} {to}");
            if expected.is_none() {
                use std::os::unix::fs::MetadataExt;
                let after = fs::symlink_metadata(fixture.dir.join(to)).unwrap();
                assert_eq!(after.ino(), before.unwrap().ino(), "{from} {to}");
            }
            fixture.assert_contained();
        };
        check("file", "new", None).await;
        check("file", "other", None).await;
        check("file", "a/b/../new", None).await;
        check("file", "link/new", None).await;
        check("file", "broken", None).await;
        check("file", "file", None).await;
        check("a", "a", None).await;
        check("a", "moved", None).await;
        check("a/", "moved/", None).await;
        check("link", "moved", None).await;
        check("out", "moved", None).await;
        check("file", "link", None).await;
        let exists = Some(ErrorCode::AlreadyExists);
        check("file", "empty", exists).await;
        check("a", "empty", exists).await;
        check("a", "full", exists).await;
        check("file", ".", exists).await;
        check("a", "file", Some(ErrorCode::NotADirectory)).await;
        check("file", "new/", Some(ErrorCode::NotADirectory)).await;
        check("a", "a/b/c", Some(ErrorCode::InvalidArgument)).await;
        check("a", "link/c", Some(ErrorCode::InvalidArgument)).await;
        check("none", "new", Some(ErrorCode::NotFound)).await;
        check("file", "none/new", Some(ErrorCode::NotFound)).await;
        check(".", "new", Some(ErrorCode::PermissionDenied)).await;
        check("a/..", "new", Some(ErrorCode::PermissionDenied)).await;
        check("file", "../new", Some(ErrorCode::InvalidPath)).await;
        check("file", "out/new", Some(ErrorCode::InvalidPath)).await;
        check("out/secret", "new", Some(ErrorCode::InvalidPath)).await;
    }
}
