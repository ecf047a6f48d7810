//! What local mode adds to a daemon: its runner, who is who among processes,
//! and the way of a key from the person who typed it to the process that
//! sends it.
//!
//! ```text
//! stigmer local start ──keys, by a pipe──▶ stigmer server ──keys, by a pipe──▶ stigmer agent-runner
//!                                          daemon.pid, agent-runner.pid,
//!                                          logs/daemon.log, logs/agent-runner.log
//! ```
//!
//! | module | owns |
//! | --- | --- |
//! | [`supervisor`] | the daemon's runner: started, watched, started again, ended |
//! | [`keeper`] | the same for a runner that somebody else wrote |
//! | [`life_line`] | how a runner learns that its daemon died |
//! | [`environment`] | what a runner is given in its environment |
//! | [`handover`], [`private`] | keys on their way between processes, and in one |
//! | [`pid_file`] | which process is meant, so that no other is ever signalled |
//! | [`port_owner`] | who is in the way when a port is taken |
//! | [`provider`] | which provider is asked when nobody says which |
//!
//! *Invariant:* a key is in the memory of those three processes and of whom
//! they call with it, and in no file, argument or environment of theirs. The
//! one exception is a runner that somebody else wrote, which gets it as it
//! expects it: in its environment.

pub mod environment;
pub mod handover;
pub mod keeper;
pub mod life_line;
pub mod pid_file;
pub mod port_owner;
pub mod private;
mod proc;
pub mod provider;
pub mod supervisor;

/// A command that runs this very program, also when an upgrade has replaced
/// its file.
#[expect(
    clippy::disallowed_methods,
    reason = "the daemon and its runner are one program"
)]
fn this_program() -> std::process::Command {
    use std::os::unix::process::CommandExt as _;

    let mut command = std::process::Command::new("/proc/self/exe");
    // For people who look at a list of processes.
    command.arg0("stigmer");
    command
}
