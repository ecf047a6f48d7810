//! What is answered, in Anthropic's words.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::request::REDACTED;
use super::wire::{Block, Counts, Delta, Said};
use crate::model::failure::Asked;
use crate::model::stream::Decode;
use crate::model::{Event, Failure, FailureKind, Stop, ToolCall, Usage, sse};

/// A block that is not at its end.
#[derive(Debug)]
enum Open {
    Thinking { signature: String },
    Call(ToolCall),
}

/// Puts an answer together. Blocks are told apart by their index: their pieces
/// may come in turns.
#[derive(Debug)]
pub(super) struct Decoder {
    asked: Asked,
    open: BTreeMap<u64, Open>,
    /// Calls from the first on whose arguments are not whole: whether the model
    /// wrote them so, or was stopped there, is known at the end.
    held: Vec<ToolCall>,
    called: bool,
    counts: Counts,
    stop: Option<Stop>,
}

impl Decoder {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            open: BTreeMap::new(),
            held: Vec::new(),
            called: false,
            counts: Counts::default(),
            stop: None,
        }
    }

    fn count(&mut self, counts: Option<Counts>, out: &mut VecDeque<Event>) {
        let Some(counts) = counts else {
            return;
        };
        let all = &mut self.counts;
        all.input_tokens = counts.input_tokens.or(all.input_tokens);
        all.output_tokens = counts.output_tokens.or(all.output_tokens);
        all.cache_creation_input_tokens = counts
            .cache_creation_input_tokens
            .or(all.cache_creation_input_tokens);
        all.cache_read_input_tokens = counts
            .cache_read_input_tokens
            .or(all.cache_read_input_tokens);
        let cache_read = all.cache_read_input_tokens.unwrap_or_default();
        let cache_write = all.cache_creation_input_tokens.unwrap_or_default();
        out.push_back(Event::Usage(Usage {
            // The API counts what went through the cache apart.
            input: all.input_tokens.unwrap_or_default() + cache_read + cache_write,
            output: all.output_tokens.unwrap_or_default(),
            cache_read,
            cache_write,
        }));
    }

    fn begin(&mut self, index: u64, block: Block, out: &mut VecDeque<Event>) {
        match block {
            Block::Text { text } => say(text, Event::Text, out),
            Block::Thinking {
                thinking,
                signature,
            } => {
                say(thinking, Event::Thinking, out);
                self.open.insert(index, Open::Thinking { signature });
            }
            Block::RedactedThinking { data } => {
                out.push_back(Event::Signature(format!("{REDACTED}{data}")));
            }
            Block::ToolUse { id, name, input } => {
                // Empty, unless a server sends it whole.
                let whole = input.as_object().is_some_and(|input| !input.is_empty());
                let arguments = if whole {
                    input.to_string()
                } else {
                    String::new()
                };
                let call = ToolCall {
                    id,
                    name,
                    arguments,
                };
                self.open.insert(index, Open::Call(call));
            }
            Block::Other => {}
        }
    }

    fn go_on(&mut self, index: u64, delta: Delta, out: &mut VecDeque<Event>) {
        match (delta, self.open.get_mut(&index)) {
            (Delta::Text { text }, _) => say(text, Event::Text, out),
            (Delta::Thinking { thinking }, _) => say(thinking, Event::Thinking, out),
            (Delta::Signature { signature: more }, Some(Open::Thinking { signature })) => {
                signature.push_str(&more);
            }
            (Delta::Input { partial_json }, Some(Open::Call(call))) => {
                call.arguments.push_str(&partial_json);
            }
            // Of a block that is of no use here.
            _ => {}
        }
    }

    fn finish(&mut self, index: u64, out: &mut VecDeque<Event>) {
        match self.open.remove(&index) {
            Some(Open::Thinking { signature }) => say(signature, Event::Signature, out),
            Some(Open::Call(mut call)) => {
                if call.arguments.trim().is_empty() {
                    call.arguments = "{}".to_owned();
                }
                let whole = serde_json::from_str::<Value>(&call.arguments).is_ok();
                if whole && self.held.is_empty() {
                    self.called = true;
                    out.push_back(Event::Call(call));
                } else {
                    self.held.push(call);
                }
            }
            None => {}
        }
    }

    fn stop(&mut self, reason: &str) -> Result<(), Failure> {
        self.stop = Some(match reason {
            // Goes on when it is asked again with what it said, like a limit.
            "max_tokens" | "pause_turn" => Stop::Length,
            "refusal" => Stop::Refused,
            "model_context_window_exceeded" => {
                return Err(Failure::new(
                    FailureKind::ContextOverflow,
                    "the answer of anthropic broke off: the context is full",
                ));
            }
            _ => Stop::Done,
        });
        Ok(())
    }
}

