//! The daemon's process: started, watched until it is ready, and if that fails
//! ended again with everything it had started.
//!
//! ```text
//! spawned ──Status answers, health SERVING, runner READY──▶ ready
//!    │
//!    └─ended, runner ended, 30 s, a signal─▶ SIGTERM ▶ 10 s ▶ SIGKILL ▶ nothing left
//! ```
//!
//! Keys go through a pipe that is the daemon's stdin; whatever of them is in
//! our environment is not in the daemon's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process};
use stigmer_sdk::wire::host::{ComponentState, RunnerStatus, StatusRequest, StatusResponse};
use tokio::time::Instant;

use super::super::daemon::Daemon;
use super::super::failure::{Failure, Result};
use super::Interrupts;
use super::contact;
use super::last_words::{LastWords, Of, STDERR};
use super::logs::LOGS;
use super::plan::Plan;
use super::process::{Living, RUNNER_PID, private_directory, tidy};
use crate::config::{Config, is_secret};

/// How long a daemon may take until it is ready.
const READY: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const INTERVAL: Duration = Duration::from_millis(4);
/// How long one that does not become ready may take to end, its runner
/// included, which it gives five seconds itself.
const END: Duration = Duration::from_secs(10);

/// A daemon that is ready, and a child of ours.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) status: StatusResponse,
}

/// Why a daemon did not become ready.
#[derive(Debug)]
enum Cause {
    Ended(ExitStatus),
    Runner(RunnerStatus),
    Late(String),
    Interrupted(i32),
    Unwatched(Failure),
}

/// Starts a daemon, and waits until it is ready. Only for whoever has the
/// start lock.
pub(super) async fn launch(plan: &Plan<'_>, interrupts: &mut Interrupts) -> Result<Launched> {
    let mut words = LastWords::from_now(plan.config);
    let mut child = spawn(plan)?;
    let spinner = spinner(plan);
    let ready = tokio::select! {
        biased;
        signal = interrupts.recv() => Err(Cause::Interrupted(signal)),
        ready = ready(plan, &mut child) => ready,
    };
    let cause = match ready {
        Ok(status) => {
            spinner.finish_and_clear();
            return Ok(Launched { child, status });
        }
        Err(cause) => cause,
    };
    // Before its end has words of its own.
    words.listen();
    spinner.set_message("stopping what was started");
    abandon(plan.config, &mut child, interrupts).await;
    spinner.finish_and_clear();
    Err(failure(cause, &words))
}

fn spinner(plan: &Plan<'_>) -> ProgressBar {
    if !plan.output.shows_progress() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {msg}").expect("a template");
    spinner.set_style(style);
    spinner.set_message("waiting until it is ready");
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

fn spawn(plan: &Plan<'_>) -> Result<Child> {
    let config = plan.config;
    let logs = config.data_dir.join(LOGS);
    private_directory(&logs).map_err(|error| {
        Failure::failed(format!("failed to create log directory {}", logs.display()))
            .because(&error)
    })?;
    let start = || {
        // What it says before it has a log, and what a panic says.
        let stderr = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(logs.join(STDERR))?;
        let (reader, writer) = io::pipe()?;
        let child = command(plan, stderr, reader)?.spawn()?;
        io::Result::Ok((child, writer))
    };
    let (mut child, writer) = start()
        .map_err(|error| Failure::failed("failed to start daemon process").because(&error))?;
    // What it does not read, because it has ended, its end tells more about.
    if let Err(error) = plan.keys.write_to(writer)
        && matches!(child.try_wait(), Ok(None))
    {
        child.kill().ok();
        child.wait().ok();
        return Err(error.into());
    }
    Ok(child)
}

fn command(plan: &Plan<'_>, stderr: File, stdin: io::PipeReader) -> io::Result<Command> {
    let config = plan.config;
    #[expect(
        clippy::disallowed_methods,
        reason = "the daemon is this very program, started for its user and not in a sandbox"
    )]
    // By this name it is the same program also after an upgrade.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("stigmer")
        .args(["server", "--handover", "--mode", "local"])
        .arg("--data-dir")
        .arg(&config.data_dir)
        .arg("--log-dir")
        .arg(config.data_dir.join(LOGS))
        .args(["--log-level", &config.log_level])
        .args(["--port", &config.port.to_string()])
        .args(["--sandbox", &config.sandbox])
        .arg("--root")
        .arg(&config.root);
    if let Some(model) = &plan.model {
        command
            .arg("--agent-runner")
            .args(["--provider", model.provider.as_str()])
            .args(["--model", &model.name]);
    }
    for row in config.sources.iter().filter(|row| is_secret(row.name)) {
        command.env_remove(row.name);
    }
    if let Some(script) = &config.agent_runner {
        // It may be relative to where we are, and the daemon is elsewhere.
        command.env("STIGMER_AGENT_RUNNER_SCRIPT", script);
    }
    command
        // It must not keep a directory that somebody wants to unmount.
        .current_dir(&config.data_dir)
        .stdin(stdin)
        .stdout(Stdio::from(stderr.try_clone()?))
        .stderr(stderr);
    Ok(command)
}

