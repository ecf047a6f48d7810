//! Nothing of a write is visible until all of it is, and nothing is left of one
//! that fails.

use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::Case;
use super::check::{Verdict, ensure, equal, eventually, fail, refused};
use super::run::Context;
use super::subject::{Subject, mode};
use crate::{ByteStream, Bytes, Error, ErrorCode, WriteMode};

pub(super) const CASES: &[Case] = cases! { write_atomic, Files;
    /// A reader beside a writer sees the old content or the new, and all of it.
    readers_see_all_or_nothing;
    /// Until its data ends, a write shows nothing.
    nothing_before_the_end;
    /// An error in the data is the write's own, leaves the old file, and no litter.
    an_error_in_the_data_changes_nothing [TooLarge];
    /// A write that is given up leaves the old file, and no litter.
    given_up_changes_nothing;
    /// Writers of one file at the same time leave the whole content of one of them.
    the_last_writer_wins_whole;
    /// An append that fails adds nothing.
    a_failed_append_adds_nothing [TooLarge];
};

const LENGTH: usize = 256 * 1024;

/// The one byte that all of the content is made of.
fn uniform(content: &[u8]) -> Verdict<u8> {
    let first = content.first().copied().unwrap_or_default();
    ensure(
        "the content",
        content.len() == LENGTH && content.iter().all(|byte| *byte == first),
        format!("{LENGTH} equal bytes, from one write"),
        (content.len(), first, content.last()),
    )?;
    Ok(first)
}

async fn readers_see_all_or_nothing(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", vec![b'a'; LENGTH]).await?;
    let writer = async {
        for round in 0..100u8 {
            sandbox
                .write("file", vec![b'a' + round % 26; LENGTH])
                .await?;
        }
        Ok(())
    };
    let reader = async {
        for _ in 0..100 {
            uniform(&sandbox.read("file").await?)?;
        }
        Ok(())
    };
    let (written, read): (Verdict, Verdict) = join(writer, reader).await;
    written.and(read)
}

/// Data that never ends, after some pieces.
fn stalled(pieces: usize) -> ByteStream {
    let piece = Bytes::from(vec![b'n'; 64 * 1024]);
    stream::repeat_with(move || Ok(piece.clone()))
        .take(pieces)
        .chain(stream::pending())
        .boxed()
}

/// Data that breaks, after some pieces.
fn broken(pieces: usize) -> ByteStream {
    let piece = Bytes::from(vec![b'n'; 64 * 1024]);
    stream::repeat_with(move || Ok(piece.clone()))
        .take(pieces)
        .chain(stream::iter([Err(Error::new(
            ErrorCode::TooLarge,
            "the data is more than its sender wanted",
        ))]))
        .boxed()
}

/// A directory with a file in it, and the workspace as it should stay.
async fn before(sandbox: &Subject) -> Verdict<Vec<String>> {
    sandbox.write("d/file", "old").await?;
    sandbox.names(".").await
}

/// All is as it was, before long: a backend may clean up after the answer.
async fn is_as_before(sandbox: &Subject, workspace: &[String]) -> Verdict {
    equal("the file", sandbox.read("d/file").await?, b"old".to_vec())?;
    eventually("no litter is left", Duration::from_secs(10), || async {
        Ok(sandbox.names("d").await? == ["file"] && sandbox.names(".").await? == workspace)
    })
    .await
}

async fn nothing_before_the_end(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    before(&sandbox).await?;
    let writes = ["d/file", "d/new"].map(|at| {
        let data = stalled(20);
        sandbox
            .try_write_stream(at, mode(WriteMode::Replace), data)
            .boxed()
    });
    let looks = async {
        for _ in 0..20 {
            equal("the file", sandbox.read("d/file").await?, b"old".to_vec())?;
            equal(
                "whether the new one is missing",
                sandbox.is_missing("d/new").await?,
                true,
            )?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    tokio::select! {
        seen = looks => seen,
        _ = join_all(writes) => fail("a write of data that does not end", "no end", "an end"),
    }
}

async fn an_error_in_the_data_changes_nothing(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let workspace = before(&sandbox).await?;
    for pieces in [0, 1, 40] {
        for at in ["d/file", "d/new"] {
            let data = broken(pieces);
            let written = sandbox
                .try_write_stream(at, mode(WriteMode::Replace), data)
                .await;
            let what = format!("write {at:?} with data that breaks after {pieces} pieces");
            refused(what, written, ErrorCode::TooLarge)?;
        }
    }
    is_as_before(&sandbox, &workspace).await
}

async fn given_up_changes_nothing(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let workspace = before(&sandbox).await?;
    for pieces in [0, 1, 40] {
        for at in ["d/file", "d/new"] {
            cx.note("give up the next write after 100 ms");
            let data = stalled(pieces);
            let write = sandbox.try_write_stream(at, mode(WriteMode::Replace), data);
            let ended = tokio::time::timeout(Duration::from_millis(100), write).await;
            ensure(
                "a write of data that does not end",
                ended.is_err(),
                "no end",
                ended.as_ref().ok(),
            )?;
        }
    }
    is_as_before(&sandbox, &workspace).await
}

async fn the_last_writer_wins_whole(cx: &Context) -> Verdict {
    let sandbox = &cx.sandbox().await?;
    for _ in 0..5 {
        let writers = (0..10).map(|writer| sandbox.write("d/file", vec![b'0' + writer; LENGTH]));
        for written in join_all(writers).await {
            written?;
        }
        let winner = uniform(&sandbox.read("d/file").await?)?;
        ensure(
            "the winner",
            winner.is_ascii_digit(),
            "one of the writers",
            winner,
        )?;
        equal(
            "the names",
            sandbox.names("d").await?,
            vec!["file".to_owned()],
        )?;
    }
    Ok(())
}

async fn a_failed_append_adds_nothing(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let workspace = before(&sandbox).await?;
    for pieces in [1, 40] {
        let data = broken(pieces);
        let written = sandbox
            .try_write_stream("d/file", mode(WriteMode::Append), data)
            .await;
        refused("append data that breaks", written, ErrorCode::TooLarge)?;
    }
    is_as_before(&sandbox, &workspace).await
}
