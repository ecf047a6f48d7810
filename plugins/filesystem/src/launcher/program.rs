//! Finding a program and starting it, with the exit codes that shells have for
//! failing at it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, accessat, openat, statat};
use rustix::io::Errno;
use rustix::process::Pid;

use super::sys;
use crate::protocol::{FromRunner, Start};

/// Where programs are looked for if the command's environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Starts a command with the descriptors that came with it.
pub(super) fn start(start: Start, fds: Vec<OwnedFd>) -> Result<(u64, Pid), FromRunner> {
    let failed = |code, reason: String| FromRunner::NotStarted { code, reason };
    let name = start.argv.first().cloned().unwrap_or_default();
    let words = |words: Vec<String>| -> Result<Vec<CString>, _> {
        words.into_iter().map(CString::new).collect()
    };
    let env = start
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let terminal = start.terminal.map(CString::new).transpose();
    // The host's types cannot hold a NUL, nor its messages other than four descriptors.
    let (Ok(argv), Ok(env), Ok(terminal), Ok([cwd, stdin, stdout, stderr])) = (
        words(start.argv),
        words(env),
        terminal,
        <[OwnedFd; 4]>::try_from(fds),
    ) else {
        return Err(failed(126, "malformed request".to_owned()));
    };
    let path = start
        .env
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value);
    let path = find(&name, path, cwd.as_fd()).map_err(|(code, reason)| failed(code, reason))?;
    let pid = sys::spawn(&sys::Program {
        path: &path,
        argv: &argv,
        env: &env,
        cwd: cwd.as_fd(),
        stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        terminal: terminal.as_ref(),
    });
    pid.map(|pid| (start.command, pid)).map_err(|error| {
        let (code, reason) = explain(&name, &path, Errno::from_io_error(&error), cwd.as_fd());
        failed(code, reason)
    })
}

/// What to execute: the name itself if it has a slash, else the first program
/// of that name on `path`. Relative directories on it start at `cwd`.
fn find(name: &str, path: &str, cwd: BorrowedFd<'_>) -> Result<CString, (u8, String)> {
    let c_string =
        |path: String| CString::new(path).map_err(|_| (127, format!("{name}: command not found")));
    if name.contains('/') {
        return c_string(name.to_owned());
    }
    let mut refused = None;
    for dir in path.split(':') {
        let candidate = c_string(if dir.is_empty() {
            format!("./{name}")
        } else {
            format!("{dir}/{name}")
        })?;
        let Ok(stat) = statat(cwd, &candidate, AtFlags::empty()) else {
            continue;
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            continue;
        }
        match accessat(cwd, &candidate, Access::EXEC_OK, AtFlags::empty()) {
            Ok(()) => return Ok(candidate),
            Err(_) => refused = refused.or(Some(candidate)),
        }
    }
    Err(match refused {
        Some(path) => (
            126,
            format!("{}: permission denied", path.to_string_lossy()),
        ),
        None => (127, format!("{name}: command not found")),
    })
}

/// Why the kernel did not execute it: the code, and a line for stderr.
fn explain(name: &str, path: &CString, errno: Option<Errno>, cwd: BorrowedFd<'_>) -> (u8, String) {
    let shown = path.to_string_lossy();
    match errno {
        Some(Errno::NOENT) => match interpreter(path, cwd) {
            Some(interpreter) => (
                127,
                format!("{shown}: bad interpreter: {interpreter}: no such file or directory"),
            ),
            None => (127, format!("{name}: no such file or directory")),
        },
        Some(Errno::NOTDIR) => (127, format!("{name}: not a directory")),
        Some(Errno::ACCESS) if is_directory(path, cwd) => (126, format!("{name}: is a directory")),
        Some(Errno::ACCESS) => (126, format!("{name}: permission denied")),
        Some(Errno::NOEXEC) => (
            126,
            format!("{shown}: exec format error (a script needs a first line like #!/bin/sh)"),
        ),
        Some(Errno::TOOBIG) => (
            126,
            format!("{name}: argument list or environment too long"),
        ),
        Some(errno) => (126, format!("{shown}: {}", std::io::Error::from(errno))),
        None => (126, format!("{shown}: cannot be executed")),
    }
}

fn is_directory(path: &CString, cwd: BorrowedFd<'_>) -> bool {
    statat(cwd, path, AtFlags::empty())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// The interpreter that a script names in its first line.
fn interpreter(path: &CString, cwd: BorrowedFd<'_>) -> Option<String> {
    let file = openat(
        cwd,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .ok()?;
    let mut line = [0; 256];
    let length = rustix::io::read(&file, &mut line).ok()?;
    let line = line[..length].strip_prefix(b"#!")?;
    let line = String::from_utf8_lossy(line.split(|&byte| byte == b'\n').next()?).into_owned();
    line.split_whitespace().next().map(str::to_owned)
}
