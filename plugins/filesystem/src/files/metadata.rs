//! What is known of a file without reading it.

use std::os::fd::AsFd;

use rustix::fs::{FileType, OFlags, fstat, readlinkat};
use rustix::io::Errno;
use stigmer_sdk::{FileKind, Metadata, Permissions, Result, SandboxPath, Stat, Version};

use super::error::At;
use super::resolve::{HOLD, Root};

pub(super) fn stat(root: &Root, path: &SandboxPath, follow: bool) -> Result<Stat> {
    let below = root.below(path)?;
    let (fd, found) = if follow {
        root.find_path(below, HOLD)
    } else if below.split('/').any(|name| name == "..") {
        // The directory before a `..` may be a link, and what it goes up from
        // somewhere else.
        root.find_path(below, HOLD | OFlags::NOFOLLOW)
    } else {
        let names = below
            .split('/')
            .filter(|name| !matches!(*name, "" | "."))
            .collect::<Vec<_>>();
        root.find(below, HOLD | OFlags::NOFOLLOW)
            .map(|fd| (fd, root.absolute(&names.join("/"))))
    }
    .at(path.as_str())?;
    let stat = fstat(&fd).at(path.as_str())?;
    let mut metadata = metadata(&stat);
    if metadata.kind == FileKind::Symlink {
        metadata.target = target(&fd, "");
    }
    Ok(Stat {
        path: SandboxPath::new(found)?,
        metadata,
    })
}

/// Where the link `name` points, if it is still one.
pub(super) fn target(dir: impl AsFd, name: impl rustix::path::Arg) -> Option<String> {
    let target = readlinkat(dir, name, Vec::new()).ok()?;
    Some(target.to_string_lossy().into_owned())
}

pub(super) fn kind(file_type: FileType) -> FileKind {
    match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

/// All bits of the mode, whatever type the platform has for them.
pub(super) fn mode(stat: &rustix::fs::Stat) -> u32 {
    fn widen(mode: impl Into<u32>) -> u32 {
        mode.into()
    }
    widen(stat.st_mode)
}

/// A number that should be positive, whatever type the platform has for it.
fn positive(number: impl TryInto<u64>) -> Option<u64> {
    number.try_into().ok()
}

/// All but where a link points.
pub(super) fn metadata(stat: &rustix::fs::Stat) -> Metadata {
    let kind = kind(FileType::from_raw_mode(stat.st_mode));
    Metadata {
        kind,
        size: positive(stat.st_size).unwrap_or(0),
        permissions: Some(Permissions::of_mode(mode(stat))),
        modified_ms: modified_ms(stat),
        version: (kind == FileKind::File).then(|| version(stat)),
        target: None,
    }
}

/// `None` for a time before 1970, which the contract cannot say.
fn modified_ms(stat: &rustix::fs::Stat) -> Option<u64> {
    let seconds = positive(stat.st_mtime)?;
    let millis = positive(stat.st_mtime_nsec)? / 1_000_000;
    Some(seconds.saturating_mul(1000).saturating_add(millis))
}

/// A file that is replaced is another inode, and one that is written in place
/// has other times or another size. The change time is there for those who set
/// the modification time back.
pub(super) fn version(stat: &rustix::fs::Stat) -> Version {
    Version::new(format!(
        "{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
        stat.st_ino,
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec
    ))
}

/// Refuses what is not a regular file, as the kernel would say it.
pub(super) fn regular(stat: &rustix::fs::Stat) -> Result<(), Errno> {
    match kind(FileType::from_raw_mode(stat.st_mode)) {
        FileKind::File => Ok(()),
        FileKind::Directory => Err(Errno::ISDIR),
        // A link where none was followed to is one that came at the wrong moment.
        FileKind::Symlink => Err(Errno::LOOP),
        FileKind::Other => Err(Errno::NXIO),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::super::testing::{Fixture, path};
    use super::*;

    #[tokio::test]
    async fn links_are_followed_or_shown() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.dir.join("d")).unwrap();
        fs::write(fixture.dir.join("d/file"), "12345").unwrap();
        fixture.link("d/file", "link");
        fixture.link("d", "dir-link");
        fixture.link("/nowhere", "broken");
        let check = async |name: &str, follow, expected: &str, kind, target: Option<&str>| {
            let stat = fixture.workspace.stat(&path(name), follow).await.unwrap();
            assert_eq!(stat.path, fixture.absolute(expected), "{name}");
            assert_eq!(stat.metadata.kind, kind, "{name}");
            assert_eq!(stat.metadata.target.as_deref(), target, "{name}");
        };
        check("link", true, "d/file", FileKind::File, None).await;
        check("link", false, "link", FileKind::Symlink, Some("d/file")).await;
        check("dir-link/./file", true, "d/file", FileKind::File, None).await;
        check(
            "dir-link//file",
            false,
            "dir-link/file",
            FileKind::File,
            None,
        )
        .await;
        check(
            "dir-link/../link",
            false,
            "link",
            FileKind::Symlink,
            Some("d/file"),
        )
        .await;
        check(
            "broken",
            false,
            "broken",
            FileKind::Symlink,
            Some("/nowhere"),
        )
        .await;
        check("d", true, "d", FileKind::Directory, None).await;
        let stat = fixture.workspace.stat(&path("."), true).await.unwrap();
        assert_eq!(stat.path.as_str(), fixture.workspace.path());
    }

    #[tokio::test]
    async fn versions_change_with_content_and_old_times_are_not_known() {
        let fixture = Fixture::new();
        let file = fixture.dir.join("file");
        fs::write(&file, "1").unwrap();
        let stat = async || {
            fixture
                .workspace
                .stat(&path("file"), true)
                .await
                .unwrap()
                .metadata
        };
        let first = stat().await;
        assert_eq!(first.version, stat().await.version);
        fs::write(&file, "12").unwrap();
        assert_ne!(first.version, stat().await.version);
        let set = |time| fs::File::open(&file).unwrap().set_modified(time).unwrap();
        set(SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567));
        assert_eq!(stat().await.modified_ms, Some(1_234_567));
        set(SystemTime::UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(stat().await.modified_ms, None);
    }
}
