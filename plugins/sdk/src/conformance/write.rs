//! What a write does to what is there.

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};

use super::Case;
use super::check::{Verdict, ensure, equal, ok, refused, same_bytes, skip};
use super::run::Context;
use super::stdin::noise;
use super::subject::{mode, permissions};
use crate::{Bytes, ErrorCode, FileKind, Version, WriteMode, WriteOptions};

pub(super) const CASES: &[Case] = cases! { write, Files;
    /// A write creates the directories that are missing above it.
    creates_parents;
    /// A write replaces the whole of a file, longer or shorter.
    replaces_the_whole;
    /// What a write answers is what stat says.
    answers_the_new_metadata;
    /// Data may come in pieces of any size, empty ones included, or not at all.
    pieces_of_any_size;
    /// A file that is replaced keeps its permissions, unless others are given.
    keeps_permissions;
    /// Creating what exists is refused, and changes nothing.
    create_new [AlreadyExists];
    /// Appending adds to the end, and creates what is missing.
    append_in_parts;
    /// Appending adds to what a command has written in the meantime, and keeps the permissions.
    append_after_a_command;
    /// Replacing a version works while it is the file's, and is a conflict once it is not, also if the file is gone.
    replace_version [Conflict];
    /// Of eight conditional writers of one version exactly one wins.
    one_conditional_writer_wins [Conflict];
    /// A directory cannot be written, and is not harmed.
    over_a_directory [IsDirectory];
    /// Writes to a hundred files at once all arrive.
    a_hundred_files_at_once;
};

async fn creates_parents(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("a/b/c/file", "content").await?;
    equal(
        "the file",
        sandbox.read("a/b/c/file").await?,
        b"content".to_vec(),
    )?;
    equal(
        "its parent",
        sandbox.stat("a/b/c").await?.kind,
        FileKind::Directory,
    )?;
    for (at, how) in [
        ("d/e/file", WriteMode::CreateNew),
        ("f/g/file", WriteMode::Append),
    ] {
        let written = sandbox.try_write(at, mode(how), "content").await;
        ok(format!("write {at:?}"), written)?;
        equal(at, sandbox.read(at).await?, b"content".to_vec())?;
    }
    sandbox.sh(": > a/b/c/beside").await?;
    Ok(())
}

async fn replaces_the_whole(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for length in [100_000, 10, 0, 300_000, 1] {
        let data = noise(length);
        sandbox.write("file", data.clone()).await?;
        same_bytes("the content", &sandbox.read("file").await?, &data)?;
    }
    equal(
        "the names",
        sandbox.names(".").await?.contains(&"file".to_owned()),
        true,
    )
}

async fn answers_the_new_metadata(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for how in [WriteMode::CreateNew, WriteMode::Replace, WriteMode::Append] {
        let what = format!("the answer to {how:?}");
        let written = sandbox.try_write("d/file", mode(how), "content").await;
        let written = ok("write \"d/file\"", written)?;
        equal(what, written, sandbox.stat("d/file").await?)?;
    }
    Ok(())
}

async fn pieces_of_any_size(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let data = noise(300_000);
    for sizes in [
        vec![1, 0, 2, 100, 0, 70_000, 3],
        vec![0],
        vec![],
        vec![300_000],
    ] {
        let mut rest = Bytes::from(data.clone());
        let pieces: Vec<Bytes> = sizes.iter().map(|size| rest.split_to(*size)).collect();
        let total = sizes.iter().sum();
        let pieces = stream::iter(pieces.into_iter().map(Ok)).boxed();
        let written = sandbox
            .try_write_stream("file", WriteOptions::default(), pieces)
            .await;
        ok(format!("write pieces of {sizes:?} bytes"), written)?;
        same_bytes("the content", &sandbox.read("file").await?, &data[..total])?;
    }
    let bytes = data[..1000]
        .chunks(1)
        .map(|byte| Ok(Bytes::copy_from_slice(byte)));
    let bytes: Vec<_> = bytes.collect();
    let bytes = stream::iter(bytes).boxed();
    let written = sandbox
        .try_write_stream("file", WriteOptions::default(), bytes)
        .await;
    ok("write a thousand bytes one by one", written)?;
    same_bytes("the content", &sandbox.read("file").await?, &data[..1000])
}

async fn keeps_permissions(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let written = sandbox.try_write("file", permissions(0o640), "one").await;
    let written = ok("write \"file\" with 640", written)?;
    let Some(bits) = written.permissions else {
        return skip("the backend's files have no permissions");
    };
    equal("those of the new file", bits.bits(), 0o640)?;
    let seen = || async {
        Ok(sandbox
            .stat("file")
            .await?
            .permissions
            .map(|bits| bits.bits()))
    };
    sandbox.write("file", "two").await?;
    equal("those after a replacement", seen().await?, Some(0o640))?;
    sandbox.sh("chmod 751 file").await?;
    let version = sandbox.stat("file").await?.version;
    let version = version.unwrap_or_else(|| Version::new("none"));
    let written = sandbox
        .try_write("file", mode(WriteMode::ReplaceVersion(version)), "3")
        .await;
    ok("replace its version", written)?;
    equal("those after another", seen().await?, Some(0o751))?;
    let written = sandbox.try_write("file", permissions(0o604), "four").await;
    ok("write \"file\" with 604", written)?;
    equal("those that were given", seen().await?, Some(0o604))?;
    let appended = WriteOptions {
        mode: WriteMode::Append,
        ..permissions(0o600)
    };
    let written = sandbox.try_write("file", appended, "five").await;
    ok("append to \"file\" with 600", written)?;
    equal("those that were given", seen().await?, Some(0o600))
}

