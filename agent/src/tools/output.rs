//! What is shown of a command's output: live, and to the model.

use bytes::Bytes;

use super::Live;
use crate::mask;

/// What is passed on live of one call.
const LIVE_BYTES: usize = 64 * 1024;
/// What the model sees of the beginning, and as much of the end.
const HALF_BYTES: usize = 15_000;

/// What is kept of a command's output, both streams in the order they came.
pub(super) struct Output {
    /// Of stdout and of stderr.
    masks: [mask::Stream; 2],
    head: Vec<u8>,
    /// The latest bytes past `head`: up to twice what is shown, so that it is
    /// seldom moved.
    tail: Vec<u8>,
    total: u64,
    lines: u64,
    live: usize,
}

impl Output {
    pub(super) fn new(stdout: mask::Stream, stderr: mask::Stream) -> Self {
        Self {
            masks: [stdout, stderr],
            head: Vec::new(),
            tail: Vec::new(),
            total: 0,
            lines: 0,
            live: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], stderr: bool, live: Live<'_>) {
        let shown = self.masks[usize::from(stderr)].push(bytes);
        self.add(shown, stderr, live);
    }

    pub(super) fn finish(&mut self, live: Live<'_>) {
        for stderr in [false, true] {
            let shown = self.masks[usize::from(stderr)].finish();
            self.add(shown, stderr, live);
        }
    }

    fn add(&mut self, shown: Vec<u8>, stderr: bool, live: Live<'_>) {
        if shown.is_empty() {
            return;
        }
        self.total += shown.len() as u64;
        let newlines = shown.iter().filter(|&&byte| byte == b'\n').count();
        self.lines += newlines as u64;
        let room = shown.len().min(HALF_BYTES - self.head.len());
        self.head.extend_from_slice(&shown[..room]);
        self.tail.extend_from_slice(&shown[room..]);
        if self.tail.len() > 2 * HALF_BYTES {
            self.tail.drain(..self.tail.len() - HALF_BYTES);
        }
        let room = shown.len().min(LIVE_BYTES - self.live);
        if room > 0 {
            self.live += room;
            live(Bytes::from(shown).slice(..room), stderr);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn shown_tail(&self) -> &[u8] {
        &self.tail[self.tail.len().saturating_sub(HALF_BYTES)..]
    }

    /// Bytes between head and tail.
    pub(super) fn omitted(&self) -> u64 {
        self.total - (self.head.len() + self.shown_tail().len()) as u64
    }

    /// What the model reads, up to where the exit code goes.
    pub(super) fn text(&self, whole: Option<&str>) -> String {
        let tail = self.shown_tail();
        let omitted = self.omitted();
        let mut text = if omitted == 0 {
            String::from_utf8_lossy(&[&self.head, tail].concat()).into_owned()
        } else {
            let place = whole.unwrap_or("it was not kept");
            format!(
                "{}\n\n[{omitted} bytes left out of {} bytes, {} lines; {place}]\n\n{}",
                cut_end(&self.head),
                self.total,
                self.lines,
                cut_start(tail)
            )
        };
        if text.is_empty() {
            text.push_str("[no output]");
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

/// Text whose end was cut, without the part of a character that is left of it.
fn cut_end(bytes: &[u8]) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Ok(_) | Err(_) => bytes.len(),
    };
    String::from_utf8_lossy(&bytes[..whole]).into_owned()
}

/// The same for text whose beginning was cut.
fn cut_start(bytes: &[u8]) -> String {
    let continues = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    let rest = bytes.iter().take(3).take_while(continues).count();
    String::from_utf8_lossy(&bytes[rest..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Mask;
    use std::sync::{Arc, Mutex};

    fn output(secrets: &[&str]) -> Output {
        let mask = Arc::new(Mask::new(secrets.iter().copied()));
        Output::new(mask.stream(), mask.stream())
    }

    #[test]
    fn short_output_is_whole() {
        let mut output = output(&["hunter2"]);
        let seen = Mutex::new(Vec::new());
        let live = |bytes: Bytes, stderr| seen.lock().unwrap().push((bytes, stderr));
        output.push(b"the key is hun", false, &live);
        output.push(b"oops\n", true, &live);
        output.push(b"ter2", false, &live);
        output.finish(&live);
        assert_eq!(output.text(None), "the key is oops\n***\n");
        let seen = seen.into_inner().unwrap();
        let texts: Vec<_> = seen
            .iter()
            .map(|(bytes, stderr)| (&bytes[..], *stderr))
            .collect();
        assert_eq!(
            texts,
            [
                (&b"the key is "[..], false),
                (b"oops\n", true),
                (b"***", false)
            ]
        );
    }

    #[test]
    fn long_output_keeps_both_ends_and_live_stops() {
        let mut output = output(&[]);
        let live = Mutex::new(0);
        let count = |bytes: Bytes, _| *live.lock().unwrap() += bytes.len();
        for line in 0..100_000 {
            output.push(format!("line {line}\n").as_bytes(), false, &count);
        }
        output.finish(&count);
        let text = output.text(Some("all of it is in .stigmer/output/1.txt"));
        assert!(text.starts_with("line 0\nline 1\n") && text.ends_with("line 99999\n"));
        assert!(text.len() < 2 * HALF_BYTES + 200, "{}", text.len());
        assert!(text.contains("100000 lines; all of it is in .stigmer/output/1.txt]"));
        assert_eq!(*live.lock().unwrap(), LIVE_BYTES);
        assert!(output.tail.len() <= 2 * HALF_BYTES);
    }

    #[test]
    fn a_cut_does_not_tear_characters() {
        for offset in 0..4 {
            let mut output = output(&[]);
            let text = format!("{}{}", "x".repeat(offset), "🦀".repeat(20_000));
            output.push(text.as_bytes(), false, &|_, _| {});
            assert!(!output.text(None).contains('\u{fffd}'), "offset {offset}");
        }
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(output(&[]).text(None), "[no output]\n");
    }
}
