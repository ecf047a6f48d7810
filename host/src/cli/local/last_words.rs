//! What a daemon and its runner said before they failed, for a message.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::super::failure::Failure;
use super::log_files::LogFiles;
use super::log_text;
use super::logs::{Component, LOGS, Logs};
use crate::config::Config;

/// The daemon's stderr: what it says before it has a log, and what a panic
/// says. Begun anew at each start.
pub(super) const STDERR: &str = "daemon.err";
/// How many lines a message has.
const SHOWN: usize = 10;
/// And how much of each.
const WIDTH: usize = 400;

/// Whose words.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Stderr,
    Daemon,
    Runner,
}

/// The last lines of each log that were written since this was made. What was
/// there before is told by places and not by times, which clocks may get wrong.
#[derive(Debug)]
pub(super) struct LastWords {
    directory: PathBuf,
    /// `None` if the logs cannot be read: then they have nothing to say.
    logs: Option<Logs>,
    daemon: VecDeque<String>,
    runner: VecDeque<String>,
    stderr: Vec<String>,
}

impl LastWords {
    pub(super) fn from_now(config: &Config) -> Self {
        let directory = config.data_dir.join(LOGS);
        Self {
            logs: Logs::open(&directory, None, Some(0)).ok(),
            directory,
            daemon: VecDeque::new(),
            runner: VecDeque::new(),
            stderr: Vec::new(),
        }
    }

    /// Takes what was said so far.
    pub(super) fn listen(&mut self) {
        while let Some(Ok(Some(line))) = self.logs.as_mut().map(Logs::line) {
            let words = match line.component {
                Component::Server => &mut self.daemon,
                Component::AgentRunner => &mut self.runner,
            };
            words.push_back(cut(&log_text::text(&line, false, str::to_owned)));
            if words.len() > SHOWN {
                words.pop_front();
            }
        }
        self.stderr = last_lines(&self.directory.join(STDERR));
    }

    /// A failure with what the first of these said who said something.
    pub(super) fn after(&self, problem: String, whose: [Of; 2]) -> Failure {
        let said = whose.into_iter().find_map(|of| {
            let (file, words) = match of {
                Of::Stderr => (STDERR, self.stderr.clone()),
                Of::Daemon => (Component::Server.file(), self.daemon.clone().into()),
                Of::Runner => (Component::AgentRunner.file(), self.runner.clone().into()),
            };
            (!words.is_empty()).then_some((file, words))
        });
        let Some((file, words)) = said else {
            return Failure::failed(problem);
        };
        Failure::failed(format!(
            "{problem}\nthe last lines of {}:\n  {}",
            self.directory.join(file).display(),
            words.join("\n  ")
        ))
    }
}

fn cut(line: &str) -> String {
    line.chars().take(WIDTH).collect()
}

fn last_lines(path: &Path) -> Vec<String> {
    let read = || {
        let mut log = LogFiles::from_last(path.to_owned(), SHOWN)?;
        let mut lines = Vec::new();
        while let Some(line) = log.line()? {
            lines.push(line);
        }
        lines.extend(log.rest());
        std::io::Result::Ok(lines)
    };
    // What cannot be read has nothing to say about what went wrong.
    let lines = read().unwrap_or_default();
    lines
        .iter()
        .map(|line| cut(&String::from_utf8_lossy(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_was_said_since() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            use std::io::Write as _;
            let mut options = std::fs::File::options();
            let path = dir.path().join(file);
            let mut file = options.append(true).create(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        write("daemon.log", "before\n");
        let mut words = LastWords {
            logs: Logs::open(dir.path(), None, Some(0)).ok(),
            directory: dir.path().to_owned(),
            daemon: VecDeque::new(),
            runner: VecDeque::new(),
            stderr: Vec::new(),
        };
        let problem = || "it failed".to_owned();
        words.listen();
        let silent = words.after(problem(), [Of::Runner, Of::Daemon]);
        assert_eq!(silent.problems, ["it failed"]);
        for number in 0..12 {
            write("daemon.log", &format!("n{number}\n"));
        }
        write(STDERR, "panicked\nunended");
        words.listen();
        let failure = words.after(problem(), [Of::Runner, Of::Daemon]);
        let lines: Vec<_> = failure.problems[0].lines().collect();
        assert!(lines[1].starts_with("the last lines of ") && lines[1].ends_with("daemon.log:"));
        assert_eq!(lines.len(), 2 + SHOWN);
        assert!(
            lines[2].ends_with(" n2") && lines[11].ends_with(" n11"),
            "{lines:?}"
        );
        let failure = words.after(problem(), [Of::Stderr, Of::Daemon]);
        assert!(failure.problems[0].ends_with("\n  panicked\n  unended"));
    }
}
