//! Symbolic links: followed while they stay inside, and never out.

use super::Case;
use super::check::{Verdict, describe_error, ensure, equal, fail, ok, refused};
use super::paths::{no_look_leads_to, no_operation_leads_to};
use super::run::Context;
use super::subject::mode;
use crate::{ErrorCode, FileKind, WriteMode};

pub(super) const CASES: &[Case] = cases! { links, Files;
    /// Links to files and directories inside are followed, relative or absolute.
    inside_is_followed;
    /// A link is written through, and stays a link.
    written_through;
    /// A link out is seen and removed, and never followed, be it to a file or a directory, relative or absolute.
    out_is_refused [InvalidPath];
    /// A directory that is a link out leads to nothing below it.
    out_in_the_middle_is_refused [InvalidPath];
    /// A chain of links is judged by where it ends.
    a_chain_that_ends_outside_is_refused [InvalidPath];
    /// A loop of links is refused.
    a_loop_is_refused [InvalidPath];
    /// A link to nothing is there itself, and is not found by those who follow it.
    a_dangling_link [NotFound, AlreadyExists];
};

async fn inside_is_followed(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "content").await?;
    for (target, link) in [
        ("d/file", "relative"),
        (&*sandbox.absolute("d/file"), "absolute"),
        ("relative", "chained"),
        ("d/../d/./file", "winding"),
    ] {
        sandbox.link(target, link).await?;
        equal(link, sandbox.read(link).await?, b"content".to_vec())?;
        let metadata = sandbox.stat(link).await?;
        equal(link, (metadata.kind, metadata.size), (FileKind::File, 7))?;
    }
    for (target, link) in [("d", "to-d"), (&*sandbox.absolute("d"), "to-absolute-d")] {
        sandbox.link(target, link).await?;
        equal(link, sandbox.names(link).await?, vec!["file".to_owned()])?;
        equal(
            link,
            sandbox.read(&format!("{link}/file")).await?,
            b"content".to_vec(),
        )?;
        sandbox.write(&format!("{link}/{link}"), "new").await?;
        equal(
            link,
            sandbox.read(&format!("d/{link}")).await?,
            b"new".to_vec(),
        )?;
        sandbox.remove(&format!("d/{link}"), false).await?;
        // It exists, as what it leads to.
        sandbox.make_dir(link).await?;
    }
    Ok(())
}

async fn written_through(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "old").await?;
    sandbox.link("d/file", "link").await?;
    sandbox.write("link", "new").await?;
    equal("the file", sandbox.read("d/file").await?, b"new".to_vec())?;
    equal(
        "the link",
        sandbox.lstat("link").await?.kind,
        FileKind::Symlink,
    )?;
    let appended = sandbox
        .try_write("link", mode(WriteMode::Append), " more")
        .await;
    ok("append to \"link\"", appended)?;
    equal(
        "the file",
        sandbox.read("d/file").await?,
        b"new more".to_vec(),
    )?;
    equal(
        "the link",
        sandbox.lstat("link").await?.kind,
        FileKind::Symlink,
    )?;
    let created = sandbox
        .try_write("link", mode(WriteMode::CreateNew), "x")
        .await;
    refused("create \"link\" anew", created, ErrorCode::AlreadyExists)
}

async fn out_is_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let outside = cx.outside(&sandbox).await?;
    let file = format!("{}/file", outside.directory);
    for target in [
        file.as_str(),
        outside.directory.as_str(),
        "../stigmer-conformance",
        "/no-such-directory-for-stigmer",
    ] {
        sandbox.link(target, "link").await?;
        let metadata = sandbox.lstat("link").await?;
        equal("its kind", metadata.kind, FileKind::Symlink)?;
        equal("its target", metadata.target.as_deref(), Some(target))?;
        equal(
            "the names",
            sandbox.names(".").await?.contains(&"link".to_owned()),
            true,
        )?;
        no_operation_leads_to(&sandbox, "link").await?;
        sandbox.rename("link", "moved").await?;
        sandbox.remove("moved", false).await?;
        outside.is_untouched().await?;
    }
    Ok(())
}

