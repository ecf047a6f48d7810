//! An execution as a person watches it.
//!
//! The agent's words go to stdout, everything else to stderr, so that
//! `stigmer run … > answer.txt` keeps the words alone and a terminal shows both
//! in the order in which they happened. For that, [`Last`] knows what stands at
//! the end of the screen: whoever comes next ends that line first, on the
//! stream that it belongs to.

mod asking;
mod calls;
mod words;

use std::collections::HashMap;

use stigmer_sdk::wire::agent::{Event, Execution, Phase, PhaseChange, Todo, event::What};

use super::decode::Decoder;
use super::parts::{self, Paint, lines, one_line};
use super::summary::Summary;
use super::{Look, Piece};
use crate::cli::failure::describe;
use crate::cli::output::harmless;

const INDENT: &str = "   ";
/// How much of a tool's error is shown on its line.
const ERROR_CHARS: usize = 300;

/// What stands at the end of the screen.
#[derive(Debug, PartialEq)]
enum Last {
    Nothing,
    /// A line that is complete, on stderr.
    Line,
    /// The words of this message, on stdout.
    Words(String),
    /// Output of this call, on stderr; the line goes on if it is open.
    Output {
        call: String,
        open: bool,
    },
    /// A question, on stderr.
    Prompt,
}

/// A message so far, and how much of it is on the screen.
#[derive(Debug, Default)]
struct Words {
    content: String,
    shown: usize,
}

/// A tool call so far.
#[derive(Debug, Default)]
struct Call {
    name: String,
    title: String,
    done: bool,
    stdout: Decoder,
    stderr: Decoder,
}

#[derive(Debug)]
pub(in crate::cli) struct Plain {
    look: Look,
    paint: Paint,
    execution: String,
    pieces: Vec<Piece>,
    last: Last,
    /// Something is on stdout.
    said: bool,
    words: HashMap<String, Words>,
    /// The last message that said anything, for quiet ones.
    latest: String,
    calls: HashMap<String, Call>,
    /// Whose line was last on the screen.
    head: Option<String>,
    todos: Vec<Todo>,
    summary: Summary,
}

impl Plain {
    pub(super) fn new(look: Look, execution: &Execution) -> Self {
        let status = execution.status.as_ref();
        let known = status.map_or(&[][..], |status| &status.tool_calls);
        let calls = known.iter().map(|call| {
            let known = Call {
                name: call.name.clone(),
                title: parts::title(&call.args),
                ..Call::default()
            };
            (call.tool_call_id.clone(), known)
        });
        Self {
            look,
            paint: Paint(look.colours),
            execution: execution.execution_id.clone(),
            pieces: Vec::new(),
            last: Last::Nothing,
            said: false,
            words: HashMap::new(),
            latest: String::new(),
            calls: calls.collect(),
            head: None,
            todos: Vec::new(),
            summary: Summary::new(execution),
        }
    }

    pub(super) fn take(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.pieces)
    }

    pub(super) fn event(&mut self, event: &Event) {
        match &event.what {
            Some(What::Phase(change)) => self.phase(change, event.at_ms),
            Some(What::Message(message)) => self.message(message),
            Some(What::Text(delta)) => {
                let words = self.words.entry(delta.message_id.clone()).or_default();
                words.content.push_str(&delta.text);
                self.speak(&delta.message_id);
            }
            Some(What::ToolCall(call)) => self.tool_call(call),
            Some(What::Usage(usage)) => self.summary.usage(usage),
            Some(What::CancelRequested(reason)) => {
                let reason = one_line(reason, ERROR_CHARS);
                let colon = if reason.is_empty() { "" } else { ": " };
                self.line(&format!("⚠️  Cancelling{colon}{reason}"));
            }
            Some(What::Todos(todos)) => self.todos(&todos.items),
            Some(What::Approval(approval)) => self.approval(approval),
            Some(What::Output(output)) => self.output(output),
            // A newer daemon's.
            None => {}
        }
    }

    /// Says something that is no event.
    pub(super) fn note(&mut self, note: &str) {
        self.line(&harmless(note));
    }

    fn err(&mut self, text: impl Into<String>) {
        if !self.look.quiet {
            self.pieces.push(Piece::Err(text.into()));
        }
    }

    fn out(&mut self, text: impl Into<String>) {
        if !self.look.quiet {
            self.pieces.push(Piece::Out(text.into()));
        }
    }

    /// Ends the line that stands at the end of the screen.
    fn end_line(&mut self) {
        match std::mem::replace(&mut self.last, Last::Line) {
            Last::Words(_) => {
                self.out("\n");
                self.err("\n");
            }
            Last::Output { open: true, .. } => self.err("\n"),
            // Asked even if quiet.
            Last::Prompt => self.pieces.push(Piece::Err("\n".to_owned())),
            Last::Output { open: false, .. } | Last::Line => {}
            Last::Nothing => self.last = Last::Nothing,
        }
    }

    fn line(&mut self, line: &str) {
        self.end_line();
        self.err(format!("{line}\n"));
        self.last = Last::Line;
    }

    fn indented(&mut self, line: &str) {
        self.line(&format!("{INDENT}{line}"));
    }

    fn phase(&mut self, change: &PhaseChange, at_ms: u64) {
        match change.phase() {
            Phase::Unspecified => {}
            Phase::Pending if change.attempt == 0 => self.line("⏳ Execution pending..."),
            Phase::Pending => self.line("⏳ Execution pending again: its runner gave it up"),
            Phase::InProgress => {
                self.summary.begun(at_ms);
                if change.attempt > 1 {
                    let attempt = change.attempt;
                    self.line(&format!("▶️  Execution started (attempt {attempt})"));
                } else {
                    self.line("▶️  Execution started");
                }
            }
            Phase::Completed => self.end("✅ Execution completed", change, at_ms),
            Phase::Failed => self.end("❌ Execution failed", change, at_ms),
            Phase::Cancelled => self.end("⚠️  Execution cancelled", change, at_ms),
        }
    }

    fn end(&mut self, line: &str, change: &PhaseChange, at_ms: u64) {
        if self.look.quiet {
            self.end_line();
            let latest = std::mem::take(&mut self.latest);
            let content = self.words.get(&latest).map(|words| words.content.trim());
            if let (Phase::Completed, Some(content)) = (change.phase(), content) {
                let content = self.worded(content);
                self.pieces.push(Piece::Out(format!("{content}\n")));
            }
            return;
        }
        // After words there is an empty line already.
        let apart = matches!(self.last, Last::Words(_) | Last::Nothing);
        self.end_line();
        if !apart {
            self.err("\n");
        }
        let line = self.paint.bold(line);
        self.line(&line);
        if let Some(error) = &change.error {
            for line in lines(&describe(error)) {
                self.indented(&line);
            }
        }
        for line in self.summary.lines(self.paint, change.phase(), at_ms) {
            self.indented(&line);
        }
    }

    fn todos(&mut self, todos: &[Todo]) {
        if self.todos == todos {
            return;
        }
        self.todos = todos.to_vec();
        self.head = None;
        self.line("📋 Todos");
        for todo in todos {
            let line = parts::todo(self.paint, todo);
            self.indented(&line);
        }
    }
}

#[cfg(test)]
mod tests;
