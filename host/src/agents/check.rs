//! What may be asked of agents: requests that make no sense are refused here,
//! with the name of the field, before anything is stored.

use std::collections::HashMap;

use prost::Message as _;
use stigmer_sdk::wire::agent::{self as pb, event::What};
use stigmer_sdk::wire::{invalid, required};
use stigmer_sdk::{EnvName, EnvValue, Error, ErrorCode, Result, SandboxSpec};

use super::fold::is_final;
use crate::guard::Guard;

/// The message of an execution: far more than people type, and no more than
/// models read.
const MESSAGE_BYTES: usize = 1024 * 1024;
/// One event. A subscriber's page and a gRPC message hold several.
const EVENT_BYTES: usize = 1024 * 1024;
/// Events that are recorded at once: what a fast model says in a few seconds,
/// and a commit of some milliseconds.
const BATCH_EVENTS: usize = 1000;
/// A key, a name of a runner.
const NAME_BYTES: usize = 256;
/// Nobody means more, and each is a whole run of an agent.
const ATTEMPTS: u32 = 100;

pub(super) fn session(spec: &pb::SessionSpec, guard: &Guard) -> Result<()> {
    if let Some(agent) = &spec.agent {
        env("spec.agent.env", &agent.env, guard)?;
        approvals("spec.agent.approvals", agent.approvals.as_ref())?;
        for (at, skill) in agent.skills.iter().enumerate() {
            if skill.name.is_empty() {
                return Err(invalid(
                    &format!("spec.agent.skills[{at}].name"),
                    "is missing",
                ));
            }
        }
    }
    if spec.sandbox_id.is_some() {
        let problem = "means nothing beside sandbox_id, which names a sandbox that exists";
        if spec.backend.is_some() {
            return Err(invalid("spec.backend", problem));
        }
        if spec.sandbox_spec.is_some() {
            return Err(invalid("spec.sandbox_spec", problem));
        }
    }
    if let Some(wire) = &spec.sandbox_spec {
        let checked = SandboxSpec::try_from(wire.clone())
            .map_err(|error| under("spec.sandbox_spec", &error))?;
        guard.check_env(checked.env.keys())?;
    }
    Ok(())
}

pub(super) fn execution(spec: &pb::ExecutionSpec, guard: &Guard) -> Result<()> {
    if spec.message.trim().is_empty() {
        return Err(invalid(
            "spec.message",
            "is empty: say what the agent is to do",
        ));
    }
    at_most("spec.message", spec.message.len(), MESSAGE_BYTES)?;
    env("spec.env", &spec.env, guard)?;
    if !(1..=ATTEMPTS).contains(&spec.max_attempts.unwrap_or(1)) {
        let problem = format_args!("must be from 1 to {ATTEMPTS}");
        return Err(invalid("spec.max_attempts", problem));
    }
    approvals("spec.approvals", spec.approvals.as_ref())
}

fn approvals(field: &str, approvals: Option<&pb::Approvals>) -> Result<()> {
    let Some(approvals) = approvals else {
        return Ok(());
    };
    known::<pb::approvals::Mode>(&format!("{field}.mode"), approvals.mode, true)?;
    for (at, rule) in approvals.rules.iter().enumerate() {
        let field = format!("{field}.rules[{at}].answer");
        known::<pb::approval_rule::Answer>(&field, rule.answer, false)?;
    }
    Ok(())
}

/// A field that names something for somebody.
pub(super) fn name(field: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(|b| b.is_ascii_graphic()) {
        let problem = format_args!("is not 1 to {NAME_BYTES} visible ASCII characters");
        return Err(invalid(field, problem));
    }
    Ok(())
}

fn env(field: &str, env: &HashMap<String, pb::EnvValue>, guard: &Guard) -> Result<()> {
    for (name, value) in env {
        let name = EnvName::new(name).map_err(|error| under(field, &error))?;
        guard.check_env([&name])?;
        EnvValue::new(&value.value).map_err(|error| {
            let field = format!("{field}['{}']", name.as_str().escape_debug());
            under(&field, &error)
        })?;
    }
    Ok(())
}

/// What a runner reports in one go. `seq` and what the daemon knows better is
/// not looked at.
pub(super) fn batch(events: &[pb::Event]) -> Result<()> {
    if events.len() > BATCH_EVENTS {
        let problem = format!(
            "events: {} are too many at once, {BATCH_EVENTS} are allowed",
            events.len()
        );
        return Err(Error::new(ErrorCode::TooLarge, problem).with_count(BATCH_EVENTS as u64));
    }
    let mut over = false;
    for (at, event) in events.iter().enumerate() {
        let field = format!("events[{at}]");
        if over {
            return Err(invalid(&field, "comes after the final phase"));
        }
        at_most(&field, event.encoded_len(), EVENT_BYTES)?;
        let what = required(&format!("{field}.what"), event.what.as_ref())?;
        over = self::event(&field, what)?;
    }
    Ok(())
}

