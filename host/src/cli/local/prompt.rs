//! A key that a person types: asked for on the terminal, and not shown there.
//!
//! The terminal hands over every byte as it is typed and makes no signals of
//! them: one that collected lines would keep a Ctrl-C until Enter, and one that
//! made a signal of it would leave it to chance whether the process or its
//! settings ended first. They are given back when [`Silent`] is dropped, which
//! is in every case: an answer, a refusal, a panic, and a signal, because
//! whoever asks listens for those and drops the question.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush,
    tcgetattr, tcsetattr, ttyname,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::super::failure::{Failure, Result};
use super::super::output::Output;
use super::watched;
use crate::config::{Secret, wipe};

/// How often somebody may answer with nothing, or with what cannot be a key.
const ATTEMPTS: u32 = 3;
/// The longest key that is taken; those there are have some hundred bytes.
const MAX_KEY: usize = 8 * 1024;

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;
const BACKSPACES: [u8; 2] = [8, 127];
/// What a terminal puts around what is pasted, if a program before us had asked it to.
const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// The terminal that a person can be asked on.
#[derive(Debug)]
pub(super) struct Tty(AsyncFd<OwnedFd>);

/// What came instead of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    Interrupt,
    /// Ctrl-D, or a terminal that is gone.
    End,
    TooLong,
}

