//! What a person or a program reads of an execution, event by event.
//!
//! Renderers are pure: events go in, [`Piece`]s come out, and whoever follows
//! the execution writes them.
//!
//! | module | owns |
//! | --- | --- |
//! | [`plain`] | the screen: what stands on it, and what comes next |
//! | [`json`] | events as JSON, one a line |
//! | [`summary`] | what an execution used and changed in all |
//! | [`parts`] | tool calls, diffs, todos and numbers as text |
//! | [`decode`] | bytes of output as text, wherever they were cut |
//! | [`conversation`] | a conversation that was, as `show` prints it |

pub(in crate::cli) mod conversation;
mod decode;
pub(in crate::cli) mod json;
pub(in crate::cli) mod parts;
mod plain;
mod summary;

use stigmer_sdk::wire::agent::{Approval, ApprovalState, Event, Execution, event::What};

use self::plain::Plain;
use crate::cli::output::{Output, harmless};

/// Something to write, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Piece {
    /// To stdout.
    Out(String),
    /// To stderr.
    Err(String),
}

/// How what is written looks.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cli) struct Look {
    /// On stderr.
    pub(in crate::cli) colours: bool,
    /// Stdout goes where control characters are obeyed.
    pub(in crate::cli) terminal: bool,
    /// Only the last message, on stdout.
    pub(in crate::cli) quiet: bool,
    /// What people said, too.
    pub(in crate::cli) humans: bool,
    /// Approvals are asked for here.
    pub(in crate::cli) asks: bool,
}

impl Look {
    pub(in crate::cli) fn of(output: &Output) -> Self {
        Self {
            colours: output.colours(),
            terminal: output.stdout_is_terminal(),
            quiet: output.is_quiet(),
            humans: false,
            asks: false,
        }
    }
}

/// How to answer a tool call from elsewhere.
fn how_to_answer(execution: &str, call: &str) -> [String; 2] {
    [
        format!("to allow it:  stigmer execution approve {execution} {call}"),
        format!("to refuse it: stigmer execution deny {execution} {call}"),
    ]
}

/// Who reads it.
#[derive(Debug)]
pub(in crate::cli) enum Renderer {
    Plain(Box<Plain>),
    Json {
        execution: String,
        pieces: Vec<Piece>,
    },
}

impl Renderer {
    pub(in crate::cli) fn plain(look: Look, execution: &Execution) -> Self {
        Self::Plain(Box::new(Plain::new(look, execution)))
    }

    pub(in crate::cli) fn json(execution: &Execution) -> Self {
        Self::Json {
            execution: execution.execution_id.clone(),
            pieces: vec![json::line(json::head(execution))],
        }
    }

    pub(in crate::cli) fn event(&mut self, event: &Event) {
        match self {
            Self::Plain(plain) => plain.event(event),
            Self::Json { execution, pieces } => {
                pieces.push(json::line(json::event(event)));
                if let Some(What::Approval(approval)) = &event.what
                    && approval.state() == ApprovalState::Pending
                {
                    let how = how_to_answer(execution, &approval.tool_call_id);
                    let note = format!("a tool call waits for approval; {}", how.join(", "));
                    pieces.push(Piece::Err(format!("{}\n", harmless(&note))));
                }
            }
        }
    }

    /// Says something that is no event, to people.
    pub(in crate::cli) fn note(&mut self, note: &str) {
        match self {
            Self::Plain(plain) => plain.note(note),
            Self::Json { pieces, .. } => pieces.push(Piece::Err(format!("{note}\n"))),
        }
    }

    /// Asks for an approval.
    pub(in crate::cli) fn ask(&mut self, approval: &Approval) {
        if let Self::Plain(plain) = self {
            plain.ask(approval);
        }
    }

    /// Asks again, below what was written since.
    pub(in crate::cli) fn prompt(&mut self) {
        if let Self::Plain(plain) = self {
            plain.prompt();
        }
    }

    /// Somebody pressed Return at the prompt.
    pub(in crate::cli) fn answered(&mut self) {
        if let Self::Plain(plain) = self {
            plain.answered();
        }
    }

    /// Nobody is there any more to be asked.
    pub(in crate::cli) fn stop_asking(&mut self, execution: &str) {
        if let Self::Plain(plain) = self {
            plain.stop_asking();
        }
        self.note(&format!(
            "nobody answered; it waits for: stigmer execution approve {execution}, or deny {execution}"
        ));
    }

    /// What is to be written since the last time.
    pub(in crate::cli) fn take(&mut self) -> Vec<Piece> {
        match self {
            Self::Plain(plain) => plain.take(),
            Self::Json { pieces, .. } => std::mem::take(pieces),
        }
    }
}
