//! Reading a file, one piece ahead of whoever takes it.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::try_unfold;
use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, fstat};
use rustix::io::{pread, retry_on_intr};
use stigmer_sdk::{ByteRange, ByteStream, Metadata, Result, SandboxPath};

use super::error::At;
use super::resolve::HOLD;
use super::{Inner, hop, metadata, reopen, start};

/// Bytes per piece. Large enough that the hop to another thread, some tens of
/// microseconds, does not show; small enough that a piece is still in the
/// processor's cache when it is sent.
const PIECE: usize = 512 * 1024;

/// The least that is asked of a file that says it is empty: those of `/proc` do.
const LEAST: usize = 4096;

/// The last position that a piece may start at: the kernel counts in 63 bits,
/// and refuses to read across their end.
const LAST: u64 = (i64::MAX - 2 * PIECE as i64) as u64;

/// A file on its way. It owns its descriptor, which is only ever read at a
/// position, and goes from hop to hop.
struct Reader {
    file: OwnedFd,
    path: SandboxPath,
    offset: u64,
    /// Bytes still to read at most.
    left: u64,
    /// What its size says is left, as a hint for buffers. Never believed.
    expected: u64,
}

/// What a hop brings back: some bytes, and the reader if there may be more.
type Piece = (Bytes, Option<Reader>);
type Ahead = Pin<Box<dyn Future<Output = Result<Piece>> + Send>>;

pub(super) async fn read(
    inner: Arc<Inner>,
    path: SandboxPath,
    range: ByteRange,
) -> Result<(Metadata, ByteStream)> {
    let (metadata, first) = hop(move || open(&inner, path, range)).await?;
    let ahead: Ahead = Box::pin(std::future::ready(Ok(first)));
    let pieces = try_unfold(Some(ahead), |ahead| async {
        let Some(ahead) = ahead else { return Ok(None) };
        let (piece, reader) = ahead.await?;
        let ahead = reader.map(|reader| -> Ahead { Box::pin(start(move || reader.next())) });
        Ok(match (piece.is_empty(), &ahead) {
            (true, None) => None,
            _ => Some((piece, ahead)),
        })
    });
    Ok((metadata, Box::pin(pieces)))
}

/// Opens the file and reads its first piece: for most files that is all.
fn open(inner: &Inner, path: SandboxPath, range: ByteRange) -> Result<(Metadata, Piece)> {
    let root = &inner.root;
    let held = root.find(root.below(&path)?, HOLD).at(path.as_str())?;
    // Judged before it is opened: to open a FIFO would wake who waits at its
    // other end, and some devices act on it.
    metadata::regular(&fstat(&held).at(path.as_str())?).at(path.as_str())?;
    let file = reopen(&held, OFlags::RDONLY).at(path.as_str())?;
    let metadata = metadata::metadata(&fstat(&file).at(path.as_str())?);
    let left = range.length.unwrap_or(u64::MAX);
    let reader = Reader {
        file,
        path,
        offset: range.offset,
        left,
        expected: metadata.size.saturating_sub(range.offset).min(left),
    };
    Ok((metadata, reader.next()?))
}

