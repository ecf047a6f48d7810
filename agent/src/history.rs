//! A session's conversation: as it is recorded, and as a model is shown it.
//!
//! What the runner needs to show a message to its model again travels in
//! `Message.state`, as a [`State`]. What has none, because another runner made
//! it or because the one that did was killed, is understood by its text.
//!
//! Providers are strict: a call without a result, a result without a call, two
//! turns of one side, a thought that another provider signed, and a request is
//! refused. [`Conversation::messages`] keeps to that whatever was recorded.

use std::collections::HashSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stigmer_sdk::wire::agent::{self, MessageType};

use crate::mask::Mask;
use crate::model::{Content, Message, Provider, ToolCall, ToolResult};

/// What stands for the result of a call that has none.
const INTERRUPTED: &str =
    "it was interrupted before it gave a result; what it did until then is not known";

/// What is recorded of a message beside its text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It is part of the conversation.
    Said {
        /// The provider of the model that said it.
        by: Option<String>,
        message: Message,
    },
    /// Everything before `kept_from` became this summary.
    Compacted {
        summary: String,
        /// A message's id; none if nothing was kept.
        kept_from: Option<String>,
    },
}

/// A part of the conversation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The recorded message's.
    pub(crate) id: String,
    pub(crate) by: Option<Provider>,
    pub(crate) message: Message,
}

/// What was said so far, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conversation {
    /// Of what came before the entries and is not among them any more.
    pub(crate) summary: Option<String>,
    pub(crate) entries: Vec<Entry>,
}

impl Conversation {
    /// Understands what the daemon has recorded.
    pub(crate) fn recorded(messages: &[agent::Message], calls: &[agent::ToolCall]) -> Self {
        let mut conversation = Self::default();
        for message in messages {
            match serde_json::from_slice(&message.state) {
                Ok(State::Compacted { summary, kept_from }) => {
                    conversation.compact(summary, kept_from.as_deref());
                }
                Ok(State::Said { by, message: said }) => conversation.entries.push(Entry {
                    id: message.message_id.clone(),
                    by: by.as_deref().and_then(Provider::named),
                    message: said,
                }),
                Err(_) => {
                    if let Some(said) = by_text(message, calls) {
                        conversation.entries.push(Entry {
                            id: message.message_id.clone(),
                            by: None,
                            message: said,
                        });
                    }
                }
            }
        }
        conversation
    }

    /// Puts a summary in the place of what came before an entry.
    pub(crate) fn compact(&mut self, summary: String, kept_from: Option<&str>) {
        let kept = kept_from.and_then(|id| self.entries.iter().position(|entry| entry.id == id));
        self.entries.drain(..kept.unwrap_or(self.entries.len()));
        self.summary = Some(summary);
    }

    /// The ids of all calls there were, which are not to be used again.
    pub(crate) fn call_ids(&self) -> HashSet<String> {
        let contents = self
            .entries
            .iter()
            .filter_map(|entry| match &entry.message {
                Message::Assistant { content } => Some(content),
                Message::User { .. } | Message::Tools { .. } => None,
            });
        contents
            .flatten()
            .filter_map(called)
            .map(|call| call.id.clone())
            .collect()
    }

    /// The conversation as a model of this provider is shown it.
    pub(crate) fn messages(&self, provider: Provider) -> Vec<Message> {
        let mut messages = Messages::default();
        if let Some(summary) = &self.summary {
            messages.user(summary);
        }
        for entry in &self.entries {
            match &entry.message {
                Message::User { text } => messages.user(text),
                Message::Assistant { content } => {
                    let theirs = entry.by == Some(provider);
                    messages.assistant(
                        content
                            .iter()
                            .filter(|content| shown(content, theirs))
                            .cloned(),
                    );
                }
                Message::Tools { results } => messages.results(results),
            }
        }
        messages.finish()
    }
}

fn called(content: &Content) -> Option<&ToolCall> {
    match content {
        Content::Call(call) => Some(call),
        Content::Text { .. } | Content::Thinking { .. } => None,
    }
}

/// Whether a piece of an answer can be shown to the model again.
fn shown(content: &Content, theirs: bool) -> bool {
    match content {
        Content::Text { text } => !text.trim().is_empty(),
        Content::Call(_) => true,
        Content::Thinking { .. } => theirs,
    }
}

