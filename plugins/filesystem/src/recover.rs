//! Finding what a killed host left running.
//!
//! It should be nothing: the supervisors end with their host. This is for the
//! day on which somebody killed those as well.

use std::collections::HashSet;

use rustix::process::Signal;
use stigmer_sdk::SandboxId;

use crate::backend::SANDBOX_ID_VARIABLE;
use crate::launcher::{all_processes, signal_process};

/// Kills every process whose environment says that it is in one of these
/// sandboxes. A process can hide from this by clearing its environment, but
/// then it also had to kill its supervisor.
pub(crate) fn kill_orphans(sandboxes: &[SandboxId]) {
    let ids: HashSet<&str> = sandboxes.iter().map(SandboxId::as_str).collect();
    if ids.is_empty() {
        return;
    }
    for process in all_processes().unwrap_or_default() {
        // Unreadable means another user's, and so not ours.
        let Ok(environ) = std::fs::read(format!("/proc/{}/environ", process.pid)) else {
            continue;
        };
        if sandbox_of(&environ).is_some_and(|id| ids.contains(id)) {
            tracing::warn!(
                pid = process.pid,
                "killing a process that an earlier host left behind"
            );
            signal_process(process, Signal::KILL);
        }
    }
}

/// The sandbox that an environment block names.
fn sandbox_of(environ: &[u8]) -> Option<&str> {
    environ.split(|&byte| byte == 0).find_map(|variable| {
        let (name, value) = std::str::from_utf8(variable).ok()?.split_once('=')?;
        (name == SANDBOX_ID_VARIABLE).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_is_found_among_other_variables() {
        #[track_caller]
        fn check(environ: &[u8], sandbox: Option<&str>) {
            assert_eq!(sandbox_of(environ), sandbox);
        }
        check(b"A=1\0STIGMER_SANDBOX_ID=abc\0B=2\0", Some("abc"));
        check(b"X_STIGMER_SANDBOX_ID=abc\0", None);
        check(b"\xff\xfe=\0STIGMER_SANDBOX_ID=abc", Some("abc"));
        check(b"", None);
    }
}
