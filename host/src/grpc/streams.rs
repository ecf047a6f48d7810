//! What every streaming method needs: inputs that may turn out invalid, and
//! chunks that fit into a message.

use std::task::Poll;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use stigmer_sdk::{ByteStream, Error, Event, EventStream, Input, InputStream, Result};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::status::from_status;

/// What a streaming method answers with.
pub(super) type Responses<T> = BoxStream<'static, Result<T, Status>>;

/// The most bytes of content in one message. Larger ones cost memory on both
/// sides, and smaller ones a poll of every layer more often.
pub(super) const CHUNK_BYTES: usize = 1024 * 1024;

/// Takes what fits into a message off the front. Nothing is copied.
fn piece(bytes: &mut Bytes) -> Bytes {
    bytes.split_to(bytes.len().min(CHUNK_BYTES))
}

/// The same bytes in chunks that fit into messages, none of them empty.
pub(super) fn chunks(data: ByteStream) -> ByteStream {
    stream::unfold((data, Bytes::new()), |(mut data, mut rest)| async move {
        while rest.is_empty() {
            match data.next().await? {
                Ok(bytes) => rest = bytes,
                Err(error) => return Some((Err(error), (data, rest))),
            }
        }
        let chunk = piece(&mut rest);
        Some((Ok(chunk), (data, rest)))
    })
    .boxed()
}

/// The same events with output that fits into messages, none of it empty.
pub(super) fn fitting(events: EventStream) -> EventStream {
    stream::unfold((events, None), |(mut events, rest)| async move {
        let mut event = rest;
        loop {
            let mut current: Event = match event.take() {
                Some(rest) => rest,
                None => match events.next().await? {
                    Ok(event) => event,
                    Err(error) => return Some((Err(error), (events, None))),
                },
            };
            let (Event::Stdout(bytes) | Event::Stderr(bytes)) = &mut current else {
                return Some((Ok(current), (events, None)));
            };
            if bytes.is_empty() {
                continue;
            }
            let chunk = piece(bytes);
            let stdout = matches!(current, Event::Stdout(_));
            let output = if stdout {
                Event::Stdout(chunk)
            } else {
                Event::Stderr(chunk)
            };
            return Some((Ok(output), (events, Some(current))));
        }
    })
    .boxed()
}

/// The inputs that a client's requests hold. A request that makes no sense
/// cannot be told to a command, and goes into the receiver instead.
pub(super) fn inputs<R: Send + 'static>(
    requests: Streaming<R>,
    convert: fn(R) -> Result<Input>,
) -> (InputStream, oneshot::Receiver<Error>) {
    let (fail, failed) = oneshot::channel();
    let inputs = stream::unfold((requests, fail), move |(mut requests, fail)| async move {
        let problem = match requests.message().await {
            Ok(None) => return None,
            Ok(Some(request)) => match convert(request) {
                Ok(input) => return Some((input, (requests, fail))),
                Err(problem) => problem,
            },
            Err(status) => from_status(status),
        };
        // The end of the inputs would close stdin, as if all had been said. The
        // call is over instead; this stream goes with it.
        if fail.send(problem).is_ok() {
            std::future::pending::<()>().await;
        }
        None
    });
    (inputs.boxed(), failed)
}

/// This stream, and work that goes on alongside for as long as it does. If the
/// work fails, so does the stream; what it streamed from is dropped first.
pub(super) fn alongside<T: 'static>(
    stream: BoxStream<'static, Result<T>>,
    work: impl Future<Output = Result<()>> + Send + 'static,
) -> BoxStream<'static, Result<T>> {
    let mut stream = Some(stream);
    let mut work = Some(work.boxed());
    stream::poll_fn(move |cx| {
        let Some(going) = &mut stream else {
            return Poll::Ready(None);
        };
        if let Some(future) = &mut work
            && let Poll::Ready(done) = future.poll_unpin(cx)
        {
            work = None;
            if let Err(error) = done {
                stream = None;
                return Poll::Ready(Some(Err(error)));
            }
        }
        going.poll_next_unpin(cx)
    })
    .boxed()
}

/// These events, unless an input turns out invalid: then the command is killed
/// by dropping them, and the error ends the answer.
pub(super) fn until_failed(events: EventStream, failed: oneshot::Receiver<Error>) -> EventStream {
    alongside(events, async {
        match failed.await {
            Ok(error) => Err(error),
            // The inputs ended well.
            Err(_) => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stigmer_sdk::{ErrorCode, ExitStatus};

    #[tokio::test]
    async fn chunks_are_bounded_and_complete() {
        #[track_caller]
        fn check(bytes: &[usize], expected: &[usize]) {
            let data: Vec<_> = bytes
                .iter()
                .map(|&length| Bytes::from(vec![7; length]))
                .collect();
            let lengths = chunks(stream::iter(data.clone()).map(Ok).boxed())
                .map(|chunk| chunk.unwrap().len())
                .collect::<Vec<_>>();
            assert_eq!(lengths.now_or_never().unwrap(), expected);
            let events = stream::iter(data).map(|bytes| Ok(Event::Stderr(bytes)));
            let events = events
                .chain(stream::iter([Ok(Event::Exit(ExitStatus::TimedOut))]))
                .boxed();
            let mut events = fitting(events)
                .map(Result::unwrap)
                .collect::<Vec<_>>()
                .now_or_never()
                .unwrap();
            assert_eq!(events.pop(), Some(Event::Exit(ExitStatus::TimedOut)));
            let lengths = events.into_iter().map(|event| match event {
                Event::Stderr(bytes) => bytes.len(),
                other => panic!("{other:?}"),
            });
            assert_eq!(lengths.collect::<Vec<_>>(), expected);
        }
        check(&[], &[]);
        check(&[0, 1, 0], &[1]);
        check(&[CHUNK_BYTES, 5], &[CHUNK_BYTES, 5]);
        check(&[CHUNK_BYTES * 2 + 1], &[CHUNK_BYTES, CHUNK_BYTES, 1]);
    }

    #[tokio::test]
    async fn an_invalid_input_ends_the_events() {
        let (fail, failed) = oneshot::channel();
        let mut events = until_failed(stream::pending().boxed(), failed);
        assert!(events.next().now_or_never().is_none());
        fail.send(Error::new(ErrorCode::InvalidArgument, "no"))
            .unwrap();
        assert_eq!(events.next().await.unwrap().unwrap_err().message(), "no");
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn inputs_that_end_well_leave_the_events_alone() {
        let (fail, failed) = oneshot::channel::<Error>();
        drop(fail);
        let exit = || stream::iter([Ok(Event::Exit(ExitStatus::Code(0)))]).boxed();
        let events: Vec<_> = until_failed(exit(), failed).collect().await;
        assert_eq!(events.len(), 1);
    }
}
