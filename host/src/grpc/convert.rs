//! The messages of `stigmer.host.v1`, in the words of the rest of the host.

use std::time::Duration;

use stigmer_sdk::wire::host::{self as pb, run};
use stigmer_sdk::wire::{self, invalid, required, sandbox};
use stigmer_sdk::{
    Command, Error, ExitStatus, Input, Metadata, Result, SandboxPath, Signal, Terminal,
};

use crate::config::Limits;
use crate::guard::Timeout;
use crate::ops::output::{Capture, Captured, Output, Preview};
use crate::processes::{Ended, Process};
use crate::sandboxes::{Known, State};

/// What people see of a process whose exit was lost with its backend: the exit
/// code of a failure of our own.
const LOST_EXIT_CODE: i32 = 125;

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn known_out(known: Known) -> pb::Sandbox {
    let state = match known.state {
        State::Ready => pb::SandboxState::Ready,
        State::Unreachable => pb::SandboxState::Unreachable,
        State::Gone => pb::SandboxState::Gone,
    };
    let isolation = known
        .isolation
        .map_or(sandbox::Isolation::Unspecified, Into::into);
    pb::Sandbox {
        expires_ms: known.expires_ms(),
        sandbox_id: known.record.id,
        name: known.record.name.unwrap_or_default(),
        backend: known.record.backend,
        workspace: known.record.workspace,
        shell: known.record.shell,
        labels: known.record.labels.into_iter().collect(),
        state: state.into(),
        created_ms: known.record.created_ms,
        used_ms: known.record.used_ms,
        isolation: isolation.into(),
        notice: known.notice,
    }
}

/// The command that a run describes, in a sandbox with this shell.
pub(super) fn command(run: &pb::Run, shell: &[String], stdin: bool) -> Result<Command> {
    let argv = match required("run.program", run.program.as_ref())? {
        run::Program::Argv(argv) => argv.args.clone(),
        run::Program::Shell(_) if shell.is_empty() => {
            return Err(Error::new(
                stigmer_sdk::ErrorCode::Unsupported,
                "run.shell: this sandbox has no shell; give the program and its arguments as `argv`",
            ));
        }
        run::Program::Shell(line) => shell.iter().chain([line]).cloned().collect(),
    };
    sandbox::Command {
        argv,
        env: run.env.clone(),
        cwd: run.cwd.clone(),
        user: run.user.clone(),
        terminal: run.terminal,
        merge_stderr: run.merge_stderr,
        stdin,
    }
    .try_into()
}

/// How long a run may take, if it says; else what is usual for its kind.
pub(super) fn timeout(run: &pb::Run, absent: Timeout) -> Timeout {
    match run.timeout_ms {
        None => absent,
        Some(0) => Timeout::None,
        Some(ms) => Timeout::After(Duration::from_millis(ms)),
    }
}

pub(super) fn capture(capture: Option<pb::Capture>, limits: &Limits) -> Result<Option<Capture>> {
    let Some(capture) = capture else {
        return Ok(None);
    };
    Ok(Some(Capture {
        path: wire::path("capture.path", capture.path)?,
        max_bytes: capture.max_bytes.unwrap_or(limits.capture_bytes),
        always: capture.always,
    }))
}

pub(super) fn preview(preview: pb::Preview) -> Preview {
    Preview {
        head_bytes: preview.head_bytes,
        tail_bytes: preview.tail_bytes,
        head_lines: preview.head_lines,
        tail_lines: preview.tail_lines,
    }
}

pub(super) fn output_out(output: Output) -> pb::Output {
    pb::Output {
        head: output.head,
        tail: output.tail,
        omitted_bytes: output.omitted_bytes,
        omitted_lines: output.omitted_lines,
    }
}

pub(super) fn result_out(
    status: ExitStatus,
    duration: Duration,
    captured: Option<Result<Captured>>,
) -> pb::CommandResult {
    let (captured, capture_error) = match captured {
        Some(Ok(captured)) => (Some(captured), None),
        Some(Err(error)) => (None, Some((&error).into())),
        None => (None, None),
    };
    pb::CommandResult {
        exit_code: status.exit_code().into(),
        status: Some(status.into()),
        duration_ms: millis(duration),
        captured: captured.map(|captured| pb::Captured {
            path: captured.path.as_str().to_owned(),
            bytes: captured.bytes,
            truncated: captured.truncated,
        }),
        capture_error,
    }
}

