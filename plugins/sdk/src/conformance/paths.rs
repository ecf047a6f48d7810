//! How paths are spelled, and that none leads out.

use super::Case;
use super::check::{Verdict, equal, ok, refused, refused_with};
use super::run::Context;
use super::subject::{Subject, mode};
use crate::{ErrorCode, FileKind, SandboxPath, WriteMode};

pub(super) const CASES: &[Case] = cases! { paths, Files;
    /// Any name that a file can have in UTF-8 works, to the file API and to commands.
    odd_names_work;
    /// An absolute path into the workspace is the same as the relative one.
    absolute_paths_inside_work;
    /// `.`, `..`, repeated and trailing slashes that stay inside work as in a kernel.
    dots_and_slashes_inside_work;
    /// A slash after a file asks for a directory.
    a_file_is_no_directory [NotADirectory];
    /// Commands and the file API see each other's files at once, by the same paths.
    commands_and_files_agree;
    /// No number of `..` leads out.
    dotdot_may_not_lead_out [InvalidPath];
    /// No absolute path outside is reached, whether it exists or not.
    absolute_paths_outside_are_refused [InvalidPath];
    /// A name of 255 bytes works; a longer one is refused where there is no such name.
    long_names [InvalidPath];
    /// A path of 2,000 bytes works; 4,095 bytes of a path that does not exist are refused; more are no path.
    long_paths [InvalidPath];
};

const ODD_NAMES: [&str; 22] = [
    "zażółć gęślą jaźń",
    "🦀",
    "e\u{301}",
    "\u{e9}",
    "two words",
    " leading and trailing ",
    "new\nline",
    "\ttab\rreturn",
    "-dash",
    "--",
    "*",
    "?[a-z]{a,b}",
    "~",
    "$HOME",
    "quote'd \"twice\"",
    "back\\slash",
    "\u{1b}[2J",
    "...",
    "..a",
    ".hidden",
    "con:aux|nul",
    "%2e%2e%2f",
];

async fn odd_names_work(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for name in ODD_NAMES {
        let at = format!("odd/{name}");
        sandbox.write(&at, name).await?;
        equal(name, sandbox.read(&at).await?, name.as_bytes().to_vec())?;
    }
    let mut names: Vec<String> = ODD_NAMES.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    equal(
        "the names in the directory",
        sandbox.names("odd").await?,
        names,
    )?;
    for name in ODD_NAMES {
        let at = format!("odd/{name}");
        let output = sandbox.sh_with(r#"cat -- "./$1""#, &[&at]).await?;
        equal(
            format!("{name:?}, to a command"),
            output.stdout,
            name.as_bytes().to_vec(),
        )?;
        sandbox.remove(&at, false).await?;
    }
    equal("what is left", sandbox.names("odd").await?, Vec::new())
}

async fn absolute_paths_inside_work(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let absolute = sandbox.absolute("d/file");
    sandbox.write(&absolute, "content").await?;
    equal(
        "by the relative path",
        sandbox.read("d/file").await?,
        b"content".to_vec(),
    )?;
    equal(
        "by the absolute path",
        sandbox.read(&absolute).await?,
        b"content".to_vec(),
    )?;
    equal(
        "the names",
        sandbox.names(&sandbox.absolute("d")).await?,
        vec!["file".to_owned()],
    )?;
    let made = sandbox.absolute("e/f");
    sandbox.make_dir(&made).await?;
    sandbox
        .rename(&absolute, &sandbox.absolute("e/f/moved"))
        .await?;
    equal(
        "after the rename",
        sandbox.read("e/f/moved").await?,
        b"content".to_vec(),
    )?;
    sandbox.remove(&made, true).await?;
    equal("whether it is gone", sandbox.is_missing("e/f").await?, true)
}

async fn dots_and_slashes_inside_work(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("a/b/file", "content").await?;
    for at in [
        "./a/b/file",
        "a/./b/file",
        "a//b///file",
        "a/b/../b/file",
        "a/../a/b/file",
    ] {
        equal(at, sandbox.read(at).await?, b"content".to_vec())?;
    }
    for at in ["a/b", "a/b/", "a/b/.", "a//b//", "a/b/../b"] {
        equal(at, sandbox.names(at).await?, vec!["file".to_owned()])?;
        equal(at, sandbox.stat(at).await?.kind, FileKind::Directory)?;
    }
    sandbox.write("a/./b//../new", "content").await?;
    equal("a/new", sandbox.read("a/new").await?, b"content".to_vec())?;
    equal(
        "a/b/../..",
        sandbox.stat("a/b/../..").await?.kind,
        FileKind::Directory,
    )
}

async fn a_file_is_no_directory(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "content").await?;
    sandbox.write("other", "").await?;
    let code = ErrorCode::NotADirectory;
    for at in ["file/", "file/below", "file/.", "file/below/that"] {
        refused(
            format!("stat {at:?}"),
            sandbox.try_stat(at, true).await,
            code,
        )?;
        refused(format!("read {at:?}"), sandbox.try_read(at).await, code)?;
        refused(format!("list {at:?}"), sandbox.try_list(at).await, code)?;
    }
    let written = sandbox
        .try_write("file/below", mode(WriteMode::Replace), "x")
        .await;
    refused("write \"file/below\"", written, code)?;
    refused(
        "make \"file/below\"",
        sandbox.try_make_dir("file/below").await,
        code,
    )?;
    refused(
        "remove \"file/below\"",
        sandbox.try_remove("file/below", true).await,
        code,
    )?;
    let renamed = sandbox.try_rename("other", "file/below").await;
    refused("rename \"other\" to \"file/below\"", renamed, code)?;
    equal("the file", sandbox.read("file").await?, b"content".to_vec())
}

