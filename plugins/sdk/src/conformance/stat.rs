//! What is known of a file without reading it.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Case;
use super::check::{Verdict, ensure, equal, ok, refused, skip};
use super::run::Context;
use super::subject::permissions;
use crate::{ErrorCode, FileKind};

pub(super) const CASES: &[Case] = cases! { stat, Files;
    /// Files, directories and links are told apart, followed or not.
    kinds;
    /// The path in the answer is absolute, and free of links if they were followed.
    paths_are_absolute;
    /// A size is the number of bytes.
    sizes;
    /// Permission bits are those a command sees, without the bits above the ninth.
    permission_bits;
    /// The time of the last change is that of the content.
    times;
    /// A version changes with the content, though the size does not.
    version_changes_with_content;
    /// A version stays while the content does.
    version_stays_with_content;
    /// What is not there is not found.
    missing [NotFound];
    /// A file that its owner may not read is refused.
    unreadable [PermissionDenied];
};

async fn kinds(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "").await?;
    sandbox.make_dir("directory").await?;
    sandbox.link("file", "to-file").await?;
    sandbox.link("directory", "to-directory").await?;
    for (at, followed, itself) in [
        ("file", FileKind::File, FileKind::File),
        ("directory", FileKind::Directory, FileKind::Directory),
        ("to-file", FileKind::File, FileKind::Symlink),
        ("to-directory", FileKind::Directory, FileKind::Symlink),
    ] {
        let metadata = sandbox.stat(at).await?;
        equal(at, metadata.kind, followed)?;
        equal(
            format!("the target of {at:?}, followed"),
            metadata.target,
            None,
        )?;
        equal(
            format!("whether {at:?} has a version"),
            metadata.version.is_some(),
            followed == FileKind::File,
        )?;
        equal(
            format!("{at:?} itself"),
            sandbox.lstat(at).await?.kind,
            itself,
        )?;
    }
    let target = sandbox.lstat("to-file").await?.target;
    equal("the target of \"to-file\"", target.as_deref(), Some("file"))
}

async fn paths_are_absolute(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "").await?;
    sandbox.link("d", "link").await?;
    let workspace = ok("stat \".\"", sandbox.try_stat(".", true).await)?.path;
    for (at, below) in [
        ("d/file", "d/file"),
        ("./d/../d//file", "d/file"),
        ("link/file", "d/file"),
        ("link", "d"),
        (&*sandbox.absolute("link/file"), "d/file"),
    ] {
        let stat = ok(format!("stat {at:?}"), sandbox.try_stat(at, true).await)?;
        let expected = ok("a path", workspace.join(below))?;
        equal(format!("the path of {at:?}"), stat.path, expected)?;
    }
    let itself = ok("stat \"link\"", sandbox.try_stat("link", false).await)?.path;
    ensure(
        "the path of the link itself",
        itself.is_absolute() && itself.as_str().ends_with("/link"),
        "an absolute path that ends in /link",
        itself,
    )
}

async fn sizes(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for size in [0, 1, 4096, 100_000] {
        let written = sandbox.write("file", vec![b'x'; size]).await?;
        equal("the size as written", written.size, size as u64)?;
        equal("the size", sandbox.stat("file").await?.size, size as u64)?;
    }
    Ok(())
}

async fn permission_bits(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for (command, bits) in [
        ("640", 0o640),
        ("755", 0o755),
        ("4711", 0o711),
        ("600", 0o600),
    ] {
        sandbox
            .sh_with(": > file; chmod \"$1\" file", &[command])
            .await?;
        let Some(seen) = sandbox.stat("file").await?.permissions else {
            return skip("the backend's files have no permissions");
        };
        equal(format!("the bits after chmod {command}"), seen.bits(), bits)?;
    }
    let written = sandbox.try_write("new", permissions(0o705), "").await;
    ok("write \"new\"", written)?;
    equal(
        "what ls shows",
        sandbox
            .sh("ls -l new")
            .await?
            .text()
            .starts_with("-rwx---r-x"),
        true,
    )
}

