//! What is answered, in OpenAI's words.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::Value;

use super::calls::{Calls, Piece};
use crate::model::failure::Asked;
use crate::model::stream::Decode;
use crate::model::{Event, Failure, Stop, Usage, sse};

/// One event. Servers differ in what they leave out and in what they put null.
#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    delta: Option<Delta>,
    /// Instead of a delta, of servers that send it whole.
    message: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Delta {
    /// A text, or parts of other kinds, which are of no use here.
    content: Option<Value>,
    reasoning_content: Option<String>,
    /// As some call it.
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<Piece>>,
}

#[derive(Debug, Deserialize)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<CacheCounts>,
}

#[derive(Debug, Deserialize)]
struct CacheCounts {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

/// Puts an answer together.
#[derive(Debug)]
pub(super) struct Decoder {
    asked: Asked,
    calls: Calls,
    /// Whether anything came that belongs to an answer.
    begun: bool,
    stop: Option<Stop>,
}

impl Decoder {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            calls: Calls::default(),
            begun: false,
            stop: None,
        }
    }

    fn choice(&mut self, choice: Choice, out: &mut VecDeque<Event>) {
        self.begun = true;
        if let Some(delta) = choice.delta.or(choice.message) {
            let content = match delta.content {
                Some(Value::String(text)) => Some(text),
                _ => None,
            };
            let thoughts = delta.reasoning_content.or(delta.reasoning);
            say(thoughts, Event::Thinking, out);
            say(content, Event::Text, out);
            say(delta.refusal, Event::Text, out);
            for piece in delta.tool_calls.into_iter().flatten() {
                self.calls.push(piece);
            }
        }
        match choice.finish_reason.as_deref() {
            None | Some("") => {}
            Some("length") => self.stop = Some(Stop::Length),
            Some("content_filter") => self.stop = Some(Stop::Refused),
            // Whether it calls is seen by its calls: some say `stop` all the same.
            Some(_) => self.stop = Some(Stop::Done),
        }
    }

    /// The end of an answer that is whole.
    fn finish(&mut self, out: &mut VecDeque<Event>) {
        let stop = self.stop.unwrap_or(Stop::Done);
        let called = !self.calls.is_empty();
        let calls = self.calls.take(stop != Stop::Done);
        out.extend(calls.into_iter().map(Event::Call));
        let stop = if called && stop == Stop::Done {
            Stop::Calls
        } else {
            stop
        };
        out.push_back(Event::Stop(stop));
    }
}

