//! The calls of one turn: in parallel, but for those that would be in each
//! other's way, and not before somebody allowed what needs it.

use std::sync::PoisonError;

use bytes::Bytes;
use futures_util::future::join_all;
use stigmer_sdk::wire::agent::{self, ApprovalState, MessageType, ToolOutput, event::What};
use stigmer_sdk::{Error, ErrorCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::approve::Verdict;
use crate::ask::Halt;
use crate::ending::Why;
use crate::history::{self, Entry};
use crate::limits::Repeated;
use crate::model::{Message, ToolCall, ToolResult};
use crate::report::now_ms;
use crate::sandbox::Sandbox;
use crate::tools::{Action, Outcome, Tool};
use crate::turn::Job;

/// Calls of a turn that run at a time.
const AT_A_TIME: usize = 16;
/// Calls of a turn. A model that makes more is not working.
const AT_MOST: usize = 128;

/// What a model that repeats itself is told.
const REPEATED: &str = "\n\n[You have made this very call several times. Making it again will not give \
anything else, and ends the work: do something different, or say what is in the way.]";

/// A call that was dealt with.
struct Done {
    result: ToolResult,
    todos: Option<agent::Todos>,
    repeated: Repeated,
}

impl Job {
    /// Runs them, and adds what they gave to the conversation, in their order.
    ///
    /// # Errors
    /// If the work is to stop, or the model goes round in circles.
    pub(crate) async fn calls(
        &mut self,
        message_id: &str,
        calls: Vec<ToolCall>,
    ) -> Result<(), Halt> {
        self.repeats().turn();
        let parsed: Vec<_> = calls
            .iter()
            .enumerate()
            .map(|(index, call)| match index {
                ..AT_MOST => self.tools.parse(&call.name, &call.arguments),
                _ => Err(format!(
                    "more than {AT_MOST} calls in one turn are too many"
                )),
            })
            .collect();
        let ids: Vec<String> = calls.iter().map(|_| self.next_id()).collect();
        for call in &calls {
            self.reporter
                .push(What::ToolCall(self.pending(message_id, call)));
        }
        // What is about to be done is on record before it is: should this runner
        // die, nobody takes the work for untouched.
        if !self.reporter.flush().await {
            return Err(Halt::Ended);
        }
        let places = Semaphore::new(AT_A_TIME);
        // Cancelled when a call is over.
        let over: Vec<_> = calls.iter().map(|_| CancellationToken::new()).collect();
        let sandbox = &self.tools.sandbox;
        let this = &*self;
        let running = calls.iter().enumerate().map(|(index, call)| {
            let first: Vec<_> = parsed[..index]
                .iter()
                .zip(&over)
                .filter(|(before, _)| in_the_way(before, &parsed[index], sandbox))
                .map(|(_, over)| over.clone())
                .collect();
            let (parsed, over, places, id) = (&parsed[index], &over[index], &places, &ids[index]);
            async move {
                for before in first {
                    before.cancelled().await;
                }
                let place = places.acquire().await;
                let done = this.call(message_id, id, call, parsed).await;
                drop(place);
                over.cancel();
                done
            }
        });
        let done = join_all(running).await;
        let mut circles = None;
        for (((done, id), call), parsed) in done.into_iter().zip(ids).zip(&calls).zip(&parsed) {
            if done.todos.is_some() {
                self.todos = done.todos;
            }
            if done.repeated == Repeated::Stop {
                circles = Some(match parsed {
                    Ok(action) => format!("{}: {}", call.name, action.summary(&self.tools.sandbox)),
                    Err(_) => call.name.clone(),
                });
            }
            self.conversation.entries.push(Entry {
                id,
                by: None,
                message: Message::Tools {
                    results: vec![done.result],
                },
            });
        }
        if self.held.ending.why().is_some() {
            return Err(Halt::Ended);
        }
        match circles {
            Some(call) => {
                let call = self.mask.text(&call);
                let message = format!(
                    "the model goes round in circles: it keeps making the same call, although it was told so ({call})"
                );
                Err(Error::new(ErrorCode::Exhausted, message).into())
            }
            None => Ok(()),
        }
    }

    fn repeats(&self) -> std::sync::MutexGuard<'_, crate::limits::Repeats> {
        self.progress
            .repeats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is told of before it runs.
    fn pending(&self, message_id: &str, call: &ToolCall) -> agent::ToolCall {
        agent::ToolCall {
            tool_call_id: call.id.clone(),
            message_id: message_id.to_owned(),
            name: call.name.clone(),
            args: self.mask.text(&call.object().to_string()),
            status: agent::ToolCallStatus::Pending.into(),
            ..agent::ToolCall::default()
        }
    }

    /// One call, from asking whether it may be made to telling what it gave.
    async fn call(
        &self,
        message_id: &str,
        id: &str,
        call: &ToolCall,
        parsed: &Result<Action, String>,
    ) -> Done {
        let mut told = self.pending(message_id, call);
        let outcome = match parsed {
            Err(problem) => Outcome::failed(problem.clone()),
            Ok(_) if self.held.ending.why().is_some() => Outcome::failed("it was not run"),
            Ok(action) => match self.allowed(&call.id, action).await {
                Err(refused) => Outcome::failed(refused),
                Ok(()) => {
                    told.status = agent::ToolCallStatus::Running.into();
                    told.started_ms = Some(now_ms());
                    self.reporter.push(What::ToolCall(told.clone()));
                    self.run_action(&call.id, action).await
                }
            },
        };
        let mut content = if outcome.failed {
            format!("error: {}", outcome.content)
        } else {
            outcome.content
        };
        let polls = matches!(parsed, Ok(action) if action.tool() == Tool::Process);
        let repeated = self
            .repeats()
            .note(&call.name, &call.arguments, &content, polls);
        if repeated == Repeated::Warn {
            content.push_str(REPEATED);
        }
        let content = self.mask.text(&content);
        told.status = if outcome.failed {
            agent::ToolCallStatus::Failed.into()
        } else {
            agent::ToolCallStatus::Completed.into()
        };
        told.error = outcome.failed.then(|| match self.held.ending.why() {
            Some(why) => stopped(&why).to_owned(),
            None => content
                .strip_prefix("error: ")
                .unwrap_or(&content)
                .to_owned(),
        });
        told.result.clone_from(&content);
        told.completed_ms = Some(now_ms());
        told.changes = outcome.changes;
        told.exit_code = outcome.exit_code;
        if let Some(todos) = &outcome.todos {
            self.reporter.push(What::Todos(self.masked_todos(todos)));
        }
        self.reporter.push(What::ToolCall(told));
        let result = ToolResult {
            id: call.id.clone(),
            content: content.clone(),
            failed: outcome.failed,
        };
        let message = Message::Tools {
            results: vec![result.clone()],
        };
        self.reporter.push(What::Message(agent::Message {
            message_id: id.to_owned(),
            r#type: MessageType::Tool.into(),
            content,
            created_ms: now_ms(),
            tool_call_id: Some(call.id.clone()),
            state: history::said(None, &message, &self.mask),
        }));
        if repeated == Repeated::Warn {
            tracing::info!(tool = call.name, "the model repeats itself");
        }
        Done {
            result,
            todos: outcome.todos,
            repeated,
        }
    }

    async fn run_action(&self, id: &str, action: &Action) -> Outcome {
        self.reporter.room().await;
        let live = |data: Bytes, stderr| {
            self.reporter.push(What::Output(ToolOutput {
                tool_call_id: id.to_owned(),
                data,
                stderr,
            }));
        };
        self.tools
            .run(id, action, &live, self.held.ending.token())
            .await
    }

    /// Asks whoever has to be asked.
    ///
    /// # Errors
    /// Why the call is not made, for the model.
    async fn allowed(&self, id: &str, action: &Action) -> Result<(), String> {
        let sandbox = &self.tools.sandbox;
        let tool = action.tool();
        let why = match self
            .policy
            .judge(tool.name(), tool.changes(), &action.subjects(sandbox))
        {
            Verdict::Run => return Ok(()),
            Verdict::Deny(why) => return Err(format!("denied by {why}; it was not run")),
            Verdict::Ask(why) => why,
        };
        let changes = self.tools.preview(action).await;
        let decision = self.held.expect(id);
        self.reporter.push(What::Approval(agent::Approval {
            tool_call_id: id.to_owned(),
            state: ApprovalState::Pending.into(),
            why,
            summary: self.mask.text(&action.summary(sandbox)),
            changes,
            reason: String::new(),
        }));
        tokio::select! {
            decision = decision => match decision {
                Ok(decision) if decision.allow => Ok(()),
                Ok(decision) if decision.reason.trim().is_empty() => {
                    Err("denied by the person; it was not run".to_owned())
                }
                Ok(decision) => Err(format!(
                    "denied by the person, who says: {}; it was not run",
                    decision.reason.trim()
                )),
                Err(_) => Err("nobody can be asked any more; it was not run".to_owned()),
            },
            () = self.held.ending.ended() => Err("it was not run".to_owned()),
        }
    }

    fn masked_todos(&self, todos: &agent::Todos) -> agent::Todos {
        let item = |todo: &agent::Todo| agent::Todo {
            content: self.mask.text(&todo.content),
            ..todo.clone()
        };
        agent::Todos {
            items: todos.items.iter().map(item).collect(),
        }
    }
}

/// What people read of a call that did not come to its end.
fn stopped(why: &Why) -> &'static str {
    match why {
        Why::Cancelled(_) => "cancelled",
        Why::TimedOut(_) => "the execution's time was up",
        Why::Stopped => "the agent runner was stopped",
        Why::Lost => "the execution was lost",
    }
}