impl Reader {
    /// Reads a piece. Blocks, but only on the disk.
    fn next(mut self) -> Result<Piece> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE);
        // One byte more than is expected finds the end without another buffer.
        let expected = usize::try_from(self.expected).unwrap_or(usize::MAX);
        let mut piece = Vec::with_capacity(expected.saturating_add(1).max(LEAST).min(most));
        let mut ended = self.offset > LAST;
        while piece.len() < most && !ended {
            if piece.len() == piece.capacity() {
                piece.reserve(piece.len().min(most - piece.len()));
            }
            let at = self.offset + piece.len() as u64;
            ended = retry_on_intr(|| pread(&self.file, spare_capacity(&mut piece), at))
                .at(self.path.as_str())?
                == 0;
        }
        // A buffer may have been given more room than was asked for.
        piece.truncate(most);
        let length = piece.len() as u64;
        self.offset += length;
        self.left -= length;
        self.expected = self.expected.saturating_sub(length);
        let ended = ended || self.left == 0;
        Ok((Bytes::from(piece), (!ended).then_some(self)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use stigmer_sdk::ErrorCode;

    use super::super::testing::{Fixture, code};
    use super::*;

    #[tokio::test]
    async fn ranges_are_read_to_the_byte() {
        let fixture = Fixture::new();
        let content: Vec<_> = (0..3 * PIECE + 7).map(|n| (n % 251) as u8).collect();
        fs::write(fixture.dir.join("file"), &content).unwrap();
        let size = content.len() as u64;
        let check = async |offset: u64, length: Option<u64>| {
            let range = ByteRange { offset, length };
            let read = fixture.read_range("file", range).await.unwrap();
            let start = offset.min(size) as usize;
            let end = offset.saturating_add(length.unwrap_or(size)).min(size) as usize;
            assert!(
                read == content[start..end.max(start)],
                "{offset} {length:?}"
            );
        };
        check(0, None).await;
        check(0, Some(0)).await;
        check(0, Some(1)).await;
        check(0, Some(PIECE as u64)).await;
        check(1, Some(PIECE as u64)).await;
        check(PIECE as u64 - 1, Some(PIECE as u64 + 2)).await;
        check(size - 1, None).await;
        check(size, None).await;
        check(size + 1, Some(10)).await;
        check(u64::MAX, Some(u64::MAX)).await;
        check(i64::MAX as u64, None).await;
        check(5, Some(u64::MAX)).await;
    }

    #[tokio::test]
    async fn a_small_file_is_one_chunk() {
        let fixture = Fixture::new();
        fs::write(fixture.dir.join("file"), "content").unwrap();
        fs::write(fixture.dir.join("empty"), "").unwrap();
        let chunks = async |name: &str| {
            let range = ByteRange::default();
            let path = SandboxPath::new(name).unwrap();
            let (metadata, data) = fixture.workspace.read(&path, range).await.unwrap();
            let chunks = futures_util::TryStreamExt::try_collect::<Vec<_>>(data)
                .await
                .unwrap();
            (metadata.size, chunks)
        };
        assert_eq!(chunks("file").await, (7, vec![Bytes::from("content")]));
        assert_eq!(chunks("empty").await, (0, vec![]));
    }

    #[tokio::test]
    async fn a_sparse_tebibyte_costs_nothing() {
        let fixture = Fixture::new();
        let size = 1 << 40;
        fs::File::create(fixture.dir.join("sparse"))
            .unwrap()
            .set_len(size)
            .unwrap();
        let range = ByteRange {
            offset: size - 3,
            length: None,
        };
        assert_eq!(fixture.read_range("sparse", range).await.unwrap(), [0; 3]);
        let path = SandboxPath::new("sparse").unwrap();
        let (metadata, _) = fixture
            .workspace
            .read(&path, ByteRange::default())
            .await
            .unwrap();
        assert_eq!(metadata.size, size);
    }

    /// A read that waited would hang the test.
    #[tokio::test]
    async fn what_is_no_file_is_refused_at_once() {
        let fixture = Fixture::new();
        let make = |name: &str, file_type, device| {
            let path = fixture.dir.join(name);
            mknodat(CWD, &path, file_type, Mode::RUSR | Mode::WUSR, device).is_ok()
        };
        assert!(make("fifo", FileType::Fifo, 0));
        let _socket = UnixListener::bind(fixture.dir.join("socket")).unwrap();
        fs::create_dir(fixture.dir.join("dir")).unwrap();
        let mut names = vec!["fifo", "socket"];
        // Only root may, and not everywhere.
        if make("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)) {
            names.push("null");
        }
        for name in names {
            assert_eq!(
                code(fixture.read(name).await),
                Some(ErrorCode::NotAFile),
                "{name}"
            );
            let written = fixture
                .write(name, stigmer_sdk::WriteMode::Replace, "x")
                .await;
            assert_eq!(code(written), Some(ErrorCode::NotAFile), "{name}");
        }
        assert_eq!(
            code(fixture.read("dir").await),
            Some(ErrorCode::IsDirectory)
        );
        assert_eq!(code(fixture.read("none").await), Some(ErrorCode::NotFound));
    }
}
