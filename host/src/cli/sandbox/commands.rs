//! Commands in a sandbox of the daemon, waited for or left running.

use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use stigmer_sdk::wire::host::{
    self, attach_process_request, attach_process_response, exec_stream_request,
    exec_stream_response, run::Program,
};
use stigmer_sdk::wire::sandbox as contract;
use stigmer_sdk::{Event, EventStream, ExitStatus, Input, InputStream};
use tonic::{Status, Streaming};

use crate::cli::daemon::{Daemon, incomplete};
use crate::cli::exit::Outcome;
use crate::cli::failure::{Failure, Result};
use crate::cli::follow::{Signals, Sink, channel, follow};
use crate::cli::output::{self, Output, RawStream, now_ms, table};
use crate::cli::run_args::RunArgs;
use crate::cli::terminal::{self, RawMode};
use crate::cli::value::Environment;

pub(super) const EXEC_HELP: &str = "\
Examples:
  stigmer sandbox exec web -- npm test
  stigmer sandbox exec web -- 'ps aux | head'      one word: a line for the shell
  stigmer sandbox exec -d web -- python3 -m http.server 8000

The exit code is the command's own: 128 + n if signal n ended it, 124 if it
timed out, 126 or 127 if it could not be run, 125 if Stigmer itself failed.
With --detach the process belongs to the sandbox, and its id is printed.";

pub(super) const PS_HELP: &str = "\
Examples:
  stigmer sandbox ps web --all
  stigmer sandbox ps web --follow 01J8…     its output, from the oldest kept
  stigmer sandbox ps web --stop 01J8…

--follow exits with the process' exit code; Ctrl-C leaves the process running.";

#[derive(Args, Debug)]
pub(in crate::cli) struct ExecArgs {
    /// Leave it running in the background, and print its id
    #[arg(short, long, conflicts_with_all = ["interactive", "tty", "json"])]
    detach: bool,

    /// The sandbox
    sandbox: String,

    #[command(flatten)]
    run: RunArgs,
}

