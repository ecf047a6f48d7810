//! Asking again.
//!
//! A provider that is busy, away or breaks off in the middle is asked again, a
//! few times, after waits that grow and are drawn by chance, so that those whom
//! it turned away do not all come back at once. Where it says how long to wait,
//! that is how long.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::{StreamExt, stream};

use super::{Answer, Event, Failure, FailureKind, Model, Request};

/// How often to ask again, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Asked so often in all.
    pub tries: u32,
    /// The first wait is no longer than this.
    pub base: Duration,
    /// Nor is any other longer than this, unless the provider asks for it.
    pub max: Duration,
    /// All waits together.
    pub budget: Duration,
}

impl Default for Policy {
    /// - six tries
    /// - waits of up to 0.5 s, 1 s, 2 s, 4 s, 8 s, none over 30 s
    /// - five minutes of waiting in all, which a provider's own wish can use up
    fn default() -> Self {
        Self {
            tries: 6,
            base: Duration::from_millis(500),
            max: Duration::from_secs(30),
            budget: Duration::from_secs(5 * 60),
        }
    }
}

/// A piece of an answer that may have to be begun again.
#[derive(Clone, Debug)]
pub enum Piece {
    /// As [`Model::ask`] gives it.
    Event(Event),
    /// The answer failed, and will be asked for again: all its pieces so far
    /// are void, and the next ones are another answer's, from its beginning.
    /// Whoever collects them drops them, calls too; what was shown to a person
    /// has to be taken back, or marked as broken off. The tokens of the failed
    /// answer were used all the same.
    Again(Again),
}

/// Why and when the model is asked again.
#[derive(Clone, Debug)]
pub struct Again {
    /// What went wrong.
    pub failure: Failure,
    /// How long the stream now waits.
    pub wait: Duration,
    /// Which try comes after that: 2 or more.
    pub attempt: u32,
}

/// Pieces as they come. The last is an [`Event::Stop`] or an error, which is
/// final.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Piece, Failure>> + Send>>;

/// Asks until an answer is whole, or asking again is of no use.
///
/// Only what may pass by itself is asked again: [`FailureKind::RateLimited`],
/// [`FailureKind::Unavailable`] and [`FailureKind::Cut`]. The wait begins once
/// the stream is polled after its [`Piece::Again`]. Dropping it ends wait and
/// call.
#[must_use]
pub fn ask_with_retries(model: Arc<dyn Model>, request: Arc<Request>, policy: Policy) -> Pieces {
    let asking = Asking {
        model,
        request,
        policy,
        attempt: 1,
        waited: Duration::ZERO,
        state: State::Ask(Duration::ZERO),
    };
    Box::pin(stream::unfold(Some(asking), |asking| async move {
        let mut asking = asking?;
        let piece = asking.next().await;
        let last = matches!(piece, Ok(Piece::Event(Event::Stop(_))) | Err(_));
        Some((piece, (!last).then_some(asking)))
    }))
}

struct Asking {
    model: Arc<dyn Model>,
    request: Arc<Request>,
    policy: Policy,
    attempt: u32,
    waited: Duration,
    state: State,
}

enum State {
    /// After a wait.
    Ask(Duration),
    Read(Answer),
}

impl Asking {
    async fn next(&mut self) -> Result<Piece, Failure> {
        let failure = loop {
            match &mut self.state {
                State::Ask(wait) => {
                    // A sleep of none would still take a tick of the clock.
                    if !wait.is_zero() {
                        tokio::time::sleep(*wait).await;
                    }
                    match self.model.ask(&self.request).await {
                        Ok(answer) => self.state = State::Read(answer),
                        Err(failure) => break failure,
                    }
                }
                State::Read(answer) => match answer.next().await {
                    Some(Ok(event)) => return Ok(Piece::Event(event)),
                    Some(Err(failure)) => break failure,
                    None => {
                        let text = "the answer broke off: it has no end";
                        break Failure::new(FailureKind::Cut, text);
                    }
                },
            }
        };
        let Some(wait) = self.wait(&failure) else {
            return Err(failure);
        };
        self.waited += wait;
        self.attempt += 1;
        // What is left of the failed answer goes, and its connection with it.
        self.state = State::Ask(wait);
        Ok(Piece::Again(Again {
            failure,
            wait,
            attempt: self.attempt,
        }))
    }

