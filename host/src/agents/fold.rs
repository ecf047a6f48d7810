//! From events to what they amount to: the status of an execution, and its
//! messages. Pure, and linear in the number of events.

use std::collections::HashMap;

use stigmer_sdk::wire::agent::{self as pb, event::What};

/// Whether no event follows one that brings this phase.
pub(super) fn is_final(phase: pb::Phase) -> bool {
    match phase {
        pb::Phase::Completed | pb::Phase::Failed | pb::Phase::Cancelled => true,
        pb::Phase::Unspecified | pb::Phase::Pending | pb::Phase::InProgress => false,
    }
}

/// Whether an event is the last of its execution.
pub(super) fn ends(event: &pb::Event) -> bool {
    matches!(&event.what, Some(What::Phase(change)) if is_final(change.phase()))
}

/// Brings the part of a status up to date that lists show, and that is
/// therefore kept beside the events.
pub(super) fn summary(status: &mut pb::ExecutionStatus, event: &pb::Event) {
    status.seq = event.seq;
    match &event.what {
        Some(What::Phase(change)) => {
            status.phase = change.phase;
            status.attempt = change.attempt;
            status.runner_id.clone_from(&change.runner_id);
            let phase = change.phase();
            // An attempt that is to be made again has a reason too, which is
            // not why the execution failed: it did not.
            status.error = match phase {
                pb::Phase::Failed => change.error.clone(),
                _ => None,
            };
            match phase {
                pb::Phase::Pending => status.started_ms = None,
                pb::Phase::InProgress => status.started_ms = Some(event.at_ms),
                _ if is_final(phase) => status.completed_ms = Some(event.at_ms),
                _ => {}
            }
        }
        Some(What::Usage(usage)) => status.usage = Some(*usage),
        Some(What::CancelRequested(_)) => status.cancel_requested = true,
        _ => {}
    }
}

/// What was said and done in one execution.
///
/// An attempt that is made again begins with nothing: what the one before it
/// said is still among the events, and no part of the conversation.
#[derive(Debug, Default)]
pub(super) struct Fold {
    pub(super) messages: Vec<pb::Message>,
    pub(super) tool_calls: Vec<pb::ToolCall>,
    pub(super) todos: Option<pb::Todos>,
    pub(super) approvals: Vec<pb::Approval>,
    places: HashMap<(Kind, String), usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Message,
    ToolCall,
    Approval,
}

impl Fold {
    /// Takes the next event.
    pub(super) fn push(&mut self, event: pb::Event) {
        match event.what {
            Some(What::Phase(change)) if change.phase() == pb::Phase::Pending => {
                *self = Self::default();
            }
            Some(What::Message(mut message)) => {
                if message.created_ms == 0 {
                    message.created_ms = event.at_ms;
                }
                let id = message.message_id.clone();
                put(
                    &mut self.places,
                    &mut self.messages,
                    Kind::Message,
                    id,
                    message,
                );
            }
            Some(What::Text(delta)) => {
                let place = self.places.get(&(Kind::Message, delta.message_id));
                if let Some(message) = place.and_then(|&place| self.messages.get_mut(place)) {
                    message.content.push_str(&delta.text);
                }
            }
            Some(What::ToolCall(call)) => {
                let id = call.tool_call_id.clone();
                put(
                    &mut self.places,
                    &mut self.tool_calls,
                    Kind::ToolCall,
                    id,
                    call,
                );
            }
            Some(What::Todos(todos)) => self.todos = Some(todos),
            Some(What::Approval(approval)) => {
                let id = approval.tool_call_id.clone();
                put(
                    &mut self.places,
                    &mut self.approvals,
                    Kind::Approval,
                    id,
                    approval,
                );
            }
            Some(What::Phase(_) | What::Usage(_) | What::CancelRequested(_) | What::Output(_))
            | None => {}
        }
    }

    /// Adds it all to a status that has the rest.
    pub(super) fn into_status(self, status: &mut pb::ExecutionStatus) {
        status.messages = self.messages;
        status.tool_calls = self.tool_calls;
        status.todos = self.todos;
        status.approvals = self.approvals;
    }
}

