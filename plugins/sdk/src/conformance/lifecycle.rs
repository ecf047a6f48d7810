//! What a backend says of itself, and how sandboxes come and go.

use futures_util::future::join_all;

use super::Case;
use super::check::{Verdict, ensure, equal, ok, refused};
use super::run::Context;
use super::subject::{bytes, mode};
use crate::{Command, ErrorCode, Feature, FileKind, SandboxId, WriteMode};

pub(super) const CASES: &[Case] = cases! { lifecycle, Core;
    /// The backend's name has the form that `SANDBOX_TYPE` takes, and it has a version.
    describe_is_well_formed;
    /// A backend describes itself the same way for its whole life.
    describe_never_changes;
    /// A backend that works says that it is healthy.
    health_is_ok;
    /// The optional groups are there exactly if they are declared.
    groups_match_features;
    /// The workspace is an absolute path to a directory, where relative paths begin and commands start.
    workspace_is_where_commands_start;
    /// Two sandboxes do not see each other's files by the same relative path.
    sandboxes_are_apart;
    /// Attaching by id gives the same sandbox with the same files.
    attach_finds_the_sandbox;
    /// Dropping every handle leaves the sandbox alone.
    dropping_handles_leaves_the_sandbox;
    /// Attaching to an id that nobody minted is refused.
    attach_refuses_an_unknown_id [NoSandbox];
    /// A sandbox and its files are found again after the backend was restarted.
    attach_after_restart alone;
    /// Destroying a sandbox twice, by any handle, is a success.
    destroy_twice;
    /// Every operation on a sandbox that was destroyed is refused, by every handle.
    nothing_works_after_destroy [NoSandbox];
    /// Destroying one sandbox leaves the others as they were.
    destroy_leaves_others_alone;
};

async fn describe_is_well_formed(cx: &Context) -> Verdict {
    let description = cx.backend().describe();
    let name = description.name.as_bytes();
    let formed = name.first().is_some_and(u8::is_ascii_lowercase)
        && name
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    ensure("the name", formed, "[a-z][a-z0-9-]*", &description.name)?;
    ensure(
        "the version",
        !description.version.is_empty(),
        "a version",
        &description.version,
    )
}

async fn describe_never_changes(cx: &Context) -> Verdict {
    let before = cx.backend().describe();
    let _sandbox = cx.sandbox().await?;
    equal("the description", cx.backend().describe(), before)
}

async fn health_is_ok(cx: &Context) -> Verdict {
    cx.note("ask for health");
    ok("health", cx.backend().health().await)
}

async fn groups_match_features(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    equal(
        "whether there are snapshots, as against the feature",
        cx.backend().snapshots().is_some(),
        cx.has(Feature::Snapshots),
    )?;
    equal(
        "whether there is a search, as against the feature",
        sandbox.sandbox.search().is_some(),
        cx.has(Feature::Search),
    )
}

async fn workspace_is_where_commands_start(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let workspace = sandbox.sandbox.info().workspace.clone();
    ensure(
        "the workspace",
        workspace.is_absolute(),
        "an absolute path",
        &workspace,
    )?;
    let relative = ok("stat \".\"", sandbox.try_stat(".", true).await)?;
    equal(
        "the kind of \".\"",
        relative.metadata.kind,
        FileKind::Directory,
    )?;
    let absolute = sandbox.try_stat(workspace.as_str(), true).await;
    let absolute = ok("stat the workspace", absolute)?;
    equal(
        "the workspace by its absolute path",
        absolute.path.as_str(),
        relative.path.as_str(),
    )?;
    let directory = sandbox.sh("pwd -P").await?.text();
    equal(
        "where a command starts",
        directory.as_str(),
        relative.path.as_str(),
    )
}

async fn sandboxes_are_apart(cx: &Context) -> Verdict {
    let (one, other) = (cx.sandbox().await?, cx.sandbox().await?);
    one.write("name", "one").await?;
    equal(
        "whether the other has the file too",
        other.is_missing("name").await?,
        true,
    )?;
    other.write("name", "other").await?;
    equal(
        "the first sandbox's file",
        one.read("name").await?,
        b"one".to_vec(),
    )
}

