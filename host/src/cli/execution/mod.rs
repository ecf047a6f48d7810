//! `stigmer execution`: what agents do and did.

mod decide;

use clap::{Args, Subcommand, ValueEnum};
use stigmer_sdk::wire::agent::{
    Approval, ApprovalState, CancelExecutionRequest, Execution, Message, MessageType, Phase,
};

use crate::cli::daemon::{Daemon, incomplete};
use crate::cli::exit::Outcome;
use crate::cli::failure::{Result, describe};
use crate::cli::follow::Signals;
use crate::cli::output::{self, Output, now_ms, table, time};
use crate::cli::run::find;
use crate::cli::run::follow::{Watch, follow};
use crate::cli::run::render::{conversation, json, parts};
use crate::cli::run::subscription::is_final;

pub(in crate::cli) const AFTER_HELP: &str = "\
Examples:
  stigmer execution list --phase in_progress
  stigmer execution follow 01K2XQ
  stigmer execution approve 01K2XQ
  stigmer execution cancel 01K2XQ

An execution is named by its id, or by a part of its beginning or its end that
is unique.";

const LIST_HELP: &str = "\
Examples:
  stigmer execution list --session 01K2XQ
  stigmer execution list --phase pending --phase in-progress --json";

const FOLLOW_EXTRA: &str = "\
Examples:
  stigmer execution follow 01K2XQ
  stigmer execution follow 01K2XQ --from 120 --json

Shows what happened from the beginning, and goes on until the end; Ctrl-C leaves
the execution running. The exit code is 0 if it completed, 1 if it did not.";

fn follow_help() -> String {
    format!("{FOLLOW_EXTRA}\n\n{}", json::FORMAT)
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List executions, the newest first
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Show an execution and its conversation
    #[command(after_help = "Example:\n  stigmer execution show 01K2XQ --json")]
    Show(ShowArgs),
    /// Cancel an execution, with what it runs
    #[command(after_help = "Example:\n  stigmer execution cancel 01K2XQ --reason 'wrong branch'")]
    Cancel(CancelArgs),
    /// Show what an execution does, until its end
    #[command(after_help = follow_help())]
    Follow(FollowArgs),
    /// Allow a tool call that waits for approval
    #[command(
        after_help = "Examples:\n  stigmer execution approve 01K2XQ\n  stigmer execution approve 01K2XQ toolu_01AB"
    )]
    Approve(ApproveArgs),
    /// Refuse a tool call that waits for approval
    #[command(
        after_help = "Example:\n  stigmer execution deny 01K2XQ --reason 'use git revert instead'"
    )]
    Deny(DenyArgs),
}

/// A phase as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PhaseArg {
    Pending,
    /// As JSON spells it
    #[value(name = "in_progress", alias = "in-progress")]
    InProgress,
    Completed,
    Failed,
    Cancelled,
}

