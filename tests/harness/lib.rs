//! What the end-to-end tests share: the real `stigmer`, and a place to run it in.
//!
//! | module | owns |
//! | --- | --- |
//! | [`binary`] | building the program under test, once |
//! | [`Home`] | a directory of a test's own, and what may not survive the test |
//! | [`Cli`] | one run of the program, with a deadline |
//! | [`Daemon`] | a daemon, and its end |
//! | [`process`] | what `/proc` says |
//! | [`pty`] | a terminal to run the program under |
//! | [`fakes`] | model providers that say what a test tells them to |
//! | [`eventually`] | waiting for a condition, which is the only waiting there is |
//!
//! A [`Home`] holds on to the promise that everything here is about: when it
//! is dropped, no process may be left that was started under it, and a test
//! that otherwise passed fails if there is one.

pub mod binary;
mod cli;
mod daemon;
pub mod fakes;
mod home;
pub mod process;
pub mod pty;
pub mod tree;
mod wait;

pub use cli::{Cli, Output, Running};
pub use daemon::Daemon;
pub use home::Home;
pub use wait::{eventually, note, skip};
