//! What an execution used and changed in all.

use std::collections::BTreeMap;

use stigmer_sdk::wire::agent::{Execution, FileChange, Phase, ToolCall, Usage, file_change::Kind};

use super::parts::{self, Paint};
use crate::cli::output::harmless;

/// How many files are listed.
const FILES: usize = 20;

/// Counted from events, over what was known before the first of them.
#[derive(Debug, Default)]
pub(super) struct Summary {
    session: String,
    usage: Usage,
    begun_ms: Option<u64>,
    tool_calls: BTreeMap<String, Vec<FileChange>>,
    order: Vec<String>,
}

impl Summary {
    pub(super) fn new(execution: &Execution) -> Self {
        let mut summary = Self {
            session: execution.session_id.clone(),
            ..Self::default()
        };
        if let Some(status) = &execution.status {
            summary.usage = status.usage.unwrap_or_default();
            summary.begun_ms = status.started_ms;
            for call in &status.tool_calls {
                summary.tool_call(call);
            }
        }
        summary
    }

    pub(super) fn usage(&mut self, usage: &Usage) {
        self.usage = *usage;
    }

    pub(super) fn begun(&mut self, at_ms: u64) {
        self.begun_ms.get_or_insert(at_ms);
    }

    pub(super) fn tool_call(&mut self, call: &ToolCall) {
        let changes = call.changes.clone();
        if self
            .tool_calls
            .insert(call.tool_call_id.clone(), changes)
            .is_none()
        {
            self.order.push(call.tool_call_id.clone());
        }
    }

    /// The lines below the last one, `Name:` and value.
    pub(super) fn lines(&self, paint: Paint, phase: Phase, ended_ms: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |name: &str, value: String| lines.push(format!("{name:<13}{value}"));
        if let Some(begun) = self.begun_ms {
            line("Duration:", parts::duration(ended_ms.saturating_sub(begun)));
        }
        let usage = &self.usage;
        if usage.model_calls > 0 {
            let cached = match usage.cached_tokens {
                0 => String::new(),
                cached => format!(" ({} cached)", parts::number(cached)),
            };
            line(
                "Tokens:",
                format!(
                    "{} in{cached}, {} out",
                    parts::number(usage.input_tokens),
                    parts::number(usage.output_tokens)
                ),
            );
            if let Some(cost) = usage.cost_microusd {
                line("Cost:", parts::dollars(cost));
            }
            line("Model calls:", usage.model_calls.to_string());
        }
        if !self.order.is_empty() {
            line("Tool calls:", self.order.len().to_string());
        }
        for (index, file) in self.files(paint).into_iter().enumerate() {
            line(if index == 0 { "Files:" } else { "" }, file);
        }
        line("Session:", harmless(&self.session).into_owned());
        if phase != Phase::Failed {
            let session = harmless(&self.session);
            line(
                "Go on with:",
                format!("stigmer run --session {session} '…'"),
            );
        }
        lines
    }

    /// Each file that was changed, and by how much.
    fn files(&self, paint: Paint) -> Vec<String> {
        let mut files: Vec<(&str, Kind, u32, u32)> = Vec::new();
        let calls = self.order.iter().filter_map(|id| self.tool_calls.get(id));
        for change in calls.flatten() {
            let kind = change.kind();
            let Some(at) = files.iter().position(|(path, ..)| *path == change.path) else {
                files.push((&change.path, kind, change.added, change.removed));
                continue;
            };
            let (_, before, added, removed) = &mut files[at];
            *added += change.added;
            *removed += change.removed;
            match (*before, kind) {
                // As if it had never been.
                (Kind::Created, Kind::Deleted) => {
                    files.remove(at);
                }
                (Kind::Created, _) => {}
                (Kind::Deleted, Kind::Created) => *before = Kind::Changed,
                (_, kind) => *before = kind,
            }
        }
        let more = files.len().saturating_sub(FILES);
        let mut lines: Vec<_> = files
            .into_iter()
            .take(FILES)
            .map(|(path, kind, added, removed)| {
                let what = match kind {
                    Kind::Created => " (new)",
                    Kind::Deleted => " (deleted)",
                    Kind::Unspecified | Kind::Changed => "",
                };
                format!(
                    "{}{what}{}",
                    harmless(path),
                    parts::counts(paint, added, removed)
                )
            })
            .collect();
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, changes: &[(&str, Kind, u32, u32)]) -> ToolCall {
        ToolCall {
            tool_call_id: id.to_owned(),
            changes: changes
                .iter()
                .map(|&(path, kind, added, removed)| FileChange {
                    path: path.to_owned(),
                    kind: kind.into(),
                    added,
                    removed,
                    diff: String::new(),
                })
                .collect(),
            ..ToolCall::default()
        }
    }

    #[test]
    fn files_are_added_up_over_all_calls() {
        let mut summary = Summary::default();
        summary.tool_call(&call(
            "1",
            &[("new", Kind::Created, 3, 0), ("gone", Kind::Created, 1, 0)],
        ));
        summary.tool_call(&call(
            "2",
            &[("new", Kind::Changed, 1, 1), ("gone", Kind::Deleted, 0, 1)],
        ));
        summary.tool_call(&call(
            "2",
            &[("new", Kind::Changed, 2, 1), ("gone", Kind::Deleted, 0, 1)],
        ));
        summary.tool_call(&call("3", &[("old", Kind::Deleted, 0, 9)]));
        assert_eq!(
            summary.files(Paint(false)),
            ["new (new) +5 -1", "old (deleted) -9"]
        );
        assert_eq!(summary.order.len(), 3);
    }
}
