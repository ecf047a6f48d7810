//! Lines that are typed at the terminal on stdin, while somebody asks.

use std::io::BufRead;

use rustix::termios::{QueueSelector, tcflush};
use tokio::sync::mpsc;

use crate::cli::output::Output;

/// The terminal, from the first question on.
#[derive(Debug, Default)]
pub(super) struct Typed {
    lines: Option<mpsc::Receiver<String>>,
    ended: bool,
}

impl Typed {
    /// Whether there is somebody to ask: who reads stderr and types on stdin.
    pub(super) fn possible(output: &Output) -> bool {
        output.stderr_is_terminal() && rustix::termios::isatty(rustix::stdio::stdin())
    }

    /// From somebody else than stdin.
    #[cfg(test)]
    pub(super) fn of(lines: mpsc::Receiver<String>) -> Self {
        Self {
            lines: Some(lines),
            ended: false,
        }
    }

    /// Begins to listen. What was typed before the question is no answer to it.
    pub(super) fn open(&mut self) {
        // Without a terminal there is nothing to be forgotten.
        let _no_terminal = tcflush(rustix::stdio::stdin(), QueueSelector::IFlush);
        if self.ended {
            return;
        }
        if let Some(lines) = &mut self.lines {
            while lines.try_recv().is_ok() {}
            return;
        }
        let (sender, lines) = mpsc::channel(1);
        self.lines = Some(lines);
        // A read from a terminal cannot be called off: it ends with stdin or
        // with the process.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { return };
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
    }

    /// The next line; none when nobody will type any more.
    pub(super) async fn line(&mut self) -> Option<String> {
        let line = match &mut self.lines {
            Some(lines) => lines.recv().await,
            None => return std::future::pending().await,
        };
        if line.is_none() {
            self.lines = None;
            self.ended = true;
        }
        line
    }
}
