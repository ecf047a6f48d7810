//! OpenAI's Chat Completions API, as a server, and what Ollama has beside it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::anthropic::pieces;
use super::reply::{Answer, Body, Reply, Usage};
use super::server::{self, Response};
use super::{Received, Refusal, State, Wire};

const FIELDS: [&str; 15] = [
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "user",
    "reasoning_effort",
];

/// What is asked for beside answers.
pub(super) fn other(
    wire: Wire,
    received: &Received,
    models: Option<&[String]>,
) -> Option<Response> {
    let names = models.unwrap_or_default();
    let json = |body: Value| Some(Response::whole(200, "application/json", body.to_string()));
    match (received.line.as_str(), wire) {
        ("GET /", Wire::Ollama) => {
            let text = "Ollama is running".to_owned();
            Some(Response::whole(200, "text/plain; charset=utf-8", text))
        }
        ("GET /api/version", Wire::Ollama) => json(json!({"version": "0.12.0"})),
        ("GET /api/tags", Wire::Ollama) => {
            let models: Vec<_> = names
                .iter()
                .map(|name| json!({"name": name, "model": name}))
                .collect();
            json(json!({"models": models}))
        }
        ("GET /v1/models", _) => {
            let models: Vec<_> = names
                .iter()
                .map(
                    |name| json!({"id": name, "object": "model", "created": 0, "owned_by": "fake"}),
                )
                .collect();
            json(json!({"object": "list", "data": models}))
        }
        _ => None,
    }
}

/// Refuses what the API refuses.
pub(super) fn check(state: &State, wire: Wire, received: &Received) -> Result<(), Refusal> {
    let bad = |message: String| Err(Refusal::new(400, "invalid_request_error", message));
    if received.line != "POST /v1/chat/completions" {
        let text = format!("Invalid URL ({})", received.line);
        return Err(Refusal::new(404, "invalid_request_error", text));
    }
    let key = received.header("authorization");
    if wire == Wire::OpenAi && key != Some(&format!("Bearer {}", state.key)) {
        // The API repeats what it was given, with asterisks in its middle.
        let text = match key.and_then(|key| key.strip_prefix("Bearer ")) {
            Some(key) if key.len() > 8 => {
                format!(
                    "Incorrect API key provided: {}*****{}.",
                    &key[..5],
                    &key[key.len() - 4..]
                )
            }
            _ => "You didn't provide an API key.".to_owned(),
        };
        return Err(Refusal::new(401, "invalid_api_key", text));
    }
    let Some(body) = received.body.as_object() else {
        return bad("We could not parse the JSON body of your request.".to_owned());
    };
    if let Some(field) = body.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        return bad(format!("Unrecognized request argument supplied: {field}"));
    }
    let Some(model) = body.get("model").and_then(Value::as_str) else {
        return bad("you must provide a model parameter".to_owned());
    };
    if state
        .models
        .as_ref()
        .is_some_and(|models| !models.iter().any(|name| name == model))
    {
        return Err(match wire {
            Wire::Ollama => {
                Refusal::new(404, "not_found_error", format!("model '{model}' not found"))
            }
            Wire::OpenAi | Wire::Anthropic => Refusal::new(
                404,
                "model_not_found",
                format!("The model `{model}` does not exist or you do not have access to it."),
            ),
        });
    }
    if state.refuses_max_tokens && body.contains_key("max_tokens") {
        return bad(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
             'max_completion_tokens' instead."
                .to_owned(),
        );
    }
    if body.contains_key("stream_options") && body.get("stream") != Some(&json!(true)) {
        let text = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return bad(text.to_owned());
    }
    for (at, tool) in received.body["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let function = &tool["function"];
        if tool["type"] != "function" || function["name"].as_str().is_none_or(str::is_empty) {
            return bad(format!(
                "Missing required parameter: 'tools[{at}].function.name'."
            ));
        }
    }
    check_messages(&received.body["messages"]).or_else(bad)
}

fn check_messages(messages: &Value) -> Result<(), String> {
    let Some(messages) = messages.as_array() else {
        return Err("Missing required parameter: 'messages'.".to_owned());
    };
    if messages.is_empty() {
        return Err("Invalid 'messages': empty array.".to_owned());
    }
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    let unanswered = |waiting: &BTreeSet<String>| {
        let ids: Vec<_> = waiting.iter().cloned().collect();
        format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to \
             each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            ids.join(", ")
        )
    };
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" && !waiting.is_empty() {
            return Err(unanswered(&waiting));
        }
        let calls = message["tool_calls"].as_array();
        match role {
            "system" | "developer" | "user" if message["content"].is_null() => {
                return Err(format!(
                    "Invalid value for 'content': expected a string, got null. (messages[{at}])"
                ));
            }
            "system" | "developer" | "user" => {}
            "assistant" if message["content"].is_null() && calls.is_none() => {
                return Err(format!("messages[{at}] has neither content nor tool_calls"));
            }
            "assistant" => {
                for call in calls.into_iter().flatten() {
                    let function = &call["function"];
                    let whole = call["type"] == "function"
                        && function["name"].is_string()
                        && function["arguments"].is_string();
                    match call["id"].as_str() {
                        Some(id) if whole => waiting.insert(id.to_owned()),
                        _ => return Err(format!("Invalid type for 'messages[{at}].tool_calls'.")),
                    };
                }
            }
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                if !waiting.remove(id) {
                    return Err(
                        "Invalid parameter: messages with role 'tool' must be a response \
                                to a preceeding message with 'tool_calls'."
                            .to_owned(),
                    );
                }
                if !message["content"].is_string() && !message["content"].is_array() {
                    return Err(format!("Invalid value for 'messages[{at}].content'."));
                }
            }
            role => return Err(format!("Invalid value: '{role}'. Supported values are: …")),
        }
    }
    if waiting.is_empty() {
        Ok(())
    } else {
        Err(unanswered(&waiting))
    }
}

