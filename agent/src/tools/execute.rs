//! `execute`: a line of shell, waited for or left running.
//!
//! Its output goes three ways at once: live to whoever watches, up to a bound;
//! head and tail to the model; and all of it into a file of the sandbox, which
//! is kept if the model does not see everything.
//!
//! ```text
//! running ──exit──▶ told
//!    │ stop
//!    ▼
//! SIGTERM ──exit──▶ stopped
//!    │ TERM_WAIT
//!    ▼
//! SIGKILL ──exit──▶ stopped
//!    │ KILL_WAIT
//!    ▼
//! the call is reset, and the daemon sees to the rest
//! ```

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use stigmer_sdk::wire::host::{self, exec_stream_request, exec_stream_response};
use stigmer_sdk::wire::sandbox::{self as wire, exit_status};
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{CancellationHandle, Request};

use super::output::Output;
use super::{Live, Outcome, Toolbox};
use crate::daemon::{call, from_status, incomplete};
use crate::sandbox::{HOUSE, told};

/// How long a command may run, if the model does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// Between SIGTERM and SIGKILL, and from there to giving up. Together they
/// leave room within the second in which a cancelled command has to be gone.
const TERM_WAIT: Duration = Duration::from_millis(400);
const KILL_WAIT: Duration = Duration::from_millis(500);
/// How much later than its deadline the daemon may say that a command met it:
/// it grants a grace period, and waits for those that will not die.
const DEADLINE_MARGIN: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Execute {
    pub(crate) command: String,
    timeout_seconds: Option<u64>,
    #[serde(default)]
    background: Option<bool>,
    cwd: Option<String>,
}

pub(super) fn about() -> (&'static str, serde_json::Value) {
    (
        "Runs a line of shell in the sandbox and gives its output and exit code. It starts in the \
         workspace; nothing of one call's shell is left for the next, neither its directory nor its \
         variables. Nobody can answer prompts: stdin is empty. Output that is too long is cut in \
         the middle and kept whole in a file that the result names. For a server, or whatever else \
         should go on running, set `background`: it gives a process id at once, and `process` looks \
         at its output and stops it. Prefer `read_file`, `write_file`, `edit_file`, `ls`, `glob` \
         and `grep` where they do.",
        json!({
            "type": "object",
            "properties": {
                "command": {"type": "string", "description": "One line of shell; several commands may be joined with && or ;"},
                "timeout_seconds": {"type": "integer", "minimum": 1, "description": "Stop it after this; 120 if absent. Not for `background`."},
                "background": {"type": "boolean", "description": "Leave it running, and give its process id."},
                "cwd": {"type": "string", "description": "Where it starts; the workspace if absent."},
            },
            "required": ["command"],
            "additionalProperties": false,
        }),
    )
}

/// Resets a call when it is dropped. Dropping the responses alone does not: as
/// long as there may be more requests, the stream stays open, and the daemon
/// never hears that nobody listens.
struct Cancel(Option<CancellationHandle>);

impl Drop for Cancel {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.cancel();
        }
    }
}

/// How a command that was waited for ended.
struct Ended {
    /// `None` if it was given up.
    result: Option<host::CommandResult>,
    stopped: bool,
}

