//! The two calls of a backend that go on in both directions: what they send,
//! and how they are given up.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use stigmer_sdk::wire::sandbox::{self as pb, write_request};
use stigmer_sdk::{ByteStream, Error, ErrorCode, Event, EventStream, Input, Result};
use tonic::{CancellationHandle, Request, Streaming};

use super::status::from_status;
use super::streams::{CHUNK_BYTES, chunks};

/// An answer that breaks the contract is the backend's failure, not the caller's.
pub(super) fn understood<T>(answer: Result<T>) -> Result<T> {
    answer.map_err(|problem| Error::internal("the backend's answer makes no sense", problem))
}

/// A stream of requests behind a name. In a future that awaits a call, rustc
/// forgets that the lifetime in `BoxStream<'static, _>` is that one, and then
/// finds the future not to be `Send` (rust-lang/rust#100013).
pub(super) struct Requests<T>(BoxStream<'static, T>);

impl<T> Stream for Requests<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// Resets a call when it is dropped, if the call is not over by then. Dropping
/// the responses alone does not: as long as there may be more requests, the
/// stream stays open, and the other side never hears that nobody listens.
#[derive(Debug)]
pub(super) struct Cancel(Option<CancellationHandle>);

impl Drop for Cancel {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.cancel();
        }
    }
}

pub(super) fn cancellable<T>(requests: BoxStream<'static, T>) -> (Request<Requests<T>>, Cancel) {
    let mut request = Request::new(Requests(requests));
    let cancel = Cancel(Some(request.cancellation_handle()));
    (request, cancel)
}

/// One input as requests that fit into messages.
pub(super) fn requests(input: Input) -> impl Stream<Item = pb::ExecRequest> + Send {
    let (mut stdin, other) = match input {
        Input::Stdin(bytes) => (bytes, None),
        other => (bytes::Bytes::new(), Some(other)),
    };
    let pieces = std::iter::from_fn(move || {
        let length = stdin.len().min(CHUNK_BYTES);
        (length > 0).then(|| Input::Stdin(stdin.split_to(length)))
    });
    stream::iter(pieces.chain(other).map(Into::into))
}

/// Events that end with the exit, or with an error if it never comes. Dropping
/// them resets the call, which is how the backend learns to kill the command.
pub(super) fn events(responses: Streaming<pb::ExecResponse>, cancel: Cancel) -> EventStream {
    stream::unfold(Some((responses, cancel)), |state| async {
        let (mut responses, cancel) = state?;
        let event = match responses.message().await {
            Ok(Some(response)) => understood(Event::try_from(response)),
            Ok(None) => Err(Error::new(
                ErrorCode::Unavailable,
                "the command's exit was lost",
            )),
            Err(status) => Err(from_status(status)),
        };
        let more = matches!(event, Ok(Event::Stdout(_) | Event::Stderr(_)));
        Some((event, more.then_some((responses, cancel))))
    })
    .boxed()
}

/// A whole write. An error in `data` goes into `broken`, and the requests end
/// without `end`, so that the file stays as it was.
pub(super) fn write_requests(
    open: pb::WriteOpen,
    data: ByteStream,
    broken: Arc<Mutex<Option<Error>>>,
) -> BoxStream<'static, pb::WriteRequest> {
    let request = |part| pb::WriteRequest { part: Some(part) };
    let rest = stream::unfold(Some((chunks(data), broken)), move |state| async move {
        let (mut data, broken) = state?;
        match data.next().await {
            Some(Ok(bytes)) => Some((
                request(write_request::Part::Data(bytes)),
                Some((data, broken)),
            )),
            None => Some((
                request(write_request::Part::End(write_request::End {})),
                None,
            )),
            Some(Err(error)) => {
                *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    });
    stream::iter([request(write_request::Part::Open(open))])
        .chain(rest)
        .boxed()
}