async fn attach_finds_the_sandbox(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("kept", "content").await?;
    let info = sandbox.sandbox.info();
    let attached = ok("attach", cx.backend().attach(&info.id).await)?;
    equal("what is known of it", attached.info(), info)?;
    let attached = cx.adopt(attached);
    equal(
        "the file",
        attached.read("kept").await?,
        b"content".to_vec(),
    )?;
    attached.write("new", "too").await?;
    equal(
        "a file written by the other handle",
        sandbox.read("new").await?,
        b"too".to_vec(),
    )
}

async fn dropping_handles_leaves_the_sandbox(cx: &Context) -> Verdict {
    let spec = cx.template();
    cx.note("create a sandbox, and drop its only handle");
    let created = ok("create a sandbox", cx.backend().create(spec).await)?;
    let id = created.info().id.clone();
    let written = created
        .write(
            &super::subject::path("kept")?,
            mode(WriteMode::Replace),
            bytes("content"),
        )
        .await;
    drop(created);
    let attached = ok("attach", cx.backend().attach(&id).await)?;
    let attached = cx.adopt(attached);
    ok("write \"kept\"", written)?;
    equal(
        "the file",
        attached.read("kept").await?,
        b"content".to_vec(),
    )
}

async fn attach_refuses_an_unknown_id(cx: &Context) -> Verdict {
    let never = ok("an id", SandboxId::new("no-backend-minted-this"))?;
    let destroyed = cx.sandbox().await?;
    destroyed.destroy().await?;
    for id in [&never, &destroyed.sandbox.info().id] {
        cx.note(format!("attach to {id}"));
        refused(
            format!("attach to {id}"),
            cx.backend().attach(id).await,
            ErrorCode::NoSandbox,
        )?;
    }
    Ok(())
}

async fn attach_after_restart(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("kept", "content").await?;
    let info = sandbox.sandbox.info().clone();
    let has_shell = !info.shell.is_empty();
    drop(sandbox);
    let backend = cx.reopen().await?;
    let attached = ok("attach", backend.attach(&info.id).await)?;
    equal("what is known of it", attached.info(), &info)?;
    let attached = cx.adopt(attached);
    equal(
        "the file",
        attached.read("kept").await?,
        b"content".to_vec(),
    )?;
    if has_shell {
        equal(
            "the file, to a command",
            attached.sh("cat kept").await?.text(),
            "content".to_owned(),
        )?;
    }
    attached.destroy().await?;
    refused(
        "attach to what was destroyed",
        backend.attach(&info.id).await,
        ErrorCode::NoSandbox,
    )
}

async fn destroy_twice(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let attached = cx.backend().attach(&sandbox.sandbox.info().id).await;
    let attached = cx.adopt(ok("attach", attached)?);
    sandbox.destroy().await?;
    sandbox.destroy().await?;
    attached.destroy().await?;
    // Nor does it matter whether the other is done.
    let again = cx.sandbox().await?;
    for destroyed in join_all((0..4).map(|_| again.destroy())).await {
        destroyed?;
    }
    Ok(())
}

async fn nothing_works_after_destroy(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("name", "content").await?;
    let attached = cx.backend().attach(&sandbox.sandbox.info().id).await;
    let attached = cx.adopt(ok("attach", attached)?);
    sandbox.destroy().await?;
    for handle in [&sandbox, &attached] {
        let gone = ErrorCode::NoSandbox;
        refused("stat", handle.try_stat("name", true).await, gone)?;
        refused("list", handle.try_list(".").await, gone)?;
        refused("read", handle.try_read("name").await, gone)?;
        let written = handle
            .try_write("name", mode(WriteMode::Replace), "x")
            .await;
        refused("write", written, gone)?;
        refused("make_dir", handle.try_make_dir("d").await, gone)?;
        refused("remove", handle.try_remove("name", false).await, gone)?;
        refused("rename", handle.try_rename("name", "other").await, gone)?;
        let command = ok("a command", Command::new(["true"]))?;
        refused("exec", handle.try_run(command).await, gone)?;
    }
    Ok(())
}

async fn destroy_leaves_others_alone(cx: &Context) -> Verdict {
    let (one, other) = (cx.sandbox().await?, cx.sandbox().await?);
    other.write("kept", "content").await?;
    let command = other.shell("echo ready; cat")?.stdin(true);
    let mut running = other.start(command).await?;
    running.until_stdout("ready\n").await?;
    one.destroy().await?;
    running.send_stdin("still here\n");
    running.end_input();
    let output = running.succeed().await?;
    equal("its output", output.text(), "ready\nstill here".to_owned())?;
    equal("its file", other.read("kept").await?, b"content".to_vec())
}
