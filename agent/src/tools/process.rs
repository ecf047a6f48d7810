//! `process`: what `execute` left running in the background.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use stigmer_sdk::Result;
use stigmer_sdk::wire::host;

use super::{Outcome, Toolbox, add};
use crate::daemon::{call, from_status, incomplete, within};

/// What one look shows.
const OUTPUT_BYTES: u64 = 30_000;
/// The longest that one look may wait.
const MAX_WAIT_SECONDS: u64 = 300;
/// What a call may take beyond its wait.
const MARGIN: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) process_id: String,
    pub(crate) action: What,
    offset: Option<u64>,
    wait_seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Output,
    Stop,
}

impl What {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Stop => "stop",
        }
    }
}

pub(super) fn about() -> (&'static str, serde_json::Value) {
    (
        "Looks at a background process that `execute` started: `output` gives what it printed, and \
         whether it still runs; `stop` ends it with everything it started.",
        json!({
            "type": "object",
            "properties": {
                "process_id": {"type": "string", "description": "As `execute` gave it."},
                "action": {"type": "string", "enum": ["output", "stop"]},
                "offset": {"type": "integer", "minimum": 0, "description": "Bytes of output to skip: what the last look named. Its latest output if absent."},
                "wait_seconds": {"type": "integer", "minimum": 0, "maximum": 300, "description": "For `output`: wait so long for it to end."},
            },
            "required": ["process_id", "action"],
            "additionalProperties": false,
        }),
    )
}

impl Toolbox {
    pub(super) async fn process(&self, call: &Process) -> Result<Outcome> {
        match call.action {
            What::Output => self.look(call).await,
            What::Stop => self.stop(call).await,
        }
    }

    async fn look(&self, look: &Process) -> Result<Outcome> {
        let wait = Duration::from_secs(look.wait_seconds.unwrap_or(0).min(MAX_WAIT_SECONDS));
        let process = self.wait_process(look, wait, None, 0).await?.process;
        let printed = process.map_or(0, |process| process.output_bytes);
        let from = look
            .offset
            .unwrap_or_else(|| printed.saturating_sub(OUTPUT_BYTES));
        let seen = self
            .wait_process(look, Duration::ZERO, Some(from), OUTPUT_BYTES)
            .await?;
        let process = seen.process.ok_or_else(|| incomplete("process"))?;
        let mut content = String::from_utf8_lossy(&seen.output).into_owned();
        if content.is_empty() {
            content.push_str("[no new output]");
        }
        if !content.ends_with('\n') {
            content.push('\n');
        }
        if seen.offset > from {
            content = format!(
                "[{} bytes before this are no longer kept]\n{content}",
                seen.offset - from
            );
        }
        let state = match &process.result {
            None => "it runs".to_owned(),
            Some(result) => format!("it ended with exit code {}", result.exit_code),
        };
        add(
            &mut content,
            format_args!("[{state}; go on with offset {}]", seen.next_offset),
        );
        Ok(Outcome {
            exit_code: process.result.map(|result| result.exit_code),
            ..Outcome::told(content)
        })
    }

    async fn wait_process(
        &self,
        look: &Process,
        wait: Duration,
        offset: Option<u64>,
        max_bytes: u64,
    ) -> Result<host::WaitProcessResponse> {
        let request = host::WaitProcessRequest {
            sandbox_id: self.sandbox.id.clone(),
            process_id: look.process_id.clone(),
            timeout_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            offset,
            max_bytes: Some(max_bytes),
        };
        let mut commands = self.sandbox.daemon.commands();
        let answer = commands.wait_process(within(wait + MARGIN, request)).await;
        Ok(answer.map_err(from_status)?.into_inner())
    }

    async fn stop(&self, stop: &Process) -> Result<Outcome> {
        let request = host::StopProcessRequest {
            sandbox_id: self.sandbox.id.clone(),
            process_id: stop.process_id.clone(),
        };
        let answer = self
            .sandbox
            .daemon
            .commands()
            .stop_process(call(request))
            .await;
        let process = answer.map_err(from_status)?.into_inner().process;
        let result = process.and_then(|process| process.result);
        Ok(Outcome {
            exit_code: result.as_ref().map(|result| result.exit_code),
            ..Outcome::told(match result {
                Some(result) => format!("it has ended with exit code {}", result.exit_code),
                None => "it was told to end".to_owned(),
            })
        })
    }
}
