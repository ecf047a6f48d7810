//! Tool calls: what is called, what it prints, and what comes of it.

use stigmer_sdk::wire::agent::{ToolCall, ToolCallStatus, ToolOutput};

use super::{ERROR_CHARS, INDENT, Last, Plain};
use crate::cli::output::harmless;
use crate::cli::run::render::parts::{self, one_line};

/// Shown as a checklist, not as a call.
const TODO_TOOL: &str = "write_todos";

impl Plain {
    pub(super) fn tool_call(&mut self, call: &ToolCall) {
        self.summary.tool_call(call);
        let known = self.calls.entry(call.tool_call_id.clone()).or_default();
        if known.done {
            return;
        }
        known.name.clone_from(&call.name);
        known.title = parts::title(&call.args);
        match call.status() {
            ToolCallStatus::Unspecified | ToolCallStatus::Pending => {}
            ToolCallStatus::Running if call.name == TODO_TOOL => {}
            ToolCallStatus::Running => self.head(&call.tool_call_id),
            ToolCallStatus::Completed if call.name == TODO_TOOL => known.done = true,
            ToolCallStatus::Completed | ToolCallStatus::Failed => {
                known.done = true;
                self.result(call);
            }
        }
    }

    /// Makes sure that what follows is seen to be this call's.
    pub(super) fn head(&mut self, id: &str) {
        if self.head.as_deref() == Some(id) {
            return;
        }
        let line = match self.calls.get(id) {
            Some(call) => parts::tool(self.paint, &call.name, &call.title),
            None => parts::tool(self.paint, id, ""),
        };
        self.line(&line);
        self.head = Some(id.to_owned());
    }

    pub(super) fn output(&mut self, output: &ToolOutput) {
        let call = self.calls.entry(output.tool_call_id.clone()).or_default();
        let decoder = if output.stderr {
            &mut call.stderr
        } else {
            &mut call.stdout
        };
        let text = decoder.push(&output.data);
        self.live(&output.tool_call_id, &text);
    }

    fn live(&mut self, id: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        self.head(id);
        for line in text.split_inclusive('\n') {
            let going_on = matches!(&self.last, Last::Output { call, open: true } if call == id);
            if !going_on {
                self.end_line();
            }
            let (line, end) = match line.strip_suffix('\n') {
                Some(line) => (line, "\n"),
                None => (line, ""),
            };
            let lead = if going_on || line.is_empty() {
                ""
            } else {
                INDENT
            };
            let line = self.paint.dim(&harmless(line));
            self.err(format!("{lead}{line}{end}"));
            self.last = Last::Output {
                call: id.to_owned(),
                open: end.is_empty(),
            };
        }
    }

    fn result(&mut self, call: &ToolCall) {
        let id = &call.tool_call_id;
        if let Some(known) = self.calls.get_mut(id) {
            let rest = known.stdout.finish() + &known.stderr.finish();
            self.live(id, &rest);
        }
        self.head(id);
        let error = call.error.as_deref().filter(|error| !error.is_empty());
        let failed = call.status() == ToolCallStatus::Failed;
        let mut said = Vec::new();
        if let Some(code) = call.exit_code {
            said.push(format!("exit {code}"));
        }
        if let Some(error) = error {
            said.push(one_line(error, ERROR_CHARS));
        } else if failed && call.exit_code.is_none() {
            said.push("failed".to_owned());
        }
        if let (Some(from), Some(to)) = (call.started_ms, call.completed_ms) {
            said.push(parts::duration(to.saturating_sub(from)));
        }
        let said = said.join(" · ");
        let sound = !failed && error.is_none() && call.exit_code.unwrap_or(0) == 0;
        let line = if sound {
            self.paint.green(format!("✓ {said}").trim_end())
        } else {
            self.paint.red(format!("✗ {said}").trim_end())
        };
        self.indented(&line);
        for change in &call.changes {
            for line in parts::change(self.paint, change) {
                self.indented(&line);
            }
        }
    }
}
