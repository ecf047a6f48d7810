//! The beginning and the end of a stream, in bounded memory.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Output, Preview};

/// Takes a stream piece by piece and keeps what may be asked for in the end.
///
/// `front` holds the first bytes, enough for all that is inline and for the
/// head, and `ring` the last of those that come after it, enough for the tail.
#[derive(Debug)]
pub(super) struct Keep {
    inline: usize,
    preview: Preview,
    front: Vec<u8>,
    front_max: usize,
    ring: VecDeque<u8>,
    ring_max: usize,
    total: u64,
    newlines: u64,
}

impl Keep {
    pub(super) fn new(inline: u64, preview: Preview) -> Self {
        let inline = size(inline);
        Self {
            inline,
            preview,
            front: Vec::new(),
            front_max: inline.max(size(preview.head_bytes)),
            ring: VecDeque::new(),
            ring_max: size(preview.tail_bytes),
            total: 0,
            newlines: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.newlines += count_newlines(bytes);
        let (front, rest) = bytes.split_at(bytes.len().min(self.front_max - self.front.len()));
        self.front.extend_from_slice(front);
        let rest = &rest[rest.len().saturating_sub(self.ring_max)..];
        let over = (self.ring.len() + rest.len()).saturating_sub(self.ring_max);
        self.ring.drain(..over);
        self.ring.extend(rest);
    }

    /// Whether all of it may still be inline.
    pub(super) fn fits(&self) -> bool {
        self.total <= self.inline as u64
    }

    pub(super) fn finish(self) -> Output {
        if self.fits() {
            return Output {
                head: self.front.into(),
                ..Output::default()
            };
        }
        let head_len = self.head_len();
        // What comes after the head and is still there. Its end is the
        // stream's end; between the front and the ring something may be gone.
        let mut after = self.front[head_len..].to_vec();
        after.extend(&self.ring);
        let tail_len = self.tail_len(&after);
        let kept = (head_len + tail_len) as u64;
        let mut head = self.front;
        head.truncate(head_len);
        let tail = after.split_off(after.len() - tail_len);
        if kept == self.total {
            head.extend_from_slice(&tail);
            return Output {
                head: head.into(),
                ..Output::default()
            };
        }
        Output {
            omitted_bytes: self.total - kept,
            omitted_lines: self.newlines - count_newlines(&head) - count_newlines(&tail),
            head: head.into(),
            tail: Bytes::from(tail),
        }
    }

    /// How much of the front is the head.
    fn head_len(&self) -> usize {
        let front = &self.front[..self.front.len().min(size(self.preview.head_bytes))];
        let whole_lines = match self.preview.head_lines {
            None => None,
            Some(0) => Some(0),
            Some(lines) => ends_of_lines(front).nth(lines as usize - 1),
        };
        // Only a cut by bytes can split a character, which is then left out.
        let cut = (front.len() as u64) < self.total;
        whole_lines.unwrap_or_else(|| {
            if cut {
                whole_characters(front)
            } else {
                front.len()
            }
        })
    }

    /// How much of the end of `after` is the tail.
    fn tail_len(&self, after: &[u8]) -> usize {
        let from = after.len().saturating_sub(self.ring_max);
        let end = &after[from..];
        let from_line = match self.preview.tail_lines {
            None => None,
            Some(0) => Some(end.len()),
            // The end of the line before the first that is kept. The last byte
            // ends a line itself, or there is one without an end.
            Some(lines) => {
                let body = &end[..end.len().saturating_sub(1)];
                let before = body
                    .iter()
                    .enumerate()
                    .rev()
                    .filter(|(_, byte)| **byte == b'\n');
                before.map(|(at, _)| at + 1).nth(lines as usize - 1)
            }
        };
        let start = from_line.unwrap_or_else(|| {
            // Only a cut can split a character: here, or when the ring was full.
            let held = (self.front.len() + self.ring.len()) as u64;
            let cut = from > 0 || held < self.total;
            let continues = |byte: &&u8| **byte & 0xC0 == 0x80;
            if cut {
                end.iter().take(3).take_while(continues).count()
            } else {
                0
            }
        });
        end.len() - start
    }
}

/// Where each line ends, with its newline.
fn ends_of_lines(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1)
}

/// The length without a UTF-8 sequence that has only begun at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let Some(from_end) = tail.iter().rev().position(|byte| byte & 0xC0 != 0x80) else {
        return bytes.len();
    };
    let have = from_end + 1;
    let needs = match bytes[bytes.len() - have] {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    if have < needs {
        bytes.len() - have
    } else {
        bytes.len()
    }
}