impl PhaseArg {
    fn phase(self) -> Phase {
        match self {
            Self::Pending => Phase::Pending,
            Self::InProgress => Phase::InProgress,
            Self::Completed => Phase::Completed,
            Self::Failed => Phase::Failed,
            Self::Cancelled => Phase::Cancelled,
        }
    }
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ListArgs {
    /// Only those of this session
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,

    /// Only those in this phase; may be repeated
    #[arg(long = "phase", value_enum, value_name = "PHASE")]
    phases: Vec<PhaseArg>,

    /// At most this many
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ShowArgs {
    /// The execution
    execution: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct CancelArgs {
    /// The execution
    execution: String,

    /// Why, for whoever reads of it
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct FollowArgs {
    /// The execution
    execution: String,

    /// Begin with this event instead of the first
    #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,

    /// Print events as JSON, one a line
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ApproveArgs {
    /// The execution
    execution: String,

    /// The tool call, if more than one waits
    call: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct DenyArgs {
    #[command(flatten)]
    which: ApproveArgs,

    /// Why, for the model
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

pub(in crate::cli) async fn run(
    command: &Command,
    daemon: &Daemon,
    output: &Output,
) -> Result<Outcome> {
    match command {
        Command::List(args) => list(args, daemon, output).await,
        Command::Show(args) => show(args, daemon, output).await,
        Command::Cancel(args) => cancel(args, daemon, output).await,
        Command::Follow(args) => {
            let mut signals = Signals::listen()?;
            let execution = find::execution(daemon, &args.execution);
            let execution = signals.unless_asked(execution).await?;
            let watch = Watch {
                daemon,
                execution: &execution,
                from: args.from,
                json: args.json,
                owned: false,
            };
            follow(watch, &mut signals, output).await
        }
        Command::Approve(args) => decide::decide(args, true, "", daemon, output).await,
        Command::Deny(args) => {
            decide::decide(&args.which, false, &args.reason, daemon, output).await
        }
    }
}

async fn list(args: &ListArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let session = match &args.session {
        Some(name) => Some(find::session_id(daemon, name).await?),
        None => None,
    };
    let phases: Vec<_> = args.phases.iter().map(|phase| phase.phase()).collect();
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let executions = find::executions(daemon, session, &phases, most).await?;
    if args.json {
        output.json(&executions.iter().map(json::execution).collect::<Vec<_>>())?;
    } else {
        output.text(listing(&executions, now_ms()))?;
    }
    Ok(Outcome::Success)
}

/// Executions as a table.
pub(in crate::cli) fn listing(executions: &[Execution], now_ms: u64) -> String {
    let rows: Vec<_> = executions
        .iter()
        .map(|execution| {
            let status = execution.status.clone().unwrap_or_default();
            let message = execution.spec.as_ref().map_or("", |spec| &spec.message);
            vec![
                execution.execution_id.clone(),
                execution.session_id.clone(),
                shown_phase(execution).to_owned(),
                output::ago(execution.created_ms, now_ms),
                took(&status, now_ms).map_or_else(|| "-".to_owned(), parts::duration),
                parts::one_line(message, 50),
            ]
        })
        .collect();
    table(
        &["EXECUTION", "SESSION", "PHASE", "AGE", "TIME", "MESSAGE"],
        &rows,
    )
}

/// The phase, or what it waits for.
fn shown_phase(execution: &Execution) -> &'static str {
    let Some(status) = &execution.status else {
        return "unknown";
    };
    if is_final(status.phase()) {
        json::phase(status.phase())
    } else if status.cancel_requested {
        "cancelling"
    } else if pending(execution).next().is_some() {
        "waiting for approval"
    } else {
        json::phase(status.phase())
    }
}

/// How long it ran, or has been running.
fn took(status: &stigmer_sdk::wire::agent::ExecutionStatus, now_ms: u64) -> Option<u64> {
    let end = status.completed_ms.unwrap_or(now_ms);
    status.started_ms.map(|start| end.saturating_sub(start))
}

fn pending(execution: &Execution) -> impl Iterator<Item = &Approval> {
    let approvals = execution.status.as_ref().map(|status| &status.approvals);
    approvals
        .into_iter()
        .flatten()
        .filter(|approval| approval.state() == ApprovalState::Pending)
}

async fn show(args: &ShowArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let execution = find::execution(daemon, &args.execution).await?;
    if args.json {
        output.json(&json::execution(&execution))?;
    } else {
        output.text(description(&execution, now_ms()))?;
    }
    Ok(Outcome::Success)
}

fn description(execution: &Execution, now_ms: u64) -> String {
    let spec = execution.spec.clone().unwrap_or_default();
    let status = execution.status.clone().unwrap_or_default();
    let mut rows = vec![
        ("execution", execution.execution_id.clone()),
        ("session", execution.session_id.clone()),
        ("phase", shown_phase(execution).to_owned()),
        ("created", time(execution.created_ms)),
    ];
    rows.extend(took(&status, now_ms).map(|ms| ("time", parts::duration(ms))));
    rows.extend(spec.model.map(|model| ("model", model)));
    if let Some(usage) = &status.usage {
        let cost = usage.cost_microusd.map(parts::dollars);
        let tokens = format!(
            "{} in ({} cached), {} out, {}{}",
            parts::number(usage.input_tokens),
            parts::number(usage.cached_tokens),
            parts::number(usage.output_tokens),
            output::count(usage.model_calls.into(), "model call"),
            cost.map(|cost| format!(", {cost}")).unwrap_or_default()
        );
        rows.push(("tokens", tokens));
    }
    rows.extend(
        status
            .error
            .as_ref()
            .map(|error| ("error", describe(error))),
    );
    let mut lines: Vec<_> = rows
        .iter()
        .map(|(name, value)| format!("{name:<10} {value}"))
        .collect();
    for approval in pending(execution) {
        let summary = parts::one_line(&approval.summary, 100);
        lines.push(format!(
            "{:<10} {}  {summary}",
            "waits for", approval.tool_call_id
        ));
    }
    let mut messages = status.messages;
    let asked = messages
        .iter()
        .any(|message| message.r#type() == MessageType::Human);
    if !asked {
        // What was asked, of an execution that no runner has begun.
        messages.insert(
            0,
            Message {
                r#type: MessageType::Human.into(),
                content: spec.message,
                ..Message::default()
            },
        );
    }
    lines.push(String::new());
    lines.extend(conversation::lines(&messages, &status.tool_calls));
    lines.join("\n")
}

async fn cancel(args: &CancelArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let request = CancelExecutionRequest {
        execution_id: find::execution(daemon, &args.execution).await?.execution_id,
        reason: args.reason.clone(),
    };
    let answer = daemon.executions().cancel(request).await?.into_inner();
    let execution = answer.execution.ok_or_else(incomplete)?;
    let phase = execution.status.as_ref().map(|status| status.phase());
    output.line(&execution.execution_id)?;
    output.note(match phase {
        Some(Phase::Cancelled) => "⚠️  Execution cancelled",
        Some(Phase::Completed | Phase::Failed) => "it had ended before",
        Some(Phase::Unspecified | Phase::Pending | Phase::InProgress) | None => {
            "its runner was told to stop"
        }
    });
    Ok(Outcome::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stigmer_sdk::wire::agent::{ExecutionSpec, ExecutionStatus, Usage};

    pub(super) fn execution(waiting: &[&str]) -> Execution {
        let approvals = waiting.iter().map(|call| Approval {
            tool_call_id: (*call).to_owned(),
            state: ApprovalState::Pending.into(),
            summary: format!("rm {call}"),
            ..Approval::default()
        });
        Execution {
            execution_id: "exe-1".to_owned(),
            session_id: "ses-1".to_owned(),
            spec: Some(ExecutionSpec {
                message: "do it\nnow".to_owned(),
                ..ExecutionSpec::default()
            }),
            status: Some(ExecutionStatus {
                phase: Phase::InProgress.into(),
                approvals: approvals.collect(),
                started_ms: Some(1_000),
                ..ExecutionStatus::default()
            }),
            created_ms: 0,
        }
    }

    #[test]
    fn a_list_is_a_table() {
        let mut done = execution(&[]);
        if let Some(status) = &mut done.status {
            status.set_phase(Phase::Completed);
            status.completed_ms = Some(3_500);
        }
        assert_eq!(
            listing(&[execution(&["a"]), done], 61_000),
            "\
EXECUTION  SESSION  PHASE                 AGE  TIME   MESSAGE
exe-1      ses-1    waiting for approval  1m   1m 0s  do it … (1 more line)
exe-1      ses-1    completed             1m   2.5s   do it … (1 more line)"
        );
    }

    #[test]
    fn what_was_asked_is_shown_before_anybody_began() {
        let mut execution = execution(&["a"]);
        if let Some(status) = &mut execution.status {
            status.usage = Some(Usage {
                input_tokens: 1200,
                model_calls: 1,
                ..Usage::default()
            });
        }
        assert_eq!(
            description(&execution, 2_000),
            "\
execution  exe-1
session    ses-1
phase      waiting for approval
created    1970-01-01T00:00:00Z
time       1.0s
tokens     1,200 in (0 cached), 0 out, 1 model call
waits for  a  rm a

💬 You: do it
now"
        );
    }
}
