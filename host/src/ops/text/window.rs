//! Lines picked out of pieces of a file.

use std::borrow::Cow;

use stigmer_sdk::Metadata;

use super::{Content, TextWindow};

/// Takes a file piece by piece and keeps the lines that are asked for.
#[derive(Debug)]
pub(super) struct Window {
    offset: u64,
    limit: u64,
    max_bytes: usize,
    /// Lines whose end was seen.
    ended: u64,
    /// The line after those has begun.
    begun: bool,
    /// The last byte was `\r`, so that a `\n` now ends no other line.
    after_cr: bool,
    /// What is kept of a line that has begun: a little more than fits.
    line: Vec<u8>,
    text: String,
    /// Lines that are shown whole, or count as if.
    shown: u64,
    cut: bool,
    lossy: bool,
}

impl Window {
    pub(super) fn new(offset: u64, limit: u64, max_bytes: u64) -> Self {
        Self {
            offset,
            limit,
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            ended: 0,
            begun: false,
            after_cr: false,
            line: Vec::new(),
            text: String::new(),
            shown: 0,
            cut: false,
            lossy: false,
        }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        if self.after_cr && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
            self.after_cr = false;
        }
        while !bytes.is_empty() {
            self.after_cr = false;
            let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.add(bytes);
                return;
            };
            let crlf = bytes[at..].starts_with(b"\r\n");
            self.after_cr = bytes[at] == b'\r' && !crlf;
            self.add(&bytes[..at]);
            self.end_line();
            bytes = &bytes[at + 1 + usize::from(crlf)..];
            // Only at the end of a piece does the other half matter.
            self.after_cr &= bytes.is_empty();
        }
    }

    /// Says that nothing more comes.
    pub(super) fn end(&mut self) {
        if self.begun {
            self.end_line();
        }
    }

    /// Lines whose end was seen.
    pub(super) fn lines(&self) -> u64 {
        self.ended
    }

    /// Whether nothing that may come changes the window, not even that there is more.
    pub(super) fn is_full(&self) -> bool {
        self.is_complete() && self.has_more()
    }

    pub(super) fn finish(self, metadata: Metadata, end_was_seen: bool) -> TextWindow {
        let end_line = self.offset + self.shown;
        TextWindow {
            next_offset: self.has_more().then_some(end_line),
            content: Content::Text(self.text),
            metadata,
            start_line: self.offset + 1,
            end_line,
            total_lines: end_was_seen.then_some(self.ended),
            cut: self.cut,
            lossy: self.lossy,
        }
    }

    /// Whether no line is added any more.
    fn is_complete(&self) -> bool {
        self.cut || self.shown == self.limit
    }

    /// Whether a line was seen after those that are shown.
    fn has_more(&self) -> bool {
        self.ended + u64::from(self.begun) > self.offset.saturating_add(self.shown)
    }

    /// Adds to the current line, which thereby has begun.
    fn add(&mut self, bytes: &[u8]) {
        self.begun = true;
        if self.ended < self.offset || self.is_complete() {
            return;
        }
        // Four bytes more than fit show that it does not, and complete any
        // character that does.
        let keep = self
            .room()
            .saturating_add(4)
            .saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(keep)]);
        // A line that does not fit is cut without waiting for its end, but the
        // first counts, so that whether there is another is still to be seen.
        if self.line.len() > self.room() && self.shown > 0 {
            self.show();
        }
    }

    fn end_line(&mut self) {
        if self.ended >= self.offset && !self.is_complete() {
            self.show();
        }
        self.ended += 1;
        self.begun = false;
    }

    /// Bytes of the current line that still fit, after the newline before it.
    fn room(&self) -> usize {
        let separator = usize::from(self.shown > 0);
        self.max_bytes.saturating_sub(self.text.len() + separator)
    }

    /// Takes the current line into the text, as far as it fits.
    fn show(&mut self) {
        let line = std::mem::take(&mut self.line);
        let decoded = String::from_utf8_lossy(&line);
        let first_invalid = match &decoded {
            Cow::Borrowed(_) => usize::MAX,
            Cow::Owned(_) => {
                std::str::from_utf8(&line).map_or_else(|error| error.valid_up_to(), |_| usize::MAX)
            }
        };
        let no_room_for_newline = self.shown > 0 && self.text.len() >= self.max_bytes;
        let fits = decoded.len() <= self.room() && !no_room_for_newline;
        let part = &decoded[..decoded.floor_char_boundary(self.room())];
        if self.shown > 0 && (fits || !part.is_empty()) {
            self.text.push('\n');
        }
        self.text.push_str(part);
        self.lossy |= first_invalid < part.len();
        self.cut = !fits;
        if fits || self.shown == 0 {
            self.shown += 1;
        }
    }
}
