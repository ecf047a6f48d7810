//! Secrets, kept out of whatever people and the model read.
//!
//! A [`Mask`] knows the values; what it shows has `***` in their place. Output
//! that comes in pieces goes through a [`Stream`], which holds back no more
//! than what may be the beginning of a secret.

use std::ops::Range;
use std::sync::Arc;

/// What stands for a secret.
const SHOWN: &[u8] = b"***";
/// Shorter values are not masked: `1` or `no` would tear holes into any text.
const SHORTEST: usize = 4;
/// A line of a secret with several is masked on its own from this length on,
/// because tools show lines apart from each other.
const SHORTEST_LINE: usize = 8;

/// The secrets of one execution.
#[derive(Clone, Default)]
pub struct Mask {
    /// In each spelling in which they may be met.
    secrets: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask(***)")
    }
}

impl Mask {
    /// Masks these values.
    #[must_use]
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets = Vec::new();
        let mut add = |text: &str| {
            secrets.push(text.as_bytes().to_vec());
            // Inside JSON, as in the arguments of a call.
            let json = serde_json::Value::from(text).to_string();
            secrets.push(json.as_bytes()[1..json.len() - 1].to_vec());
        };
        for value in values {
            for text in [value, value.trim()] {
                if text.len() >= SHORTEST {
                    add(text);
                }
            }
            if value.trim().contains('\n') {
                for line in value.lines().map(str::trim) {
                    if line.len() >= SHORTEST_LINE {
                        add(line);
                    }
                }
            }
        }
        secrets.sort_unstable();
        secrets.dedup();
        Self { secrets }
    }

    /// The text without the secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        if self.secrets.is_empty() {
            return text.to_owned();
        }
        let mut shown = Vec::with_capacity(text.len());
        let mut covered = 0;
        replace(
            text.as_bytes(),
            &self.spans(text.as_bytes()),
            text.len(),
            &mut covered,
            &mut shown,
        );
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// For output that comes in pieces.
    #[must_use]
    pub fn stream(self: &Arc<Self>) -> Stream {
        Stream {
            mask: Arc::clone(self),
            held: Vec::new(),
            covered: 0,
        }
    }

    /// Where secrets are: in order, without overlaps.
    fn spans(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for secret in &self.secrets {
            let starts = bytes
                .windows(secret.len())
                .enumerate()
                .filter(|(_, window)| window == secret);
            found.extend(starts.map(|(start, _)| start..start + secret.len()));
        }
        found.sort_unstable_by_key(|span| span.start);
        let mut spans: Vec<Range<usize>> = Vec::with_capacity(found.len());
        for span in found {
            match spans.last_mut() {
                Some(last) if span.start < last.end => last.end = last.end.max(span.end),
                _ => spans.push(span),
            }
        }
        spans
    }

    /// How many bytes at the end may be the beginning of a secret.
    fn unfinished(&self, bytes: &[u8]) -> usize {
        let begins = |secret: &Vec<u8>| {
            (1..secret.len().min(bytes.len() + 1))
                .rev()
                .find(|&length| bytes.ends_with(&secret[..length]))
        };
        self.secrets.iter().filter_map(begins).max().unwrap_or(0)
    }
}

/// Appends `bytes[..end]` to `shown` with a mark for each span. The first
/// `covered` bytes have a mark already; afterwards, `covered` says so for what
/// comes after `end`.
fn replace(
    bytes: &[u8],
    spans: &[Range<usize>],
    end: usize,
    covered: &mut usize,
    shown: &mut Vec<u8>,
) {
    let mut at = (*covered).min(end);
    let mut marked = *covered;
    for span in spans.iter().filter(|span| span.start < end) {
        if span.start >= marked {
            shown.extend_from_slice(&bytes[at..span.start]);
            shown.extend_from_slice(SHOWN);
        }
        marked = marked.max(span.end);
        at = marked.min(end);
    }
    shown.extend_from_slice(&bytes[at..end]);
    *covered = marked.saturating_sub(end);
}

/// Masks output that comes in pieces.
#[derive(Debug)]
pub struct Stream {
    mask: Arc<Mask>,
    /// What may be the beginning of a secret.
    held: Vec<u8>,
    /// Of `held`, what belongs to a secret whose mark was given out.
    covered: usize,
}

