//! Tool calls that wait for somebody's word, and the prompt for it.

use stigmer_sdk::wire::agent::{Approval, ApprovalState};

use super::{ERROR_CHARS, INDENT, Last, Plain};
use crate::cli::output::harmless;
use crate::cli::run::render::parts::{self, lines, one_line};
use crate::cli::run::render::{Piece, how_to_answer};

impl Plain {
    pub(super) fn approval(&mut self, approval: &Approval) {
        let id = &approval.tool_call_id;
        match approval.state() {
            ApprovalState::Unspecified => {}
            ApprovalState::Pending if self.look.asks => {}
            ApprovalState::Pending => {
                self.question(approval);
                for line in how_to_answer(&self.execution, id) {
                    self.indented(&harmless(&line));
                }
            }
            ApprovalState::Allowed => {
                self.head(id);
                self.indented("✓ allowed");
            }
            ApprovalState::Denied => {
                let reason = one_line(&approval.reason, ERROR_CHARS);
                let colon = if reason.is_empty() { "" } else { ": " };
                self.head(id);
                self.indented(&format!("✗ denied{colon}{reason}"));
            }
        }
    }

    /// Shows what waits for an approval, whole: who answers must see all of it.
    fn question(&mut self, approval: &Approval) {
        let name = match self.calls.get(&approval.tool_call_id) {
            Some(call) => harmless(&call.name).into_owned(),
            None => "a tool".to_owned(),
        };
        let why = one_line(&approval.why, ERROR_CHARS);
        let why = if why.is_empty() {
            why
        } else {
            format!(" ({why})")
        };
        let name = self.paint.bold(&name);
        self.line(&format!("✋ {name} waits for approval{why}"));
        for line in lines(&approval.summary) {
            self.indented(&line);
        }
        for change in &approval.changes {
            for line in parts::change(self.paint, change) {
                self.indented(&line);
            }
        }
        self.head = None;
    }

    pub(in crate::cli::run::render) fn ask(&mut self, approval: &Approval) {
        let quiet = std::mem::replace(&mut self.look.quiet, false);
        self.question(approval);
        self.look.quiet = quiet;
        self.prompt();
    }

    pub(in crate::cli::run::render) fn prompt(&mut self) {
        self.end_line();
        let prompt = format!("{INDENT}Allow? [y]es / [n]o, or say why not: ");
        self.pieces.push(Piece::Err(prompt));
        self.last = Last::Prompt;
    }

    pub(in crate::cli::run::render) fn stop_asking(&mut self) {
        self.look.asks = false;
    }

    /// The terminal echoed the end of the line.
    pub(in crate::cli::run::render) fn answered(&mut self) {
        if self.last == Last::Prompt {
            self.last = Last::Line;
        }
    }
}
