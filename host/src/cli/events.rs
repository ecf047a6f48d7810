//! The events of a command as JSON, one a line.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::json;
use stigmer_sdk::{Event, ExitStatus};

/// What `--help` says of the format.
pub(super) const FORMAT: &str = "\
With --json, every event is one line on stdout:
  {\"type\":\"stdout\",\"data\":\"text\"}        also \"stderr\"
  {\"type\":\"stdout\",\"base64\":\"/wA=\"}      instead of data, if it is not UTF-8
  {\"type\":\"exit\",\"exit_code\":0,\"status\":\"exited\"}
status is exited, signalled (with \"signal\"), timed_out or limit (with \"limit\").";

/// Turns events into lines. A character that came in two pieces is put
/// together, so that text stays text wherever it was cut.
#[derive(Debug, Default)]
pub(super) struct JsonEvents {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl JsonEvents {
    /// The lines for an event; none if all of it waits for the next.
    pub(super) fn lines(&mut self, event: &Event) -> Bytes {
        let mut lines = String::new();
        match event {
            Event::Stdout(bytes) => line(&mut lines, "stdout", &mut self.stdout, bytes),
            Event::Stderr(bytes) => line(&mut lines, "stderr", &mut self.stderr, bytes),
            Event::Exit(status) => {
                rest(&mut lines, "stdout", &mut self.stdout);
                rest(&mut lines, "stderr", &mut self.stderr);
                push(&mut lines, exit(status));
            }
        }
        lines.into()
    }
}

fn line(lines: &mut String, name: &str, carried: &mut Vec<u8>, bytes: &[u8]) {
    carried.extend_from_slice(bytes);
    match std::str::from_utf8(carried) {
        Ok(_) => rest(lines, name, carried),
        // The end may be the beginning of a character.
        Err(error) if error.error_len().is_none() => {
            let cut = carried.split_off(error.valid_up_to());
            rest(lines, name, carried);
            *carried = cut;
        }
        Err(_) => rest(lines, name, carried),
    }
}

fn rest(lines: &mut String, name: &str, carried: &mut Vec<u8>) {
    if carried.is_empty() {
        return;
    }
    let event = match std::str::from_utf8(carried) {
        Ok(text) => json!({ "type": name, "data": text }),
        Err(_) => json!({ "type": name, "base64": base64(carried) }),
    };
    push(lines, event);
    carried.clear();
}

fn exit(status: &ExitStatus) -> serde_json::Value {
    let code = status.exit_code();
    match status {
        ExitStatus::Code(_) => json!({ "type": "exit", "exit_code": code, "status": "exited" }),
        ExitStatus::Signal(signal) => {
            json!({ "type": "exit", "exit_code": code, "status": "signalled", "signal": signal })
        }
        ExitStatus::TimedOut => json!({ "type": "exit", "exit_code": code, "status": "timed_out" }),
        ExitStatus::Limit(limit) => {
            json!({ "type": "exit", "exit_code": code, "status": "limit", "limit": limit })
        }
    }
}

fn push(lines: &mut String, value: serde_json::Value) {
    writeln!(lines, "{value}").expect("a string takes everything");
}

/// Base64 with padding (RFC 4648), for the bytes that JSON cannot hold.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group
            .iter()
            .fold(0, |word, &byte| word << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() {
                char::from(DIGITS[index as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        #[track_caller]
        fn check(bytes: &[u8], text: &str) {
            assert_eq!(base64(bytes), text);
        }
        check(b"", "");
        check(b"f", "Zg==");
        check(b"fo", "Zm8=");
        check(b"foo", "Zm9v");
        check(b"foob", "Zm9vYg==");
        check(b"\xff\x00", "/wA=");
    }

    fn lines(events: &[Event]) -> String {
        let mut json = JsonEvents::default();
        events
            .iter()
            .map(|event| String::from_utf8(json.lines(event).to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn a_character_in_two_pieces_is_put_together() {
        let crab = "🦀".as_bytes();
        let events = [
            Event::Stdout(Bytes::from([b"a", &crab[..2]].concat())),
            Event::Stderr(Bytes::from_static(b"\xff")),
            Event::Stdout(Bytes::copy_from_slice(&crab[2..])),
        ];
        assert_eq!(
            lines(&events),
            "{\"data\":\"a\",\"type\":\"stdout\"}\n{\"base64\":\"/w==\",\"type\":\"stderr\"}\n{\"data\":\"🦀\",\"type\":\"stdout\"}\n"
        );
    }

    #[test]
    fn what_is_left_comes_before_the_exit() {
        let events = [
            Event::Stdout(Bytes::from_static(b"\xf0\x9f")),
            Event::Exit(ExitStatus::TimedOut),
        ];
        assert_eq!(
            lines(&events),
            "{\"base64\":\"8J8=\",\"type\":\"stdout\"}\n{\"exit_code\":124,\"status\":\"timed_out\",\"type\":\"exit\"}\n"
        );
    }
}
