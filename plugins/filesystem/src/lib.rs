//! The native backend: real processes in a directory of this machine.
//!
//! | module | owns |
//! | --- | --- |
//! | `backend`, `manifest`, `recover` | which sandboxes there are, before and after a crash |
//! | `sandbox` | one of them: its directory and its processes |
//! | `files` | the file API, by descriptor and never by checking strings |
//! | `running` | a command: its pipes, inputs and events |
//! | `supervise`, `protocol` | the host's side of the processes that start commands |
//! | `launcher` | those processes: launcher, supervisor, runner |
//!
//! It does **not** confine what a command may read, change or reach. It does
//! promise that a command's whole tree ends with it when it is killed, with
//! its sandbox, and with the host, whatever ends that.

mod backend;
mod files;
mod launcher;
mod manifest;
mod protocol;
mod recover;
mod running;
mod sandbox;
mod supervise;

pub use backend::{Config, Filesystem, INHERITED_VARIABLES, SANDBOX_ID_VARIABLE};
pub use launcher::run_if_asked;
