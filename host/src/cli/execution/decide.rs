//! Answering a tool call that waits for approval.

use stigmer_sdk::wire::agent::{Approval, DecideRequest, Execution};

use super::{ApproveArgs, pending};
use crate::cli::daemon::Daemon;
use crate::cli::exit::Outcome;
use crate::cli::failure::{Failure, Result};
use crate::cli::output::Output;
use crate::cli::run::find;
use crate::cli::run::render::parts;

pub(super) async fn decide(
    args: &ApproveArgs,
    allow: bool,
    reason: &str,
    daemon: &Daemon,
    output: &Output,
) -> Result<Outcome> {
    let execution = find::execution(daemon, &args.execution).await?;
    let approval = which(&execution, args.call.as_deref())?;
    let request = DecideRequest {
        execution_id: execution.execution_id.clone(),
        tool_call_id: approval.tool_call_id.clone(),
        allow,
        reason: reason.to_owned(),
    };
    daemon.executions().decide(request).await?;
    output.line(&approval.tool_call_id)?;
    let done = if allow { "allowed" } else { "denied" };
    output.note(format!("{done}: {}", approval.summary));
    Ok(Outcome::Success)
}

/// The one tool call that is meant.
fn which<'a>(execution: &'a Execution, call: Option<&str>) -> Result<&'a Approval> {
    let id = &execution.execution_id;
    let waiting: Vec<_> = pending(execution).collect();
    let fits =
        |approval: &&&Approval| call.is_none_or(|call| approval.tool_call_id.starts_with(call));
    // A whole id is meant even if another one begins with it.
    let exact = waiting
        .iter()
        .find(|approval| Some(approval.tool_call_id.as_str()) == call);
    if let Some(exact) = exact {
        return Ok(exact);
    }
    let found: Vec<_> = waiting.iter().filter(fits).collect();
    match &found[..] {
        [only] => Ok(only),
        [] => {
            let failure = Failure::failed(match call {
                Some(call) => {
                    format!(
                        "no tool call '{}' of {id} waits for approval",
                        call.escape_debug()
                    )
                }
                None => format!("nothing of {id} waits for approval"),
            });
            let ids: Vec<_> = waiting
                .iter()
                .map(|approval| approval.tool_call_id.as_str())
                .collect();
            Err(match &ids[..] {
                [] => failure,
                ids => failure.hint(format!("those that wait: {}", ids.join(", "))),
            })
        }
        several => {
            let mut failure = Failure::usage(format!(
                "{} tool calls of {id} wait for approval: say which",
                several.len()
            ));
            failure.hints.extend(several.iter().map(|approval| {
                let summary = parts::one_line(&approval.summary, 100);
                format!("{}  {summary}", approval.tool_call_id)
            }));
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::execution;
    use super::*;

    #[test]
    fn the_call_is_named_only_if_it_must_be() {
        #[track_caller]
        fn check(waiting: &[&str], call: Option<&str>, expected: Result<&str, &str>) {
            let execution = execution(waiting);
            let found = which(&execution, call)
                .map(|approval| approval.tool_call_id.as_str())
                .map_err(|failure| failure.problems.join("\n"));
            assert_eq!(found, expected.map_err(str::to_owned));
        }
        check(&["a1"], None, Ok("a1"));
        check(&["a1", "b1"], Some("b"), Ok("b1"));
        check(&["a1", "a12"], Some("a1"), Ok("a1"));
        check(&[], None, Err("nothing of exe-1 waits for approval"));
        check(
            &["a1"],
            Some("x"),
            Err("no tool call 'x' of exe-1 waits for approval"),
        );
        check(
            &["a1", "b1"],
            None,
            Err("2 tool calls of exe-1 wait for approval: say which"),
        );
    }
}
