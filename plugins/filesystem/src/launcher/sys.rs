//! The system calls that no safe crate offers: the one address of `unsafe` in
//! this crate.
//!
//! Everything here is called by processes with a single thread, which is what
//! makes `fork` sound: no lock can be held by a thread that the child lacks.
#![expect(unsafe_code, reason = "the spawn path")]

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks this process, which must have one thread.
///
/// The child goes on with a copy of everything, open descriptors included, and
/// has to drop what is not its own.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the processes of this module start no thread (`launcher::run_if_asked` is the first
    // thing in `main`, and nothing below it spawns one), so the child may do whatever its parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid)
            .map(Fork::Parent)
            .ok_or_else(|| io::Error::other("fork gave no process id")),
    }
}

/// Closes every descriptor from `first` on.
///
/// Nothing that this process still uses may be among them: it is for the very
/// start, when all that is there came from whoever started us.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called before this process opened anything of its own, so no owned descriptor is closed
    // behind its owner's back.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Blocks SIGCHLD and gives a descriptor that is readable whenever one came.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that the calls after it read, and `signalfd` returns a
    // descriptor that nobody else owns.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// What [`spawn`] starts.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) path: &'a CString,
    pub(crate) argv: &'a [CString],
    pub(crate) env: &'a [CString],
    pub(crate) cwd: BorrowedFd<'a>,
    /// stdin, stdout, stderr. None of them may be below 3.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Opened as stdin, stdout and stderr instead, and made the controlling
    /// terminal.
    pub(crate) terminal: Option<&'a CString>,
}

/// Starts a program in a session of its own, with default signal handling, and
/// says at once when it cannot be executed.
///
/// It uses `posix_spawn`, which shares the memory of this process with the
/// child until it executes, so that its cost does not grow with that memory.
pub(crate) fn spawn(program: &Program<'_>) -> io::Result<Pid> {
    let pointers = |words: &[CString]| -> Vec<*mut c_char> {
        words
            .iter()
            .map(|word| word.as_ptr().cast_mut())
            .chain([std::ptr::null_mut()])
            .collect()
    };
    let argv = pointers(program.argv);
    let env = pointers(program.env);
    let mut pid = 0;

    // SAFETY: attributes and actions are initialised before use and destroyed once after it, on every
    // path, by the guards; the pointer arrays end in null and point into strings that `program` borrows
    // for the whole call; libc copies what the actions keep.
    unsafe {
        let mut attributes = Attributes::new()?;
        let mut actions = Actions::new()?;
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(signals.as_mut_ptr());
        check(libc::posix_spawnattr_setsigmask(
            &mut attributes.0,
            signals.as_ptr(),
        ))?;
        libc::sigfillset(signals.as_mut_ptr());
        check(libc::posix_spawnattr_setsigdefault(
            &mut attributes.0,
            signals.as_ptr(),
        ))?;
        let flags = libc::POSIX_SPAWN_SETSID
            | libc::POSIX_SPAWN_SETSIGMASK as libc::c_short
            | libc::POSIX_SPAWN_SETSIGDEF as libc::c_short;
        check(libc::posix_spawnattr_setflags(&mut attributes.0, flags))?;

        check(libc::posix_spawn_file_actions_addfchdir_np(
            &mut actions.0,
            program.cwd.as_raw_fd(),
        ))?;
        match program.terminal {
            // A session leader without a terminal that opens one is controlled by it from then on.
            Some(terminal) => {
                let path = terminal.as_ptr();
                check(libc::posix_spawn_file_actions_addopen(
                    &mut actions.0,
                    0,
                    path,
                    libc::O_RDWR,
                    0,
                ))?;
                check(libc::posix_spawn_file_actions_adddup2(&mut actions.0, 0, 1))?;
                check(libc::posix_spawn_file_actions_adddup2(&mut actions.0, 0, 2))?;
            }
            None => {
                for (target, fd) in (0..).zip(program.stdio) {
                    check(libc::posix_spawn_file_actions_adddup2(
                        &mut actions.0,
                        fd.as_raw_fd(),
                        target,
                    ))?;
                }
            }
        }
        check(libc::posix_spawn(
            &mut pid,
            program.path.as_ptr(),
            &actions.0,
            &attributes.0,
            argv.as_ptr(),
            env.as_ptr(),
        ))?;
    }
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn gave no process id"))
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut value = MaybeUninit::uninit();
        // SAFETY: a success initialises the value, and only then is it taken.
        unsafe {
            check(libc::posix_spawnattr_init(value.as_mut_ptr()))?;
            Ok(Self(value.assume_init()))
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: `new` initialised it, and nothing destroyed it before.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut value = MaybeUninit::uninit();
        // SAFETY: a success initialises the value, and only then is it taken.
        unsafe {
            check(libc::posix_spawn_file_actions_init(value.as_mut_ptr()))?;
            Ok(Self(value.assume_init()))
        }
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: `new` initialised it, and nothing destroyed it before.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

/// The `posix_spawn` family returns its error number instead of setting it.
fn check(result: c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}
