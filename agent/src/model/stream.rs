//! An answer out of the events that a server sends.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;

use super::failure::Asked;
use super::http::{Body, Http};
use super::{Answer, Event, Failure, sse};

/// What a provider's events mean. It keeps what is not whole yet.
pub(super) trait Decode: Send + 'static {
    /// Takes one in, and puts what it completes into `out`. After an
    /// [`Event::Stop`] or a failure it is not asked again.
    fn take(&mut self, event: &sse::Event, out: &mut VecDeque<Event>) -> Result<(), Failure>;

    /// The server said no more. Tells whether the answer is whole all the same,
    /// and if so puts its end into `out`.
    fn end(&mut self, out: &mut VecDeque<Event>) -> bool;
}

/// Reads a body to its end.
pub(super) fn answer(http: Arc<Http>, asked: Asked, body: Body, decode: impl Decode) -> Answer {
    let reading = Reading {
        http,
        asked,
        body,
        parser: sse::Parser::new(),
        decode,
        out: VecDeque::new(),
        failure: None,
    };
    Box::pin(stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        let event = reading.next().await;
        let last = matches!(event, Ok(Event::Stop(_)) | Err(_));
        Some((event, (!last).then_some(reading)))
    }))
}

struct Reading<D> {
    /// Held so that the connection lives, and for its key, which no error tells.
    http: Arc<Http>,
    asked: Asked,
    body: Body,
    parser: sse::Parser,
    decode: D,
    out: VecDeque<Event>,
    /// Told after what came before it.
    failure: Option<Failure>,
}

impl<D: Decode> Reading<D> {
    async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(event) = self.out.pop_front() {
                return Ok(event);
            }
            if let Some(mut failure) = self.failure.take() {
                failure.message = self.http.redact(&failure.message);
                return Err(failure);
            }
            if let Some(event) = self.parser.next() {
                self.failure = self.decode.take(&event, &mut self.out).err();
                continue;
            }
            let why = match self.body.next().await {
                Some(Ok(bytes)) => {
                    if self.parser.push(&bytes).is_err() {
                        self.failure = Some(self.asked.nonsense("an event is too large"));
                    }
                    continue;
                }
                Some(Err(why)) => why,
                None => "it ended too early".to_owned(),
            };
            if !self.decode.end(&mut self.out) {
                self.failure = Some(self.asked.cut(&why));
            }
        }
    }
}
