//! One line of audit for each operation.
//!
//! A command is named by its program alone, because its arguments may hold
//! secrets, and so may the values of its variables.

use std::time::Instant;

use stigmer_sdk::{Command, ErrorCode, ExitStatus, SandboxPath};

/// What an operation is about.
#[derive(Debug)]
pub(super) enum Subject {
    Path(SandboxPath),
    Paths(SandboxPath, SandboxPath),
    /// A program, and how many arguments it has.
    Program(String, usize),
    Sandbox,
    /// The id of what is new.
    Created(String),
}

impl Subject {
    pub(super) fn command(command: &Command) -> Self {
        let argv = command.argv();
        Self::Program(argv[0].clone(), argv.len() - 1)
    }
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Ok,
    Error(ErrorCode),
    Exit(ExitStatus),
    /// Its caller did not wait for the end.
    Abandoned,
}

/// An operation that has begun. Writes its line when it ends, or else when it
/// is dropped.
#[derive(Debug)]
pub(super) struct Audit {
    span: tracing::Span,
    started: Instant,
    pub(super) subject: Subject,
    pub(super) bytes: u64,
    ended: bool,
}

impl Audit {
    pub(super) fn start(sandbox: &str, operation: &'static str, subject: Subject) -> Self {
        Self {
            span: tracing::info_span!(target: "stigmer::audit", "operation", sandbox, operation),
            started: Instant::now(),
            subject,
            bytes: 0,
            ended: false,
        }
    }

    /// What the operation itself runs in.
    pub(super) fn span(&self) -> tracing::Span {
        self.span.clone()
    }

    /// Writes the line, once.
    pub(super) fn end(&mut self, outcome: &Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let _inside = self.span.enter();
        let (mut path, mut to, mut program, mut arguments, mut created) =
            (None, None, None, None, None);
        match &self.subject {
            Subject::Path(only) => path = Some(only.as_str()),
            Subject::Paths(from, target) => {
                (path, to) = (Some(from.as_str()), Some(target.as_str()));
            }
            Subject::Program(name, count) => {
                (program, arguments) = (Some(name.as_str()), Some(*count));
            }
            Subject::Sandbox => {}
            Subject::Created(id) => created = Some(id.as_str()),
        }
        let (outcome, exit_code) = match outcome {
            Outcome::Ok => ("ok", None),
            Outcome::Error(code) => (code.as_str(), None),
            Outcome::Abandoned => ("abandoned", None),
            Outcome::Exit(status) => {
                let kind = match status {
                    ExitStatus::Code(_) => "exited",
                    ExitStatus::Signal(_) => "signalled",
                    ExitStatus::TimedOut => "timed_out",
                    ExitStatus::Limit(_) => "limit",
                };
                (kind, Some(status.exit_code()))
            }
        };
        // Quoted by `Debug`, because a name may hold a newline.
        tracing::info!(
            target: "stigmer::audit",
            path = path.map(tracing::field::debug),
            to = to.map(tracing::field::debug),
            program = program.map(tracing::field::debug),
            arguments,
            created,
            bytes = self.bytes,
            duration_ms = self.started.elapsed().as_secs_f64() * 1000.0,
            outcome,
            exit_code,
        );
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.end(&Outcome::Abandoned);
    }
}
