//! What people, the agent and the runner say.

use stigmer_sdk::wire::agent::{Message, MessageType};

use super::{INDENT, Last, Plain};
use crate::cli::output::harmless;
use crate::cli::run::render::parts::lines;

impl Plain {
    pub(super) fn message(&mut self, message: &Message) {
        match message.r#type() {
            MessageType::Ai => {
                let words = self.words.entry(message.message_id.clone()).or_default();
                let shown = &words.content[..words.shown];
                // The same said again goes on where it was; something else
                // takes the place of what cannot be unprinted.
                let replaced = !shown.trim().is_empty() && !message.content.starts_with(shown);
                words.content.clone_from(&message.content);
                if replaced {
                    words.shown = 0;
                    self.line("⚠️  The message above was withdrawn");
                }
                self.speak(&message.message_id);
            }
            MessageType::Human if self.look.humans => {
                for (index, line) in lines(&message.content).enumerate() {
                    let lead = if index == 0 { "💬 You: " } else { INDENT };
                    self.line(&format!("{lead}{line}"));
                }
            }
            MessageType::System => {
                for (index, line) in lines(&message.content).enumerate() {
                    let lead = if index == 0 { "ℹ️  " } else { INDENT };
                    self.line(&format!("{lead}{line}"));
                }
            }
            // A tool's result is part of its call.
            MessageType::Tool | MessageType::Human | MessageType::Unspecified => {}
        }
    }

    /// Shows what is new of a message. Empty lines before and after it are not
    /// the model's to make.
    pub(super) fn speak(&mut self, id: &str) {
        let Some(words) = self.words.get_mut(id) else {
            return;
        };
        let end = words.content.trim_end_matches(['\n', '\r']).len();
        let begin = if words.content[..words.shown].trim().is_empty() {
            words.content.len() - words.content.trim_start_matches(['\n', '\r']).len()
        } else {
            words.shown
        };
        if begin >= end || words.content[begin..end].trim().is_empty() && words.shown == 0 {
            return;
        }
        let text = words.content[begin..end].to_owned();
        words.shown = end;
        id.clone_into(&mut self.latest);
        match &self.last {
            Last::Words(current) if current == id => {}
            Last::Words(_) => self.out("\n\n"),
            Last::Nothing => {}
            Last::Line | Last::Output { .. } | Last::Prompt => {
                self.end_line();
                if self.said {
                    self.out("\n");
                } else {
                    self.err("\n");
                }
            }
        }
        let text = self.worded(&text);
        self.out(text);
        self.last = Last::Words(id.to_owned());
        self.said = true;
        self.head = None;
    }

    /// Words as stdout may show them.
    pub(super) fn worded(&self, text: &str) -> String {
        if !self.look.terminal {
            return text.to_owned();
        }
        text.split('\n')
            .map(|line| harmless(line.strip_suffix('\r').unwrap_or(line)))
            .collect::<Vec<_>>()
            .join("\n")
    }
}
