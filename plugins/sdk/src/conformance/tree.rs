//! Making, removing and moving files and directories.

use super::Case;
use super::check::{Verdict, equal, ok, refused, refused_with};
use super::run::Context;
use crate::{ErrorCode, FileKind};

pub(super) const CASES: &[Case] = cases! { tree, Files;
    /// A directory is made with its parents, and may exist already.
    make_dir_with_parents;
    /// A directory is not made over a file, nor below one.
    make_dir_over_a_file [AlreadyExists, NotADirectory];
    /// Removing takes away a file.
    remove_a_file;
    /// Removing a link leaves what it leads to.
    remove_a_link;
    /// A directory, full or empty, is removed only with everything under it.
    remove_a_directory [IsDirectory];
    /// Removing a tree does not follow the links in it.
    remove_does_not_follow_links;
    /// Removing what is not there is refused.
    remove_what_is_missing [NotFound];
    /// The workspace and what contains it cannot be removed.
    remove_the_workspace [PermissionDenied];
    /// Renaming moves a file, and replaces one.
    rename_a_file;
    /// Renaming moves a directory with what is in it.
    rename_a_directory;
    /// A directory is never replaced.
    rename_onto_a_directory [AlreadyExists];
    /// Renaming moves a link itself, and replaces a link itself.
    rename_a_link;
    /// Renaming what is not there is refused.
    rename_what_is_missing [NotFound];
    /// A directory does not move into itself.
    rename_into_itself;
};

async fn make_dir_with_parents(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for at in ["a/b/c", "a/b/c", "a", ".", "a/b/d/"] {
        sandbox.make_dir(at).await?;
        equal(at, sandbox.stat(at).await?.kind, FileKind::Directory)?;
    }
    equal(
        "the names",
        sandbox.names("a/b").await?,
        vec!["c".to_owned(), "d".to_owned()],
    )?;
    sandbox.sh("cd a/b/c && : > file").await?;
    sandbox.make_dir("a/b/c").await?;
    equal(
        "what is in it",
        sandbox.names("a/b/c").await?,
        vec!["file".to_owned()],
    )
}

async fn make_dir_over_a_file(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "content").await?;
    let made = sandbox.try_make_dir("file").await;
    refused("make \"file\"", made, ErrorCode::AlreadyExists)?;
    sandbox.link("file", "link").await?;
    let made = sandbox.try_make_dir("link").await;
    refused("make \"link\", to a file", made, ErrorCode::AlreadyExists)?;
    for at in ["file/below", "file/below/that", "link/below"] {
        let made = sandbox.try_make_dir(at).await;
        refused(format!("make {at:?}"), made, ErrorCode::NotADirectory)?;
    }
    equal("the file", sandbox.read("file").await?, b"content".to_vec())
}

async fn remove_a_file(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for recursive in [false, true] {
        sandbox.write("d/file", "").await?;
        sandbox.remove("d/file", recursive).await?;
        equal("what is left", sandbox.names("d").await?, Vec::new())?;
    }
    Ok(())
}

async fn remove_a_link(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "content").await?;
    for (target, recursive) in [
        ("d/file", false),
        ("d", false),
        ("d", true),
        ("nothing", true),
    ] {
        sandbox.link(target, "link").await?;
        sandbox.remove("link", recursive).await?;
        equal(
            "whether the link is gone",
            sandbox.is_missing("link").await?,
            true,
        )?;
        equal(
            "the file",
            sandbox.read("d/file").await?,
            b"content".to_vec(),
        )?;
    }
    Ok(())
}

async fn remove_a_directory(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.make_dir("empty").await?;
    sandbox.write("full/a/b/file", "content").await?;
    sandbox.write("full/.hidden/file", "").await?;
    for at in ["empty", "full"] {
        let removed = sandbox.try_remove(at, false).await;
        refused(
            format!("remove {at:?} alone"),
            removed,
            ErrorCode::IsDirectory,
        )?;
    }
    equal(
        "the file in it",
        sandbox.read("full/a/b/file").await?,
        b"content".to_vec(),
    )?;
    for at in ["empty", "full"] {
        sandbox.remove(at, true).await?;
        equal(
            format!("whether {at:?} is gone"),
            sandbox.is_missing(at).await?,
            true,
        )?;
    }
    Ok(())
}

async fn remove_does_not_follow_links(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("kept/file", "content").await?;
    sandbox.make_dir("tree/below").await?;
    sandbox.link("../kept", "tree/link").await?;
    sandbox
        .link(&sandbox.absolute("kept"), "tree/below/link")
        .await?;
    sandbox.link("..", "tree/below/up").await?;
    sandbox.remove("tree", true).await?;
    equal(
        "whether the tree is gone",
        sandbox.is_missing("tree").await?,
        true,
    )?;
    equal(
        "the file",
        sandbox.read("kept/file").await?,
        b"content".to_vec(),
    )
}

async fn remove_what_is_missing(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for at in ["missing", "missing/below"] {
        for recursive in [false, true] {
            let removed = sandbox.try_remove(at, recursive).await;
            refused(format!("remove {at:?}"), removed, ErrorCode::NotFound)?;
        }
    }
    Ok(())
}