/// Waits until the daemon and the runner say that they are ready.
async fn ready(plan: &Plan<'_>, child: &mut Child) -> Result<StatusResponse, Cause> {
    let limit = Instant::now() + READY;
    let mut daemon: Option<Daemon> = None;
    let mut missing = "it did not answer".to_owned();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Err(Cause::Ended(status)),
            Ok(None) => {}
            Err(error) => {
                let failure = Failure::failed("cannot wait for the daemon").because(&error);
                return Err(Cause::Unwatched(failure));
            }
        }
        if Instant::now() >= limit {
            return Err(Cause::Late(missing));
        }
        let look = tokio::time::timeout_at(limit, look(plan, &mut daemon, child.id()));
        match look.await {
            Ok(Ok(Look::Ready(status))) => return Ok(*status),
            Ok(Ok(Look::Missing(what))) => missing = what,
            Ok(Ok(Look::RunnerEnded(runner))) => return Err(Cause::Runner(runner)),
            Ok(Err(failure)) => {
                missing = failure.problems.concat();
                daemon = None;
            }
            Err(_) => return Err(Cause::Late(missing)),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

enum Look {
    Ready(Box<StatusResponse>),
    /// What there is to wait for.
    Missing(String),
    RunnerEnded(RunnerStatus),
}

async fn look(plan: &Plan<'_>, kept: &mut Option<Daemon>, pid: u32) -> Result<Look> {
    let missing = |what: &str| Ok(Look::Missing(what.to_owned()));
    let daemon = match kept {
        Some(daemon) => daemon,
        None => match contact::connect(plan.config).await? {
            Some(daemon) => kept.insert(daemon),
            None => return missing("it did not answer"),
        },
    };
    let status = daemon.daemon().status(StatusRequest {}).await?.into_inner();
    if status.pid != pid {
        return Ok(Look::Missing(format!(
            "another daemon, process {}, answers on its socket",
            status.pid
        )));
    }
    if plan.model.is_some() {
        let Some(runner) = &status.runner else {
            return missing("it did not start its agent runner");
        };
        match runner.state() {
            ComponentState::Ready => {}
            ComponentState::Unspecified | ComponentState::Starting => {
                return missing("its agent runner did not register");
            }
            // Once is enough: nothing will be different the second time, and
            // somebody is waiting.
            ComponentState::BackingOff | ComponentState::Failed | ComponentState::Stopped => {
                return Ok(Look::RunnerEnded(runner.clone()));
            }
        }
    }
    if !contact::serves(daemon).await {
        return missing("its health service did not say SERVING");
    }
    Ok(Look::Ready(Box::new(status)))
}

/// Ends a daemon that did not become ready, and everything that it started.
/// A signal meanwhile makes it quicker.
async fn abandon(config: &Config, child: &mut Child, interrupts: &mut Interrupts) {
    let pid = Pid::from_child(child);
    // Not waited for: the number is still its own.
    if matches!(child.try_wait(), Ok(None)) {
        let _gone = kill_process(pid, Signal::TERM);
        let ends = async {
            while matches!(child.try_wait(), Ok(None)) {
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            () = ends => {}
            () = tokio::time::sleep(END) => {}
            _ = interrupts.recv() => {}
        }
    }
    if matches!(child.try_wait(), Ok(None)) {
        child.kill().ok();
        child.wait().ok();
    }
    // It ends by itself when its daemon is gone.
    if let Ok(Some(runner)) = Living::named_in(&config.data_dir.join(RUNNER_PID))
        && !runner.ends(END).await
        && runner.signal(Signal::KILL).is_ok()
    {
        runner.ends(END).await;
    }
    tidy(config);
}

fn failure(cause: Cause, words: &LastWords) -> Failure {
    match cause {
        Cause::Interrupted(signal) => Failure::interrupted(signal),
        Cause::Unwatched(failure) => failure,
        Cause::Ended(status) => words.after(
            format!("failed to start daemon: it ended before it was ready, with {status}"),
            [Of::Stderr, Of::Daemon],
        ),
        Cause::Late(missing) => words.after(
            format!("failed to start daemon: {missing} within {READY:?}"),
            [Of::Daemon, Of::Stderr],
        ),
        Cause::Runner(runner) => {
            let why = if runner.last_failure.is_empty() {
                "it ended"
            } else {
                &runner.last_failure
            };
            words.after(
                format!("failed to start agent-runner: {why}"),
                [Of::Runner, Of::Daemon],
            )
        }
    }
}