/// New, or in place of the one with the same id.
fn put<T>(
    places: &mut HashMap<(Kind, String), usize>,
    items: &mut Vec<T>,
    kind: Kind,
    id: String,
    item: T,
) {
    let place = *places.entry((kind, id)).or_insert(items.len());
    match items.get_mut(place) {
        Some(old) => *old = item,
        None => items.push(item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, content: &str) -> What {
        What::Message(pb::Message {
            message_id: id.to_owned(),
            content: content.to_owned(),
            ..Default::default()
        })
    }

    fn delta(id: &str, text: &str) -> What {
        What::Text(pb::TextDelta {
            message_id: id.to_owned(),
            text: text.to_owned(),
        })
    }

    fn call(id: &str, status: pb::ToolCallStatus) -> What {
        What::ToolCall(pb::ToolCall {
            tool_call_id: id.to_owned(),
            status: status.into(),
            ..Default::default()
        })
    }

    fn phase(phase: pb::Phase, attempt: u32) -> What {
        What::Phase(pb::PhaseChange {
            phase: phase.into(),
            attempt,
            runner_id: "r".to_owned(),
            error: Some(stigmer_sdk::wire::sandbox::Error::default()),
        })
    }

    fn events(whats: Vec<What>) -> impl Iterator<Item = pb::Event> {
        whats.into_iter().zip(1..).map(|(what, seq)| pb::Event {
            seq,
            at_ms: 1000 + seq,
            what: Some(what),
        })
    }

    #[test]
    fn events_amount_to_messages() {
        #[track_caller]
        fn check(whats: Vec<What>, messages: &[(&str, &str)], calls: &[(&str, i32)]) {
            let mut fold = Fold::default();
            events(whats).for_each(|event| fold.push(event));
            let have: Vec<_> = fold
                .messages
                .iter()
                .map(|m| (m.message_id.as_str(), m.content.as_str()))
                .collect();
            assert_eq!(have, messages);
            let have: Vec<_> = fold
                .tool_calls
                .iter()
                .map(|call| (call.tool_call_id.as_str(), call.status))
                .collect();
            assert_eq!(have, calls);
        }
        use pb::ToolCallStatus::{Completed, Running};
        check(vec![], &[], &[]);
        check(
            vec![
                message("a", ""),
                delta("a", "x"),
                message("b", "y"),
                delta("a", "z"),
            ],
            &[("a", "xz"), ("b", "y")],
            &[],
        );
        check(
            vec![message("a", "x"), delta("a", "y"), message("a", "whole")],
            &[("a", "whole")],
            &[],
        );
        check(vec![delta("a", "nowhere")], &[], &[]);
        // The ids of messages and of calls have nothing to do with each other.
        check(
            vec![
                message("a", "x"),
                call("a", Running),
                call("b", Running),
                call("a", Completed),
            ],
            &[("a", "x")],
            &[("a", Completed.into()), ("b", Running.into())],
        );
        check(
            vec![
                message("a", "lost"),
                call("a", Running),
                phase(pb::Phase::Pending, 1),
                message("b", "x"),
            ],
            &[("b", "x")],
            &[],
        );
    }

    #[test]
    fn events_amount_to_a_summary() {
        let mut status = pb::ExecutionStatus::default();
        let mut at = |what| {
            let event = pb::Event {
                seq: status.seq + 1,
                at_ms: 1000 + status.seq,
                what: Some(what),
            };
            summary(&mut status, &event);
            status.clone()
        };
        assert_eq!(at(phase(pb::Phase::Pending, 0)).phase(), pb::Phase::Pending);
        let started = at(phase(pb::Phase::InProgress, 1));
        assert_eq!((started.started_ms, started.attempt), (Some(1001), 1));
        let again = at(phase(pb::Phase::Pending, 1));
        assert_eq!((again.started_ms, again.error), (None, None));
        assert!(at(What::CancelRequested("x".to_owned())).cancel_requested);
        let usage = pb::Usage {
            input_tokens: 5,
            ..Default::default()
        };
        assert_eq!(at(What::Usage(usage)).usage, Some(usage));
        let failed = at(phase(pb::Phase::Failed, 1));
        assert_eq!((failed.completed_ms, failed.seq), (Some(1005), 6));
        assert!(failed.error.is_some() && is_final(failed.phase()));
    }
}
