//! Drives the real `stigmer` from the outside, as its users do.
//!
//! | module | shows |
//! | --- | --- |
//! | `conformance` | the native backend keeps the contract, directly and over gRPC |
//! | `exec`, `ending`, `terminal` | one command without a daemon: what goes in, comes out, and how it ends |
//! | `sandboxes`, `files` | every `stigmer sandbox` command, once well and once badly |
//! | `supervisor` | the daemon's own runner: started again, and never left behind |
//! | `daemon`, `access` | the daemon's own life, and who may use it |
//! | `local` | the daemon in the background: started, shown, followed, stopped |
//! | `agents` | sessions and executions, as clients and runners see them |
//! | `agent_runner` | the built-in runner, between a daemon and fake providers |
//! | `agent_tools` | the tools of an agent, in a real sandbox |
//! | `run` | agents on the command line, and what a user reads who got that wrong |
//! | `load` | many clients, slow ones, and those that vanish |
//! | `kill_loop` | a daemon killed at a random moment, again and again |
//! | `projects` | real projects, built and tested in a sandbox |
//! | `models`, `vendor_sdks` | what providers are asked, and whether their fakes are honest |
//! | `at_work` | a model at work in a sandbox, from the first prompt to the last kill |
//! | `wrong`, `wrong_in_daemon`, `wrong_requests` | what a user reads who got it wrong |
//! | `house` | who may import whom, and where unsafe code may be |
//!
//! No test needs another, a fixed port or the network, and none sleeps to wait.

mod access;
mod agent_runner;
mod agent_tools;
mod agents;
mod at_work;
mod client;
mod conformance;
mod daemon;
mod ending;
mod exec;
mod files;
mod house;
mod kill_loop;
mod load;
mod local;
mod models;
mod projects;
mod run;
mod sandboxes;
mod supervisor;
mod terminal;
mod vendor_sdks;
mod wrong;
mod wrong_in_daemon;
mod wrong_requests;