async fn commands_and_files_agree(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("by/api", "from the api").await?;
    equal(
        "to a command",
        sandbox.sh("cat by/api").await?.text(),
        "from the api".to_owned(),
    )?;
    sandbox
        .sh("mkdir -p by/sh && printf 'from a command' > by/sh/file")
        .await?;
    equal(
        "to the api",
        sandbox.read("by/sh/file").await?,
        b"from a command".to_vec(),
    )?;
    let absolute = sandbox.absolute("by/sh/file");
    let output = sandbox.sh_with(r#"cat "$1""#, &[&absolute]).await?;
    equal(
        "by its absolute path",
        output.text(),
        "from a command".to_owned(),
    )?;
    sandbox.remove("by/api", false).await?;
    sandbox.sh("! [ -e by/api ] && rm by/sh/file").await?;
    equal("what is left", sandbox.names("by/sh").await?, Vec::new())
}

/// No operation that only looks leads to this path. Asked before any that
/// changes something, and the only question about what is not the suite's own.
pub(super) async fn no_look_leads_to(sandbox: &Subject, at: &str) -> Verdict {
    let code = ErrorCode::InvalidPath;
    refused(
        format!("stat {at:?}"),
        sandbox.try_stat(at, true).await,
        code,
    )?;
    refused(format!("list {at:?}"), sandbox.try_list(at).await, code)?;
    refused(format!("read {at:?}"), sandbox.try_read(at).await, code)
}

/// Nor does one that writes. Only for what does not exist or is the suite's own.
pub(super) async fn no_operation_leads_to(sandbox: &Subject, at: &str) -> Verdict {
    no_look_leads_to(sandbox, at).await?;
    for how in [WriteMode::Replace, WriteMode::Append] {
        let written = sandbox.try_write(at, mode(how), "x").await;
        refused(format!("write {at:?}"), written, ErrorCode::InvalidPath)?;
    }
    Ok(())
}

/// Nor those that name something rather than follow it. Likewise.
async fn nor_any_other(sandbox: &Subject, at: &str) -> Verdict {
    let code = ErrorCode::InvalidPath;
    sandbox.write("inside", "content").await?;
    refused(
        format!("stat {at:?} itself"),
        sandbox.try_stat(at, false).await,
        code,
    )?;
    refused(format!("make {at:?}"), sandbox.try_make_dir(at).await, code)?;
    refused(
        format!("remove {at:?}"),
        sandbox.try_remove(at, false).await,
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
    equal(
        "the file that stayed",
        sandbox.read("inside").await?,
        b"content".to_vec(),
    )
}

async fn dotdot_may_not_lead_out(cx: &Context) -> Verdict {
    cx.needs_an_outside()?;
    let sandbox = cx.sandbox().await?;
    sandbox.make_dir("a/b").await?;
    for at in [
        "..",
        "a/../..",
        "a/b/../../..",
        "../../../../../../../../../../../../etc/passwd",
    ] {
        no_look_leads_to(&sandbox, at).await?;
    }
    for at in [
        "../stigmer-conformance",
        "a/../../stigmer-conformance",
        "./a/b/../../../stigmer-conformance",
        &sandbox.absolute("../stigmer-conformance"),
    ] {
        no_operation_leads_to(&sandbox, at).await?;
        nor_any_other(&sandbox, at).await?;
    }
    Ok(())
}

async fn absolute_paths_outside_are_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let outside = cx.outside(&sandbox).await?;
    for at in [
        "/etc/passwd",
        "//etc/passwd",
        "/etc/./passwd",
        "/etc/no-such-file-for-stigmer",
    ] {
        no_look_leads_to(&sandbox, at).await?;
    }
    // A prefix of the text is not a prefix of the path.
    let workspace = sandbox.sandbox.info().workspace.as_str();
    let beside = format!("{}-beside", workspace.trim_end_matches('/'));
    for at in [
        format!("{}/file", outside.directory),
        format!("{}/new", outside.directory),
        "/no-such-directory-for-stigmer/file".to_owned(),
        format!("{beside}/file"),
        beside,
    ] {
        no_operation_leads_to(&sandbox, &at).await?;
        nor_any_other(&sandbox, &at).await?;
    }
    outside.is_untouched().await
}

async fn long_names(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for name in ["n".repeat(255), "ż".repeat(127)] {
        let at = format!("d/{name}");
        sandbox.write(&at, "one").await?;
        sandbox.write(&at, "two").await?;
        equal(
            "the long name's content",
            sandbox.read(&at).await?,
            b"two".to_vec(),
        )?;
        equal("the directory", sandbox.names("d").await?, vec![name])?;
        sandbox.rename(&at, "d/short").await?;
        sandbox.remove("d/short", false).await?;
    }
    let longer = "n".repeat(256);
    match sandbox
        .try_write(&longer, mode(WriteMode::Replace), "x")
        .await
    {
        // Not every file system ends there.
        Ok(_) => equal("its content", sandbox.read(&longer).await?, b"x".to_vec()),
        Err(error) => {
            let code = ErrorCode::InvalidPath;
            refused::<()>("write a name of 256 bytes", Err(error), code)?;
            refused("stat it", sandbox.try_stat(&longer, true).await, code)?;
            refused("read it", sandbox.try_read(&longer).await, code)?;
            refused("make it", sandbox.try_make_dir(&longer).await, code)
        }
    }
}

async fn long_paths(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let deep = format!("{}file", "0123456789/".repeat(181));
    sandbox.write(&deep, "deep").await?;
    equal(
        "the deep file",
        sandbox.read(&deep).await?,
        b"deep".to_vec(),
    )?;
    sandbox.remove("0123456789", true).await?;
    equal(
        "what is left",
        sandbox.is_missing("0123456789").await?,
        true,
    )?;
    let longest = "d/".repeat(SandboxPath::MAX_BYTES / 2) + "f";
    refused_with(
        "read 4,095 bytes of missing directories",
        sandbox.try_read(&longest).await,
        &[ErrorCode::NotFound, ErrorCode::InvalidPath],
    )?;
    let more = SandboxPath::new(format!("{longest}f"));
    refused("a path of 4,096 bytes", more, ErrorCode::InvalidPath)?;
    ok("a path of 4,095 bytes", SandboxPath::new(longest)).map(drop)
}