async fn create_new(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let new = || mode(WriteMode::CreateNew);
    ok(
        "create \"file\"",
        sandbox.try_write("file", new(), "one").await,
    )?;
    sandbox.make_dir("d").await?;
    for at in ["file", "d"] {
        let created = sandbox.try_write(at, new(), "two").await;
        refused(format!("create {at:?}"), created, ErrorCode::AlreadyExists)?;
    }
    equal("the file", sandbox.read("file").await?, b"one".to_vec())?;
    let creations = (0..8).map(|_| sandbox.try_write("raced", new(), "x"));
    let results = join_all(creations).await;
    let created = results.iter().filter(|result| result.is_ok()).count();
    equal("winners among eight who create one file", created, 1)?;
    for result in results.into_iter().filter(Result::is_err) {
        refused("create \"raced\"", result, ErrorCode::AlreadyExists)?;
    }
    Ok(())
}

async fn append_in_parts(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let add = || mode(WriteMode::Append);
    for part in ["one ", "", "two ", "three"] {
        ok("append", sandbox.try_write("file", add(), part).await)?;
    }
    equal(
        "the file",
        sandbox.read("file").await?,
        b"one two three".to_vec(),
    )?;
    let long = noise(200_000);
    ok(
        "append",
        sandbox.try_write("file", add(), long.clone()).await,
    )?;
    let mut expected = b"one two three".to_vec();
    expected.extend(long);
    same_bytes("the file", &sandbox.read("file").await?, &expected)
}

async fn append_after_a_command(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.sh("printf one > file; chmod 755 file").await?;
    let add = || mode(WriteMode::Append);
    ok("append", sandbox.try_write("file", add(), " two").await)?;
    sandbox.sh("printf ' three' >> file").await?;
    ok("append", sandbox.try_write("file", add(), " four").await)?;
    let content = sandbox.sh("cat file").await?.text();
    equal("the file", content.as_str(), "one two three four")?;
    let bits = sandbox.stat("file").await?.permissions;
    ensure(
        "its permissions",
        bits.is_none_or(|bits| bits.bits() == 0o755),
        "755, as before",
        bits,
    )
}

async fn replace_version(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let version = |metadata: crate::Metadata| {
        let version = metadata.version.unwrap_or_else(|| Version::new("none"));
        mode(WriteMode::ReplaceVersion(version))
    };
    let first = sandbox.write("file", "one").await?;
    let second = sandbox
        .try_write("file", version(first.clone()), "two")
        .await;
    let second = ok("replace the version it has", second)?;
    equal("the file", sandbox.read("file").await?, b"two".to_vec())?;
    let conflict = ErrorCode::Conflict;
    let stale = sandbox.try_write("file", version(first), "three").await;
    refused("replace a version it had", stale, conflict)?;
    let made_up = mode(WriteMode::ReplaceVersion(Version::new("made-up")));
    let unknown = sandbox.try_write("file", made_up, "three").await;
    refused("replace a version it never had", unknown, conflict)?;
    sandbox.sh("sleep 0.1; printf TWO > file").await?;
    let changed = sandbox
        .try_write("file", version(second.clone()), "three")
        .await;
    refused("replace what a command has changed", changed, conflict)?;
    equal("the file", sandbox.read("file").await?, b"TWO".to_vec())?;
    sandbox.remove("file", false).await?;
    let gone = sandbox.try_write("file", version(second), "three").await;
    refused("replace a file that is gone", gone, conflict)?;
    equal(
        "whether it is still gone",
        sandbox.is_missing("file").await?,
        true,
    )
}

async fn one_conditional_writer_wins(cx: &Context) -> Verdict {
    let sandbox = &cx.sandbox().await?;
    for round in 0..10 {
        let written = sandbox.write("file", format!("round {round}")).await?;
        let version = written.version.unwrap_or_else(|| Version::new("none"));
        let writers = (0..8).map(|writer| {
            let options = mode(WriteMode::ReplaceVersion(version.clone()));
            sandbox.try_write("file", options, format!("writer {writer}"))
        });
        let results = join_all(writers).await;
        let winners: Vec<usize> = (0..8).filter(|writer| results[*writer].is_ok()).collect();
        equal("the number of winners", winners.len(), 1)?;
        let expected = format!("writer {}", winners[0]).into_bytes();
        equal("the file", sandbox.read("file").await?, expected)?;
        for result in results.into_iter().filter(Result::is_err) {
            refused("the others' writes", result, ErrorCode::Conflict)?;
        }
    }
    Ok(())
}

async fn over_a_directory(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", "content").await?;
    sandbox.make_dir("empty").await?;
    for at in ["d", "empty", "."] {
        for how in [WriteMode::Replace, WriteMode::Append] {
            let written = sandbox.try_write(at, mode(how), "x").await;
            refused(format!("write {at:?}"), written, ErrorCode::IsDirectory)?;
        }
    }
    equal(
        "the file in it",
        sandbox.read("d/file").await?,
        b"content".to_vec(),
    )
}

async fn a_hundred_files_at_once(cx: &Context) -> Verdict {
    let sandbox = &cx.sandbox().await?;
    let writes = (0..100).map(|number| async move {
        let at = format!("d{}/file-{number}", number % 7);
        sandbox.write(&at, format!("content {number}")).await?;
        let content = sandbox.read(&at).await?;
        equal(at, content, format!("content {number}").into_bytes())
    });
    for written in join_all(writes).await {
        written?;
    }
    Ok(())
}
