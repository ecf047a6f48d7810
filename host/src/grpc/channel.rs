//! Connections to a daemon or to a plugin, and the key that calls carry.

use std::time::Duration;

use stigmer_sdk::{Error, ErrorCode, Result};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::tuning;

/// A channel whose calls carry a key.
pub type Keyed = InterceptedService<Channel, Key>;

/// Puts `authorization: Bearer KEY` on every call, if there is a key.
#[derive(Clone)]
pub struct Key(Option<MetadataValue<Ascii>>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(***)")
    }
}

impl Key {
    /// For a peer that asks for none.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Checks and wraps a key.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot stand in a header.
    pub fn new(key: &str) -> Result<Self> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {key}").parse().map_err(|_| {
            Error::new(
                ErrorCode::InvalidArgument,
                "the API key has characters other than visible ASCII",
            )
        })?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Connects to `host:port` or `unix:/path`.
///
/// # Errors
/// `InvalidArgument` for an endpoint of another form, `Unavailable` if nothing
/// answers there.
pub async fn connect(endpoint: &str, key: Key) -> Result<Keyed> {
    let uri = if endpoint.starts_with("unix:") || endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("http://{endpoint}")
    };
    let channel = tuned(Endpoint::from_shared(uri).map_err(|error| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("'{endpoint}' is neither host:port nor unix:/path"),
        )
        .with_source(error)
    })?)
    .connect()
    .await
    .map_err(|error| {
        Error::new(
            ErrorCode::Unavailable,
            format!("nothing answers at {endpoint}"),
        )
        .with_source(error)
    })?;
    Ok(InterceptedService::new(channel, key))
}

/// An endpoint with the client's half of [`tuning`].
pub fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .initial_stream_window_size(tuning::STREAM_WINDOW)
        .initial_connection_window_size(tuning::CONNECTION_WINDOW)
        .max_frame_size(tuning::FRAME)
        .http2_max_header_list_size(tuning::HEADERS)
}