impl Decode for Decoder {
    fn take(&mut self, event: &sse::Event, out: &mut VecDeque<Event>) -> Result<(), Failure> {
        match event.data.trim() {
            "" => return Ok(()),
            "[DONE]" if self.begun => {
                self.finish(out);
                return Ok(());
            }
            "[DONE]" => return Err(self.asked.cut("it is empty")),
            _ => {}
        }
        let chunk: Chunk = serde_json::from_str(&event.data)
            .map_err(|error| self.asked.nonsense(&error.to_string()))?;
        if let Some(error) = chunk.error {
            return Err(self.asked.broken_off(&error));
        }
        if let Some(counts) = chunk.usage {
            let cache = counts.prompt_tokens_details.as_ref();
            out.push_back(Event::Usage(Usage {
                input: counts.prompt_tokens.unwrap_or_default(),
                output: counts.completion_tokens.unwrap_or_default(),
                cache_read: cache
                    .and_then(|cache| cache.cached_tokens)
                    .unwrap_or_default(),
                cache_write: cache
                    .and_then(|cache| cache.cache_write_tokens)
                    .unwrap_or_default(),
            }));
        }
        // Only one was asked for.
        if let Some(choice) = chunk.choices.unwrap_or_default().into_iter().next() {
            self.choice(choice, out);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut VecDeque<Event>) -> bool {
        // Some say why they stop, and not that they did.
        let whole = self.stop.is_some();
        if whole {
            self.finish(out);
        }
        whole
    }
}

fn say(text: Option<String>, event: impl Fn(String) -> Event, out: &mut VecDeque<Event>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        out.push_back(event(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailureKind, Provider, ToolCall};

    /// What comes of these events, and of the end after them.
    fn decode(events: &[&str]) -> (Vec<Event>, Option<FailureKind>) {
        let mut decoder = Decoder::new(Asked {
            provider: Provider::OpenAi,
            model: "m".to_owned(),
        });
        let mut out = VecDeque::new();
        for data in events {
            let event = sse::Event {
                name: String::new(),
                data: (*data).to_owned(),
            };
            if let Err(failure) = decoder.take(&event, &mut out) {
                return (out.into(), Some(failure.kind));
            }
            if let Some(Event::Stop(_)) = out.back() {
                return (out.into(), None);
            }
        }
        let whole = decoder.end(&mut out);
        (out.into(), (!whole).then_some(FailureKind::Cut))
    }

    #[track_caller]
    fn check(events: &[&str], expected: &[Event]) {
        assert_eq!(decode(events), (expected.to_vec(), None));
    }

    fn text(text: &str) -> Event {
        Event::Text(text.to_owned())
    }

    const HELLO: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}"#;
    const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

    #[test]
    fn text_thoughts_and_tokens() {
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,
            "prompt_tokens_details":{"cached_tokens":10}}}"#;
        let counted = Event::Usage(Usage {
            input: 12,
            output: 3,
            cache_read: 10,
            cache_write: 0,
        });
        let done = Event::Stop(Stop::Done);
        check(
            &[HELLO, STOP, usage, "[DONE]"],
            &[text("Hello"), counted, done.clone()],
        );
        // No end of their own, no tokens, nulls, whole messages, other names.
        check(&[HELLO, STOP], &[text("Hello"), done.clone()]);
        check(&[HELLO, "[DONE]"], &[text("Hello"), done.clone()]);
        check(
            &[
                r#"{"choices":[{"message":{"content":"all","tool_calls":null},"finish_reason":"stop"}],"usage":null}"#,
            ],
            &[text("all"), done.clone()],
        );
        check(
            &[
                r#"{"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}"#,
                r#"{"choices":[{"delta":{"reasoning":"so","content":""}}]}"#,
                r#"{"choices":[{"delta":{"content":[{"type":"thinking"}]}}]}"#,
                r#"{"choices":[{"delta":{"refusal":"no"},"finish_reason":"stop"}]}"#,
                "[DONE]",
            ],
            &[
                Event::Thinking("hm".to_owned()),
                Event::Thinking("so".to_owned()),
                text("no"),
                done,
            ],
        );
    }

    #[test]
    fn calls_and_why_it_stopped() {
        let call = |arguments: &str| {
            Event::Call(ToolCall {
                id: "a".to_owned(),
                name: "ls".to_owned(),
                arguments: arguments.to_owned(),
            })
        };
        let piece = |arguments: &str, finish: &str| {
            serde_json::json!({"choices": [{"delta": {"content": "x", "tool_calls": [
                {"index": 0, "id": "a", "function": {"name": "ls", "arguments": arguments}},
            ]}, "finish_reason": finish}]})
            .to_string()
        };
        let of = |arguments: &str, finish: &str, expected: &[Event]| {
            let expected: Vec<_> = [text("x")].into_iter().chain(expected.to_vec()).collect();
            check(&[&piece(arguments, finish), "[DONE]"], &expected);
        };
        let calls = Event::Stop(Stop::Calls);
        of("{}", "tool_calls", &[call("{}"), calls.clone()]);
        of("{}", "stop", &[call("{}"), calls.clone()]);
        of("{\"pa", "tool_calls", &[call("{\"pa"), calls]);
        of("{\"pa", "length", &[Event::Stop(Stop::Length)]);
        of("{}", "length", &[call("{}"), Event::Stop(Stop::Length)]);
        let filtered = r#"{"choices":[{"delta":{},"finish_reason":"content_filter"}]}"#;
        check(&[filtered], &[Event::Stop(Stop::Refused)]);
    }

    #[test]
    fn errors_cuts_and_nonsense() {
        let of = |events: &[&str], kind: FailureKind| {
            assert_eq!(decode(events).1, Some(kind), "{events:?}");
        };
        of(&[HELLO], FailureKind::Cut);
        of(&[], FailureKind::Cut);
        of(&["[DONE]"], FailureKind::Cut);
        of(&[HELLO, "{\"choices\":"], FailureKind::Refused);
        of(
            &[
                HELLO,
                r#"{"error":{"message":"The server had an error","type":"server_error"}}"#,
            ],
            FailureKind::Unavailable,
        );
        of(
            &[r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#],
            FailureKind::ContextOverflow,
        );
    }
}
