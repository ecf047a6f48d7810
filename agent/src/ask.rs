//! One answer of the model, from the first word to the last, told as it comes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use stigmer_sdk::wire::agent::{self, MessageType, TextDelta, event::What};
use stigmer_sdk::{Error, ErrorCode};

use crate::mask;
use crate::model::retry::{self, Again, Piece};
use crate::model::{self, Content, Event, Failure, FailureKind, Stop};
use crate::turn::Job;

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) content: Vec<Content>,
    pub(crate) stop: Stop,
    pub(crate) usage: model::Usage,
}

impl Answer {
    /// All its text.
    pub(crate) fn text(&self) -> String {
        let text = |content: &Content| match content {
            Content::Text { text } => Some(text.clone()),
            Content::Call(_) | Content::Thinking { .. } => None,
        };
        self.content.iter().filter_map(text).collect()
    }
}

/// Why there is none, or why the work stops.
#[derive(Debug)]
pub(crate) enum Halt {
    /// `Ending` says why.
    Ended,
    /// The execution failed.
    Failed(Error),
    /// The model did, after all retries.
    Model(Failure),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What people read of a model that cannot be asked.
pub(crate) fn failed(failure: &Failure) -> Error {
    let (code, what) = match failure.kind {
        FailureKind::RateLimited => (
            ErrorCode::Exhausted,
            "the model's provider is rate limiting",
        ),
        FailureKind::Unavailable => (
            ErrorCode::Unavailable,
            "the model's provider does not answer",
        ),
        FailureKind::Cut => (ErrorCode::Unavailable, "the model's answers break off"),
        FailureKind::ContextOverflow => (
            ErrorCode::TooLarge,
            "the conversation does not fit into the model's context",
        ),
        FailureKind::Unauthenticated => (
            ErrorCode::Unauthenticated,
            "the model's provider does not accept the key",
        ),
        FailureKind::NoModel => (ErrorCode::NotFound, "there is no such model"),
        FailureKind::Refused => (ErrorCode::PermissionDenied, "the model's provider refused"),
    };
    Error::new(code, format!("{what}: {}", failure.message))
}

impl Job {
    /// Asks the model, and tells of its answer under this message's id; without
    /// an id nobody is told.
    pub(crate) async fn ask(
        &mut self,
        request: model::Request,
        id: Option<&str>,
    ) -> Result<Answer, Halt> {
        let ending = Arc::clone(&self.held.ending);
        let policy = retry::Policy::default();
        let mut pieces =
            retry::ask_with_retries(Arc::clone(&self.model), Arc::new(request), policy);
        let mut shown = Shown {
            id,
            mask: self.mask.stream(),
            begun: false,
        };
        let mut answer = Answer {
            content: Vec::new(),
            stop: Stop::Done,
            usage: model::Usage::default(),
        };
        loop {
            self.reporter.room().await;
            let piece = tokio::select! {
                biased;
                () = ending.ended() => {
                    self.cut(&mut shown, &answer);
                    return Err(Halt::Ended);
                }
                piece = pieces.next() => piece,
            };
            match piece {
                Some(Ok(Piece::Event(Event::Stop(stop)))) => {
                    answer.stop = stop;
                    let rest = shown.mask.finish_text();
                    self.show(&mut shown, rest);
                    self.spend(&answer.usage);
                    return Ok(answer);
                }
                Some(Ok(Piece::Event(event))) => {
                    if let Event::Text(text) = &event {
                        let text = shown.mask.push_text(text);
                        self.show(&mut shown, text);
                    }
                    answer.take(event);
                }
                Some(Ok(Piece::Again(again))) => {
                    self.spend_if_used(&answer.usage);
                    answer.content.clear();
                    answer.usage = model::Usage::default();
                    shown.mask = self.mask.stream();
                    if shown.begun {
                        self.message(shown.id, MessageType::Ai, String::new());
                    }
                    self.note(waiting(&again));
                }
                Some(Err(failure)) => {
                    self.spend_if_used(&answer.usage);
                    self.cut(&mut shown, &answer);
                    return Err(Halt::Model(failure));
                }
                None => {
                    return Err(Halt::Model(Failure {
                        kind: FailureKind::Cut,
                        message: "the answer broke off: it has no end".to_owned(),
                        retry_after: None,
                    }));
                }
            }
        }
    }

    /// Shows a piece of text; the first begins the message.
    fn show(&mut self, shown: &mut Shown<'_>, text: String) {
        let Some(id) = shown.id.filter(|_| !text.is_empty()) else {
            return;
        };
        self.reporter.begin();
        if !shown.begun {
            shown.begun = true;
            self.message(Some(id), MessageType::Ai, String::new());
        }
        self.reporter.push(What::Text(TextDelta {
            message_id: id.to_owned(),
            text,
        }));
    }