async fn out_in_the_middle_is_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let outside = cx.outside(&sandbox).await?;
    sandbox.write("inside", "content").await?;
    sandbox.link(&outside.directory, "out").await?;
    sandbox.link("../stigmer-conformance", "up").await?;
    sandbox
        .link("/no-such-directory-for-stigmer", "missing")
        .await?;
    let code = ErrorCode::InvalidPath;
    for at in ["out/", "out/."] {
        no_look_leads_to(&sandbox, at).await?;
    }
    for at in ["out/file", "out/new", "up/file", "missing/file"] {
        no_operation_leads_to(&sandbox, at).await?;
        refused(
            format!("stat {at:?} itself"),
            sandbox.try_stat(at, false).await,
            code,
        )?;
        refused(format!("make {at:?}"), sandbox.try_make_dir(at).await, code)?;
        refused(
            format!("remove {at:?}"),
            sandbox.try_remove(at, true).await,
            code,
        )?;
        refused(
            format!("rename to {at:?}"),
            sandbox.try_rename("inside", at).await,
            code,
        )?;
        refused(
            format!("rename {at:?}"),
            sandbox.try_rename(at, "taken").await,
            code,
        )?;
    }
    outside.is_untouched().await?;
    equal(
        "the file that stayed",
        sandbox.read("inside").await?,
        b"content".to_vec(),
    )
}

async fn a_chain_that_ends_outside_is_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let outside = cx.outside(&sandbox).await?;
    sandbox.make_dir("d").await?;
    sandbox.link(&outside.directory, "d/out").await?;
    sandbox.link("d/out/file", "one").await?;
    sandbox.link("one", "two").await?;
    sandbox.link(&sandbox.absolute("two"), "three").await?;
    for at in ["one", "two", "three"] {
        no_operation_leads_to(&sandbox, at).await?;
    }
    outside.is_untouched().await
}

async fn a_loop_is_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.link("itself", "itself").await?;
    sandbox.link("pong", "ping").await?;
    sandbox.link("ping", "pong").await?;
    for at in ["itself", "ping", "pong/below"] {
        no_operation_leads_to(&sandbox, at).await?;
    }
    equal(
        "the link itself",
        sandbox.lstat("ping").await?.kind,
        FileKind::Symlink,
    )?;
    sandbox.remove("ping", false).await?;
    sandbox.remove("itself", true).await?;
    equal(
        "what is left",
        sandbox.names(".").await?.contains(&"itself".to_owned()),
        false,
    )
}

async fn a_dangling_link(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.link("nothing", "link").await?;
    let code = ErrorCode::NotFound;
    refused("stat \"link\"", sandbox.try_stat("link", true).await, code)?;
    refused("read \"link\"", sandbox.try_read("link").await, code)?;
    refused("list \"link\"", sandbox.try_list("link").await, code)?;
    equal(
        "the link itself",
        sandbox.lstat("link").await?.kind,
        FileKind::Symlink,
    )?;
    let code = ErrorCode::AlreadyExists;
    let created = sandbox
        .try_write("link", mode(WriteMode::CreateNew), "x")
        .await;
    refused("create \"link\" anew", created, code)?;
    refused(
        "make \"link\" a directory",
        sandbox.try_make_dir("link").await,
        code,
    )?;
    // Written through, or not found: in either case it stays a link.
    match sandbox
        .try_write("link", mode(WriteMode::Replace), "through")
        .await
    {
        Ok(_) => equal(
            "its target",
            sandbox.read("nothing").await?,
            b"through".to_vec(),
        )?,
        Err(error) if error.code() == ErrorCode::NotFound => {
            let missing = sandbox.is_missing("nothing").await?;
            ensure("its target", missing, "nothing", missing)?;
        }
        Err(error) => {
            return fail(
                "write \"link\"",
                "success or error not_found",
                describe_error(&error),
            );
        }
    }
    equal(
        "the link itself",
        sandbox.lstat("link").await?.kind,
        FileKind::Symlink,
    )
}
