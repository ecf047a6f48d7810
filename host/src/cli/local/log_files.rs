//! A log that is rotated while it is read: `daemon.log`, before it
//! `daemon.log.1`, and so on up to the oldest, as one sequence of lines.
//!
//! A reader holds on to a file and not to a name. At the end of a file it looks
//! under which name that is now: under the first one, more may come; under
//! another, the one before that name is next. So it neither loses nor repeats a
//! line, however often the names move on.

use std::fs::{File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// How many older files there can be.
const OLDER: usize = 5;
/// How much of a line is held at once; what is longer comes in pieces.
const MAX_LINE: usize = 1024 * 1024;
/// How much is read at once when lines are counted from the end.
const BLOCK: u64 = 64 * 1024;
/// How often names may move on while they are being looked at.
const ATTEMPTS: usize = 10;

/// A place in a log.
#[derive(Debug)]
pub(super) struct LogFiles {
    path: PathBuf,
    /// `None` before there was any.
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    file: BufReader<File>,
    identity: (u64, u64),
    /// Where the next read begins.
    position: u64,
    /// A line that has not ended yet.
    partial: Vec<u8>,
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Current {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            identity: identity(&file.metadata()?),
            file: BufReader::new(file),
            position: 0,
            partial: Vec::new(),
        }))
    }

    fn seek(&mut self, position: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(position))?;
        self.position = position;
        self.partial.clear();
        Ok(())
    }

    /// The next line that is there as a whole.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let room = MAX_LINE.saturating_sub(self.partial.len());
        let mut limited = self.file.by_ref().take(room as u64);
        self.position += limited.read_until(b'\n', &mut self.partial)? as u64;
        if self.partial.last() == Some(&b'\n') {
            self.partial.pop();
        } else if self.partial.len() < MAX_LINE {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.partial)))
    }

    /// Whether somebody emptied it.
    fn has_shrunk(&self) -> io::Result<bool> {
        Ok(self.file.get_ref().metadata()?.len() < self.position)
    }
}

impl LogFiles {
    /// From the first line there still is.
    pub(super) fn from_start(path: PathBuf) -> Self {
        Self {
            path,
            current: None,
        }
    }

    /// From the last `count` lines, or all if there are less.
    pub(super) fn from_last(path: PathBuf, count: usize) -> io::Result<Self> {
        let mut this = Self::from_start(path);
        for _ in 0..ATTEMPTS {
            if this.go_back(count)? {
                return Ok(this);
            }
        }
        Ok(Self::from_start(this.path))
    }

    /// Goes to the last `count` lines. False if the names moved on meanwhile.
    fn go_back(&mut self, count: usize) -> io::Result<bool> {
        let mut left = count;
        self.current = None;
        for name in self.names() {
            let Some(mut file) = Current::open(&name)? else {
                continue;
            };
            let newer = self.current.as_ref().map(|newer| newer.identity);
            if newer == Some(file.identity) {
                return Ok(false);
            }
            let (position, found) = last_lines(file.file.get_ref(), left)?;
            file.seek(position)?;
            self.current = Some(file);
            left -= found;
            if left == 0 {
                break;
            }
        }
        Ok(true)
    }

