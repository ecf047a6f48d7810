//! What the daemon counts, and the endpoint that shows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Code;

use crate::sandboxes::Manager;

/// Clients at a time that may look.
const MAX_CONNECTIONS: usize = 16;
/// A client that sends nothing for so long is not one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    method: String,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByMethod {
    method: String,
}

/// Counters for the life of the daemon.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    operations: Family<Operation, Counter>,
    durations: Family<ByMethod, Histogram, fn() -> Histogram>,
    running: Gauge<u64, AtomicU64>,
    open: Gauge<u64, AtomicU64>,
    known: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From 0.1 ms, about the fastest call, to 27 minutes in steps of four.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0001, 4.0, 13));
        let mut registry = Registry::with_prefix("stigmer");
        let operations = Family::default();
        let durations = Family::new_with_constructor(histogram);
        let (running, open, known) = (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register(
            "operations",
            "Calls that ended, by method and gRPC status",
            operations.clone(),
        );
        registry.register(
            "operation_duration_seconds",
            "How long calls took",
            durations.clone(),
        );
        registry.register("running_commands", "Commands that run", running.clone());
        registry.register(
            "open_sandboxes",
            "Sandboxes that are attached",
            open.clone(),
        );
        registry.register(
            "known_sandboxes",
            "Sandboxes in the registry",
            known.clone(),
        );
        Self {
            registry,
            operations,
            durations,
            running,
            open,
            known,
        }
    }
}

impl Metrics {
    /// Counts a call that ended.
    pub(crate) fn count(&self, method: String, code: Code, took: Duration) {
        self.operations
            .get_or_create(&Operation {
                method: method.clone(),
                code: name(code),
            })
            .inc();
        self.durations
            .get_or_create(&ByMethod { method })
            .observe(took.as_secs_f64());
    }

    async fn show(&self, manager: &Manager) -> Result<String> {
        let counts = manager.counts().await?;
        self.running.set(counts.running);
        self.open.set(counts.open);
        self.known.set(counts.known);
        let mut shown = String::new();
        text::encode(&mut shown, &self.registry)
            .map_err(|error| Error::internal("cannot write the metrics", error))?;
        Ok(shown)
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// Opens the endpoint's address.
///
/// # Errors
/// `Unavailable` if somebody else has it.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::new(
            ErrorCode::Unavailable,
            format!("cannot serve metrics on {address}"),
        )
        .with_source(error)
    })
}

/// Answers `GET /metrics` in the text format of Prometheus, for as long as it
/// is polled.
pub(super) async fn serve(listener: TcpListener, metrics: Arc<Metrics>, manager: Arc<Manager>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: others need them first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (metrics, manager) = (Arc::clone(&metrics), Arc::clone(&manager));
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (metrics, manager) = (Arc::clone(&metrics), Arc::clone(&manager));
            async move {
                let found = request.method() == Method::GET && request.uri().path() == "/metrics";
                let (status, body) = match found {
                    false => (
                        StatusCode::NOT_FOUND,
                        "the metrics are at /metrics\n".to_owned(),
                    ),
                    true => match metrics.show(&manager).await {
                        Ok(shown) => (StatusCode::OK, shown),
                        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
                    },
                };
                Response::builder()
                    .status(status)
                    .header(
                        header::CONTENT_TYPE,
                        "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    )
                    .body(Full::new(Bytes::from(body)))
            }
        });
        connections.spawn(async move {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a client of the metrics went away");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_status() {
        let metrics = Metrics::default();
        metrics.count("a/B".to_owned(), Code::Ok, Duration::from_millis(1));
        metrics.count("a/B".to_owned(), Code::Ok, Duration::from_millis(1));
        metrics.count("a/B".to_owned(), Code::NotFound, Duration::from_millis(1));
        let mut shown = String::new();
        text::encode(&mut shown, &metrics.registry).unwrap();
        #[track_caller]
        fn check(shown: &str, line: &str) {
            assert!(shown.lines().any(|have| have == line), "{line} in\n{shown}");
        }
        check(
            &shown,
            r#"stigmer_operations_total{method="a/B",code="ok"} 2"#,
        );
        check(
            &shown,
            r#"stigmer_operations_total{method="a/B",code="not_found"} 1"#,
        );
        check(
            &shown,
            r#"stigmer_operation_duration_seconds_count{method="a/B"} 3"#,
        );
        check(&shown, "stigmer_known_sandboxes 0");
    }
}