impl Toolbox {
    pub(super) async fn execute(
        &self,
        id: &str,
        call: &Execute,
        live: Live<'_>,
        stop: &CancellationToken,
    ) -> Result<Outcome> {
        let mut run = self.shell(&call.command);
        run.cwd.clone_from(&call.cwd);
        if call.background == Some(true) {
            return self.start(id, run).await;
        }
        let timeout = match call.timeout_seconds {
            None => DEFAULT_TIMEOUT.min(self.sandbox.max_timeout),
            Some(seconds) => Duration::from_secs(seconds),
        };
        if timeout.is_zero() || timeout > self.sandbox.max_timeout {
            return Ok(Outcome::failed(format!(
                "`timeout_seconds` must be from 1 to {}; set `background` for what should run on",
                self.sandbox.max_timeout.as_secs()
            )));
        }
        run.timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let mut output = Output::new(self.mask.stream(), self.mask.stream());
        let capture = self.capture(id).await;
        let start = host::ExecStart {
            run: Some(run),
            capture: Some(capture.clone()),
            stdin: false,
        };
        let waited = self.wait(start, &mut output, live, stop);
        let ended = tokio::time::timeout(timeout + DEADLINE_MARGIN, waited)
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorCode::TimedOut,
                    "the daemon did not say how the command ended",
                ))
            });
        output.finish(live);
        let whole = self.kept(&output, &capture.path, ended.as_ref().ok()).await;
        let mut content = output.text(whole.as_deref());
        let (exit_code, note) = match &ended {
            Ok(ended) => ending(ended, timeout),
            Err(error) if output.is_empty() => return Err(error.clone()),
            Err(error) => (None, format!("[the command was lost: {}]", told(error))),
        };
        content.push_str(&note);
        Ok(Outcome {
            content,
            // A command that fails is no failure of the tool.
            failed: exit_code.is_none() || ended.is_ok_and(|ended| ended.stopped),
            exit_code,
            ..Outcome::default()
        })
    }

    /// Follows a command to its end, or ends it.
    async fn wait(
        &self,
        start: host::ExecStart,
        output: &mut Output,
        live: Live<'_>,
        stop: &CancellationToken,
    ) -> Result<Ended> {
        let input = |input| host::ExecStreamRequest { input: Some(input) };
        let (signals, queue) = mpsc::channel(2);
        let first = input(exec_stream_request::Input::Start(start));
        let requests = stream::iter([first]).chain(ReceiverStream::new(queue));
        let mut request = Request::new(requests);
        let mut cancel = Cancel(Some(request.cancellation_handle()));
        let mut commands = self.sandbox.daemon.commands();
        let started = tokio::select! {
            started = commands.exec_stream(request) => started,
            () = stop.cancelled() => return Ok(Ended { result: None, stopped: true }),
        };
        let mut responses = started.map_err(from_status)?.into_inner();
        // What is sent next, and when; the last step sends nothing.
        let mut ending = [
            (wire::Signal::Terminate, TERM_WAIT),
            (wire::Signal::Kill, KILL_WAIT),
        ]
        .into_iter();
        let mut next = None;
        loop {
            let due = async {
                match next {
                    None => stop.cancelled().await,
                    Some(at) => tokio::time::sleep_until(at).await,
                }
            };
            tokio::select! {
                response = responses.message() => {
                    let Some(response) = response.map_err(from_status)? else {
                        return Err(Error::new(ErrorCode::Unavailable, "its exit was lost"));
                    };
                    match response.event.ok_or_else(|| incomplete("event"))? {
                        exec_stream_response::Event::Stdout(bytes) => output.push(&bytes, false, live),
                        exec_stream_response::Event::Stderr(bytes) => output.push(&bytes, true, live),
                        exec_stream_response::Event::Exit(result) => {
                            // Over: there is nothing to reset.
                            cancel.0 = None;
                            return Ok(Ended { result: Some(result), stopped: next.is_some() });
                        }
                    }
                }
                () = due => {
                    let Some((signal, wait)) = ending.next() else {
                        return Ok(Ended { result: None, stopped: true });
                    };
                    next = Some(Instant::now() + wait);
                    // The queue has room for both; a call that is over needs none.
                    signals.try_send(input(exec_stream_request::Input::Signal(signal.into()))).ok();
                }
            }
        }
    }

    async fn start(&self, id: &str, run: host::Run) -> Result<Outcome> {
        let capture = self.capture(id).await;
        let path = capture.path.clone();
        let request = host::StartProcessRequest {
            run: Some(run),
            capture: Some(capture),
            ..host::StartProcessRequest::default()
        };
        let answer = self
            .sandbox
            .daemon
            .commands()
            .start_process(call(request))
            .await;
        let process = answer
            .map_err(from_status)?
            .into_inner()
            .process
            .ok_or_else(|| incomplete("process"))?;
        Ok(Outcome::told(format!(
            "started as process {}; look at its output, or stop it, with `process`; all of its output goes to {path}",
            process.process_id
        )))
    }

    /// Where the whole output of a call goes.
    async fn capture(&self, id: &str) -> host::Capture {
        // Without it the output is in nobody's way, just not hidden from git.
        if let Err(error) = self.house().await {
            tracing::debug!(error = told(&error), "cannot write {HOUSE}/.gitignore");
        }
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() || "-_".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = id.chars().take(100).map(safe).collect();
        host::Capture {
            path: format!("{HOUSE}/output/{name}.txt"),
            ..host::Capture::default()
        }
    }

    /// The file with the whole output, if it shows more than the result does.
    /// Otherwise there is no need for one.
    async fn kept(&self, output: &Output, path: &str, ended: Option<&Ended>) -> Option<String> {
        let result = ended.and_then(|ended| ended.result.as_ref());
        let captured = result.and_then(|result| result.captured.as_ref());
        if output.omitted() > 0 {
            return match captured {
                Some(captured) if captured.truncated => {
                    Some(format!("the first {} bytes are in {path}", captured.bytes))
                }
                Some(_) => Some(format!("all of it is in {path}")),
                None => None,
            };
        }
        if captured.is_some()
            && let Err(error) = self.sandbox.remove(path, false, true).await
        {
            tracing::debug!(
                error = told(&error),
                path,
                "cannot remove a captured output"
            );
        }
        None
    }
}

/// The exit code if there is one, and what the model reads of the end.
fn ending(ended: &Ended, timeout: Duration) -> (Option<i32>, String) {
    let Some(result) = &ended.result else {
        return (None, "[stopped]".to_owned());
    };
    let code = result.exit_code;
    let status = result
        .status
        .as_ref()
        .and_then(|status| status.status.as_ref());
    let note = match status {
        _ if ended.stopped => format!("[stopped; exit code {code}]"),
        Some(exit_status::Status::TimedOut(_)) => format!(
            "[timed out after {} s and was stopped; exit code {code}. Give it more with `timeout_seconds`, or set `background`]",
            timeout.as_secs()
        ),
        Some(exit_status::Status::Signal(signal)) => {
            format!("[killed by signal {signal}; exit code {code}]")
        }
        Some(exit_status::Status::Limit(limit)) => {
            format!("[stopped for exceeding its limit of {limit}; exit code {code}]")
        }
        Some(exit_status::Status::Code(_)) | None => format!("[exit code {code}]"),
    };
    (Some(code), note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_says_what_happened() {
        #[track_caller]
        fn check(status: exit_status::Status, code: i32, stopped: bool, note: &str) {
            let result = host::CommandResult {
                status: Some(wire::ExitStatus {
                    status: Some(status),
                }),
                exit_code: code,
                ..host::CommandResult::default()
            };
            let ended = Ended {
                result: Some(result),
                stopped,
            };
            let (exit_code, text) = ending(&ended, Duration::from_secs(2));
            assert_eq!(exit_code, Some(code));
            assert!(text.contains(note), "{text}");
        }
        check(exit_status::Status::Code(3), 3, false, "[exit code 3]");
        check(
            exit_status::Status::Signal(9),
            137,
            false,
            "signal 9; exit code 137",
        );
        check(
            exit_status::Status::TimedOut(true),
            124,
            false,
            "timed out after 2 s",
        );
        check(
            exit_status::Status::Signal(15),
            143,
            true,
            "[stopped; exit code 143]",
        );
    }
}