/// An error as the API puts it.
fn error(kind: &str, message: &str) -> Value {
    let kind = match kind {
        "rate_limit_error" => json!({"type": "requests", "code": "rate_limit_exceeded"}),
        "model_not_found" | "invalid_api_key" | "context_length_exceeded" => {
            json!({"type": "invalid_request_error", "code": kind})
        }
        kind => json!({"type": kind, "code": null}),
    };
    json!({"error": {
        "message": message, "type": kind["type"], "param": null, "code": kind["code"],
    }})
}

pub(super) fn respond(state: &mut State, received: &Received, reply: Reply) -> Response {
    let mut headers = reply.headers;
    headers.push(("x-request-id".to_owned(), state.id("req_")));
    let (status, body) = match reply.body {
        Body::Error {
            status,
            kind,
            message,
        } => (status, whole(&error(&kind, &message))),
        Body::Answer(answer) => {
            let id = state.id("chatcmpl-");
            let calls: Vec<_> = answer
                .calls
                .iter()
                .map(|(name, arguments)| {
                    json!({"id": state.id("call_"), "type": "function",
                        "function": {"name": name, "arguments": arguments}})
                })
                .collect();
            if received.body["stream"] == true {
                let events = events(&id, received, &answer, &calls);
                (200, server::Body::Events(events))
            } else {
                (200, whole(&completion(&id, received, &answer, &calls)))
            }
        }
    };
    Response {
        status,
        headers,
        body,
        hold: reply.hold,
        cut: reply.cut,
        piece_bytes: reply.piece_bytes,
    }
}

fn whole(body: &Value) -> server::Body {
    server::Body::Whole {
        content_type: "application/json",
        text: body.to_string(),
    }
}

fn finish_reason(answer: &Answer) -> &str {
    match &answer.stop {
        Some(stop) => stop,
        None if answer.calls.is_empty() => "stop",
        None => "tool_calls",
    }
}

fn usage(received: &Received, answer: &Answer) -> Value {
    let said: usize = answer.calls.iter().map(|(_, input)| input.len()).sum();
    let usage = answer.usage.unwrap_or(Usage {
        input: 1 + received.body.to_string().len() as u64 / 4,
        output: 1 + (answer.text.len() + said) as u64 / 4,
        ..Usage::default()
    });
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
    })
}

/// An answer that is not streamed.
fn completion(id: &str, received: &Received, answer: &Answer, calls: &[Value]) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.text, "refusal": null});
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    json!({
        "id": id,
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": received.body["model"],
        "choices": [{"index": 0, "message": message, "logprobs": null,
            "finish_reason": finish_reason(answer)}],
        "usage": usage(received, answer),
    })
}

fn events(id: &str, received: &Received, answer: &Answer, calls: &[Value]) -> Vec<String> {
    let with_usage = received.body["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": id,
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": received.body["model"],
            "choices": choices,
        });
        if with_usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    let said = |delta: Value, finish_reason: Value| {
        let choice = json!([{"index": 0, "delta": delta, "logprobs": null,
            "finish_reason": finish_reason}]);
        chunk(choice, Value::Null)
    };
    let delta = |delta: Value| said(delta, Value::Null);
    let mut events = vec![delta(
        json!({"role": "assistant", "content": "", "refusal": null}),
    )];
    if let Some((text, _)) = &answer.thinking {
        events.extend(pieces(text).map(|piece| delta(json!({"reasoning_content": piece}))));
    }
    events.extend(pieces(&answer.text).map(|piece| delta(json!({"content": piece}))));
    for (index, call) in calls.iter().enumerate() {
        let mut begin = call.clone();
        begin["index"] = json!(index);
        begin["function"]["arguments"] = json!("");
        events.push(delta(json!({"tool_calls": [begin]})));
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        events.extend(pieces(arguments).map(|piece| {
            let piece = json!({"index": index, "function": {"arguments": piece}});
            delta(json!({"tool_calls": [piece]}))
        }));
    }
    events.push(said(json!({}), json!(finish_reason(answer))));
    if with_usage {
        events.push(chunk(json!([]), usage(received, answer)));
    }
    events.push("data: [DONE]\n\n".to_owned());
    if let Some((after, kind, message)) = &answer.fails {
        events.truncate(*after);
        events.push(format!("data: {}\n\n", error(kind, message)));
    }
    events
}