    /// The names of its files, the newest first.
    fn names(&self) -> Vec<PathBuf> {
        let older = (1..=OLDER).map(|number| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        });
        std::iter::once(self.path.clone()).chain(older).collect()
    }

    /// The next line, without its end. `None` if there is none yet.
    pub(super) fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(current) = &mut self.current else {
                self.current = self.successor()?;
                if self.current.is_none() {
                    return Ok(None);
                }
                continue;
            };
            if let Some(line) = current.line()? {
                return Ok(Some(line));
            }
            if current.has_shrunk()? {
                current.seek(0)?;
                continue;
            }
            let Some(next) = self.successor()? else {
                return Ok(None);
            };
            let current = self.current.as_mut().expect("it was there a moment ago");
            // What was written between its last read and its new name.
            if let Some(line) = current.line()? {
                return Ok(Some(line));
            }
            let rest = std::mem::take(&mut current.partial);
            self.current = Some(next);
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
    }

    /// What is there of a line that has not ended.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        let partial = std::mem::take(&mut self.current.as_mut()?.partial);
        (!partial.is_empty()).then_some(partial)
    }

    /// The file after the present one, if there is one: the oldest, if this
    /// one has no name any more or there is none yet.
    fn successor(&self) -> io::Result<Option<Current>> {
        let names = self.names();
        for _ in 0..ATTEMPTS {
            let place = self.place(&names)?;
            let newer = &names[..place.unwrap_or(names.len())];
            let mut next = None;
            for name in newer.iter().rev() {
                next = Current::open(name)?;
                if next.is_some() {
                    break;
                }
            }
            // If the names moved on meanwhile, this may be the one after next.
            if self.place(&names)? == place {
                return Ok(next);
            }
        }
        Ok(None)
    }

    /// Which of the names the present file has.
    fn place(&self, names: &[PathBuf]) -> io::Result<Option<usize>> {
        let Some(current) = &self.current else {
            return Ok(None);
        };
        for (place, name) in names.iter().enumerate() {
            match std::fs::metadata(name) {
                Ok(metadata) if identity(&metadata) == current.identity => {
                    return Ok(Some(place));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Where the last `count` lines of a file begin, and how many those are.
fn last_lines(file: &File, count: usize) -> io::Result<(u64, usize)> {
    let length = file.metadata()?.len();
    if count == 0 || length == 0 {
        return Ok((length, 0));
    }
    let mut found = 0;
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.resize(usize::try_from(end - start).expect("at most a block"), 0);
        file.read_exact_at(&mut block, start)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let begins = start + at as u64 + 1;
            // The end of the last line begins no other.
            if begins < length {
                found += 1;
                if found == count {
                    return Ok((begins, found));
                }
            }
        }
        end = start;
    }
    Ok((0, found + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    struct Log(tempfile::TempDir);

    impl Log {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("daemon.log")
        }

        fn append(&self, text: &str) {
            let mut options = File::options();
            let mut file = options.append(true).create(true).open(self.path()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn rotate(&self) {
            let names = LogFiles::from_start(self.path()).names();
            for pair in names.windows(2).rev() {
                if pair[0].exists() {
                    std::fs::rename(&pair[0], &pair[1]).unwrap();
                }
            }
        }
    }

    fn all(log: &mut LogFiles) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = log.line().unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        lines
    }

    #[test]
    fn it_is_one_sequence_over_all_files() {
        let log = Log::new();
        for text in ["1\n2\n", "3\n", "4\n5\n"] {
            log.rotate();
            log.append(text);
        }
        let mut reader = LogFiles::from_start(log.path());
        assert_eq!(all(&mut reader), ["1", "2", "3", "4", "5"]);
        log.append("6\npart");
        assert_eq!(all(&mut reader), ["6"]);
        log.append("ial\n");
        assert_eq!(all(&mut reader), ["partial"]);
    }

    #[test]
    fn rotation_loses_nothing_and_repeats_nothing() {
        let log = Log::new();
        let mut reader = LogFiles::from_start(log.path());
        assert_eq!(all(&mut reader), [""; 0]);
        log.append("1\n");
        assert_eq!(all(&mut reader), ["1"]);
        // Written to after the last look, and moved on twice before the next.
        log.append("2\n");
        log.rotate();
        log.append("3\nends without an end");
        log.rotate();
        assert_eq!(all(&mut reader), ["2", "3", "ends without an end"][..2]);
        log.append("4\n");
        assert_eq!(all(&mut reader), ["ends without an end", "4"]);
        // Moved on until it is nobody's any more.
        log.append("5\n");
        for number in 6..13 {
            log.rotate();
            log.append(&format!("{number}\n"));
        }
        let lines = all(&mut reader);
        assert_eq!(lines.first().unwrap(), "5");
        assert_eq!(lines[1..], ["7", "8", "9", "10", "11", "12"]);
    }

    #[test]
    fn one_that_was_emptied_is_read_from_its_start() {
        let log = Log::new();
        log.append("1\n2\n3\n");
        let mut reader = LogFiles::from_start(log.path());
        assert_eq!(all(&mut reader).len(), 3);
        File::create(log.path()).unwrap();
        log.append("4\n");
        assert_eq!(all(&mut reader), ["4"]);
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        #[track_caller]
        fn check(log: &Log, count: usize, expected: &[&str]) {
            let mut reader = LogFiles::from_last(log.path(), count).unwrap();
            assert_eq!(all(&mut reader), expected, "the last {count}");
        }
        let log = Log::new();
        check(&log, 2, &[]);
        let long = "x".repeat(usize::try_from(BLOCK).unwrap());
        log.append(&format!("1\n{long}\n"));
        log.rotate();
        log.append("3\n4\n");
        check(&log, 0, &[]);
        check(&log, 1, &["4"]);
        check(&log, 2, &["3", "4"]);
        check(&log, 3, &[&long, "3", "4"]);
        check(&log, 4, &["1", &long, "3", "4"]);
        check(&log, 9, &["1", &long, "3", "4"]);
    }

    #[test]
    fn a_line_without_end_is_held_in_pieces() {
        let log = Log::new();
        log.append(&"x".repeat(2 * MAX_LINE + 1));
        let mut reader = LogFiles::from_start(log.path());
        let lengths: Vec<_> = all(&mut reader).iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_LINE, MAX_LINE]);
        assert_eq!(reader.rest().unwrap().len(), 1);
    }
}