/// Whether this is a final phase.
fn event(field: &str, what: &What) -> Result<bool> {
    let id = |name: &str, id: &str| match id {
        "" => Err(invalid(&format!("{field}.{name}"), "is missing")),
        _ => Ok(()),
    };
    match what {
        What::Phase(change) => {
            phase(&format!("{field}.phase"), change)?;
            return Ok(true);
        }
        What::Message(message) => {
            id("message.message_id", &message.message_id)?;
            known::<pb::MessageType>(&format!("{field}.message.type"), message.r#type, false)?;
        }
        What::Text(delta) => id("text.message_id", &delta.message_id)?,
        What::ToolCall(call) => {
            id("tool_call.tool_call_id", &call.tool_call_id)?;
            let field = format!("{field}.tool_call.status");
            known::<pb::ToolCallStatus>(&field, call.status, false)?;
        }
        What::Approval(approval) => {
            id("approval.tool_call_id", &approval.tool_call_id)?;
            let field = format!("{field}.approval.state");
            known::<pb::ApprovalState>(&field, approval.state, false)?;
        }
        What::Todos(todos) => {
            for (at, todo) in todos.items.iter().enumerate() {
                let field = format!("{field}.todos.items[{at}].status");
                known::<pb::TodoStatus>(&field, todo.status, false)?;
            }
        }
        What::Output(output) => id("output.tool_call_id", &output.tool_call_id)?,
        What::CancelRequested(_) => {
            let field = format!("{field}.cancel_requested");
            return Err(invalid(&field, "is the daemon's to record"));
        }
        What::Usage(_) => {}
    }
    Ok(false)
}

/// A runner may end an execution, and nothing else.
fn phase(field: &str, change: &pb::PhaseChange) -> Result<()> {
    let phase: pb::Phase = known(field, change.phase, false)?;
    if !is_final(phase) {
        return Err(invalid(
            field,
            format_args!(
                "{} is the daemon's to record; a runner ends an execution as COMPLETED, FAILED or CANCELLED",
                phase.as_str_name().trim_start_matches("PHASE_")
            ),
        ));
    }
    let field = format!("{field}.error");
    match (&change.error, phase) {
        (None, pb::Phase::Failed) => Err(invalid(&field, "is missing: say why it FAILED")),
        (Some(_), pb::Phase::Completed) => Err(invalid(&field, "is not for one that COMPLETED")),
        (Some(error), _) => Error::try_from(error.clone())
            .map(|_| ())
            .map_err(|error| under(&field, &error)),
        (None, _) => Ok(()),
    }
}

fn at_most(field: &str, bytes: usize, most: usize) -> Result<()> {
    if bytes <= most {
        return Ok(());
    }
    let problem = format!("{field}: has {bytes} bytes, and at most {most} are allowed");
    Err(Error::new(ErrorCode::TooLarge, problem).with_count(most as u64))
}

/// The value of an enum field; 0, which stands for none, only where it may.
fn known<E: TryFrom<i32>>(field: &str, number: i32, none: bool) -> Result<E> {
    if number == 0 && !none {
        return Err(invalid(field, "is missing"));
    }
    let problem = || invalid(field, format_args!("{number} is not one of its values"));
    E::try_from(number).map_err(|_| problem())
}

fn under(field: &str, error: &Error) -> Error {
    Error::new(error.code(), format!("{field}: {}", error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use stigmer_sdk::wire::sandbox;
    use tokio_util::task::TaskTracker;

    fn guard() -> std::sync::Arc<Guard> {
        Guard::new(Limits::default(), TaskTracker::new())
    }

    fn value(text: &str) -> pb::EnvValue {
        pb::EnvValue {
            value: text.to_owned(),
            secret: true,
        }
    }

    #[track_caller]
    fn refused(result: Result<()>, expected: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.message(), expected);
    }

    #[test]
    fn executions_say_something_that_makes_sense() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut pb::ExecutionSpec), expected: &str) {
            let mut spec = pb::ExecutionSpec {
                message: "do it".to_owned(),
                ..Default::default()
            };
            execution(&spec, &guard()).unwrap();
            change(&mut spec);
            refused(execution(&spec, &guard()), expected);
        }
        check(
            |spec| spec.message = " \n".to_owned(),
            "spec.message: is empty: say what the agent is to do",
        );
        check(
            |spec| spec.message = "x".repeat(MESSAGE_BYTES + 1),
            "spec.message: has 1048577 bytes, and at most 1048576 are allowed",
        );
        check(
            |spec| spec.max_attempts = Some(0),
            "spec.max_attempts: must be from 1 to 100",
        );
        check(
            |spec| drop(spec.env.insert("A=".to_owned(), value(""))),
            "spec.env: 'A=' cannot name an environment variable",
        );
        check(
            |spec| drop(spec.env.insert("A".to_owned(), value("hidden\0"))),
            "spec.env['A']: an environment value may not contain a NUL byte",
        );
        check(
            |spec| drop(spec.env.insert("STIGMER_SANDBOX_ID".to_owned(), value(""))),
            "STIGMER_SANDBOX_ID is set by Stigmer itself",
        );
        check(
            |spec| {
                spec.approvals = Some(pb::Approvals {
                    mode: 9,
                    ..Default::default()
                });
            },
            "spec.approvals.mode: 9 is not one of its values",
        );
        check(
            |spec| {
                spec.approvals = Some(pb::Approvals {
                    rules: vec![pb::ApprovalRule::default()],
                    ..Default::default()
                });
            },
            "spec.approvals.rules[0].answer: is missing",
        );
    }

    #[test]
    fn sessions_have_one_sandbox() {
        let spec = pb::SessionSpec {
            sandbox_id: Some("fs:a".to_owned()),
            ..Default::default()
        };
        session(&spec, &guard()).unwrap();
        let two = pb::SessionSpec {
            backend: Some("fs".to_owned()),
            ..spec
        };
        refused(
            session(&two, &guard()),
            "spec.backend: means nothing beside sandbox_id, which names a sandbox that exists",
        );
        let limits = sandbox::Limits {
            memory_bytes: Some(0),
            ..Default::default()
        };
        let spec = pb::SessionSpec {
            sandbox_spec: Some(sandbox::SandboxSpec {
                limits: Some(limits),
                ..Default::default()
            }),
            ..Default::default()
        };
        refused(
            session(&spec, &guard()),
            "spec.sandbox_spec: limits.memory_bytes: must be above 0",
        );
    }

    #[test]
    fn batches_hold_what_a_runner_may_say() {
        #[track_caller]
        fn check(whats: Vec<What>, expected: Option<&str>) {
            let events: Vec<_> = whats
                .into_iter()
                .map(|what| pb::Event {
                    what: Some(what),
                    ..Default::default()
                })
                .collect();
            match expected {
                None => batch(&events).unwrap(),
                Some(expected) => refused(batch(&events), expected),
            }
        }
        let text = |text: String| {
            What::Text(pb::TextDelta {
                message_id: "m".to_owned(),
                text,
            })
        };
        let phase = |phase: pb::Phase, code: Option<i32>| {
            What::Phase(pb::PhaseChange {
                phase: phase.into(),
                error: code.map(|code| sandbox::Error {
                    code,
                    ..Default::default()
                }),
                ..Default::default()
            })
        };
        check(vec![], None);
        check(vec![text(String::new()); BATCH_EVENTS], None);
        check(
            vec![text(String::new()); BATCH_EVENTS + 1],
            Some("events: 1001 are too many at once, 1000 are allowed"),
        );
        check(
            vec![text("x".repeat(EVENT_BYTES))],
            Some("events[0]: has 1048587 bytes, and at most 1048576 are allowed"),
        );
        check(
            vec![text(String::new()), phase(pb::Phase::Completed, None)],
            None,
        );
        check(vec![phase(pb::Phase::Failed, Some(1))], None);
        check(
            vec![phase(pb::Phase::Failed, None)],
            Some("events[0].phase.error: is missing: say why it FAILED"),
        );
        check(
            vec![phase(pb::Phase::Failed, Some(0))],
            Some("events[0].phase.error: code: is missing"),
        );
        check(
            vec![phase(pb::Phase::Completed, Some(1))],
            Some("events[0].phase.error: is not for one that COMPLETED"),
        );
        check(
            vec![phase(pb::Phase::Cancelled, None), text(String::new())],
            Some("events[1]: comes after the final phase"),
        );
        check(
            vec![phase(pb::Phase::InProgress, None)],
            Some(
                "events[0].phase: IN_PROGRESS is the daemon's to record; a runner ends an execution as COMPLETED, FAILED or CANCELLED",
            ),
        );
        check(
            vec![What::CancelRequested(String::new())],
            Some("events[0].cancel_requested: is the daemon's to record"),
        );
        check(
            vec![What::Message(pb::Message::default())],
            Some("events[0].message.message_id: is missing"),
        );
        check(
            vec![What::ToolCall(pb::ToolCall {
                tool_call_id: "t".to_owned(),
                status: 77,
                ..Default::default()
            })],
            Some("events[0].tool_call.status: 77 is not one of its values"),
        );
        refused(batch(&[pb::Event::default()]), "events[0].what: is missing");
    }
}
