//! What `/proc` says of processes, and signals that reach who was meant.
//!
//! The native backend has the like of this for the processes that answer for
//! commands. Those are other programs, without a runtime and with one thread.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The fields of `/proc/PID/stat` that tell processes apart and who belongs
/// to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    /// Ended, and not yet waited for.
    pub(super) zombie: bool,
    pub(super) parent: u32,
    pub(super) session: u32,
    /// In clock ticks since the machine started.
    pub(super) started: u64,
}

/// What there is to know of this number now; `None` if nobody has it.
pub(super) fn stat(pid: u32) -> io::Result<Option<Stat>> {
    let stat = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    parse(pid, &stat).map(Some).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat is not as proc(5) describes it"),
        )
    })
}

/// Holds on to whoever has this number, if that one started then and lives.
pub(super) fn open(pid: u32, started: u64) -> io::Result<Option<OwnedFd>> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => process,
        // The others say that it is a thread's.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // From here on nobody else can get the number without this being seen.
    let lives = stat(pid)?.is_some_and(|now| now.started == started && !now.zombie);
    Ok(lives.then_some(process))
}

/// Sends a signal to this very process, if it still lives.
pub(super) fn signal(process: &Stat, signal: Signal) {
    if let Ok(Some(process)) = open(process.pid, process.started) {
        // It may have ended meanwhile, which is as good.
        let _gone = pidfd_send_signal(process, signal);
    }
}

/// Everybody below this process who lives.
pub(super) fn descendants(root: u32) -> io::Result<Vec<Stat>> {
    let mut children: HashMap<u32, Vec<Stat>> = HashMap::new();
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
    found.retain(|process| !process.zombie);
    Ok(found)
}

/// Everybody in this session who lives, its leader left out.
pub(super) fn session(leader: u32) -> io::Result<Vec<Stat>> {
    let mut found = all()?;
    found.retain(|process| process.session == leader && process.pid != leader && !process.zombie);
    Ok(found)
}

/// Whether a process is `root` or below it.
pub(super) fn is_below(pid: u32, root: u32) -> bool {
    let mut next = pid;
    // A line of parents has no ring in it, but it may change while it is read.
    for _ in 0..1000 {
        if next == root {
            return true;
        }
        match stat(next) {
            Ok(Some(stat)) if stat.parent > 0 => next = stat.parent,
            _ => return false,
        }
    }
    false
}

/// Everybody there is that this process may see.
pub(super) fn all() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid {
            found.extend(stat(pid)?);
        }
    }
    Ok(found)
}

/// A process may end between finding it and reading, and while it is read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The name may hold anything, so fields count from its last parenthesis:
/// state, parent, group, session, and the start time as the 20th.
fn parse(pid: u32, stat: &[u8]) -> Option<Stat> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&stat[end + 1..])
        .ok()?
        .split_ascii_whitespace()
        .collect();
    Some(Stat {
        pid,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_fields() {
        #[track_caller]
        fn check(name: &str) {
            let line =
                format!("7 ({name}) S 3 6 5 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3");
            let expected = Stat {
                pid: 7,
                zombie: false,
                parent: 3,
                session: 5,
                started: 4242,
            };
            assert_eq!(parse(7, line.as_bytes()), Some(expected), "{name}");
        }
        check("sh");
        check("a b) Z 1 1 1");
        check("\u{1}\n");
        assert_eq!(parse(7, b""), None);
        assert_eq!(parse(7, b"7 (x) S"), None);
    }

    #[test]
    fn this_process_is_among_all() {
        let own = std::process::id();
        let stat = stat(own).unwrap().unwrap();
        assert!(all().unwrap().contains(&stat));
        assert!(!stat.zombie && stat.parent > 0 && stat.started > 0);
        assert!(is_below(own, own) && is_below(own, stat.parent));
        assert!(!is_below(stat.parent, own));
        assert!(descendants(stat.parent).unwrap().contains(&stat));
    }
}
