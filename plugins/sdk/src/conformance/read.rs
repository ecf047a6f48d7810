//! The content of a file.

use futures_util::StreamExt as _;

use super::Case;
use super::check::{Verdict, equal, ok, refused, same_bytes, skip};
use super::run::Context;
use super::stdin::noise;
use super::subject::path;
use crate::{ByteRange, ErrorCode};

pub(super) const CASES: &[Case] = cases! { read, Files;
    /// An empty file reads as nothing.
    an_empty_file;
    /// A range is exactly the bytes it names; past the end there are none.
    ranges;
    /// Twenty mebibytes come back byte for byte.
    twenty_mebibytes;
    /// A sparse file of a tebibyte is measured, and read where it is asked to be, at once.
    a_sparse_file_of_a_tebibyte;
    /// The metadata that comes with the content is that of the file, whatever the range.
    metadata_is_of_the_file;
    /// A read that is given up harms nothing.
    given_up;
    /// A directory cannot be read.
    a_directory [IsDirectory];
};

async fn an_empty_file(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "").await?;
    equal("the content", sandbox.read("file").await?, Vec::new())
}

async fn ranges(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let data = noise(200_000);
    sandbox.write("file", data.clone()).await?;
    for (offset, length) in [
        (0, Some(0)),
        (0, Some(1)),
        (0, None),
        (1, None),
        (65_535, Some(2)),
        (65_536, Some(65_536)),
        (100_000, Some(200_000)),
        (199_999, None),
        (199_999, Some(5)),
        (200_000, None),
        (200_001, Some(1)),
        (1 << 40, None),
        (u64::MAX, None),
        (u64::MAX, Some(u64::MAX)),
        (5, Some(u64::MAX)),
        (5, Some(0)),
    ] {
        let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
        let [start, end] = [offset, end].map(|at| at.min(data.len() as u64) as usize);
        let what = format!("from {offset}, at most {length:?} bytes");
        let read = ok(&what, sandbox.try_read_range("file", offset, length).await)?;
        same_bytes(&what, &read.1, &data[start..end])?;
    }
    Ok(())
}

async fn twenty_mebibytes(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let data = noise(20 << 20);
    sandbox.write("file", data.clone()).await?;
    same_bytes("the content", &sandbox.read("file").await?, &data)?;
    equal(
        "its size, to a command",
        sandbox.sh("wc -c < file").await?.text().trim(),
        "20971520",
    )
}

async fn a_sparse_file_of_a_tebibyte(cx: &Context) -> Verdict {
    const TEBIBYTE: u64 = 1 << 40;
    let sandbox = cx.sandbox().await?;
    let script = format!("dd if=/dev/null of=sparse bs=1 seek={TEBIBYTE} && printf tail >> sparse");
    if !sandbox
        .run(sandbox.shell(&script)?)
        .await?
        .status
        .is_success()
    {
        return skip("the sandbox's file system has no files of this size");
    }
    equal("its size", sandbox.stat("sparse").await?.size, TEBIBYTE + 4)?;
    let range = |offset, length| sandbox.try_read_range("sparse", offset, length);
    let tail = ok("read its end", range(TEBIBYTE - 2, None).await)?;
    same_bytes("its end", &tail.1, b"\0\0tail")?;
    let middle = ok("read its middle", range(TEBIBYTE / 2, Some(10_000)).await)?;
    same_bytes("its middle", &middle.1, &[0; 10_000])?;
    sandbox.remove("sparse", false).await
}

async fn metadata_is_of_the_file(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("d/file", noise(100_000)).await?;
    sandbox.link("d/file", "link").await?;
    let metadata = sandbox.stat("d/file").await?;
    for (at, offset, length) in [
        ("d/file", 0, None),
        ("d/file", 10, Some(5)),
        ("link", 1 << 30, None),
    ] {
        let read = sandbox.try_read_range(at, offset, length).await;
        equal(at, ok(format!("read {at:?}"), read)?.0, metadata.clone())?;
    }
    Ok(())
}

async fn given_up(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let data = noise(4 << 20);
    sandbox.write("file", data.clone()).await?;
    let at = path("file")?;
    for pieces in [0, 1, 2] {
        cx.note(format!("read \"file\", and give up after {pieces} pieces"));
        let read = sandbox.sandbox.read(&at, ByteRange::default()).await;
        let (_, stream) = ok("read \"file\"", read)?;
        for piece in stream.take(pieces).collect::<Vec<_>>().await {
            ok("a piece", piece)?;
        }
    }
    same_bytes("the content", &sandbox.read("file").await?, &data)?;
    sandbox.remove("file", false).await
}

async fn a_directory(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.make_dir("d").await?;
    sandbox.link("d", "link").await?;
    for at in ["d", "d/", ".", "link", &sandbox.absolute("d")] {
        let read = sandbox.try_read(at).await;
        refused(format!("read {at:?}"), read, ErrorCode::IsDirectory)?;
    }
    Ok(())
}
