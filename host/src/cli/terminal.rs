//! The terminal that a person sits at.

use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use stigmer_sdk::Terminal;

use super::failure::{Failure, Result};

/// A terminal in raw mode, which is undone when this is dropped: also when a
/// panic unwinds. Signals do not end the process meanwhile, because whoever
/// holds this also listens for them.
#[derive(Debug)]
pub(super) struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Takes the terminal on stdin.
    pub(super) fn enter() -> Result<Self> {
        let stdin = rustix::stdio::stdin().try_clone_to_owned();
        Self::enter_on(stdin.map_err(|error| Failure::failed("cannot open stdin").because(&error))?)
    }

    fn enter_on(terminal: OwnedFd) -> Result<Self> {
        let failed = |error: rustix::io::Errno| {
            Failure::failed("cannot put the terminal into raw mode")
                .because(&std::io::Error::from(error))
        };
        let before = tcgetattr(&terminal).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing undone.
        let _gone = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Fails unless stdin is a terminal.
pub(super) fn required(what: &str) -> Result<()> {
    required_on(rustix::stdio::stdin(), what)
}

fn required_on(stdin: impl AsFd, what: &str) -> Result<()> {
    if rustix::termios::isatty(stdin) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{what} needs a terminal, and stdin is not one"
    )))
}

/// The size of the terminal on stdin, or the usual one if it does not say.
pub(super) fn size() -> Terminal {
    size_of(rustix::stdio::stdin())
}

fn size_of(fd: impl AsFd) -> Terminal {
    let known = tcgetwinsize(fd)
        .ok()
        .and_then(|size| Terminal::new(size.ws_col.into(), size.ws_row.into()).ok());
    known.unwrap_or_else(|| Terminal::new(80, 24).expect("neither is 0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, openpt};

    #[test]
    fn a_file_is_no_terminal() {
        let failure = required_on(std::fs::File::open("/dev/null").unwrap(), "-t").unwrap_err();
        assert_eq!(
            failure.problems,
            ["-t needs a terminal, and stdin is not one"]
        );
    }

    #[test]
    fn raw_mode_is_undone() {
        let pty = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let flags = || tcgetattr(&pty).unwrap().local_modes;
        let before = flags();
        let raw = RawMode::enter_on(pty.try_clone().unwrap()).unwrap();
        assert_ne!(flags(), before);
        drop(raw);
        assert_eq!(flags(), before);
    }

    #[test]
    fn a_terminal_without_a_size_gets_the_usual_one() {
        let pty = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        assert_eq!(size_of(&pty), Terminal::new(80, 24).unwrap());
    }
}
