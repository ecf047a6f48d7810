//! Asking the daemon of a data directory: over the socket in it, whatever
//! endpoint other commands use.

use std::io::ErrorKind;
use std::time::Duration;

use stigmer_sdk::wire::host::{StatusRequest, StatusResponse};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::super::daemon::Daemon;
use super::super::failure::{Failure, Result};
use crate::config::Config;

/// How long a daemon may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a daemon that is ending may still seem to listen.
const LAST_BREATH: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile.
const INTERVAL: Duration = Duration::from_millis(10);

/// How the daemon is; `None` if there is none.
///
/// # Errors
/// If there is one that gives no answer, or that does not know us.
pub(super) async fn status(config: &Config) -> Result<Option<StatusResponse>> {
    let limit = Instant::now() + LAST_BREATH;
    let ask = async {
        loop {
            match attempt(config).await {
                Err(Unanswered::Broken(_)) if Instant::now() < limit => {
                    tokio::time::sleep(INTERVAL).await;
                }
                Err(Unanswered::Broken(failure) | Unanswered::Refused(failure)) => {
                    return Err(failure);
                }
                Ok(answer) => return Ok(answer),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, ask).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::failed(format!(
            "the daemon at {} gives no answer within {PATIENCE:?}",
            config.socket_path().display()
        ))
        .hint("end it with: stigmer local stop")),
    }
}

/// Why there is no answer although somebody listens.
enum Unanswered {
    /// The connection ended, as it does with a daemon that is ending: a moment
    /// later nobody listens any more.
    Broken(Failure),
    Refused(Failure),
}

async fn attempt(config: &Config) -> Result<Option<StatusResponse>, Unanswered> {
    let Some(daemon) = connect(config).await.map_err(Unanswered::Broken)? else {
        return Ok(None);
    };
    match daemon.daemon().status(StatusRequest {}).await {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) => {
            let broken = matches!(status.code(), Code::Unavailable | Code::Unknown);
            let failure = Failure::from(status);
            Err(if broken {
                Unanswered::Broken(failure)
            } else {
                Unanswered::Refused(failure)
            })
        }
    }
}

/// Whether it says that it serves.
pub(super) async fn serves(daemon: &Daemon) -> bool {
    let mut health = HealthClient::new(daemon.channel());
    let answer = health.check(HealthCheckRequest::default()).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

/// The daemon, if one listens on the socket.
pub(super) async fn connect(config: &Config) -> Result<Option<Daemon>> {
    if stream(config).await?.is_none() {
        return Ok(None);
    }
    let ours = Config {
        endpoint_is_default: true,
        ..config.clone()
    };
    Daemon::connect(&ours).await.map(Some)
}

/// The number of the process that listens on the socket, as the kernel has it.
pub(super) async fn listener(config: &Config) -> Result<Option<u32>> {
    let stream = stream(config).await?;
    let peer = stream.and_then(|stream| stream.peer_cred().ok());
    Ok(peer.and_then(|peer| u32::try_from(peer.pid()?).ok()))
}

/// A connection to the socket; `None` if nobody listens on it.
async fn stream(config: &Config) -> Result<Option<UnixStream>> {
    let path = config.socket_path();
    match UnixStream::connect(&path).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                // The second is what a killed daemon leaves; no socket can be
                // at a path that is too long for one.
                ErrorKind::NotFound
                    | ErrorKind::ConnectionRefused
                    | ErrorKind::NotADirectory
                    | ErrorKind::InvalidInput
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Failure::failed(format!(
            "cannot connect to the daemon's socket {}",
            path.display()
        ))
        .because(&error)),
    }
}
