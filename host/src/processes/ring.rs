//! The latest output of a process, in bounded memory.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Output is copied into segments of up to this size. A chunk that was kept as
/// it came could hold on to a buffer a thousand times its size.
const SEGMENT_BYTES: usize = 32 * 1024;

/// The latest output of both streams, in order. Offsets count bytes from the
/// beginning of the process, over both streams.
#[derive(Debug)]
pub(super) struct Ring {
    segments: VecDeque<Segment>,
    /// Of the first byte that is kept.
    start: u64,
    /// Of the byte that comes next.
    end: u64,
    keep: u64,
}

#[derive(Debug)]
struct Segment {
    stderr: bool,
    bytes: BytesMut,
}

/// A piece of output of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of its first byte.
    pub offset: u64,
    pub stderr: bool,
    pub bytes: Bytes,
}

impl Ring {
    pub(super) fn new(keep: u64) -> Self {
        Self {
            segments: VecDeque::new(),
            start: 0,
            end: 0,
            keep,
        }
    }

    /// Where the next byte will be.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn push(&mut self, stderr: bool, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let last = self.segments.back_mut();
            let segment = match last
                .filter(|last| last.stderr == stderr && last.bytes.len() < SEGMENT_BYTES)
            {
                Some(last) => last,
                None => {
                    self.segments.push_back(Segment {
                        stderr,
                        bytes: BytesMut::new(),
                    });
                    self.segments.back_mut().expect("it was just pushed")
                }
            };
            let (now, later) = bytes.split_at(bytes.len().min(SEGMENT_BYTES - segment.bytes.len()));
            segment.bytes.extend_from_slice(now);
            self.end += now.len() as u64;
            bytes = later;
            self.trim();
        }
    }

    /// Forgets the oldest beyond what is kept.
    fn trim(&mut self) {
        while self.end - self.start > self.keep {
            let Some(first) = self.segments.front_mut() else {
                return;
            };
            let excess = self.end - self.start - self.keep;
            let length = first.bytes.len() as u64;
            if excess < length && length - excess > SEGMENT_BYTES as u64 / 2 {
                // Less than half a segment too much: the copy to be rid of it
                // would cost more than it is worth.
                return;
            }
            self.start += length;
            self.segments.pop_front();
        }
    }

    /// What is kept from this offset on, or from the oldest after it, up to
    /// about this many bytes.
    pub(super) fn read(&self, offset: u64, max: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = self.start;
        let mut left = max;
        for segment in &self.segments {
            let length = segment.bytes.len() as u64;
            let skip = offset.saturating_sub(at).min(length);
            let take = (length - skip).min(left);
            if take > 0 {
                // Both are within the segment, whose length is a usize.
                let range = skip as usize..(skip + take) as usize;
                pieces.push(Piece {
                    offset: at + skip,
                    stderr: segment.stderr,
                    bytes: Bytes::copy_from_slice(&segment.bytes[range]),
                });
                left -= take;
            }
            at += length;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[Piece]) -> String {
        pieces
            .iter()
            .map(|piece| {
                let stream = if piece.stderr { "err" } else { "out" };
                format!(
                    "{}{stream}:{} ",
                    piece.offset,
                    String::from_utf8_lossy(&piece.bytes)
                )
            })
            .collect()
    }

    #[test]
    fn output_is_read_from_any_offset() {
        let mut ring = Ring::new(100);
        ring.push(false, b"abc");
        ring.push(false, b"de");
        ring.push(true, b"fg");
        ring.push(false, b"h");
        #[track_caller]
        fn check(ring: &Ring, offset: u64, max: u64, expected: &str) {
            assert_eq!(text(&ring.read(offset, max)).trim_end(), expected);
        }
        check(&ring, 0, 100, "0out:abcde 5err:fg 7out:h");
        check(&ring, 4, 100, "4out:e 5err:fg 7out:h");
        check(&ring, 4, 2, "4out:e 5err:f");
        check(&ring, 8, 100, "");
        check(&ring, 99, 100, "");
        assert_eq!(ring.end(), 8);
    }

    #[test]
    fn only_the_latest_is_kept_and_offsets_stay_true() {
        let keep = 100_000;
        let mut ring = Ring::new(keep);
        let mut model = Vec::new();
        for n in 0..5000_u32 {
            let chunk = n.to_string().repeat(1 + n as usize % 37);
            ring.push(false, chunk.as_bytes());
            model.extend_from_slice(chunk.as_bytes());
        }
        let pieces = ring.read(0, u64::MAX);
        let start = pieces[0].offset as usize;
        let kept: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| piece.bytes.to_vec())
            .collect();
        assert_eq!(kept, model[start..]);
        assert!(
            kept.len() as u64 <= keep + SEGMENT_BYTES as u64,
            "{}",
            kept.len()
        );
        assert!(
            kept.len() as u64 >= keep - SEGMENT_BYTES as u64,
            "{}",
            kept.len()
        );
        assert_eq!(ring.end(), model.len() as u64);
    }

    #[test]
    fn keeping_nothing_is_possible() {
        let mut ring = Ring::new(0);
        ring.push(false, &[b'x'; 100_000]);
        assert_eq!(ring.end(), 100_000);
        assert!(
            ring.read(0, u64::MAX)
                .iter()
                .map(|piece| piece.bytes.len())
                .sum::<usize>()
                <= SEGMENT_BYTES
        );
    }
}