    /// Ends a message whose answer will not come to an end: what was said of it
    /// stays.
    fn cut(&mut self, shown: &mut Shown<'_>, answer: &Answer) {
        let rest = shown.mask.finish_text();
        self.show(shown, rest);
        if shown.begun
            && let Some(id) = shown.id
        {
            let text = Content::Text {
                text: answer.text(),
            };
            self.record_answer(id, vec![text]);
        }
    }

    fn message(&self, id: Option<&str>, kind: MessageType, content: String) {
        let Some(id) = id else {
            return;
        };
        self.reporter.push(What::Message(agent::Message {
            message_id: id.to_owned(),
            r#type: kind.into(),
            content,
            created_ms: crate::report::now_ms(),
            ..agent::Message::default()
        }));
    }

    fn spend_if_used(&mut self, usage: &model::Usage) {
        if *usage != model::Usage::default() {
            self.spend(usage);
        }
    }

    fn spend(&mut self, usage: &model::Usage) {
        let cost = self.model.cost_microusd(&self.model_name, usage);
        self.spent.add(usage, cost);
        self.reporter.push(What::Usage(self.spent.usage));
    }
}

/// What was told of an answer.
struct Shown<'a> {
    id: Option<&'a str>,
    mask: mask::Stream,
    begun: bool,
}

impl Answer {
    fn take(&mut self, event: Event) {
        match (event, self.content.last_mut()) {
            (Event::Text(more), Some(Content::Text { text })) => text.push_str(&more),
            (Event::Text(text), _) => self.content.push(Content::Text { text }),
            (Event::Thinking(more), Some(Content::Thinking { text, signature }))
                if signature.is_empty() =>
            {
                text.push_str(&more);
            }
            (Event::Thinking(text), _) => self.content.push(Content::Thinking {
                text,
                signature: String::new(),
            }),
            (Event::Signature(proof), Some(Content::Thinking { signature, .. }))
                if signature.is_empty() =>
            {
                *signature = proof;
            }
            (Event::Signature(signature), _) => self.content.push(Content::Thinking {
                text: String::new(),
                signature,
            }),
            (Event::Call(call), _) => self.content.push(Content::Call(call)),
            (Event::Usage(usage), _) => self.usage = usage,
            (Event::Stop(stop), _) => self.stop = stop,
        }
    }
}

/// What people read while the model is asked again.
fn waiting(again: &Again) -> String {
    let wait = seconds(again.wait);
    match again.failure.kind {
        FailureKind::RateLimited => format!("rate limited, waiting {wait}"),
        FailureKind::Cut => format!("the answer broke off, asking again in {wait}"),
        FailureKind::Unavailable
        | FailureKind::ContextOverflow
        | FailureKind::Unauthenticated
        | FailureKind::NoModel
        | FailureKind::Refused => {
            format!("{}; asking again in {wait}", again.failure.message)
        }
    }
}

/// `2 s`, `0.4 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis().div_ceil(100);
    if tenths.is_multiple_of(10) {
        format!("{} s", tenths / 10)
    } else {
        format!("{}.{} s", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_in_seconds() {
        #[track_caller]
        fn check(ms: u64, expected: &str) {
            assert_eq!(seconds(Duration::from_millis(ms)), expected);
        }
        check(2000, "2 s");
        check(350, "0.4 s");
        check(1, "0.1 s");
        check(60_000, "60 s");
    }

    #[test]
    fn thoughts_keep_their_proof() {
        let mut answer = Answer {
            content: Vec::new(),
            stop: Stop::Done,
            usage: model::Usage::default(),
        };
        for event in [
            Event::Thinking("a".to_owned()),
            Event::Thinking("b".to_owned()),
            Event::Signature("1".to_owned()),
            Event::Signature("2".to_owned()),
            Event::Thinking("c".to_owned()),
            Event::Text("d".to_owned()),
            Event::Text("e".to_owned()),
        ] {
            answer.take(event);
        }
        let thought = |text: &str, signature: &str| Content::Thinking {
            text: text.to_owned(),
            signature: signature.to_owned(),
        };
        let text = Content::Text {
            text: "de".to_owned(),
        };
        assert_eq!(
            answer.content,
            [thought("ab", "1"), thought("", "2"), thought("c", ""), text]
        );
        assert_eq!(answer.text(), "de");
    }
}
