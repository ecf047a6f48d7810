//! Events, messages and executions as JSON. One event is one line, and loses
//! nothing that the daemon told.

use serde_json::{Value, json};
use stigmer_sdk::wire::agent::{
    Approval, ApprovalState, Event, Execution, FileChange, Message, MessageType, Phase, Session,
    TodoStatus, Todos, ToolCall, ToolCallStatus, Usage, event::What, file_change,
};
use stigmer_sdk::wire::sandbox;

use super::Piece;
use crate::cli::events::base64;

/// What `--help` says of the format.
pub(in crate::cli) const FORMAT: &str = "\
With --json, every event is one line on stdout:
  {\"type\":\"execution\",\"execution_id\":\"exe-…\",\"session_id\":\"ses-…\"}      the first
  {\"seq\":1,\"at_ms\":…,\"type\":\"phase\",\"phase\":\"in_progress\",\"attempt\":1}
  {…,\"type\":\"message\",\"message_id\":…,\"role\":\"ai\",\"content\":…}
  {…,\"type\":\"text\",\"message_id\":…,\"text\":…}          more of a message
  {…,\"type\":\"tool_call\",\"tool_call_id\":…,\"name\":…,\"args\":{…},\"status\":\"running\"}
  {…,\"type\":\"tool_output\",\"tool_call_id\":…,\"stream\":\"stdout\",\"data\":…}
  {…,\"type\":\"todos\",\"items\":[…]}   {…,\"type\":\"usage\",\"input_tokens\":…}
  {…,\"type\":\"approval\",\"tool_call_id\":…,\"state\":\"pending\",\"summary\":…}
  {…,\"type\":\"cancel_requested\",\"reason\":…}
Output that is not UTF-8 has \"base64\" instead of \"data\". The last line is the
phase completed, failed (with \"error\") or cancelled.";

pub(super) fn line(value: Value) -> Piece {
    Piece::Out(format!("{value}\n"))
}

pub(super) fn head(execution: &Execution) -> Value {
    json!({
        "type": "execution",
        "execution_id": execution.execution_id,
        "session_id": execution.session_id,
    })
}

pub(super) fn event(event: &Event) -> Value {
    let (kind, mut value) = match &event.what {
        Some(What::Phase(change)) => (
            "phase",
            json!({
                "phase": phase(change.phase()),
                "attempt": change.attempt,
                "runner_id": change.runner_id,
                "error": change.error.as_ref().map(error),
            }),
        ),
        Some(What::Message(said)) => ("message", message(said)),
        Some(What::Text(delta)) => (
            "text",
            json!({ "message_id": delta.message_id, "text": delta.text }),
        ),
        Some(What::ToolCall(call)) => ("tool_call", tool_call(call)),
        Some(What::Usage(used)) => ("usage", usage(used)),
        Some(What::CancelRequested(reason)) => ("cancel_requested", json!({ "reason": reason })),
        Some(What::Todos(list)) => ("todos", json!({ "items": todos(list) })),
        Some(What::Approval(asked)) => ("approval", approval(asked)),
        Some(What::Output(output)) => {
            let mut value = json!({
                "tool_call_id": output.tool_call_id,
                "stream": if output.stderr { "stderr" } else { "stdout" },
            });
            match std::str::from_utf8(&output.data) {
                Ok(text) => value["data"] = text.into(),
                Err(_) => value["base64"] = base64(&output.data).into(),
            }
            ("tool_output", value)
        }
        None => ("unknown", json!({})),
    };
    value["seq"] = event.seq.into();
    value["at_ms"] = event.at_ms.into();
    value["type"] = kind.into();
    value
}

/// A whole execution, for `show` and `list`.
pub(in crate::cli) fn execution(execution: &Execution) -> Value {
    let spec = execution.spec.clone().unwrap_or_default();
    let status = execution.status.clone().unwrap_or_default();
    json!({
        "execution_id": execution.execution_id,
        "session_id": execution.session_id,
        "created_ms": execution.created_ms,
        "message": spec.message,
        "model": spec.model,
        "labels": sorted(&spec.labels),
        "phase": phase(status.phase()),
        "attempt": status.attempt,
        "runner_id": status.runner_id,
        "cancel_requested": status.cancel_requested,
        "started_ms": status.started_ms,
        "completed_ms": status.completed_ms,
        "seq": status.seq,
        "error": status.error.as_ref().map(error),
        "usage": status.usage.as_ref().map(usage),
        "todos": status.todos.as_ref().map(todos),
        "approvals": status.approvals.iter().map(approval).collect::<Vec<_>>(),
        "messages": status.messages.iter().map(message).collect::<Vec<_>>(),
        "tool_calls": status.tool_calls.iter().map(tool_call).collect::<Vec<_>>(),
    })
}

/// Without the values of variables: they may be secrets.
pub(in crate::cli) fn session(session: &Session) -> Value {
    let spec = session.spec.clone().unwrap_or_default();
    let agent = spec.agent.unwrap_or_default();
    let skills: Vec<_> = agent.skills.iter().map(|skill| &skill.name).collect();
    json!({
        "session_id": session.session_id,
        "sandbox_id": session.sandbox_id,
        "subject": spec.subject,
        "agent": agent.name,
        "model": agent.model,
        "skills": skills,
        "labels": sorted(&spec.labels),
        "created_ms": session.created_ms,
        "used_ms": session.used_ms,
    })
}

fn sorted(labels: &std::collections::HashMap<String, String>) -> Value {
    let labels: std::collections::BTreeMap<_, _> = labels.iter().collect();
    json!(labels)
}

pub(in crate::cli) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "unknown",
        Phase::Pending => "pending",
        Phase::InProgress => "in_progress",
        Phase::Completed => "completed",
        Phase::Failed => "failed",
        Phase::Cancelled => "cancelled",
    }
}

fn error(error: &sandbox::Error) -> Value {
    let code = error.code().as_str_name();
    let code = code.strip_prefix("ERROR_CODE_").unwrap_or(code);
    json!({
        "code": code.to_lowercase(),
        "message": error.message,
        "path": error.path,
    })
}

pub(in crate::cli) fn message(message: &Message) -> Value {
    let role = match message.r#type() {
        MessageType::Unspecified => "unknown",
        MessageType::Human => "human",
        MessageType::Ai => "ai",
        MessageType::Tool => "tool",
        MessageType::System => "system",
    };
    json!({
        "message_id": message.message_id,
        "role": role,
        "content": message.content,
        "created_ms": message.created_ms,
        "tool_call_id": message.tool_call_id,
    })
}

pub(in crate::cli) fn tool_call(call: &ToolCall) -> Value {
    let status = match call.status() {
        ToolCallStatus::Unspecified => "unknown",
        ToolCallStatus::Pending => "pending",
        ToolCallStatus::Running => "running",
        ToolCallStatus::Completed => "completed",
        ToolCallStatus::Failed => "failed",
    };
    // What a model wrote may be no JSON after all.
    let args = serde_json::from_str(&call.args).unwrap_or_else(|_| json!(call.args));
    json!({
        "tool_call_id": call.tool_call_id,
        "message_id": call.message_id,
        "name": call.name,
        "args": args,
        "status": status,
        "result": call.result,
        "error": call.error,
        "exit_code": call.exit_code,
        "started_ms": call.started_ms,
        "completed_ms": call.completed_ms,
        "changes": call.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

fn change(change: &FileChange) -> Value {
    let kind = match change.kind() {
        file_change::Kind::Unspecified => "unknown",
        file_change::Kind::Created => "created",
        file_change::Kind::Changed => "changed",
        file_change::Kind::Deleted => "deleted",
    };
    json!({
        "path": change.path,
        "kind": kind,
        "added": change.added,
        "removed": change.removed,
        "diff": change.diff,
    })
}

fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "model_calls": usage.model_calls,
        "cost_microusd": usage.cost_microusd,
    })
}

fn todos(todos: &Todos) -> Value {
    let items = todos.items.iter().map(|todo| {
        let status = match todo.status() {
            TodoStatus::Unspecified | TodoStatus::Pending => "pending",
            TodoStatus::InProgress => "in_progress",
            TodoStatus::Completed => "completed",
        };
        json!({ "content": todo.content, "status": status })
    });
    items.collect()
}

fn approval(approval: &Approval) -> Value {
    let state = match approval.state() {
        ApprovalState::Unspecified => "unknown",
        ApprovalState::Pending => "pending",
        ApprovalState::Allowed => "allowed",
        ApprovalState::Denied => "denied",
    };
    json!({
        "tool_call_id": approval.tool_call_id,
        "state": state,
        "why": approval.why,
        "summary": approval.summary,
        "changes": approval.changes.iter().map(change).collect::<Vec<_>>(),
        "reason": approval.reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stigmer_sdk::wire::agent::{PhaseChange, TextDelta, ToolOutput};

    #[test]
    fn an_event_is_a_line() {
        #[track_caller]
        fn check(what: What, expected: &str) {
            let made = event(&Event {
                seq: 3,
                at_ms: 9,
                what: Some(what),
            });
            assert_eq!(made.to_string(), expected);
        }
        let output = |data: &[u8]| {
            What::Output(ToolOutput {
                tool_call_id: "c".to_owned(),
                data: data.to_vec().into(),
                stderr: true,
            })
        };
        check(
            output(b"a\n"),
            r#"{"at_ms":9,"data":"a\n","seq":3,"stream":"stderr","tool_call_id":"c","type":"tool_output"}"#,
        );
        check(
            output(b"\xff\x00"),
            r#"{"at_ms":9,"base64":"/wA=","seq":3,"stream":"stderr","tool_call_id":"c","type":"tool_output"}"#,
        );
        check(
            What::Text(TextDelta {
                message_id: "m".to_owned(),
                text: "a\nb".to_owned(),
            }),
            r#"{"at_ms":9,"message_id":"m","seq":3,"text":"a\nb","type":"text"}"#,
        );
        check(
            What::Phase(PhaseChange {
                phase: Phase::Failed.into(),
                attempt: 1,
                runner_id: "r".to_owned(),
                error: Some(sandbox::Error {
                    code: sandbox::ErrorCode::TimedOut.into(),
                    message: "it took too long".to_owned(),
                    path: None,
                    count: None,
                }),
            }),
            r#"{"at_ms":9,"attempt":1,"error":{"code":"timed_out","message":"it took too long","path":null},"phase":"failed","runner_id":"r","seq":3,"type":"phase"}"#,
        );
        check(
            What::CancelRequested("enough".to_owned()),
            r#"{"at_ms":9,"reason":"enough","seq":3,"type":"cancel_requested"}"#,
        );
    }

    #[test]
    fn arguments_that_are_no_json_are_text() {
        let args = |args: &str| {
            tool_call(&ToolCall {
                args: args.to_owned(),
                ..ToolCall::default()
            })["args"]
                .to_string()
        };
        assert_eq!(args(r#"{"a":1}"#), r#"{"a":1}"#);
        assert_eq!(args("{"), r#""{""#);
    }
}
