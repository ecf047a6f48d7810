//! What `/proc` says of processes.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// A process, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// With `pid`, an identity: numbers are used again.
    started: u64,
    /// The letter of its state.
    state: char,
    /// For the message of a test that fails.
    pub command: String,
}

impl Process {
    /// Whether it is still there, and more than a zombie.
    #[must_use]
    pub fn lives(&self) -> bool {
        look(self.pid).is_some_and(|now| now.started == self.started && now.state != 'Z')
    }

    /// Sends it a signal, if it is still there.
    pub fn signal(&self, signal: Signal) {
        if self.lives() {
            self::signal(self.pid, signal);
        }
    }
}

/// Sends a signal to a process that may be gone.
pub fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("the number of a process");
    rustix::process::kill_process(pid, signal).ok();
}

/// Every process there is, zombies left out.
#[must_use]
pub fn all() -> Vec<Process> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(look)
        .filter(|process| process.state != 'Z')
        .collect()
}

/// What `/proc` says of a number.
#[must_use]
pub fn look(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat).into_owned();
    // The name may hold anything: fields count from its end.
    let (name, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    let name = name.split_once('(').map_or("", |(_, name)| name);
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        state: fields.first()?.chars().next()?,
        command: format!("{name}: {}", arguments.trim()),
    })
}

/// The processes with `mark` in their arguments or their environment, or that
/// have a directory below it as their own.
#[must_use]
pub fn marked(mark: &str) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).expect("a small number");
    let holds = |bytes: &[u8]| {
        bytes
            .windows(mark.len())
            .any(|window| window == mark.as_bytes())
    };
    all()
        .into_iter()
        .filter(|process| process.pid != own)
        .filter(|process| {
            let of = |name: &str| fs::read(format!("/proc/{}/{name}", process.pid));
            let below = |name: &str| {
                fs::read_link(format!("/proc/{}/{name}", process.pid))
                    .is_ok_and(|path| path.starts_with(Path::new(mark)))
            };
            of("cmdline").is_ok_and(|bytes| holds(&bytes))
                || of("environ").is_ok_and(|bytes| holds(&bytes))
                || (mark.starts_with('/') && below("cwd"))
        })
        .collect()
}

/// Everything that descends from a process.
#[must_use]
pub fn descendants(root: i32) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let below = children.remove(&process.pid);
        found.extend(below.into_iter().flatten());
        next += 1;
    }
    found
}

/// Waits until all of these are gone.
///
/// # Panics
/// If one is not within ten seconds.
#[track_caller]
pub fn all_end(what: &str, processes: &[Process]) {
    super::eventually(
        &format!("{what} ends: {processes:?}"),
        Duration::from_secs(10),
        || processes.iter().all(|process| !process.lives()),
    );
}

/// Memory of a process that is no file's, in bytes.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn anonymous_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("Linux has RssAnon");
    let kib: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number of KiB");
    kib * 1024
}

/// What a process has read so far, in bytes.
#[must_use]
pub fn bytes_read(pid: i32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines()
        .find_map(|line| line.strip_prefix("rchar: "))
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}
