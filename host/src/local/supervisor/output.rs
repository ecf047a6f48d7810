//! What a runner prints, line by line, on its way into its log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use crate::config::Secret;
use crate::logging::{LogFile, timestamp};

/// Of a line. A longer one goes on in the next entry.
const MAX_LINE: u64 = 64 * 1024;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Where the lines of one runner go.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    log: LogFile,
    secrets: Arc<Vec<Secret>>,
    /// What it said last on stderr, for whoever wants to know why it ended.
    last: Arc<Mutex<String>>,
}

impl Lines {
    pub(super) fn new(log: LogFile, secrets: Vec<Secret>) -> Self {
        Self {
            log,
            secrets: Arc::new(secrets),
            last: Arc::default(),
        }
    }

    /// The last thing that it said on stderr; empty if it said nothing.
    pub(super) fn last(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    /// Takes lines until nobody holds the other end any more.
    pub(super) async fn take(self, pipe: impl AsyncRead + Unpin, stream: Stream) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = (&mut pipe).take(MAX_LINE);
            match bounded.read_until(b'\n', &mut line).await {
                Ok(1..) => self.line(&line, stream),
                // A pipe that breaks has nothing more to say.
                Ok(0) | Err(_) => return,
            }
        }
    }

    fn line(&self, line: &[u8], stream: Stream) {
        let line = String::from_utf8_lossy(line);
        let line = masked(line.trim_end(), &self.secrets);
        if line.trim().is_empty() {
            return;
        }
        if stream == Stream::Stderr {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_about_the_one_before(&line) {
                last.clone_from(&said(&line));
            }
        }
        self.log.line(entry(&line, SystemTime::now()).as_bytes());
    }
}

/// The line without secrets. A runner may print what it likes, and one that
/// somebody else wrote may print its environment.
fn masked(line: &str, secrets: &[Secret]) -> String {
    /// Nothing that short is secret, and much else is as short.
    const SHORT: usize = 6;
    secrets
        .iter()
        .map(Secret::expose)
        .filter(|secret| secret.len() >= SHORT)
        .fold(line.to_owned(), |line, secret| line.replace(secret, "***"))
}

/// The line as the log has it: what is an entry already stays one.
fn entry(line: &str, now: SystemTime) -> String {
    match serde_json::from_str(line) {
        Ok(serde_json::Value::Object(_)) => line.to_owned(),
        _ => format!(
            "{{\"timestamp\":\"{}\",\"level\":\"INFO\",\"target\":\"agent-runner\",\"message\":{}}}",
            timestamp(now),
            serde_json::Value::from(line)
        ),
    }
}

/// What a line says, be it an entry of a log or not.
fn said(line: &str) -> String {
    /// A status is no place for more.
    const MOST: usize = 500;
    let entry: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let message = entry
        .as_ref()
        .and_then(|entry| entry.get("message")?.as_str());
    message.unwrap_or(line).chars().take(MOST).collect()
}

/// Whether this is how our own failures go on after their first line.
fn is_about_the_one_before(line: &str) -> bool {
    line.starts_with("hint: ") || line.starts_with("  caused by: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_pass_and_other_lines_become_entries() {
        let now = SystemTime::UNIX_EPOCH;
        let ours = r#"{"level":"WARN","message":"m"}"#;
        assert_eq!(entry(ours, now), ours);
        #[track_caller]
        fn check(line: &str) {
            let entry = entry(line, SystemTime::UNIX_EPOCH);
            assert!(!entry.contains('\n'));
            let entry: serde_json::Value = serde_json::from_str(&entry).unwrap();
            assert_eq!(entry["message"], line);
            assert_eq!(entry["timestamp"], "1970-01-01T00:00:00.000000Z");
            assert_eq!(
                (&entry["level"], &entry["target"]),
                (&"INFO".into(), &"agent-runner".into())
            );
        }
        check("🚀 Worker ready");
        check("a \"quoted\" \u{1b}[31mred\u{1b}[0m \\ line");
        check("[1]");
        check("12");
        check("{\"cut\":");
    }

    #[tokio::test]
    async fn lines_are_kept_masked_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let lines = Lines::new(
            LogFile::open(&path).unwrap(),
            vec![Secret::new("hunter2-key"), Secret::new("k")],
        );
        let long = "x".repeat(100_000);
        let printed = format!(
            "one\r\n\n\u{0}two hunter2-key k\n{long}\n{{\"message\":\"json\"}}\nerror: no model\nhint: ask\nand hunter2-key"
        );
        let stderr = [printed.as_bytes(), b"\xff"].concat();
        lines.clone().take(&stderr[..], Stream::Stderr).await;
        assert_eq!(lines.last(), "and ***\u{fffd}");
        lines.clone().take(&b"more\n"[..], Stream::Stdout).await;
        assert_eq!(lines.last(), "and ***\u{fffd}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        let messages: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect();
        let [one, two, x, xx, json, rest @ ..] = &messages[..] else {
            panic!("{messages:?}")
        };
        assert_eq!((one.as_str(), two.as_str()), ("one", "\u{0}two *** k"));
        assert_eq!(x.len() + xx.len(), long.len());
        assert_eq!(json, "json");
        assert_eq!(
            rest,
            ["error: no model", "hint: ask", "and ***\u{fffd}", "more"]
        );
    }

    #[tokio::test]
    async fn a_failure_of_ours_is_what_it_says_first() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Lines::new(LogFile::open(dir.path().join("x.log")).unwrap(), Vec::new());
        let failure = "error: no key\n  caused by: nothing\nhint: set one\n";
        lines.clone().take(failure.as_bytes(), Stream::Stderr).await;
        assert_eq!(lines.last(), "error: no key");
    }
}
