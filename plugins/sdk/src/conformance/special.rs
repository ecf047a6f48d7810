//! FIFOs, sockets and devices: neither file nor directory, and never opened in
//! a way that could wait.

use std::time::Duration;

use super::Case;
use super::check::{Verdict, equal, ok, prompt, refused, refused_with, skip};
use super::run::Context;
use super::subject::{Subject, mode};
use crate::{ErrorCode, FileKind, WriteMode};

pub(super) const CASES: &[Case] = cases! { special, Files;
    /// A FIFO is refused at once, by whatever name, and can be removed.
    a_fifo_is_refused [NotAFile];
    /// A socket is refused at once, and can be removed.
    a_socket_is_refused [NotAFile];
    /// A device is refused at once, and can be removed.
    a_device_is_refused [NotAFile];
    /// A file is not blocked or lost by a FIFO beside it, nor a directory by one in it.
    a_fifo_in_a_directory;
};

/// It is seen for what it is, and no operation takes it for a file or waits.
async fn is_refused(sandbox: &Subject, at: &str) -> Verdict {
    let code = ErrorCode::NotAFile;
    let operations = async {
        equal("its kind", sandbox.stat(at).await?.kind, FileKind::Other)?;
        refused(format!("read {at:?}"), sandbox.try_read(at).await, code)?;
        for how in [WriteMode::Replace, WriteMode::Append] {
            let written = sandbox.try_write(at, mode(how), "x").await;
            refused(format!("write {at:?}"), written, code)?;
        }
        let created = sandbox.try_write(at, mode(WriteMode::CreateNew), "x").await;
        refused(
            format!("create {at:?} anew"),
            created,
            ErrorCode::AlreadyExists,
        )?;
        let codes = [ErrorCode::NotADirectory, code];
        refused_with(format!("list {at:?}"), sandbox.try_list(at).await, &codes)?;
        let made = sandbox.try_make_dir(at).await;
        refused(format!("make {at:?}"), made, ErrorCode::AlreadyExists)
    };
    let what = format!("all that can be asked of {at:?}");
    prompt(what, Duration::from_secs(5), operations).await?
}

async fn is_removed(sandbox: &Subject, at: &str) -> Verdict {
    sandbox.rename(at, "moved").await?;
    equal(
        "its kind",
        sandbox.stat("moved").await?.kind,
        FileKind::Other,
    )?;
    sandbox.remove("moved", false).await?;
    equal(
        "whether it is gone",
        sandbox.is_missing("moved").await?,
        true,
    )
}

async fn a_fifo_is_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.needs_programs(&["mkfifo"]).await?;
    sandbox.sh("mkfifo fifo").await?;
    sandbox.link("fifo", "link").await?;
    is_refused(&sandbox, "fifo").await?;
    is_refused(&sandbox, "link").await?;
    is_removed(&sandbox, "fifo").await
}

async fn a_socket_is_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.needs_programs(&["python3"]).await?;
    // By a relative name, because an address of a socket holds 108 bytes.
    let script = r#"python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'"#;
    if !sandbox
        .run(sandbox.shell(script)?)
        .await?
        .status
        .is_success()
    {
        return skip("the sandbox's python3 makes no socket");
    }
    is_refused(&sandbox, "socket").await?;
    is_removed(&sandbox, "socket").await
}

async fn a_device_is_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    // The numbers of /dev/zero, which would never end.
    let made = sandbox.run(sandbox.shell("mknod device c 1 5")?).await?;
    if !made.status.is_success() {
        return skip("commands here may not make devices");
    }
    is_refused(&sandbox, "device").await?;
    is_removed(&sandbox, "device").await
}

async fn a_fifo_in_a_directory(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.needs_programs(&["mkfifo"]).await?;
    sandbox.write("d/file", "content").await?;
    sandbox.sh("mkfifo d/fifo").await?;
    equal(
        "the names",
        sandbox.names("d").await?,
        vec!["fifo".to_owned(), "file".to_owned()],
    )?;
    let entries = ok("list \"d\"", sandbox.try_list("d").await)?;
    let kinds = entries
        .iter()
        .filter(|entry| entry.metadata.kind == FileKind::Other);
    equal(
        "entries that are neither file nor directory",
        kinds.count(),
        1,
    )?;
    sandbox.rename("d", "e").await?;
    equal(
        "the file",
        sandbox.read("e/file").await?,
        b"content".to_vec(),
    )?;
    sandbox.remove("e", true).await?;
    equal("whether it is gone", sandbox.is_missing("e").await?, true)
}
