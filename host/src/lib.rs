//! Stigmer's host: loads sandbox backends, applies policy, and opens the doors
//! through which agents and people use them.
//!
//! | module | owns |
//! | --- | --- |
//! | [`config`] | what was typed and set, resolved once into what it means |
//! | [`registry`] | the backends there are, by name |
//! | [`guard`] | policy: the one decorator around every sandbox |
//! | [`ops`] | whole operations built over the contract, each written once |
//! | [`sandboxes`] | which sandboxes this data directory knows, and when they expire |
//! | [`agents`] | sessions and executions: what agents do, and which runner does it |
//! | [`processes`] | background processes and the output kept of them |
//! | [`grpc`] | the wire: services, authentication, the client side of a backend |
//! | [`local`] | the agent runner under the daemon's eye, keys and PID files |
//! | [`sqlite`] | how a database is opened, and the thread that owns it |
//! | [`logging`] | where the daemon's log goes |
//! | [`server`] | the daemon: what lives as long as it does, and how it ends |
//! | [`cli`] | the command line |

pub mod agents;
pub mod cli;
pub mod config;
pub mod grpc;
pub mod guard;
pub mod local;
pub mod logging;
pub mod ops;
pub mod processes;
pub mod registry;
pub mod sandboxes;
pub mod server;
mod sqlite;
