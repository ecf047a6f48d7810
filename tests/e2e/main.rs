//! Drives the real `stigmer` from the outside, as its users do.
//!
//! | module | shows |
//! | --- | --- |
//! | `conformance` | the native backend keeps the contract, directly and over gRPC |
//! | `exec`, `ending`, `terminal` | one command without a daemon: what goes in, comes out, and how it ends |
//! | `sandboxes`, `files` | every `stigmer sandbox` command, once well and once badly |
//! | `daemon`, `access` | the daemon's own life, and who may use it |
//! | `load` | many clients, slow ones, and those that vanish |
//! | `kill_loop` | a daemon killed at a random moment, again and again |
//! | `projects` | real projects, built and tested in a sandbox |
//! | `wrong`, `wrong_in_daemon`, `wrong_requests` | what a user reads who got it wrong |
//! | `house` | who may import whom, and where unsafe code may be |
//!
//! No test needs another, a fixed port or the network, and none sleeps to wait.

mod access;
mod client;
mod conformance;
mod daemon;
mod ending;
mod exec;
mod files;
mod house;
mod kill_loop;
mod load;
mod projects;
mod sandboxes;
mod terminal;
mod wrong;
mod wrong_in_daemon;
mod wrong_requests;
