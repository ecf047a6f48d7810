//! What is asked, in OpenAI's words.

use serde_json::{Value, json};

use crate::model::failure::Said;
use crate::model::http::Refusal;
use crate::model::{Content, Message, Request};

/// How a server wants to be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    /// The limit on the answer is `max_completion_tokens`, not `max_tokens`.
    completion_tokens: bool,
    /// `reasoning_effort` has to be `none` for tools to be allowed.
    no_reasoning: bool,
    /// It does not know `stream_options`.
    no_stream_options: bool,
}

impl Dialect {
    /// What to begin with. OpenAI's own API wants the newer name of the limit,
    /// others know the older one.
    pub(super) fn new(official: bool) -> Self {
        Self {
            completion_tokens: official,
            no_reasoning: false,
            no_stream_options: false,
        }
    }

    /// Learns from a refusal. Tells whether to try again.
    pub(super) fn learn(&mut self, refusal: &Refusal) -> bool {
        if !matches!(refusal.status.as_u16(), 400 | 422) {
            return false;
        }
        let before = *self;
        let message = Said::read(&refusal.body).message;
        let names = |words: &[&str]| words.iter().all(|word| message.contains(word));
        if names(&["max_tokens", "max_completion_tokens"]) {
            self.completion_tokens = true;
        }
        if names(&["reasoning_effort", "'none'"]) && names(&["tools"]) {
            self.no_reasoning = true;
        }
        if names(&["stream_options"]) {
            self.no_stream_options = true;
        }
        *self != before
    }
}

/// The body of a request.
pub(super) fn body(request: &Request, dialect: Dialect) -> Value {
    let mut body = json!({
        "model": request.model,
        "messages": messages(request),
        "stream": true,
    });
    let limit = if dialect.completion_tokens {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    body[limit] = json!(request.max_output_tokens);
    if !dialect.no_stream_options {
        body["stream_options"] = json!({"include_usage": true});
    }
    if !request.tools.is_empty() {
        if dialect.no_reasoning {
            body["reasoning_effort"] = json!("none");
        }
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            }})
        });
        body["tools"] = tools.collect();
    }
    body
}

fn messages(request: &Request) -> Vec<Value> {
    let mut messages = Vec::new();
    if !request.system.trim().is_empty() {
        // Everybody knows `system`; `developer` is OpenAI's alone, who takes both.
        messages.push(json!({"role": "system", "content": request.system}));
    }
    for message in &request.messages {
        match message {
            Message::User { text } => messages.push(json!({"role": "user", "content": text})),
            Message::Assistant { content } => messages.extend(assistant(content)),
            Message::Tools { results } => {
                messages.extend(results.iter().map(|result| {
                    json!({
                        "role": "tool",
                        "tool_call_id": result.id,
                        "content": result.content,
                    })
                }));
            }
        }
    }
    messages
}

/// Thoughts have no place here: they are another provider's, or a server's that
/// does not want them back.
fn assistant(content: &[Content]) -> Option<Value> {
    let mut text = Vec::new();
    let mut calls = Vec::new();
    for content in content {
        match content {
            Content::Text { text: more } => text.push(more.as_str()),
            Content::Call(call) => calls.push(json!({
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    // Some servers read it, and fail on what is no object.
                    "arguments": call.object().to_string(),
                },
            })),
            Content::Thinking { .. } => {}
        }
    }
    let text = text.join("\n\n");
    if calls.is_empty() {
        return (!text.is_empty()).then(|| json!({"role": "assistant", "content": text}));
    }
    // Some templates of prompts fail on a content that is null.
    Some(json!({"role": "assistant", "content": text, "tool_calls": calls}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tool, ToolCall, ToolResult};

    #[test]
    fn a_conversation_in_its_words() {
        let text = |text: &str| Content::Text {
            text: text.to_owned(),
        };
        let call = |id: &str, arguments: &str| {
            Content::Call(ToolCall {
                id: id.to_owned(),
                name: "ls".to_owned(),
                arguments: arguments.to_owned(),
            })
        };
        let request = Request {
            model: "m".to_owned(),
            system: "Be brief.".to_owned(),
            messages: vec![
                Message::User {
                    text: "go".to_owned(),
                },
                Message::Assistant {
                    content: vec![
                        Content::Thinking {
                            text: "hm".to_owned(),
                            signature: String::new(),
                        },
                        call("a", "{\"path\": \".\"}"),
                        call("b", "oops"),
                    ],
                },
                Message::Tools {
                    results: ["a", "b"]
                        .map(|id| ToolResult {
                            id: id.to_owned(),
                            content: "out".to_owned(),
                            failed: true,
                        })
                        .into(),
                },
                Message::Assistant {
                    content: vec![text("so"), text("done")],
                },
            ],
            tools: vec![Tool {
                name: "ls",
                description: "Lists.".to_owned(),
                parameters: json!({"type": "object"}),
            }],
            max_output_tokens: 10,
        };
        let function = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "ls", "arguments": arguments}});
        let expected = json!({
            "model": "m",
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_tokens": 10,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": "", "tool_calls": [
                    function("a", "{\"path\":\".\"}"),
                    function("b", "{\"not_an_object\":\"oops\"}"),
                ]},
                {"role": "tool", "tool_call_id": "a", "content": "out"},
                {"role": "tool", "tool_call_id": "b", "content": "out"},
                {"role": "assistant", "content": "so\n\ndone"},
            ],
            "tools": [{"type": "function", "function": {
                "name": "ls", "description": "Lists.", "parameters": {"type": "object"},
            }}],
        });
        assert_eq!(body(&request, Dialect::new(false)), expected);
        let mut dialect = Dialect::new(true);
        dialect.no_reasoning = true;
        let own = body(&request, dialect);
        assert_eq!(own["max_completion_tokens"], 10);
        assert_eq!(own["max_tokens"], Value::Null);
        assert_eq!(own["reasoning_effort"], "none");
    }

    #[test]
    fn a_server_says_how_it_wants_to_be_spoken_to() {
        let check = |status: u16, message: &str, learned: bool| {
            let refusal = Refusal {
                status: status.try_into().expect("a status"),
                body: json!({"error": {"message": message}}).to_string(),
                retry_after: None,
                should_retry: None,
            };
            let mut dialect = Dialect::new(false);
            assert_eq!(dialect.learn(&refusal), learned, "{message}");
            assert!(!dialect.learn(&refusal), "only once");
        };
        check(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. \
             Use 'max_completion_tokens' instead.",
            true,
        );
        check(
            400,
            "Function tools with reasoning_effort are not supported for gpt-x in \
             /v1/chat/completions. To use function tools, use /v1/responses or set \
             reasoning_effort to 'none'.",
            true,
        );
        check(422, "Extra inputs are not permitted: stream_options", true);
        check(400, "max_tokens is too large", false);
        check(500, "stream_options", false);
    }
}
