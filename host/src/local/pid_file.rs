//! Which process is meant, so that no other is ever signalled.
//!
//! A number alone is not a process: it is given again, to anybody, soon after
//! on a busy machine and certainly after a reboot. So a file names three
//! things, one a line: the number, the time at which the process started in
//! clock ticks since the machine did, and which start of the machine that was.
//! Whoever wants to signal opens a pidfd first, which holds on to whoever has
//! the number then, and looks at the other two afterwards.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use stigmer_sdk::{Error, Result};

use super::proc;

/// One process, and none that has its number later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    /// In clock ticks since the machine started.
    pub started: u64,
    /// Which start of the machine.
    pub boot: String,
}

impl Identity {
    /// Of this process.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn this() -> io::Result<Self> {
        Self::of(std::process::id())?
            .ok_or_else(|| io::Error::other("/proc does not show this process"))
    }

    /// Of whoever has this number now. `None` if nobody does who lives.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let Some(stat) = proc::stat(pid)?.filter(|stat| !stat.zombie) else {
            return Ok(None);
        };
        Ok(Some(Self {
            pid,
            started: stat.started,
            boot: boot()?,
        }))
    }

    /// Holds on to this very process if it still lives. `None` if it is gone,
    /// has ended without having been waited for, or if another has its number.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        if boot()? != self.boot {
            return Ok(None);
        }
        proc::open(self.pid, self.started)
    }

    /// Since when it runs, in milliseconds of the Unix epoch, as far as the
    /// machine's clock was right all the time.
    #[must_use]
    pub fn started_ms(&self) -> u64 {
        let since_boot =
            self.started.saturating_mul(1000) / rustix::param::clock_ticks_per_second();
        let boot_time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let up = u64::try_from(boot_time.tv_sec).unwrap_or_default() * 1000
            + u64::try_from(boot_time.tv_nsec).unwrap_or_default() / 1_000_000;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        now.saturating_sub(up.saturating_sub(since_boot))
    }
}

/// Names this start of the machine.
fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// A file that says which process does something. Removed when this is
/// dropped, so whoever writes one owns the process, or is it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Says it, in place of what the file said before. Only for whoever holds
    /// the lock of the data directory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(path: impl Into<PathBuf>, identity: &Identity) -> Result<Self> {
        let path = path.into();
        let mut draft = path.clone().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            let Identity { pid, started, boot } = identity;
            file.write_all(format!("{pid}\n{started}\n{boot}\n").as_bytes())?;
            std::fs::rename(&draft, &path)
        };
        match write() {
            Ok(()) => Ok(Self { path }),
            Err(error) => {
                // What is half written is nobody's.
                drop(std::fs::remove_file(&draft));
                let message = format!("cannot write the PID file {}", path.display());
                Err(Error::internal(message, error))
            }
        }
    }

    /// What a file says. `None` if there is none, and, with a warning, if it
    /// says nothing that makes sense.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Option<Identity>> {
        /// A few times what there is to say.
        const MOST: u64 = 1024;
        let failed = |error: io::Error| {
            Error::internal(
                format!("cannot read the PID file {}", path.display()),
                error,
            )
        };
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(MOST).read_to_end(&mut bytes).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let identity = std::str::from_utf8(&bytes).ok().and_then(parse);
        if identity.is_none() {
            tracing::warn!(
                path = %path.display(),
                "this PID file does not say which process it means, and nothing is done by it"
            );
        }
        Ok(identity)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        drop(std::fs::remove_file(&self.path));
    }
}

fn parse(text: &str) -> Option<Identity> {
    let mut lines = text.lines();
    let identity = Identity {
        pid: lines.next()?.parse().ok().filter(|&pid| pid > 0)?,
        started: lines.next()?.parse().ok()?,
        boot: lines.next().filter(|boot| !boot.is_empty())?.to_owned(),
    };
    lines.next().is_none().then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_the_very_process_can_be_opened() {
        let this = Identity::this().unwrap();
        assert!(this.open().unwrap().is_some());
        let mut another = this.clone();
        another.started += 1;
        assert!(another.open().unwrap().is_none(), "its number was reused");
        let mut before = this.clone();
        before.boot = "another".to_owned();
        assert!(before.open().unwrap().is_none(), "the machine was rebooted");
        for pid in [0, u32::MAX, i32::MAX as u32] {
            let nobody = Identity {
                pid,
                ..this.clone()
            };
            assert!(nobody.open().unwrap().is_none(), "{pid}");
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a process that has ended is needed"
    )]
    fn one_that_ended_is_not_opened_before_it_was_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        // Waits without reaping: the number still is the child's.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::waitid(
            rustix::process::WaitId::Pid(pid),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        assert_eq!(Identity::of(child.id()).unwrap(), None);
        child.wait().unwrap();
        assert_eq!(Identity::of(child.id()).unwrap(), None);
    }

    #[test]
    fn a_file_says_who_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.pid");
        assert_eq!(PidFile::read(&path).unwrap(), None);
        let this = Identity::this().unwrap();
        let file = PidFile::write(&path, &this).unwrap();
        assert_eq!(PidFile::read(&path).unwrap(), Some(this));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_makes_no_sense_means_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.pid");
        #[track_caller]
        fn check(path: &Path, content: &[u8]) {
            std::fs::write(path, content).unwrap();
            assert_eq!(PidFile::read(path).unwrap(), None, "{content:?}");
        }
        check(&path, b"");
        check(&path, b"123");
        check(&path, b"123\n456\n");
        check(&path, b"123\n456\n\n");
        check(&path, b"0\n456\nboot\n");
        check(&path, b"-1\n456\nboot\n");
        check(&path, b"123\n456\nboot\nmore\n");
        check(&path, b"\xff\n456\nboot\n");
        check(&path, &[b'1'; 4096]);
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(PidFile::read(&dir.path().join("dir")).is_err());
    }

    #[test]
    fn a_start_is_told_in_the_clock_of_people() {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let started = Identity::this().unwrap().started_ms();
        let ago = u64::try_from(now.as_millis()).unwrap().abs_diff(started);
        assert!(ago < 3_600_000, "this test began {ago} ms ago");
    }
}