impl ExecArgs {
    pub(in crate::cli) fn check(&self) -> Result<()> {
        self.run.check()
    }
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ShellArgs {
    /// The sandbox
    sandbox: String,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct PsArgs {
    /// The sandbox
    sandbox: String,

    /// Those that ended, too
    #[arg(long)]
    all: bool,

    /// Print the output of this process, and go on until it ends
    #[arg(long, value_name = "PROCESS", conflicts_with_all = ["all", "stop", "json"])]
    follow: Option<String>,

    /// Stop this process, with all that it started
    #[arg(long, value_name = "PROCESS", conflicts_with_all = ["all", "json"])]
    stop: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn check_shell() -> Result<()> {
    terminal::required("a shell")
        .map_err(|failure| failure.hint("to run commands without one: stigmer sandbox exec"))
}

pub(super) async fn exec(
    args: &ExecArgs,
    daemon: &Daemon,
    environment: &Environment,
    output: &Output,
) -> Result<Outcome> {
    let run = args.run.to_wire(&args.sandbox, environment)?;
    if args.detach {
        return start(run, daemon, output).await;
    }
    run_here(&args.run, run, daemon, output).await
}

pub(super) async fn shell(
    args: &ShellArgs,
    daemon: &Daemon,
    environment: &Environment,
    output: &Output,
) -> Result<Outcome> {
    let sandbox = daemon.sandbox(&args.sandbox).await?;
    let Some(program) = sandbox.shell.first() else {
        return Err(Failure::failed(format!("'{}' has no shell", args.sandbox)));
    };
    let run = RunArgs::under_terminal(program.clone());
    run_here(
        &run,
        run.to_wire(&args.sandbox, environment)?,
        daemon,
        output,
    )
    .await
}

async fn run_here(
    args: &RunArgs,
    run: host::Run,
    daemon: &Daemon,
    output: &Output,
) -> Result<Outcome> {
    let mut signals = Signals::listen()?;
    let raw = args.has_terminal().then(RawMode::enter).transpose()?;
    let (controls, inputs) = channel(args.passes_stdin(), output);
    let start = host::ExecStart {
        run: Some(run),
        capture: None,
        stdin: args.passes_stdin(),
    };
    let mut commands = daemon.commands();
    let response = signals
        .unless_asked(commands.exec_stream(requests(start, inputs)))
        .await?;
    let status = follow(
        exec_events(response.into_inner()),
        controls,
        &mut signals,
        Sink::new(args.format())?,
    )
    .await;
    drop(raw);
    Ok(Outcome::Command(status?))
}

/// The requests of a command. The wire says the end of stdin by half-closing,
/// after which there is no way for a signal: then the input is dropped, and
/// [`follow`] gives the command up instead.
fn requests(
    start: host::ExecStart,
    inputs: InputStream,
) -> impl futures_core::Stream<Item = host::ExecStreamRequest> {
    use exec_stream_request::Input as Wire;
    let inputs = stream::unfold(inputs, |mut inputs| async move {
        let input = match inputs.next().await? {
            Input::Stdin(bytes) => Wire::Stdin(bytes),
            Input::CloseStdin => return None,
            Input::Resize(size) => Wire::Resize(contract::Terminal {
                columns: size.columns().into(),
                rows: size.rows().into(),
            }),
            // Numbered as on Linux on both sides.
            Input::Signal(signal) => Wire::Signal(signal.number()),
        };
        Some((input, inputs))
    });
    stream::iter([Wire::Start(start)])
        .chain(inputs)
        .map(|input| host::ExecStreamRequest { input: Some(input) })
}

fn exec_events(responses: Streaming<host::ExecStreamResponse>) -> EventStream {
    use exec_stream_response::Event as Wire;
    responses
        .filter_map(|response| async move {
            match response.map(|response| response.event) {
                Ok(Some(Wire::Stdout(bytes))) => Some(Ok(Event::Stdout(bytes))),
                Ok(Some(Wire::Stderr(bytes))) => Some(Ok(Event::Stderr(bytes))),
                Ok(Some(Wire::Exit(result))) => Some(Ok(Event::Exit(exit_status(&result)))),
                // From a newer daemon; the exit still comes.
                Ok(None) => None,
                Err(status) => Some(Err(lost(&status))),
            }
        })
        .boxed()
}

/// The end of a stream of events that broke: an SDK error, so that local and
/// remote commands are followed by the same loop.
fn lost(status: &Status) -> stigmer_sdk::Error {
    let failure = Failure::from(status.clone());
    let text = [failure.problems, failure.causes].concat().join(": ");
    stigmer_sdk::Error::new(stigmer_sdk::ErrorCode::Unavailable, text)
}

fn exit_status(result: &host::CommandResult) -> ExitStatus {
    use contract::exit_status::Status as Wire;
    let code = |code: i32| ExitStatus::Code(u8::try_from(code).unwrap_or(u8::MAX));
    match result
        .status
        .as_ref()
        .and_then(|status| status.status.clone())
    {
        Some(Wire::Code(number)) => code(number),
        Some(Wire::Signal(number)) => ExitStatus::Signal(number),
        Some(Wire::TimedOut(_)) => ExitStatus::TimedOut,
        Some(Wire::Limit(limit)) => ExitStatus::Limit(limit),
        None => code(result.exit_code),
    }
}

async fn start(run: host::Run, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let request = host::StartProcessRequest {
        run: Some(run),
        ..host::StartProcessRequest::default()
    };
    let process = daemon
        .commands()
        .start_process(request)
        .await?
        .into_inner()
        .process;
    output.line(process.ok_or_else(incomplete)?.process_id)?;
    Ok(Outcome::Success)
}

pub(super) async fn ps(args: &PsArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    if let Some(process) = &args.follow {
        return attach(&args.sandbox, process, daemon).await;
    }
    if let Some(process) = &args.stop {
        let request = host::StopProcessRequest {
            sandbox_id: args.sandbox.clone(),
            process_id: process.clone(),
        };
        let stopped = daemon
            .commands()
            .stop_process(request)
            .await?
            .into_inner()
            .process
            .ok_or_else(incomplete)?;
        output.note(format!(
            "stopped {} ({})",
            stopped.process_id,
            state(&stopped)
        ));
        return Ok(Outcome::Success);
    }
    let request = host::ListProcessesRequest {
        sandbox_id: args.sandbox.clone(),
    };
    let mut processes = daemon
        .commands()
        .list_processes(request)
        .await?
        .into_inner()
        .processes;
    if !args.all {
        processes.retain(|process| process.result.is_none());
    }
    if args.json {
        output.json(&processes.iter().map(Shown::of).collect::<Vec<_>>())?;
    } else {
        output.text(listing(&processes, now_ms(), output))?;
    }
    Ok(Outcome::Success)
}

/// A process as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    command: String,
    state: String,
    exit_code: Option<i32>,
    started_ms: u64,
    output_bytes: u64,
}

impl<'a> Shown<'a> {
    fn of(process: &'a host::Process) -> Self {
        Self {
            id: &process.process_id,
            name: &process.name,
            command: command(process),
            state: state(process),
            exit_code: process.result.as_ref().map(|result| result.exit_code),
            started_ms: process.started_ms,
            output_bytes: process.output_bytes,
        }
    }
}

fn listing(processes: &[host::Process], now_ms: u64, output: &Output) -> String {
    let rows: Vec<_> = processes
        .iter()
        .map(|process| {
            vec![
                process.process_id.clone(),
                state(process),
                output::ago(process.started_ms, now_ms),
                output::bytes(process.output_bytes),
                output.shown(&command(process)).into_owned(),
            ]
        })
        .collect();
    table(&["PROCESS", "STATE", "AGE", "OUTPUT", "COMMAND"], &rows)
}

fn state(process: &host::Process) -> String {
    process.result.as_ref().map_or_else(
        || "running".to_owned(),
        |result| exit_status(result).to_string(),
    )
}

fn command(process: &host::Process) -> String {
    match process.run.as_ref().and_then(|run| run.program.as_ref()) {
        Some(Program::Shell(line)) => line.clone(),
        Some(Program::Argv(argv)) => argv.args.join(" "),
        None => String::new(),
    }
}

/// Prints what a background process writes. Nothing listens for signals here:
/// one ends this process and leaves the other alone.
async fn attach(sandbox: &str, process: &str, daemon: &Daemon) -> Result<Outcome> {
    use attach_process_request::Input as Request;
    use attach_process_response::Event as Response;
    let open = host::AttachProcessOpen {
        sandbox_id: sandbox.to_owned(),
        process_id: process.to_owned(),
        offset: None,
    };
    let open = host::AttachProcessRequest {
        input: Some(Request::Open(open)),
    };
    // The request stays open: its end would be the end of the call.
    let requests = stream::iter([open]).chain(stream::pending());
    let mut responses = daemon
        .commands()
        .attach_process(requests)
        .await?
        .into_inner();
    let (stdout, stderr) = (RawStream::stdout()?, RawStream::stderr()?);
    while let Some(response) = responses.message().await? {
        match response.event {
            Some(Response::Stdout(bytes)) => stdout.write(&bytes)?,
            Some(Response::Stderr(bytes)) => stderr.write(&bytes)?,
            Some(Response::Exit(result)) => return Ok(Outcome::Command(exit_status(&result))),
            None => {}
        }
    }
    Err(Failure::failed(format!(
        "the output of '{process}' broke off"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(
        status: Option<contract::exit_status::Status>,
        exit_code: i32,
    ) -> host::CommandResult {
        host::CommandResult {
            status: status.map(|status| contract::ExitStatus {
                status: Some(status),
            }),
            exit_code,
            ..host::CommandResult::default()
        }
    }

    #[test]
    fn every_exit_keeps_its_meaning() {
        use contract::exit_status::Status as Wire;
        #[track_caller]
        fn check(status: Option<Wire>, exit_code: i32, expected: ExitStatus) {
            assert_eq!(exit_status(&result(status, exit_code)), expected);
        }
        check(Some(Wire::Code(3)), 3, ExitStatus::Code(3));
        check(Some(Wire::Signal(15)), 143, ExitStatus::Signal(15));
        check(Some(Wire::TimedOut(true)), 124, ExitStatus::TimedOut);
        check(None, 7, ExitStatus::Code(7));
    }

    #[test]
    fn processes_are_a_table() {
        let running = host::Process {
            process_id: "p1".to_owned(),
            run: Some(host::Run {
                program: Some(Program::Shell("sleep 9 | cat".to_owned())),
                ..host::Run::default()
            }),
            ..host::Process::default()
        };
        let ended = host::Process {
            process_id: "p2".to_owned(),
            result: Some(result(Some(contract::exit_status::Status::Signal(9)), 137)),
            output_bytes: 2048,
            ..host::Process::default()
        };
        assert_eq!(
            listing(&[running, ended], 5_000, &Output::new(true, true)),
            "\
PROCESS  STATE     AGE  OUTPUT   COMMAND
p1       running   5s   0 B      sleep 9 | cat
p2       signal 9  5s   2.0 KiB"
        );
    }
}
