//! Everything the command line prints: data on stdout, the rest on stderr.
//!
//! Data is what was asked for and never decorated. Notes and failures are for
//! people. What comes out of a sandbox may hold escape sequences, so text that
//! goes to a terminal is made harmless first; raw bytes (`exec`, `cat`) are not
//! touched.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;

use super::failure::{Failure, Result};

/// Where a run prints, and how.
#[derive(Clone, Debug)]
pub(super) struct Output {
    quiet: bool,
    no_colour: bool,
    colour: bool,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
}

impl Output {
    /// `no_colour` is what `NO_COLOR` says.
    pub(super) fn new(quiet: bool, no_colour: bool) -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        Self {
            quiet,
            no_colour,
            colour: stderr_is_terminal && !no_colour,
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal,
        }
    }

    /// Whether something that moves may be drawn on stderr.
    pub(super) fn shows_progress(&self) -> bool {
        self.stderr_is_terminal && !self.quiet
    }

    /// Whether only data and errors are printed.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether what goes to stderr may be coloured.
    pub(super) fn colours(&self) -> bool {
        self.colour
    }

    /// Whether stdout is a terminal, which obeys what it is given.
    pub(super) fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// Whether stderr is a terminal.
    pub(super) fn stderr_is_terminal(&self) -> bool {
        self.stderr_is_terminal
    }

    /// Whether data may be shown in colour.
    pub(super) fn colours_stdout(&self) -> bool {
        self.stdout_is_terminal && !self.no_colour
    }

    /// Text as stdout may show it: as it is, unless a terminal would obey it.
    pub(super) fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.stdout_is_terminal {
            harmless(text)
        } else {
            Cow::Borrowed(text)
        }
    }

    /// Prints one line of data.
    pub(super) fn line(&self, line: impl AsRef<str>) -> Result<()> {
        self.bytes(format!("{}\n", line.as_ref()).as_bytes())
    }

    /// Prints lines that may hold what somebody else made up.
    pub(super) fn text(&self, text: impl AsRef<str>) -> Result<()> {
        let lines: Vec<_> = text
            .as_ref()
            .split('\n')
            .map(|line| self.shown(line))
            .collect();
        self.line(lines.join("\n"))
    }

    /// Prints a value as indented JSON, for a command with one answer.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::failed("cannot write JSON").because(&error))?;
        self.line(text)
    }

    /// Prints bytes of data as they are.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::writing("stdout", &error))
    }

    /// Tells, on stdout, what a command does that has no other data.
    pub(super) fn say(&self, line: impl AsRef<str>) -> Result<()> {
        if self.quiet { Ok(()) } else { self.text(line) }
    }

    /// Tells a person something that is not data.
    pub(super) fn note(&self, note: impl AsRef<str>) {
        if !self.quiet {
            self.complain("", "", note.as_ref());
        }
    }

    /// Tells a person about something that is not as they may think.
    pub(super) fn warn(&self, warning: impl AsRef<str>) {
        self.complain("warning: ", "\x1b[1;33m", warning.as_ref());
    }

    /// Reports a failure: each problem, the chain of causes, and what to do.
    pub(super) fn failure(&self, failure: &Failure) {
        for problem in &failure.problems {
            self.complain("error: ", "\x1b[1;31m", problem);
        }
        for cause in &failure.causes {
            self.complain("  caused by: ", "", cause);
        }
        for hint in &failure.hints {
            self.complain("hint: ", "\x1b[1;36m", hint);
        }
    }

    fn complain(&self, label: &str, colour: &str, text: &str) {
        // A stderr that is closed leaves nobody to tell: `eprintln!` would panic.
        let text = text
            .split('\n')
            .map(harmless)
            .collect::<Vec<_>>()
            .join("\n");
        let line = if self.colour && !colour.is_empty() {
            format!("{colour}{label}\x1b[0m{text}\n")
        } else {
            format!("{label}{text}\n")
        };
        let _unwritable = io::stderr().lock().write_all(line.as_bytes());
    }
}

/// Shows characters that a terminal obeys instead of sending them: controls,
/// and those that turn the direction of text, by which a command can look like
/// another one.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| {
        c.is_control() && c != '\t'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.chars().any(obeyed) {
        let mut out = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            if obeyed(c) {
                out.extend(c.escape_debug());
            } else {
                out.push(c);
            }
        }
        Cow::Owned(out)
    } else {
        Cow::Borrowed(text)
    }
}

