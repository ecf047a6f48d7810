//! A conversation that outgrows its model's context, made shorter.
//!
//! The older part becomes a summary, which the model itself writes; the last
//! turns stay as they are. If that is not enough, the oldest outputs of tools go.
//! This module decides what goes where; `turn` asks the model.

use std::fmt::Write as _;

use stigmer_sdk::wire::agent::Todos;

use crate::history::{Conversation, Entry};
use crate::model::{Content, Message};
use crate::tools;

/// Of the context, what may be used before it is made room in. The rest is for
/// the next answer.
const FULL_PERCENT: u64 = 85;
/// Of the conversation's length, what stays as it is.
const KEPT_PERCENT: usize = 30;
/// What the summary is told of one result or of the arguments of one call.
const SHOWN_BYTES: usize = 2000;
/// What it is told of one message.
const MESSAGE_BYTES: usize = 8000;
/// Outputs shorter than this are not worth dropping.
const DROPPED_BYTES: usize = 400;
/// What stands for an output that was dropped.
const DROPPED: &str = "[this output was dropped to make room; call the tool again if it is needed]";

/// What the model is asked for a summary with.
pub(crate) const SUMMARY_PROMPT: &str = "\
You are given the beginning of a conversation between a person and an agent that works in a sandbox. \
The agent will go on with your summary in the place of that beginning, and with nothing else of it. \
Write down what it needs: what the person asked for, word for word where the words matter, and what \
they said of how they want it; what was done, with the names of files and commands; what was found \
out, with the exact errors, values and decisions; what is not done yet, and what comes next. \
No introduction and no comment: only the summary.";

/// Whether the next call may find the context too small.
pub(crate) fn is_full(used: u64, context: Option<u64>) -> bool {
    context.is_some_and(|context| used.saturating_mul(100) >= context.saturating_mul(FULL_PERCENT))
}

/// Where to cut: the index of the first entry that stays. It is the beginning
/// of a turn, so that no result is without its call. `None` if there is nothing
/// to summarise.
pub(crate) fn cut(entries: &[Entry]) -> Option<usize> {
    let lengths: Vec<usize> = entries.iter().map(|entry| length(&entry.message)).collect();
    let keep = lengths.iter().sum::<usize>() * KEPT_PERCENT / 100;
    let begins = |index: &usize| !matches!(entries[*index].message, Message::Tools { .. });
    let mut kept = 0;
    let mut last = None;
    for index in (1..entries.len()).rev() {
        kept += lengths[index];
        if begins(&index) {
            // The last turn stays, however long it is.
            if kept > keep && last.is_some() {
                break;
            }
            last = Some(index);
        }
    }
    last
}

/// Roughly how many bytes a message is to a model.
fn length(message: &Message) -> usize {
    match message {
        Message::User { text } => text.len(),
        Message::Assistant { content } => content
            .iter()
            .map(|content| match content {
                Content::Text { text } => text.len(),
                Content::Call(call) => call.name.len() + call.arguments.len(),
                Content::Thinking { text, signature } => text.len() + signature.len(),
            })
            .sum(),
        Message::Tools { results } => results.iter().map(|result| result.content.len()).sum(),
    }
}

/// What is to be summarised, as one text of at most so many bytes: its end, if
/// it is longer, because what came last matters most.
pub(crate) fn transcript(conversation: &Conversation, cut: usize, most: usize) -> String {
    let mut text = String::new();
    if let Some(summary) = &conversation.summary {
        section(
            &mut text,
            "Summary of what came before",
            summary,
            usize::MAX,
        );
    }
    for entry in &conversation.entries[..cut] {
        match &entry.message {
            Message::User { text: said } => section(&mut text, "Person", said, MESSAGE_BYTES),
            Message::Assistant { content } => {
                for content in content {
                    match content {
                        Content::Text { text: said } => {
                            section(&mut text, "Agent", said, MESSAGE_BYTES)
                        }
                        Content::Call(call) => section(
                            &mut text,
                            &format!("Agent calls {}", call.name),
                            &call.arguments,
                            SHOWN_BYTES,
                        ),
                        Content::Thinking { .. } => {}
                    }
                }
            }
            Message::Tools { results } => {
                for result in results {
                    let title = if result.failed {
                        "Result (failed)"
                    } else {
                        "Result"
                    };
                    section(&mut text, title, &result.content, SHOWN_BYTES);
                }
            }
        }
    }
    let start = text.ceil_char_boundary(text.len().saturating_sub(most));
    text.split_off(start)
}

fn section(text: &mut String, title: &str, body: &str, most: usize) {
    let end = body.floor_char_boundary(most);
    let more = if end < body.len() { " […]" } else { "" };
    writeln!(text, "## {title}\n{}{more}\n", &body[..end]).expect("a string takes everything");
}

/// What stands at the beginning of the conversation from then on.
pub(crate) fn opening(summary: &str, request: &str, todos: Option<&Todos>) -> String {
    let mut text = format!(
        "[The conversation before this was summarised to make room.]\n\n{}\n",
        summary.trim()
    );
    let mut add = |title, body: &str| section(&mut text, title, body, MESSAGE_BYTES);
    add("What is being worked on, word for word", request);
    if let Some(todos) = todos.filter(|todos| !todos.items.is_empty()) {
        add("The list of what is to be done", &tools::todos_text(todos));
    }
    text
}

