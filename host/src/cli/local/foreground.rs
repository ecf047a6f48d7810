//! A daemon with somebody in front of it: its log goes to stderr, and what
//! asks us to end is passed on to it.

use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::super::exit::Outcome;
use super::super::failure::{Failure, Result};
use super::super::output::Output;
use super::Interrupts;
use super::log_text;
use super::logs::Logs;

/// How often the log and the daemon are looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Stays until the daemon has ended. One signal ends it gracefully, the second
/// one at once, as with a daemon that was started by hand.
pub(super) async fn stay(
    mut child: Child,
    mut log: Logs,
    interrupts: &mut Interrupts,
    output: &Output,
) -> Result<Outcome> {
    let mut asked = None;
    loop {
        let ended = child
            .try_wait()
            .map_err(|error| Failure::failed("cannot wait for the daemon").because(&error))?;
        // After that look, so that its last words are shown too.
        while let Some(line) = log
            .line()
            .map_err(|error| Failure::failed("cannot follow the log").because(&error))?
        {
            output.note(log_text::text(&line, false, str::to_owned));
        }
        if let Some(status) = ended {
            return match asked {
                _ if status.success() => Ok(Outcome::Success),
                Some(signal) => Err(Failure::interrupted(signal)),
                None => Err(Failure::failed(format!("the daemon ended with {status}"))),
            };
        }
        tokio::select! {
            signal = interrupts.recv() => {
                asked = Some(signal);
                // Not waited for yet: the number is still its own.
                let _gone = kill_process(Pid::from_child(&child), Signal::TERM);
            }
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