impl Decode for Decoder {
    fn take(&mut self, event: &sse::Event, out: &mut VecDeque<Event>) -> Result<(), Failure> {
        if event.data.is_empty() {
            return Ok(());
        }
        let said = serde_json::from_str(&event.data)
            .map_err(|error| self.asked.nonsense(&error.to_string()))?;
        match said {
            Said::MessageStart { message } => self.count(message.usage, out),
            Said::ContentBlockStart {
                index,
                content_block,
            } => self.begin(index, content_block, out),
            Said::ContentBlockDelta { index, delta } => self.go_on(index, delta, out),
            Said::ContentBlockStop { index } => self.finish(index, out),
            Said::MessageDelta { delta, usage } => {
                self.count(usage, out);
                if let Some(reason) = delta.stop_reason {
                    self.stop(&reason)?;
                }
            }
            Said::MessageStop => {
                let stop = self.stop.unwrap_or(Stop::Done);
                if stop != Stop::Length {
                    self.called |= !self.held.is_empty();
                    out.extend(self.held.drain(..).map(Event::Call));
                }
                let calls = stop == Stop::Done && self.called;
                out.push_back(Event::Stop(if calls { Stop::Calls } else { stop }));
            }
            Said::Error => {
                let error = serde_json::from_str(&event.data).unwrap_or_default();
                return Err(self.asked.broken_off(&error));
            }
            Said::Other => {}
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut VecDeque<Event>) -> bool {
        // Its end is said, and this one was not.
        false
    }
}

fn say(text: String, event: impl Fn(String) -> Event, out: &mut VecDeque<Event>) {
    if !text.is_empty() {
        out.push_back(event(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Provider;

    /// What comes of these events, and the failure that ends them.
    fn decode(events: &[&str]) -> (Vec<Event>, Option<FailureKind>) {
        let mut decoder = Decoder::new(Asked {
            provider: Provider::Anthropic,
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
        }
        (out.into(), None)
    }

    fn block(index: u64, content_block: &str) -> String {
        format!(
            r#"{{"type":"content_block_start","index":{index},"content_block":{content_block}}}"#
        )
    }

    fn delta(index: u64, delta: &str) -> String {
        format!(r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#)
    }

    fn json(index: u64, part: &str) -> String {
        let part = serde_json::json!({"type": "input_json_delta", "partial_json": part});
        delta(index, &part.to_string())
    }

    fn tool(index: u64, id: &str) -> String {
        let tool = serde_json::json!({"type": "tool_use", "id": id, "name": "ls", "input": {}});
        block(index, &tool.to_string())
    }

    fn finish(index: u64) -> String {
        format!(r#"{{"type":"content_block_stop","index":{index}}}"#)
    }

    fn end(reason: &str) -> [String; 2] {
        [
            format!(
                r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}},"usage":{{"output_tokens":7}}}}"#
            ),
            r#"{"type":"message_stop"}"#.to_owned(),
        ]
    }

    #[track_caller]
    fn check(events: impl IntoIterator<Item = String>, expected: &[Event]) {
        let events: Vec<_> = events.into_iter().collect();
        let events: Vec<_> = events.iter().map(String::as_str).collect();
        let (out, failure) = decode(&events);
        assert_eq!(failure, None);
        let out: Vec<_> = out
            .into_iter()
            .filter(|event| !matches!(event, Event::Usage(_)))
            .collect();
        assert_eq!(out, expected);
    }

    fn call(id: &str, arguments: &str) -> Event {
        Event::Call(ToolCall {
            id: id.to_owned(),
            name: "ls".to_owned(),
            arguments: arguments.to_owned(),
        })
    }

    #[test]
    fn text_thoughts_and_what_proves_them() {
        let events = [
            block(0, r#"{"type":"thinking","thinking":"","signature":""}"#),
            delta(0, r#"{"type":"thinking_delta","thinking":"hm"}"#),
            delta(0, r#"{"type":"signature_delta","signature":"ab"}"#),
            delta(0, r#"{"type":"signature_delta","signature":"c="}"#),
            finish(0),
            block(1, r#"{"type":"redacted_thinking","data":"xyz"}"#),
            finish(1),
            r#"{"type":"ping"}"#.to_owned(),
            block(2, r#"{"type":"text","text":"","citations":null}"#),
            delta(2, r#"{"type":"text_delta","text":"Hi "}"#),
            delta(2, r#"{"type":"text_delta","text":"you"}"#),
            delta(2, r#"{"type":"some_later_delta","x":1}"#),
            finish(2),
            block(3, r#"{"type":"some_later_block"}"#),
            json(3, "{}"),
            finish(3),
            r#"{"type":"some_later_event"}"#.to_owned(),
        ];
        let expected = [
            Event::Thinking("hm".to_owned()),
            Event::Signature("abc=".to_owned()),
            Event::Signature("redacted_thinking:xyz".to_owned()),
            Event::Text("Hi ".to_owned()),
            Event::Text("you".to_owned()),
            Event::Stop(Stop::Done),
        ];
        check(events.into_iter().chain(end("end_turn")), &expected);
    }

    #[test]
    fn calls_may_come_in_turns() {
        let events = [
            tool(0, "a"),
            tool(1, "b"),
            tool(2, "c"),
            json(1, r#"{"path""#),
            json(0, r#"{"path":"#),
            json(1, r#":"y"}"#),
            finish(1),
            json(0, r#""x"}"#),
            finish(0),
            finish(2),
        ];
        let expected = [
            call("b", r#"{"path":"y"}"#),
            call("a", r#"{"path":"x"}"#),
            call("c", "{}"),
            Event::Stop(Stop::Calls),
        ];
        check(events.into_iter().chain(end("tool_use")), &expected);
    }

    #[test]
    fn a_call_that_is_not_whole() {
        let events = || {
            [
                tool(0, "a"),
                finish(0),
                tool(1, "b"),
                json(1, "{\"pa"),
                finish(1),
            ]
        };
        let whole = call("a", "{}");
        // Stopped there, and written so.
        check(
            events().into_iter().chain(end("max_tokens")),
            &[whole.clone(), Event::Stop(Stop::Length)],
        );
        check(
            events().into_iter().chain(end("tool_use")),
            &[whole, call("b", "{\"pa"), Event::Stop(Stop::Calls)],
        );
    }

    #[test]
    fn why_it_stopped() {
        let of = |reason: &str, stop: Stop| check(end(reason), &[Event::Stop(stop)]);
        of("end_turn", Stop::Done);
        of("stop_sequence", Stop::Done);
        of("tool_use", Stop::Done);
        of("max_tokens", Stop::Length);
        of("pause_turn", Stop::Length);
        of("refusal", Stop::Refused);
        of("some_later_reason", Stop::Done);
        let [full, _] = end("model_context_window_exceeded");
        assert_eq!(decode(&[&full]).1, Some(FailureKind::ContextOverflow));
    }

    #[test]
    fn errors_and_nonsense() {
        let of = |data: &str, kind: FailureKind| assert_eq!(decode(&[data]).1, Some(kind));
        of(
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            FailureKind::Unavailable,
        );
        of(
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"x"}}"#,
            FailureKind::Refused,
        );
        of("{\"type\":", FailureKind::Refused);
        of("[DONE]", FailureKind::Refused);
    }

    #[test]
    fn tokens_are_counted_once() {
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":10,
            "cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":1}}}"#;
        let [delta, _] = end("end_turn");
        let usage = |output: u64| {
            Event::Usage(Usage {
                input: 3210,
                output,
                cache_read: 3000,
                cache_write: 200,
            })
        };
        assert_eq!(decode(&[start, &delta]).0, [usage(1), usage(7)]);
    }
}
