//! Server-sent events, out of bytes that come in pieces.
//!
//! Lines end in CR, LF or CRLF, and a piece may end anywhere, within a CRLF or
//! a character too. What is kept is the line and the event that are not whole
//! yet, both within one bound.

use std::collections::VecDeque;

/// What one event may hold: far more than any provider sends, and a bound all
/// the same on what a server can make this process keep.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// An event that came whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Empty if it has none.
    pub(super) name: String,
    /// Its lines, joined by LF.
    pub(super) data: String,
}

/// An event is larger than the bound.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Turns bytes into events.
#[derive(Debug)]
pub(super) struct Parser {
    line: Vec<u8>,
    name: String,
    data: Vec<u8>,
    /// Whether a `data` field was there: an event without one is none.
    has_data: bool,
    /// Whether the last byte was a CR, of which an LF may be the other half.
    after_cr: bool,
    /// Whether the first line is still to come, which may begin with a mark.
    at_start: bool,
    events: VecDeque<Event>,
    max_event_bytes: usize,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self {
            line: Vec::new(),
            name: String::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
            events: VecDeque::new(),
            max_event_bytes: MAX_EVENT_BYTES,
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let length = end.unwrap_or(bytes.len());
            if self.line.len() + self.data.len() + length > self.max_event_bytes {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(&bytes[..length]);
            let Some(end) = end else {
                break;
            };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line();
        }
        Ok(())
    }

    /// The next event, if one is whole. What the bytes end in without an empty
    /// line after it is none.
    pub(super) fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.end_event();
            return;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            // A comment, which has no name, or a field that is of no use here.
            _ => {}
        }
    }

    fn end_event(&mut self) {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            self.events.push_back(Event {
                name,
                data: String::from_utf8(data)
                    .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, String)> {
        let mut parser = Parser::new();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece).expect("small");
            events.extend(std::iter::from_fn(|| parser.next()));
        }
        events.into_iter().map(|e| (e.name, e.data)).collect()
    }

    /// Whole, byte by byte, and split in two at every byte.
    #[track_caller]
    fn check(input: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, data)| ((*name).to_owned(), (*data).to_owned()))
            .collect();
        let input = input.as_bytes();
        assert_eq!(events([input]), expected);
        assert_eq!(events(input.chunks(1)), expected, "byte by byte");
        for at in 0..=input.len() {
            let (head, tail) = input.split_at(at);
            assert_eq!(events([head, tail]), expected, "split at {at}");
        }
    }

    #[test]
    fn lines_fields_and_ends() {
        check("data: a\n\n", &[("", "a")]);
        check(
            "event: ping\r\ndata: {\"x\":1}\r\n\r\nevent:b\rdata:2\r\r",
            &[("ping", "{\"x\":1}"), ("b", "2")],
        );
        check(
            "\u{feff}data: a\n\ndata:  b \n\n",
            &[("", "a"), ("", " b ")],
        );
        check(
            ": comment\n:\n\ndata: a\n: in between\ndata: b\n\n",
            &[("", "a\nb")],
        );
        check("data\n\ndata:\ndata:\n\n", &[("", ""), ("", "\n")]);
        check(
            "id: 7\nretry: 10\nevent: lost\n\ndata: kept\n\n",
            &[("", "kept")],
        );
        check("data: zażółć 🦀\n\n", &[("", "zażółć 🦀")]);
        check("data: \u{feff}a\n\n", &[("", "\u{feff}a")]);
        check("datum: a\nda ta: b\ndata : c\n\n", &[]);
    }

    #[test]
    fn what_is_not_whole_is_not_told() {
        check("data: a\n\ndata: b\n", &[("", "a")]);
        check("data: a", &[]);
        check("", &[]);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_end_it() {
        assert_eq!(
            events([&b"data: \xff\n\n"[..]]),
            [(String::new(), "\u{fffd}".to_owned())]
        );
    }

    #[test]
    fn an_event_has_a_bound() {
        let check = |pieces: &[&str], fits: bool| {
            let mut parser = Parser::new();
            parser.max_event_bytes = 32;
            let fitted = pieces
                .iter()
                .all(|piece| parser.push(piece.as_bytes()).is_ok());
            assert_eq!(fitted, fits, "{pieces:?}");
        };
        let long = "x".repeat(33);
        check(&[&long], false);
        check(&[&long[..20], &long[..20]], false);
        check(
            &["data: 0123456789\ndata: 0123456789\n", "data: 0123456789\n"],
            false,
        );
        check(&["data: 0123456789\n\n"; 9], true);
    }
}