/// What a message without a state says.
fn by_text(message: &agent::Message, calls: &[agent::ToolCall]) -> Option<Message> {
    match message.r#type() {
        MessageType::Human => Some(Message::User {
            text: message.content.clone(),
        }),
        MessageType::Ai => {
            let text = Content::Text {
                text: message.content.clone(),
            };
            let made = calls
                .iter()
                .filter(|call| call.message_id == message.message_id)
                .map(|call| {
                    Content::Call(ToolCall {
                        id: call.tool_call_id.clone(),
                        name: call.name.clone(),
                        arguments: call.args.clone(),
                    })
                });
            Some(Message::Assistant {
                content: std::iter::once(text).chain(made).collect(),
            })
        }
        MessageType::Tool => {
            let id = message.tool_call_id.clone()?;
            let call = calls.iter().find(|call| call.tool_call_id == id);
            Some(Message::Tools {
                results: vec![ToolResult {
                    id,
                    content: message.content.clone(),
                    failed: call.is_some_and(|call| call.status() == agent::ToolCallStatus::Failed),
                }],
            })
        }
        // For people.
        MessageType::System | MessageType::Unspecified => None,
    }
}

/// Messages as providers want them: sides take turns, and every call has one
/// result, in the message after it.
#[derive(Default)]
struct Messages {
    messages: Vec<Message>,
    /// The calls of the last answer, and the results that came for them.
    open: Vec<(String, Option<ToolResult>)>,
}

impl Messages {
    fn user(&mut self, text: &str) {
        self.close();
        if let Some(Message::User { text: before }) = self.messages.last_mut() {
            before.push_str("\n\n");
            before.push_str(text);
            return;
        }
        self.messages.push(Message::User {
            text: text.to_owned(),
        });
    }

    fn assistant(&mut self, content: impl Iterator<Item = Content>) {
        self.close();
        let content: Vec<_> = content.collect();
        // Thoughts alone are no answer.
        if content
            .iter()
            .all(|content| matches!(content, Content::Thinking { .. }))
        {
            return;
        }
        self.open = content
            .iter()
            .filter_map(called)
            .map(|call| (call.id.clone(), None))
            .collect();
        match self.messages.last_mut() {
            Some(Message::Assistant { content: before }) => before.extend(content),
            Some(_) => self.messages.push(Message::Assistant { content }),
            // A conversation begins with a person.
            None => {
                self.user("(the conversation goes on)");
                self.messages.push(Message::Assistant { content });
            }
        }
    }

    fn results(&mut self, results: &[ToolResult]) {
        for result in results {
            let slot = self
                .open
                .iter_mut()
                .find(|(id, given)| *id == result.id && given.is_none());
            if let Some((_, given)) = slot {
                *given = Some(result.clone());
            }
        }
    }

    /// Ends a turn of calls.
    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let result = |(id, given): (String, Option<ToolResult>)| {
            given.unwrap_or_else(|| ToolResult {
                id,
                content: INTERRUPTED.to_owned(),
                failed: true,
            })
        };
        let results = self.open.drain(..).map(result).collect();
        self.messages.push(Message::Tools { results });
    }

    fn finish(mut self) -> Vec<Message> {
        self.close();
        self.messages
    }
}

/// The state of a message of the conversation, without the secrets.
pub(crate) fn said(by: Option<Provider>, message: &Message, mask: &Mask) -> Bytes {
    encode(&State::Said {
        by: by.map(|provider| provider.as_str().to_owned()),
        message: masked(message, mask),
    })
}

/// The state of a compaction.
pub(crate) fn compacted(summary: &str, kept_from: Option<&str>, mask: &Mask) -> Bytes {
    encode(&State::Compacted {
        summary: mask.text(summary),
        kept_from: kept_from.map(str::to_owned),
    })
}

fn encode(state: &State) -> Bytes {
    Bytes::from(serde_json::to_vec(state).expect("its keys are strings"))
}

fn masked(message: &Message, mask: &Mask) -> Message {
    match message {
        Message::User { text } => Message::User {
            text: mask.text(text),
        },
        Message::Assistant { content } => Message::Assistant {
            content: content
                .iter()
                .filter_map(|content| masked_content(content, mask))
                .collect(),
        },
        Message::Tools { results } => Message::Tools {
            results: results
                .iter()
                .map(|result| ToolResult {
                    content: mask.text(&result.content),
                    ..result.clone()
                })
                .collect(),
        },
    }
}

fn masked_content(content: &Content, mask: &Mask) -> Option<Content> {
    Some(match content {
        Content::Text { text } => Content::Text {
            text: mask.text(text),
        },
        Content::Call(call) => Content::Call(ToolCall {
            arguments: mask.text(&call.arguments),
            ..call.clone()
        }),
        // Its signature would not fit to another text.
        Content::Thinking { text, .. } if mask.text(text) != *text => return None,
        Content::Thinking { .. } => content.clone(),
    })
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
