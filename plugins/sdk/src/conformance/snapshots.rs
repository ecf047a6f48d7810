//! Copies of whole sandboxes, where a backend makes them.

use std::sync::Arc;

use super::Case;
use super::check::{Verdict, equal, ok, refused};
use super::run::Context;
use super::subject::Subject;
use crate::{Backend, ErrorCode, Feature, Result, SnapshotId, Snapshots};

pub(super) const CASES: &[Case] = cases! { snapshots, Snapshots;
    /// A restored sandbox starts where the snapshot was taken, as one of its own.
    restore_what_was_taken;
    /// A snapshot outlives its sandbox.
    outlives_its_sandbox;
    /// A snapshot that was deleted cannot be restored, and deleting it again is a success.
    delete_twice [NotFound];
    /// A sandbox that does not exist cannot be copied.
    take_of_nothing [NoSandbox];
};

/// The backend, which has declared that it makes snapshots.
fn backend(cx: &Context) -> Verdict<Arc<dyn Backend>> {
    cx.needs(Feature::Snapshots)?;
    Ok(cx.backend())
}

fn group(backend: &Arc<dyn Backend>) -> Verdict<&dyn Snapshots> {
    let missing = crate::Error::unsupported("a snapshot");
    ok(
        "the snapshots that are declared",
        backend.snapshots().ok_or(missing),
    )
}

async fn take(cx: &Context, sandbox: &Subject) -> Verdict<SnapshotId> {
    let backend = backend(cx)?;
    cx.note("take a snapshot");
    let taken = group(&backend)?.take(&sandbox.sandbox.info().id, "conformance");
    ok("take a snapshot", taken.await)
}

async fn try_restore(cx: &Context, id: &SnapshotId) -> Verdict<Result<Subject>> {
    let backend = backend(cx)?;
    cx.note("restore the snapshot");
    let restored = group(&backend)?.restore(id, cx.template()).await;
    Ok(restored.map(|sandbox| cx.adopt(sandbox)))
}

async fn delete(cx: &Context, id: &SnapshotId) -> Verdict {
    let backend = backend(cx)?;
    cx.note("delete the snapshot");
    ok("delete the snapshot", group(&backend)?.delete(id).await)
}

async fn restore_what_was_taken(cx: &Context) -> Verdict {
    backend(cx)?;
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "then").await?;
    let snapshot = take(cx, &sandbox).await?;
    sandbox.write("d/file", "now").await?;
    sandbox.write("new", "").await?;
    let mut restored = Vec::new();
    for _ in 0..2 {
        let again = ok("restore", try_restore(cx, &snapshot).await?);
        restored.push(again);
    }
    delete(cx, &snapshot).await?;
    for again in restored {
        let again = again?;
        equal(
            "the restored file",
            again.read("d/file").await?,
            b"then".to_vec(),
        )?;
        equal(
            "whether the new file is missing",
            again.is_missing("new").await?,
            true,
        )?;
        again.write("d/file", "its own").await?;
        equal(
            "a command in it",
            again.sh("cat d/file").await?.text(),
            "its own".to_owned(),
        )?;
    }
    equal(
        "the file, in the sandbox that was copied",
        sandbox.read("d/file").await?,
        b"now".to_vec(),
    )
}

async fn outlives_its_sandbox(cx: &Context) -> Verdict {
    backend(cx)?;
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "content").await?;
    let snapshot = take(cx, &sandbox).await?;
    let destroyed = sandbox.destroy().await;
    let restored = try_restore(cx, &snapshot).await?;
    delete(cx, &snapshot).await?;
    destroyed?;
    let restored = ok("restore", restored)?;
    equal(
        "the file",
        restored.read("file").await?,
        b"content".to_vec(),
    )
}

async fn delete_twice(cx: &Context) -> Verdict {
    backend(cx)?;
    let sandbox = cx.sandbox().await?;
    let snapshot = take(cx, &sandbox).await?;
    delete(cx, &snapshot).await?;
    delete(cx, &snapshot).await?;
    refused(
        "restore it",
        try_restore(cx, &snapshot).await?,
        ErrorCode::NotFound,
    )
}

async fn take_of_nothing(cx: &Context) -> Verdict {
    let backend = backend(cx)?;
    let sandbox = cx.sandbox().await?;
    sandbox.destroy().await?;
    let taken = group(&backend)?.take(&sandbox.sandbox.info().id, "conformance");
    refused(
        "take a snapshot of what was destroyed",
        taken.await,
        ErrorCode::NoSandbox,
    )
}
