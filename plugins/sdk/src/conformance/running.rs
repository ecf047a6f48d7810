//! A command while it runs, and what it leaves.
//!
//! Every event of every case passes [`Running::next`], which holds the stream
//! to its rules: no empty piece, exactly one exit, nothing after it.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::check::{Verdict, describe_error, equal, fail, show};
use crate::{Event, EventStream, ExitStatus, Input, InputStream};

/// What any command of this suite may take, with room for a slow machine.
const DEADLINE: Duration = Duration::from_secs(45);

/// A command that is running. Dropping it kills the command.
pub(super) struct Running {
    events: EventStream,
    input: Option<mpsc::UnboundedSender<Input>>,
    what: String,
    until: Instant,
    /// What was seen so far.
    pub(super) stdout: Vec<u8>,
    /// What was seen so far.
    pub(super) stderr: Vec<u8>,
    /// Whether output is kept here, which a hundred megabytes should not be.
    pub(super) keep: bool,
}

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) status: ExitStatus,
}

impl Output {
    /// Stdout as text without its last line ending, which is what most cases
    /// look at.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// The words of stdout.
    pub(super) fn words(&self) -> Vec<String> {
        self.text().split_whitespace().map(str::to_owned).collect()
    }

    pub(super) fn exited(&self, what: &str, status: ExitStatus) -> Verdict {
        if self.status == status {
            return Ok(());
        }
        fail(
            what,
            status,
            format!(
                "{}, stdout {}, stderr {}",
                self.status,
                show(&self.stdout),
                show(&self.stderr)
            ),
        )
    }
}

/// Where a case puts what it sends to a command.
pub(super) fn input_channel() -> (mpsc::UnboundedSender<Input>, InputStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let inputs = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|input| (input, receiver))
    });
    (sender, inputs.boxed())
}

impl Running {
    pub(super) fn new(
        what: String,
        events: EventStream,
        input: Option<mpsc::UnboundedSender<Input>>,
    ) -> Self {
        Self {
            events,
            input,
            what,
            until: Instant::now() + DEADLINE,
            stdout: Vec::new(),
            stderr: Vec::new(),
            keep: true,
        }
    }

    /// Sends an input. A command that has ended takes none, which is no error.
    pub(super) fn send(&self, input: Input) {
        if let Some(sender) = &self.input {
            // The receiver is gone once the backend has dropped the stream.
            sender.send(input).ok();
        }
    }

    pub(super) fn send_stdin(&self, bytes: impl Into<Vec<u8>>) {
        self.send(Input::Stdin(bytes.into().into()));
    }

    /// Ends the stream of inputs, which closes stdin.
    pub(super) fn end_input(&mut self) {
        self.input = None;
    }

    /// The next event, or `None` after the exit and the end of the stream.
    pub(super) async fn next(&mut self) -> Verdict<Option<Event>> {
        let what = &self.what;
        let Ok(item) = tokio::time::timeout_at(self.until, self.events.next()).await else {
            return fail(
                what,
                format!("an event or the end within {DEADLINE:?} of its start"),
                format!(
                    "none, after stdout {} and stderr {}",
                    show(&self.stdout),
                    show(&self.stderr)
                ),
            );
        };
        match &item {
            Some(Ok(Event::Stdout(bytes))) if !bytes.is_empty() => {
                if self.keep {
                    self.stdout.extend_from_slice(bytes);
                }
            }
            Some(Ok(Event::Stderr(bytes))) if !bytes.is_empty() => {
                if self.keep {
                    self.stderr.extend_from_slice(bytes);
                }
            }
            Some(Ok(Event::Exit(_))) => {
                let after = tokio::time::timeout_at(self.until, self.events.next()).await;
                match after {
                    Ok(None) => {}
                    Ok(Some(extra)) => {
                        return fail(
                            what,
                            "the end of the stream after the exit",
                            format!("{extra:?}"),
                        );
                    }
                    Err(_) => {
                        return fail(
                            what,
                            "the end of the stream after the exit",
                            "a stream that stays open",
                        );
                    }
                }
            }
            Some(Ok(empty)) => return fail(what, "no empty output", format!("{empty:?}")),
            Some(Err(error)) => return fail(what, "events", describe_error(error)),
            None => return fail(what, "an exit before the end of the events", "the end"),
        }
        Ok(item.and_then(|event| event.ok()))
    }

    /// Reads on until stdout has this in it.
    pub(super) async fn until_stdout(&mut self, wanted: &str) -> Verdict {
        let found = |stdout: &[u8]| {
            stdout
                .windows(wanted.len())
                .any(|window| window == wanted.as_bytes())
        };
        while !found(&self.stdout) {
            if let Some(Event::Exit(status)) = self.next().await? {
                return fail(
                    &self.what,
                    format!("{wanted:?} on stdout"),
                    format!(
                        "{status} after stdout {} and stderr {}",
                        show(&self.stdout),
                        show(&self.stderr)
                    ),
                );
            }
        }
        Ok(())
    }

    /// Reads the first line of stdout, which a script prints once it is ready.
    pub(super) async fn first_line(&mut self) -> Verdict<String> {
        self.until_stdout("\n").await?;
        let text = String::from_utf8_lossy(&self.stdout);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Reads on until stdout has this many lines, and gives them.
    pub(super) async fn lines(&mut self, count: usize) -> Verdict<Vec<String>> {
        while self.stdout.iter().filter(|byte| **byte == b'\n').count() < count {
            if let Some(Event::Exit(status)) = self.next().await? {
                return fail(
                    &self.what,
                    format!("{count} lines on stdout"),
                    format!("{status} after {}", show(&self.stdout)),
                );
            }
        }
        let text = String::from_utf8_lossy(&self.stdout);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Reads on to the end of the stream, whatever that is: its sandbox was
    /// taken away.
    pub(super) async fn end_somehow(mut self) -> Verdict {
        while let Some(Ok(event)) = self.events.next().await {
            if matches!(event, Event::Exit(ExitStatus::Code(0))) {
                return fail(&self.what, "any end but success", "exit code 0");
            }
        }
        Ok(())
    }

    /// Reads on to the exit. Inputs stay open.
    pub(super) async fn finish(mut self) -> Verdict<Output> {
        loop {
            if let Some(Event::Exit(status)) = self.next().await? {
                return Ok(Output {
                    stdout: self.stdout,
                    stderr: self.stderr,
                    status,
                });
            }
        }
    }

    /// Reads on to an exit with 0.
    pub(super) async fn succeed(self) -> Verdict<Output> {
        let what = self.what.clone();
        let output = self.finish().await?;
        output.exited(&what, ExitStatus::Code(0))?;
        Ok(output)
    }

    /// Reads on to an exit with this status.
    pub(super) async fn end_with(self, status: ExitStatus) -> Verdict<Output> {
        let what = self.what.clone();
        let output = self.finish().await?;
        equal(what, &output.status, &status)?;
        Ok(output)
    }
}
