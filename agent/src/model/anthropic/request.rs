//! What is asked, in Anthropic's words.

use serde_json::{Value, json};

use crate::model::{Content, Message, Request};

/// Thoughts that the provider hid carry this before what it gave in their place,
/// so that they can be told from signed ones. No signature has a colon.
pub(super) const REDACTED: &str = "redacted_thinking:";

/// The body of a request.
///
/// Two places are marked for the provider's cache: the end of what is the same
/// for the whole conversation, and the end of the conversation so far, which the
/// next request begins with.
pub(super) fn body(request: &Request) -> Value {
    let mut body = json!({
        "model": request.model,
        "max_tokens": request.max_output_tokens,
        "stream": true,
        "messages": messages(&request.messages),
    });
    if !request.system.trim().is_empty() {
        body["system"] = json!([{
            "type": "text",
            "text": request.system,
            "cache_control": {"type": "ephemeral"},
        }]);
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({
                "name": tool.name,
                "description": tool.description,
                "input_schema": tool.parameters,
            })
        });
        body["tools"] = tools.collect();
    }
    body
}

fn messages(messages: &[Message]) -> Vec<Value> {
    // Thoughts are shown again where the API wants them: in the turn that they
    // belong to. Those of earlier turns may be another model's, who refuses them.
    let turn = messages
        .iter()
        .rposition(|message| matches!(message, Message::User { .. }))
        .unwrap_or(0);
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let (role, blocks) = match message {
            Message::User { text } => ("user", text_block(text).into_iter().collect()),
            Message::Assistant { content } => {
                let blocks = content
                    .iter()
                    .filter_map(|content| block(content, at > turn));
                ("assistant", blocks.collect::<Vec<_>>())
            }
            Message::Tools { results } => {
                let blocks = results.iter().map(|result| {
                    let mut block = json!({
                        "type": "tool_result",
                        "tool_use_id": allowed(&result.id),
                        "content": result.content,
                    });
                    if result.failed {
                        block["is_error"] = json!(true);
                    }
                    block
                });
                ("user", blocks.collect())
            }
        };
        // Two of one role in a row are one, and one without content is none.
        match turns.last_mut() {
            Some((last, all)) if *last == role => all.extend(blocks),
            _ if blocks.is_empty() => {}
            _ => turns.push((role, blocks)),
        }
    }
    if let Some(last) = turns.last_mut().and_then(|(_, blocks)| blocks.last_mut()) {
        last["cache_control"] = json!({"type": "ephemeral"});
    }
    turns
        .into_iter()
        .map(|(role, content)| json!({"role": role, "content": content}))
        .collect()
}

fn block(content: &Content, of_this_turn: bool) -> Option<Value> {
    match content {
        Content::Text { text } => text_block(text),
        Content::Call(call) => Some(json!({
            "type": "tool_use",
            "id": allowed(&call.id),
            "name": allowed(&call.name),
            "input": call.object(),
        })),
        Content::Thinking { signature, .. } if signature.is_empty() || !of_this_turn => None,
        Content::Thinking { text, signature } => Some(match signature.strip_prefix(REDACTED) {
            Some(data) => json!({"type": "redacted_thinking", "data": data}),
            None => json!({"type": "thinking", "thinking": text, "signature": signature}),
        }),
    }
}

/// The API refuses text that has nothing in it.
fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}))
}

/// A name or an id of the letters that the API allows. Another provider's may
/// have others, and a model may make up a tool.
fn allowed(name: &str) -> String {
    let name = name.chars().take(64).map(|letter| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => letter,
        _ => '_',
    });
    let name: String = name.collect();
    if name.is_empty() {
        "_".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tool, ToolCall, ToolResult};

    fn user(text: &str) -> Message {
        Message::User {
            text: text.to_owned(),
        }
    }

    fn thought(text: &str, signature: &str) -> Content {
        Content::Thinking {
            text: text.to_owned(),
            signature: signature.to_owned(),
        }
    }

    fn call(id: &str, arguments: &str) -> Content {
        Content::Call(ToolCall {
            id: id.to_owned(),
            name: "execute".to_owned(),
            arguments: arguments.to_owned(),
        })
    }

    fn results(ids: &[(&str, bool)]) -> Message {
        let results = ids.iter().map(|(id, failed)| ToolResult {
            id: (*id).to_owned(),
            content: "out".to_owned(),
            failed: *failed,
        });
        Message::Tools {
            results: results.collect(),
        }
    }

    #[test]
    fn a_request_has_its_parts_and_its_two_marks() {
        let request = Request {
            model: "claude-x".to_owned(),
            system: "Be brief.".to_owned(),
            messages: vec![user("hello")],
            tools: vec![Tool {
                name: "ls",
                description: "Lists.".to_owned(),
                parameters: json!({"type": "object"}),
            }],
            max_output_tokens: 100,
        };
        let mark = json!({"type": "ephemeral"});
        assert_eq!(
            body(&request),
            json!({
                "model": "claude-x",
                "max_tokens": 100,
                "stream": true,
                "system": [{"type": "text", "text": "Be brief.", "cache_control": mark}],
                "tools": [{"name": "ls", "description": "Lists.", "input_schema": {"type": "object"}}],
                "messages": [{"role": "user", "content": [
                    {"type": "text", "text": "hello", "cache_control": mark},
                ]}],
            })
        );
    }

    #[test]
    fn a_turn_of_tools_goes_back_whole() {
        let conversation = [
            user("go"),
            Message::Assistant {
                content: vec![
                    thought("hm", "sig=="),
                    thought("", "redacted_thinking:data"),
                    thought("another's", ""),
                    Content::Text {
                        text: "  ".to_owned(),
                    },
                    call("t.1", "{\"command\":\"ls\"}"),
                    call("t2", "{\"comm"),
                ],
            },
            results(&[("t.1", false), ("t2", true)]),
        ];
        let marked = json!({
            "type": "tool_result", "tool_use_id": "t2", "content": "out", "is_error": true,
            "cache_control": {"type": "ephemeral"},
        });
        assert_eq!(
            json!(messages(&conversation)),
            json!([
                {"role": "user", "content": [{"type": "text", "text": "go"}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig=="},
                    {"type": "redacted_thinking", "data": "data"},
                    {"type": "tool_use", "id": "t_1", "name": "execute", "input": {"command": "ls"}},
                    {"type": "tool_use", "id": "t2", "name": "execute",
                     "input": {"not_an_object": "{\"comm"}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t_1", "content": "out"}, marked,
                ]},
            ])
        );
    }

    #[test]
    fn thoughts_of_earlier_turns_stay_there_and_roles_alternate() {
        let conversation = [
            user("one"),
            Message::Assistant {
                content: vec![thought("hm", "sig"), call("a", "{}")],
            },
            results(&[("a", false)]),
            Message::Assistant {
                content: vec![thought("only", "sig")],
            },
            user("two"),
            user("three"),
        ];
        let messages = messages(&conversation);
        let roles: Vec<_> = messages.iter().map(|m| m["role"].clone()).collect();
        assert_eq!(roles, ["user", "assistant", "user"]);
        assert_eq!(messages[1]["content"].as_array().map(Vec::len), Some(1));
        let last = messages[2]["content"].as_array().expect("blocks");
        assert_eq!(last.len(), 3, "the result, then what was said");
        assert_eq!(last[0]["type"], "tool_result");
    }
}
