//! The way to the daemon: its Unix socket in the data directory, or the
//! endpoint that somebody set.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use stigmer_sdk::wire::host;
use tokio::net::{TcpStream, UnixStream};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::failure::{Failure, Result};
use crate::config::Config;
use crate::grpc::generated::agent::executions_client::ExecutionsClient;
use crate::grpc::generated::agent::sessions_client::SessionsClient;
use crate::grpc::generated::host::commands_client::CommandsClient;
use crate::grpc::generated::host::daemon_client::DaemonClient;
use crate::grpc::generated::host::files_client::FilesClient;
use crate::grpc::generated::host::sandboxes_client::SandboxesClient;

/// How large a chunk of a file or of stdin is.
pub(super) const CHUNK: usize = 1024 * 1024;
/// How long a daemon has to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 flow control, large enough that one stream can fill the socket.
const WINDOW: u32 = 8 * 1024 * 1024;

/// What every call goes through.
pub(super) type Service = InterceptedService<Channel, Bearer>;

/// Puts the key on every call.
#[derive(Clone, Debug)]
pub(super) struct Bearer(AsciiMetadataValue);

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

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(authority) => f.write_str(authority),
        }
    }
}

impl Address {
    fn of(config: &Config) -> Result<Self> {
        if config.endpoint_is_default {
            return Ok(Self::Unix(config.socket_path()));
        }
        Self::parse(&config.endpoint)
    }

    fn parse(endpoint: &str) -> Result<Self> {
        if let Some(path) = endpoint.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Unix(Path::new(path).to_owned()));
        }
        if endpoint.starts_with("https://") {
            return Err(Failure::usage(format!(
                "cannot use the endpoint '{endpoint}': TLS is not built in"
            ))
            .hint("end TLS in front of the daemon, and name host:port or unix:/path here"));
        }
        let authority = endpoint.strip_prefix("http://").unwrap_or(endpoint);
        Ok(Self::Tcp(authority.trim_end_matches('/').to_owned()))
    }
}

/// A connection to the daemon.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    channel: Channel,
    bearer: Bearer,
    message_bytes: usize,
}

impl Daemon {
    pub(super) async fn connect(config: &Config) -> Result<Self> {
        let address = Address::of(config)?;
        let bearer = format!("Bearer {}", config.api_key.expose());
        let mut bearer = AsciiMetadataValue::try_from(bearer).map_err(|_| {
            Failure::usage("STIGMER_API_KEY has a character that no header can carry")
        })?;
        bearer.set_sensitive(true);
        // The authority of a Unix socket is of no meaning.
        let endpoint = Endpoint::from_static("http://localhost")
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW);
        let channel = match address.clone() {
            Address::Unix(path) => {
                let connector = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                endpoint.connect_with_connector(connector).await
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
                endpoint.connect_with_connector(connector).await
            }
        };
        match channel {
            Ok(channel) => Ok(Self {
                channel,
                bearer: Bearer(bearer),
                message_bytes: config.limits.message_bytes,
            }),
            Err(error) => Err(cannot_connect(&address, &error)),
        }
    }

    /// The most data that one message may carry, with room for what is around it.
    pub(super) fn max_data(&self) -> usize {
        self.message_bytes.saturating_sub(64 * 1024).max(CHUNK)
    }

    /// For services that are not Stigmer's own, which take no key.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn daemon(&self) -> DaemonClient<Service> {
        DaemonClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(self.message_bytes)
    }

    pub(super) fn sandboxes(&self) -> SandboxesClient<Service> {
        SandboxesClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(self.message_bytes)
    }

    pub(super) fn commands(&self) -> CommandsClient<Service> {
        CommandsClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(self.message_bytes)
    }

    pub(super) fn files(&self) -> FilesClient<Service> {
        FilesClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(self.message_bytes)
    }

    pub(super) fn sessions(&self) -> SessionsClient<Service> {
        SessionsClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(self.message_bytes)
    }

    pub(super) fn executions(&self) -> ExecutionsClient<Service> {
        ExecutionsClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(self.message_bytes)
    }

    /// Looks a sandbox up by its id or its name.
    pub(super) async fn sandbox(&self, name: &str) -> Result<host::Sandbox, Failure> {
        let request = host::GetSandboxRequest {
            sandbox_id: name.to_owned(),
        };
        let sandbox = self.sandboxes().get(request).await?.into_inner().sandbox;
        sandbox.ok_or_else(incomplete)
    }

    /// What a client for any other service is made from.
    pub(super) fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }
}

/// An answer without a field that the protocol promises.
pub(super) fn incomplete() -> Failure {
    Failure::failed("the daemon's answer is incomplete")
        .hint("see whether it has another version than this client: stigmer doctor")
}

fn cannot_connect(address: &Address, error: &dyn std::error::Error) -> Failure {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Failure::failed(format!(
        "cannot connect to the Stigmer daemon at {address}; is it running?"
    ))
    .because(cause)
    .hint("start it with: stigmer local start")
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
        check(
            "localhost:50051",
            Some(Address::Tcp("localhost:50051".to_owned())),
        );
        check(
            "http://[::1]:50051/",
            Some(Address::Tcp("[::1]:50051".to_owned())),
        );
        check(
            "unix:/run/a b.sock",
            Some(Address::Unix("/run/a b.sock".into())),
        );
        check(
            "unix:///run/s.sock",
            Some(Address::Unix("/run/s.sock".into())),
        );
        check("https://example.org:443", None);
    }

    #[test]
    fn a_daemon_that_is_not_there_says_how_to_start_it() {
        let address = Address::Unix("/data/stigmer.sock".into());
        let failure = cannot_connect(&address, &std::io::Error::from_raw_os_error(2));
        assert_eq!(
            failure.problems,
            ["cannot connect to the Stigmer daemon at /data/stigmer.sock; is it running?"]
        );
        assert_eq!(failure.causes, ["No such file or directory (os error 2)"]);
        assert_eq!(failure.hints, ["start it with: stigmer local start"]);
    }
}