fn count_newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALVES: Preview = preview(4, 4, None, None);

    const fn preview(
        head: u64,
        tail: u64,
        head_lines: Option<u32>,
        tail_lines: Option<u32>,
    ) -> Preview {
        Preview {
            head_bytes: head,
            tail_bytes: tail,
            head_lines,
            tail_lines,
        }
    }

    /// Feeds `stream` in pieces of every size.
    #[track_caller]
    fn check(inline: u64, preview: Preview, stream: &[u8], head: &[u8], tail: &[u8], lines: u64) {
        for piece in 1..=stream.len().max(1) {
            let mut keep = Keep::new(inline, preview);
            stream.chunks(piece).for_each(|piece| keep.push(piece));
            let output = keep.finish();
            let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(
                (show(&output.head), show(&output.tail), output.omitted_lines),
                (show(head), show(tail), lines),
                "pieces of {piece}"
            );
            assert_eq!(
                output.head.len() + output.tail.len() + output.omitted_bytes as usize,
                stream.len()
            );
        }
    }

    #[test]
    fn what_fits_is_whole() {
        check(8, HALVES, b"", b"", b"", 0);
        check(8, HALVES, b"12345678", b"12345678", b"", 0);
        check(0, preview(0, 0, None, None), b"", b"", b"", 0);
    }

    #[test]
    fn past_the_limit_both_ends_are_kept() {
        check(8, HALVES, b"123456789", b"1234", b"6789", 0);
        check(8, HALVES, b"12\n45\n78\na\n", b"12\n4", b"8\na\n", 1);
        check(8, preview(0, 3, None, None), b"123456789", b"", b"789", 0);
        check(8, preview(3, 0, None, None), b"123456789", b"123", b"", 0);
        check(0, preview(0, 0, None, None), b"a\nb\n", b"", b"", 2);
        check(
            2,
            preview(6, 6, None, None),
            b"1234567890",
            b"1234567890",
            b"",
            0,
        );
        check(
            2,
            preview(20, 6, None, None),
            b"1234567890",
            b"1234567890",
            b"",
            0,
        );
        check(
            4,
            preview(6, 2, None, None),
            b"1234567890",
            b"123456",
            b"90",
            0,
        );
        check(
            8,
            preview(2, 6, None, None),
            b"1234567890abc",
            b"12",
            b"890abc",
            0,
        );
    }

    #[test]
    fn lines_bound_both_ends() {
        let five = b"1\n2\n3\n4\n5\n";
        check(
            4,
            preview(100, 100, Some(1), Some(1)),
            five,
            b"1\n",
            b"5\n",
            3,
        );
        check(
            4,
            preview(100, 100, Some(2), Some(2)),
            five,
            b"1\n2\n",
            b"4\n5\n",
            1,
        );
        check(4, preview(100, 100, Some(3), Some(3)), five, five, b"", 0);
        check(4, preview(100, 100, Some(0), Some(0)), five, b"", b"", 5);
        check(
            4,
            preview(3, 3, Some(9), Some(9)),
            five,
            b"1\n2",
            b"\n5\n",
            2,
        );
        check(
            4,
            preview(100, 100, Some(1), Some(1)),
            b"1\n2\n3",
            b"1\n",
            b"3",
            1,
        );
        check(
            4,
            preview(100, 100, Some(1), Some(1)),
            b"\n\n\n\n\n\n",
            b"\n",
            b"\n",
            4,
        );
    }

    #[test]
    fn a_cut_splits_no_character() {
        check(
            4,
            HALVES,
            "123żółw-12ż9".as_bytes(),
            b"123",
            "2ż9".as_bytes(),
            0,
        );
        check(
            4,
            HALVES,
            "12ż--🦀".as_bytes(),
            "12ż".as_bytes(),
            "🦀".as_bytes(),
            0,
        );
        check(4, HALVES, "🦀--a🦀x".as_bytes(), "🦀".as_bytes(), b"x", 0);
        check(
            4,
            preview(9, 0, None, None),
            b"12345\xf0",
            b"12345\xf0",
            b"",
            0,
        );
        check(
            4,
            HALVES,
            b"\x80\x80\x80\x80-----\x80\xff\xff\xff",
            b"\x80\x80\x80\x80",
            b"\xff\xff\xff",
            0,
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut keep = Keep::new(1000, preview(10, 500, None, None));
        for _ in 0..10_000 {
            keep.push(&[b'x'; 777]);
            assert!(keep.front.len() <= 1000 && keep.ring.len() <= 500);
        }
        assert!(keep.ring.capacity() < 4096);
        let output = keep.finish();
        assert_eq!((output.head.len(), output.tail.len()), (10, 500));
        assert_eq!(output.omitted_bytes, 7_770_000 - 510);
    }
}
