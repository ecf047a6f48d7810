//! The way to the daemon: one connection, the key that its calls carry, and
//! what its failures mean.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use stigmer_sdk::wire::{self, GRPC_ERROR_TRAILER};
use stigmer_sdk::{Error, ErrorCode};
use tokio::net::{TcpStream, UnixStream};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::error::RunnerError;
use crate::generated::agent::runners_client::RunnersClient;
use crate::generated::agent::sessions_client::SessionsClient;
use crate::generated::host::commands_client::CommandsClient;
use crate::generated::host::daemon_client::DaemonClient;
use crate::generated::host::files_client::FilesClient;
use crate::generated::host::sandboxes_client::SandboxesClient;
use crate::model::Key;

/// How long a daemon has to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A daemon that vanished without closing is noticed after this and the next.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// See [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 flow control, large enough that one stream can fill the socket.
const WINDOW: u32 = 4 * 1024 * 1024;
/// The largest answer: above what a daemon sends in one message unless told to.
const MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// How long an ordinary call may take. The daemon gives up on an operation
/// before that, and says why.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);

type Service = InterceptedService<Channel, Bearer>;

/// Puts the key on every call.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(AsciiMetadataValue);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Where a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
}

impl Address {
    fn parse(endpoint: &str) -> Result<Self, RunnerError> {
        let wrong = |problem| RunnerError::Endpoint {
            endpoint: endpoint.to_owned(),
            problem,
        };
        if let Some(path) = endpoint.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Unix(Path::new(path).to_owned()));
        }
        if endpoint.starts_with("https://") {
            return Err(wrong(
                "TLS is not built in; end it in front of the daemon, and name host:port here",
            ));
        }
        let authority = endpoint.strip_prefix("http://").unwrap_or(endpoint);
        let authority = authority.trim_end_matches('/');
        if authority.is_empty() || authority.contains('/') {
            return Err(wrong("it is neither host:port nor unix:/path"));
        }
        Ok(Self::Tcp(authority.to_owned()))
    }
}

/// A connection to the daemon, which all of a runner's work shares.
#[derive(Clone, Debug)]
pub struct Daemon {
    channel: Channel,
    bearer: Bearer,
}

impl Daemon {
    /// Connects once.
    ///
    /// # Errors
    /// [`RunnerError::Endpoint`] and [`RunnerError::Key`] for what cannot be
    /// used, [`RunnerError::Unreachable`] if nothing answers.
    pub async fn connect(endpoint: &str, key: &Key) -> Result<Self, RunnerError> {
        let address = Address::parse(endpoint)?;
        let mut bearer = AsciiMetadataValue::try_from(format!("Bearer {}", key.expose()))
            .map_err(|_| RunnerError::Key)?;
        bearer.set_sensitive(true);
        let connection = match address {
            Address::Unix(path) => {
                let connector = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                tuned().connect_with_connector(connector).await
            }
            Address::Tcp(authority) => {
                let connector = tower::service_fn(move |_| {
                    let authority = authority.clone();
                    async move {
                        let stream = TcpStream::connect(authority).await?;
                        stream.set_nodelay(true)?;
                        std::io::Result::Ok(TokioIo::new(stream))
                    }
                });
                tuned().connect_with_connector(connector).await
            }
        };
        let channel = connection.map_err(|error| RunnerError::Unreachable {
            endpoint: endpoint.to_owned(),
            source: Error::new(ErrorCode::Unavailable, "cannot connect").with_source(error),
        })?;
        Ok(Self {
            channel,
            bearer: Bearer(bearer),
        })
    }

    /// A connection to nowhere, for what is tested without a daemon.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let connector = tower::service_fn(|_| async {
            Err::<TokioIo<TcpStream>, _>(std::io::Error::from(
                std::io::ErrorKind::ConnectionRefused,
            ))
        });
        Self {
            channel: tuned().connect_with_connector_lazy(connector),
            bearer: Bearer(AsciiMetadataValue::from_static("Bearer none")),
        }
    }

    pub(crate) fn daemon(&self) -> DaemonClient<Service> {
        DaemonClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn sandboxes(&self) -> SandboxesClient<Service> {
        SandboxesClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn commands(&self) -> CommandsClient<Service> {
        CommandsClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn files(&self) -> FilesClient<Service> {
        FilesClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn sessions(&self) -> SessionsClient<Service> {
        SessionsClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn runners(&self) -> RunnersClient<Service> {
        RunnersClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
    }
}

fn tuned() -> Endpoint {
    // The authority is of no meaning: the connectors know where to go.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// A call with the deadline of an ordinary one.
pub(crate) fn call<T>(message: T) -> Request<T> {
    within(CALL_TIMEOUT, message)
}

/// A call with a deadline.
pub(crate) fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// The error that a status stands for, whoever made it.
pub(crate) fn from_status(status: Status) -> Error {
    let trailer = status
        .metadata()
        .get_bin(GRPC_ERROR_TRAILER)
        .and_then(|value| value.to_bytes().ok());
    let code = status.code();
    // Without a trailer and with a source, no peer said this: the connection
    // broke. tonic calls that UNKNOWN or INTERNAL, depending on where.
    let connection_broke = trailer.is_none()
        && status.source().is_some()
        && !matches!(code, Code::Cancelled | Code::DeadlineExceeded);
    if connection_broke {
        return Error::new(ErrorCode::Unavailable, "the connection to the daemon broke")
            .with_source(status);
    }
    wire::error_of_status(code as i32, status.message(), trailer.as_deref())
}

/// An answer without a field that the protocol promises.
pub(crate) fn incomplete(field: &str) -> Error {
    Error::new(
        ErrorCode::Internal,
        format!(
            "the daemon's answer has no `{field}`; it may have another version than this runner"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_socket_or_an_authority() {
        #[track_caller]
        fn check(endpoint: &str, expected: Option<Address>) {
            assert_eq!(Address::parse(endpoint).ok(), expected);
        }
        let tcp = |authority: &str| Some(Address::Tcp(authority.to_owned()));
        check("localhost:50051", tcp("localhost:50051"));
        check("http://[::1]:50051/", tcp("[::1]:50051"));
        check(
            "unix:/run/a b.sock",
            Some(Address::Unix("/run/a b.sock".into())),
        );
        check(
            "unix:///run/s.sock",
            Some(Address::Unix("/run/s.sock".into())),
        );
        check("https://example.org:443", None);
        check("http://", None);
        check("/run/s.sock", None);
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_unreachable() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = format!("unix:{}", dir.path().join("none").display());
        let error = Daemon::connect(&endpoint, &Key::new("k"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, RunnerError::Unreachable { .. }),
            "{error:?}"
        );
        let error = Daemon::connect(&endpoint, &Key::new("a\nb"))
            .await
            .unwrap_err();
        assert!(matches!(error, RunnerError::Key), "{error:?}");
    }
}
