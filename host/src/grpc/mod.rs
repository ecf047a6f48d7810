//! The wire: services, authentication, the client side of a backend.
//!
//! ```text
//! TCP, Unix socket ─▶ peer ─▶ door: auth, span, metrics ─▶ services ─▶ manager, guard
//! ```
//!
//! This is the one place that speaks gRPC. A service converts what comes in,
//! calls what the rest of the host offers, and converts what goes out.

mod agents;
mod auth;
pub mod backend_client;
pub mod backend_server;
mod calls;
pub mod channel;
mod commands;
mod convert;
mod door;
mod files;
pub(crate) mod peer;
mod sandboxes;
pub(crate) mod serve;
mod services;
pub mod status;
mod streams;
mod trace;
mod transfer;
mod tuning;

/// Generated services; their messages are the SDK's.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod generated {
    pub mod sandbox {
        tonic::include_proto!("stigmer.sandbox.v1");
    }
    pub mod host {
        tonic::include_proto!("stigmer.host.v1");
    }
    pub mod agent {
        tonic::include_proto!("stigmer.agent.v1");
    }
}

/// For the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stigmer.bin"));
