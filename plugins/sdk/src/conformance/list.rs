//! The entries of a directory.

use super::Case;
use super::check::{Verdict, equal, ok, refused, skip};
use super::run::Context;
use crate::{ErrorCode, FileKind};

pub(super) const CASES: &[Case] = cases! { list, Files;
    /// An empty directory has no entries, `.` and `..` included.
    an_empty_directory;
    /// Hidden files are entries like others, and each entry has its own metadata.
    entries_with_metadata;
    /// A thousand entries arrive, each once.
    a_thousand_entries;
    /// A link is an entry of its own, whatever it leads to.
    links_are_not_followed;
    /// A name that is not UTF-8 is shown with U+FFFD in it.
    names_that_are_not_utf8;
    /// Only a directory can be listed.
    only_directories [NotADirectory, NotFound];
};

async fn an_empty_directory(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.make_dir("empty").await?;
    equal("the names", sandbox.names("empty").await?, Vec::new())
}

async fn entries_with_metadata(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "content").await?;
    sandbox.write("d/.hidden", "").await?;
    sandbox.write("d/below/not-this", "").await?;
    let mut entries = ok("list \"d\"", sandbox.try_list("d").await)?;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.metadata.kind))
        .collect();
    let expected = [
        (".hidden", FileKind::File),
        ("below", FileKind::Directory),
        ("file", FileKind::File),
    ];
    equal("the entries", seen.as_slice(), &expected)?;
    equal(
        "the file's metadata",
        entries[2].metadata.clone(),
        sandbox.lstat("d/file").await?,
    )
}

async fn a_thousand_entries(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let script = "mkdir d; i=0; while [ $i -lt 1000 ]; do : > d/$i; i=$((i + 1)); done";
    sandbox.sh(script).await?;
    let mut expected: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    expected.sort();
    equal("the names", sandbox.names("d").await?, expected)
}

async fn links_are_not_followed(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "").await?;
    for (target, link) in [
        ("file", "d/inside"),
        ("nothing", "d/dangling"),
        ("/no-such-directory", "d/out"),
        ("loop", "d/loop"),
    ] {
        sandbox.link(target, link).await?;
    }
    let entries = ok("list \"d\"", sandbox.try_list("d").await)?;
    let mut links: Vec<_> = entries
        .into_iter()
        .filter(|entry| entry.metadata.kind == FileKind::Symlink)
        .map(|entry| (entry.name, entry.metadata.target.unwrap_or_default()))
        .collect();
    links.sort();
    let expected = [
        ("dangling", "nothing"),
        ("inside", "file"),
        ("loop", "loop"),
        ("out", "/no-such-directory"),
    ];
    let expected = expected.map(|(name, target)| (name.to_owned(), target.to_owned()));
    equal("the links", links.as_slice(), &expected)
}

async fn names_that_are_not_utf8(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let script = r#"
        mkdir d
        printf content > "d/$(printf 'bad\377name')" || exit 0
        ln -s "$(printf 'to\377nothing')" d/link"#;
    sandbox.sh(script).await?;
    let names = sandbox.names("d").await?;
    if names.is_empty() {
        return skip("the sandbox's file system takes only UTF-8 names");
    }
    equal(
        "the names",
        names,
        vec!["bad\u{fffd}name".to_owned(), "link".to_owned()],
    )?;
    let target = sandbox.lstat("d/link").await?.target;
    equal(
        "the link's target",
        target.as_deref(),
        Some("to\u{fffd}nothing"),
    )?;
    // By this name it is another file, which is not there.
    let read = sandbox.try_read("d/bad\u{fffd}name").await;
    refused(
        "read it by the name that is shown",
        read,
        ErrorCode::NotFound,
    )?;
    sandbox.remove("d", true).await?;
    equal("whether it is gone", sandbox.is_missing("d").await?, true)
}

async fn only_directories(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "").await?;
    let listed = sandbox.try_list("file").await;
    refused("list \"file\"", listed, ErrorCode::NotADirectory)?;
    sandbox.link("file", "link").await?;
    let listed = sandbox.try_list("link").await;
    refused("list \"link\", to a file", listed, ErrorCode::NotADirectory)?;
    let listed = sandbox.try_list("missing").await;
    refused("list \"missing\"", listed, ErrorCode::NotFound)
}
