//! What every call passes on its way in and out: authentication, a span, and
//! the metrics.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use stigmer_sdk::wire::GRPC_ERROR_TRAILER;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};

use super::auth::Auth;
use super::peer::Peer;
use super::status::to_status;
use super::trace::Trace;
use crate::server::metrics::Metrics;

/// The layer around all services.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) auth: Arc<Auth>,
    pub(super) metrics: Arc<Metrics>,
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            door: self.clone(),
        }
    }
}

/// All services behind the door.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    door: Door,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Observed>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().copied();
        let path = request.uri().path();
        let trace = Trace::of(request.headers());
        let span = tracing::info_span!(
            "call",
            rpc = path,
            trace_id = trace.trace_id,
            parent_id = trace.parent_id,
        );
        let call = Call {
            method: path.trim_start_matches('/').to_owned(),
            started: Instant::now(),
            metrics: Arc::clone(&self.door.metrics),
        };
        if let Err(error) = self.door.auth.check(path, peer, request.headers()) {
            span.in_scope(|| tracing::warn!(%error, "refused a call"));
            // Under one name: whoever is not let in does not get to make up methods.
            let call = Call {
                method: "refused".to_owned(),
                ..call
            };
            let response = to_status(&error).into_http::<Body>();
            return Box::pin(async move { Ok(observed(response, call, span)) });
        }
        let response = self.inner.call(request).instrument(span.clone());
        Box::pin(async move { Ok(observed(response.await?, call, span)) })
    }
}

fn observed(response: Response<Body>, mut call: Call, span: Span) -> Response<Observed> {
    let known = code_of(response.headers());
    // tonic answers a method that there is not like this, before any of our
    // services, which would have said why.
    if known == Some(Code::Unimplemented) && !response.headers().contains_key(GRPC_ERROR_TRAILER) {
        call.method = "unknown".to_owned();
    }
    response.map(|inner| {
        let mut body = Observed {
            inner,
            call: Some(call),
            span,
        };
        if let Some(code) = known {
            body.end(code);
        }
        body
    })
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// One call, for the metrics.
#[derive(Debug)]
struct Call {
    method: String,
    started: Instant,
    metrics: Arc<Metrics>,
}

/// A response whose end is counted, in the span of its call.
#[derive(Debug)]
pub(super) struct Observed {
    inner: Body,
    /// `None` once it was counted.
    call: Option<Call>,
    span: Span,
}

impl Observed {
    fn end(&mut self, code: Code) {
        if let Some(call) = self.call.take() {
            call.metrics
                .count(call.method, code, call.started.elapsed());
        }
    }
}

impl Drop for Observed {
    /// A response that is dropped before its trailers was given up.
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = this
            .span
            .in_scope(|| Pin::new(&mut this.inner).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(code) = frame.trailers_ref().and_then(code_of)
        {
            this.end(code);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