/// Drops the older half of the outputs that are worth it. False if there is
/// none.
pub(crate) fn drop_outputs(entries: &mut [Entry]) -> bool {
    let mut long: Vec<&mut String> = entries
        .iter_mut()
        .filter_map(|entry| match &mut entry.message {
            Message::Tools { results } => Some(results),
            Message::User { .. } | Message::Assistant { .. } => None,
        })
        .flatten()
        .map(|result| &mut result.content)
        .filter(|content| content.len() > DROPPED_BYTES)
        .collect();
    let half = long.len().div_ceil(2);
    for content in &mut long[..half] {
        DROPPED.clone_into(content);
    }
    half > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Provider, ToolCall, ToolResult};

    fn user(length: usize) -> Message {
        Message::User {
            text: "u".repeat(length),
        }
    }

    fn calls(id: &str) -> Message {
        let call = ToolCall {
            id: id.to_owned(),
            name: "execute".to_owned(),
            arguments: "{}".to_owned(),
        };
        Message::Assistant {
            content: vec![Content::Call(call)],
        }
    }

    fn gives(id: &str, length: usize) -> Message {
        let result = ToolResult {
            id: id.to_owned(),
            content: "r".repeat(length),
            failed: false,
        };
        Message::Tools {
            results: vec![result],
        }
    }

    fn conversation(messages: Vec<Message>) -> Conversation {
        let entry = |(index, message): (usize, Message)| Entry {
            id: index.to_string(),
            by: None,
            message,
        };
        Conversation {
            summary: None,
            entries: messages.into_iter().enumerate().map(entry).collect(),
        }
    }

    #[test]
    fn a_cut_keeps_calls_and_results_together() {
        #[track_caller]
        fn check(messages: Vec<Message>, expected: Option<usize>) {
            assert_eq!(cut(&conversation(messages).entries), expected);
        }
        check(vec![], None);
        check(vec![user(10)], None);
        // The last turn stays, however long.
        check(vec![user(10), calls("1"), gives("1", 1000)], Some(1));
        // Two turns are below 30 of a hundred.
        check(
            vec![
                user(10),
                calls("1"),
                gives("1", 1000),
                calls("2"),
                gives("2", 100),
                calls("3"),
                gives("3", 100),
            ],
            Some(3),
        );
        // The cut is never between a call and its result.
        check(
            vec![
                user(10),
                calls("1"),
                gives("1", 100),
                calls("2"),
                gives("2", 100),
                user(10),
            ],
            Some(5),
        );
        for length in [1, 10, 100, 1000] {
            let messages: Vec<_> = (0..20)
                .flat_map(|turn| [calls(&turn.to_string()), gives(&turn.to_string(), length)])
                .collect();
            let mut conversation = conversation(messages);
            let cut = cut(&conversation.entries).unwrap();
            conversation.entries.drain(..cut);
            let before = conversation.entries.len();
            conversation.summary = Some("s".to_owned());
            let shown = conversation.messages(Provider::OpenAi);
            assert_eq!(shown.len(), before + 1);
            assert!(!format!("{shown:?}").contains("interrupted"));
        }
    }

    #[test]
    fn the_context_is_full_before_it_overflows() {
        assert!(!is_full(84, Some(100)));
        assert!(is_full(85, Some(100)));
        assert!(!is_full(u64::MAX, None));
    }

    #[test]
    fn a_transcript_is_bounded_and_keeps_its_end() {
        let mut messages = vec![user(10), calls("1"), gives("1", 10_000)];
        messages.push(Message::User {
            text: "the żółw".to_owned(),
        });
        let conversation = conversation(messages);
        let text = transcript(&conversation, 4, usize::MAX);
        assert!(text.starts_with("## Person\nuuu"), "{text}");
        assert!(text.contains("## Agent calls execute\n{}") && text.contains("r […]"));
        assert!(text.len() < SHOWN_BYTES + 200);
        for most in 0..30 {
            assert!(transcript(&conversation, 4, most).len() <= most);
        }
        assert!(!transcript(&conversation, 3, usize::MAX).contains("żółw"));
    }

    #[test]
    fn outputs_go_from_the_oldest_until_there_are_none() {
        let mut conversation = conversation(vec![
            calls("1"),
            gives("1", 1000),
            calls("2"),
            gives("2", 10),
            calls("3"),
            gives("3", 1000),
        ]);
        let lengths = |conversation: &Conversation| -> Vec<usize> {
            conversation
                .entries
                .iter()
                .skip(1)
                .step_by(2)
                .map(|entry| length(&entry.message))
                .collect()
        };
        assert!(drop_outputs(&mut conversation.entries));
        assert_eq!(lengths(&conversation), [DROPPED.len(), 10, 1000]);
        assert!(drop_outputs(&mut conversation.entries));
        assert_eq!(lengths(&conversation), [DROPPED.len(), 10, DROPPED.len()]);
        assert!(!drop_outputs(&mut conversation.entries));
    }

    #[test]
    fn the_opening_holds_on_to_the_request() {
        let text = opening(" did this \n", "make it so", None);
        assert!(
            text.contains("\n\ndid this\n") && text.contains("word for word\nmake it so\n"),
            "{text}"
        );
    }
}
