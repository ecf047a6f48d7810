//! Whether a port can be had, and who is in the way if not.

use std::io;
use std::time::Duration;

use stigmer_sdk::wire::host::StatusRequest;
use tokio::net::TcpListener;

use super::super::daemon::Daemon;
use super::super::failure::{Failure, Result};
use super::plan::is_asked;
use crate::config::Config;
use crate::local::port_owner;

/// How long whoever has the port may take to say who it is.
const PATIENCE: Duration = Duration::from_millis(500);

/// Fails if another process has the port, and says which. It may be taken all
/// the same in the moment after that: then the daemon says so.
pub(super) async fn check(config: &Config) -> Result<()> {
    let port = config.port;
    if port == 0 {
        return Ok(());
    }
    match TcpListener::bind(("127.0.0.1", port)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        // Whatever else there is to say, the daemon says.
        Ok(_) | Err(_) => return Ok(()),
    }
    let holder = match daemon(config).await {
        Some(daemon) => daemon,
        None => port_owner::of(port).unwrap_or_else(|| "another process".to_owned()),
    };
    Err(Failure::failed(format!(
        "failed to start daemon: port {port} is in use by {holder}"
    ))
    .hint("stop that process, or choose another port with --port (0: any that is free)"))
}

/// A daemon of ours with another data directory. The kernel shows nothing of
/// its descriptors, because it holds keys, so it is asked; with the key that
/// everybody knows, and if that is not the one, not at all.
async fn daemon(config: &Config) -> Option<String> {
    if is_asked(config, "STIGMER_API_KEY") {
        return None;
    }
    let there = Config {
        endpoint: format!("127.0.0.1:{}", config.port),
        endpoint_is_default: false,
        ..config.clone()
    };
    let ask = async {
        let daemon = Daemon::connect(&there).await.ok()?;
        let answer = daemon.daemon().status(StatusRequest {}).await.ok()?;
        let status = answer.into_inner();
        Some(format!(
            "process {} (the Stigmer daemon of {})",
            status.pid, status.data_dir
        ))
    };
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten()
}