pub(super) fn ended_out(ended: Ended) -> pb::CommandResult {
    result_out(ended.status, ended.duration, ended.captured)
}

/// A process whose exit was lost is over all the same: it has a result without
/// a status.
pub(super) fn process_out(process: &Process, sandbox_id: &str) -> pb::Process {
    let result = process.ended().map(|ended| match ended {
        Ok(ended) => ended_out(ended.clone()),
        Err(_) => pb::CommandResult {
            exit_code: LOST_EXIT_CODE,
            ..pb::CommandResult::default()
        },
    });
    pb::Process {
        process_id: process.id.clone(),
        sandbox_id: sandbox_id.to_owned(),
        name: process.name.clone(),
        run: Some(process.run.clone()),
        started_ms: process.started_ms,
        result,
        output_bytes: process.output_bytes(),
    }
}

/// A run as it is shown later: its variables may hold secrets.
pub(super) fn without_values(mut run: pb::Run) -> pb::Run {
    for value in run.env.values_mut() {
        "***".clone_into(value);
    }
    run
}

pub(super) fn exec_input(request: pb::ExecStreamRequest) -> Result<Input> {
    use pb::exec_stream_request::Input as Wire;
    Ok(match required("input", request.input)? {
        Wire::Start(_) => return Err(invalid("start", "may only come first")),
        Wire::Stdin(bytes) => Input::Stdin(bytes),
        Wire::Resize(terminal) => Input::Resize(Terminal::try_from(terminal)?),
        Wire::Signal(number) => Input::Signal(Signal::from_wire(number)?),
    })
}

/// A path in an answer is spelled as the request's is.
pub(super) fn file(path: &str, metadata: Metadata) -> sandbox::File {
    sandbox::File {
        path: path.to_owned(),
        metadata: Some(metadata.into()),
    }
}

/// `root`, a `/` where one is needed, and what lies below it.
pub(super) fn below(root: &str, path: &str) -> String {
    match (root, path) {
        ("", path) => path.to_owned(),
        (root, "") => root.to_owned(),
        (root, path) if root.ends_with('/') => format!("{root}{path}"),
        (root, path) => format!("{root}/{path}"),
    }
}

/// Where a search begins; the workspace if the request does not say.
pub(super) fn root(root: &str) -> Result<SandboxPath> {
    if root.is_empty() {
        Ok(SandboxPath::workspace())
    } else {
        wire::path("root", root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_spelled_as_requests() {
        #[track_caller]
        fn check(root: &str, path: &str, expected: &str) {
            assert_eq!(below(root, path), expected);
        }
        check("", "a/b", "a/b");
        check(".", "a", "./a");
        check("/", "a", "/a");
        check("src", "a", "src/a");
        check("src/", "a", "src/a");
        check("src/a", "", "src/a");
    }

    #[test]
    fn a_shell_line_needs_a_shell() {
        let shell = ["/bin/sh".to_owned(), "-c".to_owned()];
        let run = |program| pb::Run {
            program: Some(program),
            ..Default::default()
        };
        let line = run(run::Program::Shell("a | b".to_owned()));
        assert_eq!(
            command(&line, &shell, false).unwrap().argv(),
            ["/bin/sh", "-c", "a | b"]
        );
        assert_eq!(
            command(&line, &[], false).unwrap_err().code(),
            stigmer_sdk::ErrorCode::Unsupported
        );
        let argv = run(run::Program::Argv(pb::Argv {
            args: vec!["a".to_owned()],
        }));
        assert_eq!(command(&argv, &[], true).unwrap().argv(), ["a"]);
        let error = command(&pb::Run::default(), &shell, false).unwrap_err();
        assert_eq!(error.message(), "run.program: is missing");
    }

    #[test]
    fn no_timeout_and_none_given_are_different() {
        let run = |timeout_ms| pb::Run {
            timeout_ms,
            ..Default::default()
        };
        assert_eq!(timeout(&run(None), Timeout::Default), Timeout::Default);
        assert_eq!(timeout(&run(Some(0)), Timeout::Default), Timeout::None);
        assert_eq!(
            timeout(&run(Some(5)), Timeout::None),
            Timeout::After(Duration::from_millis(5))
        );
    }

    #[test]
    fn values_of_variables_are_not_shown_again() {
        let env = [("KEY".to_owned(), "hunter2".to_owned())].into();
        let shown = without_values(pb::Run {
            env,
            ..Default::default()
        });
        assert_eq!(shown.env["KEY"], "***");
    }
}
