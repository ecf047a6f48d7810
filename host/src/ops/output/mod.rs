//! Bounded output: what is kept of it, and where the rest goes.
//!
//! [`collect`] is for a caller who wants one answer, [`tee`] for one who
//! follows along. Both can write the whole output to a file in the sandbox
//! while the command runs. A file that cannot be written costs neither the
//! command nor its result: the failure stands beside the result.

mod keep;
mod record;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use stigmer_sdk::{Error, ErrorCode, Event, EventStream, ExitStatus, Result, Sandbox, SandboxPath};
use tokio::sync::oneshot;

use keep::Keep;
use record::Recorder;

/// What is kept of a stream inline when it is too long: bytes at both ends, and
/// within them no more than these lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preview {
    /// From the beginning, at most.
    pub head_bytes: u64,
    /// From the end, at most.
    pub tail_bytes: u64,
    /// Lines of the beginning, at most.
    pub head_lines: Option<u32>,
    /// Lines of the end, at most.
    pub tail_lines: Option<u32>,
}

/// Where the whole output goes when it is too long to be inline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The file, which is replaced.
    pub path: SandboxPath,
    /// Of the file. What comes later is not in it; the command goes on.
    pub max_bytes: u64,
    /// Write the file even if the output fits.
    pub always: bool,
}

/// How much of the output is kept, and where.
///
/// Memory is bounded by these numbers, so that whoever takes them from a
/// request sees to it that they are not too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Of each stream.
    pub max_inline_bytes: u64,
    /// `None`: half of `max_inline_bytes` each.
    pub preview: Option<Preview>,
    /// `None`: nowhere.
    pub capture: Option<Capture>,
}

/// What is kept of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Everything, unless something was omitted: then the beginning.
    pub head: Bytes,
    /// The end, if something was omitted.
    pub tail: Bytes,
    /// Between head and tail.
    pub omitted_bytes: u64,
    /// Line ends between head and tail.
    pub omitted_lines: u64,
}

/// A file that holds the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// As it was asked for.
    pub path: SandboxPath,
    /// In the file.
    pub bytes: u64,
    /// The cap was met.
    pub truncated: bool,
}

/// A command that is over.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What is kept of stdout.
    pub stdout: Output,
    /// What is kept of stderr.
    pub stderr: Output,
    /// How it ended.
    pub status: ExitStatus,
    /// If there is a file.
    pub captured: Option<Captured>,
    /// Why there is no file, although there should be one.
    pub capture_error: Option<Error>,
}

/// Runs events to their exit, in bounded memory.
///
/// # Errors
/// The error that the events end with, or `Unavailable` if they end without an
/// exit. No capture file is left then.
pub async fn collect(
    sandbox: Arc<dyn Sandbox>,
    mut events: EventStream,
    limits: OutputLimits,
) -> Result<Finished> {
    let inline = limits.max_inline_bytes;
    let preview = limits.preview.unwrap_or(Preview {
        head_bytes: inline - inline / 2,
        tail_bytes: inline / 2,
        head_lines: None,
        tail_lines: None,
    });
    let mut stdout = Keep::new(inline, preview);
    let mut stderr = Keep::new(inline, preview);
    let mut recorder = limits
        .capture
        .map(|capture| Recorder::new(sandbox, capture));
    loop {
        let event = match &mut recorder {
            Some(recorder) => recorder.alongside(events.next()).await,
            None => events.next().await,
        };
        let (kept, bytes) = match event.unwrap_or_else(|| Err(lost())) {
            Ok(Event::Stdout(bytes)) => (&mut stdout, bytes),
            Ok(Event::Stderr(bytes)) => (&mut stderr, bytes),
            Ok(Event::Exit(status)) => {
                let (captured, capture_error) = match recorder {
                    Some(recorder) => split(recorder.finish().await),
                    None => (None, None),
                };
                return Ok(Finished {
                    stdout: stdout.finish(),
                    stderr: stderr.finish(),
                    status,
                    captured,
                    capture_error,
                });
            }
            Err(error) => {
                if let Some(recorder) = recorder {
                    recorder.give_up(error.clone()).await;
                }
                return Err(error);
            }
        };
        kept.push(&bytes);
        let too_long = !stdout.fits() || !stderr.fits();
        if let Some(recorder) = &mut recorder {
            if too_long {
                recorder.begin();
            }
            recorder.write(bytes).await;
        }
    }
}

/// The same events, while the output is also written to a capture file, from
/// the first byte on, or from the start if the capture is for `always`.
///
/// Before the exit passes, the file is complete; the second value then says
/// where it is or why there is none, and `None` if there was nothing to write.
pub fn tee(
    sandbox: Arc<dyn Sandbox>,
    events: EventStream,
    capture: Capture,
) -> (EventStream, oneshot::Receiver<Option<Result<Captured>>>) {
    let (sender, receiver) = oneshot::channel();
    let recorder = Recorder::new(sandbox, capture);
    let teed = futures_util::stream::unfold(Some((events, recorder, sender)), |state| async move {
        let (mut events, mut recorder, sender) = state?;
        match recorder
            .alongside(events.next())
            .await
            .unwrap_or_else(|| Err(lost()))
        {
            Ok(event) => {
                if let Event::Stdout(bytes) | Event::Stderr(bytes) = &event {
                    recorder.begin();
                    recorder.write(bytes.clone()).await;
                    return Some((Ok(event), Some((events, recorder, sender))));
                }
                // Whoever dropped the receiver does not want to know.
                sender.send(recorder.finish().await).ok();
                Some((Ok(event), None))
            }
            Err(error) => {
                recorder.give_up(error.clone()).await;
                sender.send(Some(Err(error.clone()))).ok();
                Some((Err(error), None))
            }
        }
    });
    (teed.boxed(), receiver)
}

fn split(outcome: Option<Result<Captured>>) -> (Option<Captured>, Option<Error>) {
    match outcome {
        Some(Ok(captured)) => (Some(captured), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    }
}

fn lost() -> Error {
    Error::new(
        ErrorCode::Unavailable,
        "the command was lost: its events ended without an exit",
    )
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
