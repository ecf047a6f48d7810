//! Process trees: who descends from us, and ending them all.
//!
//! A number is not an identity: between reading `/proc` and sending a signal, a
//! process may end and its number go to a stranger. So a signal goes through a
//! pidfd, opened first and then compared with what `/proc` says of the number.

use std::collections::{HashMap, HashSet};
use std::io;

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process at the moment it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// In clock ticks since the machine started; with `pid`, an identity.
    started: u64,
}

/// Every process of this machine that can be seen.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    let proc = rustix::fs::open(
        "/proc",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut entries = RawDir::new(&proc, buffer.spare_capacity_mut());
    let mut processes = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let pid = entry
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok());
        processes.extend(pid.and_then(look));
    }
    Ok(processes)
}

/// What `/proc` says of a number, if anybody has it.
fn look(pid: i32) -> Option<Process> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &stat)
}

/// `proc_pid_stat(5)`: the name may hold anything, so fields count from the
/// last parenthesis: state, parent, and the start time as the 20th.
fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&stat[end + 1..])
        .ok()?
        .split_ascii_whitespace()
        .collect();
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The descendants of `root`, parents before their children.
pub(crate) fn descendants(root: i32) -> io::Result<Vec<Process>> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all()? {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let below = children.remove(&process.pid);
        found.extend(below.into_iter().flatten());
        next += 1;
    }
    Ok(found)
}

/// Sends a signal to a process, unless its number is somebody else's by now.
pub(crate) fn signal(process: Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return;
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if look(process.pid).is_some_and(|now| now.started == process.started) {
        // It may have ended meanwhile, which is as good.
        pidfd_send_signal(&pidfd, signal).ok();
    }
}

/// Asks every descendant of this process to end.
pub(crate) fn terminate(own: i32, spared: &HashSet<i32>) {
    for process in subtree(own, spared) {
        signal(process, Signal::TERM);
        // One that is stopped would not see it.
        signal(process, Signal::CONT);
    }
}

/// Kills every descendant of this process that is not below a spared child.
///
/// One pass misses what is forked while it looks, and is repeated by whoever
/// reaps until nothing is left. From the fourth pass on (`pass` counts from 0)
/// everything is stopped first, so that a fork bomb cannot outrun it.
pub(crate) fn kill(own: i32, spared: &HashSet<i32>, pass: u32) {
    if pass >= 3 {
        let mut stopped = HashSet::new();
        for _ in 0..32 {
            let fresh: Vec<_> = subtree(own, spared)
                .into_iter()
                .filter(|process| stopped.insert(process.pid))
                .collect();
            if fresh.is_empty() {
                break;
            }
            for process in fresh {
                signal(process, Signal::STOP);
            }
        }
    }
    for process in subtree(own, spared) {
        signal(process, Signal::KILL);
    }
}

/// The descendants of `own`, without the spared children and what is below them.
fn subtree(own: i32, spared: &HashSet<i32>) -> Vec<Process> {
    let mut outside = spared.clone();
    let mut found = descendants(own).unwrap_or_default();
    found.retain(|process| {
        let keep = !outside.contains(&process.pid) && !outside.contains(&process.parent);
        if !keep {
            outside.insert(process.pid);
        }
        keep
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_whatever_the_name_is() {
        #[track_caller]
        fn check(name: &str) {
            let stat =
                format!("7 ({name}) S 3 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3");
            assert_eq!(
                parse(7, stat.as_bytes()),
                Some(Process {
                    pid: 7,
                    parent: 3,
                    started: 4242
                })
            );
        }
        check("sh");
        check("a b) S 1 1");
        check("\u{1}\n");
        assert_eq!(parse(7, b""), None);
        assert_eq!(parse(7, b"7 (x) S"), None);
    }

    #[test]
    fn this_process_is_there_and_has_a_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = all()
            .unwrap()
            .into_iter()
            .find(|process| process.pid == own)
            .unwrap()
            .parent;
        assert!(
            descendants(parent)
                .unwrap()
                .iter()
                .any(|process| process.pid == own)
        );
    }
}