async fn times(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let written = sandbox.write("file", "content").await?;
    let Some(modified) = written.modified_ms else {
        return skip("the backend's files have no times");
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // The sandbox may be on another machine with another clock.
    let apart = now.abs_diff(Duration::from_millis(modified));
    ensure(
        "the age of a new file",
        apart < Duration::from_secs(86_400),
        "less than a day",
        apart,
    )?;
    sandbox.sh("TZ=UTC0 touch -t 200102030405.06 file").await?;
    let touched = sandbox.stat("file").await?.modified_ms;
    equal("a time in 2001", touched, Some(981_173_106_000))?;
    sandbox.read("file").await?;
    let read = sandbox.stat("file").await?.modified_ms;
    equal("the time after a read", read, touched)
}

async fn version_changes_with_content(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut versions = HashSet::new();
    // As fast as they come, so that a version made of a coarse time shows.
    for content in 0..20u8 {
        let written = sandbox.write("file", vec![content]).await?;
        let seen = sandbox.stat("file").await?.version;
        equal("the version as written", written.version, seen.clone())?;
        ensure(
            format!("the version of content {content}, of the same size as before"),
            seen.clone().is_some_and(|version| versions.insert(version)),
            "one that no other content had",
            seen,
        )?;
    }
    // In place, by a command. The pause is longer than any file system's tick
    // within this decade.
    sandbox.sh("sleep 0.1; printf x > file").await?;
    let seen = sandbox.stat("file").await?.version;
    ensure(
        "the version after a command wrote a byte",
        seen.clone().is_some_and(|version| versions.insert(version)),
        "one that no other content had",
        seen,
    )
}

async fn version_stays_with_content(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let version = sandbox.write("file", "content").await?.version;
    ensure("the version", version.is_some(), "a version", &version)?;
    sandbox.read("file").await?;
    sandbox.sh("cat file").await?;
    sandbox.write("other", "content").await?;
    equal(
        "the version after reads",
        sandbox.stat("file").await?.version,
        version.clone(),
    )?;
    let read = ok(
        "read \"file\"",
        sandbox.try_read_range("file", 0, Some(1)).await,
    )?
    .0;
    equal(
        "the version that comes with a read",
        read.version,
        version.clone(),
    )?;
    let entries = ok("list \".\"", sandbox.try_list(".").await)?;
    let entry = entries.into_iter().find(|entry| entry.name == "file");
    let listed = entry.and_then(|entry| entry.metadata.version);
    equal("the version in the listing", listed, version)
}

async fn missing(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let code = ErrorCode::NotFound;
    for at in [
        "missing",
        "missing/below",
        "./missing",
        &sandbox.absolute("missing"),
    ] {
        for follow in [true, false] {
            let stat = sandbox.try_stat(at, follow).await;
            refused(format!("stat {at:?}"), stat, code)?;
        }
        refused(format!("read {at:?}"), sandbox.try_read(at).await, code)?;
        refused(format!("list {at:?}"), sandbox.try_list(at).await, code)?;
    }
    Ok(())
}

async fn unreadable(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    if sandbox.sh("id -u").await?.text() == "0" {
        return skip("commands run as root, who may read everything");
    }
    sandbox
        .sh("echo secret > file; chmod 000 file; mkdir d; : > d/file; chmod 000 d")
        .await?;
    let code = ErrorCode::PermissionDenied;
    let read = sandbox.try_read("file").await;
    let listed = sandbox.try_list("d").await;
    let below = sandbox.try_read("d/file").await;
    // So that nobody has to clean up what cannot be opened.
    sandbox.sh("chmod 700 d").await?;
    refused("read \"file\" of mode 000", read, code)?;
    refused("list \"d\" of mode 000", listed, code)?;
    refused("read \"d/file\" in it", below, code)
}
