//! `stigmer local logs`: what the daemon and its runner wrote, by time.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;

use super::super::exit::Outcome;
use super::super::failure::{Failure, Result};
use super::super::output::Output;
use super::log_files::LogFiles;
use super::log_text;
use crate::config::Config;

/// Where logs are in the data directory.
pub(super) const LOGS: &str = "logs";
/// How long nothing is looked at while following.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub(in crate::cli) struct LogsArgs {
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,

    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N", value_parser = lines)]
    tail: Option<usize>,

    /// Only of one process
    #[arg(long, value_name = "NAME")]
    component: Option<Component>,

    /// Only what is younger than this: 30s, 5m, 2h, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "D", value_parser = since)]
    since: Option<SystemTime>,

    /// Print the lines as they are in the files, JSON each
    #[arg(long)]
    json: bool,
}

fn lines(text: &str) -> Result<usize, &'static str> {
    text.parse()
        .map_err(|_| "not a number of lines, such as 50")
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer local logs --tail 50
  stigmer local logs -f --component agent-runner
  stigmer local logs --since 10m --json | jq .message

The files are logs/daemon.log and logs/agent-runner.log in the data directory,
with older ones beside them. Times are UTC.";

/// A process that writes a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Component {
    Server,
    AgentRunner,
}

impl Component {
    const ALL: [Self; 2] = [Self::Server, Self::AgentRunner];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::AgentRunner => "agent-runner",
        }
    }

    pub(super) const fn file(self) -> &'static str {
        match self {
            Self::Server => "daemon.log",
            Self::AgentRunner => "agent-runner.log",
        }
    }
}

/// How long ago, or when.
fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = super::super::value::duration(text)?;
    SystemTime::now()
        .checked_sub(ago)
        .ok_or_else(|| "that is before all time".to_owned())
}

/// One line of a log.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) component: Component,
    /// Its own, or for what has none that of the line before.
    pub(super) time: Option<SystemTime>,
    pub(super) bytes: Vec<u8>,
}

/// Several logs, merged by time as far as each is in order.
#[derive(Debug)]
pub(super) struct Logs(Vec<Source>);

#[derive(Debug)]
struct Source {
    component: Component,
    files: LogFiles,
    next: Option<Line>,
    time: Option<SystemTime>,
}

impl Logs {
    /// Of this component, or of all, from the last `tail` lines of each on.
    pub(super) fn open(
        directory: &Path,
        component: Option<Component>,
        tail: Option<usize>,
    ) -> io::Result<Self> {
        let sources = Component::ALL
            .into_iter()
            .filter(|one| component.is_none_or(|wanted| wanted == *one))
            .map(|component| {
                let path = directory.join(component.file());
                Ok(Source {
                    component,
                    files: match tail {
                        Some(count) => LogFiles::from_last(path, count)?,
                        None => LogFiles::from_start(path),
                    },
                    next: None,
                    time: None,
                })
            });
        Ok(Self(sources.collect::<io::Result<_>>()?))
    }

    /// The oldest line that was not given yet. `None` if there is none yet.
    pub(super) fn line(&mut self) -> io::Result<Option<Line>> {
        for source in &mut self.0 {
            source.look()?;
        }
        let oldest = self
            .0
            .iter_mut()
            .filter(|source| source.next.is_some())
            .min_by_key(|source| source.next.as_ref().and_then(|line| line.time));
        Ok(oldest.and_then(|source| source.next.take()))
    }

    /// What is there of lines that have not ended.
    fn rest(&mut self) -> Vec<Line> {
        let rest = self.0.iter_mut().filter_map(|source| {
            let bytes = source.files.rest()?;
            Some(source.line(bytes))
        });
        rest.collect()
    }
}

impl Source {
    fn look(&mut self) -> io::Result<()> {
        if self.next.is_none()
            && let Some(bytes) = self.files.line()?
        {
            self.next = Some(self.line(bytes));
        }
        Ok(())
    }

    fn line(&mut self, bytes: Vec<u8>) -> Line {
        self.time = time(&bytes).or(self.time);
        Line {
            component: self.component,
            time: self.time,
            bytes,
        }
    }
}

