//! All services behind one door, on both listeners.

use std::sync::Arc;
use std::time::Duration;

use stigmer_sdk::{Error, Result};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::auth::Auth;
use super::door::Door;
use super::generated::agent::{executions_server, runners_server, sessions_server};
use super::generated::host::{commands_server, daemon_server, files_server, sandboxes_server};
use super::generated::sandbox::backend_server;
use super::peer::Connection;
use super::services::Services;
use super::tuning;
use crate::agents::Agents;
use crate::config::Config;
use crate::sandboxes::Manager;
use crate::server::about::About;
use crate::server::metrics::Metrics;

/// What health is asked about: the daemon as a whole, and each service.
const HEALTH_NAMES: [&str; 9] = [
    "",
    daemon_server::SERVICE_NAME,
    sandboxes_server::SERVICE_NAME,
    commands_server::SERVICE_NAME,
    files_server::SERVICE_NAME,
    backend_server::SERVICE_NAME,
    sessions_server::SERVICE_NAME,
    executions_server::SERVICE_NAME,
    runners_server::SERVICE_NAME,
];

/// Says whether the daemon serves, to those who watch.
#[derive(Clone, Debug)]
pub(crate) struct Health(pub(super) HealthReporter);

impl Health {
    pub(crate) async fn new() -> Self {
        let health = Self(HealthReporter::new());
        health.set(false).await;
        health
    }

    pub(crate) async fn set(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in HEALTH_NAMES {
            self.0.set_service_status(name, status).await;
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) tcp: TcpListener,
    pub(crate) unix: UnixListener,
}

/// What the services answer from.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) config: Arc<Config>,
    pub(crate) manager: Arc<Manager>,
    pub(crate) agents: Arc<Agents>,
    pub(crate) about: About,
}

/// Serves until `stop`; then accepts nothing new, lets go of connections that
/// are idle, and is over when the last call is.
pub(crate) async fn serve(
    served: Served,
    listeners: Listeners,
    health: Health,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<()> {
    let door = Door {
        auth: Arc::new(Auth::new(served.config.mode, served.config.api_key.clone())),
        metrics,
    };
    let services = Services::new(served, health)?;
    // The loops end, and their listeners close, when this is dropped.
    let (connections, mut accepting) = accept(listeners, stop.clone());
    let served = Server::builder()
        .initial_stream_window_size(tuning::STREAM_WINDOW)
        .initial_connection_window_size(tuning::CONNECTION_WINDOW)
        .max_concurrent_streams(tuning::MAX_STREAMS)
        .max_frame_size(tuning::FRAME)
        .http2_max_header_list_size(tuning::HEADERS)
        .http2_keepalive_interval(Some(tuning::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(tuning::KEEPALIVE_TIMEOUT))
        .layer(door)
        .serve_with_incoming_shutdown(services, connections, stop.cancelled_owned())
        .await;
    accepting.shutdown().await;
    served.map_err(|error| Error::internal("serving failed", error))
}

type Accepted = std::io::Result<Connection>;

fn accept(
    listeners: Listeners,
    stop: CancellationToken,
) -> (ReceiverStream<Accepted>, JoinSet<()>) {
    let (connections, stream) = mpsc::channel(16);
    let permits = Arc::new(Semaphore::new(tuning::MAX_CONNECTIONS));
    let mut loops = JoinSet::new();
    let tcp = accept_tcp(listeners.tcp, Arc::clone(&permits), connections.clone());
    let unix = accept_unix(listeners.unix, permits, connections);
    loops.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            ((), ()) = futures_util::future::join(tcp, unix) => {}
        }
    });
    (ReceiverStream::new(stream), loops)
}

/// A permit comes before the connection: what cannot be served waits in the
/// kernel's queue. The loops end when nobody wants connections any more.
async fn accept_tcp(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    connections: mpsc::Sender<Accepted>,
) {
    let mut identifying = JoinSet::new();
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                failed(&error).await;
                continue;
            }
        };
        // Whose it is takes a moment to find out, in which others may connect.
        let connections = connections.clone();
        identifying.spawn(async move {
            match Connection::tcp(stream, permit).await {
                // The receiver is gone only when serving is over.
                Ok(connection) => drop(connections.send(Ok(connection)).await),
                Err(error) => tracing::debug!(%error, "a connection broke before it was served"),
            }
        });
        while identifying.try_join_next().is_some() {}
    }
}

async fn accept_unix(
    listener: UnixListener,
    permits: Arc<Semaphore>,
    connections: mpsc::Sender<Accepted>,
) {
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                if connections
                    .send(Ok(Connection::unix(stream, permit)))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => failed(&error).await,
        }
    }
}

/// Accepting fails when a connection is gone again, or when descriptors have
/// run out. Waiting helps the second and does not harm the first.
async fn failed(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
