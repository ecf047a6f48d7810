//! Anthropic's Messages API, as a server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::reply::{Answer, Body, Reply, Usage};
use super::server::{self, Response};
use super::{Received, Refusal, State};

const FIELDS: [&str; 15] = [
    "model",
    "max_tokens",
    "messages",
    "system",
    "stream",
    "tools",
    "tool_choice",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "metadata",
    "thinking",
    "cache_control",
    "service_tier",
];

/// Refuses what the API refuses.
pub(super) fn check(state: &State, received: &Received) -> Result<(), Refusal> {
    let bad = |message: String| Err(Refusal::new(400, "invalid_request_error", message));
    if received.line != "POST /v1/messages" {
        return Err(Refusal::new(404, "not_found_error", "Not Found"));
    }
    match received.header("x-api-key") {
        Some(key) if key == state.key => {}
        Some(_) => {
            return Err(Refusal::new(
                401,
                "authentication_error",
                "invalid x-api-key",
            ));
        }
        None => {
            let text = "x-api-key header is required";
            return Err(Refusal::new(401, "authentication_error", text));
        }
    }
    if received.header("anthropic-version") != Some("2023-06-01") {
        return bad("anthropic-version: header is required".to_owned());
    }
    let Some(body) = received.body.as_object() else {
        return bad("The request body is not valid JSON".to_owned());
    };
    if let Some(field) = body.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        return bad(format!("{field}: Extra inputs are not permitted"));
    }
    for field in ["model", "max_tokens", "messages"] {
        if !body.contains_key(field) {
            return bad(format!("{field}: Field required"));
        }
    }
    let Some(model) = body["model"].as_str() else {
        return bad("model: Input should be a valid string".to_owned());
    };
    if state
        .models
        .as_ref()
        .is_some_and(|models| !models.iter().any(|name| name == model))
    {
        return Err(Refusal::new(
            404,
            "not_found_error",
            format!("model: {model}"),
        ));
    }
    if body["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
        return bad("max_tokens: Input should be greater than or equal to 1".to_owned());
    }
    check_tools(&received.body["tools"]).or_else(bad)?;
    check_messages(state, &received.body["messages"]).or_else(bad)?;
    let marks = received
        .body
        .to_string()
        .matches("\"cache_control\"")
        .count();
    if marks > 4 {
        return bad(format!(
            "A maximum of 4 blocks with cache_control may be provided. Found {marks}."
        ));
    }
    Ok(())
}

fn check_tools(tools: &Value) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for (at, tool) in tools.as_array().into_iter().flatten().enumerate() {
        let name = tool["name"].as_str().unwrap_or_default();
        if !is_name(name) {
            return Err(format!(
                "tools.{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
            ));
        }
        if !names.insert(name) {
            return Err("tools: Tool names must be unique.".to_owned());
        }
        if tool["input_schema"]["type"] != "object" {
            return Err(format!("tools.{at}.input_schema.type: Field required"));
        }
    }
    Ok(())
}

fn check_messages(state: &State, messages: &Value) -> Result<(), String> {
    let messages = messages.as_array().map(Vec::as_slice).unwrap_or_default();
    if messages.is_empty() {
        return Err("messages: at least one message is required".to_owned());
    }
    if messages[0]["role"] != "user" {
        return Err("messages: first message must use the \"user\" role".to_owned());
    }
    if messages
        .last()
        .is_some_and(|last| last["role"] == "assistant")
    {
        return Err("The conversation must end with a user message.".to_owned());
    }
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if !["user", "assistant"].contains(&role) {
            return Err(format!(
                "messages.{at}.role: Input should be 'user' or 'assistant'"
            ));
        }
        let called = std::mem::take(&mut waiting);
        let mut answered = BTreeSet::new();
        for (block_at, block) in blocks(message).iter().enumerate() {
            let place = format!("messages.{at}.content.{block_at}");
            let id = |field: &str| block[field].as_str().unwrap_or_default().to_owned();
            match (block["type"].as_str().unwrap_or_default(), role) {
                ("text", _) => {
                    if block["text"]
                        .as_str()
                        .is_none_or(|text| text.trim().is_empty())
                    {
                        return Err(format!("{place}: text content blocks must be non-empty"));
                    }
                }
                ("tool_use", "assistant") => {
                    if !is_name(&id("id")) || !is_name(&id("name")) {
                        return Err(format!(
                            "{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
                        ));
                    }
                    if !block["input"].is_object() {
                        return Err(format!(
                            "{place}.tool_use.input: Input should be a valid dictionary"
                        ));
                    }
                    waiting.insert(id("id"));
                }
                ("tool_result", "user") => {
                    let id = id("tool_use_id");
                    if !called.contains(&id) {
                        return Err(format!(
                            "{place}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each \
                             `tool_result` block must have a corresponding `tool_use` block in the previous message."
                        ));
                    }
                    answered.insert(id);
                }
                ("thinking", "assistant") => {
                    if !state.signatures.contains(&id("signature")) {
                        return Err(format!("{place}: Invalid `signature` in `thinking` block"));
                    }
                }
                ("redacted_thinking", "assistant") if !id("data").is_empty() => {}
                (kind, _) => {
                    return Err(format!("{place}: Input tag '{kind}' is not expected here"));
                }
            }
        }
        if blocks(message).is_empty() {
            return Err(format!(
                "messages.{at}: all messages must have non-empty content"
            ));
        }
        let missing: Vec<_> = called.difference(&answered).cloned().collect();
        if !missing.is_empty() {
            return Err(format!(
                "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each \
                 `tool_use` block must have a corresponding `tool_result` block in the next message.",
                at - 1,
                missing.join(", ")
            ));
        }
    }
    Ok(())
}

