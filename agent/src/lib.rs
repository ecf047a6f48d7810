//! The agent runner: lets a language model work in a sandbox.
//!
//! A runner registers with the daemon, claims executions, and for each of them
//! goes round: ask the model, run the tools it calls, in the sandbox, until it
//! has nothing more to call. What happens is reported to the daemon as it
//! happens. The runner keeps nothing: a conversation is what the daemon
//! recorded of it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`model`] | language models: what is said to them and what they answer, whoever makes them |
//! | `worker` | the runner's own life: registering, claiming, letting go |
//! | `execution`, `prepare`, `ending` | one execution from the claim to its final phase; what it starts from; why it may stop before |
//! | `turn`, `ask`, `calls` | the loop: one answer of the model, and the calls that it makes |
//! | `history`, `compact`, `prompt` | what the model is shown |
//! | [`tools`] | what it can do, all of it in a sandbox |
//! | `skills`, `sandbox`, `diff` | what is written there, how it is reached, what changed in it |
//! | `approve`, `limits`, [`mask`] | what it may do, how far, and what nobody sees |
//! | `report`, [`daemon`] | what happens, on its way to the daemon; the way there |
//!
//! It talks gRPC to the daemon and HTTP to the model's provider, and to nobody
//! else.

mod approve;
mod ask;
mod calls;
mod compact;
pub mod daemon;
mod diff;
mod ending;
mod error;
mod execution;
mod history;
mod limits;
pub mod mask;
pub mod model;
mod prepare;
mod prompt;
mod report;
pub mod sandbox;
mod skills;
pub mod tools;
mod turn;
mod worker;

pub use error::RunnerError;
pub use worker::run;

use model::Providers;

/// What a runner has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon: `host:port` or `unix:/path`.
    pub endpoint: String,
    /// What every call to the daemon carries.
    pub api_key: model::Key,
    /// Names this process in logs and in executions; unique at the daemon.
    pub runner_id: String,
    /// The models it can ask.
    pub providers: Providers,
    /// How many executions it works on at once.
    pub concurrency: usize,
}

/// Generated clients; their messages are the SDK's.
#[expect(
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]
mod generated {
    pub(crate) mod host {
        tonic::include_proto!("stigmer.host.v1");
    }
    pub(crate) mod agent {
        tonic::include_proto!("stigmer.agent.v1");
    }
}