    /// How long to wait before asking again, if it is to be done.
    fn wait(&self, failure: &Failure) -> Option<Duration> {
        let passes = match failure.kind {
            FailureKind::RateLimited | FailureKind::Unavailable | FailureKind::Cut => true,
            FailureKind::ContextOverflow
            | FailureKind::Unauthenticated
            | FailureKind::NoModel
            | FailureKind::Refused => false,
        };
        if !passes || self.attempt >= self.policy.tries {
            return None;
        }
        let Policy { base, max, .. } = self.policy;
        let wait = match failure.retry_after {
            Some(asked) => asked.saturating_add(base.mul_f64(fastrand::f64())),
            None => {
                let longest = base
                    .saturating_mul(1 << (self.attempt - 1).min(16))
                    .min(max);
                longest.mul_f64(fastrand::f64())
            }
        };
        (self.waited.saturating_add(wait) <= self.policy.budget).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::model::{Provider, Stop, Usage};

    type Reply = Result<Vec<Result<Event, Failure>>, Failure>;

    /// Answers as it was told to.
    #[derive(Debug)]
    struct Scripted(Mutex<VecDeque<Reply>>);

    #[async_trait::async_trait]
    impl Model for Scripted {
        fn provider(&self) -> Provider {
            Provider::Ollama
        }

        async fn ask(&self, _request: &Request) -> Result<Answer, Failure> {
            let next = self.0.lock().expect("unbroken").pop_front();
            let events = next.expect("not asked more often than that")?;
            Ok(Box::pin(stream::iter(events)))
        }

        fn context_tokens(&self, _model: &str) -> Option<u64> {
            None
        }

        fn cost_microusd(&self, _model: &str, _usage: &Usage) -> Option<u64> {
            None
        }
    }

    fn failure(kind: FailureKind, retry_after: Option<u64>) -> Failure {
        Failure {
            retry_after: retry_after.map(Duration::from_secs),
            ..Failure::new(kind, "x")
        }
    }

    fn text(text: &str) -> Result<Event, Failure> {
        Ok(Event::Text(text.to_owned()))
    }

    const STOP: Result<Event, Failure> = Ok(Event::Stop(Stop::Done));

    /// What comes, in a few letters: `t` text, `A` again, `.` the end, `!` an
    /// error; and how long it took.
    async fn pieces(script: Vec<Reply>) -> (String, Duration) {
        let model = Arc::new(Scripted(Mutex::new(script.into())));
        let start = tokio::time::Instant::now();
        let request = Arc::new(Request::default());
        let pieces = ask_with_retries(model.clone(), request, Policy::default());
        let pieces: Vec<_> = pieces.collect().await;
        let left = model.0.lock().expect("unbroken").len();
        assert_eq!(left, 0, "asked less often than expected");
        let letters = pieces.iter().map(|piece| match piece {
            Ok(Piece::Event(Event::Stop(_))) => '.',
            Ok(Piece::Event(_)) => 't',
            Ok(Piece::Again(_)) => 'A',
            Err(_) => '!',
        });
        (letters.collect(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_asked_again() {
        let busy = || Err(failure(FailureKind::Unavailable, None));
        let (letters, _) = pieces(vec![Ok(vec![text("a"), STOP])]).await;
        assert_eq!(letters, "t.");
        let (letters, took) = pieces(vec![busy(), busy(), Ok(vec![text("a"), STOP])]).await;
        assert_eq!(letters, "AAt.");
        assert!(took <= Duration::from_millis(1600), "{took:?}");
        // Cut in the middle, by a failure and by nothing at all.
        let cut = Err(failure(FailureKind::Cut, None));
        let (letters, _) = pieces(vec![
            Ok(vec![text("a"), cut]),
            Ok(vec![text("a")]),
            Ok(vec![text("a"), text("b"), STOP]),
        ])
        .await;
        assert_eq!(letters, "tAtAtt.");
        let (letters, took) = pieces((0..6).map(|_| busy()).collect()).await;
        assert_eq!(letters, "AAAAA!", "six tries");
        assert!(took <= Duration::from_millis(15_600), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_is_told_at_once() {
        for kind in [
            FailureKind::ContextOverflow,
            FailureKind::Unauthenticated,
            FailureKind::NoModel,
            FailureKind::Refused,
        ] {
            let (letters, took) = pieces(vec![Err(failure(kind, Some(1)))]).await;
            assert_eq!((letters.as_str(), took), ("!", Duration::ZERO), "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_says_how_long_to_wait() {
        let limited = |seconds| Err(failure(FailureKind::RateLimited, Some(seconds)));
        let (letters, took) = pieces(vec![limited(60), Ok(vec![STOP])]).await;
        assert_eq!(letters, "A.");
        let wait = Duration::from_secs(60)..=Duration::from_millis(60_510);
        assert!(wait.contains(&took), "{took:?}");
        // Longer than anybody waits.
        let (letters, took) = pieces(vec![limited(3600)]).await;
        assert_eq!((letters.as_str(), took), ("!", Duration::ZERO));
        let (letters, took) = pieces(vec![limited(140), limited(140), limited(140)]).await;
        assert_eq!(letters, "AA!");
        assert!(took < Duration::from_secs(282), "{took:?}");
    }
}
