//! Bytes of output as lines of text, wherever they were cut.

/// Holds back the beginning of a character, and a carriage return that may
/// belong to a line feed.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    carried: Vec<u8>,
}

impl Decoder {
    /// The text so far. Bytes that are none are shown as `�`.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.carried.extend_from_slice(bytes);
        let whole = self.carried.strip_suffix(b"\r").unwrap_or(&self.carried);
        let mut keep = whole.len();
        // A character has four bytes at most.
        for start in (whole.len().saturating_sub(3)..whole.len()).rev() {
            match std::str::from_utf8(&whole[start..]) {
                Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => {
                    keep = start;
                }
                _ => {}
            }
        }
        let rest = self.carried.split_off(keep);
        let text = text_of(&self.carried);
        self.carried = rest;
        text
    }

    /// What was held back, at the end.
    pub(super) fn finish(&mut self) -> String {
        text_of(&std::mem::take(&mut self.carried))
    }
}

/// A program that goes back to the beginning of the line begins a new one: what
/// is printed here cannot be unprinted.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .replace("\r\n", "\n")
        .replace('\r', "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_put_together() {
        #[track_caller]
        fn check(chunks: &[&[u8]], expected: &[&str], rest: &str) {
            let mut decoder = Decoder::default();
            let found: Vec<_> = chunks.iter().map(|chunk| decoder.push(chunk)).collect();
            assert_eq!(found, expected);
            assert_eq!(decoder.finish(), rest);
        }
        check(&[b"a\n", b"b"], &["a\n", "b"], "");
        check(&[b"\xf0\x9f", b"\xa6\x80!"], &["", "🦀!"], "");
        check(&[b"a\xc5"], &["a"], "\u{fffd}");
        check(&[b"a\xffb"], &["a\u{fffd}b"], "");
        check(&[b"a\r", b"\nb"], &["a", "\nb"], "");
        check(&[b"10%\r20%\r", b""], &["10%\n20%", ""], "\n");
        check(&[b"\xf0\x9f\r", b"x"], &["", "\u{fffd}\nx"], "");
    }
}
