//! Lines in a file, and those before them in older files.
//!
//! `daemon.log` is the one that is written to, `daemon.log.1` the one before
//! it, up to `.5`. A file gives way to the next when it would become too large
//! or its first line is too old, and an old one is removed when its last line
//! is. A line is never in two files.
//!
//! Whoever logs never fails and never waits for room: on a full disk lines are
//! lost, which is counted, and said in the file when there is room again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use stigmer_sdk::{Error, Result};

/// When a file gives way to the next, and when it goes.
#[derive(Clone, Copy, Debug)]
struct Rotation {
    /// Of one file.
    bytes: u64,
    /// Files beside the one that is written to.
    kept: u32,
    /// Of a line.
    age: Duration,
}

/// What the design says: 60 MiB of log at most, and nothing older than two weeks.
const ROTATION: Rotation = Rotation {
    bytes: 10 * 1024 * 1024,
    kept: 5,
    age: Duration::from_secs(7 * 24 * 60 * 60),
};

/// How often ages are looked at.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// A log that many may write to. What is written at once is one line.
#[derive(Clone, Debug)]
pub struct LogFile(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    /// What is in it.
    bytes: u64,
    /// When its first line was written, as far as that is known.
    began: SystemTime,
    /// When ages were last looked at.
    looked: SystemTime,
    /// At which size to try again what could not be rotated.
    patience: u64,
    /// Lines that could not be written, and why the last one could not.
    lost: Option<(u64, io::Error)>,
}

impl LogFile {
    /// Goes on with the file at `path`, or begins one; only this user can read
    /// it and its directory.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::with(path.into(), ROTATION)
    }

    fn with(path: PathBuf, rotation: Rotation) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::internal(format!("cannot open the log {}", path.display()), error)
        };
        if let Some(directory) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(failed)?;
        }
        let file = append(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .map_err(failed)?;
        let now = SystemTime::now();
        let mut state = State {
            bytes: metadata.len(),
            began: metadata.created().unwrap_or(now),
            looked: now,
            patience: 0,
            lost: None,
            path,
            rotation,
            file,
        };
        state.forget(now);
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    /// Writes a line; its end is added if it has none.
    pub(crate) fn line(&self, line: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if line.ends_with(b"\n") {
            state.line(line, SystemTime::now());
        } else {
            state.line(&[line, b"\n"].concat(), SystemTime::now());
        }
    }
}