/// Whether a call has to wait for one before it: both are about the same path
/// and one of them changes it, or one is a command, which may touch any file,
/// and the other changes one.
fn in_the_way(
    before: &Result<Action, String>,
    after: &Result<Action, String>,
    sandbox: &Sandbox,
) -> bool {
    let (Ok(before), Ok(after)) = (before, after) else {
        return false;
    };
    let changes = |action: &Action| action.path().is_some() && action.tool().changes();
    let runs = |action: &Action| action.tool() == Tool::Execute;
    if runs(before) || runs(after) {
        return changes(before) || changes(after);
    }
    let (Some(a), Some(b)) = (before.path(), after.path()) else {
        return false;
    };
    let (a, b) = (sandbox.absolute(a), sandbox.absolute(b));
    let holds = |above: &str, below: &str| {
        below
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || above == "/")
    };
    (changes(before) || changes(after)) && (holds(&a, &b) || holds(&b, &a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::Toolbox;
    use std::collections::HashMap;
    use std::sync::Arc;

    #[tokio::test]
    async fn calls_wait_for_those_they_depend_on() {
        let tools = Toolbox::new(Sandbox::nowhere(), &[], HashMap::new(), Arc::default()).unwrap();
        let check = |before: (&str, &str), after: (&str, &str), expected: bool| {
            let parse = |(name, arguments): (&str, &str)| tools.parse(name, arguments);
            let (before, after) = (parse(before), parse(after));
            assert!(before.is_ok() && after.is_ok());
            assert_eq!(
                in_the_way(&before, &after, &tools.sandbox),
                expected,
                "{before:?} {after:?}"
            );
        };
        let write = |path| format!(r#"{{"path":"{path}","content":""}}"#);
        let path = |path| format!(r#"{{"path":"{path}"}}"#);
        let run = ("execute", r#"{"command":"make"}"#);
        check(
            ("write_file", &write("a")),
            ("write_file", &write("./a")),
            true,
        );
        check(
            ("write_file", &write("a")),
            ("write_file", &write("b")),
            false,
        );
        check(
            ("write_file", &write("a")),
            ("read_file", &path("/workspace/a")),
            true,
        );
        check(("read_file", &path("a")), ("read_file", &path("a")), false);
        check(("write_file", &write("d/a")), ("delete", &path("d")), true);
        check(("delete", &path("d")), ("ls", &path("d/e")), true);
        check(("delete", &path("d")), ("ls", &path("de")), false);
        check(
            ("write_file", &write("a")),
            ("grep", r#"{"pattern":"x"}"#),
            true,
        );
        check(("write_file", &write("a")), run, true);
        check(run, ("write_file", &write("a")), true);
        check(run, run, false);
        check(run, ("read_file", &path("a")), false);
        check(("write_todos", r#"{"todos":[]}"#), run, false);
    }
}
