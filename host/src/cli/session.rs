//! `stigmer session`: conversations with agents, each bound to one sandbox.

use clap::{Args, Subcommand};
use stigmer_sdk::wire::agent::{DeleteSessionRequest, HistoryRequest, Message, Session, ToolCall};

use super::daemon::Daemon;
use super::execution;
use super::exit::Outcome;
use super::failure::{Failure, Result};
use super::output::{self, Output, now_ms, table, time};
use super::run::find;
use super::run::render::{conversation, json, parts};

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer session list
  stigmer session show 01K2XQ
  stigmer run --session 01K2XQ 'now add a test'
  stigmer session destroy 01K2XQ

A session is named by its id, or by a part of its beginning or its end that is
unique.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List sessions
    #[command(after_help = "Example:\n  stigmer session list --json")]
    List(ListArgs),
    /// Show a session, its executions and its conversation
    #[command(after_help = "Example:\n  stigmer session show 01K2XQ")]
    Show(ShowArgs),
    /// Delete sessions with their executions and sandboxes; what runs is cancelled
    #[command(
        after_help = "Example:\n  stigmer session destroy 01K2XQ 01K2YA\n\nA sandbox that was given to a session stays."
    )]
    Destroy(DestroyArgs),
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// The session
    session: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DestroyArgs {
    /// The sessions
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<String>,
}

pub(super) async fn run(command: &Command, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    match command {
        Command::List(args) => {
            let sessions = find::sessions(daemon).await?;
            if args.json {
                output.json(&sessions.iter().map(json::session).collect::<Vec<_>>())?;
            } else {
                output.text(listing(&sessions, now_ms()))?;
            }
            Ok(Outcome::Success)
        }
        Command::Show(args) => show(args, daemon, output).await,
        Command::Destroy(args) => destroy(args, daemon, output).await,
    }
}

fn listing(sessions: &[Session], now_ms: u64) -> String {
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            let subject = session.spec.as_ref().map_or("", |spec| &spec.subject);
            vec![
                session.session_id.clone(),
                or_dash(&session.sandbox_id),
                output::ago(session.created_ms, now_ms),
                output::ago(session.used_ms, now_ms),
                parts::one_line(subject, 60),
            ]
        })
        .collect();
    table(&["SESSION", "SANDBOX", "AGE", "UNUSED", "SUBJECT"], &rows)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

async fn show(args: &ShowArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let session = find::session(daemon, &args.session).await?;
    let id = session.session_id.clone();
    let executions = find::executions(daemon, Some(id.clone()), &[], usize::MAX).await?;
    let (messages, calls) = history(daemon, id).await?;
    if args.json {
        let mut value = json::session(&session);
        value["executions"] = executions.iter().map(json::execution).collect();
        value["messages"] = messages.iter().map(json::message).collect();
        value["tool_calls"] = calls.iter().map(json::tool_call).collect();
        output.json(&value)?;
        return Ok(Outcome::Success);
    }
    let mut text = description(&session);
    if !executions.is_empty() {
        text = format!("{text}\n\n{}", execution::listing(&executions, now_ms()));
    }
    let conversation = conversation::lines(&messages, &calls);
    if !conversation.is_empty() {
        text = format!("{text}\n\n{}", conversation.join("\n"));
    }
    output.text(text)?;
    Ok(Outcome::Success)
}

fn description(session: &Session) -> String {
    let spec = session.spec.clone().unwrap_or_default();
    let agent = spec.agent.unwrap_or_default();
    let rows = [
        ("session", session.session_id.clone()),
        ("subject", or_dash(&spec.subject)),
        ("agent", or_dash(&agent.name)),
        ("model", or_dash(&agent.model)),
        ("sandbox", or_dash(&session.sandbox_id)),
        ("created", time(session.created_ms)),
        ("last used", time(session.used_ms)),
    ];
    let lines: Vec<_> = rows
        .iter()
        .map(|(name, value)| format!("{name:<10} {value}"))
        .collect();
    lines.join("\n")
}

async fn history(daemon: &Daemon, session_id: String) -> Result<(Vec<Message>, Vec<ToolCall>)> {
    let request = HistoryRequest {
        session_id,
        before_execution_id: None,
    };
    let mut pages = daemon.sessions().history(request).await?.into_inner();
    let (mut messages, mut calls) = (Vec::new(), Vec::new());
    while let Some(page) = pages.message().await? {
        messages.extend(page.messages);
        calls.extend(page.tool_calls);
    }
    Ok((messages, calls))
}

async fn destroy(args: &DestroyArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let mut problems = Vec::new();
    for name in &args.sessions {
        match destroy_one(name, daemon).await {
            Ok(id) => output.line(id)?,
            Err(failure) if args.sessions.len() == 1 => return Err(failure),
            Err(failure) => problems.push(format!("'{name}': {}", failure.problems.join(", "))),
        }
    }
    if problems.is_empty() {
        Ok(Outcome::Success)
    } else {
        Err(Failure::several(problems))
    }
}

async fn destroy_one(name: &str, daemon: &Daemon) -> Result<String> {
    let session_id = find::session_id(daemon, name).await?;
    let request = DeleteSessionRequest {
        session_id: session_id.clone(),
    };
    daemon.sessions().delete(request).await?;
    Ok(session_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stigmer_sdk::wire::agent::SessionSpec;

    #[test]
    fn a_list_is_a_table() {
        let session = Session {
            session_id: "ses-1".to_owned(),
            spec: Some(SessionSpec {
                subject: "write a test".to_owned(),
                ..SessionSpec::default()
            }),
            sandbox_id: String::new(),
            created_ms: 0,
            used_ms: 60_000,
        };
        assert_eq!(
            listing(&[session], 120_000),
            "\
SESSION  SANDBOX  AGE  UNUSED  SUBJECT
ses-1    -        2m   1m      write a test"
        );
    }
}