impl Stream {
    /// Takes a piece, and gives what can be shown by now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.mask.secrets.is_empty() {
            return piece.to_vec();
        }
        self.held.extend_from_slice(piece);
        let end = self.held.len() - self.mask.unfinished(&self.held);
        self.take(end)
    }

    /// The same for text.
    pub fn push_text(&mut self, piece: &str) -> String {
        // A secret is text, so that what it leaves is text too.
        String::from_utf8_lossy(&self.push(piece.as_bytes())).into_owned()
    }

    /// What is left at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        self.take(self.held.len())
    }

    /// The same for text.
    pub fn finish_text(&mut self) -> String {
        String::from_utf8_lossy(&self.finish()).into_owned()
    }

    fn take(&mut self, end: usize) -> Vec<u8> {
        let mut shown = Vec::with_capacity(end);
        let spans = self.mask.spans(&self.held);
        replace(&self.held, &spans, end, &mut self.covered, &mut shown);
        self.held.drain(..end);
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(secrets: &[&str], text: &str, expected: &str) {
        let mask = Arc::new(Mask::new(secrets.iter().copied()));
        assert_eq!(mask.text(text), expected);
        // In two pieces, at every byte, and one byte at a time.
        for split in 0..=text.len() {
            let mut stream = mask.stream();
            let mut shown = stream.push(&text.as_bytes()[..split]);
            shown.extend(stream.push(&text.as_bytes()[split..]));
            shown.extend(stream.finish());
            assert_eq!(
                String::from_utf8(shown).unwrap(),
                expected,
                "split at {split}"
            );
        }
        let mut stream = mask.stream();
        let mut shown: Vec<u8> = text
            .as_bytes()
            .iter()
            .flat_map(|&byte| stream.push(&[byte]))
            .collect();
        shown.extend(stream.finish());
        assert_eq!(String::from_utf8(shown).unwrap(), expected, "byte by byte");
    }

    #[test]
    fn secrets_are_masked_wherever_the_pieces_break() {
        check(
            &["hunter2"],
            "the password is hunter2, hunter",
            "the password is ***, hunter",
        );
        check(
            &["hunter2"],
            "hunter2hunter2 hunterhunter2",
            "****** hunter***",
        );
        check(&["żółw-żółw"], "a żółw-żółw ż", "a *** ż");
        check(&["abab"], "xababab.abab", "x***.***");
        check(&["aaaa"], "aaaaaaa-aaa-aaaa", "***-aaa-***");
        check(
            &["abcd", "bcdef"],
            "abcdef abcd bcdef abcde",
            "*** *** *** ***e",
        );
        check(
            &["short", "shorter"],
            "shorter short shorte",
            "*** *** ***e",
        );
        check(&[], "nothing to hide", "nothing to hide");
    }

    #[test]
    fn short_values_are_left_alone() {
        check(&["abc", ""], "abc", "abc");
        check(&["abcd"], "abcd", "***");
    }

    #[test]
    fn other_spellings_are_known() {
        check(&["a\"b\\c"], r#"{"key":"a\"b\\c"}"#, r#"{"key":"***"}"#);
        check(&["token-1\n"], "token-1 is the token", "*** is the token");
        let pem = "-----BEGIN-----\nMIIEvQIBADAN\nBgk=\n-----END-----\n";
        check(
            &[pem],
            "  2\tMIIEvQIBADAN\n  3\tBgk=",
            "  2\t***\n  3\tBgk=",
        );
        check(&[pem], pem, "***");
    }

    #[test]
    fn only_what_may_be_a_secret_is_held_back() {
        let mask = Arc::new(Mask::new(["secret"]));
        let mut stream = mask.stream();
        assert_eq!(stream.push_text("a se"), "a ");
        assert_eq!(stream.push_text("a"), "sea");
        assert_eq!(stream.push_text(" secret"), " ***");
        assert_eq!(stream.finish_text(), "");
    }

    #[test]
    fn a_mask_does_not_show_itself() {
        assert_eq!(format!("{:?}", Mask::new(["hunter2"])), "Mask(***)");
    }
}
