//! What a fake answers.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// One answer, whole or broken in some way.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) body: Body,
    pub(super) headers: Vec<(String, String)>,
    pub(super) cut: Option<Cut>,
    pub(super) hold: Option<Hold>,
    pub(super) piece_bytes: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Answer(Answer),
    Error {
        status: u16,
        kind: String,
        message: String,
    },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// The thought and its signature.
    pub(super) thinking: Option<(String, String)>,
    pub(super) text: String,
    /// The tool's name, and its arguments as the model wrote them.
    pub(super) calls: Vec<(String, String)>,
    pub(super) usage: Option<Usage>,
    /// Instead of what follows from the rest.
    pub(super) stop: Option<String>,
    /// After so many events: kind and message.
    pub(super) fails: Option<(usize, String, String)>,
}

/// Where an answer ends too early.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    Events(usize),
    Bytes(usize),
}

/// Where an answer waits.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    /// Before anything is sent, or after so many events.
    pub(super) after: Option<usize>,
    pub(super) gate: Gate,
}

/// Tokens, as the provider itself counts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// All of it, what went through the cache too.
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
}

impl Reply {
    fn new(body: Body) -> Self {
        Self {
            body,
            headers: Vec::new(),
            cut: None,
            hold: None,
            piece_bytes: None,
        }
    }

    /// Says this, and is done.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::new(Body::Answer(Answer {
            text: text.to_owned(),
            ..Answer::default()
        }))
    }

    /// Calls these tools, all at once.
    #[must_use]
    pub fn calls<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let calls = calls
            .into_iter()
            .map(|(name, arguments)| (name.to_owned(), arguments.to_string()));
        Self::new(Body::Answer(Answer {
            calls: calls.collect(),
            ..Answer::default()
        }))
    }

    /// Refuses, in the provider's way. The kind is the provider's own name for
    /// it: `overloaded_error`, `invalid_request_error`, …
    #[must_use]
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        Self::new(Body::Error {
            status,
            kind: kind.to_owned(),
            message: message.to_owned(),
        })
    }

    /// Too many requests: come back after this, in seconds or at a date.
    #[must_use]
    pub fn rate_limited(retry_after: &str) -> Self {
        Self::error(
            429,
            "rate_limit_error",
            "Number of requests has exceeded your rate limit",
        )
        .with_header("retry-after", retry_after)
    }

    fn answer(&mut self) -> &mut Answer {
        match &mut self.body {
            Body::Answer(answer) => answer,
            Body::Error { .. } => panic!("an error says nothing but that"),
        }
    }

    /// Says this first.
    ///
    /// # Panics
    /// If this is an error.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        text.clone_into(&mut self.answer().text);
        self
    }

    /// Thinks this before. Anthropic's fake takes it back only with this
    /// signature; OpenAI's has none.
    ///
    /// # Panics
    /// If this is an error.
    #[must_use]
    pub fn with_thinking(mut self, text: &str, signature: &str) -> Self {
        self.answer().thinking = Some((text.to_owned(), signature.to_owned()));
        self
    }

    /// Calls this tool too, with arguments that may be no JSON.
    ///
    /// # Panics
    /// If this is an error.
    #[must_use]
    pub fn with_call_as_written(mut self, name: &str, arguments: &str) -> Self {
        let call = (name.to_owned(), arguments.to_owned());
        self.answer().calls.push(call);
        self
    }

    /// Used so many tokens. Without this a fake guesses by the length of texts.
    ///
    /// # Panics
    /// If this is an error.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.answer().usage = Some(usage);
        self
    }

    /// Stops for this reason, in the provider's words: `max_tokens`, `refusal`,
    /// `length`, …
    ///
    /// # Panics
    /// If this is an error.
    #[must_use]
    pub fn stopping(mut self, reason: &str) -> Self {
        self.answer().stop = Some(reason.to_owned());
        self
    }

    /// Fails after so many events, in the middle of the answer.
    ///
    /// # Panics
    /// If this is an error from the beginning.
    #[must_use]
    pub fn failing_after(mut self, events: usize, kind: &str, message: &str) -> Self {
        self.answer().fails = Some((events, kind.to_owned(), message.to_owned()));
        self
    }

    /// Closes the connection after so many events.
    #[must_use]
    pub fn cut_after(mut self, events: usize) -> Self {
        self.cut = Some(Cut::Events(events));
        self
    }

    /// Closes the connection after so many bytes of events.
    #[must_use]
    pub fn cut_after_bytes(mut self, bytes: usize) -> Self {
        self.cut = Some(Cut::Bytes(bytes));
        self
    }

    /// Comes in pieces of so many bytes, whatever they split.
    #[must_use]
    pub fn slowly(mut self, piece_bytes: usize) -> Self {
        self.piece_bytes = Some(piece_bytes);
        self
    }

    /// Waits at a gate before anything is sent.
    #[must_use]
    pub fn held(self) -> (Self, Gate) {
        self.held_at(None)
    }

    /// Waits at a gate after so many events.
    #[must_use]
    pub fn held_after(self, events: usize) -> (Self, Gate) {
        self.held_at(Some(events))
    }

    fn held_at(mut self, after: Option<usize>) -> (Self, Gate) {
        let gate = Gate::default();
        self.hold = Some(Hold {
            after,
            gate: gate.clone(),
        });
        (self, gate)
    }

    /// Has this header too.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn status(&self) -> u16 {
        match self.body {
            Body::Answer(_) => 200,
            Body::Error { status, .. } => status,
        }
    }
}

/// Where an answer waits until the test lets it go on. Nothing waits here for a
/// fake that is gone.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<Position>, Condvar)>);

#[derive(Debug, Default)]
struct Position {
    open: bool,
    reached: bool,
}

impl Gate {
    fn update(&self, change: impl FnOnce(&mut Position)) {
        let (position, changed) = &*self.0;
        change(&mut position.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    /// Lets the answer go on.
    pub fn open(&self) {
        self.update(|position| position.open = true);
    }

    /// Waits until the answer is at the gate.
    ///
    /// # Panics
    /// If it is not within half a minute.
    #[track_caller]
    pub fn reached(&self) {
        let limit = Instant::now() + Duration::from_secs(30);
        let (position, changed) = &*self.0;
        let mut position = position.lock().unwrap_or_else(PoisonError::into_inner);
        while !position.reached {
            let left = limit.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nobody asked for what is held");
            let woken = changed.wait_timeout(position, left);
            position = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn reach(&self) {
        self.update(|position| position.reached = true);
    }

    /// Waits a little. Tells whether it is open.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let (position, changed) = &*self.0;
        let position = position.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(position, limit, |position| !position.open);
        waited.unwrap_or_else(PoisonError::into_inner).0.open
    }
}