/// A message's blocks: a text alone stands for one.
fn blocks(message: &Value) -> Vec<Value> {
    match &message["content"] {
        Value::Array(blocks) => blocks.clone(),
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        _ => Vec::new(),
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(allowed)
}

/// An error as the API puts it.
fn error(id: &str, kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": id})
}

pub(super) fn respond(state: &mut State, received: &Received, reply: Reply) -> Response {
    let request = state.id("req_");
    let mut headers = reply.headers;
    headers.push(("request-id".to_owned(), request.clone()));
    let (status, body) = match reply.body {
        Body::Error {
            status,
            kind,
            message,
        } => (status, whole(&error(&request, &kind, &message))),
        Body::Answer(answer) => {
            let id = state.id("msg_");
            let content = content(state, &answer);
            if received.body["stream"] == true {
                let events = events(&id, received, &answer, &content);
                (200, server::Body::Events(events))
            } else {
                (200, whole(&message(&id, received, &answer, content)))
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

/// The blocks of an answer, with a call's arguments as they were written.
fn content(state: &mut State, answer: &Answer) -> Vec<Value> {
    let mut blocks = Vec::new();
    if let Some((text, signature)) = &answer.thinking {
        state.signatures.push(signature.clone());
        blocks.push(json!({"type": "thinking", "thinking": text, "signature": signature}));
    }
    if !answer.text.is_empty() {
        blocks.push(json!({"type": "text", "text": answer.text}));
    }
    for (name, input) in &answer.calls {
        let id = state.id("toolu_");
        blocks.push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
    }
    blocks
}

fn stop_reason(answer: &Answer) -> &str {
    match &answer.stop {
        Some(stop) => stop,
        None if answer.calls.is_empty() => "end_turn",
        None => "tool_use",
    }
}

fn usage(received: &Received, answer: &Answer) -> Usage {
    let said: usize = answer.calls.iter().map(|(_, input)| input.len()).sum();
    answer.usage.unwrap_or(Usage {
        input: 1 + received.body.to_string().len() as u64 / 4,
        output: 1 + (answer.text.len() + said) as u64 / 4,
        ..Usage::default()
    })
}

fn counts(usage: Usage, output: u64) -> Value {
    json!({
        "input_tokens": usage.input - usage.cache_read - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": output,
    })
}

/// An answer that is not streamed.
fn message(id: &str, received: &Received, answer: &Answer, mut content: Vec<Value>) -> Value {
    for block in &mut content {
        if let Some(input) = block["input"].as_str() {
            block["input"] = serde_json::from_str(input).unwrap_or_default();
        }
    }
    let usage = usage(received, answer);
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": received.body["model"],
        "content": content,
        "stop_reason": stop_reason(answer),
        "stop_sequence": null,
        "usage": counts(usage, usage.output),
    })
}

fn events(id: &str, received: &Received, answer: &Answer, content: &[Value]) -> Vec<String> {
    let usage = usage(received, answer);
    let mut start = message(id, received, answer, Vec::new());
    start["stop_reason"] = Value::Null;
    start["usage"] = counts(usage, 1);
    let mut events = vec![
        event("message_start", json!({"message": start})),
        event("ping", json!({})),
    ];
    for (index, block) in content.iter().enumerate() {
        let mut begin = block.clone();
        let mut deltas = Vec::new();
        for (field, delta, part) in [
            ("thinking", "thinking_delta", "thinking"),
            ("signature", "signature_delta", "signature"),
            ("text", "text_delta", "text"),
            ("input", "input_json_delta", "partial_json"),
        ] {
            let Some(text) = block[field].as_str() else {
                continue;
            };
            begin[field] = if field == "input" {
                json!({})
            } else {
                json!("")
            };
            // The API begins arguments with an empty piece.
            let empty = (field == "input").then_some("");
            for piece in empty.into_iter().chain(pieces(text)) {
                deltas.push(json!({"type": delta, part: piece}));
            }
        }
        events.push(event(
            "content_block_start",
            json!({"index": index, "content_block": begin}),
        ));
        for delta in deltas {
            events.push(event(
                "content_block_delta",
                json!({"index": index, "delta": delta}),
            ));
        }
        events.push(event("content_block_stop", json!({"index": index})));
    }
    let stop = json!({"stop_reason": stop_reason(answer), "stop_sequence": null});
    events.push(event(
        "message_delta",
        json!({"delta": stop, "usage": {"output_tokens": usage.output}}),
    ));
    events.push(event("message_stop", json!({})));
    if let Some((after, kind, message)) = &answer.fails {
        events.truncate(*after);
        events.push(named("error", &error("req_0", kind, message)));
    }
    events
}

fn event(name: &str, mut data: Value) -> String {
    data["type"] = json!(name);
    named(name, &data)
}

fn named(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// A text in the pieces in which a model says it.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(8).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}