/// A standard stream for bytes that are passed on as they come: without
/// buffer and without the standard library's lock, which an own write that
/// waits for a slow reader would keep from everybody else.
#[derive(Clone, Debug)]
pub(super) struct RawStream {
    name: &'static str,
    file: Arc<File>,
}

impl RawStream {
    pub(super) fn stdout() -> Result<Self> {
        Self::open("stdout", rustix::stdio::stdout())
    }

    pub(super) fn stderr() -> Result<Self> {
        Self::open("stderr", rustix::stdio::stderr())
    }

    fn open(name: &'static str, fd: BorrowedFd<'_>) -> Result<Self> {
        let fd = fd
            .try_clone_to_owned()
            .map_err(|error| Failure::failed(format!("cannot open {name}")).because(&error))?;
        Ok(Self {
            name,
            file: Arc::new(File::from(fd)),
        })
    }

    #[cfg(test)]
    pub(super) fn of(name: &'static str, fd: std::os::fd::OwnedFd) -> Self {
        Self {
            name,
            file: Arc::new(File::from(fd)),
        }
    }

    /// Writes all of it, and blocks as long as that takes.
    pub(super) fn write(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match (&*self.file).write(bytes) {
                Ok(0) => {
                    return Err(Failure::writing(
                        self.name,
                        &io::ErrorKind::WriteZero.into(),
                    ));
                }
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whoever shares the stream may have made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(&*self.file, PollFlags::OUT)];
                    poll(&mut ready, None)
                        .map_err(|error| Failure::writing(self.name, &error.into()))?;
                }
                Err(error) => return Err(Failure::writing(self.name, &error)),
            }
        }
        Ok(())
    }
}

/// Rows under headers, aligned, without a rule. The last column is not padded.
pub(super) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headers
        .iter()
        .map(|header| header.chars().count())
        .collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headers: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
    let mut out = String::new();
    for row in std::iter::once(&headers).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let padding = width - cell.chars().count() + 2;
            line.extend(std::iter::repeat_n(' ', padding));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.pop();
    out
}

/// `1 file`, `2 files`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = match noun {
        "directory" => "directories",
        "sandbox" => "sandboxes",
        _ => return format!("{number} {noun}{}", if number == 1 { "" } else { "s" }),
    };
    format!("{number} {}", if number == 1 { noun } else { plural })
}

/// A number of bytes for people: `512 B`, `1.5 MiB`.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = number as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{number} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// How long ago something was, in its largest unit.
pub(super) fn ago(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    for (unit, length) in [("d", 86_400), ("h", 3600), ("m", 60)] {
        if seconds >= length {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A point in time for people.
pub(super) fn time(ms: u64) -> String {
    // Past this year the formatter gives up; nothing real is.
    let time = UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000));
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_the_last_is_not_padded() {
        let rows = vec![
            vec!["a".to_owned(), "ready".to_owned()],
            vec!["żółw".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            table(&["NAME", "STATE"], &rows),
            "NAME  STATE\na     ready\nżółw  x"
        );
        assert_eq!(table(&["NAME"], &[]), "NAME");
    }

    #[test]
    fn a_terminal_is_not_given_orders() {
        assert_eq!(harmless("a\x1b[2Jb\rc\td"), "a\\u{1b}[2Jb\\rc\td");
        assert_eq!(harmless("ab\u{202e}cd"), "ab\\u{202e}cd");
        assert!(matches!(harmless("plain żółw"), Cow::Borrowed(_)));
    }

    #[test]
    fn sizes_and_ages_are_short() {
        #[track_caller]
        fn check(actual: String, expected: &str) {
            assert_eq!(actual, expected);
        }
        check(bytes(0), "0 B");
        check(bytes(1023), "1023 B");
        check(bytes(1536), "1.5 KiB");
        check(bytes(u64::MAX), "16.0 EiB");
        check(ago(1_000, 1_500), "0s");
        check(ago(0, 119_000), "1m");
        check(ago(0, 7_200_000), "2h");
        check(ago(0, 90_000_000), "1d");
        check(ago(10, 0), "0s");
        check(count(1, "file"), "1 file");
        check(count(0, "directory"), "0 directories");
    }
}