/// When a line says that it was written.
pub(super) fn time(line: &[u8]) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Stamp<'a> {
        timestamp: &'a str,
    }
    let stamp: Stamp<'_> = serde_json::from_slice(line).ok()?;
    humantime::parse_rfc3339(stamp.timestamp).ok()
}

pub(super) async fn logs(args: &LogsArgs, config: &Config, output: &Output) -> Result<Outcome> {
    let directory = config.data_dir.join(LOGS);
    let failed = |error: io::Error| {
        Failure::failed(format!("cannot read the logs in {}", directory.display())).because(&error)
    };
    let mut logs = Logs::open(&directory, args.component, args.tail).map_err(failed)?;
    let mut last = VecDeque::new();
    let show = |line: &Line| print(line, args.json, output);
    let wanted = |line: &Line| args.since.is_none_or(|since| line.time >= Some(since));
    while let Some(line) = logs.line().map_err(failed)? {
        if !wanted(&line) {
            continue;
        }
        let Some(tail) = args.tail else {
            show(&line)?;
            continue;
        };
        last.push_back(line);
        if last.len() > tail {
            last.pop_front();
        }
    }
    last.iter().try_for_each(show)?;
    drop(last);
    if !args.follow {
        logs.rest()
            .iter()
            .filter(|line| wanted(line))
            .try_for_each(show)?;
        return Ok(Outcome::Success);
    }
    // Ended by Ctrl-C, whose usual way needs no help, or by a reader that left.
    loop {
        while let Some(line) = logs.line().map_err(failed)? {
            show(&line)?;
        }
        if nobody_reads() {
            return Err(Failure::writing(
                "stdout",
                &io::ErrorKind::BrokenPipe.into(),
            ));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Whether stdout is a pipe that nobody has the other end of.
fn nobody_reads() -> bool {
    let stdout = rustix::stdio::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once)).is_ok_and(|_| fds[0].revents().contains(PollFlags::ERR))
}

fn print(line: &Line, json: bool, output: &Output) -> Result<()> {
    if json {
        return output.line(String::from_utf8_lossy(&line.bytes));
    }
    output.line(log_text::text(line, output.colours_stdout(), |text| {
        output.shown(text).into_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_merged_by_time() {
        let dir = tempfile::tempdir().unwrap();
        let write = |component: Component, seconds: &[&str]| {
            let lines: String = seconds
                .iter()
                .map(|second| match second.strip_prefix('-') {
                    Some(rest) => format!("{rest}\n"),
                    None => format!(
                        "{{\"timestamp\":\"2026-01-31T12:00:{second}Z\",\"message\":\"{second}\"}}\n"
                    ),
                })
                .collect();
            std::fs::write(dir.path().join(component.file()), lines).unwrap();
        };
        write(Component::Server, &["01", "-a panic", "04", "06"]);
        write(Component::AgentRunner, &["02", "03", "05"]);
        let all = |component, tail| {
            let mut logs = Logs::open(dir.path(), component, tail).unwrap();
            let mut said = Vec::new();
            while let Some(line) = logs.line().unwrap() {
                let text = log_text::text(&line, false, str::to_owned);
                said.push(text.rsplit(' ').next().unwrap().to_owned());
            }
            said
        };
        // What has no time stays with the line before it.
        assert_eq!(
            all(None, None),
            ["01", "panic", "02", "03", "04", "05", "06"]
        );
        assert_eq!(all(Some(Component::AgentRunner), None), ["02", "03", "05"]);
        assert_eq!(all(None, Some(1)), ["05", "06"]);
    }

    #[test]
    fn since_is_how_long_ago_or_when() {
        let hour = since("1h").unwrap().elapsed().unwrap().as_secs();
        assert!((3600..3700).contains(&hour), "{hour}");
        let when = since("2026-01-31T12:00:00Z").unwrap();
        let epoch = when.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(epoch.as_secs(), 1_769_860_800);
        since("yesterday").unwrap_err();
    }
}