async fn remove_the_workspace(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "content").await?;
    let workspace = sandbox.absolute("");
    let denied = ErrorCode::PermissionDenied;
    for at in [
        ".",
        "./",
        "d/..",
        &workspace,
        workspace.trim_end_matches('/'),
    ] {
        let removed = sandbox.try_remove(at, true).await;
        refused(format!("remove {at:?}"), removed, denied)?;
    }
    // Never recursively, and never `/`: whoever gets this wrong would lose it.
    // That the flag is honoured is shown on a directory of the case's own.
    let removed = sandbox.try_remove("d", false).await;
    refused("remove \"d\" alone", removed, ErrorCode::IsDirectory)?;
    for at in ["..", "d/../..", &sandbox.absolute("..")] {
        let removed = sandbox.try_remove(at, false).await;
        // It contains the workspace, and most often leads out as well.
        let codes = [denied, ErrorCode::InvalidPath];
        refused_with(format!("remove {at:?}"), removed, &codes)?;
    }
    equal(
        "the file",
        sandbox.read("d/file").await?,
        b"content".to_vec(),
    )
}

async fn rename_a_file(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("one", "one").await?;
    sandbox.write("d/two", "two").await?;
    sandbox.rename("one", "d/new").await?;
    equal("the file", sandbox.read("d/new").await?, b"one".to_vec())?;
    equal(
        "whether its old name is gone",
        sandbox.is_missing("one").await?,
        true,
    )?;
    sandbox.rename("d/new", "d/two").await?;
    equal(
        "the file it replaced",
        sandbox.read("d/two").await?,
        b"one".to_vec(),
    )?;
    sandbox.rename("d/two", "d/two").await?;
    equal(
        "the file, renamed to itself",
        sandbox.read("d/two").await?,
        b"one".to_vec(),
    )?;
    equal(
        "the names",
        sandbox.names("d").await?,
        vec!["two".to_owned()],
    )
}

async fn rename_a_directory(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/a/file", "content").await?;
    sandbox.make_dir("other").await?;
    sandbox.rename("d", "other/moved").await?;
    equal(
        "the file",
        sandbox.read("other/moved/a/file").await?,
        b"content".to_vec(),
    )?;
    equal(
        "whether its old name is gone",
        sandbox.is_missing("d").await?,
        true,
    )
}

async fn rename_onto_a_directory(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "content").await?;
    sandbox.write("d/file", "content").await?;
    sandbox.make_dir("empty").await?;
    sandbox.write("full/kept", "").await?;
    for from in ["file", "d"] {
        for to in ["empty", "full"] {
            let renamed = sandbox.try_rename(from, to).await;
            refused(
                format!("rename {from:?} to {to:?}"),
                renamed,
                ErrorCode::AlreadyExists,
            )?;
        }
    }
    equal("the file", sandbox.read("file").await?, b"content".to_vec())?;
    equal(
        "the directory",
        sandbox.read("d/file").await?,
        b"content".to_vec(),
    )?;
    equal(
        "what was in the way",
        sandbox.names("full").await?,
        vec!["kept".to_owned()],
    )
}

async fn rename_a_link(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "content").await?;
    sandbox.write("target", "target").await?;
    for target in ["file", "nothing", "/no-such-file-for-stigmer"] {
        sandbox.link(target, "link").await?;
        sandbox.rename("link", "moved").await?;
        let moved = sandbox.lstat("moved").await?;
        equal("what moved", moved.target.as_deref(), Some(target))?;
        equal(
            "whether its old name is gone",
            sandbox.is_missing("link").await?,
            true,
        )?;
        sandbox.remove("moved", false).await?;
    }
    sandbox.link("target", "link").await?;
    sandbox.rename("file", "link").await?;
    equal(
        "what replaced the link",
        sandbox.lstat("link").await?.kind,
        FileKind::File,
    )?;
    equal(
        "what the link led to",
        sandbox.read("target").await?,
        b"target".to_vec(),
    )
}

async fn rename_what_is_missing(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "content").await?;
    for (from, to) in [
        ("missing", "new"),
        ("missing", "file"),
        ("missing/below", "new"),
    ] {
        let renamed = sandbox.try_rename(from, to).await;
        refused(
            format!("rename {from:?} to {to:?}"),
            renamed,
            ErrorCode::NotFound,
        )?;
    }
    equal("the file", sandbox.read("file").await?, b"content".to_vec())
}

async fn rename_into_itself(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "content").await?;
    let renamed = sandbox.try_rename("d", "d/below").await;
    // It makes no sense, or the path makes none: the contract does not say.
    let codes = [ErrorCode::InvalidArgument, ErrorCode::InvalidPath];
    refused_with("rename \"d\" to \"d/below\"", renamed, &codes)?;
    let stat = ok("stat \"d\"", sandbox.try_stat("d", false).await)?;
    equal("the directory", stat.metadata.kind, FileKind::Directory)?;
    equal(
        "the file",
        sandbox.read("d/file").await?,
        b"content".to_vec(),
    )
}
