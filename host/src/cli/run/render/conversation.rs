//! A conversation that was, as `show` prints it.

use stigmer_sdk::wire::agent::{Message, MessageType, ToolCall, ToolCallStatus};

use super::parts::{self, Paint};

/// How many lines of a result are shown, from its end: that is where a command
/// says what went wrong.
const RESULT_LINES: usize = 12;

/// The messages, each with the tool calls that it made.
pub(in crate::cli) fn lines(messages: &[Message], calls: &[ToolCall]) -> Vec<String> {
    let mut all = Vec::new();
    for message in messages {
        let lead = match message.r#type() {
            MessageType::Human => "💬 You: ",
            MessageType::Ai => "🤖 Agent: ",
            MessageType::System => "ℹ️  System: ",
            // Part of its call.
            MessageType::Tool | MessageType::Unspecified => continue,
        };
        let content = message.content.trim_matches('\n');
        if !content.trim().is_empty() {
            all.push(String::new());
            all.push(format!("{lead}{content}"));
        }
        let made = calls
            .iter()
            .filter(|call| call.message_id == message.message_id);
        for call in made {
            tool_call(call, &mut all);
        }
    }
    // None is left out, whoever made it.
    let orphans = calls.iter().filter(|call| {
        !messages
            .iter()
            .any(|message| message.message_id == call.message_id)
    });
    for call in orphans {
        tool_call(call, &mut all);
    }
    if all.first().is_some_and(String::is_empty) {
        all.remove(0);
    }
    all
}

fn tool_call(call: &ToolCall, all: &mut Vec<String>) {
    let paint = Paint(false);
    all.push(String::new());
    all.push(parts::tool(paint, &call.name, &parts::title(&call.args)));
    let result: Vec<_> = call.result.trim_matches('\n').lines().collect();
    if result.len() > RESULT_LINES {
        let more = result.len() - RESULT_LINES;
        all.push(format!("   … {more} lines before"));
    }
    for line in &result[result.len().saturating_sub(RESULT_LINES)..] {
        all.push(format!("   {line}"));
    }
    let status = match call.status() {
        ToolCallStatus::Unspecified | ToolCallStatus::Completed => None,
        ToolCallStatus::Pending => Some("… not begun".to_owned()),
        ToolCallStatus::Running => Some("… running".to_owned()),
        ToolCallStatus::Failed => Some(format!("✗ {}", call.error.as_deref().unwrap_or("failed"))),
    };
    all.extend(status.map(|status| format!("   {status}")));
    for change in &call.changes {
        all.extend(
            parts::change(paint, change)
                .first()
                .map(|line| format!("   {line}")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_reads_from_top_to_bottom() {
        let message = |id: &str, kind: MessageType, content: &str| Message {
            message_id: id.to_owned(),
            r#type: kind.into(),
            content: content.to_owned(),
            ..Message::default()
        };
        let messages = [
            message("1", MessageType::Human, "do it"),
            message("2", MessageType::Ai, "I will.\n"),
            message("3", MessageType::Tool, "13 lines"),
            message("4", MessageType::Ai, "Done."),
        ];
        let call = ToolCall {
            message_id: "2".to_owned(),
            name: "execute".to_owned(),
            args: r#"{"command":"seq 13"}"#.to_owned(),
            result: (1..=13).map(|n| format!("{n}\n")).collect(),
            status: ToolCallStatus::Failed.into(),
            error: Some("timed out".to_owned()),
            ..ToolCall::default()
        };
        let text = lines(&messages, &[call]).join("\n");
        let numbers: Vec<_> = (2..=13).map(|n| format!("   {n}")).collect();
        assert_eq!(
            text,
            format!(
                "💬 You: do it\n\n🤖 Agent: I will.\n\n🔧 execute  seq 13\n   … 1 lines before\n{}\n   ✗ timed out\n\n🤖 Agent: Done.",
                numbers.join("\n")
            )
        );
    }
}