impl Tty {
    /// The terminal that controls this process, or else the one on stdin.
    /// `None` if there is neither. It is opened anew, since a description that
    /// is shared with the shell must not be made non-blocking.
    pub(super) fn open() -> Result<Option<Self>> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::open("/dev/tty", flags, Mode::empty()).or_else(|_| {
            let name = ttyname(rustix::stdio::stdin(), Vec::new())?;
            rustix::fs::open(&name, flags, Mode::empty())
        });
        opened.ok().map(Self::of).transpose()
    }

    fn of(fd: OwnedFd) -> Result<Self> {
        watched(fd, Interest::READABLE | Interest::WRITABLE)
            .map(Self)
            .map_err(|error| Failure::failed("cannot read from the terminal").because(&error))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }

    /// Asks for a key until one is given.
    ///
    /// # Errors
    /// If none is: interrupted, at the end of input, or after three attempts.
    pub(super) async fn key(&self, name: &str, output: &Output) -> Result<Secret> {
        let refused = |why: &str| Failure::failed(format!("failed to get {name}: {why}"));
        for _ in 0..ATTEMPTS {
            let problem = match self.line(&format!("Enter {name}: ")).await? {
                Ok(typed) => match parse(&typed.0) {
                    Ok(key) => return Ok(key),
                    Err(problem) => problem,
                },
                Err(Instead::TooLong) => "it is longer than a key can be",
                Err(Instead::Interrupt) => {
                    return Err(Failure::interrupted(rustix::process::Signal::INT.as_raw()));
                }
                Err(Instead::End) => return Err(refused("no key was given")),
            };
            output.note(problem);
        }
        Err(refused(&format!(
            "none that can be used was given in {ATTEMPTS} attempts"
        )))
    }

    /// Asks once, and leaves the terminal as it was.
    async fn line(&self, prompt: &str) -> Result<Result<Typed, Instead>> {
        let failed =
            |error: std::io::Error| Failure::failed("cannot ask on the terminal").because(&error);
        let mut continued =
            signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw())).map_err(failed)?;
        let silent = Silent::enter(self.fd()).map_err(failed)?;
        // Only now: whoever waits for the question may answer at once.
        self.show(prompt).await.map_err(failed)?;
        let mut typed = Typed(Vec::with_capacity(MAX_KEY));
        let end = loop {
            let byte = tokio::select! {
                byte = self.byte() => byte.map_err(failed)?,
                // Whoever stopped us may have changed the terminal meanwhile.
                _ = continued.recv() => {
                    silent.apply().map_err(failed)?;
                    self.show(prompt).await.map_err(failed)?;
                    continue;
                }
            };
            match byte {
                None | Some(CTRL_D) => break Err(Instead::End),
                Some(CTRL_C) => break Err(Instead::Interrupt),
                Some(b'\n' | b'\r') if !typed.in_paste() => break Ok(()),
                Some(CTRL_U) => typed.clear(),
                Some(byte) if BACKSPACES.contains(&byte) => drop(typed.0.pop()),
                // It never grows: what grows leaves copies behind.
                Some(_) if typed.0.len() == MAX_KEY => break Err(Instead::TooLong),
                Some(byte) => {
                    typed.0.push(byte);
                    if typed.is_pasted_line() {
                        break Ok(());
                    }
                }
            }
        };
        drop(silent);
        // The Enter was not echoed either. A terminal that is gone needs none.
        let _gone = self.show("\n").await;
        Ok(end.map(|()| typed))
    }

    async fn byte(&self) -> std::io::Result<Option<u8>> {
        let mut byte = [0];
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.fd(), &mut byte) {
                Ok(0) | Err(Errno::IO) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn show(&self, text: &str) -> std::io::Result<()> {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match rustix::io::write(self.fd(), bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// What was typed so far, overwritten in the end.
struct Typed(Vec<u8>);

impl Typed {
    /// Whether a paste began that has not ended: a line's end is then a part
    /// of it, and the terminal's mark of its end, still to come, would
    /// otherwise go to the shell.
    fn in_paste(&self) -> bool {
        last(&self.0, PASTE_BEGINS) > last(&self.0, PASTE_ENDS)
    }

    /// Whether what was pasted, and has just ended, was a whole line.
    fn is_pasted_line(&self) -> bool {
        self.0
            .strip_suffix(PASTE_ENDS)
            .is_some_and(|pasted| pasted.ends_with(b"\n") || pasted.ends_with(b"\r"))
    }

    fn clear(&mut self) {
        wipe(&mut self.0);
        self.0.clear();
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Where `marker` begins for the last time.
fn last(bytes: &[u8], marker: &[u8]) -> Option<usize> {
    bytes
        .windows(marker.len())
        .rposition(|window| window == marker)
}

/// The key in what was typed.
fn parse(typed: &[u8]) -> Result<Secret, &'static str> {
    let mut key = Typed(Vec::with_capacity(typed.len()));
    let mut rest = typed;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match [PASTE_BEGINS, PASTE_ENDS]
            .into_iter()
            .find_map(|marker| rest.strip_prefix(marker))
        {
            Some(rest) => rest,
            None => {
                key.0.push(byte);
                after
            }
        };
    }
    let key = key.0.trim_ascii();
    if key.is_empty() {
        return Err("secret cannot be empty");
    }
    if !key.iter().all(u8::is_ascii_graphic) {
        return Err("a key has printable ASCII characters only, and no space");
    }
    let key = std::str::from_utf8(key).expect("ASCII is UTF-8");
    Ok(Secret::new(key))
}

/// A terminal that shows nothing of what is typed, until this is dropped.
#[derive(Debug)]
struct Silent<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
    silent: Termios,
}

impl<'a> Silent<'a> {
    fn enter(terminal: BorrowedFd<'a>) -> std::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(
            LocalModes::ECHO
                | LocalModes::ECHONL
                | LocalModes::ICANON
                | LocalModes::ISIG
                | LocalModes::IEXTEN,
        );
        // A Ctrl-S would hold everything up, unseen.
        silent.input_modes.remove(InputModes::IXON);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        let this = Self {
            terminal,
            before,
            silent,
        };
        this.apply()?;
        Ok(this)
    }

    fn apply(&self) -> std::io::Result<()> {
        tcsetattr(self.terminal, OptionalActions::Now, &self.silent)?;
        // What was typed before the question was shown, and is no answer to it.
        tcflush(self.terminal, QueueSelector::IFlush)?;
        Ok(())
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // What follows the key in a paste is not for the shell to run, and the
        // rest of a key not for it to show. A terminal that is gone needs
        // nothing undone.
        let _gone = tcflush(self.terminal, QueueSelector::IFlush);
        let _gone = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