/// For the log's formatter, which writes an event at once.
impl Write for LogFile {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.line(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    fn line(&mut self, line: &[u8], now: SystemTime) {
        let length = line.len() as u64;
        // A clock that was set back makes nothing old.
        let since = |then| now.duration_since(then).unwrap_or_default();
        let too_large =
            self.bytes > 0 && self.bytes + length > self.rotation.bytes.max(self.patience);
        let too_old = self.bytes > 0 && since(self.began) > self.rotation.age;
        if since(self.looked) > LOOK {
            self.forget(now);
        }
        if too_large || (too_old && self.patience == 0) {
            self.rotate(now);
        }
        if let Some((lost, why)) = self.lost.take() {
            let message = match lost {
                0 => why.to_string(),
                lost => format!("{lost} lines could not be written here: {why}"),
            };
            let note = format!(
                "{{\"timestamp\":\"{}\",\"level\":\"WARN\",\"target\":\"{}\",\"message\":{}}}\n",
                timestamp(now),
                module_path!(),
                serde_json::Value::from(message),
            );
            if let Err(error) = self.append(note.as_bytes()) {
                self.lost = Some((lost + 1, error));
                return;
            }
        }
        if let Err(error) = self.append(line) {
            self.lost = Some((1, error));
        }
    }

    /// Adds a line, or nothing of it.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        match self.file.write_all(line) {
            Ok(()) => {
                self.bytes += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What of it found room. If it cannot be taken back, a reader sees half a line.
                drop(self.file.set_len(self.bytes));
                Err(error)
            }
        }
    }

    /// Begins the next file. If that fails, this one goes on, and it is tried
    /// again when as much was written once more.
    fn rotate(&mut self, now: SystemTime) {
        match self.next() {
            Ok(file) => {
                self.file = file;
                self.bytes = 0;
                self.began = now;
                self.patience = 0;
                self.forget(now);
            }
            Err(error) => {
                self.patience = self.bytes + self.rotation.bytes;
                let lost = self.lost.as_ref().map_or(0, |(lost, _)| *lost);
                // Nothing was lost by it, but somebody should know.
                self.lost = Some((
                    lost,
                    io::Error::new(error.kind(), format!("cannot begin the next file: {error}")),
                ));
            }
        }
    }

    /// An empty file in place of this one, which becomes the first of the old.
    fn next(&self) -> io::Result<File> {
        // First what can fail: then this file stays as it is.
        let draft = numbered(&self.path, "new");
        let file = append(&draft)?;
        file.set_len(0)?;
        for number in (1..self.rotation.kept).rev() {
            let from = numbered(&self.path, number);
            match std::fs::rename(&from, numbered(&self.path, number + 1)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        std::fs::rename(&self.path, numbered(&self.path, 1)).or_else(|error| {
            // Somebody removed it: there is nothing to keep.
            if error.kind() == io::ErrorKind::NotFound {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        std::fs::rename(&draft, &self.path)?;
        Ok(file)
    }

    /// Removes old files whose last line is too old.
    fn forget(&mut self, now: SystemTime) {
        self.looked = now;
        for number in 1..=self.rotation.kept {
            let path = numbered(&self.path, number);
            let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
            let age = written.map(|then| now.duration_since(then).unwrap_or_default());
            if age.is_ok_and(|age| age > self.rotation.age) {
                // If it cannot be removed now, it is tried again.
                drop(std::fs::remove_file(&path));
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn numbered(path: &Path, number: impl std::fmt::Display) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// As in every line of a log.
pub(crate) fn timestamp(now: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_micros(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Rotation = Rotation {
        bytes: 100,
        kept: 3,
        age: ROTATION.age,
    };

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_file_gives_way_before_it_is_too_large_and_no_line_is_split() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/x.log");
        let log = LogFile::with(path.clone(), SMALL).unwrap();
        for number in 0..100 {
            log.line(format!("line {number:03}").as_bytes());
        }
        let mut names: Vec<_> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["x.log", "x.log.1", "x.log.2", "x.log.3"]);
        let all = [
            numbered(&path, 3),
            numbered(&path, 2),
            numbered(&path, 1),
            path.clone(),
        ];
        let lines = all.iter().map(|path| text(path)).collect::<String>();
        let expected: String = (100 - lines.lines().count()..100)
            .map(|number| format!("line {number:03}\n"))
            .collect();
        assert_eq!(lines, expected);
        for path in &all {
            let metadata = std::fs::metadata(path).unwrap();
            assert!(metadata.len() <= SMALL.bytes);
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
        let directory = std::fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(directory.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_line_longer_than_a_file_has_one_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let log = LogFile::with(path.clone(), SMALL).unwrap();
        let long = "x".repeat(1000);
        for line in ["before", &long, "after"] {
            log.line(line.as_bytes());
        }
        assert_eq!(text(&numbered(&path, 2)), "before\n");
        assert_eq!(text(&numbered(&path, 1)), format!("{long}\n"));
        assert_eq!(text(&path), "after\n");
    }

    #[test]
    fn a_log_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        LogFile::with(path.clone(), SMALL).unwrap().line(b"one");
        LogFile::with(path.clone(), SMALL).unwrap().line(b"two");
        assert_eq!(text(&path), "one\ntwo\n");
    }

    #[test]
    fn old_lines_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let log = LogFile::with(path.clone(), SMALL).unwrap();
        let mut state = log.0.lock().unwrap();
        let start = SystemTime::now();
        state.line(b"first\n", start);
        let later = start + SMALL.age + LOOK * 2;
        state.line(b"second\n", later);
        assert_eq!(text(&path), "second\n");
        // Its last line is as old as its file says, which is the real time.
        assert!(!numbered(&path, 1).exists());
        state.line(b"third\n", later);
        assert_eq!(text(&path), "second\nthird\n");
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let log = LogFile::with(path.clone(), SMALL).unwrap();
        let mut state = log.0.lock().unwrap();
        state.line(b"first\n", SystemTime::now());
        state.line(b"second\n", SystemTime::UNIX_EPOCH);
        assert_eq!(text(&path), "first\nsecond\n");
    }

    #[test]
    fn what_a_full_disk_lost_is_said_when_there_is_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let log = LogFile::with(path.clone(), SMALL).unwrap();
        let mut state = log.0.lock().unwrap();
        let now = SystemTime::now();
        state.line(b"before\n", now);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let real = std::mem::replace(&mut state.file, full);
        state.line(b"lost\n", now);
        state.line(b"lost\n", now);
        state.file = real;
        state.line(b"after\n", now);
        let text = text(&path);
        let lines: Vec<_> = text.lines().collect();
        let [before, note, after] = lines[..] else {
            panic!("{text}")
        };
        assert_eq!((before, after), ("before", "after"));
        let note: serde_json::Value = serde_json::from_str(note).unwrap();
        let message = note["message"].as_str().unwrap();
        assert!(
            message.starts_with("2 lines could not be written here: No space left on device"),
            "{message}"
        );
    }

    #[test]
    fn a_file_that_cannot_give_way_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let rotation = Rotation {
            bytes: 1000,
            ..SMALL
        };
        let log = LogFile::with(path.clone(), rotation).unwrap();
        // In the way of the next file, and no file itself.
        std::fs::create_dir(numbered(&path, "new")).unwrap();
        for number in 0..120 {
            log.line(format!("line {number:03}").as_bytes());
        }
        let kept = text(&path);
        assert!(
            kept.contains("line 000") && kept.contains("line 119"),
            "{kept}"
        );
        assert_eq!(
            kept.matches("cannot begin the next file").count(),
            1,
            "{kept}"
        );
    }
}
